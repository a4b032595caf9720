"""Optimisers as pairs of functions on trees: ``init(params)`` and ``update(grads, state, params)``.

Nothing is changed in place: new parameters and a new state come back, so the pair can stand inside ``wichi.jit``.
``Stepper`` applies one to the Tensors of an eager model.

>>> optimizer = adam(1e-2)
>>> params = {"w": np.ones(2)}
>>> state = optimizer.init(params)
>>> gradient = wichi.grad(lambda p: np.sum(p["w"] ** 2))(params)
>>> params, state = optimizer.update(gradient, state, params)
>>> params["w"]
array([0.99, 0.99])
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from wichi.pytree import leaves, tree_map
from wichi.tensor import Tensor

Rate = float | Callable[[Any], Any]


class Optimizer(NamedTuple):
    """``init(params) -> state`` and ``update(grads, state, params) -> (new params, new state)``."""

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], tuple[Any, Any]]


class State(NamedTuple):
    """The number of steps done (0-d int64) and the running averages of the method, trees like the parameters."""

    count: Any
    averages: tuple[Any, ...]


def _zeros(params: Any) -> Any:
    return tree_map(np.zeros_like, params)


def _rate(learning_rate: Rate, count: Any) -> Any:
    return learning_rate(count) if callable(learning_rate) else learning_rate


def sgd(learning_rate: Rate) -> Optimizer:
    """Steepest descent: ``p - rate * g``.

    Args:
        learning_rate: a number, or a function of the number of steps done.

    >>> params, state = sgd(0.1).update(2.0, sgd(0.1).init(1.0), 1.0)
    >>> params
    0.8
    """
    return Optimizer(functools.partial(_begin, 0), functools.partial(_sgd, learning_rate))


def momentum(learning_rate: Rate, decay: float = 0.9, nesterov: bool = False) -> Optimizer:
    """``v = decay * v + g``; ``p - rate * v``, or with ``nesterov`` ``p - rate * (g + decay * v)``, as PyTorch has it.

    I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.
    """
    return Optimizer(functools.partial(_begin, 1), functools.partial(_momentum, learning_rate, decay, nesterov))


def adam(learning_rate: Rate, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    """D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1."""
    return adamw(learning_rate, beta1, beta2, epsilon, weight_decay=0.0)


def adamw(
    learning_rate: Rate, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = 1e-2
) -> Optimizer:
    """Adam with decoupled weight decay: the parameters also shrink by ``rate * weight_decay``.

    I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2 (as in PyTorch, the
    decay is scaled by the learning rate).
    """
    settings = (learning_rate, beta1, beta2, epsilon, weight_decay)
    return Optimizer(functools.partial(_begin, 2), functools.partial(_adamw, *settings))


# --- their parts: functions of the module with the settings before the arguments, so that optimisers pickle ----------
def _begin(averages: int, params: Any) -> State:
    return State(np.int64(0), tuple(_zeros(params) for _ in range(averages)))


def _sgd(learning_rate: Rate, grads: Any, state: State, params: Any) -> tuple[Any, State]:
    rate = _rate(learning_rate, state.count)
    return tree_map(lambda p, g: p - rate * g, params, grads), State(state.count + 1, ())


def _momentum(
    learning_rate: Rate, decay: float, nesterov: bool, grads: Any, state: State, params: Any
) -> tuple[Any, State]:
    rate = _rate(learning_rate, state.count)
    velocity = tree_map(lambda v, g: decay * v + g, state.averages[0], grads)
    step = tree_map(lambda v, g: g + decay * v, velocity, grads) if nesterov else velocity
    return tree_map(lambda p, s: p - rate * s, params, step), State(state.count + 1, (velocity,))


def _adamw(
    learning_rate: Rate, beta1: float, beta2: float, epsilon: float, weight_decay: float,
    grads: Any, state: State, params: Any,
) -> tuple[Any, State]:  # fmt: skip
    rate, count = _rate(learning_rate, state.count), state.count + 1
    first = tree_map(lambda m, g: beta1 * m + (1 - beta1) * g, state.averages[0], grads)
    second = tree_map(lambda v, g: beta2 * v + (1 - beta2) * g * g, state.averages[1], grads)
    # Both averages start at zero; these factors undo the bias. As numbers, so that an element takes one division.
    step = rate / (1 - beta1 ** (count * 1.0))
    spread = 1 / np.sqrt(1 - beta2 ** (count * 1.0))

    def moved(p: Any, m: Any, v: Any) -> Any:
        kept = p * (1 - rate * weight_decay) if weight_decay else p
        return kept - _like(step, m) * m / (np.sqrt(v) * _like(spread, v) + epsilon)

    return tree_map(moved, params, first, second), State(count, (first, second))


def _like(number: Any, beside: Any) -> Any:
    """A float64 number in the dtype of what it meets, so that float32 parameters stay float32."""
    return number.astype(beside.dtype) if hasattr(beside, "dtype") else number


class Stepper:
    """An optimiser for the eager loop: changes the arrays of Tensors in place by their ``.grad``.

    >>> w = wichi.Tensor([1.0, 2.0])
    >>> optimizer = Stepper(sgd(0.25), [w])
    >>> (w**2).sum().backward()
    >>> optimizer.step()
    >>> optimizer.zero_grad()
    >>> w
    Tensor([0.5, 1. ])
    """

    def __init__(self, optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
        self.parameters = list(parameters)
        self._update = optimizer.update
        self._state = optimizer.init([p.data for p in self.parameters])

    def step(self) -> None:
        """One step along the gradients that the tensors hold now."""
        old, grads = [p.data for p in self.parameters], [p.grad for p in self.parameters]
        new, self._state = self._update(grads, self._state, old)
        for p, data in zip(self.parameters, leaves(new), strict=True):
            p.data = data  # written into the array that the model holds

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        for p in self.parameters:
            p.zero_grad()

"""Models as pure trees: a module is a tree whose leaves are ndarrays, and a function of its input.

``wichi.grad(loss)(mlp, x, y)`` answers a module-shaped tree of gradients. The same object works eagerly: called with
a Tensor it lifts each leaf to one Tensor *sharing its memory*, so both halves of wichi see the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

import wichi.numpy as wnp
from wichi import pytree
from wichi.errors import ArgumentError, ShapeError
from wichi.nn.activations import activation as activation_named
from wichi.nn.init import Initializer, fitting
from wichi.tensor import Tensor

Seed: TypeAlias = "int | np.random.Generator | None"  # a string: numpy.random is loaded when it is used


class Module:
    """The base of models: subclasses name their children (parameters or modules) and their static fields.

    A subclass is a node of trees by being defined; ``forward`` computes it on arrays, traced values or Tensors.
    """

    children: ClassVar[tuple[str, ...]] = ()
    static: ClassVar[tuple[str, ...]] = ()
    _lifted: Self | None = None  # the same module with Tensors as leaves, while it is used eagerly

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        pytree.register_attributes(cls, cls.children, cls.static)

    def forward(self, x: Any) -> Any:
        """The output for the input ``x``."""
        raise NotImplementedError(f"{type(self).__name__} has no forward. fix: def forward(self, x): ... in the class")

    def __call__(self, x: Any) -> Any:
        return self.lifted().forward(x) if isinstance(x, Tensor) else self.forward(x)

    def lifted(self) -> Self:
        """This module with Tensors as leaves, which share the memory of its arrays."""
        leaves, treedef = pytree.flatten(self)
        if leaves and isinstance(leaves[0], Tensor):
            return self
        kept = pytree.leaves(self._lifted) if self._lifted is not None else []
        if len(kept) != len(leaves) or any(t.data is not x for t, x in zip(kept, leaves, strict=True)):
            names = [path.lstrip(".") for path in pytree.paths(treedef)]
            tensors = [Tensor.sharing(x, name) for x, name in zip(leaves, names, strict=True)]
            self._lifted = pytree.unflatten(treedef, tensors)
        assert self._lifted is not None
        return self._lifted

    def parameters(self) -> list[Tensor]:
        """One Tensor a parameter array, sharing its memory: ``p -= lr * p.grad`` changes the model itself."""
        return pytree.leaves(self.lifted())

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to zero."""
        for p in self.parameters():
            p.zero_grad()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_lifted"}


class Layer(Module):
    """A dense layer, ``activation(x @ w + b)``.

    Args:
        dim_in, dim_out: sizes of input and output; ``w`` has shape ``(dim_in, dim_out)``, ``b`` ``(dim_out,)``.
        activation: ``"relu"``, ``"tanh"``, ``"sigmoid"``, ``"softplus"`` or ``"linear"``.
        seed: an int, a Generator, or None for fresh randomness.
        init: the initializer of ``w``; by default the one that suits the activation. ``b`` starts at zero.
        dtype: of the parameters.

    Called with ``x`` of shape ``(..., dim_in)`` it answers ``(..., dim_out)``.

    >>> Layer(3, 2, seed=0)(np.ones((5, 3))).shape
    (5, 2)
    """

    children = ("w", "b")
    static = ("activation",)

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        activation: str = "relu",
        *,
        seed: Seed = None,
        init: Initializer | None = None,
        dtype: DTypeLike = float,
    ) -> None:
        if dim_in < 1 or dim_out < 1:
            raise ArgumentError(f"A layer from {dim_in} to {dim_out} has no weights.", fix="sizes of at least 1")
        activation_named(activation)
        self.activation = activation
        self.w: Any = (init or fitting(activation))(np.random.default_rng(seed), dim_in, dim_out, dtype)
        self.b: Any = np.zeros(dim_out, dtype)

    def forward(self, x: Any) -> Any:
        width = np.shape(x)[-1] if np.ndim(x) else None
        if width != np.shape(self.w)[0]:
            raise ShapeError(
                f"The layer takes inputs of shape (..., {np.shape(self.w)[0]}); it was given {np.shape(x)}."
            )
        return activation_named(self.activation)(wnp.matmul(x, self.w) + self.b)

    def __repr__(self) -> str:
        shape = np.shape(self.w)
        return f"{type(self).__name__}({shape[0]}, {shape[1]}, {self.activation!r})" if len(shape) == 2 else (
            f"{type(self).__name__}(w={self.w}, b={self.b})")  # fmt: skip


class Neuron(Layer):
    """One neuron: a layer with a single output, ``(..., dim_in) -> (..., 1)``."""

    def __init__(self, dim_in: int, activation: str = "relu", *, seed: Seed = None, dtype: DTypeLike = float) -> None:
        super().__init__(dim_in, 1, activation, seed=seed, dtype=dtype)


class MLP(Module):
    """A multilayer perceptron: dense layers one after the other.

    Args:
        dim: the sizes from input to output, for instance ``[784, 80, 20, 10]``.
        activation: of all layers but the last.
        output: of the last layer; ``"linear"`` gives logits or regression values.
        seed, dtype: as for ``Layer``.

    Raises:
        ArgumentError: fewer than two sizes.

    >>> mlp = MLP(dim=[4, 8, 3], seed=0)
    >>> mlp(np.ones((5, 4))).shape
    (5, 3)
    """

    children = ("layers",)

    def __init__(
        self,
        dim: Sequence[int],
        activation: str = "relu",
        output: str = "linear",
        *,
        seed: Seed = None,
        dtype: DTypeLike = float,
    ) -> None:
        if len(dim) < 2:
            raise ArgumentError(
                f"MLP(dim={list(dim)}) has no layer.", fix="give input and output sizes: dim=[784, 80, 10]"
            )
        rng = np.random.default_rng(seed)
        names = [activation] * (len(dim) - 2) + [output]
        self.layers: list[Any] = [
            Layer(a, b, name, seed=rng, dtype=dtype) for a, b, name in zip(dim[:-1], dim[1:], names, strict=True)
        ]

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def __repr__(self) -> str:
        return f"MLP({', '.join(map(repr, self.layers))})"

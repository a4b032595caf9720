"""Optimisers against PyTorch's, on trees, inside jit, and for the eager loop."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from wichi import MLP, Tensor, nn, optim

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'wichi[test]' has it")
PAIRS = {
    "sgd": (optim.sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (optim.momentum(0.1, 0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8)),
    "nesterov": (
        optim.momentum(0.1, 0.8, nesterov=True), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True),
    ),
    "adam": (optim.adam(0.05, 0.8, 0.95), lambda p: torch.optim.Adam(p, 0.05, betas=(0.8, 0.95))),
    "adamw": (optim.adamw(0.05, weight_decay=0.3), lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.3)),
}  # fmt: skip


def loss(params):
    return np.sum(np.tanh(params["w"] - 3.0) ** 4) + np.sum(np.cos(params["b"]))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("compiled", [True, False])
def test_twenty_steps_as_in_torch(name, compiled):
    optimizer, make = PAIRS[name]
    params = {"w": np.array([1.0, 2.0, 4.5]), "b": np.array(0.3)}
    theirs = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    other = make(theirs.values())
    update = wichi.jit(optimizer.update) if compiled else optimizer.update
    gradient, state = wichi.grad(loss), optimizer.init(params)
    for _ in range(20):
        params, state = update(gradient(params), state, params)
        other.zero_grad()
        ((torch.tanh(theirs["w"] - 3.0) ** 4).sum() + theirs["b"].cos()).backward()
        other.step()
    for k, v in params.items():
        np.testing.assert_allclose(v, theirs[k].detach().numpy(), rtol=1e-12)
    assert state.count == 20


@pytest.mark.parametrize("name", PAIRS)
def test_stepper_gives_the_same_numbers_eagerly(name):
    optimizer, _ = PAIRS[name]
    eager, functional = MLP([4, 6, 2], seed=0), MLP([4, 6, 2], seed=0)
    x, y = np.random.default_rng(0).standard_normal((8, 4)), np.zeros((8, 2))
    stepper, state = optim.Stepper(optimizer, eager.parameters()), optimizer.init(functional)
    gradient = wichi.grad(lambda m: nn.mean_squared_error(y, m(x)))
    for _ in range(5):
        value = nn.mean_squared_error(Tensor(y), eager(Tensor(x)))
        stepper.zero_grad()
        value.backward()
        stepper.step()
        functional, state = optimizer.update(gradient(functional), state, functional)
    for a, b in zip(wichi.pytree.leaves(eager), wichi.pytree.leaves(functional), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_learning_rate_may_follow_a_schedule():
    optimizer = optim.sgd(lambda count: 1.0 / (1.0 + count))
    update = wichi.jit(optimizer.update)
    p, state = np.array(0.0), optimizer.init(np.array(0.0))
    for _ in range(3):
        p, state = update(np.array(-1.0), state, p)
    assert p == pytest.approx(1 + 1 / 2 + 1 / 3)


@pytest.mark.parametrize("name", PAIRS)
def test_float32_parameters_stay_float32(name):
    optimizer, _ = PAIRS[name]
    p = np.ones(3, np.float32)
    state = optimizer.init(p)
    for _ in range(2):
        p, state = wichi.jit(optimizer.update)(p * 2, state, p)
    assert p.dtype == np.float32
    assert all(a.dtype == np.float32 for a in wichi.pytree.leaves(state.averages))


def test_stepper_marks_the_change_for_backward():
    w = Tensor([1.0, 2.0])
    value = (w**2).sum()
    value.backward()
    optim.Stepper(optim.sgd(0.1), [w]).step()
    with pytest.raises(wichi.errors.InPlaceError):
        value.backward()

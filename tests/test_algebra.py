"""What the builder simplifies, and that it changes no value and no derivative."""

from __future__ import annotations

import numpy as np
import pytest

import wichi

X = np.random.default_rng(0).standard_normal((4, 3)) * 3


def logsumexp(x):
    top = np.max(x, axis=1)
    return np.log(np.sum(np.exp(x - top[:, None]), axis=1)) + top


def softmax(x):
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


def log_softmax(x):
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


WEIGHTS = np.random.default_rng(1).standard_normal((4, 3))


@pytest.mark.parametrize("f", [logsumexp, softmax, log_softmax])
def test_what_is_subtracted_for_stability_costs_no_derivative(f):
    weights = WEIGHTS if f is not logsumexp else WEIGHTS[:, 0]

    def loss(x):
        return np.sum(f(x) * weights)

    np.testing.assert_allclose(wichi.jit(f)(X), f(X), rtol=1e-14)
    graph = wichi.make_graph(wichi.value_and_grad(loss))(X)
    names = [e.prim.name for e in graph.eqns]
    assert "stop_gradient" in names
    assert "eq" not in names, "no derivative through the maximum"
    wichi.testing.check_grads(loss, (X,), order=2)
    ties = np.zeros((4, 3))
    np.testing.assert_allclose(wichi.grad(loss)(ties), central(loss, ties), atol=1e-7)


def central(f, x, step=1e-5):
    out = np.empty_like(x)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        out[place] = (f(up) - f(down)) / (2 * step)
    return out


def test_another_number_than_the_one_subtracted_keeps_its_derivative():
    square = X[:3]

    def misaligned(x):  # the maxima of rows stand beside the columns
        top = np.max(x, axis=1)
        return np.sum((np.log(np.sum(np.exp(x - top), axis=1)) + top) ** 2)

    def another(x):
        top = np.max(x, axis=1)
        return np.sum(np.log(np.sum(np.exp(x - top[:, None]), axis=1)) + 2 * top)

    def unequal(x):
        e = np.exp(x - np.max(x, axis=1, keepdims=True))
        return np.sum(e / np.sum(e, axis=0, keepdims=True) * x)

    for f in (misaligned, another, unequal):
        np.testing.assert_allclose(wichi.grad(f)(square), central(f, square), rtol=1e-6, atol=1e-7)


def test_operations_on_what_is_spread_are_done_before():
    graph = wichi.make_graph(lambda x, y: np.exp(np.broadcast_to(x[:, None], (4, 3)) * 2.0) + y)(X[:, 0], X)
    shapes = {e.prim.name: e.outs[0].aval.shape for e in graph.eqns}
    assert shapes["exp"] == shapes["mul"] == (4, 1)
    assert shapes["add"] == (4, 3)


@pytest.mark.parametrize("p", [0, 1, 2, 3, 4, 5, 7, -1, -2, 0.5, 1.5, 2.5, -1.5, -0.5, np.float64(1.5), np.array(2.5)])
def test_powers_by_constants_to_second_order(p):
    x = np.array([1.3, 0.7, 2.2])
    for power in (lambda x: x**p, lambda x: np.power(x, p)):
        np.testing.assert_allclose(wichi.jit(power)(x), x**p, rtol=1e-13)
        slope = p * x ** (p - 1.0)
        np.testing.assert_allclose(wichi.grad(lambda x: np.sum(power(x)))(x), slope, rtol=1e-12)
        np.testing.assert_allclose(wichi.jvp(power, (x,), (np.ones(3),))[1], slope, rtol=1e-12)
        bend = wichi.hessian(lambda x: np.sum(power(x)))(x)
        np.testing.assert_allclose(bend, np.diag(p * (p - 1.0) * x ** (p - 2.0)), rtol=1e-11, atol=1e-13)

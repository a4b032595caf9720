"""Products that need not be computed, against NumPy; and that they are gone."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from wichi.kernels.schedule import plan
from wichi.ops.products import matmul

RNG = np.random.default_rng(0)
A, B, C = (RNG.normal(size=s) for s in ((4, 5, 6), (4, 6, 30), (4, 5, 30)))
H = RNG.normal(size=(4, 5, 1))
V = RNG.normal(size=5)

CASES = {
    "columns": lambda a, b, c, h: np.sum(a @ b, axis=-1),
    "rows": lambda a, b, c, h: np.sum(a @ b, axis=1),
    "both": lambda a, b, c, h: np.sum(a @ b, axis=(1, 2)),
    "sign": lambda a, b, c, h: -np.sum(-(a @ b), axis=-1),
    "sum": lambda a, b, c, h: np.sum(c + a @ b, axis=-1),
    "difference": lambda a, b, c, h: np.sum(c - a @ b, axis=2),
    "turned": lambda a, b, c, h: np.sum(np.transpose(a @ b, (2, 0, 1)) - np.transpose(c, (2, 0, 1)), axis=0),
    "turned otherwise": lambda a, b, c, h: np.sum(-np.transpose(a @ b, (1, 2, 0)), axis=1),
    "factor": lambda a, b, c, h: np.sum(h * (a @ b), axis=-1),
    "factor and sum": lambda a, b, c, h: np.sum(2.0 * (c * h + (a @ b) * h), axis=-1),
    "factor of some axes": lambda a, b, c, h: np.sum(V[:, None] * (a @ b), axis=-1),
    "operand turned": lambda a, b, c, h: np.sum(a @ np.transpose(np.transpose(b, (2, 0, 1)) + 1.0, (1, 2, 0)), axis=-1),
    "equal columns": lambda a, b, c, h: a @ np.broadcast_to(b[:, :, :1], b.shape) + c,
    "equal rows": lambda a, b, c, h: np.broadcast_to(a[:, :1], a.shape) @ b,
    "equal terms": lambda a, b, c, h: a @ np.broadcast_to(b[:, :1], b.shape) - c,
    "equal terms on the left": lambda a, b, c, h: np.broadcast_to(a[:, :, :1], a.shape) @ b,
    "equal columns of all": lambda a, b, c, h: a @ np.broadcast_to(b[0, :, :1], b.shape),
    "equal columns turned": lambda a, b, c, h: np.einsum("kij,nkj->nki", a, np.broadcast_to(b[:, :, 0], (30, 4, 6))),
    "equal terms turned": lambda a, b, c, h: np.swapaxes(c @ np.broadcast_to(b[:, 0, :, None], (4, 30, 6)), 1, 2),
    "all equal": lambda a, b, c, h: np.broadcast_to(a[0, 0, 0], a.shape) @ b,
}
NOT = {
    "spread over the batch": lambda a, b, c, h: np.broadcast_to(a[0], a.shape) @ b,
    "over the batch": lambda a, b, c, h: np.sum(a @ b, axis=0),
    "over the batch too": lambda a, b, c, h: np.sum(a @ b, axis=(0, 2)),
    "factor that changes": lambda a, b, c, h: np.sum(c * (a @ b), axis=-1),
    "squared": lambda a, b, c, h: np.sum(np.square(a @ b), axis=-1),
    "read twice": lambda a, b, c, h: (lambda p: np.sum(p, axis=-1) + np.max(p, axis=-1))(a @ b),
    "an answer": lambda a, b, c, h: (lambda p: (p, np.sum(p, axis=-1)))(a @ b),
    "factor along one of two": lambda a, b, c, h: np.sum(h * (a @ b), axis=(1, 2)),
}


def largest_product(graph):
    sizes = [
        e.ins[0].aval.size * e.outs[0].aval.shape[-1] for s in plan(graph).steps for e in s.eqns if e.prim is matmul
    ]
    return max(sizes)


@pytest.mark.parametrize("name", [*CASES, *NOT])
def test_numbers(name):
    f = {**CASES, **NOT}[name]
    for got, want in zip(*map(wichi.pytree.leaves, (wichi.jit(f)(A, B, C, H), f(A, B, C, H))), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_product_is_not_computed(name):
    assert largest_product(wichi.jit(CASES[name]).graph(A, B, C, H)) < A.size * 30


@pytest.mark.parametrize("name", NOT)
def test_product_that_is_needed_is_computed(name):
    assert largest_product(wichi.jit(NOT[name]).graph(A, B, C, H)) == A.size * 30


def test_gradient_of_what_is_taken_away():
    """One product forward, one backward: the gradient of the means takes none of its size."""

    def loss(means, x, w):
        return np.sum(np.square(np.einsum("kij,nkj->nki", w, x[:, None, :] - means[None])))

    x, means, w = RNG.normal(size=(40, 5)), RNG.normal(size=(3, 5)), RNG.normal(size=(3, 5, 5))
    graph = wichi.grad(loss).graph(means, x, w)
    large = [e for s in plan(graph).steps for e in s.eqns if e.prim is matmul and e.outs[0].aval.size >= 40 * 15]
    assert len(large) == 1
    with wichi.debug():
        expected = wichi.grad(loss)(means, x, w)
    np.testing.assert_allclose(wichi.grad(loss)(means, x, w), expected, rtol=1e-12)


def test_of_integers_and_empty_arrays():
    f = lambda a, b: np.sum(a @ b, axis=-1)  # noqa: E731
    whole = np.arange(12).reshape(3, 4)
    assert np.array_equal(wichi.jit(f)(whole, whole.T), f(whole, whole.T))
    for m, k, n in ((0, 2, 3), (2, 0, 3), (2, 3, 0)):
        got = wichi.jit(f)(np.ones((m, k)), np.ones((k, n)))
        assert np.array_equal(got, f(np.ones((m, k)), np.ones((k, n))))

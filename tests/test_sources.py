"""Derivatives of functions that numba has compiled: their Python source is traced."""

from __future__ import annotations

import math
import types

import numba
import numpy as np
import pytest

import wichi

X = np.array([0.3, 0.5, 0.9])


@numba.njit
def square(x):
    return x * x


@numba.njit
def cubes(x):
    total = 0.0
    for i in range(len(x)):
        total += x[i] * square(x[i])
    return total


@numba.njit
def halved(x, n):
    if n == 0:
        return x
    return halved(0.5 * x, n - 1) + square(x)


@numba.njit(parallel=True)
def in_parallel(x):
    total = 0.0
    for i in numba.prange(x.shape[0]):
        total += np.sin(x[i])
    return total


def by_way_of_plain(x):
    return np.sum(halved(x, 3)) + cubes(x)


def with_cells(factor):
    @numba.njit
    def inner(x):
        return np.sum(factor * square(x))

    return inner


@numba.njit
def step(carry, x):
    return carry * 0.5 + square(x), carry


@pytest.mark.parametrize("f", [cubes, in_parallel, by_way_of_plain, with_cells(3.0)])
def test_value_gradient_and_hessian(f):
    value, slope = wichi.value_and_grad(f)(X)
    assert value == pytest.approx(f(X))
    differences = [(f(X + e) - f(X - e)) / 2e-6 for e in 1e-6 * np.eye(3)]
    np.testing.assert_allclose(slope, differences, rtol=1e-7)
    rows = [(wichi.grad(f)(X + e) - wichi.grad(f)(X - e)) / 2e-6 for e in 1e-6 * np.eye(3)]
    np.testing.assert_allclose(wichi.hessian(f)(X), rows, atol=1e-7)


WAYS = {
    "vmap": lambda: wichi.vmap(cubes)(np.stack([X, X]))[1],
    "jvp": lambda: wichi.jvp(cubes, (X,), (X,))[1] / 3,
    "vjp": lambda: wichi.vjp(cubes, X)[1](1.0)[0] @ X / 3,
    "jacobian": lambda: np.trace(wichi.jacobian(square)(X) * np.diag(X * X)) / 2,
    "checkpoint": lambda: wichi.grad(wichi.checkpoint(cubes))(X) @ X / 3,
    "cond": lambda: wichi.jit(lambda x: wichi.cond(x[0] > 0, cubes, np.sum, x))(X),
    "map": lambda: np.sum(wichi.jit(lambda x: wichi.map(square, x))(X) * X),
    "fori_loop": lambda: wichi.jit(lambda x: wichi.fori_loop(0, 1, numba.njit(lambda i, c: c + cubes(x)), 0.0))(X),
    "linearize": lambda: wichi.linearize(cubes, X)[1](X) / 3,
    "inside": lambda: wichi.jit(lambda x: wichi.grad(cubes)(x) @ x / 3)(X),
    "njit": lambda: wichi.njit(wichi.value_and_grad(cubes), X)(X)[0],
    "cfunc": lambda: wichi.cfunc(numba.njit(lambda x: x * x * x), 1.0).ctypes(float(np.cbrt(np.sum(X**3)))),
}


@pytest.mark.parametrize("way", WAYS)
def test_in_every_transform(way):
    assert WAYS[way]() == pytest.approx(np.sum(X**3))


def test_bodies_of_loops():
    def plain(x):
        carry = 0.0
        for v in x:
            carry = carry * 0.5 + v * v
        return carry

    value, slope = wichi.value_and_grad(lambda x: wichi.scan(step, 0.0, x)[0])(X)
    assert value == pytest.approx(plain(X))
    np.testing.assert_allclose(slope, 2 * X * [0.25, 0.5, 1.0])
    assert wichi.scipy.optimize.root(numba.njit(lambda x: x * x - 2.0), X).x == pytest.approx(np.sqrt(2.0) * np.ones(3))


def test_functions_that_take_their_place_are_followed(monkeypatch):
    f = wichi.jit(by_way_of_plain)
    for _ in range(3):
        assert f(X) == pytest.approx(by_way_of_plain(X))
    monkeypatch.setitem(globals(), "cubes", numba.njit(lambda x: np.sum(x)))
    assert f(X) == pytest.approx(by_way_of_plain(X))
    factor = 1.0

    @numba.njit
    def scaled(x):
        return x * 2.0

    g = wichi.jit(lambda x: np.sum(scaled(x)) * factor)
    assert g(X) == pytest.approx(2 * X.sum())
    factor = 5.0
    assert g(X) == pytest.approx(10 * X.sum())


def test_what_cannot_be_traced_says_so():
    @numba.njit
    def plain_math(x):
        return math.exp(x)

    with pytest.raises(wichi.errors.PlainFloatError, match=r"math.exp.*\n  at: .*test_sources.py"):
        wichi.grad(plain_math)(1.0)
    hidden = types.SimpleNamespace(table=[square])
    with pytest.raises(wichi.errors.MissingRuleError, match=r"numba has compiled(.|\n)*test_sources.py(.|\n)*py_func"):
        wichi.grad(lambda x: np.sum(hidden.table[0](x)))(X)
    with pytest.raises(TypeError, match="can't multiply"):  # the user's own mistake is what it is in Python
        wichi.jit(lambda x: x * square("no number"))(X)


def test_numbas_own_function_is_not_changed():
    assert by_way_of_plain.__globals__["cubes"] is cubes
    assert cubes.py_func.__globals__["square"] is square
    assert square(3.0) == 9.0

"""Neighbours: what reads shifted slices, and its gradient, in one pass; equal to the interpreter at every edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wichi
from wichi.kernels.schedule import plan


def differences(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def total_variation(x):
    return np.sum(np.sqrt((x[1:] - x[:-1]) ** 2 + 0.01))


def laplacian(u):
    inner = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:] - 4 * u[1:-1, 1:-1]
    return np.sum(inner**2 * 0.5) + np.sum(u[0] ** 2)


def reciprocal(x):  # what is computed outside the window is infinite, and must not be seen
    return np.sum(1.0 / (x[2:] * x[:-2]))


def both(x, f):
    native = wichi.value_and_grad(f)(x)
    with wichi.debug():
        return native, wichi.value_and_grad(f)(x)


@pytest.mark.parametrize("f", [differences, total_variation, reciprocal])
@pytest.mark.parametrize("n", [3, 8, 16, 17, 18, 31, 33, 1000])
def test_one_dimension(f, n):
    x = np.random.default_rng(n).uniform(0.5, 2.0, n)
    (value, gradient), (want, slope) = both(x, f)
    np.testing.assert_allclose(value, want, rtol=1e-13)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [(3, 3), (4, 20), (20, 4), (17, 33)])
def test_two_dimensions(shape):
    u = np.random.default_rng(0).standard_normal(shape)
    (value, gradient), (want, slope) = both(u, laplacian)
    np.testing.assert_allclose(value, want, rtol=1e-13)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12, atol=1e-12)


def test_one_nest_and_no_memory_between():
    found = plan(wichi.value_and_grad(differences).graph(np.ones(1000)))
    assert len(found.program.nests) == 1
    assert found.arena_bytes == 0


def test_the_printed_loops_run():
    x = np.linspace(0.5, 2.0, 37)
    f = wichi.value_and_grad(differences)
    space: dict = {}
    exec(f.source(x), space)
    value, gradient = space["program"](x)
    want = f(x)
    assert value == want[0]
    np.testing.assert_array_equal(gradient, want[1])


def test_what_is_dear_is_stored_and_read_through_its_bounds():
    def f(x):
        y = np.exp(np.sin(x[1:]) * np.cos(x[:-1]) + np.tanh(x[1:] - x[:-1]) + np.log1p(x[1:] ** 2))
        return np.sum(y * np.exp(y))

    x = np.random.default_rng(0).uniform(0.1, 1, 50)
    (value, gradient), (want, slope) = both(x, f)
    np.testing.assert_allclose(value, want, rtol=1e-13)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12)


def test_rows_and_batches():
    x = np.random.default_rng(0).standard_normal((40, 9))

    def each(x):
        return np.tanh(x[1:] - x[:-1]) @ np.ones(len(x) - 1) + x[0]

    gradients = wichi.jit(wichi.vmap(wichi.grad(each)))(x)
    np.testing.assert_allclose(gradients, np.stack([wichi.grad(each)(row) for row in x]), rtol=1e-12)
    np.testing.assert_allclose(wichi.hessian(differences)(x[0]), wichi.jacfwd(wichi.grad(differences))(x[0]), rtol=1e-10)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_random_windows(data):
    """Shifts of several axes, sums of several windows, what comes after them, at sizes around the length of a block."""
    ndim = data.draw(st.integers(1, 2))
    shape = [data.draw(st.integers(4, 20)) for _ in range(ndim)]
    parts = []
    for _ in range(data.draw(st.integers(1, 3))):
        cut = [data.draw(st.integers(0, 2)) for _ in range(ndim)]
        starts = [[data.draw(st.integers(0, c)) for c in cut] for _ in range(2)]
        parts.append((cut, starts, data.draw(st.sampled_from(["mul", "div", "tanh", "max"]))))

    def f(x):
        y, total = np.sin(x) + 1.5, 0.0
        for cut, starts, kind in parts:
            a, b = (y[tuple(slice(s, n - c + s) for s, n, c in zip(start, shape, cut, strict=True))] for start in starts)
            z = {"mul": lambda a, b: a * b, "div": lambda a, b: a / b, "tanh": lambda a, b: np.tanh(a - b),
                 "max": lambda a, b: np.maximum(a, b * 0.9)}[kind](a, b)  # fmt: skip
            total = total + np.sum(z * a)
        return total + np.sum(y * y)

    x = np.random.default_rng(0).standard_normal(shape)
    (value, gradient), (want, slope) = both(x, f)
    np.testing.assert_allclose(value, want, rtol=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-11, atol=1e-12)

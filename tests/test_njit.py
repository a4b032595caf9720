"""Gradients inside the user's own numba code: optimisers, integrators and samplers, equal to the plain ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numba
import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError

X = np.array([0.5, -0.3, 0.8])


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_value_and_gradient_as_from_python():
    f = wichi.value_and_grad(rosenbrock)
    compiled = wichi.njit(f, X)
    value, gradient = compiled(X)
    assert value == f(X)[0]
    np.testing.assert_array_equal(gradient, f(X)[1])


def test_gradient_descent():
    value_and_grad = wichi.njit(wichi.value_and_grad(rosenbrock), X)

    @numba.njit
    def descend(x, steps):
        for _ in range(steps):
            _, g = value_and_grad(x)
            x = x - 1e-3 * g
        return x

    x = X
    for _ in range(200):
        x = x - 1e-3 * wichi.grad(rosenbrock)(x)
    np.testing.assert_allclose(descend(X, 200), x, rtol=1e-12)
    np.testing.assert_allclose(descend(X, 100_000), 1.0, atol=1e-6)


def lorenz(state, p):
    x, y, z = state[0], state[1], state[2]
    return np.stack([p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z])


def test_adjoint_of_an_integrator():
    """Backward through Euler steps written in numba, with vector-Jacobian products by wichi."""
    p, s0, h = np.array([10.0, 28.0, 8.0 / 3.0]), np.array([1.0, 1.0, 1.0]), 0.01
    slope = wichi.njit(lorenz, s0, p)
    pull = wichi.njit(lambda s, p, ct: wichi.vjp(lorenz, s, p)[1](ct), s0, p, s0)

    @numba.njit
    def gradient(s0, p, steps):
        path = np.empty((steps + 1, 3))
        path[0] = s0
        for i in range(steps):
            path[i + 1] = path[i] + h * slope(path[i], p)
        ct, dp = 2 * path[steps], np.zeros(3)
        for i in range(steps - 1, -1, -1):
            ds, more = pull(path[i], p, h * ct)
            ct, dp = ct + ds, dp + more
        return ct, dp

    def loss(s, p):
        for _ in range(20):
            s = s + h * lorenz(s, p)
        return np.sum(s**2)

    for ours, want in zip(gradient(s0, p, 20), wichi.grad(loss, argnums=(0, 1))(s0, p), strict=True):
        np.testing.assert_allclose(ours, want, rtol=1e-12)


def test_langevin_sampler():
    log_density = lambda x: -0.5 * np.sum((x - 1.0) ** 2 / np.array([1.0, 4.0]))  # noqa: E731
    both = wichi.njit(wichi.value_and_grad(log_density), np.zeros(2))

    @numba.njit
    def sample(steps, seed):
        np.random.seed(seed)  # noqa: NPY002  (numba's own generator)
        x, h, kept = np.zeros(2), 0.9, np.empty((steps, 2))
        value, g = both(x)
        for i in range(steps):
            y = x + h * g + np.sqrt(2 * h) * np.random.standard_normal(2)  # noqa: NPY002
            new, g_new = both(y)
            forth, back = np.sum((y - x - h * g) ** 2), np.sum((x - y - h * g_new) ** 2)
            if np.log(np.random.random()) < new - value + (forth - back) / (4 * h):  # noqa: NPY002
                x, value, g = y, new, g_new
            kept[i] = x
        return kept

    kept = sample(60_000, 0)
    np.testing.assert_allclose(kept.mean(0), 1.0, atol=0.1)
    np.testing.assert_allclose(kept.var(0), [1.0, 4.0], rtol=0.15)


def test_other_transforms_and_results():
    jacobian = wichi.njit(wichi.jacobian(lambda x: np.tanh(x) * x[0]), X)
    np.testing.assert_allclose(jacobian(X), wichi.jacobian(lambda x: np.tanh(x) * x[0])(X), rtol=1e-14)
    hessian = wichi.njit(wichi.hessian(rosenbrock), X)
    np.testing.assert_allclose(hessian(X), wichi.hessian(rosenbrock)(X), rtol=1e-12)
    several = wichi.njit(lambda x, pair: ((x * pair[0], np.sum(x)), pair[1]), X, (2.0, np.ones(2)))
    (scaled, total), second = several(X, (3.0, np.zeros(2)))
    np.testing.assert_allclose(scaled, 3 * X)
    assert total == pytest.approx(X.sum())
    np.testing.assert_array_equal(second, [0, 0])


def test_numbers_strides_and_dtypes():
    f = wichi.njit(lambda x, k, n: np.sum(x) * k + n, X, 2.0, np.int64(3))
    assert f(X, 3, 4) == pytest.approx(3 * X.sum() + 4)
    wide = np.arange(6.0)
    assert f(wide[::2], 1.0, 0) == 6
    single = wichi.njit(lambda x: np.exp(x), X.astype(np.float32))
    assert single(X.astype(np.float32)).dtype == np.float32


def test_captured_arrays_are_read_anew():
    weights = np.ones(3)
    f = wichi.njit(lambda x: np.sum(x * weights), X)
    weights *= 2
    assert f(np.ones(3)) == 6


def test_large_arena_and_parallel_loops():
    gradient = wichi.njit(wichi.grad(lambda x: np.sum(np.tanh(np.outer(x, x)) @ x)), np.ones(60))

    @numba.njit(parallel=True, nogil=True)
    def each(xs):
        out = np.empty_like(xs)
        for i in numba.prange(len(xs)):
            out[i] = gradient(xs[i])
        return out

    xs = np.random.default_rng(0).standard_normal((40, 60))
    want = np.stack([wichi.grad(lambda x: np.sum(np.tanh(np.outer(x, x)) @ x))(x) for x in xs])
    np.testing.assert_allclose(each(xs), want, rtol=1e-12)


def test_wrong_types_shapes_and_indices():
    f = wichi.njit(lambda x, i: x[i], X, np.array([0]))
    with pytest.raises(numba.errors.TypingError, match=r"wichi.njit of .*the argument x must be f64\[3\]"):
        f(X.astype(np.float32), np.array([0]))
    with pytest.raises(numba.errors.TypingError, match="the argument i"):
        f(X, np.array([0.5]))
    with pytest.raises(ValueError, match=r"x must have shape \(3,\)"):
        f(np.ones(4), np.array([0]))
    with pytest.raises(IndexError, match="outside its axis"):
        f(X, np.array([7]))
    with pytest.raises(ArgumentError, match="dict"):
        wichi.njit(lambda p: p["a"], {"a": X})
    with pytest.raises(ArgumentError, match="result"):
        wichi.njit(lambda x: {"a": x}, X)


def test_callers_code_is_not_written_to_disk(tmp_path):
    """It would hold addresses of a process that has ended."""
    (tmp_path / "model.py").write_text(
        textwrap.dedent(
            """
            import numba, numpy as np, wichi
            g = wichi.njit(wichi.grad(lambda x: np.sum(x**3)), np.ones(2))
            @numba.njit(cache=True)
            def f(x):
                return g(x) + 1
            assert f(np.ones(2)).tolist() == [4.0, 4.0]
            """
        )
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "model.py"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.nbc"))

"""NumPy's functions that are made of others: NumPy's values, and derivatives as differences say."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((3, 5)), RNG.standard_normal(7)
POINTS = np.array([-1.0, 0.0, 0.5, 2.0, 3.0])
HOLES = RNG.random((3, 5)) < 0.3
CASES = {
    "select": (lambda x: np.select([x > 1, x > 0], [x**2, 2 * x], -x), X),
    "select default": (lambda x: np.select([x > 100], [x]), X),
    "polyval": (lambda p: np.polyval(p, 1.3), Y),
    "polyval in x": (lambda x: np.polyval(np.array([2.0, -1.0, 0.5]), x), X),
    "nansum": (lambda x: np.nansum(np.where(HOLES, np.nan, x**2), axis=0), X),
    "nanmean": (lambda x: np.nanmean(np.where(HOLES, np.nan, x**3), axis=1), X),
    "append": (lambda x: np.append(x, 2 * x[0]), X),
    "append rows": (lambda x: np.append(x, x[:1], axis=0), X),
    "interp": (lambda x: np.interp(x * 2, POINTS, Y[:5]), X),
    "interp of values": (lambda f: np.interp(np.linspace(-2, 4, 9), POINTS, f), Y[:5]),
    "interp left right": (lambda x: np.interp(3 * x, POINTS, Y[:5], left=-7.0, right=9.0), X),
    "interp one point": (lambda x: np.interp(x, np.array([0.0]), np.array([3.0])) * x, X),
    "convolve full": (lambda x: np.convolve(x, np.array([1.0, -2.0, 0.5])), Y),
    "convolve same": (lambda x: np.convolve(x, np.array([1.0, -2.0, 0.5, 3.0]), "same"), Y),
    "convolve valid": (lambda x: np.convolve(np.array([1.0, -2.0]), x, "valid"), Y),
    "convolve self": (lambda x: np.convolve(x, x[:3]), Y),
    "cov": (lambda x: np.cov(x), X),
    "cov columns": (lambda x: np.cov(x, rowvar=False, ddof=0), X),
    "cov of two": (lambda x: np.cov(x, Y), Y + 1.5 * np.sin(Y)),
    "cov of one": (lambda x: np.cov(x), Y),
    "corrcoef": (lambda x: np.corrcoef(x), X),
    "around": (lambda x: np.around(10 * x) + x, X),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_numpys(name):
    f, x = CASES[name]
    want = f(x)
    got = wichi.jit(f)(x)
    assert np.shape(got) == np.shape(want)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_differences(name):
    f, x = CASES[name]
    weights = np.cos(np.arange(np.size(f(x)))).reshape(np.shape(f(x)))

    def loss(x):
        return np.sum(f(x) * weights)

    want = np.zeros(x.size)
    for i in range(x.size):
        e = np.zeros(x.size)
        e[i] = 1e-6
        e = e.reshape(x.shape)
        want[i] = (loss(x + e) - loss(x - e)) / 2e-6
    np.testing.assert_allclose(wichi.grad(loss)(x).ravel(), want, rtol=1e-6, atol=1e-7)


def test_comparisons_of_whole_arrays():
    assert wichi.jit(lambda x: np.allclose(x, x + 1e-12))(X)
    assert not wichi.jit(lambda x: np.allclose(x, x + 1e-3))(X)
    assert wichi.jit(lambda x: np.array_equal(x, x * 1.0))(X)
    assert not wichi.jit(lambda x: np.array_equal(x, x[:2]))(X)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: np.select([x > 0], [x, x]), ArgumentError),
        (lambda x: np.interp(x, POINTS, Y), ShapeError),
        (lambda x: np.interp(x, POINTS, Y[:5], period=1.0), ArgumentError),
        (lambda x: np.convolve(x, Y), ShapeError),
    ],
)
def test_bad_input(call, error):
    with pytest.raises(error):
        wichi.jit(call)(X)


@pytest.mark.parametrize("function", [np.cov, np.corrcoef])
def test_covariances_of_float32_are_float64(function):
    x = X.astype(np.float32)
    for call in (function, lambda x: function(x[0], x[1]), lambda x: function(x, dtype=np.float32)):
        got, want = wichi.jit(call)(x), call(x)
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-12 if want.dtype == float else 1e-5)
    assert wichi.grad(lambda x: np.sum(function(x)))(x).dtype == np.float32
    alike = np.stack([X[0], 3 * X[0], -0.1 * X[0]])
    assert np.max(np.abs(wichi.jit(np.corrcoef)(alike))) <= 1.0  # never more, as in NumPy


def test_covariance_with_no_degrees_of_freedom_left_is_infinite():
    with pytest.warns(RuntimeWarning, match="Degrees of freedom"), np.errstate(divide="ignore"):
        want = np.cov(X, ddof=6)
    np.testing.assert_array_equal(wichi.jit(lambda x: np.cov(x, ddof=6))(X), want)

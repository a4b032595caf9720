"""Sorting, medians, quantiles and searching: NumPy's values to the bit, derivatives, and every way to run them."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError, PlainArrayWriteError, ShapeError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 5))
TIES = RNG.integers(-2, 3, (3, 4, 5)).astype(float)
NANS = np.where(RNG.random(X.shape) < 0.2, np.nan, X)
ZEROS = np.array([0.0, -0.0, np.nan, 1.0, -0.0, -np.inf, 0.0, -np.nan, np.inf, np.nan])
ARRAYS = {
    "f8": X, "f4": X.astype("f4"), "i8": RNG.integers(-9, 9, X.shape), "u1": RNG.integers(0, 255, X.shape).astype("u1"),
    "bool": X > 0, "ties": TIES, "nan": NANS,
}  # fmt: skip


def assert_same(f, *args):
    want, got = f(*args), wichi.jit(f)(*args)
    assert np.shape(got) == np.shape(want)
    assert np.asarray(got).dtype == np.asarray(want).dtype
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_sort_and_argsort(name, axis):
    x = ARRAYS[name]
    assert_same(lambda x: np.sort(x, axis=axis, kind="stable"), x)
    assert_same(lambda x: np.argsort(x, axis=axis, stable=True), x)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 15, 16, 17, 25, 32, 33, 100, 1000, 4097])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "u8", "?"])
def test_all_lengths_sort_stably(n, dtype):
    run = wichi.jit(lambda x: (np.sort(x), np.argsort(x)))
    for x in (RNG.integers(0, 7, n), RNG.integers(0, 1 << 30, n), np.arange(n), np.arange(n)[::-1], np.zeros(n)):
        x = x.astype(dtype)
        if dtype[0] == "f":
            x[RNG.random(n) < 0.1] = np.nan
            x[RNG.random(n) < 0.1] = -0.0
        values, order = run(x)
        want = np.argsort(x, kind="stable")
        np.testing.assert_array_equal(order, want)
        assert values.tobytes() == x[want].tobytes()  # the signs of zeros too


def test_nan_last_and_zeros_equal():
    values, order = wichi.jit(lambda x: (np.sort(x), np.argsort(x)))(ZEROS)
    np.testing.assert_array_equal(order, np.argsort(ZEROS, kind="stable"))
    np.testing.assert_array_equal(np.signbit(values), np.signbit(ZEROS[order]))


def test_the_derivative_goes_where_the_value_came_from():
    w = np.arange(4.0) + 1
    want = np.zeros(X.shape)
    np.put_along_axis(want, np.argsort(X, 1), np.broadcast_to(w[:, None], X.shape), 1)
    np.testing.assert_array_equal(wichi.grad(lambda x: np.sum(np.sort(x, axis=1) * w[:, None]))(X), want)
    ties = np.array([1.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(wichi.grad(lambda x: np.sort(x) @ w)(ties), [3.0, 1.0, 4.0, 2.0])
    _, dot = wichi.jvp(np.sort, (ties,), (np.arange(4.0),))
    np.testing.assert_array_equal(dot, [1.0, 3.0, 0.0, 2.0])
    hessian = wichi.hessian(lambda x: np.sum(np.sort(x) ** 3 * w))(ties + np.arange(4) / 9)
    assert np.array_equal(hessian, np.diag(np.diag(hessian)))
    assert np.all(np.diag(hessian) >= 0)


def test_one_sort_serves_value_and_derivative():
    graph = wichi.make_graph(wichi.value_and_grad(lambda x: np.sum(np.sort(x) ** 2)))(X[0, 0])
    assert str(graph).count("sort") == 1


def test_in_batches_loops_and_branches():
    x = X[0]
    np.testing.assert_array_equal(wichi.jit(wichi.vmap(np.sort))(x), np.sort(x))
    np.testing.assert_array_equal(wichi.jit(wichi.vmap(np.sort, in_axes=1))(x), np.sort(x.T))
    np.testing.assert_array_equal(
        wichi.jit(wichi.vmap(lambda k, v: np.searchsorted(np.sort(k), v)))(x, x),
        [np.searchsorted(np.sort(r), r) for r in x],
    )

    def loss(x):
        def body(carry, row):
            ordered = np.sort(carry + row)
            return ordered, ordered[0]

        last, firsts = wichi.scan(body, np.zeros(5), x)
        return np.sum(last**2) + np.sum(np.sin(firsts))

    def plain(x):
        carry, total = np.zeros(5), 0.0
        for row in x:
            carry = np.sort(carry + row)
            total = total + np.sin(carry[0])
        return np.sum(carry**2) + total

    np.testing.assert_allclose(wichi.jit(loss)(x), plain(x), rtol=1e-14)
    np.testing.assert_allclose(wichi.grad(loss)(x), wichi.grad(plain)(x), rtol=1e-13)


def test_in_functions_for_numba_of_any_length():
    f = wichi.njit(
        wichi.value_and_grad(lambda x: np.sum(np.sort(x) ** 2) + 2 * np.sort(x)[0]), wichi.spec("f8", ("n",))
    )
    g = wichi.njit(lambda k, x: np.searchsorted(k, x), wichi.spec("f8", ("n",)), wichi.spec("f8", ("m",)))
    rows = wichi.njit(wichi.grad(lambda x: np.sum(np.sort(x, 0)[0] ** 2)), wichi.spec("f8", ("n", "m")))
    whole = wichi.njit(lambda x: np.median(x, axis=(0, 1)), wichi.spec("f8", ("n", "m")))
    assert whole(X[0]) == np.median(X[0])
    middle = wichi.njit(lambda x: np.median(x) + np.quantile(x, 0.3), wichi.spec("f8", ("n",)))
    for n in (1, 7, 40):
        x = RNG.standard_normal(n)
        assert middle(x) == np.median(x) + np.quantile(x, 0.3)
        value, slope = f(x)
        np.testing.assert_allclose(value, np.sum(x**2) + np.min(x) * 2, rtol=1e-14)
        np.testing.assert_allclose(slope, 2 * x + 2 * (x == x.min()), rtol=1e-14)
        np.testing.assert_array_equal(g(np.sort(x), X[0, 0]), np.searchsorted(np.sort(x), X[0, 0]))
        np.testing.assert_array_equal(rows(np.stack([x, x + 1])), [2 * x, 0 * x])


def test_in_functions_for_c():
    from scipy import ndimage

    image = RNG.normal(size=(20, 30))
    f = wichi.cfunc(np.median, np.zeros(9), style="filter")
    np.testing.assert_array_equal(
        ndimage.generic_filter(image, f.low_level_callable(), size=3), ndimage.median_filter(image, 3)
    )


def test_methods_and_writing_in_place():
    assert_same(lambda x: x.argsort(axis=0), X)

    def sorted_inside(x):
        y = x * 2
        y.sort(axis=1)
        return y

    assert_same(sorted_inside, X)
    assert_same(lambda x: np.sort(x, axis=0)[1:] * np.partition(x, 1, axis=0)[0], X)
    order = wichi.jit(lambda x: np.argpartition(x, 2))(X[0, 0])
    assert sorted(order) == list(range(5))
    with pytest.raises(PlainArrayWriteError):
        wichi.Tensor(X).sort()


@pytest.mark.parametrize("name", ["f8", "f4", "i8", "nan", "bool"])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (2, 1, 0)])
def test_medians(name, axis):
    for keepdims in (False, True):
        assert_same(lambda x: np.median(x, axis=axis, keepdims=keepdims), ARRAYS[name])


METHODS = ["linear", "lower", "higher", "midpoint", "nearest", "hazen", "weibull", "median_unbiased"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["f8", "f4", "i8", "nan"])
def test_quantiles(name, method):
    def several(x):
        return tuple(
            np.quantile(x, q, axis=axis, keepdims=keepdims, method=method)
            for q in (0.3, 1, [0.0, 0.55, 1.0], np.float32(0.3), np.float64(0.7), [[0.1, 0.2], [0.3, 0.9]])
            for axis in (None, 1, (0, -1))
            for keepdims in (False, True)
        )

    for got, want in zip(wichi.jit(several)(ARRAYS[name]), several(ARRAYS[name]), strict=True):
        assert np.shape(got) == np.shape(want)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


def test_quantiles_that_depend_on_input():
    for q in (0.3, 0.5, np.float64(0.31), np.array([0.0, 0.2, 1.0])):
        assert_same(lambda x, q: np.quantile(x, q, axis=1), X, q)
        assert_same(lambda x, q: np.percentile(x, q * 100), X.astype("f4"), q)
    slope = wichi.grad(lambda q: np.quantile(X[0, 0], q))(0.3)
    low, high = np.sort(X[0, 0])[1:3]
    assert np.isclose(slope, 4 * (high - low), rtol=1e-14)
    assert wichi.jit(lambda q: np.quantile(X, q))(1.5) == np.max(X)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.median(x, axis=1),
        lambda x: np.median(x[:2], axis=0),
        lambda x: np.quantile(x, [0.2, 0.77], axis=(0, 2)),
        lambda x: np.percentile(x, 33, method="midpoint", axis=0),
        lambda x: np.quantile(x, 0.4, method="hazen"),
        lambda x: np.sort(x, axis=0),
        lambda x: np.partition(x, 2, axis=None),
    ],
)
def test_gradients_are_differences(f):
    wichi.testing.check_grads(f, (X,), order=2)


def test_sizes_without_elements():
    with pytest.warns(RuntimeWarning):
        want = np.median(np.zeros((0, 3)), axis=0)
    np.testing.assert_array_equal(wichi.jit(lambda x: np.median(x, axis=0))(np.zeros((0, 3))), want)
    assert wichi.jit(lambda x: np.median(x, axis=1))(np.zeros((0, 3))).shape == (0,)
    assert wichi.jit(lambda x: np.quantile(x, [0.1, 0.2], axis=1))(np.zeros((0, 3))).shape == (2, 0)
    assert wichi.jit(np.median)(2.5) == 2.5
    assert wichi.jit(lambda x: np.quantile(x, 0.2))(2.5) == 2.5


KEYS = np.sort(RNG.integers(0, 9, 7))
VALUES = RNG.integers(0, 10, 20)


@pytest.mark.parametrize("side", ["left", "right"])
def test_places_in_sorted_arrays(side):
    for keys, values in (
        (KEYS, VALUES), (KEYS * 1.0, VALUES.reshape(4, 5)), (KEYS, np.float64(3.5)), (KEYS[:0], VALUES), (KEYS, VALUES[:0]),
        (np.sort(ZEROS), ZEROS),
    ):  # fmt: skip
        assert_same(lambda k, v: np.searchsorted(k, v, side), keys, values)
        assert_same(lambda v: np.searchsorted(keys, v, side), values)
    assert_same(lambda k: k.searchsorted([1, 2.5], side), KEYS)
    assert_same(lambda k: np.searchsorted(k[::-1], 3, side, sorter=np.arange(7)[::-1]), KEYS)
    assert_same(lambda v, k: np.digitize(v, k, right=side == "right"), VALUES, KEYS)
    assert_same(lambda v, k: np.digitize(v, k, right=side == "right"), VALUES, KEYS[::-1] * 1.0)
    assert_same(lambda v: np.digitize(v, KEYS, right=side == "right"), VALUES)
    assert_same(lambda v: np.digitize(v, KEYS[::-1], right=side == "right"), VALUES * 1.0)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: np.sort(x, axis=3), np.exceptions.AxisError, "axis 3"),
        (lambda x: np.sort(x[0, 0, 0]), np.exceptions.AxisError, "axis -1"),
        (lambda x: np.sort(x, kind="foo"), ValueError, "sort kind"),
        (lambda x: np.sort(x, kind="stable", stable=True), ValueError, "same time"),
        (lambda x: np.sort(x, order="field"), ValueError, "no fields"),
        (lambda x: np.partition(x, 5), ValueError, r"kth\(=5\) out of bounds \(5\)"),
        (lambda x: np.partition(x, 1.5), TypeError, "integer"),
        (lambda x: np.median(x, 0, np.empty((4, 5))), TypeError, "out"),
        (lambda x: np.percentile(x, 3, 0, np.empty((4, 5))), TypeError, "out"),
        (lambda x: np.median(x, axis=(0, 0)), ValueError, "duplicate"),
        (lambda x: np.quantile(x, 1.5), ValueError, "range"),
        (lambda x: np.percentile(x, -1), ValueError, "range"),
        (lambda x: np.quantile(x, 0.5, method="inverted_cdf"), ArgumentError, "linear"),
        (lambda x: np.quantile(x, 0.5, method="inverted_cdf", weights=np.ones(X.shape)), ArgumentError, "weights"),
        (lambda x: np.quantile(x[:0], 0.5), ShapeError, "no quantiles"),
        (lambda x: np.searchsorted(x, 1.0), ShapeError, "one axis"),
        (lambda x: np.searchsorted(x[0, 0], 1.0, side="middle"), ValueError, "side"),
        (lambda x: np.digitize(x, [0, 2, 1]), ValueError, "monotonically"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        wichi.jit(call)(X)

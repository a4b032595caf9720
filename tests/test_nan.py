"""Functions that leave nan out, and products so far: NumPy's values, and derivatives that are never nan."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

import wichi

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 5))
HOLES = np.where(RNG.random(X.shape) < 0.3, np.nan, X)
HOLES[0] = np.nan  # whole lines too
PARTS = np.where(np.indices(X.shape).sum(0) % 3 == 2, np.nan, X)  # in each line something is left
ARRAYS = {"f8": X, "nan": HOLES, "nan f4": HOLES.astype("f4"), "i8": RNG.integers(-3, 3, X.shape), "bool": X > 0}
REDUCTIONS = ["nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmax", "nanmin", "nanmedian"]
AXES = [None, 0, -1, (0, 2)]


def quietly(f, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns of lines that are all nan
        return f(*args)


def assert_same(f, *args):
    want, got = quietly(f, *args), wichi.jit(f)(*args)
    for w, g in zip(
        want if isinstance(want, tuple) else (want,), got if isinstance(got, tuple) else (got,), strict=True
    ):
        assert np.shape(g) == np.shape(w)
        assert np.asarray(g).dtype == np.asarray(w).dtype
        tolerance = 1e-5 if np.asarray(w).dtype == np.float32 else 1e-12
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("kind", ARRAYS)
def test_reductions(name, kind):
    f = getattr(np, name)
    assert_same(lambda x: tuple(f(x, axis=axis, keepdims=k) for axis in AXES for k in (False, True)), ARRAYS[kind])


@pytest.mark.parametrize("name", ["nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmedian"])
def test_reductions_of_nothing(name):
    f = getattr(np, name)
    assert_same(lambda x: (f(x), f(x, axis=0), f(x, axis=1)), np.zeros((0, 3)))


def test_extrema_of_nothing():
    with pytest.raises(ValueError, match="no largest or smallest"):
        wichi.jit(np.nanmax)(np.zeros(0))


def test_options():
    mask = X > 0
    assert_same(lambda x: np.nansum(x, axis=1, where=mask, initial=2.0), HOLES)
    assert_same(lambda x: np.nanmean(x, axis=1, where=mask), HOLES)
    assert_same(lambda x: (np.nanvar(x, axis=1, ddof=2), np.nanstd(x, axis=0, correction=1)), HOLES)
    assert_same(lambda x: (np.nanmax(x, initial=0.5), np.nanmin(x, axis=0, initial=0.5)), HOLES)
    assert_same(lambda x: np.nanmean(x, dtype=np.float32), HOLES)


def test_positions():
    for axis in (None, 0, 2):
        for keepdims in (False, True):
            assert_same(lambda x: (np.nanargmax(x, axis, keepdims=keepdims), np.nanargmin(x, axis)), PARTS)
    assert_same(lambda x: (np.nanargmax(x), np.nanargmin(x)), np.array([3, 1, 2]))
    found = wichi.jit(lambda x: (np.nanargmax(x), np.nanargmin(-x)))(np.array([np.nan, -np.inf]))
    assert found == (1, 1)  # NumPy leaves open which of the two


def test_positions_where_there_is_no_number():
    x = np.stack([HOLES[0] * np.nan, PARTS[0]])
    for position in (np.nanargmax, np.nanargmin):
        f = wichi.jit(lambda x, position=position: position(x, axis=2))
        for again in (f, f, wichi.vmap(lambda x, position=position: position(x, axis=1))):
            with pytest.raises(ValueError, match=rf"W206\] np.{position.__name__}: all .* nan(.*\n)*.*test_nan.py"):
                again(x)
            np.testing.assert_array_equal(again(PARTS), position(PARTS, axis=2))
        with wichi.debug(), pytest.raises(ValueError, match="all numbers of a line are nan"):
            f(x)
        with pytest.raises(ValueError, match="all numbers of a line are nan"):
            wichi.scan(lambda c, row, position=position: (c, position(row)), 0.0, x[:, 0])


def test_positions_inside_njit():
    f = wichi.njit(np.nanargmax, np.ones(3))
    assert f(np.array([np.nan, 2.0, 1.0])) == 1
    with pytest.raises(RuntimeError, match="nanargmax: all numbers of a line are nan"):
        f(np.full(3, np.nan))


@pytest.mark.parametrize("kind", ["f8", "nan", "nan f4", "i8"])
def test_quantiles(kind):
    methods, axes = ("linear", "lower", "higher", "midpoint", "nearest", "hazen"), (None, 1, (0, -1))
    ways = [*itertools.product(methods, (0.3, 1, [0.0, 0.55, 1.0], np.float32(0.3)), axes)]

    def several(x):
        return tuple(
            np.nanquantile(x, q, axis=axis, keepdims=bool(number % 2), method=method)
            for number, (method, q, axis) in enumerate(ways)
        )

    x = np.array(ARRAYS[kind])
    if kind.startswith("nan"):
        x = PARTS.astype(x.dtype)
        x[1, :, 3] = np.nan  # were it the first line, NumPy would take the dtype of all others from its answer
    assert_same(several, x)
    assert_same(lambda x, q: np.nanpercentile(x, q, axis=1), x, np.array([10.0, 55.0]))
    with pytest.raises(ValueError, match="scalar or 1d"):
        wichi.jit(lambda x: np.nanquantile(x, [[0.1]]))(HOLES)


DIFFERENTIABLE = {
    **{name: getattr(np, name) for name in REDUCTIONS},
    "nancumsum": np.nancumsum, "nancumprod": np.nancumprod,
    "nanquantile": lambda x, axis: np.nanquantile(x, [0.2, 0.7], axis=axis),
    "nanpercentile": lambda x, axis: np.nanpercentile(x, 31, axis=axis),
}  # fmt: skip


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives(name, axis):
    """With nan in its place each function is one of the numbers that are left: differences there, 0 at nan."""
    f, missing = DIFFERENTIABLE[name], np.isnan(HOLES)

    def loss(x):
        found = f(x, axis=axis)
        weights = np.cos(np.arange(found.size).reshape(found.shape))
        return np.sum(np.where(np.isnan(found), 0.0, found) * weights)

    slope = wichi.grad(loss)(HOLES)
    assert np.all(slope[missing] == 0)
    for place in [*np.argwhere(~missing)[::5]]:
        e = np.zeros(X.shape)
        e[tuple(place)] = 1e-6
        want = (quietly(loss, HOLES + e) - quietly(loss, HOLES - e)) / 2e-6
        assert np.isclose(slope[tuple(place)], want, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(wichi.jvp(loss, (HOLES,), (X,))[1], np.sum(slope * X), rtol=1e-10)
    assert np.all(np.isfinite(wichi.hvp(loss, (HOLES,), (X,))))


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_products_so_far(axis):
    for x in ARRAYS.values():
        assert_same(lambda x: np.cumprod(x, axis=axis), x)
    assert_same(lambda x: (np.nancumsum(x, axis), np.nancumprod(x, axis), x.cumprod(axis)), HOLES)
    if axis is not None:
        assert_same(lambda x: np.cumulative_prod(x, axis=axis, include_initial=True), X)
        assert_same(lambda x: np.cumulative_sum(x, axis=axis, include_initial=True), X)
        assert_same(lambda x: np.multiply.accumulate(x, axis), X)


@pytest.mark.parametrize("zeros", [[], [1], [1, 3], [0, 1, 2, 3, 4]])
def test_products_with_zeros_have_their_derivative(zeros):
    x = X[0, 0].copy()
    x[zeros] = 0.0
    wichi.testing.check_grads(np.cumprod, (x,), order=2)
    rows = np.stack([x, X[0, 1]])
    for axis in (0, 1):
        wichi.testing.check_grads(lambda x: np.cumprod(x, axis=axis), (rows,), order=2)
    want = [[np.prod(np.delete(x[: i + 1], j)) if j <= i else 0.0 for j in range(5)] for i in range(5)]
    np.testing.assert_allclose(wichi.jacobian(np.cumprod)(x), want, rtol=1e-13)


def test_sums_so_far_need_an_axis():
    with pytest.raises(ValueError, match="more than one dimension"):
        wichi.jit(np.cumulative_prod)(X)
    assert_same(lambda x: (np.cumulative_sum(x), np.cumprod(x)), X[0, 0])
    assert wichi.jit(np.cumprod)(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(("f", "sign"), [(np.nanmax, -1), (np.nanmin, 1)])
def test_nans_take_no_share_of_an_infinite_extremum(f, sign):
    i = sign * np.inf  # what stands in place of nan
    g = wichi.value_and_grad(lambda x: np.sum(f(x, axis=1)))
    for row, want in (
        ([i, np.nan, i], [0.5, 0, 0.5]), ([i, np.nan, 2.0], [0, 0, 1]), ([1.0, np.nan, 1.0], [0.5, 0, 0.5]),
        ([-i, np.nan, 3.0], [1, 0, 0]), ([-i, -i, np.nan], [0.5, 0.5, 0]),
    ):  # fmt: skip
        value, slope = g(np.array([row]))
        assert value == f(row)
        np.testing.assert_array_equal(slope, [want])

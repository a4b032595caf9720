"""More of NumPy inside a transform: differences, polynomials, arrangements, choices, counts, and questions."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
import wichi.numpy as wnp
from wichi.errors import (
    ArgumentError,
    ConditionError,
    DtypeError,
    IndexRangeError,
    MissingRuleError,
    PlainArrayError,
    PlainArrayWriteError,
    ShapeError,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 5))
F = X[0]
V = RNG.standard_normal(7)
W = RNG.standard_normal(4)
I = RNG.integers(-9, 9, (3, 4))  # noqa: E741
AT = np.cumsum(RNG.uniform(0.1, 1.0, 5))
AT4 = np.cumsum(RNG.uniform(0.1, 1.0, 4))


def put(x):
    y = x * 1
    np.put_along_axis(y, np.array([[0], [2], [1], [4]]), 9.0 * x[:, :1], 1)
    return y


def put_flat(x):
    y = x * 1
    np.put_along_axis(y, np.array([3, 0]), x[0, :2], None)
    return y


# What is a function of floats: values and derivatives.
SMOOTH = {
    "gradient": (np.gradient, X),
    "gradient of a vector": (np.gradient, V),
    "gradient step": (lambda x: np.gradient(x, 0.3), F),
    "gradient steps": (lambda x: np.gradient(x, 0.3, 2.0), F),
    "gradient places": (lambda x: np.gradient(x, AT4, AT), F),
    "gradient axis": (lambda x: np.gradient(x, AT, axis=-1), F),
    "gradient axes": (lambda x: np.gradient(x, AT, 2.0, axis=(2, 0)), X),
    "gradient even places": (lambda x: np.gradient(x, np.arange(5) * 2, axis=1), F),
    "gradient order": (lambda x: np.gradient(x, 0.3, edge_order=2), F),
    "gradient order places": (lambda x: np.gradient(x, AT4, AT, edge_order=2), F),
    "gradient in the step": (lambda h: np.gradient(V, h), np.float64(0.7)),
    "gradient in the places": (lambda at: np.gradient(F, at, axis=1, edge_order=2), AT),
    "correlate": (lambda x: np.correlate(x, W), V),
    "correlate full": (lambda x: np.correlate(x, W, "full"), V),
    "correlate same": (lambda x: np.correlate(x, W, "same"), V),
    "correlate shorter": (lambda x: np.correlate(W[:3], x, "full"), V),
    "correlate shorter same": (lambda x: np.correlate(W, x, "same"), V),
    "ediff1d": (np.ediff1d, F),
    "ediff1d ends": (lambda x: np.ediff1d(x, to_begin=x[0], to_end=[1, 2]), V),
    "vander": (np.vander, W),
    "vander 3": (lambda x: np.vander(x, 3, increasing=True), V),
    "vander 1": (lambda x: np.vander(x, 1) * x[0], V),
    "polyadd": (lambda x: np.polyadd(x, W), V),
    "polysub": (lambda x: np.polysub(W, x), V),
    "polymul": (lambda x: np.polymul(x, W), V),
    "polyder": (lambda x: np.polyder(x, 2), V),
    "polyint": (np.polyint, V),
    "polyint k": (lambda x: np.polyint(x, 2, k=[1.0, 2.0]), V),
    "block": (lambda x: np.block([[x, np.ones((4, 1))], [x[:1], np.zeros((1, 1))]]), F),
    "block deep": (lambda x: np.block([x[0], 1.0, x[:, 0]]), F),
    "block mixed": (lambda x: np.block([[x, x], [np.ones((3, 1, 10))]]), X[:, :2]),
    "diagflat": (lambda x: np.diagflat(x, 1), W.reshape(2, 2)),
    "unstack": (lambda x: np.unstack(x, axis=1)[2], X),
    "dsplit": (lambda x: np.dsplit(x, [2, 3])[2], X),
    "rollaxis": (lambda x: np.rollaxis(x, 2), X),
    "rollaxis to": (lambda x: np.rollaxis(x, 0, 3), X),
    "resize": (lambda x: np.resize(x, (3, 7)), F),
    "resize less": (lambda x: np.resize(x, 3), F),
    "compress": (lambda x: np.compress([False, True, True], x, axis=1), F),
    "compress method": (lambda x: x.compress(np.arange(20) % 3 == 0), F),
    "extract": (lambda x: np.extract(F > 0, x), F),
    "delete": (lambda x: np.delete(x, 1, axis=0), F),
    "delete several": (lambda x: np.delete(x, [0, -1, 2]), F),
    "delete slice": (lambda x: np.delete(x, slice(None, None, 2), axis=1), F),
    "delete mask": (lambda x: np.delete(x, [True, False, False, True], axis=0), F),
    "insert": (lambda x: np.insert(x, 2, x[:, 0], axis=1), F),
    "insert number": (lambda x: np.insert(x, 0, 7), F),
    "insert several": (lambda x: np.insert(x, [1, 1, -1], [1.0, 2.0, 3.0], axis=1), F),
    "insert flat": (lambda x: np.insert(x, [3, 0, 20], x[0, :3]), F),
    "insert slice": (lambda x: np.insert(x, slice(0, 3), x[:1], axis=0), F),
    "insert rows": (lambda x: np.insert(x, 1, x[:2], axis=0), F),
    "insert many in one place": (lambda x: np.insert(x, [1], x[:, :2], axis=1), F),
    "put_along_axis": (put, F),
    "put_along_axis flat": (put_flat, F),
    "choose": (lambda x: np.choose(np.array([0, 2, 1, 0, 1]), [x[0], x[1] ** 2, -x[2]]), F),
    "choose clip": (lambda x: np.choose(np.array([[-3], [7], [1], [0]]), [x, -x], mode="clip"), F),
    "choose wrap": (lambda x: np.choose(np.array([[-3], [7], [1], [0]]), x[:3, None], mode="wrap"), F),
    "piecewise": (lambda x: np.piecewise(x, [x > 0.5, x < -0.5], [lambda v: v**2, np.exp, 3.0]), F),
    "piecewise logarithm": (lambda x: np.piecewise(x, [x > 0], [np.log, lambda v: v * 2]), F),
    "piecewise plain": (lambda x: np.piecewise(x, [F > 0, F < -0.5], [lambda v: v * np.max(v), lambda v: -v]), F),
    "bincount": (lambda w: np.bincount([0, 3, 3, 1, 0, 5, 3], weights=w), V),
    "bincount minlength": (lambda w: np.bincount(np.array([0, 3, 3, 1, 0, 5, 3]), w, 9), V),
    "fix": (lambda x: np.fix(3 * x) + x, F),
    "angle": (lambda x: np.angle(x) + x, F),
    "angle deg": (lambda x: np.angle(x, deg=True) + x, F),
    "matvec": (lambda x: np.matvec(x, x[0, 0]), X),
    "matvec batch": (lambda x: np.matvec(F, x[:, 0]), X),
    "vecmat": (lambda x: np.vecmat(W, x), X),
    "vecmat batch": (lambda x: np.vecmat(x[:, :, 0], F), X),
    "linspace": (lambda x: np.linspace(x, 3.0, 5), W),
    "linspace axis": (lambda x: np.linspace(x, x[::-1] * 2, 4, endpoint=False, axis=-1), W),
    "linspace step": (lambda x: np.linspace(x[0], x[1], 5, retstep=True)[1], W),
    "logspace": (lambda x: np.logspace(x[0], x[1], 5, base=3.0), W),
    "geomspace": (lambda x: np.geomspace(x[0] ** 2 + 0.1, 3.0, 5), W),
    "geomspace below": (lambda x: np.geomspace(-1 - x**2, -9.0, 4, axis=1), W),
    "astype": (lambda x: np.astype(x, np.float64) * 2, F),
    "real_if_close": (lambda x: np.real_if_close(x) + np.imag(x), F),
}  # fmt: skip


# Whole periods that go astray, and numbers in bins.
TURNS = np.cumsum(3 * RNG.standard_normal((3, 9)), 1)
SMOOTH |= {
    "unwrap": (np.unwrap, TURNS),
    "unwrap axis": (lambda x: np.unwrap(x, axis=0, discont=4.0), TURNS),
    "unwrap period": (lambda x: np.unwrap(x, period=2.5), TURNS),
    "unwrap in the period": (lambda p: wnp.unwrap(TURNS, period=p), np.float64(2.7)),
    "modf": (lambda x: np.stack(np.modf(3 * x)) + x, F),
    "ldexp": (lambda x: np.ldexp(x, np.array([3, -2, 0, 1, -70])), F),
    "histogram of weights": (lambda w: np.histogram(V, bins=4, weights=w)[0], V + 1),
    "histogram of weights in bins": (lambda w: np.histogram(F[0], [-1.0, -0.2, 0.2, 2.0], weights=w)[0], F[1]),
    "histogram density": (lambda w: np.histogram(V, bins=3, weights=w**2, density=True)[0], V + 1),
    "histogram edges": (lambda x: np.histogram(x, bins=5)[1], V),
}  # fmt: skip


def together(found):
    return found if not isinstance(found, tuple) else np.concatenate([np.ravel(v) for v in found])


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth(name):
    f, x = SMOOTH[name]
    want, got = f(x), wichi.jit(f)(x)
    assert isinstance(got, tuple) == isinstance(want, tuple)
    for w, g in zip(
        want if isinstance(want, tuple) else (want,), got if isinstance(got, tuple) else (got,), strict=True
    ):
        assert np.shape(g) == np.shape(w)
        assert g.dtype == w.dtype
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-14)
    weights = np.cos(np.arange(together(want).size)).reshape(together(want).shape)

    def loss(x):
        return np.sum(together(f(x)) * weights)

    slope = np.reshape(wichi.grad(loss)(x), -1)
    for i in range(0, np.size(x), 3):
        e = (1e-6 * (np.arange(np.size(x)) == i)).reshape(np.shape(x))
        assert np.isclose(slope[i], (loss(x + e) - loss(x - e)) / 2e-6, rtol=1e-5, atol=1e-6)


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 2.5, -2.5])
VALUES = {
    "gradient f4": (np.gradient, F.astype("f4")),
    "gradient int": (np.gradient, I),
    "gradient int places": (lambda x: np.gradient(x, [1, 2, 4, 8], axis=1), I),
    "ediff1d int": (lambda x: np.ediff1d(x, to_end=99), I),
    "vander int": (np.vander, I[0]),
    "vander f4": (lambda x: np.vander(x, 3), V.astype("f4")),
    "vander 0": (lambda x: np.vander(x, 0), V),
    "polyder to nothing": (lambda x: np.polyder(x, 9), W),
    "insert int": (lambda x: np.insert(x, 1, 5, axis=1), I),
    "insert nothing": (lambda x: np.insert(x, [], []), W),
    "resize of nothing": (lambda x: np.resize(x[:0], (2, 3)), V),
    "isposinf": (np.isposinf, SPECIAL),
    "isneginf": (np.isneginf, SPECIAL),
    "fix special": (np.fix, SPECIAL),
    "fix int": (np.fix, I),
    "angle special": (np.angle, SPECIAL),
    "isin": (lambda x: np.isin(x, [3, 1, 7, -2]), I),
    "isin traced": (lambda x: np.isin([1, 2, 3], x, invert=True), I),
    "isin nan": (lambda x: np.isin(x, [np.nan, 2.5, 0.0]), SPECIAL),
    "isin nothing": (lambda x: np.isin(x, []), I),
    "isin mixed": (lambda x: np.isin(x, [0.5, 1.0]), I),
    "left_shift": (lambda x: x << 3, I),
    "left_shift by": (lambda x: np.left_shift(5, x), np.arange(-2, 70)),
    "left_shift odd": (lambda x: np.left_shift(x, np.arange(60, 66)), np.array([1, 3, -1, 2, -2, 7])),
    "left_shift i1": (lambda x: np.left_shift(x, np.int8(7)), np.array([1, 2, 3, -1], np.int8)),
    "left_shift u1": (lambda x: np.left_shift(x, np.arange(10, dtype=np.uint8)), np.uint8(255)),
    "right_shift": (lambda x: 1000 >> abs(x), I),
    "right_shift by": (lambda x: np.right_shift(-1234567, x), np.arange(-2, 70)),
    "right_shift u8": (lambda x: np.right_shift(x, np.uint64(63)), np.array([2**63, 5], np.uint64)),
    "right_shift mixed": (lambda x: np.right_shift(x, np.int8(2)), np.array([100, -100], np.int32)),
    "unravel_index": (lambda x: np.unravel_index(x, (3, 4, 5)), np.array([[0, 59], [7, 23]])),
    "unravel_index F": (lambda x: np.unravel_index(x, (3, 4), order="F"), np.arange(12)),
    "unravel_index 0-d": (lambda x: np.unravel_index(np.argmax(x), (4, 5)), F),
    "ravel_multi_index": (lambda i: np.ravel_multi_index((i[0] % 3, i[1] % 4), (3, 4)), I),
    "ravel_multi_index modes": (lambda i: np.ravel_multi_index((i[0], i[1]), (3, 4), mode=("clip", "wrap")), I),
    "ravel_multi_index F": (lambda i: np.ravel_multi_index((i[0] % 3, i[1] % 4), (3, 4), order="F"), I),
    "array_equiv": (lambda x: np.array_equiv(x, x[:1] * 0 + x), F),
    "choose int": (lambda x: np.choose(x % 2, [x, 10]), I),
    "piecewise int": (lambda x: np.piecewise(x, [x > 0], [1, -1]), I),
    "piecewise 0-d": (lambda x: np.piecewise(x, [x > 0], [lambda v: v * 2, 5.0]), np.float64(1.5)),
    "piecewise stacked": (lambda x: np.piecewise(x, np.stack([x > 0, x < -3]), [1, 2, 3]), I),
    "linspace f4": (lambda x: np.linspace(x[:3], 3, 4), V.astype("f4")),
    "bincount plain": (lambda x: np.bincount([1, 1, 4]) + x, np.float64(0.0)),
    "linspace int": (lambda x: np.linspace(x, 9, 4, dtype=int), np.float64(-2.0)),
    "geomspace one": (lambda x: np.geomspace(x, 9, 1), np.float64(2.0)),
    "isreal": (lambda x: (np.isreal(x), np.iscomplex(x)), F),
    "indices": (lambda x: (*np.diag_indices_from(x), *np.tril_indices_from(x, -1), *np.triu_indices_from(x)), F[:, :4]),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    f, x = VALUES[name]
    want, got = f(x), wichi.jit(f)(x)
    for w, g in zip(
        want if isinstance(want, tuple) else (want,), got if isinstance(got, tuple) else (got,), strict=True
    ):
        assert np.shape(g) == np.shape(w)
        assert np.asarray(g).dtype == np.asarray(w).dtype
        np.testing.assert_allclose(g, w, rtol=1e-6 if np.asarray(w).dtype == np.float32 else 1e-13)


QUESTIONS = {
    "iscomplexobj": np.iscomplexobj, "isrealobj": np.isrealobj,
    "isfortran": lambda x: wnp.isfortran(x),
    "result_type": lambda x: np.result_type(x, np.int8(1)), "result_type of kinds": lambda x: np.result_type(x, 1.5),
    "can_cast": lambda x: np.can_cast(x, np.float32), "can_cast same kind": lambda x: np.can_cast(x, "i1", "same_kind"),
    "common_type": lambda x: np.common_type(x, np.ones(2, "f4")), "min_scalar_type": np.min_scalar_type,
    "ndim": np.ndim, "shape": np.shape, "iterable": np.iterable, "isscalar": np.isscalar,
    "array_equiv": lambda x: np.array_equiv(x, np.ones(11)), "broadcast_shapes": lambda x: np.broadcast_shapes(x.shape, (1,)),
    "isdtype": lambda x: np.isdtype(x.dtype, "real floating"),
}  # fmt: skip


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "u1"])
def test_questions_are_answered_from_shape_and_dtype(name, dtype):
    ask, x = QUESTIONS[name], np.ones((2, 3), dtype)
    found = []
    wichi.jit(lambda x: found.append(ask(x)) or x)(x)
    assert found == [ask(x)]
    assert type(found[0]) is type(ask(x))


def test_python_numbers_promote_nothing():
    found = []
    wichi.jit(lambda x: found.append(np.result_type(x, np.float32(1))) or x)(2.0)
    assert found == [np.float32]


def test_a_quantity_in_both_namespaces():
    def f(xp):
        return wichi.jit(lambda x: xp.gradient(xp.sort(x)) @ xp.cumprod(x))(V)

    assert f(np) == f(wnp) == pytest.approx(np.gradient(np.sort(V)) @ np.cumprod(V))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: np.gradient(x, [0.0, 1.0], axis=0), ShapeError, "coordinates of axis 0"),
        (lambda x: np.gradient(x, 1.0, 2.0, 3.0), TypeError, "number of arguments"),
        (lambda x: np.gradient(x[:1]), ShapeError, "at least 2"),
        (lambda x: np.gradient(x[:2], edge_order=2), ShapeError, "at least 3"),
        (lambda x: np.gradient(x, edge_order=3), ValueError, "edge_order"),
        (lambda x: np.ediff1d(I, to_end=x), TypeError, "same_kind"),
        (lambda x: np.correlate(x, x), ShapeError, "vectors"),
        (lambda x: np.vander(x), ValueError, "one-dimensional"),
        (lambda x: np.polyder(x[0], -1), ValueError, "positive"),
        (lambda x: np.fix(x, np.empty((4, 5))), TypeError, "out"),
        (lambda x: np.nanmedian(x, 0, np.empty(5)), TypeError, "out"),
        (lambda x: np.block([[x], x]), ValueError, "depths"),
        (lambda x: np.block([(x, x)]), TypeError, "tuple"),
        (lambda x: np.block([[x], []]), ValueError, "empty"),
        (lambda x: np.compress(x[:, 0] > 0, x, axis=0), ConditionError, "shape of the result"),
        (lambda x: np.extract(x > 0, x), ConditionError, "shape of the result"),
        (lambda x: np.delete(x, np.argmax(x)), ConditionError, "shape of the result"),
        (lambda x: np.delete(x, 9, axis=0), IndexError, "out of bounds"),
        (lambda x: np.insert(x, np.argmax(x), 1.0), ConditionError, "shape of the result"),
        (lambda x: np.insert(x, 9, 1.0, axis=0), IndexError, "out of bounds"),
        (lambda x: np.bincount(np.argmax(x, axis=0), x[0]), ConditionError, "shape of the result"),
        (lambda x: np.bincount([0, 1], x[0]), ValueError, "same length"),
        (lambda x: np.bincount([0, -1, 1, 1, 1], x[0]), ValueError, "negative"),
        (lambda x: np.choose(np.argmax(x, 1) - 9, [x[:, 0], x[:, 1]]), IndexRangeError, "outside"),
        (lambda x: np.choose(x, [x, x]), TypeError, "safe"),
        (lambda x: np.unravel_index(np.argmax(x), (2, 2)) if np.argmax(x) else 0, IndexRangeError, "outside"),
        (lambda x: np.unravel_index(np.argmin(x) - 99, (9, 9)), IndexRangeError, "outside"),
        (lambda x: np.ravel_multi_index((np.argmin(x) - 99, 2), (9, 9)), IndexRangeError, "outside"),
        (lambda x: np.put_along_axis(np.zeros(5), np.arange(5), x[0], 0), PlainArrayWriteError, "np.zeros"),
        (lambda x: np.piecewise(x, [x > 0], [1, 2, 3]), ValueError, "functions are expected"),
        (lambda x: np.piecewise(x, [x > 0], [lambda v: v - np.mean(v), 0.0]), ConditionError, "mask"),
        (lambda x: np.min_scalar_type(x[0, 0]), ConditionError, "value"),
        (lambda x: np.left_shift(x, 2), TypeError, "left_shift"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        wichi.jit(call)(F + 10 * (np.arange(20).reshape(4, 5) == 17))


@pytest.mark.parametrize(
    ("call", "fix"),
    [
        (lambda x: np.frexp(x), "x / 2.0**n, n"),
        (lambda x: np.unique(x), "functions that wichi.numpy has"),
        (lambda x: np.nonzero(x), "np.where(mask, x, 0)"),
        (lambda x: np.apply_along_axis(np.sum, 0, x), "wichi.vmap(f)(x)"),
    ],
)
def test_what_cannot_be_traced_has_a_fix(call, fix):
    with pytest.raises(MissingRuleError, match="cannot be traced") as caught:
        wichi.jit(call)(F)
    assert fix in caught.value.fix


def test_other_names_of_extrema():
    np.testing.assert_array_equal(wichi.jit(lambda x: np.amax(x, 0) - np.amin(x, 0))(F), np.ptp(F, 0))


def exactly(function, *args):
    """NumPy's results to the bit, the signs of zeros too."""
    with np.errstate(all="ignore"):
        wanted = function(*args)
    found = wichi.jit(function)(*args)
    pairs = zip(wanted, found, strict=True) if isinstance(wanted, tuple) else [(wanted, found)]
    for want, got in pairs:
        want, got = np.asarray(want), np.asarray(got)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


EDGES = np.array([0.0, -0.0, 1.5, -1.5, 2.0, -2.0, np.inf, -np.inf, np.nan, 1e30, -0.3, 5e-324])


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_modf_and_ldexp_are_exact(kind):
    x = np.concatenate([EDGES, RNG.standard_normal(300) * 2.0 ** RNG.integers(-125, 125, 300)]).astype(kind)
    exactly(np.modf, x)
    exactly(np.ldexp, x, RNG.integers(-200, 200, x.size))
    exactly(np.ldexp, x, RNG.integers(-1080, -950, x.size).astype(np.int32))
    for n in (-(2**31), -5000, -1074, -1023, -1022, -150, -3, 0, 127, 128, 1023, 1024, 2000, 2**31 - 1):
        exactly(lambda x, n=n: np.ldexp(x, n), x)
    for v in (0.0, -0.0, 2.0, -2.0):
        assert wichi.grad(lambda x: np.modf(x)[0])(v) == 1.0
    assert wichi.grad(lambda x: np.ldexp(x, -1074))(1.0) == 5e-324
    exactly(np.modf, np.arange(-3, 4, dtype=np.int16))
    exactly(np.ldexp, np.arange(3), np.arange(3))


@pytest.mark.parametrize("period", [3, 4, 2.5, 2 * np.pi])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_unwrap_is_exact(kind, period):
    turns = (10 * TURNS).astype(kind)
    exactly(lambda x: np.unwrap(x, period=period), turns)
    exactly(lambda x: np.unwrap(x, period=period, discont=3, axis=0), turns)
    exactly(lambda x: np.unwrap(x, period=period), np.array([0, period, 0, -period, period / 2, 0, -period / 2]))
    exactly(lambda x: np.unwrap(x, period=period), turns[0, :0])


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.uint8])
def test_histograms_are_numpys(kind):
    x = (10 * RNG.random((20, 10))).astype(kind)
    for options in (
        {}, {"bins": 7}, {"bins": [1.0, 3, 3, 5.5]}, {"bins": np.arange(5)}, {"bins": 5, "range": (0, 3)},
        {"bins": 4, "range": (1, 1)}, {"bins": 3, "density": True}, {"range": (2.0, 8.0), "density": True},
    ):  # fmt: skip
        for numbers in (x, x[:0], x[0] * 0, x[3, 4]):
            exactly(lambda v, options=options: np.histogram(v, **options), numbers)
    exactly(lambda v, w: np.histogram(v, 5, weights=w), x, np.arange(200).reshape(20, 10))
    exactly(lambda e: np.histogram(X, e), np.array([-1.0, 0.0, 0.5, 2.0]))
    exactly(lambda v: np.histogram(v, [0.0, 1.0]), np.array([np.nan, 0.5, 1.0, -1.0]))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: np.histogram(x, "auto"), ArgumentError, "would depend on values"),
        (lambda x: np.histogram(x, [1, 0]), ValueError, "monotonically"),
        (lambda x: np.histogram(x, [[1, 0]]), ValueError, "1d"),
        (lambda x: np.histogram(x, 0), ValueError, "positive"),
        (lambda x: np.histogram(x, range=(1, 0)), ValueError, "larger"),
        (lambda x: np.histogram(x, weights=x[0]), ValueError, "same shape"),
        (lambda x: np.unwrap(F[0], period=x[0, 0]), PlainArrayError, "fix: wichi.numpy.unwrap"),
        (lambda x: np.ldexp(x, x), DtypeError, "ldexp"),
    ],
)
def test_refusals_of_bins_and_periods(call, error, text):
    with pytest.raises(error, match=text):
        wichi.jit(call)(F)


def test_nan_to_num_leaves_integers():
    exactly(np.nan_to_num, np.arange(3))

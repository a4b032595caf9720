"""NumPy functions inside a transform give NumPy's values, shapes and dtypes."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import wichi
import wichi.numpy as wnp
from wichi.errors import ConditionError, IndexRangeError, MissingRuleError, PlainArrayError, PlainFloatError, ShapeError

rng = np.random.default_rng(0)
F = rng.standard_normal((3, 4))
G = rng.standard_normal((3, 4)).astype(np.float32)
V = rng.uniform(0.2, 0.9, 5)
I = rng.integers(-5, 6, (3, 4))  # noqa: E741
J = rng.integers(1, 5, (3, 4)).astype(np.int32)
B = rng.integers(0, 2, (3, 4)).astype(bool)
T3 = rng.standard_normal((2, 3, 4))
S = np.float64(0.7)

UNARY = [
    "negative",
    "positive",
    "absolute",
    "fabs",
    "sign",
    "square",
    "reciprocal",
    "floor",
    "ceil",
    "trunc",
    "rint",
    "exp",
    "exp2",
    "expm1",
    "sin",
    "cos",
    "tan",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "arcsinh",
    "cbrt",
    "isnan",
    "isinf",
    "isfinite",
    "signbit",
    "logical_not",
    "deg2rad",
    "rad2deg",
    "radians",
    "degrees",
    "conjugate",
]
POSITIVE = ["sqrt", "log", "log2", "log10", "log1p", "arcsin", "arccos", "arctanh"]
BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "true_divide",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "equal",
    "not_equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
    "hypot",
    "logaddexp",
    "logaddexp2",
    "arctan2",
    "copysign",
    "heaviside",
]

CASES: list[tuple[str, Any, tuple[Any, ...]]] = [
    *((f"{n}-{i}", getattr(np, n), (a,)) for n in UNARY for i, a in enumerate((F, G, V, S, I if n != "reciprocal" else F))),
    *((f"{n}-{i}", getattr(np, n), (a,)) for n in POSITIVE for i, a in enumerate((V, V.astype(np.float32), S))),
    *((f"{n}-{i}", getattr(np, n), ab) for n in BINARY for i, ab in enumerate(((F, F[0]), (F, G), (G, 2.0), (I, 3), (F, I), (J, 1.5)))),
    *((f"{n}-{i}", getattr(np, n), ab) for n in ("floor_divide", "remainder", "fmod")
      for i, ab in enumerate(((F, V[:4]), (I, J), (I, 3), (F, 0.3)))),
    *((f"{n}-{i}", getattr(np, n), ab) for n in ("bitwise_and", "bitwise_or", "bitwise_xor") for i, ab in enumerate(((I, J), (B, B[0])))),
    *((f"power-{i}", (lambda y: lambda x: x**y)(y), (x,)) for i, (x, y) in enumerate(
        ((V, 2), (V, 3), (V, 4), (V, 0.5), (V, -1), (V, 2.5), (V, V), (I, 2), (I, 3), (I, 0), (J, 5), (G, 2), (G, 2.5)))),
    ("power-traced", np.power, (V, V)), ("power-weak", lambda x, s: x ** (s * 2), (G, 0.75)), ("rpower", np.power, (2.0, F)),
    ("invert", np.invert, (B,)), ("float_power", np.float_power, (J, 2)),
    ("bool-add", np.add, (B, B)), ("bool-mul", np.multiply, (B, B)), ("int8-overflow", np.add, (np.int8([100, 7]), np.int8([100, 1]))),
    ("uint-int-less", np.less, (np.array([1, 2**63], np.uint64), np.array([-1, 5]))),
    ("int-uint-equal", np.equal, (np.array([-1, 5]), np.array([2**64 - 1, 5], np.uint64))),
    ("where", np.where, (B, F, 0.0)), ("where-int", np.where, (B, I, J)), ("clip", np.clip, (F, -0.5, 0.5)),
    ("round", lambda x: np.round(x, 2), (F,)), ("sinc", np.sinc, (F,)), ("nan_to_num", np.nan_to_num, (np.array([np.nan, np.inf, 1.0]),)),
    ("divmod", lambda x, y: np.divmod(x, y)[1], (I, J)), ("isclose", np.isclose, (F, F + 1e-9)),
    *((f"{n}-{a}-{k}", (lambda n, a, k: lambda x: getattr(np, n)(x, axis=a, keepdims=k))(n, a, k), (x,))
      for n in ("sum", "prod", "mean", "max", "min", "var", "std", "ptp") for a in (None, 0, -1, (0, 2)) for k in (False, True) for x in (T3,)),
    ("sum-bool", np.sum, (B,)), ("sum-int32", np.sum, (J,)), ("prod-int32", np.prod, (J,)), ("mean-int", np.mean, (I,)),
    ("sum-f4", np.sum, (G,)), ("sum-initial", lambda x: np.sum(x, initial=2.0), (F,)), ("sum-where", lambda x: np.sum(x, where=B), (F,)),
    ("var-ddof", lambda x: np.var(x, axis=1, ddof=1), (F,)), ("average", lambda x: np.average(x, axis=0, weights=[1.0, 2.0, 3.0]), (F,)),
    *((f"{n}-{a}", (lambda n, a: lambda x: getattr(np, n)(x, axis=a))(n, a), (F,)) for n in ("argmax", "argmin", "any", "all", "cumsum") for a in (None, 0, 1)),
    ("argmax-nan", np.argmax, (np.array([1.0, np.nan, 3.0, np.nan]),)), ("count_nonzero", np.count_nonzero, (I,)),
    ("diff", np.diff, (F,)), ("diff-2", lambda x: np.diff(x, 2, axis=0), (F,)), ("trapezoid", np.trapezoid, (F,)),
    ("trapezoid-x", lambda y, x: np.trapezoid(y, x), (F, np.sort(V)[:4])),
    ("reshape", lambda x: np.reshape(x, (2, -1)), (F,)), ("ravel", np.ravel, (T3,)), ("transpose", np.transpose, (T3,)),
    ("transpose-axes", lambda x: x.transpose(2, 0, 1), (T3,)), ("swapaxes", lambda x: np.swapaxes(x, 0, 2), (T3,)),
    ("moveaxis", lambda x: np.moveaxis(x, 0, -1), (T3,)), ("moveaxis-2", lambda x: np.moveaxis(x, [0, 1], [-1, -2]), (T3,)),
    ("expand_dims", lambda x: np.expand_dims(x, (0, 2)), (F,)), ("squeeze", lambda x: np.squeeze(x[None, :, None]), (F,)),
    ("broadcast_to", lambda x: np.broadcast_to(x, (5, 3, 4)), (F,)), ("concatenate", lambda x, y: np.concatenate([x, y, x], axis=1), (F, F)),
    ("concatenate-promote", lambda x, y: np.concatenate([x, y]), (G, I)), ("concatenate-None", lambda x: np.concatenate([x, x], axis=None), (F,)),
    ("stack", lambda x, y: np.stack([x, y], axis=1), (F, F)), ("vstack", lambda x: np.vstack([x, x[0]]), (F,)),
    ("hstack", lambda x: np.hstack([x, x]), (F,)), ("hstack-1d", lambda x: np.hstack([x, x]), (V,)), ("dstack", lambda x: np.dstack([x, x]), (F,)),
    ("column_stack", lambda x: np.column_stack([x, x]), (V,)), ("split", lambda x: np.split(x, 2, axis=1)[1], (F,)),
    ("array_split", lambda x: np.array_split(x, 3)[0], (V,)), ("flip", np.flip, (T3,)), ("flip-1", lambda x: np.flip(x, 1), (T3,)),
    ("roll", lambda x: np.roll(x, 2), (F,)), ("roll-axis", lambda x: np.roll(x, (1, -1), (0, 1)), (F,)), ("rot90", np.rot90, (F,)),
    ("repeat", lambda x: np.repeat(x, 3), (V,)), ("repeat-axis", lambda x: np.repeat(x, [1, 0, 2], axis=0), (F,)),
    ("tile", lambda x: np.tile(x, (2, 3)), (V,)), ("tile-3", lambda x: np.tile(x, 2), (F,)),
    ("pad", lambda x: np.pad(x, ((1, 2), (0, 3))), (F,)), ("pad-value", lambda x: np.pad(x, 1, constant_values=7.0), (F,)),
    *((f"pad-{m}", (lambda m: lambda x: np.pad(x, 2, mode=m))(m), (F,)) for m in ("edge", "reflect", "symmetric", "wrap")),
    ("tril", lambda x: np.tril(x, -1), (F,)), ("triu", np.triu, (T3,)), ("diag", np.diag, (V,)), ("diag-k", lambda x: np.diag(x, -2), (V,)),
    ("diag-2d", lambda x: np.diag(x, 1), (F,)), ("diagonal", np.diagonal, (T3,)), ("trace", np.trace, (F,)),
    ("trace-offset", lambda x: np.trace(x, 1), (F,)), ("trace-method", lambda x: x.trace(), (F,)), ("trace-axes", lambda x: x.trace(-1, 2, 1), (T3,)),
    ("tril-vector", lambda x: np.tril(x, 1), (V,)), ("triu-vector", np.triu, (V,)), ("triu-3d", lambda x: np.triu(x, -1), (T3,)),
    *((f"{n}-number", (lambda n, a: lambda x: getattr(np, n)(np.sin(x), axis=a))(n, a), (S,)) for n in ("cumsum", "cumprod", "nancumsum") for a in (None, 0, -1)),
    ("take", lambda x: np.take(x, [2, 0, -1], axis=1), (F,)), ("take-flat", lambda x: np.take(x, [[5, 1]]), (F,)),
    ("take_along_axis", lambda x: np.take_along_axis(x, np.argsort(F, 1), 1), (F,)), ("meshgrid", lambda x, y: np.meshgrid(x, y)[0], (V, V[:3])),
    ("zeros_like", lambda x: np.zeros_like(x) + x, (F,)), ("ones_like", lambda x: np.ones_like(x) * x, (G,)), ("full_like", lambda x: np.full_like(x, 3) + x, (I,)),
    ("dot-11", np.dot, (V, V)), ("dot-21", np.dot, (F, V[:4])), ("dot-22", np.dot, (F, F.T)), ("dot-32", np.dot, (T3, F.T)), ("dot-0", np.dot, (F, 2.0)),
    ("matmul-11", np.matmul, (V, V)), ("matmul-12", np.matmul, (V[:3], F)), ("matmul-21", np.matmul, (F, V[:4])), ("matmul-22", np.matmul, (F, F.T)),
    ("matmul-32", np.matmul, (T3, F.T)), ("matmul-23", np.matmul, (F[:, :3], T3)), ("matmul-31", np.matmul, (T3, V[:4])), ("matmul-13", np.matmul, (V[:3], T3)),
    ("matmul-33", np.matmul, (T3, T3.transpose(0, 2, 1))), ("matmul-broadcast", np.matmul, (T3[:, None], T3.transpose(0, 2, 1)[None])),
    ("matmul-int", np.matmul, (I, J.T)), ("matmul-f4", np.matmul, (G, G.T)), ("matmul-mixed", np.matmul, (G, F.T)), ("matmul-bool", np.matmul, (B, B.T)),
    ("inner", np.inner, (F, F)), ("outer", np.outer, (V, V)), ("vdot", np.vdot, (F, F)), ("kron", np.kron, (F, V[:2])), ("cross", np.cross, (V[:3], V[2:])),
    ("tensordot", np.tensordot, (T3, T3.transpose(1, 2, 0))), ("tensordot-axes", lambda x, y: np.tensordot(x, y, axes=([0, 2], [0, 2])), (T3, T3)),
    ("norm", np.linalg.norm, (F,)), ("norm-axis", lambda x: np.linalg.norm(x, axis=1), (F,)), ("norm-1", lambda x: np.linalg.norm(x, 1), (V,)),
    ("norm-inf", lambda x: np.linalg.norm(x, np.inf), (V,)), ("norm-3", lambda x: np.linalg.norm(x, 3), (V,)),
    *((f"einsum-{s}", (lambda s: lambda *a: np.einsum(s, *a))(s), a) for s, a in (
        ("ij,kj->ik", (F, F)), ("ij->ji", (F,)), ("ii->i", (F[:, :3],)), ("ii", (F[:, :3],)), ("ij,ij", (F, F)), ("bij,bkj->bik", (T3, T3)),
        ("...ij,kj->...ik", (T3, F)), ("ij,j,i->", (F, V[:4], V[:3])), ("i,j->ij", (V, V)), ("bij,bij->b", (T3, T3)), ("ijk->k", (T3,)), ("ab,bc,cd", (F, F.T, F)))),
    ("getitem-neg", lambda x: x[-1], (F,)), ("getitem-step", lambda x: x[::2, ::-1], (F,)), ("getitem-ellipsis", lambda x: x[..., 1], (T3,)),
    ("getitem-newaxis", lambda x: x[:, None, 1], (F,)), ("getitem-list", lambda x: x[[0, 2, -1]], (F,)), ("getitem-pair", lambda x: x[[0, 2], [1, 3]], (F,)),
    ("getitem-mixed", lambda x: x[:, [0, 2], 1], (T3,)), ("getitem-split", lambda x: x[0, :, [1, 2]], (T3,)), ("getitem-mask", lambda x: x[B], (F,)),
    ("getitem-mask-row", lambda x: x[:, [True, False, True, True]], (F,)), ("getitem-traced", lambda x, i: x[i], (F, np.array([2, 0, -3]))),
    ("getitem-traced-2", lambda x, i: x[i, i], (F, np.array([2, 0, -3]))), ("getitem-empty", lambda x: x[[]], (F,)), ("getitem-ix", lambda x: x[np.ix_([0, 2], [1, 3])], (F,)),
    ("iter", lambda x: sum(row[0] for row in x), (F,)), ("len", lambda x: x * len(x), (F,)), ("T", lambda x: x.T @ x, (F,)),
    ("methods", lambda x: x.sum(0).mean() + x.max() - x.reshape(-1).min() + x.clip(0, 1).std(), (F,)), ("astype", lambda x: x.astype(np.float32), (F,)),
    ("astype-int", lambda x: x.astype(int), (F,)), ("linalg-scalar", lambda x: x * np.pi + np.e, (S,)), ("python-float", lambda x: x * 2, (3.0,)),
    ("python-int", lambda x: x * 2, (3,)), ("python-bool", lambda x: x * 2, (True,)), ("rsub", lambda x: 1 - x, (I,)), ("rpow", lambda x: 2.0**x, (F,)),
    ("round-builtin", lambda x: abs(x), (F,)), ("empty-sum", lambda x: x[:0].sum(), (F,)), ("empty-mul", lambda x: x[:0] * 2, (F,)),
    ("logaddexp.reduce", np.logaddexp.reduce, (F,)), ("logaddexp.reduce-axis", lambda x: np.logaddexp.reduce(x, axis=1, keepdims=True), (G,)),
    ("add.reduce-initial", lambda x: np.add.reduce(x, axis=1, initial=3.0, where=B), (F,)), ("maximum.reduce-initial", lambda x: np.maximum.reduce(x, initial=0.5), (F,)),
    ("hypot.outer", np.hypot.outer, (V, F)), ("less.outer", np.less.outer, (V, V[:3])),
    ("add.reduce", np.add.reduce, (F,)), ("add.outer", np.add.outer, (V, V)), ("maximum.reduce", np.maximum.reduce, (F,)),
    ("zero-d", lambda x: np.sin(x)[()], (S,)), ("logsumexp", lambda x: wnp.logsumexp(x, 1), (F,)), ("wnp.array", lambda x: wnp.array([[x, 1.0], [2.0, x]]), (S,)),
]  # fmt: skip


@pytest.mark.parametrize(("function", "args"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_value_shape_and_dtype_are_numpys(function: Any, args: tuple[Any, ...]) -> None:
    with np.errstate(all="ignore"):
        want = np.asarray(function(*args))
    got = wichi.jit(function)(*args)
    assert np.shape(got) == want.shape
    assert np.asarray(got).dtype == want.dtype
    close = {"rtol": 2e-6, "atol": 1e-6} if want.dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(got, want, **close)


@pytest.mark.parametrize(("function", "args"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_wichi_namespace_is_numpy_on_plain_arrays(function: Any, args: tuple[Any, ...]) -> None:
    name = getattr(function, "__name__", "")
    ours = getattr(wnp, name, None)
    if ours is None or getattr(np, name, None) is not function:
        return
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(ours(*args), function(*args))


SMALL = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.floats(-3, 3))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_indexing_is_numpys(data: Any) -> None:
    x = data.draw(SMALL)
    basic = hnp.basic_indices(x.shape, allow_ellipsis=True, allow_newaxis=True)
    arrays = hnp.integer_array_indices(x.shape, result_shape=hnp.array_shapes(max_dims=2, max_side=3))
    item = data.draw(st.one_of(basic, arrays))
    np.testing.assert_array_equal(wichi.jit(lambda x: x[item] * 1.5)(x), x[item] * 1.5)


@settings(max_examples=60, deadline=None)
@given(
    hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3),
    st.sampled_from("fdilBb?"),
    st.sampled_from("fdilBb?"),
)
def test_broadcasting_and_promotion_are_numpys(shapes: Any, a: str, b: str) -> None:
    x, y = (
        np.arange(np.prod(s, dtype=int)).reshape(s).astype(t) for s, t in zip(shapes.input_shapes, (a, b), strict=True)
    )
    want = x + y
    got = wichi.jit(operator.add)(x, y)
    assert np.asarray(got).dtype == want.dtype
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("function", "error", "text"),
    [
        (lambda x: x @ np.ones((3, 3)), ShapeError, "matmul of shapes (3, 4) and (3, 3)"),
        (lambda x: x + np.ones(3), ShapeError, "(3, 4) and (3,)"),
        (lambda x: x.reshape(5, 5), ShapeError, "12 elements"),
        (lambda x: np.concatenate([x, x[:, :2]]), ShapeError, "(3, 2)"),
        (lambda x: np.stack([x, x[0]]), ShapeError, "one shape"),
        (lambda x: x[3], IndexRangeError, "Index 3 is outside an axis of 3"),
        (lambda x: x[[0, 5]], IndexRangeError, "Index 5"),
        (lambda x: x[x > 0], ConditionError, "np.where"),
        (lambda x: np.max(x[:0]), ShapeError, "empty axis"),
        (lambda x: np.argmax(x[:0]), ShapeError, "np.argmax of an empty axis"),
        (lambda x: np.nanargmin(x[:, :0], axis=1), ShapeError, "np.nanargmin of an empty axis"),
        (lambda x: x.tolist(), PlainFloatError, "list(x), its rows"),
        (lambda x: np.tril(x[0, 0]), ShapeError, "at least one axis"),
        (lambda x: np.vecdot(x, x[0, :3]), ShapeError, "vecdot of shapes (3, 4) and (3,)"),
        (lambda x: np.i0(x), MissingRuleError, "np.i0"),
        (lambda x: np.array([x, x]), PlainArrayError, "np.stack([x, x])"),
    ],
)
def test_errors_are_ours_and_name_this_file(function: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        wichi.jit(function)(F)
    assert text in str(caught.value)
    assert "test_numpy.py" in str(caught.value)


def test_scipy_special_ufuncs_trace() -> None:
    special = pytest.importorskip("scipy.special")
    for function in (special.erf, special.expit, special.log1p, special.xlogy):
        args = (V, V) if function is special.xlogy else (V,)
        np.testing.assert_allclose(wichi.jit(function)(*args), function(*args), rtol=1e-14)


def test_indices_outside_are_errors_in_native_code_too() -> None:
    pick = wichi.jit(lambda x, i: x[i])
    np.testing.assert_array_equal(pick(F, np.array([2, -3])), F[[2, -3]])
    with pytest.raises(IndexRangeError, match="outside its axis"):
        pick(F, np.array([0, 3]))
    np.testing.assert_array_equal(pick(F, np.array([1, 1])), F[[1, 1]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, bool])
@pytest.mark.parametrize("ord", [None, 1, 2, np.inf, 0])
def test_norms_of_integers_do_not_wrap_around(dtype, ord):
    x = np.array([[100, 100, 0], [3, 117, 1]]).astype(dtype)
    got = wichi.jit(lambda x: np.linalg.norm(x, ord, axis=1))(x)
    np.testing.assert_allclose(got, np.linalg.norm(x.astype(float), ord, axis=1))


def test_rounding_integers():
    x = np.array([123, 165, -175, 20, 5])
    for decimals in (-2, -1, 0, 2):
        got = wichi.jit(lambda x: np.round(x, decimals))(x)
        np.testing.assert_array_equal(got, np.round(x, decimals))
        assert got.dtype == x.dtype


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8, np.int64])
def test_fmod_is_exact(dtype):
    x = np.array([7, -7, 100, -3, 5]).astype(dtype)
    y = np.array([3, 3, -7, -5, 5]).astype(dtype)
    if np.dtype(dtype).kind == "f":
        x = np.concatenate([x, np.array([1.0, -1.0, 1e22, 1e8 + 0.1, np.inf, np.nan], dtype)])
        y = np.concatenate([y, np.array([np.inf, -np.inf, 3.0, 0.3, 2.0, 1.0], dtype)])
    with np.errstate(all="ignore"):
        want = np.fmod(x, y)
    got = wichi.jit(np.fmod)(x, y)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == want.dtype

"""NumPy's reductions, on ``axis`` None, an int or a tuple, with ``keepdims``."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np

from wichi.errors import ShapeError
from wichi.numpy import _pointwise as pw
from wichi.numpy._indexing import index
from wichi.numpy._promote import Array, as_value, axes_in, axis_in, broadcast_to, cast_to, is_boxed, public
from wichi.numpy._shaping import reshape
from wichi.ops import reducing, shaping
from wichi.trace import frames
from wichi.trace.dims import Dim
from wichi.trace.free import visible
from wichi.trace.primitive import Primitive, aval_of, shape_of
from wichi.trace.tracer import of_its_own


def _reduced(prim: Primitive, a: Array, axis: Any, keepdims: bool) -> Array:
    shape = shape_of(a)
    axes = axes_in(axis, len(shape))
    out = prim(a, axes=axes) if axes else of_its_own(a)
    if keepdims:
        out = of_its_own(shaping.reshape(out, shape=tuple(1 if i in axes else n for i, n in enumerate(shape))))
    return out


def _plain_options(name: str, **options: Any) -> None:
    given = [
        k for k, v in options.items() if v is not None and v is not np._NoValue and not (k == "where" and v is True)
    ]
    if given:
        raise TypeError(f"np.{name} of a value inside a transform does not take {', '.join(given)}")


def _sum_dtype(a: Array, dtype: Any) -> np.dtype[Any]:
    """Small integers and bools are summed as int64 (unsigned: uint64), as NumPy does."""
    if dtype is not None:
        asked: np.dtype[Any] = np.dtype(dtype)
        return asked
    old = aval_of(a).dtype
    if old.kind == "u":
        return np.dtype(np.uint64)
    return np.dtype(np.int64) if old.kind in "ib" else np.dtype(old)


@public(np.sum)
def sum(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = None,
) -> Array:
    """As ``numpy.sum``. Native sums run in fixed lanes: more accurate than a running sum, the same bits everywhere."""
    _plain_options("sum", out=out)
    a = _masked(as_value(a), where, 0)
    total = _reduced(reducing.sum_, cast_to(a, _sum_dtype(a, dtype)), axis, bool(keepdims))
    return total if _absent(initial) else pw.add(total, initial)


@public(np.prod)
def prod(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = None,
) -> Array:
    _plain_options("prod", out=out)
    a = _masked(as_value(a), where, 1)
    total = _reduced(reducing.prod, cast_to(a, _sum_dtype(a, dtype)), axis, bool(keepdims))
    return total if _absent(initial) else pw.multiply(total, initial)


def _absent(x: Any) -> bool:
    return x is None or x is np._NoValue


def _masked(a: Array, where: Any, neutral: Any) -> Array:
    return a if _absent(where) or where is True else pw.where(where, a, aval_of(a).dtype.type(neutral))


def _count(a: Array, axis: Any) -> int:
    shape = shape_of(a)
    count = 1
    for i in axes_in(axis, len(shape)):
        count *= shape[i]
    return count


def _as_number(count: int) -> Any:
    """A count to calculate with."""
    return visible(count) if isinstance(count, Dim) else float(count)


@public(np.mean)
def mean(
    a: Array, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = None
) -> Array:
    a = as_value(a)
    _plain_options("mean", out=out, where=where)
    a = cast_to(a, np.dtype(dtype or (aval_of(a).dtype if aval_of(a).dtype.kind == "f" else float)))
    return pw.divide(_reduced(reducing.sum_, a, axis, bool(keepdims)), _as_number(_count(a, axis)))


@public(np.average)
def average(a: Array, axis: Any = None, weights: Array = None) -> Array:
    if weights is None:
        return mean(a, axis)
    if shape_of(weights) != shape_of(a):
        along = axis_in(axis, len(shape_of(a)))
        weights = reshape(weights, tuple(n if i == along else 1 for i, n in enumerate(shape_of(a))))
    total = sum(broadcast_to(weights, shape_of(a)), axis)
    return pw.divide(sum(pw.multiply(a, weights), axis), total)


@public(np.var)
def var(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: float = 0,
    keepdims: Any = False,
    *,
    correction: Any = None,
    **rest: Any,
) -> Array:
    _plain_options("var", out=out, **rest)
    degrees = ddof if _absent(correction) else correction
    a = as_value(a)
    a = cast_to(a, np.dtype(dtype or (aval_of(a).dtype if aval_of(a).dtype.kind == "f" else float)))
    squares = pw.square(pw.subtract(a, mean(a, axis, keepdims=True)))
    count = _as_number(_count(a, axis)) - degrees
    return pw.divide(
        sum(squares, axis, keepdims=bool(keepdims)), count if is_boxed(count) else builtins.max(count, 0.0)
    )


@public(np.std)
def std(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: float = 0,
    keepdims: Any = False,
    *,
    correction: Any = None,
    **rest: Any,
) -> Array:
    """As ``numpy.std``; see ``var``."""
    return pw.sqrt(var(a, axis, dtype, out, ddof, keepdims, correction=correction, **rest))


def _extremum(function: Any, prim: Primitive, combine: Callable[..., Any]) -> Callable[..., Any]:
    name = function.__name__

    def reduce(
        a: Array, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = None
    ) -> Array:
        _plain_options(name, out=out, where=where)
        a = as_value(a)
        shape = shape_of(a)
        if not _absent(initial) or builtins.all(shape[i] for i in axes_in(axis, len(shape))):
            found = _reduced(prim, a, axis, bool(keepdims))
            return found if _absent(initial) else combine(found, initial)
        raise ShapeError(
            f"np.{name} of an empty axis: the array has shape {shape}.",
            at=frames.describe(frames.user_where()),
            because="nothing has no largest or smallest element",
            fix=f"np.{name}(x, initial=...)",
        )

    reduce.__name__ = name
    return public(function)(reduce)


max = amax = _extremum(np.max, reducing.max_, pw.maximum)
min = amin = _extremum(np.min, reducing.min_, pw.minimum)


@public(np.ptp)
def ptp(a: Array, axis: Any = None, out: Any = None, keepdims: Any = False) -> Array:
    return pw.subtract(max(a, axis, keepdims=keepdims), min(a, axis, keepdims=keepdims))


def position(function: Any, prim: Primitive) -> Callable[..., Any]:
    """NumPy's ``function``, the place of some element along an axis, from the primitive for one axis."""

    def find(a: Array, axis: int | None = None, out: Any = None, *, keepdims: Any = False) -> Array:
        _plain_options(function.__name__, out=out)
        a = as_value(a)
        shape = shape_of(a)
        if (aval_of(a).size if axis is None else shape[axis_in(axis, len(shape))]) == 0:
            raise ShapeError(
                f"np.{function.__name__} of an empty axis: the array has shape {shape}.",
                at=frames.describe(frames.user_where()),
                because="nothing has no largest or smallest element",
            )
        if axis is None:
            flat = prim(shaping.reshape(a, shape=(aval_of(a).size,)), axis=0)
            return shaping.reshape(flat, shape=(1,) * len(shape)) if keepdims is True else flat
        axis = axis_in(axis, len(shape))
        found = prim(a, axis=axis)
        return shaping.reshape(found, shape=(*shape[:axis], 1, *shape[axis + 1 :])) if keepdims is True else found

    find.__name__ = function.__name__
    return public(function)(find)


argmax, argmin = position(np.argmax, reducing.argmax), position(np.argmin, reducing.argmin)


@public(np.any)
def any(a: Array, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = None) -> Array:
    _plain_options("any", out=out, where=where)
    return _reduced(reducing.any_, cast_to(as_value(a), np.dtype(bool)), axis, bool(keepdims))


@public(np.all)
def all(a: Array, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = None) -> Array:
    _plain_options("all", out=out, where=where)
    return _reduced(reducing.all_, cast_to(as_value(a), np.dtype(bool)), axis, bool(keepdims))


@public(np.count_nonzero)
def count_nonzero(a: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    return sum(pw.not_equal(a, 0), axis, keepdims=keepdims)


@public(np.cumsum)
def cumsum(a: Array, axis: int | None = None, dtype: Any = None, out: Any = None) -> Array:
    _plain_options("cumsum", out=out)
    a = as_value(a)
    a = cast_to(a, _sum_dtype(a, dtype))
    if not shape_of(a):  # a vector of one element, to NumPy
        axis = axis_in(0 if axis is None else axis, 1)
        a = shaping.reshape(a, shape=(1,))
    elif axis is None:
        a, axis = shaping.reshape(a, shape=(aval_of(a).size,)), 0
    return reducing.cumsum(a, axis=axis_in(axis, len(shape_of(a))), reverse=False)


@public(np.diff)
def diff(a: Array, n: int = 1, axis: int = -1) -> Array:
    axis = axis_in(axis, len(shape_of(a)))
    lead = (slice(None),) * axis
    for _ in range(n):
        upper, lower = index(a, (*lead, slice(1, None))), index(a, (*lead, slice(None, -1)))
        a = pw.not_equal(upper, lower) if aval_of(a).dtype.kind == "b" else pw.subtract(upper, lower)
    return a


@public(np.trapezoid)
def trapezoid(y: Array, x: Array = None, dx: float = 1.0, axis: int = -1) -> Array:
    axis = axis_in(axis, len(shape_of(y)))
    lead = (slice(None),) * axis
    steps: Array = dx
    if x is not None:
        steps = diff(x, axis=-1 if len(shape_of(x)) == 1 else axis)
        if len(shape_of(x)) == 1:
            steps = index(steps, (..., *(None,) * (len(shape_of(y)) - axis - 1)))
    middle = pw.multiply(pw.add(index(y, (*lead, slice(1, None))), index(y, (*lead, slice(None, -1)))), 0.5)
    return sum(pw.multiply(steps, middle), axis)


@public()
def logsumexp(a: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """``log(sum(exp(a)))`` without overflow; -inf where all are -inf. Not in NumPy: ``scipy.special.logsumexp``.

    >>> logsumexp(np.array([1000.0, 1000.0]))
    np.float64(1000.6931471805599)
    """
    a = pw._float(a)
    top = max(a, axis, keepdims=True)
    # The maximum only keeps exp in range, so no derivative flows through it; an infinite one would give inf - inf.
    top = (
        shaping.stop_gradient(pw.where(pw.isfinite(top), top, 0.0))
        if hasattr(top, "aval")
        else np.where(np.isfinite(top), top, 0.0)
    )
    total = sum(pw.exp(pw.subtract(a, top)), axis, keepdims=True)
    with np.errstate(divide="ignore"):
        out = pw.add(pw.log(total), top)
    if keepdims:
        return out
    axes = axes_in(axis, len(shape_of(a)))
    return shaping.reshape(out, shape=tuple(n for i, n in enumerate(shape_of(a)) if i not in axes))[()]

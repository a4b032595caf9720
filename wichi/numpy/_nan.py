"""NumPy's functions that leave nan out. Where an element is nan its derivative is 0, never nan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from wichi.numpy import _cumulative, _reducing, _sorting
from wichi.numpy import _pointwise as pw
from wichi.numpy._indexing import index
from wichi.numpy._promote import Array, as_value, broadcast_to, cast_to, is_boxed, public
from wichi.numpy._shaping import reshape
from wichi.ops import reducing, sorting
from wichi.trace.primitive import Primitive, aval_of, shape_of

_NAN = float("nan")


def _without(a: Array, instead: float) -> Array:
    """``a`` with a number in place of nan; integers have none."""
    a = as_value(a)
    return pw.where(pw.isnan(a), aval_of(a).dtype.type(instead), a) if _sorting.is_float(a) else a


def _counts(a: Array, axis: Any, keepdims: bool, where: Any = None) -> Array:
    """How many elements are numbers."""
    return _reducing.sum(pw.logical_not(pw.isnan(a)), axis, keepdims=keepdims, where=where)


def _per(total: Array, count: Array) -> Array:
    """``total / count``, nan where that is not above 0: without dividing by it, whose derivative would be nan."""
    some = pw.greater(count, 0)
    divisor = cast_to(pw.where(some, count, 1), aval_of(total).dtype)
    return pw.where(some, pw.divide(total, divisor), aval_of(total).dtype.type(_NAN))


@public(np.nansum)
def nansum(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = None,
) -> Array:
    return _reducing.sum(_without(a, 0), axis, dtype, out, _flag(keepdims), initial, where)


@public(np.nanprod)
def nanprod(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = None,
) -> Array:
    return _reducing.prod(_without(a, 1), axis, dtype, out, _flag(keepdims), initial, where)


def _flag(keepdims: Any) -> bool:
    return keepdims is not np._NoValue and bool(keepdims)


@public(np.nanmean)
def nanmean(
    a: Array, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = None
) -> Array:
    a = _in_dtype(a, dtype)
    total = _reducing.sum(_without(a, 0), axis, None, out, _flag(keepdims), where=where)
    return _per(total, _counts(a, axis, _flag(keepdims), where))


def _in_dtype(a: Array, dtype: Any) -> Array:
    a = as_value(a)
    return cast_to(a, np.dtype(dtype)) if dtype is not None else _sorting.in_floats(a)


@public(np.nanvar)
def nanvar(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: float = 0,
    keepdims: Any = False,
    *,
    where: Any = None,
    correction: Any = None,
    **rest: Any,
) -> Array:
    """As ``numpy.nanvar``: nan where there are not more than ``ddof`` numbers."""
    _reducing._plain_options("nanvar", out=out, **rest)
    a = _in_dtype(a, dtype)
    present = pw.logical_not(pw.isnan(a))
    centre = _per(_reducing.sum(_without(a, 0), axis, keepdims=True, where=where), _counts(a, axis, True, where))
    away = pw.where(present, pw.subtract(_without(a, 0), centre), aval_of(a).dtype.type(0))
    total = _reducing.sum(pw.square(away), axis, keepdims=_flag(keepdims), where=where)
    free = ddof if correction is None or correction is np._NoValue else correction
    return _per(total, pw.subtract(_counts(a, axis, _flag(keepdims), where), free))


@public(np.nanstd)
def nanstd(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: float = 0,
    keepdims: Any = False,
    *,
    where: Any = None,
    correction: Any = None,
    **rest: Any,
) -> Array:
    """As ``numpy.nanstd``; see ``nanvar``."""
    return pw.sqrt(nanvar(a, axis, dtype, out, ddof, keepdims, where=where, correction=correction, **rest))


# --- the largest and the smallest -------------------------------------------------------------------------------------
def _extremum(function: Any, extremum: Callable[..., Array], instead: float) -> Callable[..., Any]:
    name = function.__name__

    def reduce(
        a: Array, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = None
    ) -> Array:
        _reducing._plain_options(name, out=out, where=where)
        a, keep = as_value(a), _flag(keepdims)
        found = extremum(_without(a, instead), axis, keepdims=keep, initial=initial)
        if not _sorting.is_float(a) or not (initial is None or initial is np._NoValue):
            return found
        # Where the extremum is what stands in place of nan, only the elements that are it share the derivative.
        alike = pw.logical_and(pw.isinf(a), pw.equal(a, extremum(_without(a, instead), axis, keepdims=True)))
        of_these = _reducing.sum(pw.where(alike, a, aval_of(a).dtype.type(0)), axis, keepdims=keep)
        found = pw.where(pw.isinf(found), _per(of_these, _reducing.sum(alike, axis, keepdims=keep)), found)
        return pw.where(pw.greater(_counts(a, axis, keep), 0), found, aval_of(a).dtype.type(_NAN))

    reduce.__name__ = name
    reduce.__doc__ = f"As ``numpy.{name}``, without ``where``; ties share the derivative evenly."
    return public(function)(reduce)


nanmax, nanmin = _extremum(np.nanmax, _reducing.max, -np.inf), _extremum(np.nanmin, _reducing.min, np.inf)


def _position(function: Any, numbers: Callable[..., Array], prim: Primitive) -> Callable[..., Any]:
    name = function.__name__
    of_floats = _reducing.position(function, prim)

    def find(a: Array, axis: int | None = None, out: Any = None, *, keepdims: Any = False) -> Array:
        a = as_value(a)
        return (of_floats if _sorting.is_float(a) else numbers)(a, axis, out, keepdims=_flag(keepdims))

    find.__name__ = name
    find.__doc__ = f"As ``numpy.{name}``; beside nan an infinity counts as a number, which NumPy leaves open."
    return public(function)(find)


nanargmax = _position(np.nanargmax, _reducing.argmax, reducing.nanargmax)
nanargmin = _position(np.nanargmin, _reducing.argmin, reducing.nanargmin)


# --- sums and products so far -----------------------------------------------------------------------------------------
@public(np.nancumsum)
def nancumsum(a: Array, axis: int | None = None, dtype: Any = None, out: Any = None) -> Array:
    return _reducing.cumsum(_without(a, 0), axis, dtype, out)


@public(np.nancumprod)
def nancumprod(a: Array, axis: int | None = None, dtype: Any = None, out: Any = None) -> Array:
    return _cumulative.cumprod(_without(a, 1), axis, dtype, out)


# --- medians and quantiles --------------------------------------------------------------------------------------------
def _ordered(a: Array, axis: Any) -> tuple[Array, Array, tuple[int, ...]]:
    """Sorted lines along the first axis, their nans (the last elements) as 0; how many numbers there are in each."""
    rows, kept = _sorting.lines(a, axis)
    in_order = sorting.sort(rows, axis=0)[0]
    return _without(in_order, 0), _counts(rows, 0, False), kept


def _at(rows: Array, place: Array) -> Array:
    """Each line at its own place; there may be several places a line, on axes in front."""
    if not is_boxed(place):
        return index(rows, place)
    rest = shape_of(rows)[1:]
    others = [np.arange(n).reshape(-1, *(1,) * (len(rest) - i - 1)) for i, n in enumerate(rest)]
    return index(rows, (place, *others))


@public(np.nanmedian)
def nanmedian(
    a: Array, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False
) -> Array:
    _reducing._plain_options("nanmedian", out=out)
    a = _sorting.in_floats(as_value(a))
    if not aval_of(a).size:
        return nanmean(a, axis, keepdims=keepdims)
    rows, count, kept = _ordered(a, axis)
    low = _at(rows, pw.maximum(pw.floor_divide(pw.subtract(count, 1), 2), 0))
    high = _at(rows, pw.minimum(pw.floor_divide(count, 2), shape_of(rows)[0] - 1))
    odd = pw.equal(pw.remainder(count, 2), 1)
    found = pw.where(odd, low, pw.divide(pw.add(low, high), 2.0))
    found = pw.where(pw.greater(count, 0), found, aval_of(a).dtype.type(_NAN))
    return reshape(found, kept) if _flag(keepdims) else found


def _nanquantile(name: str, a: Array, q: Any, axis: Any, method: str, keepdims: Any, percent: bool) -> Array:
    a = as_value(a)
    if not _sorting.is_float(a):
        return _sorting._quantile(name, a, q, axis, method, _flag(keepdims), percent)
    q = _sorting.fraction(q, percent)
    if len(shape_of(q)) > 1:  # where NumPy mixes the axes of q with those of a
        raise ValueError("q must be a scalar or 1d")
    if not aval_of(a).size:
        found = nanmean(a, axis, keepdims=keepdims)
        return broadcast_to(found, (*shape_of(q), *shape_of(found)))
    rows, count, kept = _ordered(a, axis)
    if aval_of(q).dtype.kind == "f" and not aval_of(q).weak:
        count = cast_to(count, aval_of(q).dtype)
    spread = q
    if shape_of(q):
        spread = reshape(q if is_boxed(q) else np.asarray(q), (*shape_of(q), *(1,) * (len(shape_of(rows)) - 1)))
    found = _sorting.between(rows, count, spread, method, _at)
    found = pw.where(pw.greater(count, 0), found, aval_of(found).dtype.type(_NAN))
    return reshape(found, (*shape_of(q), *kept)) if _flag(keepdims) else found


nanquantile = _sorting.quantiles(np.nanquantile, _nanquantile, False, "As ``numpy.nanquantile``; see ``quantile``.")
nanpercentile = _sorting.quantiles(
    np.nanpercentile, _nanquantile, True, "As ``numpy.nanpercentile``; see ``quantile``."
)

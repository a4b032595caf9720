"""Sorting and what is made of it: medians, quantiles, places in sorted arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from wichi.errors import ArgumentError, ShapeError
from wichi.numpy import _pointwise as pw
from wichi.numpy import _reducing
from wichi.numpy._indexing import index
from wichi.numpy._promote import (
    Array,
    as_value,
    axes_in,
    axis_in,
    broadcast_to,
    cast_to,
    is_boxed,
    public,
    result_type,
)
from wichi.numpy._shaping import moveaxis, ravel, reshape
from wichi.ops import shaping, sorting
from wichi.trace import frames
from wichi.trace.dims import Dim
from wichi.trace.free import visible
from wichi.trace.primitive import aval_of, shape_of
from wichi.trace.tracer import concrete

_I8 = np.dtype("i8")
_KINDS = ("quicksort", "heapsort", "mergesort", "stable")


def _sorted(name: str, a: Array, axis: int | None, kind: Any, order: Any, stable: Any) -> tuple[Array, Array]:
    """The values and their places. Every kind of sort is the stable one."""
    if kind is not None and stable is not None:
        raise ValueError("`kind` and `stable` parameters can't be provided at the same time.")
    if kind is not None and (not isinstance(kind, str) or not any(k.startswith(kind[:1].lower()) for k in _KINDS)):
        raise ValueError(f"sort kind must be one of 'quick', 'heap', or 'stable' (got {kind!r})")
    if order is not None:
        raise ValueError(f"np.{name}: Cannot specify order when the array has no fields.")
    a = as_value(a)
    if axis is None:
        a, axis = ravel(a), 0
    found: tuple[Array, Array] = sorting.sort(a, axis=axis_in(axis, len(shape_of(a))))
    return found


@public(np.sort)
def sort(a: Array, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Array:
    """As ``numpy.sort``, always stable: among equal elements their turn decides where a derivative goes.

    (JAX and PyTorch do the same.)

    >>> wichi.grad(lambda x: np.sort(x)[0])(np.array([3.0, 1.0, 1.0]))
    array([0., 1., 0.])
    """
    return _sorted("sort", a, axis, kind, order, stable)[0]


@public(np.argsort)
def argsort(a: Array, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Array:
    """As ``numpy.argsort``, always stable."""
    return _sorted("argsort", a, axis, kind, order, stable)[1]


def sort_in_place(x: Array, axis: int = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> None:
    """``x.sort()``"""
    x[...] = _sorted("sort", x, axis_in(axis, len(shape_of(x))), kind, order, stable)[0]


def _check_kth(kth: Any, a: Array, axis: int | None) -> None:
    places = np.asarray(kth)
    if places.dtype.kind not in "iu":
        raise TypeError("Partition index must be integer")
    n = aval_of(a).size if axis is None else shape_of(a)[axis_in(axis, len(shape_of(a)))]
    for place in places.ravel():
        if not -n <= place < n:
            raise ValueError(f"kth(={place % n if -n <= place < 0 else place}) out of bounds ({n})")


@public(np.partition)
def partition(a: Array, kth: Any, axis: int | None = -1, kind: str = "introselect", order: Any = None) -> Array:
    """As ``numpy.partition``; the parts on both sides of ``kth`` are sorted too, which NumPy leaves open."""
    _check_kth(kth, as_value(a), axis)
    return _sorted("partition", a, axis, None, order, None)[0]


@public(np.argpartition)
def argpartition(a: Array, kth: Any, axis: int | None = -1, kind: str = "introselect", order: Any = None) -> Array:
    """As ``numpy.argpartition``; the parts on both sides of ``kth`` are sorted too, which NumPy leaves open."""
    _check_kth(kth, as_value(a), axis)
    return _sorted("argpartition", a, axis, None, order, None)[1]


def partition_in_place(x: Array, kth: Any, axis: int = -1, kind: str = "introselect", order: Any = None) -> None:
    """``x.partition(kth)``"""
    _check_kth(kth, x, axis)
    sort_in_place(x, axis, order=order)


# --- medians and quantiles: lines along the first axis, sorted --------------------------------------------------------
def lines(a: Array, axis: Any) -> tuple[Array, tuple[int, ...]]:
    """The axes joined as the first one, and the shape with axes of 1 in their place."""
    a = as_value(a)
    shape = shape_of(a)
    axes = axes_in(axis, len(shape))
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    if len(axes) == 1:
        return moveaxis(a, axes[0], 0), kept
    rest = tuple(n for i, n in enumerate(shape) if i not in axes)
    joined = math.prod(shape[i] for i in axes)
    return shaping.reshape(moveaxis(a, axes, tuple(range(len(axes)))), shape=(joined, *rest)), kept


def _ordered(a: Array, axis: Any) -> tuple[Array, tuple[int, ...]]:
    """Sorted lines along the first axis, and the shape with axes of 1."""
    rows, kept = lines(a, axis)
    return sorting.sort(rows, axis=0)[0], kept


def is_float(a: Array) -> bool:
    return bool(aval_of(a).dtype.kind == "f")


def _with_nans(rows: Array, found: Array) -> Array:
    """Lines with a nan, which is their last element then, answer nan."""
    if not is_float(rows):
        return found
    n = shape_of(rows)[0]
    last = index(rows, pw.multiply(visible(n - 1), 1) if isinstance(n, Dim) else -1)  # checked where it runs
    return pw.where(pw.isnan(last), last, found)


def in_floats(a: Array) -> Array:
    return a if is_float(a) else cast_to(a, np.dtype(float))


@public(np.median)
def median(a: Array, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False) -> Array:
    """As ``numpy.median``. Where the two in the middle are averaged, each has half of the derivative.

    >>> wichi.grad(np.median)(np.array([3.0, 1.0, 2.0, 9.0]))
    array([0.5, 0. , 0.5, 0. ])
    """
    _reducing._plain_options("median", out=out)
    rows, kept = _ordered(in_floats(as_value(a)), axis)
    n, rest = shape_of(rows)[0], shape_of(rows)[1:]
    if isinstance(n, Dim):
        count = visible(n)
        low, high = (index(rows, pw.floor_divide(pw.subtract(count, k), 2)) for k in (1, 0))
        found = pw.where(pw.equal(pw.remainder(count, 2), 1), low, pw.divide(pw.add(low, high), 2.0))
    elif not n:
        found = broadcast_to(aval_of(rows).dtype.type(np.nan), rest)
    elif n % 2:
        found = index(rows, n // 2)
    else:
        found = pw.divide(pw.add(index(rows, n // 2 - 1), index(rows, n // 2)), 2.0)
    found = _with_nans(rows, found) if isinstance(n, Dim) or n else found
    return reshape(found, kept) if keepdims is True else found


# The places of quantiles among n sorted numbers: Hyndman and Fan, "Sample Quantiles in Statistical Packages",
# The American Statistician 50(4), 1996. Those not named here jump, and have no place of their own.
_CONTINUOUS = {
    "interpolated_inverted_cdf": (0.0, 1.0), "hazen": (0.5, 0.5), "weibull": (0.0, 0.0),
    "median_unbiased": (1 / 3.0, 1 / 3.0), "normal_unbiased": (3 / 8.0, 3 / 8.0),
}  # fmt: skip


def _place_of(n: Any, q: Any, method: str) -> Any:
    """Where a quantile lies among ``n`` sorted numbers, as NumPy computes it; an integer where nothing is between."""
    if method in _CONTINUOUS:
        alpha, beta = _CONTINUOUS[method]
        return pw.subtract(pw.add(pw.multiply(n, q), pw.add(alpha, pw.multiply(q, 1 - alpha - beta))), 1)
    place = pw.multiply(n - 1, q)
    if method == "linear":
        return place
    if method == "midpoint":
        return pw.multiply(0.5, pw.add(pw.floor(place), pw.ceil(place)))
    rounded = {"lower": pw.floor, "higher": pw.ceil, "nearest": pw.rint}[method](place)
    return rounded.astype(_I8) if not is_boxed(rounded) else cast_to(rounded, _I8)


_METHODS = ("linear", "lower", "higher", "midpoint", "nearest", *_CONTINUOUS)


def _check_method(name: str, method: str, weights: Any, interpolation: Any = None) -> None:
    if weights is None and interpolation is None and method in _METHODS:
        return
    given = (
        "weights" if weights is not None else "interpolation=" if interpolation is not None else f"method={method!r}"
    )
    raise ArgumentError(
        f"np.{name} of a value inside a transform does not take {given}.",
        at=frames.describe(frames.user_where()),
        because=f"the methods are {', '.join(_METHODS)}",
        fix=f"np.{name}(x, q, method='linear')",
    )


def fraction(q: Any, percent: bool) -> Any:
    """``q`` as parts of 1. Plain ones are checked; what depends on inputs is held between the ends.

    A Python number stays one, as it promotes nothing.
    """
    plain = concrete(q) if is_boxed(q) else as_value(q)
    if plain is None:
        q = pw.divide(q, 100) if percent else q
        return pw.clip(q, 0, 1)
    weak = type(plain) in (int, float)
    q = np.true_divide(plain, 100) if percent else np.asarray(plain)
    if q.ndim > 2:
        raise ValueError("q must be a scalar or 1d")
    if not (np.all(q >= 0) and np.all(q <= 1)):
        raise ValueError(
            f"{'Percentiles' if percent else 'Quantiles'} must be in the range [0, {100 if percent else 1}]"
        )
    return q.item() if weak else q


def between(rows: Array, n: Any, q: Any, method: str, take: Callable[[Array, Any], Array]) -> Array:
    """The quantiles of sorted lines of ``n`` numbers; ``take`` reads the lines at places."""
    place = _place_of(n, q, method)
    if aval_of(place).dtype.kind in "iu":
        return take(rows, place)
    low = pw.floor(place)
    first, last = (_held(v, n) for v in (low, pw.add(low, 1)))
    above, below = pw.greater_equal(place, n - 1), pw.less(place, 0)
    # NumPy's weights at the ends, where both neighbours are the same.
    weight = pw.where(pw.logical_or(above, below), 0.0, pw.subtract(place, low))
    if method == "midpoint":
        weight = pw.where(pw.equal(place, low), 0.0, 0.5)
    a, b = take(rows, first), take(rows, last)
    rest, weight = (_like_lines(w, aval_of(place), aval_of(q).weak, a) for w in (pw.subtract(1, weight), weight))
    step = pw.subtract(b, a)
    near_b = pw.subtract(b, pw.multiply(step, rest))
    return pw.where(pw.greater_equal(weight, 0.5), near_b, pw.add(a, pw.multiply(step, weight)))


def _held(place: Any, n: Any) -> Any:
    """An integer place within the lines."""
    held = pw.clip(place, 0, pw.maximum(n - 1, 0))
    return cast_to(held, _I8) if is_boxed(held) else np.asarray(held).astype(_I8)


def _like_lines(weight: Any, place: Any, weak: bool, like: Array) -> Any:
    """Weights in the dtype of their places, one a quantile, beside lines. One made of a Python number is weak."""
    dtype = place.dtype
    if weak:
        dtype = aval_of(like).dtype if is_float(like) else np.dtype(float)
    weight = cast_to(weight, dtype) if is_boxed(weight) else np.asarray(weight, dtype)[()]
    missing = len(shape_of(like)) - len(shape_of(weight))
    return reshape(weight, (*shape_of(weight), *(1,) * missing)) if missing and shape_of(weight) else weight


def _quantile(name: str, a: Array, q: Any, axis: Any, method: str, keepdims: Any, percent: bool) -> Array:
    a = as_value(a)
    rows, kept = _ordered(a, axis)
    n = shape_of(rows)[0]
    if not isinstance(n, Dim) and not n:
        raise ShapeError(
            f"np.{name} of an empty axis: the array has shape {shape_of(a)}.",
            at=frames.describe(frames.user_where()),
            because="nothing has no quantiles",
        )
    q = fraction(q, percent)
    found = _with_nans(rows, between(rows, visible(n) if isinstance(n, Dim) else n, q, method, index))
    return reshape(found, (*shape_of(q), *kept)) if keepdims is True else found


def quantiles(function: Any, compute: Callable[..., Array], percent: bool, doc: str) -> Callable[..., Any]:
    """A function of NumPy's quantile family: ``compute(name, a, q, axis, method, keepdims, percent)``."""
    name = function.__name__

    def find(
        a: Array,
        q: Array,
        axis: Any = None,
        out: Any = None,
        overwrite_input: bool = False,
        method: str = "linear",
        keepdims: Any = False,
        *,
        weights: Any = None,
        interpolation: Any = None,
    ) -> Array:
        _reducing._plain_options(name, out=out)
        _check_method(name, method, weights, interpolation)
        return compute(name, a, q, axis, method, keepdims, percent)

    find.__name__, find.__doc__ = name, doc
    return public(function)(find)


quantile = quantiles(
    np.quantile,
    _quantile,
    False,
    """As ``numpy.quantile``, without weights and the methods that jump in between.

    ``q`` may be a value inside a transform; outside [0, 1] it counts as 0 or 1 then, where NumPy raises.
    """,
)
percentile = quantiles(np.percentile, _quantile, True, "As ``numpy.percentile``; see ``quantile``.")


# --- places in what is sorted ----------------------------------------------------------------------------------------
@public(np.searchsorted)
def searchsorted(a: Array, v: Array, side: str = "left", sorter: Array = None) -> Array:
    """As ``numpy.searchsorted``. That ``a`` is sorted is not checked, as in NumPy. It has no derivative."""
    if side not in ("left", "right"):
        raise ValueError(f"search side must be 'left' or 'right' (got {side!r})")
    a, v = as_value(a), as_value(v)
    if len(shape_of(a)) != 1:
        raise ShapeError(
            f"np.searchsorted in an array of shape {shape_of(a)}.",
            at=frames.describe(frames.user_where()),
            because="the sorted array must have one axis",
            fix="wichi.vmap(np.searchsorted)(a, v) searches row by row",
        )
    if sorter is not None:
        a = index(a, sorter)
    a, v = (x if is_boxed(x) else np.asarray(x) for x in (a, v))  # a Python number has a dtype of its own here
    dtype = result_type(a, v)
    values = cast_to(v, dtype)
    flat = reshape(values, (aval_of(v).size,))
    return reshape(sorting.searchsorted(cast_to(a, dtype), flat, right=side == "right"), shape_of(v))


@public(np.digitize)
def digitize(x: Array, bins: Array, right: bool = False) -> Array:
    """As ``numpy.digitize``; that bins which depend on input values rise or fall throughout is not checked."""
    bins, side = as_value(bins), "left" if right else "right"
    if not is_boxed(bins):
        steps = np.diff(bins)
        if not (np.all(steps >= 0) or np.all(steps <= 0)):
            raise ValueError("bins must be monotonically increasing or decreasing")
    n = shape_of(bins)[0] if shape_of(bins) else 0
    rising = searchsorted(bins, x, side)
    if not n:
        return rising
    falling = pw.subtract(n, searchsorted(index(bins, slice(None, None, -1)), x, side))
    return pw.where(pw.less(index(bins, -1), index(bins, 0)), falling, rising)

"""Counts in bins."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from wichi.errors import ArgumentError
from wichi.numpy import _pointwise as pw
from wichi.numpy._indexing import index
from wichi.numpy._promote import Array, as_value, broadcast_to, cast_to, is_boxed, public, result_type
from wichi.numpy._reducing import diff, max, min, sum
from wichi.numpy._shaping import concatenate, reshape
from wichi.numpy._sorting import searchsorted
from wichi.ops import indexing
from wichi.trace import frames
from wichi.trace.primitive import aval_of, shape_of


@public(np.histogram)
def histogram(
    a: Array, bins: Any = 10, range: Any = None, density: bool | None = None, weights: Array = None
) -> tuple[Array, Array]:
    """As ``numpy.histogram``, of a number of bins or their edges. Counts have no derivative; sums of weights have one.

    Where the numbers themselves give the range, that it is finite is not checked.
    """
    a = as_value(a)
    edges = _edges(a, bins, range)
    count = shape_of(edges)[0] - 1
    dtype = result_type(a, edges)
    flat, borders = cast_to(reshape(a, (aval_of(a).size,)), dtype), cast_to(edges, dtype)
    low, high = index(borders, 0), index(borders, -1)
    inside = pw.logical_and(pw.greater_equal(flat, low), pw.less_equal(flat, high))  # the last bin has both its edges
    place = pw.clip(pw.subtract(searchsorted(borders, flat, "right"), 1), 0, count - 1)
    given = 1 if weights is None else as_value(weights)
    if weights is not None and shape_of(given) != shape_of(a):
        raise ValueError("weights should have the same shape as a.")
    given = given if weights is None else reshape(given, (aval_of(given).size,))
    kept = broadcast_to(pw.where(inside, given, aval_of(given).dtype.type(0)), shape_of(flat))
    if aval_of(kept).dtype.kind == "b":
        kept = cast_to(kept, np.dtype(int))
    found = indexing.scatter_add(kept, place, shape=(count,))
    if density:
        found = pw.divide(pw.divide(found, diff(edges)), sum(found))
    return found, edges


def _edges(a: Array, bins: Any, range: Any) -> Array:
    """Where the bins of a histogram end."""
    if isinstance(bins, str):
        raise ArgumentError(
            f"np.histogram with bins={bins!r}: how many there are would depend on values.",
            at=frames.describe(frames.user_where()),
            because="shapes must be known while tracing",
            fix="np.histogram(x, bins=10), or their edges",
        )
    bins = as_value(bins)
    if shape_of(bins):
        if len(shape_of(bins)) != 1:
            raise ValueError("`bins` must be 1d, when an array")
        if not is_boxed(bins) and np.any(bins[:-1] > bins[1:]):
            raise ValueError("`bins` must increase monotonically, when an array")
        return bins
    count = operator.index(bins)
    if count < 1:
        raise ValueError("`bins` must be positive, when an integer")
    if range is not None:
        low, high = map(as_value, range)
        if not is_boxed(low, high) and not (np.isfinite([low, high]).all() and low <= high):
            raise ValueError("max must be larger than min in range parameter, and both finite")
    elif aval_of(a).size:
        low, high = min(a), max(a)
    else:
        low, high = 0, 1
    dtype = result_type(low, high, a)
    dtype = dtype if dtype.kind == "f" else np.dtype(float)
    alike = pw.equal(low, high)
    low, high = pw.where(alike, pw.subtract(low, 0.5), low), pw.where(alike, pw.add(high, 0.5), high)
    within = result_type(low, high)  # in which NumPy computes the edges
    within = within if within.kind == "f" else np.dtype(float)
    low, high = cast_to(low, within), cast_to(high, within)
    if not is_boxed(low, high):
        return np.linspace(low, high, count + 1, dtype=dtype)
    step = pw.divide(pw.subtract(high, low), within.type(count))
    inner = pw.add(pw.multiply(np.arange(count, dtype=within), step), low)
    return cast_to(concatenate([inner, reshape(high, (1,))]), dtype)

"""NumPy's functions made of the others: interpolation, convolution, selections, covariances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wichi.errors import ArgumentError, ShapeError
from wichi.numpy import _pointwise as pw
from wichi.numpy import _products, _reducing
from wichi.numpy._indexing import index
from wichi.numpy._promote import Array, as_value, cast_to, public
from wichi.numpy._shaping import concatenate, expand_dims, pad, ravel, stack, swapaxes
from wichi.trace import frames
from wichi.trace.primitive import shape_of


@public(np.select)
def select(condlist: Sequence[Array], choicelist: Sequence[Array], default: Array = 0) -> Array:
    if len(condlist) != len(choicelist):
        raise ArgumentError(
            f"np.select of {len(condlist)} conditions and {len(choicelist)} choices.",
            at=frames.describe(frames.user_where()),
            fix="one choice a condition",
        )
    answer = default
    for condition, choice in reversed([*zip(condlist, choicelist, strict=True)]):
        answer = pw.where(condition, choice, answer)
    return answer


@public(np.polyval)
def polyval(p: Array, x: Array) -> Array:
    answer: Array = pw.multiply(x, 0)
    for i in range(shape_of(p)[0]):
        answer = pw.add(pw.multiply(answer, x), index(p, i))
    return answer


@public(np.allclose)
def allclose(a: Array, b: Array, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Array:
    """As ``numpy.allclose``; of traced values the answer is a traced bool."""
    return _reducing.all(pw.isclose(a, b, rtol, atol, equal_nan))


@public(np.array_equal)
def array_equal(a1: Array, a2: Array) -> Array:
    """As ``numpy.array_equal``; of traced values the answer is a traced bool."""
    a1, a2 = as_value(a1), as_value(a2)
    return _reducing.all(pw.equal(a1, a2)) if shape_of(a1) == shape_of(a2) else False


@public(np.append)
def append(arr: Array, values: Array, axis: int | None = None) -> Array:
    if axis is None:
        return concatenate([ravel(as_value(arr)), ravel(as_value(values))])
    return concatenate([arr, values], axis)


@public(np.interp)
def interp(x: Array, xp: Array, fp: Array, left: Array = None, right: Array = None, period: Any = None) -> Array:
    """As ``numpy.interp``, without ``period``. ``xp`` must increase; that is not checked, as in NumPy."""
    if period is not None:
        raise ArgumentError("np.interp of traced values takes no period.", fix="reduce x first: x % period")
    x, xp, fp = (cast_to(as_value(v), np.dtype(float)) for v in (x, xp, fp))  # NumPy answers float64 for all
    if len(shape_of(xp)) != 1 or shape_of(xp) != shape_of(fp) or not shape_of(xp)[0]:
        raise ShapeError(
            f"np.interp: xp has shape {shape_of(xp)}, fp {shape_of(fp)}.",
            at=frames.describe(frames.user_where()),
            because="both are lists of the same points, at least one",
        )
    last = shape_of(xp)[0] - 1
    below = _reducing.sum(pw.less_equal(xp, expand_dims(x, -1)), -1)  # how many points are not right of x
    low = pw.clip(pw.subtract(below, 1), 0, max(last - 1, 0))
    high = pw.minimum(pw.add(low, 1), last)
    x0, x1, f0, f1 = index(xp, low), index(xp, high), index(fp, low), index(fp, high)
    width = pw.where(pw.equal(x1, x0), 1.0, pw.subtract(x1, x0))
    inside = pw.add(f0, pw.multiply(pw.subtract(x, x0), pw.divide(pw.subtract(f1, f0), width)))
    answer = pw.where(pw.greater_equal(x, index(xp, last)), index(fp, last), inside)
    if right is not None:
        answer = pw.where(pw.greater(x, index(xp, last)), right, answer)
    return pw.where(pw.less(x, index(xp, 0)), index(fp, 0) if left is None else left, answer)


@public(np.convolve)
def convolve(a: Array, v: Array, mode: str = "full") -> Array:
    a, v = as_value(a), as_value(v)
    if len(shape_of(a)) != 1 or len(shape_of(v)) != 1 or not shape_of(a)[0] or not shape_of(v)[0]:
        raise ShapeError(
            f"np.convolve of shapes {shape_of(a)} and {shape_of(v)}.",
            at=frames.describe(frames.user_where()),
            because="both must be vectors of at least one element",
        )
    if shape_of(a)[0] < shape_of(v)[0]:
        a, v = v, a
    n, m = shape_of(a)[0], shape_of(v)[0]
    windows = np.arange(n + m - 1)[:, None] + np.arange(m)
    full = _products.matmul(index(pad(a, m - 1), windows), index(v, slice(None, None, -1)))
    if mode == "full":
        return full
    if mode not in ("same", "valid"):
        raise ValueError("mode must be one of 'full', 'same' or 'valid'")
    first, length = ((m - 1) // 2, n) if mode == "same" else (m - 1, n - m + 1)
    return index(full, slice(first, first + length))


@public(np.cov)
def cov(
    m: Array, y: Array = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None, *, dtype: Any = None
) -> Array:
    """As ``numpy.cov``, without ``fweights`` and ``aweights``."""
    x = _observations(m, y, rowvar, dtype)
    count = shape_of(x)[1]
    free = min((0 if bias else 1) if ddof is None else ddof, count)
    centred = pw.subtract(x, _reducing.mean(x, 1, keepdims=True))
    found = pw.divide(_products.matmul(centred, swapaxes(centred, 0, 1)), float(count - free))
    return index(found, (0, 0)) if shape_of(found) == (1, 1) else found


@public(np.corrcoef)
def corrcoef(x: Array, y: Array = None, rowvar: bool = True, *, dtype: Any = None) -> Array:
    c = cov(x, y, rowvar, dtype=dtype)
    if not shape_of(c):
        return pw.divide(c, c)
    spread = pw.sqrt(index(c, (np.arange(shape_of(c)[0]),) * 2))
    return pw.clip(pw.divide(pw.divide(c, expand_dims(spread, 1)), spread), -1, 1)  # which rounding may leave


def _observations(m: Array, y: Array | None, rowvar: bool, dtype: Any) -> Array:
    """One row a variable, in float64 where no dtype is asked for, as in NumPy."""

    def rows(v: Array) -> Array:
        v = cast_to(as_value(v), np.dtype(dtype or float))
        if len(shape_of(v)) == 1:
            return stack([v])
        return v if rowvar or shape_of(v)[0] == 1 else swapaxes(v, 0, 1)

    return rows(m) if y is None else concatenate([rows(m), rows(y)])

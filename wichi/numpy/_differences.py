"""Differences, correlations and polynomials."""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.errors import ShapeError
from wichi.numpy import _pointwise as pw
from wichi.numpy._composed import convolve
from wichi.numpy._indexing import index
from wichi.numpy._promote import Array, as_value, axes_in, axis_in, cast_to, is_boxed, public, result_type
from wichi.numpy._reducing import cumsum, diff
from wichi.numpy._shaping import concatenate, moveaxis, ravel, reshape, stack
from wichi.ops import shaping
from wichi.trace import frames
from wichi.trace.primitive import aval_of, shape_of


# --- slopes between neighbours -------------------------------------------------------------------------------------
@public(np.gradient)
def gradient(f: Array, *varargs: Array, axis: Any = None, edge_order: int = 1) -> Any:
    """As ``numpy.gradient``; values and spacings may be values inside a transform.

    (Coordinates that are plain and evenly spaced count as one step, as in NumPy.)
    """
    f = as_value(f)
    shape = shape_of(f)
    axes = (
        axes_in(axis, len(shape))
        if axis is None or not isinstance(axis, tuple | list)
        else tuple(axes_in(a, len(shape))[0] for a in axis)
    )
    if edge_order not in (1, 2):
        raise ValueError("'edge_order' greater than 2 not supported")
    if aval_of(f).dtype.kind != "f":
        f = cast_to(f, np.dtype(float))
    steps = _spacings(varargs, axes, shape)
    found = tuple(
        moveaxis(_slopes(moveaxis(f, k, 0), step, edge_order), 0, k) for k, step in zip(axes, steps, strict=True)
    )
    return found[0] if len(axes) == 1 else found


def _spacings(given: tuple[Array, ...], axes: tuple[int, ...], shape: tuple[int, ...]) -> list[Array]:
    """A step, or the distances between coordinates, for each axis."""
    if not given:
        return [1.0] * len(axes)
    if len(given) == 1 and not shape_of(given[0]):
        return [given[0]] * len(axes)
    if len(given) != len(axes):
        raise TypeError("invalid number of arguments")
    steps = []
    for spacing, k in zip(map(as_value, given), axes, strict=True):
        if not shape_of(spacing):
            steps.append(spacing)
            continue
        if shape_of(spacing) != (shape[k],):
            raise ShapeError(
                f"np.gradient: the coordinates of axis {k} have shape {shape_of(spacing)}, the axis has {shape[k]}.",
                at=frames.describe(frames.user_where()),
                because="there is one coordinate for each element along the axis",
            )
        if aval_of(spacing).dtype.kind in "iub":
            spacing = cast_to(spacing, np.dtype(float))
        apart = diff(spacing)
        even = not is_boxed(apart) and apart.size and np.all(apart == apart[0])
        steps.append(apart[0] if even else apart)
    return steps


def _slopes(f: Array, step: Array, edge_order: int) -> Array:
    """Along the first axis: central differences inside, one-sided ones at the ends, all of the order of NumPy's."""
    n, dtype = shape_of(f)[0], aval_of(f).dtype
    if n < edge_order + 1:
        raise ShapeError(
            f"np.gradient along an axis of {n} with edge_order={edge_order}.",
            at=frames.describe(frames.user_where()),
            because=f"it takes at least {edge_order + 1} elements",
        )
    even = not shape_of(step)
    if even:
        inner = pw.divide(pw.subtract(index(f, slice(2, None)), index(f, slice(None, -2))), pw.multiply(2.0, step))
        before = after = first = last = step
    else:
        column = (..., *(None,) * (len(shape_of(f)) - 1))
        before, after = index(step, slice(None, -1)), index(step, slice(1, None))
        weights = (index(w, column) for w in _weights(before, after))
        rows = (index(f, slice(i, n - 2 + i)) for i in range(3))
        inner = _weighted(weights, rows)
        first, last = index(step, 0), index(step, -1)
    if edge_order == 1:
        low = pw.divide(pw.subtract(index(f, 1), index(f, 0)), first)
        high = pw.divide(pw.subtract(index(f, -1), index(f, -2)), last)
    elif even:
        low = _weighted((pw.divide(w, step) for w in (-1.5, 2.0, -0.5)), (index(f, i) for i in range(3)))
        high = _weighted((pw.divide(w, step) for w in (0.5, -2.0, 1.5)), (index(f, i) for i in (-3, -2, -1)))
    else:
        low = _weighted(_first_weights(first, index(step, 1)), (index(f, i) for i in range(3)))
        # The same from the other end, where all differences change sign.
        ends = _first_weights(last, index(step, -2))
        high = _weighted((pw.negative(w) for w in ends[::-1]), (index(f, i) for i in (-3, -2, -1)))
    whole = concatenate([stack([low]), inner, stack([high])], 0)
    return cast_to(whole, dtype)


def _weighted(weights: Any, rows: Any) -> Array:
    terms = [pw.multiply(w, row) for w, row in zip(weights, rows, strict=True)]
    return pw.add(pw.add(terms[0], terms[1]), terms[2])


def _weights(before: Array, after: Array) -> tuple[Array, Array, Array]:
    both = pw.add(before, after)
    return (
        pw.divide(pw.negative(after), pw.multiply(before, both)),
        pw.divide(pw.subtract(after, before), pw.multiply(before, after)),
        pw.divide(before, pw.multiply(after, both)),
    )


def _first_weights(near: Array, far: Array) -> tuple[Array, Array, Array]:
    """Of the three elements at an end, of the second order."""
    both = pw.add(near, far)
    return (
        pw.divide(pw.negative(pw.add(pw.multiply(2.0, near), far)), pw.multiply(near, both)),
        pw.divide(both, pw.multiply(near, far)),
        pw.divide(pw.negative(near), pw.multiply(far, both)),
    )


@public(np.ediff1d)
def ediff1d(ary: Array, to_end: Array = None, to_begin: Array = None) -> Array:
    flat = ravel(as_value(ary))
    dtype = aval_of(flat).dtype
    parts = [diff(flat)]
    for extra, at in ((to_begin, 0), (to_end, 2)):
        if extra is not None:
            extra = as_value(extra)
            if not aval_of(extra).weak and not np.can_cast(aval_of(extra).dtype, dtype, "same_kind"):
                name = "to_end" if at else "to_begin"
                raise TypeError(f"dtype of `{name}` must be compatible with input `ary` under the `same_kind` rule.")
            parts.insert(at, cast_to(reshape(extra, (-1,)), dtype))
    return concatenate(parts) if len(parts) > 1 else parts[0]


@public(np.correlate)
def correlate(a: Array, v: Array, mode: str = "valid") -> Array:
    a, v = as_value(a), as_value(v)
    if len(shape_of(a)) == len(shape_of(v)) == 1 and shape_of(a)[0] < shape_of(v)[0]:
        return index(correlate(v, a, mode), slice(None, None, -1))
    return convolve(a, index(v, (..., slice(None, None, -1))) if shape_of(v) else v, mode)


# --- polynomials ---------------------------------------------------------------------------------------------------
@public(np.vander)
def vander(x: Array, N: int | None = None, increasing: bool = False) -> Array:
    x = as_value(x)
    if len(shape_of(x)) != 1:
        raise ValueError("x must be a one-dimensional array or sequence.")
    x = cast_to(x, np.promote_types(aval_of(x).dtype, int))
    count = shape_of(x)[0] if N is None else int(N)
    if not count:
        return np.zeros((shape_of(x)[0], 0), aval_of(x).dtype)
    columns = [np.ones(shape_of(x), aval_of(x).dtype)]
    while len(columns) < count:
        columns.append(x if len(columns) == 1 else pw.multiply(columns[-1], x))
    return stack(columns if increasing else columns[::-1], 1)


def _coefficients(*polynomials: Array) -> list[Array]:
    """As vectors of one length: zeros in front of the shorter one."""
    vectors = [reshape(as_value(p), (-1,)) for p in polynomials]
    longest = max(shape_of(p)[0] for p in vectors)
    return [concatenate([np.zeros(longest - shape_of(p)[0], aval_of(p).dtype), p]) for p in vectors]


@public(np.polyadd)
def polyadd(a1: Array, a2: Array) -> Array:
    return pw.add(*_coefficients(a1, a2))


@public(np.polysub)
def polysub(a1: Array, a2: Array) -> Array:
    return pw.subtract(*_coefficients(a1, a2))


@public(np.polymul)
def polymul(a1: Array, a2: Array) -> Array:
    """As ``numpy.polymul``, but leading zeros stay: how many there are would depend on values."""
    return convolve(*(reshape(as_value(p), (-1,)) for p in (a1, a2)))


@public(np.polyder)
def polyder(p: Array, m: int = 1) -> Array:
    if m < 0:
        raise ValueError("Order of derivative must be positive (see polyint)")
    p = as_value(p)
    for _ in range(int(m)):
        n = shape_of(p)[0] - 1
        p = pw.multiply(index(p, slice(None, -1)), np.arange(n, 0, -1))
    return p


@public(np.polyint)
def polyint(p: Array, m: int = 1, k: Array = None) -> Array:
    if m < 0:
        raise ValueError("Order of integral must be positive (see polyder)")
    p = as_value(p)
    constants = np.zeros(int(m)) if k is None else reshape(as_value(k), (-1,))
    if shape_of(constants)[0] == 1 and m > 1:
        constants = pw.multiply(constants, np.ones(int(m)))
    if shape_of(constants)[0] < m:
        raise ValueError("k must be a scalar or a rank-1 array of length 1 or >m.")
    for i in range(int(m)):
        terms = pw.divide(p, np.arange(shape_of(p)[0], 0, -1))
        p = concatenate([terms, index(constants, slice(i, i + 1))])
    return p


# --- angles that go round and round --------------------------------------------------------------------------------
@public(np.unwrap)
def unwrap(p: Array, discont: Any = None, axis: int = -1, *, period: Array = 2 * np.pi) -> Array:
    p = as_value(p)
    axis = axis_in(axis, len(shape_of(p)))
    steps = diff(p, axis=axis)
    dtype = result_type(p, period)
    whole = dtype.kind in "iu"
    half = period // 2 if whole else period / 2
    short = pw.subtract(pw.remainder(pw.add(steps, half), period), half)  # from -half to before half
    if not whole or is_boxed(period) or period % 2 == 0:  # a step of half a period keeps its direction
        at_half = pw.logical_and(pw.equal(short, -half), pw.greater(steps, 0))
        if whole and is_boxed(period):
            at_half = pw.logical_and(at_half, pw.equal(pw.remainder(period, 2), 0))
        short = pw.where(at_half, half, short)
    jumps = pw.where(pw.less(pw.absolute(steps), half if discont is None else discont), 0, pw.subtract(short, steps))
    if is_boxed(jumps) and not is_boxed(period):
        jumps = shaping.stop_gradient(jumps)  # whole periods
    lead = (slice(None),) * axis
    start = cast_to(index(p, (*lead, slice(0, 1))), dtype)
    return concatenate([start, pw.add(index(p, (*lead, slice(1, None))), cumsum(jumps, axis))], axis)

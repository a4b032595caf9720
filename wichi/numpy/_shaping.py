"""NumPy's functions that move elements: reshape, transpose, join, split, repeat, pad."""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wichi.errors import ShapeError
from wichi.numpy._indexing import index
from wichi.numpy._promote import (
    Array,
    as_value,
    axes_in,
    axis_in,
    broadcast_to,
    cast_to,
    common_shape,
    is_boxed,
    public,
    result_type,
)
from wichi.ops import shaping
from wichi.trace import frames
from wichi.trace.free import extent
from wichi.trace.primitive import aval_of, shape_of
from wichi.trace.tracer import as_view, of_its_own


@public(np.reshape)
def reshape(a: Array, shape: Any, order: str = "C") -> Array:
    """As ``numpy.reshape``, in C order only."""
    if order not in ("C", "A"):
        raise TypeError("np.reshape of a value inside a transform takes order='C' only")
    wanted = tuple(extent(n) for n in (shape if isinstance(shape, tuple | list) else (shape,)))
    a = as_value(a)
    size = aval_of(a).size
    known = math.prod(n for n in wanted if n != -1)
    fits = wanted.count(-1) <= 1 and (known == size if -1 not in wanted else known and size % known == 0)
    if not fits:
        raise ShapeError(
            f"An array of shape {shape_of(a)} cannot be reshaped to {wanted}.",
            at=frames.describe(frames.user_where()),
            because=f"it has {size} elements",
        )
    return shaping.reshape(a, shape=tuple(size // known if n == -1 else n for n in wanted))


@public(np.ravel)
def ravel(a: Array, order: str = "C") -> Array:
    return reshape(a, (-1,) if aval_of(a).size else (0,), order)


@public(np.transpose)
def transpose(a: Array, axes: Sequence[int] | None = None) -> Array:
    ndim = len(shape_of(as_value(a)))
    perm = tuple(range(ndim))[::-1] if axes is None else tuple(axis_in(x, ndim) for x in axes)
    if sorted(perm) != list(range(ndim)):
        raise ValueError("axes don't match array")
    return shaping.transpose(as_value(a), perm=perm)


permute_dims = transpose


@public(np.matrix_transpose)
def matrix_transpose(x: Array) -> Array:
    return swapaxes(x, -1, -2)


@public(np.swapaxes)
def swapaxes(a: Array, axis1: int, axis2: int) -> Array:
    perm = list(range(len(shape_of(a))))
    i, j = axis_in(axis1, len(perm)), axis_in(axis2, len(perm))
    perm[i], perm[j] = perm[j], perm[i]
    return shaping.transpose(a, perm=tuple(perm))


@public(np.moveaxis)
def moveaxis(a: Array, source: Any, destination: Any) -> Array:
    ndim = len(shape_of(a))
    from_, to = (
        [axis_in(x, ndim) for x in (v if isinstance(v, tuple | list) else (v,))] for v in (source, destination)
    )
    perm = [i for i in range(ndim) if i not in from_]
    for target, origin in sorted(zip(to, from_, strict=True)):
        perm.insert(target, origin)
    return shaping.transpose(a, perm=tuple(perm))


@public(np.expand_dims)
def expand_dims(a: Array, axis: Any) -> Array:
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    shape = list(shape_of(a))
    for i in axes_in(tuple(axes), len(shape) + len(axes)):
        shape.insert(i, 1)
    return shaping.reshape(a, shape=tuple(shape))


@public(np.squeeze)
def squeeze(a: Array, axis: Any = None) -> Array:
    shape = shape_of(a)
    axes = tuple(i for i, n in enumerate(shape) if n == 1) if axis is None else axes_in(axis, len(shape))
    if any(shape[i] != 1 for i in axes):
        raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
    return shaping.reshape(a, shape=tuple(n for i, n in enumerate(shape) if i not in axes))


@public(np.broadcast_to)
def _broadcast_to(array: Array, shape: Any) -> Array:
    shape = tuple(extent(n) for n in (shape if isinstance(shape, tuple | list) else (shape,)))
    if common_shape("broadcast_to", [shape_of(array), shape]) != shape:
        raise ShapeError(
            f"shape {shape_of(array)} does not broadcast to {shape}", at=frames.describe(frames.user_where())
        )
    return broadcast_to(array, shape)


@public(np.broadcast_arrays)
def broadcast_arrays(*args: Array) -> tuple[Array, ...]:
    shape = common_shape("broadcast_arrays", [shape_of(a) for a in args])
    return tuple(broadcast_to(_array(a), shape) for a in args)


def _array(x: Array) -> Array:
    """A value with axes: plain numbers become 0-d arrays."""
    x = as_value(x)
    return x if is_boxed(x) else np.asarray(x)


def _joined(what: str, arrays: Any) -> list[Array]:
    """The operands of a join, in their common dtype."""
    parts = [_array(a) for a in (arrays if isinstance(arrays, tuple | list) else list(arrays))]
    if not parts:
        raise ValueError("need at least one array to join")
    dtype = result_type(*parts)
    return [cast_to(p, dtype) for p in parts]


@public(np.concatenate)
def concatenate(arrays: Any, axis: int | None = 0, dtype: Any = None) -> Array:
    parts = _joined("concatenate", arrays)
    if dtype is not None:
        parts = [cast_to(p, np.dtype(dtype)) for p in parts]
    if axis is None:
        parts, axis = [ravel(p) for p in parts], 0
    ndim = len(shape_of(parts[0]))
    axis = axis_in(axis, ndim) if ndim else 0
    shapes = [shape_of(p) for p in parts]
    if not ndim or any(
        len(s) != ndim or s[:axis] + s[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :] for s in shapes
    ):
        raise ShapeError(
            f"concatenate along axis {axis}: the shapes {', '.join(map(str, shapes))} do not fit.",
            at=frames.describe(frames.user_where()),
            because="all other axes must have equal sizes",
        )
    return shaping.concatenate(*parts, axis=axis) if len(parts) > 1 else of_its_own(parts[0])


concat = concatenate


@public(np.stack)
def stack(arrays: Any, axis: int = 0) -> Array:
    parts = _joined("stack", arrays)
    shapes = {shape_of(p) for p in parts}
    if len(shapes) > 1:
        raise ShapeError(
            f"stack of shapes {', '.join(map(str, shapes))}.",
            at=frames.describe(frames.user_where()),
            because="all arrays must have one shape",
        )
    ndim = len(shape_of(parts[0])) + 1
    return concatenate([expand_dims(p, axis_in(axis, ndim)) for p in parts], axis_in(axis, ndim))


@public(np.atleast_1d)
def atleast_1d(*arrays: Array) -> Any:
    out = tuple(reshape(a, (1,)) if not shape_of(a) else a for a in map(_array, arrays))
    return out[0] if len(out) == 1 else out


@public(np.atleast_2d)
def atleast_2d(*arrays: Array) -> Any:
    out = tuple(a if len(shape_of(a)) >= 2 else reshape(a, (1, -1)) for a in map(_array, arrays))
    return out[0] if len(out) == 1 else out


@public(np.atleast_3d)
def atleast_3d(*arrays: Array) -> Any:
    def widen(a: Array) -> Array:
        n = len(shape_of(a))
        return a if n >= 3 else expand_dims(a, 2) if n == 2 else reshape(a, (1, -1, 1))

    out = tuple(widen(_array(a)) for a in arrays)
    return out[0] if len(out) == 1 else out


def _several(a: Any) -> list[Array]:
    return list(a) if isinstance(a, tuple | list) else [index(a, i) for i in range(shape_of(a)[0])]


@public(np.vstack)
def vstack(tup: Any) -> Array:
    return concatenate([atleast_2d(a) for a in _several(tup)], 0)


@public(np.hstack)
def hstack(tup: Any) -> Array:
    parts = [atleast_1d(a) for a in _several(tup)]
    return concatenate(parts, 0 if len(shape_of(parts[0])) == 1 else 1)


@public(np.dstack)
def dstack(tup: Any) -> Array:
    return concatenate([atleast_3d(a) for a in _several(tup)], 2)


@public(np.column_stack)
def column_stack(tup: Any) -> Array:
    parts = [_array(a) for a in _several(tup)]
    return concatenate([reshape(p, (-1, 1)) if len(shape_of(p)) < 2 else p for p in parts], 1)


# --- parts -----------------------------------------------------------------------------------------------------------
@public(np.array_split)
def array_split(ary: Array, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    n = shape_of(ary)[axis_in(axis, len(shape_of(ary)))]
    if isinstance(indices_or_sections, int | np.integer):
        count = int(indices_or_sections)
        each, extra = builtins.divmod(n, count)
        borders = np.cumsum([0] + [each + 1] * extra + [each] * (count - extra)).tolist()
    else:
        borders = [0, *(int(i) for i in indices_or_sections), n]
    axis = axis_in(axis, len(shape_of(ary)))
    lead = (slice(None),) * axis
    return [index(ary, (*lead, slice(a, b))) for a, b in itertools.pairwise(borders)]


@public(np.split)
def split(ary: Array, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    n = shape_of(ary)[axis_in(axis, len(shape_of(ary)))]
    if isinstance(indices_or_sections, int | np.integer) and n % int(indices_or_sections):
        raise ValueError("array split does not result in an equal division")
    return array_split(ary, indices_or_sections, axis)


@public(np.hsplit)
def hsplit(ary: Array, indices_or_sections: Any) -> list[Array]:
    return split(ary, indices_or_sections, 1 if len(shape_of(ary)) > 1 else 0)


@public(np.vsplit)
def vsplit(ary: Array, indices_or_sections: Any) -> list[Array]:
    return split(ary, indices_or_sections, 0)


@public(np.flip)
def flip(m: Array, axis: Any = None) -> Array:
    axes = axes_in(axis, len(shape_of(m)))
    return index(m, tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(len(shape_of(m)))))


@public(np.fliplr)
def fliplr(m: Array) -> Array:
    return flip(m, 1)


@public(np.flipud)
def flipud(m: Array) -> Array:
    return flip(m, 0)


@public(np.roll)
def roll(a: Array, shift: Any, axis: Any = None) -> Array:
    if axis is None:
        return of_its_own(reshape(roll(ravel(a), shift, 0), shape_of(a)))
    shifts, axes = (v if isinstance(v, tuple | list) else (v,) for v in (shift, axis))
    if len(shifts) == 1:
        shifts = tuple(shifts) * len(axes)
    for by, ax in zip(shifts, axes, strict=True):
        n, k = shape_of(a)[ax], axis_in(ax, len(shape_of(a)))
        by = int(by) % n if n else 0
        if by:
            lead = (slice(None),) * k
            a = concatenate([index(a, (*lead, slice(n - by, None))), index(a, (*lead, slice(0, n - by)))], k)
    return of_its_own(a)


@public(np.rot90)
def rot90(m: Array, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Array:
    k %= 4
    if k == 0:
        return m
    if k == 2:
        return flip(m, axes)
    return flip(swapaxes(m, *axes), axes[0]) if k == 1 else swapaxes(flip(m, axes[0]), *axes)


@public(np.repeat)
def repeat(a: Array, repeats: Any, axis: int | None = None) -> Array:
    if axis is None:
        a, axis = ravel(a), 0
    axis = axis_in(axis, len(shape_of(a)))
    rows = np.repeat(np.arange(shape_of(a)[axis]), np.asarray(repeats))
    return index(a, (*(slice(None),) * axis, rows))


@public(np.tile, fresh=True)
def tile(A: Array, reps: Any) -> Array:
    reps = tuple(reps) if isinstance(reps, tuple | list) else (int(reps),)
    A = _array(A)
    ndim = builtins.max(len(reps), len(shape_of(A)))
    shape = (1,) * (ndim - len(shape_of(A))) + shape_of(A)
    reps = (1,) * (ndim - len(reps)) + tuple(int(r) for r in reps)
    wide = tuple(n for pair in zip(reps, shape, strict=True) for n in pair)
    spread = shaping.broadcast(reshape(A, shape), shape=wide, axes=tuple(range(0, 2 * ndim, 2)))
    return reshape(spread, tuple(r * n for r, n in zip(reps, shape, strict=True)))


@public(np.pad)
def pad(array: Array, pad_width: Any, mode: str = "constant", **options: Any) -> Array:
    """As ``numpy.pad`` for the modes constant, edge, reflect, symmetric and wrap."""
    ndim = len(shape_of(array))
    widths = [tuple(map(int, w)) for w in np.broadcast_to(np.asarray(pad_width), (ndim, 2))]
    if mode == "constant":
        values = np.broadcast_to(np.asarray(options.pop("constant_values", 0), aval_of(array).dtype), (ndim, 2))
        _no_more(options)
        return _pad_constant(array, widths, values)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise TypeError(f"np.pad of a value inside a transform has no mode {mode!r}")
    _no_more(options)
    for axis, width in enumerate(widths):
        if any(width):
            rows = np.pad(np.arange(shape_of(array)[axis]), width, mode=mode)  # type: ignore[call-overload]
            array = index(array, (*(slice(None),) * axis, rows))
    return array


def _pad_constant(array: Array, widths: Sequence[tuple[int, ...]], values: np.ndarray[Any, Any]) -> Array:
    if not np.any(values):
        old = shape_of(array)
        shape = tuple(n + a + b for n, (a, b) in zip(old, widths, strict=True))
        return shaping.embed(array, start=tuple(a for a, _ in widths), step=(1,) * len(old), shape=shape)
    for axis, (width, value) in enumerate(zip(widths, values, strict=True)):
        parts = [array]
        for side, count in enumerate(width):
            border = np.full((*shape_of(array)[:axis], count, *shape_of(array)[axis + 1 :]), value[side])
            parts.insert(side * 2, border)
        array = concatenate([p for p in parts if shape_of(p)[axis]] or parts[:1], axis)
    return array


def _no_more(options: dict[str, Any]) -> None:
    if options:
        raise TypeError(f"np.pad of a value inside a transform does not take {', '.join(options)}")


# --- diagonals -----------------------------------------------------------------------------------------------------
@public(np.tril)
def tril(m: Array, k: int = 0) -> Array:
    return _triangle(m, np.tri(*_sides(m), k, dtype=bool))


@public(np.triu)
def triu(m: Array, k: int = 0) -> Array:
    return _triangle(m, ~np.tri(*_sides(m), k - 1, dtype=bool))


def _sides(m: Array) -> tuple[int, int]:
    """The last two axes; a vector becomes each row of a square."""
    shape = shape_of(m)
    if not shape:
        raise ShapeError(
            "np.tril and np.triu need at least one axis.",
            at=frames.describe(frames.user_where()),
            fix="x.reshape(1, 1)",
        )
    return (shape[-2] if len(shape) > 1 else shape[-1]), shape[-1]


def _triangle(m: Array, keep: np.ndarray[Any, Any]) -> Array:
    from wichi.numpy._pointwise import where

    return where(keep, m, aval_of(m).dtype.type(0))


@public(np.diagonal)
def diagonal(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    ndim = len(shape_of(a))
    i, j = axis_in(axis1, ndim), axis_in(axis2, ndim)
    moved = shaping.transpose(a, perm=(*(k for k in range(ndim) if k not in (i, j)), i, j))
    rows, columns = shape_of(moved)[-2:]
    last = columns - offset if offset > 0 else rows + offset
    count = rows if rows == columns and not offset else builtins.max(builtins.min(rows, columns, last), 0)
    before, whole = shape_of(moved)[:-2], (0,) * (ndim - 2)
    flat = shaping.reshape(moved, shape=(*before, rows * columns))  # there its elements are equally far apart
    first = (offset if offset > 0 else -offset * columns) if count else 0
    taken = shaping.slice_(flat, start=(*whole, first), step=(*(1 for _ in whole), columns + 1), size=(*before, count))
    return as_view(taken, a)


@public(np.diag)
def diag(v: Array, k: int = 0) -> Array:
    if len(shape_of(v)) == 2:
        return diagonal(v, k)
    n = shape_of(v)[0] + builtins.abs(k)
    start = builtins.max(k, 0) if k >= 0 else -k * n
    flat = shaping.embed(v, start=(start,), step=(n + 1,), shape=(n * n,))
    return shaping.reshape(flat, shape=(n, n))


@public(np.trace)
def trace(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    from wichi.numpy._reducing import sum

    return sum(diagonal(a, offset, axis1, axis2), -1)


@public(np.copy)
def copy(a: Array) -> Array:
    return shaping.copy(a)


@public(np.meshgrid)
def meshgrid(*xi: Array, indexing: str = "xy", copy: bool = True, sparse: bool = False) -> tuple[Array, ...]:
    ndim = len(xi)
    parts = []
    for i, x in enumerate(xi):
        axis = {0: 1, 1: 0}.get(i, i) if indexing == "xy" and ndim > 1 else i
        parts.append(reshape(x, tuple(-1 if k == axis else 1 for k in range(ndim))))
    return tuple(parts) if sparse else broadcast_arrays(*parts)

"""Functions that put arrays together, take parts away, and count places: what they choose must be plain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wichi.errors import ConditionError, IndexRangeError
from wichi.numpy import _pointwise as pw
from wichi.numpy import _writing
from wichi.numpy._indexing import index
from wichi.numpy._inplace import _target
from wichi.numpy._promote import (
    Array,
    as_value,
    axis_in,
    broadcast_to,
    cast_to,
    common_shape,
    is_boxed,
    public,
    result_type,
)
from wichi.numpy._reducing import _plain_options
from wichi.numpy._reducing import any as any_
from wichi.numpy._shaping import concatenate, diag, moveaxis, ravel, reshape, split, stack
from wichi.ops import indexing, sorting
from wichi.trace import frames
from wichi.trace.primitive import aval_of, shape_of

_I8 = np.dtype("i8")


def _plain(what: str, x: Any, fix: str) -> np.ndarray[Any, Any]:
    """What decides the shape of a result."""
    if is_boxed(as_value(x)):
        raise ConditionError(
            f"{what} depends on input values, and the shape of the result on it.",
            at=frames.describe(frames.user_where()),
            because="shapes must be known while tracing",
            fix=fix,
        )
    return np.asarray(x)


# --- put together --------------------------------------------------------------------------------------------------
@public(np.block)
def block(arrays: Any) -> Array:
    depth = _depth(arrays)
    leaves = _leaves(arrays)
    ndim = max(depth, *(len(shape_of(leaf)) for leaf in leaves))

    def joined(part: Any, level: int) -> Array:
        if level == 0:
            part = as_value(part)
            return reshape(part, (1,) * (ndim - len(shape_of(part))) + shape_of(part))
        return concatenate([joined(p, level - 1) for p in part], -level)

    found = joined(arrays, depth)
    return found if depth else pw.positive(found)


def _depth(arrays: Any) -> int:
    """How deep the lists are nested; equally everywhere."""
    if isinstance(arrays, tuple):
        raise TypeError("np.block: only lists can be used to arrange blocks, and np.block does not accept tuples")
    if not isinstance(arrays, list):
        return 0
    if not arrays:
        raise ValueError("np.block: lists cannot be empty")
    depths = {_depth(a) for a in arrays}
    if len(depths) > 1:
        raise ValueError(f"np.block: list depths are mismatched: {', '.join(str(d + 1) for d in sorted(depths))}")
    return 1 + depths.pop()


def _leaves(arrays: Any) -> list[Any]:
    return [leaf for a in arrays for leaf in _leaves(a)] if isinstance(arrays, list) else [as_value(arrays)]


@public(np.diagflat)
def diagflat(v: Array, k: int = 0) -> Array:
    return diag(ravel(as_value(v)), k)


@public(np.unstack)
def unstack(x: Array, /, *, axis: int = 0) -> tuple[Array, ...]:
    x = as_value(x)
    if not shape_of(x):
        raise ValueError("Input array must be at least 1-d.")
    rows = moveaxis(x, axis, 0)
    return tuple(index(rows, i) for i in range(shape_of(rows)[0]))


@public(np.dsplit)
def dsplit(ary: Array, indices_or_sections: Any) -> list[Array]:
    if len(shape_of(ary)) < 3:
        raise ValueError("dsplit only works on arrays of 3 or more dimensions")
    return split(ary, indices_or_sections, 2)


@public(np.rollaxis)
def rollaxis(a: Array, axis: int, start: int = 0) -> Array:
    ndim = len(shape_of(a))
    axis = axis_in(axis, ndim)
    if not -ndim <= start <= ndim:
        raise np.exceptions.AxisError(f"`start` must be between {-ndim} and {ndim}, and is {start}")
    start += ndim if start < 0 else 0
    return moveaxis(a, axis, start - 1 if axis < start else start)


@public(np.resize)
def resize(a: Array, new_shape: Any) -> Array:
    shape = tuple(int(n) for n in (new_shape if isinstance(new_shape, tuple | list) else (new_shape,)))
    if any(n < 0 for n in shape):
        raise ValueError("all elements of `new_shape` must be non-negative")
    flat, count = ravel(as_value(a)), math.prod(shape)
    if not count or not shape_of(flat)[0]:
        return np.zeros(shape, aval_of(flat).dtype)
    return reshape(index(flat, np.arange(count) % shape_of(flat)[0]), shape)


# --- take away and add ---------------------------------------------------------------------------------------------
@public(np.compress)
def compress(condition: Any, a: Array, axis: int | None = None) -> Array:
    chosen = _plain("np.compress: the condition", condition, "np.where(condition, x, 0)")
    if chosen.ndim != 1:
        raise ValueError("condition must be a 1-d array")
    a = as_value(a)
    a, axis = (ravel(a), 0) if axis is None else (a, axis_in(axis, len(shape_of(a))))
    return index(a, (*(slice(None),) * axis, np.nonzero(chosen)[0]))


@public(np.extract)
def extract(condition: Any, arr: Array) -> Array:
    chosen = _plain("np.extract: the condition", condition, "np.where(condition, x, 0)")
    return index(ravel(as_value(arr)), np.nonzero(chosen.ravel())[0])


@public(np.delete)
def delete(arr: Array, obj: Any, axis: int | None = None) -> Array:
    arr = as_value(arr)
    arr, axis = (ravel(arr), 0) if axis is None else (arr, axis_in(axis, len(shape_of(arr))))
    if not isinstance(obj, slice):
        obj = _plain("np.delete: what is deleted", obj, "np.where(keep, x, 0)")
        obj = obj.item() if obj.ndim == 0 else obj
    return index(arr, (*(slice(None),) * axis, np.delete(np.arange(shape_of(arr)[axis]), obj)))


@public(np.insert)
def insert(arr: Array, obj: Any, values: Array, axis: int | None = None) -> Array:
    arr, values = as_value(arr), as_value(values)
    arr, axis = (ravel(arr), 0) if axis is None else (arr, axis_in(axis, len(shape_of(arr))))
    shape = shape_of(arr)
    n, ndim = shape[axis], len(shape)
    values = reshape(values, (1,) * (ndim - len(shape_of(values))) + shape_of(values))
    values = cast_to(values, aval_of(arr).dtype)
    if isinstance(obj, slice):
        places = np.arange(*obj.indices(n))
    else:
        places = _plain("np.insert: the place", obj, "np.concatenate([x[:i], values, x[i:]])")
        places = np.flatnonzero(places) if places.dtype.kind == "b" else places
    if places.size and not (places.min() >= -n and places.max() <= n):
        bad = places[(places < -n) | (places > n)].flat[0]
        raise IndexError(f"index {bad} is out of bounds for axis {axis} with size {n}")
    if places.size == 1:
        if places.ndim == 0:
            values = moveaxis(values, 0, axis)
        places = np.full(shape_of(values)[axis], places.item())
    places = np.where(places < 0, places + n, places).astype(np.int64)
    places[np.argsort(places, kind="stable")] += np.arange(len(places))
    rows = np.zeros(n + len(places), np.int64)
    old = np.ones(len(rows), bool)
    old[places] = False
    rows[places], rows[old] = n + np.arange(len(places)), np.arange(n)
    new = broadcast_to(values, (*shape[:axis], len(places), *shape[axis + 1 :]))
    return index(concatenate([arr, new], axis), (*(slice(None),) * axis, rows))


@public(np.put_along_axis)
def put_along_axis(arr: Array, indices: Array, values: Array, axis: int | None) -> None:
    target = _target(arr, "np.put_along_axis")
    shape = shape_of(target)
    if axis is None:
        flat = pw.positive(ravel(target))
        flat[indices] = values
        target[...] = reshape(flat, shape)
        return
    axis = axis_in(axis, len(shape))
    target[tuple(
        indices if k == axis else np.arange(n).reshape(tuple(-1 if j == k else 1 for j in range(len(shape))))
        for k, n in enumerate(shape)
    )] = values  # fmt: skip


# --- choices -------------------------------------------------------------------------------------------------------
@public(np.choose)
def choose(a: Array, choices: Any, out: Any = None, mode: str = "raise") -> Array:
    _plain_options("choose", out=out)
    a = as_value(a)
    if aval_of(a).dtype.kind not in "iub":
        raise TypeError(f"Cannot cast array data from {aval_of(a).dtype!r} to {_I8!r} according to the rule 'safe'")
    parts = [as_value(c) for c in (choices if isinstance(choices, tuple | list) else unstack(choices))]
    shape = common_shape("np.choose", [shape_of(a), *map(shape_of, parts)])
    dtype, count = result_type(*parts), len(parts)
    table = stack([broadcast_to(np.asarray(p, dtype) if not is_boxed(p) else cast_to(p, dtype), shape) for p in parts])
    a = broadcast_to(a if is_boxed(a) else np.asarray(a), shape)
    chosen = cast_to(a, _I8) if is_boxed(a) else a.astype(_I8)
    if mode == "raise":
        chosen = pw.where(pw.less(chosen, 0), count, chosen)  # which is outside, as a negative choice is
    else:
        chosen = pw.clip(chosen, 0, count - 1) if mode == "clip" else pw.remainder(chosen, count)
    others = [np.arange(n).reshape(-1, *(1,) * (len(shape) - i - 1)) for i, n in enumerate(shape)]
    return index(table, (chosen, *others))


@public(np.piecewise)
def piecewise(x: Array, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Array:
    """As ``numpy.piecewise``. Where a condition depends on input values, its function gets ``x[condition]``, with which
    arithmetic and functions of one argument can be computed, but nothing that needs its length.
    """
    x = as_value(x)
    given = condlist if isinstance(condlist, tuple | list) else [condlist]
    if len(given) == 1 and len(shape_of(given[0])) > len(shape_of(x)):
        given = unstack(given[0])
    if shape_of(x) and all(isinstance(c, bool | np.bool_) for c in given):
        given = [given]
    conditions = [as_value(c) if is_boxed(as_value(c)) else np.asarray(c, bool) for c in given]
    if len(funclist) == len(conditions) + 1:
        conditions.append(pw.logical_not(any_(stack(conditions), 0)))
    elif len(funclist) != len(conditions):
        raise ValueError(f"with {len(conditions)} condition(s), either {len(conditions)} or {len(conditions) + 1} "
                         "functions are expected")  # fmt: skip
    found: Array = np.zeros(shape_of(x), aval_of(x).dtype)
    for condition, function in zip(conditions, funclist, strict=True):
        if callable(function) and not shape_of(condition) and is_boxed(condition):
            safe = pw.where(condition, x, aval_of(x).dtype.type(1))  # as in a part of an array (MaskedPart)
            found = _writing.write(found, condition, function(safe, *args, **kw))
        elif callable(function):
            part = index(x, condition)
            if is_boxed(condition) or aval_of(part).size:
                found = _writing.write(found, condition, function(part, *args, **kw))
        else:
            found = _writing.write(found, condition, function)
    return found


@public(np.isin)
def isin(
    element: Array, test_elements: Array, assume_unique: bool = False, invert: bool = False, *, kind: Any = None
) -> Array:
    """As ``numpy.isin``, by searching in the sorted ``test_elements``. It has no derivative."""
    element, tests = as_value(element), ravel(as_value(test_elements))
    dtype, count = result_type(element, tests), shape_of(tests)[0]
    if not count:
        return np.full(shape_of(element), invert)
    keys = sorting.sort(cast_to(tests, dtype), axis=0)[0]
    wanted = cast_to(element, dtype)
    flat = reshape(wanted, (aval_of(element).size,))
    place = reshape(sorting.searchsorted(keys, flat, right=False), shape_of(element))
    found = pw.equal(index(keys, pw.minimum(place, count - 1)), wanted)
    return pw.logical_not(found) if invert else found


# --- counting and places -------------------------------------------------------------------------------------------
@public(np.bincount)
def bincount(x: Any, weights: Array = None, minlength: int = 0) -> Array:
    """As ``numpy.bincount`` of plain numbers ``x``; the weights may be values inside a transform."""
    numbers = _plain("np.bincount: what is counted", x, "wichi.numpy.zeros(n).at[x].add(weights)")
    counts = np.bincount(numbers, minlength=minlength)  # NumPy's errors too
    if weights is None:
        return counts
    if shape_of(weights) != numbers.shape:
        raise ValueError("The weights and list don't have the same length.")
    weights = cast_to(as_value(weights), np.dtype(float))
    return indexing.scatter_add(weights, numbers.astype(_I8), shape=counts.shape)


def _inside(i: Array, n: int, what: str) -> Array:
    """``i``, of which compiled code checks that it lies from 0 to before ``n``."""
    if not is_boxed(i):
        if np.any((i < 0) | (i >= n)):
            raise ValueError(f"{what}: an index is out of bounds for a size of {n}")
        return i
    if not n:
        raise IndexRangeError(f"{what} of a size of 0.", at=frames.describe(frames.user_where()))
    checked = pw.where(pw.less(i, 0), n, i)
    return pw.add(i, index(broadcast_to(np.asarray(0), (n,)), checked))  # all zeros, in the memory of one


@public(np.unravel_index)
def unravel_index(indices: Array, shape: Any, order: str = "C") -> tuple[Array, ...]:
    sizes = tuple(int(n) for n in (shape if isinstance(shape, tuple | list) else (shape,)))
    rest = _inside(as_value(indices), math.prod(sizes), "np.unravel_index")
    found = []
    for n in sizes[::-1] if order == "C" else sizes:
        found.append(pw.remainder(rest, n))
        rest = pw.floor_divide(rest, n)
    return tuple(found[::-1] if order == "C" else found)


@public(np.ravel_multi_index)
def ravel_multi_index(multi_index: Any, dims: Any, mode: Any = "raise", order: str = "C") -> Array:
    places = [as_value(i) for i in (multi_index if isinstance(multi_index, tuple | list) else unstack(multi_index))]
    sizes = tuple(int(n) for n in (dims if isinstance(dims, tuple | list) else (dims,)))
    modes = mode if isinstance(mode, tuple | list) else (mode,) * len(sizes)
    if len(places) != len(sizes):
        raise ValueError("parameter multi_index must be a sequence of length " + str(len(sizes)))
    total: Array = 0
    rows = [*zip(places, sizes, modes, strict=True)]
    for i, n, how in rows if order == "C" else rows[::-1]:
        if how == "raise":
            i = _inside(i, n, "np.ravel_multi_index")
        else:
            i = pw.clip(i, 0, n - 1) if how == "clip" else pw.remainder(i, n)
        total = pw.add(pw.multiply(total, n), i)
    return total

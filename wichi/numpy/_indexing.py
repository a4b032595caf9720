"""``x[...]`` as NumPy has it: integers, slices, ellipsis, newaxis, boolean masks (plain), and integer arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from wichi.errors import ConditionError, IndexRangeError, ShapeError
from wichi.numpy._masked import MaskedPart
from wichi.numpy._promote import Array, as_value, axis_in, broadcast_to, cast_to, common_shape, public
from wichi.ops import indexing, shaping
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.captured import shaped_by
from wichi.trace.dims import Dim, free_sizes
from wichi.trace.free import extent
from wichi.trace.primitive import aval_of, shape_of
from wichi.trace.tracer import Tracer, concrete

_I8 = np.dtype("i8")


def index(x: Array, item: Any) -> Array:
    """``x[item]`` for a traced ``x`` or a traced ``item``."""
    if not isinstance(x, Boxed):
        x = np.asarray(x)
    if isinstance(item, Tracer) and item.dtype.kind == "b" and item.shape and item.shape == shape_of(x)[: item.ndim]:
        return MaskedPart(x, item)
    x, item = without_flags(x, item)
    parts = expanded(item, shape_of(x))
    arrays = [k for k, part in enumerate(parts) if isinstance(part, Boxed | np.ndarray)]
    x, kept = _sliced(x, parts)
    return _gathered(x, parts, kept, arrays) if arrays else x


def _is_flag(part: Any) -> bool:
    """Whether a part of an index is a single plain bool."""
    return isinstance(part, bool | np.bool_) or (
        isinstance(part, np.ndarray) and part.dtype.kind == "b" and not part.ndim
    )


def has_flags(item: Any) -> bool:
    """Whether an index holds single plain bools, as ``x[True]`` does."""
    return any(map(_is_flag, item)) if isinstance(item, tuple) else _is_flag(item)


def without_flags(x: Array, item: Any) -> tuple[Array, Any]:
    """``x[True]`` adds an axis of one, and ``x[False]`` of none: a new axis, and an array that indexes it."""
    if not has_flags(item):
        return x, item
    items = item if isinstance(item, tuple) else (item,)
    axes: list[Any] = []
    for part in items:
        if _is_flag(part):
            axes.append(None)
        elif part is Ellipsis:
            axes.append(part)
        elif part is not None:
            part = as_value(part) if isinstance(part, list) else part
            mask = isinstance(part, np.ndarray) and part.dtype.kind == "b"
            axes += [slice(None)] * (part.ndim if mask else 1)
    flags = tuple(np.arange(int(part)) if _is_flag(part) else part for part in items)
    return index(x, tuple(axes)), flags


def expanded(item: Any, shape: tuple[int, ...]) -> list[Any]:
    """One entry an axis: a slice, an int, an index array; and None for each new axis."""
    items = list(item) if isinstance(item, tuple) else [item]
    parts: list[Any] = []
    for part in items:
        if isinstance(part, list | np.ndarray | Boxed):
            part = as_value(part)
            if isinstance(part, np.ndarray) and part.size == 0 and part.dtype.kind == "f":
                part = part.astype(_I8)  # x[[]]
            number = concrete(part) if isinstance(part, Tracer) and not shape_of(part) else None
            if number is not None and np.asarray(number).dtype.kind in "iu":
                parts.append(int(number))
                continue
            kind = aval_of(part).dtype.kind
            if kind == "b":
                parts += _mask(part)
                continue
            if kind not in "iu":
                raise IndexError(
                    f"only integers, slices, ellipsis, None and integer or boolean arrays index, not {aval_of(part)}"
                )
            parts.append(part)
        elif part is None or part is Ellipsis or isinstance(part, slice):
            parts.append(part)
        else:
            parts.append(int(part.__index__()))
    return _filled(parts, shape)


def _filled(parts: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """The ellipsis (or what is missing at the end) replaced by full slices."""
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if used > len(shape):
        raise IndexError(f"too many indices: the array is {len(shape)}-dimensional, but {used} were indexed")
    full = [slice(None)] * (len(shape) - used)
    if any(part is Ellipsis for part in parts):
        place = next(i for i, part in enumerate(parts) if part is Ellipsis)
        if any(part is Ellipsis for part in parts[place + 1 :]):
            raise IndexError("an index can only have a single ellipsis ('...')")
        return parts[:place] + full + parts[place + 1 :]
    return parts + full


def _mask(mask: Array) -> list[Any]:
    """A plain mask as the index arrays of its true places."""
    if isinstance(mask, Boxed):
        raise ConditionError(
            "A boolean mask that depends on input values gives an array whose shape does too.",
            at=frames.describe(frames.user_where()),
            because="shapes must be known while tracing",
            fix="keep the shape: np.where(mask, x, 0)",
        )
    shaped_by(mask)
    return [*map(np.ascontiguousarray, np.nonzero(mask))]  # NumPy's are columns of one array


class Spans(NamedTuple):
    """What slices, integers and new axes take of an array: ``start + step * i`` for ``i < size`` along each axis.

    ``shape`` is that of the result; for each part of the index ``kept`` is the axis that it has there (None: it is
    gone).
    """

    start: tuple[int, ...]
    step: tuple[int, ...]
    size: tuple[int, ...]
    shape: tuple[int, ...]
    kept: list[int | None]


def spans(parts: list[Any], shape: tuple[int, ...]) -> Spans:
    """The spans of an index; index arrays take the whole of their axes.

    Raises:
        IndexRangeError: an integer outside its axis.
    """
    found: list[tuple[int, int, int]] = []
    result: list[int] = []
    kept: list[int | None] = []
    lengths = iter(shape)
    for part in parts:
        if part is None:
            kept.append(len(result))
            result.append(1)
            continue
        n = next(lengths)
        if isinstance(n, Dim):
            span = _free_span(part, n)
            found.append(span)
            kept.append(None if isinstance(part, int) else len(result))
            result += [] if isinstance(part, int) else [span[2]]
            continue
        if isinstance(part, int):
            if not -n <= part < n:
                raise IndexRangeError(
                    f"Index {part} is outside an axis of {n}.",
                    at=frames.describe(frames.user_where()),
                    because="an index i of an axis of n must satisfy -n <= i < n",
                )
            found.append((part % n, 1, 1))
            kept.append(None)
            continue
        first, stop, by = part.indices(n) if isinstance(part, slice) else (0, n, 1)
        count = len(range(first, stop, by))
        found.append((first if count else 0, by, count))
        kept.append(len(result))
        result.append(count)
    start, step, size = (tuple(span[k] for span in found) for k in range(3))
    return Spans(start, step, size, tuple(result), kept)


def _free_span(part: Any, n: Dim) -> tuple[int, int, int]:
    """The span of an index on an axis of a free size: right for every length that is long enough for it."""
    sizes = free_sizes()
    assert sizes is not None

    def bound(value: Any, default: int) -> int:
        if value is None:
            return default
        where = extent(value)
        where = n + where if not isinstance(where, Dim) and where < 0 else where
        sizes.require(where, f"{value} counted from the end of an axis of {n}")
        sizes.require(n - where, f"{value} within an axis of {n}")
        return where

    if isinstance(part, int):
        at = n + part if part < 0 else part
        sizes.require(at, f"index {part} of an axis of {n}")
        sizes.require(n - 1 - at, f"index {part} of an axis of {n}")
        return at, 1, 1
    if not isinstance(part, slice):
        return 0, 1, n
    if part.step in (None, 1):
        start, stop = bound(part.start, 0), bound(part.stop, n)
        sizes.require(stop - start, f"the length of {part.start}:{part.stop} of an axis of {n}")
        return start, 1, stop - start
    if part.step == -1 and part.start is None and part.stop is None:
        return n - 1, -1, n
    raise ShapeError(
        f"The slice {part.start}:{part.stop}:{part.step} of an axis of the free size {n} has no polynomial length.",
        at=frames.describe(frames.user_where()),
        because="the compiled function must hold for all lengths",
        fix="reshape first: wichi.spec(dtype, ('n', 2)) and x[:, 0]",
    )


def _sliced(x: Array, parts: list[Any]) -> tuple[Array, list[int | None]]:
    """Slices, integers and new axes applied; for each part the axis it now has (None: it is gone)."""
    s = spans(parts, shape_of(x))
    x = shaping.slice_(x, start=s.start, step=s.step, size=s.size)
    return shaping.reshape(x, shape=s.shape), s.kept


def _gathered(x: Array, parts: list[Any], kept: list[int | None], arrays: list[int]) -> Array:
    """Integer arrays applied to what the slices left, their axes put where NumPy puts them."""
    axes = [kept[k] for k in arrays]
    indices = [parts[k] for k in arrays]
    shape = common_shape("indexing", [shape_of(i) for i in indices])
    indices = [broadcast_to(cast_to(i, _I8), shape) for i in indices]
    for i, axis in zip(indices, axes, strict=True):
        _check_plain(i, shape_of(x)[axis or 0])
    others = [a for a in range(len(shape_of(x))) if a not in axes]
    out = indexing.gather(shaping.transpose(x, perm=(*axes, *others)), *indices)
    # Index arrays next to each other (integers count as such): their axes stand there; else in front.
    advanced = [k for k, part in enumerate(parts) if isinstance(part, int | Boxed | np.ndarray)]
    adjacent = advanced == list(range(advanced[0], advanced[-1] + 1))
    before = sum(1 for k in range(advanced[0]) if kept[k] is not None) if adjacent else 0
    if not before:
        return out
    inner = len(shape)
    order = (*range(inner, inner + before), *range(inner), *range(inner + before, len(shape_of(out))))
    return shaping.transpose(out, perm=order)


def _check_plain(i: Array, n: int) -> None:
    """Plain indices are checked while tracing; those that depend on inputs, when the program runs."""
    if isinstance(i, Boxed):
        if n == 0 and aval_of(i).size:
            raise IndexRangeError("An axis of 0 has no elements to index.", at=frames.describe(frames.user_where()))
        return
    if i.size and not (-n <= i.min() and i.max() < n):
        bad = i[(i < -n) | (i >= n)].flat[0]
        raise IndexRangeError(
            f"Index {bad} is outside an axis of {n}.",
            at=frames.describe(frames.user_where()),
            because="an index i of an axis of n must satisfy -n <= i < n",
        )


@public(np.take)
def take(a: Array, indices: Array, axis: int | None = None, mode: str = "raise") -> Array:
    """As ``numpy.take``; ``mode`` is 'raise' (the default), 'wrap' or 'clip'."""
    if axis is None:
        a, axis = shaping.reshape(as_value(a), shape=(aval_of(a).size,)), 0
    axis = axis_in(axis, len(shape_of(a)))
    n = shape_of(a)[axis]
    indices = as_value(indices)
    if mode != "raise":
        from wichi.numpy._pointwise import clip, remainder

        indices = remainder(indices, n) if mode == "wrap" else clip(indices, 0, n - 1)
    indices = indices if isinstance(indices, Boxed) else np.asarray(indices)
    return index(a, (*(slice(None),) * axis, indices))


@public(np.take_along_axis)
def take_along_axis(arr: Array, indices: Array, axis: int = -1) -> Array:
    axis = axis_in(axis, len(shape_of(arr)))
    ndim = len(shape_of(arr))
    at = [
        indices if k == axis else np.arange(n).reshape(tuple(-1 if j == k else 1 for j in range(ndim)))
        for k, n in enumerate(shape_of(arr))
    ]
    return index(arr, tuple(at))

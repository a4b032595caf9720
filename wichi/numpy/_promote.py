"""What every public function does first: NumPy's dtype for the operation, casts, and explicit broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from wichi.errors import DtypeError, IntegerRangeError, ShapeError
from wichi.ops import shaping
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.dims import Dim
from wichi.trace.dtypes import supported
from wichi.trace.ir import Aval
from wichi.trace.primitive import Primitive, aval_of, shape_of
from wichi.trace.tracer import is_tracing, of_its_own, staged

Array = Any  # an ndarray, a NumPy or Python scalar, or a value inside a transform
F = TypeVar("F", bound=Callable[..., Any])
_ARRAYS = (Boxed, np.ndarray)
_SEQUENCES = (list, tuple)
_VALUES = (Boxed, np.ndarray, np.generic, bool, int, float)
_WEAK = {"f": float, "i": int}
_resolved: dict[Any, tuple[tuple[np.dtype[Any], ...], np.dtype[Any]]] = {}


def is_boxed(*xs: Any) -> bool:
    """Whether any argument is traced (or an eager Tensor); if not, NumPy itself answers."""
    return any(isinstance(x, Boxed) for x in xs)


def resolve(ufunc: np.ufunc, avals: Sequence[Aval]) -> tuple[tuple[np.dtype[Any], ...], np.dtype[Any]]:
    """The dtypes that ``ufunc`` casts its operands to, and its result's, by NumPy's rules (NEP 50).

    Raises:
        DtypeError: NumPy has no loop for them, or one in a dtype that wichi does not compute with (float16).
    """
    key = (ufunc, *[a[1:] for a in avals])
    found = _resolved.get(key)
    if found is None:
        asked = tuple(_WEAK[a.dtype.kind] if a.weak and a.dtype.kind in _WEAK else a.dtype for a in avals)
        if all(isinstance(a, type) for a in asked):  # only Python numbers: they are NumPy's default dtypes
            asked = tuple(a.dtype for a in avals)
        try:
            *ins, out = ufunc.resolve_dtypes((*asked, None))
        except TypeError as error:
            raise DtypeError(
                f"np.{ufunc.__name__} of {', '.join(str(a.dtype) for a in avals)}: {error}",
                at=frames.describe(frames.user_where()),
            ) from None
        for dtype in (*ins, out):
            supported(dtype, f"np.{ufunc.__name__} of {', '.join(str(a.dtype) for a in avals)}")
        found = _resolved[key] = (tuple(ins), out)
    return found


def cast_to(x: Any, dtype: np.dtype[Any]) -> Any:
    """``x`` in ``dtype``; a plain number becomes a NumPy scalar, a 0-d constant of the graph."""
    if isinstance(x, Boxed):
        return x if x.aval.dtype == dtype and not x.aval.weak else shaping.cast(x, dtype=dtype)
    if isinstance(x, np.ndarray):
        if x.dtype == dtype:
            return x
        # Inside a trace a plain array is held by reference, so it is cast where the graph runs.
        return shaping.cast(staged(x), dtype=dtype) if is_tracing() else x.astype(dtype)
    if type(x) is int and dtype.kind != "b":
        return _integer_in(x, dtype)
    return dtype.type(x)


def _integer_in(x: int, dtype: np.dtype[Any]) -> Any:
    """A Python integer in the dtype that it takes from what stands beside it.

    Raises:
        IntegerRangeError: it does not fit, as in NumPy.
    """
    if dtype.kind == "f":
        try:
            return dtype.type(x)
        except OverflowError:
            fits, fix = False, "compute with its logarithm"
    else:
        limits = np.iinfo(dtype)
        fits = limits.min <= x <= limits.max
        wide = next((np.dtype(c) for c in "lL" if np.iinfo(c).min <= x <= np.iinfo(c).max), None)
        fix = f"make the array wider first, x.astype(np.{wide})" if wide else f"write it as a float: {float(x)!r}"
    if not fits:
        raise IntegerRangeError(
            f"The Python integer {x} does not fit {dtype.name}.",
            at=frames.describe(frames.user_where()),
            because="a Python integer takes the dtype of the array beside it, as in NumPy 2",
            fix=fix,
        )
    return dtype.type(x)


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    """``x`` repeated to ``shape`` by NumPy's rule; itself if it has that shape."""
    old = shape_of(x)
    if old == shape:
        return x
    extra = len(shape) - len(old)
    if isinstance(x, np.ndarray) and is_tracing():
        x = staged(x)
    return shaping.broadcast(x, shape=shape, axes=tuple(range(extra)))


def common_shape(what: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape all of ``shapes`` broadcast to.

    Raises:
        ShapeError: they do not.
    """
    first, *others = [s for s in shapes if s] or [()]
    if all(s == first for s in others):
        return first
    if any(isinstance(n, Dim) for s in shapes for n in s):
        shapes = [(1,) * (max(map(len, shapes)) - len(s)) + s for s in shapes]
        columns = [[n for n in sizes if n != 1] or [1] for sizes in zip(*shapes, strict=True)]
        if all(n == sizes[0] for sizes in columns for n in sizes):
            return tuple(next((n for n in sizes if isinstance(n, Dim)), sizes[0]) for sizes in columns)
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            f"{what}: the shapes {' and '.join(map(str, shapes))} do not fit together.",
            at=frames.describe(frames.user_where()),
            because="from the last axis backwards, sizes must be equal or 1",
            fix="reshape one of them, for instance x[:, None]",
        ) from None


def pointwise(ufunc: np.ufunc, prim: Primitive, *args: Any) -> Any:
    """``prim`` on ``args`` as NumPy would run ``ufunc``: promoted, cast and broadcast."""
    avals = [aval_of(a) for a in args]
    dtypes, _ = resolve(ufunc, avals)
    first = avals[0]
    if not first.weak and avals.count(first) == len(avals) and dtypes.count(first.dtype) == len(avals):
        return prim(*args)  # nothing to cast or to broadcast
    if (
        first.weak
        and all(a.weak for a in avals)
        and all(a.dtype == d for a, x, d in zip(avals, args, dtypes, strict=True) if isinstance(x, Boxed))
    ):
        # Python numbers stay Python numbers: what is made of them promotes nothing later.
        return prim(*[x if isinstance(x, Boxed) else cast_to(x, d).item() for x, d in zip(args, dtypes, strict=True)])
    return prim(*spread(ufunc.__name__, [cast_to(a, d) for a, d in zip(args, dtypes, strict=True)]))


def spread(what: str, args: Sequence[Any]) -> list[Any]:
    """All ``args`` in their common shape; plain scalars stay, as 0-d constants."""
    shapes = [shape_of(a) for a in args]
    shape = common_shape(what, shapes)
    return [
        a if s == shape or (not s and not isinstance(a, _ARRAYS)) else broadcast_to(a, shape)
        for a, s in zip(args, shapes, strict=True)
    ]


def result_type(*xs: Any) -> np.dtype[Any]:
    """NumPy's common dtype of arrays, values and Python numbers."""
    asked = []
    for x in xs:
        aval = aval_of(x)
        asked.append(_WEAK[aval.dtype.kind](0) if aval.weak and aval.dtype.kind in _WEAK else aval.dtype)
    return supported(np.result_type(*asked))


def axis_in(axis: Any, ndim: int) -> int:
    """An axis counted from 0."""
    number = int(axis)
    if not -ndim <= number < ndim:
        raise np.exceptions.AxisError(number, ndim)
    return number % ndim


def axes_in(axis: Any, ndim: int) -> tuple[int, ...]:
    """Sorted axes counted from 0; None means all."""
    if axis is None:
        return tuple(range(ndim))
    axes = [axis_in(a, ndim) for a in (axis if isinstance(axis, tuple | list) else (axis,))]
    if len(set(axes)) != len(axes):
        raise ValueError("duplicate value in 'axis'")
    return tuple(sorted(axes))


def as_value(x: Any) -> Any:
    """A list or tuple that holds traced values, stacked; anything else as it is."""
    if isinstance(x, _SEQUENCES) and _box_in(x) is not None:
        parts = [as_value(v) for v in x]
        dtype = result_type(*parts)
        shape = common_shape("array", [shape_of(p) for p in parts])
        if any(shape_of(p) != shape for p in parts):
            raise ShapeError(
                f"The elements of a list have shapes {', '.join(str(shape_of(p)) for p in parts)}.",
                at=frames.describe(frames.user_where()),
                because="an array needs elements of one shape",
            )
        rows = [shaping.reshape(np.asarray(cast_to(p, dtype)) if not isinstance(p, Boxed) else cast_to(p, dtype),
                                shape=(1, *shape)) for p in parts]  # fmt: skip
        return shaping.concatenate(*rows, axis=0)
    return x if isinstance(x, _VALUES) else np.asarray(x)


def _box_in(*xs: Any) -> Boxed | None:
    """The innermost box in nested lists and tuples; these nest a few levels, an explicit stack walks them."""
    found: Boxed | None = None
    waiting: Any = xs
    while waiting:
        inner: list[Any] = []
        for item in waiting:
            if isinstance(item, Boxed):
                if found is None or item.rank > found.rank:
                    found = item
            elif isinstance(item, _SEQUENCES):
                inner.extend(item)
        waiting = inner
    return found


def public(function: Any = None, fresh: bool = False) -> Callable[[F], F]:
    """A function of the public namespace. On plain arrays NumPy's own ``function`` answers (None: NumPy has none).

    ``fresh``: the result shares no memory with an operand, though the last step of ours may look as if it did.
    """

    def decorate(ours: F) -> F:
        def answer(*args: Any, **kwargs: Any) -> Any:
            box = _box_in(*args, *kwargs.values()) if kwargs else _box_in(*args)
            if box is not None:
                result = box.call(ours, args, kwargs)
                return of_its_own(result) if fresh else result
            return (function or ours)(*args, **kwargs)

        answer.__name__ = answer.__qualname__ = ours.__name__
        answer.__module__ = ours.__module__
        answer.__doc__ = ours.__doc__ or _summary(function)
        answer.__wrapped__ = ours  # type: ignore[attr-defined]
        answer.numpy_function = function  # type: ignore[attr-defined]
        return cast(F, answer)

    return decorate


def _summary(function: Any) -> str:
    lines = [line.strip() for line in (function.__doc__ or "").splitlines()]
    body = [line for line in lines if line and "(" not in line[:24]]
    return f"{body[0] if body else function.__name__}\n\nAs ``numpy.{function.__name__}``; traced values are accepted."

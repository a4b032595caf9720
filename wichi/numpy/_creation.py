"""Arrays from nothing or from lists. Lists may hold traced values: that is what NumPy's own ``array`` cannot do."""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.errors import ShapeError
from wichi.numpy._pointwise import absolute, add, divide, floor, log10, multiply, power, sign, subtract, where
from wichi.numpy._promote import Array, as_value, axis_in, broadcast_to, cast_to, public, result_type
from wichi.ops import shaping
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.free import FreeSize, extent
from wichi.trace.primitive import aval_of, shape_of
from wichi.trace.tracer import is_tracing, of_its_own, stage, staged

eye, identity, tri = np.eye, np.identity, np.tri


def _writable(shape: Any, value: Any) -> Array:
    """An array filled with a number; while a function is traced a value of the trace, so that it can be written."""
    wanted = tuple(extent(n) for n in shape) if isinstance(shape, tuple | list) else (extent(shape),)
    if not is_tracing():
        return np.full(wanted, value)
    made = of_its_own(broadcast_to(value if isinstance(value, Boxed) else staged(value), wanted))
    made.base = None  # memory of its own, in NumPy's eyes
    return made


def _new(name: str, number: float) -> Any:
    def make(shape: Any, dtype: Any = float, **options: Any) -> Array:
        if not is_tracing():
            return getattr(np, name)(shape, dtype, **options)
        return _writable(shape, np.dtype(dtype).type(number))

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"As ``numpy.{name}``; inside a transform its result can be written: ``x[i] = v``."
    return make


zeros, ones, empty = _new("zeros", 0), _new("ones", 1), _new("empty", 0)


@public()
def array(object: Any, dtype: Any = None, *, copy: bool = True, ndmin: int = 0) -> Array:
    """As ``numpy.array``; elements may be values inside a transform, at any depth of the list.

    Inside a transform an array of floats can be written: ``x[i] = v``. One of integers or bools stays plain, as
    Python may need its numbers.

    >>> wichi.grad(lambda x: np.sum(wichi.numpy.array([x, 2 * x])))(1.0)
    np.float64(3.0)
    """
    value = as_value(object)
    if not isinstance(value, Boxed):
        value = np.array(object, dtype, copy=copy, ndmin=ndmin)
        return staged(value) if is_tracing() and copy and value.dtype.kind == "f" else value
    value = value if dtype is None else cast_to(value, np.dtype(dtype))
    missing = ndmin - len(shape_of(value))
    value = shaping.reshape(value, shape=(1,) * missing + shape_of(value)) if missing > 0 else value
    return of_its_own(value) if copy else value


@public(np.asarray)
def asarray(a: Any, dtype: Any = None, **options: Any) -> Array:
    """As ``numpy.asarray``; elements may be values inside a transform."""
    return array(a, dtype, copy=False)


asanyarray = ascontiguousarray = asarray


@public()
def full(shape: Any, fill_value: Array, dtype: Any = None) -> Array:
    """As ``numpy.full``; inside a transform its result can be written."""
    value = as_value(fill_value) if dtype is None else cast_to(as_value(fill_value), np.dtype(dtype))
    return _writable(shape, value if isinstance(value, Boxed) else np.asarray(value)[()])


def _filled(name: str, number: float) -> Any:
    function = getattr(np, name)

    def like(a: Array, dtype: Any = None, *, shape: Any = None, **options: Any) -> Array:
        if not is_tracing() and not isinstance(a, Boxed):
            return function(a, dtype, shape=shape, **options)
        aval = aval_of(a)
        kind = np.dtype(aval.dtype if dtype is None else dtype)
        return _writable(aval.shape if shape is None else shape, kind.type(number))

    like.__name__ = name
    like.__doc__ = f"As ``numpy.{name}``; inside a transform its result can be written."
    return public()(like)


zeros_like, ones_like, empty_like = _filled("zeros_like", 0), _filled("ones_like", 1), _filled("empty_like", 0)


@public()
def full_like(a: Array, fill_value: Array, dtype: Any = None, *, shape: Any = None, **options: Any) -> Array:
    """As ``numpy.full_like``; inside a transform its result can be written."""
    aval = aval_of(a)
    return full(aval.shape if shape is None else shape, fill_value, dtype or aval.dtype)


@public(np.linspace)
def linspace(
    start: Array,
    stop: Array,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    """As ``numpy.linspace``; ``start`` and ``stop`` may be values inside a transform."""
    if num < 0:
        raise ValueError(f"Number of samples, {num}, must be non-negative.")
    start, stop = as_value(start), as_value(stop)
    lead = (-1, *(1,) * max(len(shape_of(start)), len(shape_of(stop))))
    steps = np.reshape(np.arange(num) / max(num - 1 if endpoint else num, 1), lead)
    found = add(multiply(start, 1 - steps), multiply(stop, steps))
    kind = result_type(start, stop, 1.0) if dtype is None else np.dtype(dtype)
    found = cast_to(floor(found) if kind.kind in "iu" else found, kind)
    if axis != 0:
        found = _moved_from_first(found, axis)
    parts = num - 1 if endpoint else num
    return (found, divide(subtract(stop, start), parts or np.nan)) if retstep else found


def _moved_from_first(x: Array, axis: int) -> Array:
    rest = [*range(1, len(shape_of(x)))]
    rest.insert(axis_in(axis, len(rest) + 1), 0)
    return shaping.transpose(x, perm=tuple(rest))


@public(np.logspace)
def logspace(
    start: Array,
    stop: Array,
    num: int = 50,
    endpoint: bool = True,
    base: Array = 10.0,
    dtype: Any = None,
    axis: int = 0,
) -> Array:
    found = power(base, linspace(start, stop, num, endpoint, axis=axis))
    return found if dtype is None else cast_to(found, np.dtype(dtype))


@public(np.geomspace)
def geomspace(
    start: Array, stop: Array, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0
) -> Array:
    """As ``numpy.geomspace`` of real numbers; that neither is 0 and their signs are equal is not checked."""
    start, stop = as_value(start), as_value(stop)
    lead = (-1, *(1,) * max(len(shape_of(start)), len(shape_of(stop))))
    exponents = linspace(log10(absolute(start)), log10(absolute(stop)), num, endpoint)
    place = np.reshape(np.arange(num), lead)
    found = multiply(sign(start), power(10.0, exponents))
    found = where(place == 0, start, found)  # exactly, as NumPy has it
    if endpoint and num > 1:
        found = where(place == num - 1, stop, found)
    found = found if dtype is None else cast_to(found, np.dtype(dtype))
    return _moved_from_first(found, axis) if axis != 0 else found


@public(np.arange)
def arange(start: Array, stop: Array = None, step: Array = 1, **options: Any) -> Array:
    """As ``numpy.arange`` of plain numbers, and of a free size: its length must not depend on values.

    Raises:
        TypeError: an argument is a value inside a transform.
    """
    from wichi.trace.tracer import concrete

    if isinstance(start, FreeSize) or isinstance(stop, FreeSize):
        if step != 1:
            raise ShapeError(
                "np.arange up to a free size goes in steps of 1.",
                at=frames.describe(frames.user_where()),
                fix="step * wichi.numpy.arange(n)",
            )
        first, last = (0, start) if stop is None else (start, stop)
        return add(stage(shaping.iota, size=extent(last - first)), first)
    numbers = [None if v is None else concrete(v) for v in (start, stop, step)]
    if numbers[0] is None or (stop is not None and numbers[1] is None) or numbers[2] is None:
        raise TypeError(
            "np.arange needs plain numbers: its length would depend on input values. fix: start + step * np.arange(n)"
        )
    return np.arange(*[n for n in numbers if n is not None], **options)

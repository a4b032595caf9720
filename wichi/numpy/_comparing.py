"""Integers compared by their values, as NumPy compares them, where no dtype holds both."""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.numpy._promote import Array, cast_to, pointwise, spread
from wichi.ops import pointwise as table
from wichi.trace.primitive import Primitive, aval_of
from wichi.trace.tracer import concrete

COMPARISONS: dict[str, Primitive] = {
    "equal": table.eq, "not_equal": table.ne, "less": table.lt, "less_equal": table.le, "greater": table.gt,
    "greater_equal": table.ge,
}  # fmt: skip
_MIRRORED = {"less": "greater", "greater": "less", "less_equal": "greater_equal", "greater_equal": "less_equal"}
_I8, _U8 = np.dtype("i8"), np.dtype("u8")


def compared(name: str, x: Array, y: Array) -> Array | None:
    """The comparison ``name`` of integers; None where the common dtype of the two compares them rightly."""
    a, b = aval_of(x), aval_of(y)
    kinds = a.dtype.kind + b.dtype.kind
    if "f" in kinds:
        return None
    if (number := _python_integer(y)) is not None:
        return _outside(name, x, number)
    if (number := _python_integer(x)) is not None:
        return _outside(_MIRRORED.get(name, name), y, number)
    if kinds == "iu" and b.dtype == _U8:
        return _mixed_signs(name, x, y)
    if kinds == "ui" and a.dtype == _U8:
        return _mixed_signs(_MIRRORED.get(name, name), y, x)
    if a.weak != b.weak and "b" not in kinds:  # an argument that is a Python integer: any that fits int64
        return COMPARISONS[name](*spread(name, [cast_to(x, _I8), cast_to(y, _I8)]))
    return None


def _python_integer(x: Any) -> int | None:
    """The Python integer that ``x`` is, or that the graph knows it to be."""
    aval = aval_of(x)
    number = concrete(x) if aval.weak and aval.dtype.kind == "i" else None
    return None if number is None else int(number)


def _outside(name: str, x: Array, number: int) -> Array | None:
    """``x`` compared with a number that its dtype does not hold: the same answer for all its elements."""
    dtype = aval_of(x).dtype
    if dtype.kind == "b":  # becomes int64, and holds what that does
        return None
    limits = np.iinfo(dtype)
    if limits.min <= number <= limits.max:
        return None
    holds = {"equal": False, "not_equal": True}.get(name, name.startswith("less") == (number > limits.max))
    return table.eq(x, x) if holds else table.ne(x, x)


def _mixed_signs(name: str, x: Array, y: Array) -> Array:
    """Signed ``x`` against uint64 ``y``: a negative number is below every unsigned one."""
    below = pointwise(np.less, table.lt, x, 0)
    alike = COMPARISONS[name](*spread(name, [cast_to(x, _U8), cast_to(y, _U8)]))
    holds = np.bool_(name in ("less", "less_equal", "not_equal"))
    return table.where(*spread("where", [below, holds, alike]))

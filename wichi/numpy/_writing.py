"""Writing into values: ``x[item] = v``, ``x.at[item].set(v)``. Each answers a new value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wichi.errors import ConditionError, DtypeError
from wichi.numpy._indexing import expanded, has_flags, index, spans
from wichi.numpy._masked import MaskedPart
from wichi.numpy._pointwise import add, maximum, minimum, multiply, where
from wichi.numpy._promote import Array, as_value, broadcast_to, cast_to
from wichi.ops import indexing, pointwise, shaping, writing
from wichi.trace import frames, scans
from wichi.trace.boxed import Boxed
from wichi.trace.ir import Aval
from wichi.trace.primitive import aval_of, shape_of
from wichi.trace.tracer import stage_graph

_I8 = np.dtype("i8")
_COMBINE = {"add": add, "multiply": multiply, "minimum": minimum, "maximum": maximum}


def write(x: Array, item: Any, value: Any, op: str = "set") -> Array:
    """``x`` with ``value`` set at ``x[item]``, or combined with what is there.

    ``item`` may be any index that NumPy takes; ``op`` is "set" or the name of a function of two values, which is
    applied once for each time that an index occurs (``numpy.ufunc.at``).
    """
    if isinstance(item, Boxed) and item.dtype.kind == "b":
        return _write_mask(x, item, value, op)
    x = x if isinstance(x, Boxed) else np.asarray(x)
    value = _fitting(x, value)
    if has_flags(item):
        return _write_numbered(x, item, value, op)
    parts = expanded(item, shape_of(x))
    if not any(isinstance(p, Boxed | np.ndarray) for p in parts):
        return _write_slices(x, parts, value, op)
    shape = shape_of(x)
    plain = [p for p in parts if p is not None]
    count = sum(isinstance(p, int | Boxed | np.ndarray) for p in plain)
    leading = plain[:count]
    if (
        len(plain) == len(parts)
        and all(isinstance(p, int | Boxed | np.ndarray) for p in leading)
        and all(p == slice(None) for p in plain[count:])
    ):
        common = np.broadcast_shapes(*[shape_of(p) for p in leading])
        indices = [broadcast_to(cast_to(as_value(p), _I8), common) for p in leading]
        updates = broadcast_to(value, (*common, *shape[count:]))
        return _write_indexed(x, updates, indices, op)
    return _write_numbered(x, item, value, op)


def _write_numbered(x: Array, item: Any, value: Array, op: str) -> Array:
    """Any other mixture: NumPy's own rules, applied to the numbers of the elements."""
    shape = shape_of(x)
    numbers = index(np.arange(math.prod(shape)).reshape(shape), item)
    flat = shaping.reshape(x, shape=(math.prod(shape),))
    return shaping.reshape(_write_indexed(flat, broadcast_to(value, shape_of(numbers)), [numbers], op), shape=shape)


def _write_indexed(x: Array, updates: Array, indices: list[Array], op: str) -> Array:
    """One update after the other at index arrays of the leading axes."""
    if op in ("set", "add"):
        return writing.index_update(x, updates, *indices, op=op)
    if op in ("minimum", "maximum"):
        return writing.index_extremum(x, updates, *indices, op=op)
    if not any(isinstance(i, Boxed) for i in indices) and _all_differ(indices, shape_of(x)):
        combined = _COMBINE[op](indexing.gather(x, *indices), updates)
        return writing.index_update(x, combined, *indices, op="set")
    return _multiplied_in_turn(x, updates, indices)


def _all_differ(indices: list[Array], shape: tuple[int, ...]) -> bool:
    numbers = np.ravel_multi_index([np.asarray(i) % n for i, n in zip(indices, shape, strict=False)],
                                   shape[: len(indices)])  # fmt: skip
    return np.unique(numbers).size == np.size(numbers)


def _multiplied_in_turn(x: Array, updates: Array, indices: list[Array]) -> Array:
    """Products at places that may occur several times: a loop over the updates, whose derivative is right at zeros too.

    Each round writes in place, and reverse mode keeps one element a round.
    """
    inner = shape_of(updates)[len(shape_of(indices[0])) :]
    rounds = aval_of(indices[0]).size
    rows = [shaping.reshape(i, shape=(rounds,)) for i in indices]
    factors = shaping.reshape(updates, shape=(rounds, *inner))

    def body(carry: Any, *row: Any) -> list[Any]:
        *at, factor = row
        return [writing.index_update(carry, pointwise.mul(indexing.gather(carry, *at), factor), *at, op="set")]

    kind = aval_of(x).dtype
    avals = [Aval(shape_of(x), kind), *[Aval((), _I8)] * len(rows), Aval(inner, kind)]
    (out,) = scans.scan(
        x, *rows, factors, body=stage_graph(body, avals), consts=0, carries=1, length=rounds, reverse=False
    )
    return out


def _write_slices(x: Array, parts: list[Any], value: Array, op: str) -> Array:
    s = spans(parts, shape_of(x))
    update = shaping.reshape(broadcast_to(value, s.shape), shape=s.size)
    if op != "set":
        update = _COMBINE[op](shaping.slice_(x, start=s.start, step=s.step, size=s.size), update)
    return writing.slice_update(x, update, start=s.start, step=s.step)


def _write_mask(x: Array, mask: Array, value: Any, op: str) -> Array:
    shape = shape_of(x)
    if isinstance(value, MaskedPart):
        if not value.belongs_to(mask):
            value.refuse()
        value = value.value
    value = _fitting(x, value)
    if shape_of(value) not in ((), shape):
        raise ConditionError(
            "A boolean mask that depends on input values can be written with one number, or with an array of the whole"
            " shape.",
            at=frames.describe(frames.user_where()),
            because="how many elements the mask takes is not known while tracing",
            fix="x = np.where(mask, new, x)",
        )
    if op != "set":
        value = _COMBINE[op](x, value)
    missing = len(shape) - len(shape_of(mask))
    mask = shaping.reshape(mask, shape=shape_of(mask) + (1,) * missing) if missing else mask
    return where(mask, value, x)


def _fitting(x: Array, value: Any) -> Array:
    """``value`` in the dtype of ``x``, as NumPy's assignment casts; floats into integers would lose silently."""
    value = as_value(value)
    has, wanted = aval_of(value), aval_of(x)
    if has.dtype.kind == "f" and wanted.dtype.kind in "iub":
        raise DtypeError(
            f"A value of {has} is written into {wanted}, which would cut it off.",
            at=frames.describe(frames.user_where()),
            fix="make the array of floats, or cast the value: .astype(int)",
        )
    return cast_to(value, wanted.dtype)


class At:
    """``x.at``: see ``x.at[item].set(value)``."""

    __slots__ = ("value",)

    def __init__(self, value: Array) -> None:
        self.value = value

    def __getitem__(self, item: Any) -> Place:
        return Place(self.value, item)


class Place:
    """``x.at[item]``: values with these elements changed. As in JAX, but an index outside is an ``IndexError``."""

    __slots__ = ("item", "value")

    def __init__(self, value: Array, item: Any) -> None:
        self.value, self.item = value, item

    def get(self) -> Array:
        """``x[item]``"""
        return index(self.value, self.item)

    def set(self, value: Any) -> Array:
        """``x[item] = value``; where an index occurs twice, the last value stands."""
        return write(self.value, self.item, value)

    def add(self, value: Any) -> Array:
        """``numpy.add.at``: where an index occurs twice, both are added."""
        return write(self.value, self.item, value, "add")

    def multiply(self, value: Any) -> Array:
        """``numpy.multiply.at``: where an index occurs twice, both are multiplied."""
        return write(self.value, self.item, value, "multiply")

    def min(self, value: Any) -> Array:
        """``numpy.minimum.at``; where several are the smallest, they share the derivative evenly."""
        return write(self.value, self.item, value, "minimum")

    def max(self, value: Any) -> Array:
        """``numpy.maximum.at``; where several are the largest, they share the derivative evenly."""
        return write(self.value, self.item, value, "maximum")

"""Writing into values: ``x[item] = v``, ``x.at[item].set(v)``. Each answers a new value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wichi.errors import ArgumentError, ConditionError, DtypeError
from wichi.numpy._indexing import expanded, index, spans
from wichi.numpy._pointwise import maximum, minimum, multiply, where
from wichi.numpy._promote import Array, as_value, broadcast_to, cast_to
from wichi.ops import shaping, writing
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.primitive import aval_of, shape_of

_I8 = np.dtype("i8")


def write(x: Array, item: Any, value: Any, op: str = "set") -> Array:
    """``x`` with ``value`` set at (or added to) ``x[item]``, which may be any index that NumPy takes."""
    if isinstance(item, Boxed) and item.dtype.kind == "b":
        return _write_mask(x, item, value, op)
    x = x if isinstance(x, Boxed) else np.asarray(x)
    value = _fitting(x, value)
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
        return writing.index_update(x, updates, *indices, op=op)
    # Any other mixture: NumPy's own rules, applied to the numbers of the elements.
    numbers = index(np.arange(math.prod(shape)).reshape(shape), item)
    flat = writing.index_update(
        shaping.reshape(x, shape=(math.prod(shape),)), broadcast_to(value, shape_of(numbers)), numbers, op=op
    )
    return shaping.reshape(flat, shape=shape)


def _write_slices(x: Array, parts: list[Any], value: Array, op: str) -> Array:
    s = spans(parts, shape_of(x))
    update = shaping.reshape(broadcast_to(value, s.shape), shape=s.size)
    if op == "add":
        update = shaping.slice_(x, start=s.start, step=s.step, size=s.size) + update
    return writing.slice_update(x, update, start=s.start, step=s.step)


def _write_mask(x: Array, mask: Array, value: Any, op: str) -> Array:
    shape = shape_of(x)
    if isinstance(value, MaskedPart):
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
    if op == "add":
        value = x + value
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


class MaskedPart:
    """``x[mask]`` of a mask that depends on values: its shape is unknown, but ``x[mask] += v`` can be written."""

    __slots__ = ("mask", "value")

    def __init__(self, value: Array, mask: Array) -> None:
        self.value, self.mask = value, mask

    def _changed(self, name: str, other: Any) -> MaskedPart:
        if shape_of(other) != ():
            self.refuse()
        # Where the mask does not hold nothing may go wrong either: 1 stands there for the old value.
        missing = len(shape_of(self.value)) - len(shape_of(self.mask))
        mask = shaping.reshape(self.mask, shape=shape_of(self.mask) + (1,) * missing) if missing else self.mask
        safe = where(mask, self.value, np.ones((), self.value.dtype))
        return MaskedPart(getattr(safe, name)(other), self.mask)

    def __iadd__(self, other: Any) -> MaskedPart:  # type: ignore[misc]
        return self._changed("__add__", other)

    def __isub__(self, other: Any) -> MaskedPart:  # type: ignore[misc]
        return self._changed("__sub__", other)

    def __imul__(self, other: Any) -> MaskedPart:  # type: ignore[misc]
        return self._changed("__mul__", other)

    def __itruediv__(self, other: Any) -> MaskedPart:  # type: ignore[misc]
        return self._changed("__truediv__", other)

    def __ipow__(self, other: Any) -> MaskedPart:  # type: ignore[misc]
        return self._changed("__pow__", other)

    def refuse(self, *args: Any, **kwargs: Any) -> Any:
        """Raise: nothing else can be done with it."""
        raise ConditionError(
            "A boolean mask that depends on input values gives an array whose shape does too.",
            at=frames.describe(frames.user_where()),
            because="shapes must be known while tracing",
            fix="keep the shape: np.where(mask, x, 0)",
        )

    __array_ufunc__ = __array_function__ = __array__ = __iter__ = __len__ = __getitem__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = refuse
    __neg__ = __matmul__ = __lt__ = __le__ = __gt__ = __ge__ = __float__ = __bool__ = refuse

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.refuse()


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
        """``x[item] *= value``."""
        return self._combined(multiply, value)

    def min(self, value: Any) -> Array:
        """``x[item] = minimum(x[item], value)``."""
        return self._combined(minimum, value)

    def max(self, value: Any) -> Array:
        """``x[item] = maximum(x[item], value)``."""
        return self._combined(maximum, value)

    def _combined(self, function: Any, value: Any) -> Array:
        numbers = self.item if isinstance(self.item, tuple) else (self.item,)
        arrays = [n for n in numbers if isinstance(n, Boxed | np.ndarray | list) and shape_of(n) != ()]
        if isinstance(self.item, Boxed) and self.item.dtype.kind == "b":
            return _write_mask(self.value, self.item, function(self.value, value), "set")
        if any(isinstance(n, Boxed) for n in arrays):
            raise ArgumentError(
                "at[...] with an index array that depends on input values has set and add only.",
                at=frames.describe(frames.user_where()),
                because="an index may occur twice",
                fix="a loop: wichi.fori_loop over the indices",
            )
        if arrays:
            whole = np.arange(math.prod(shape_of(self.value))).reshape(shape_of(self.value))
            taken = whole[self.item].ravel()
            if len(np.unique(taken)) != taken.size:
                raise ArgumentError(
                    "at[...]: an index occurs twice, which only set and add allow.",
                    at=frames.describe(frames.user_where()),
                )
        return write(self.value, self.item, function(index(self.value, self.item), value))

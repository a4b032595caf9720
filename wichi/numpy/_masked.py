"""``x[mask]`` of a mask that depends on values: a part whose shape is not known while tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from wichi.errors import ConditionError
from wichi.numpy import _pointwise as p
from wichi.numpy._promote import Array
from wichi.ops import shaping
from wichi.trace import frames
from wichi.trace.boxed import registry
from wichi.trace.primitive import shape_of
from wichi.trace.tracer import Tracer, of_its_own


class MaskedPart:
    """It can be computed with numbers, with functions of one argument and with other parts of the same mask, and be
    written back: ``x[mask] += 1``, ``x[mask] = np.sqrt(x[mask])``. Nothing else can be done with it.
    """

    __slots__ = ("mask", "value")

    def __init__(self, value: Array, mask: Array) -> None:
        self.value, self.mask = of_its_own(value), of_its_own(mask)  # a copy, as in NumPy

    def belongs_to(self, mask: Array) -> bool:
        return isinstance(mask, Tracer) and isinstance(self.mask, Tracer) and mask.atom is self.mask.atom

    def _safe(self) -> Array:
        """Where the mask does not hold nothing may go wrong either: 1 stands there for the old value."""
        missing = len(shape_of(self.value)) - len(shape_of(self.mask))
        mask = shaping.reshape(self.mask, shape=shape_of(self.mask) + (1,) * missing) if missing else self.mask
        return p.where(mask, self.value, np.ones((), self.value.dtype))

    def _computed(self, function: Callable[..., Any], *operands: Any) -> MaskedPart:
        """``function`` of parts of the same mask and numbers."""
        given = []
        for x in operands:
            if isinstance(x, MaskedPart):
                if not x.belongs_to(self.mask) or shape_of(x.value) != shape_of(self.value):
                    self.refuse()
                given.append(x._safe())
            elif shape_of(x) != ():
                self.refuse()
            else:
                given.append(x)
        return MaskedPart(function(*given), self.mask)

    def refuse(self, *args: Any, **kwargs: Any) -> Any:
        """Raise: what is asked needs to know the shape."""
        raise ConditionError(
            "A boolean mask that depends on input values gives an array whose shape does too.",
            at=frames.describe(frames.user_where()),
            because="shapes must be known while tracing",
            fix="keep the shape: np.where(mask, x, 0)",
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> MaskedPart:
        entry = registry.find(ufunc, method) if method == "__call__" and not kwargs else None
        return self._computed(entry, *inputs) if entry is not None else self.refuse()

    def __neg__(self) -> MaskedPart:
        return self._computed(p.negative, self)

    def __add__(self, other: Any) -> MaskedPart:
        return self._computed(p.add, self, other)

    def __radd__(self, other: Any) -> MaskedPart:
        return self._computed(p.add, other, self)

    def __sub__(self, other: Any) -> MaskedPart:
        return self._computed(p.subtract, self, other)

    def __rsub__(self, other: Any) -> MaskedPart:
        return self._computed(p.subtract, other, self)

    def __mul__(self, other: Any) -> MaskedPart:
        return self._computed(p.multiply, self, other)

    def __rmul__(self, other: Any) -> MaskedPart:
        return self._computed(p.multiply, other, self)

    def __truediv__(self, other: Any) -> MaskedPart:
        return self._computed(p.divide, self, other)

    def __rtruediv__(self, other: Any) -> MaskedPart:
        return self._computed(p.divide, other, self)

    def __pow__(self, other: Any) -> MaskedPart:
        return self._computed(p.power, self, other)

    def __rpow__(self, other: Any) -> MaskedPart:
        return self._computed(p.power, other, self)

    __array_function__ = __array__ = __iter__ = __len__ = __getitem__ = __setitem__ = refuse
    __matmul__ = __rmatmul__ = __lt__ = __le__ = __gt__ = __ge__ = __float__ = __int__ = __bool__ = refuse

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.refuse()

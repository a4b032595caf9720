"""What the user sees of a free size: ``x.shape[0]`` as a value inside the transform, good for arithmetic alone."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from wichi.errors import ConditionError, ShapeError
from wichi.trace import advice, frames
from wichi.trace.boxed import registry
from wichi.trace.dims import Dim, free_sizes, terms_of
from wichi.trace.primitive import Primitive
from wichi.trace.tracer import Tracer


class FreeSize(Tracer):
    """A polynomial in free sizes. With integers and its like it stays one; with all else it is an integer value."""

    __slots__ = ("dim",)

    def __init__(self, dim: Dim) -> None:
        sizes = free_sizes()
        assert sizes is not None, "free sizes exist while a function with free sizes is traced"
        table, total = Primitive.table, None
        for names, c in terms_of(dim).items():
            term: Any = None
            for name in names:
                value = sizes.values[name]
                term = value if term is None else table["mul"](term, value)
            number = np.int64(c)
            term = number if term is None else term if c == 1 else table["mul"](term, number)
            total = term if total is None else table["add"](total, term)
        assert isinstance(total, Tracer)
        super().__init__(total.run, total.atom)
        self.dim = dim

    def _with(self, other: Any, name: str) -> Any:
        if isinstance(other, int | FreeSize) and not isinstance(other, bool):
            return visible(getattr(self.dim, name)(extent(other)))
        return NotImplemented

    def __add__(self, other: Any) -> Any:
        found = self._with(other, "__add__")
        return super().__add__(other) if found is NotImplemented else found

    def __radd__(self, other: Any) -> Any:
        found = self._with(other, "__add__")
        return super().__radd__(other) if found is NotImplemented else found

    def __sub__(self, other: Any) -> Any:
        found = self._with(other, "__sub__")
        return super().__sub__(other) if found is NotImplemented else found

    def __rsub__(self, other: Any) -> Any:
        found = self._with(other, "__rsub__")
        return super().__rsub__(other) if found is NotImplemented else found

    def __mul__(self, other: Any) -> Any:
        found = self._with(other, "__mul__")
        return super().__mul__(other) if found is NotImplemented else found

    def __rmul__(self, other: Any) -> Any:
        found = self._with(other, "__mul__")
        return super().__rmul__(other) if found is NotImplemented else found

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, int | FreeSize):
            divisor = extent(other)
            quotient = self.dim // divisor
            if isinstance(quotient, Dim) and terms_of(quotient * divisor) == dict(self.dim.terms):
                return visible(quotient)
            raise ShapeError(
                f"The free size {self.dim} is not divided by {divisor} for every length.",
                at=frames.describe(frames.user_where()),
                because="the compiled function must hold for all lengths",
                fix="give the part a name of its own: wichi.spec(dtype, (2, 'half'))",
            )
        return super().__floordiv__(other)

    __hash__ = Tracer.__hash__

    def _concrete(self, need: str) -> NoReturn:
        needs_number(self.dim)


def needs_number(dim: Dim) -> NoReturn:
    """Raise: Python asks for the number of a free size."""
    frame = frames.user_frame()
    text = (frames.segment(frame) if frame else None) or str(dim)
    fix = "use x.shape[0] in arithmetic only, loop with wichi.fori_loop or wichi.scan, or give a size: "
    fix += "wichi.spec(dtype, (3,))"
    if maker := advice.of_numpy(text):  # which takes free sizes
        fix = maker
    raise ConditionError(
        f"`{text}` needs the number of the free size {dim}, which only a call knows.",
        at=frames.describe(frames.user_where()),
        because="a function with free sizes is compiled once for all of them",
        fix=fix,
    )


def extent(n: Any) -> int:
    """A size that a user gives, as it stands in shapes."""
    return n.dim if isinstance(n, FreeSize) else n if isinstance(n, Dim) else int(n)


def visible(n: int) -> Any:
    """A size of a shape, as users see it."""
    return FreeSize(n) if isinstance(n, Dim) else n


registry.add(registry.methods, {"_visible_size": visible, "_needs_number": needs_number})

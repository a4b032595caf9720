"""Writing into values inside a transform, as NumPy writes into memory that views share.

Each write makes a new value under the same name. Views are looked up again when they are read, or written through, or
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from wichi.errors import DtypeError, ShapeError
from wichi.trace import frames, refusals
from wichi.trace.boxed import Boxed, registry
from wichi.trace.ir import Atom

if TYPE_CHECKING:
    from wichi.trace.tracer import Trace


class Writable(Boxed):
    """The half of a value inside a transform that stands for its memory."""

    __slots__ = ("atom", "base", "part", "run", "seen", "writes")

    def __init__(self, run: Trace, atom: Atom) -> None:
        self.run, self.atom = run, atom
        self.base: Writable | None = None  # the value that NumPy would say this is a view of, through `part`
        self.part: Any = None  # None: a view of another kind
        self.writes = self.seen = 0  # how often this was written, and its base when it was last looked at

    def looks_into(self, base: Writable, item: Any) -> None:
        """This is a view of ``base``, in NumPy's eyes."""
        self.base, self.part, self.seen = base, item, base.writes

    def refresh(self) -> None:
        """A view shows what was written into its base since it was made."""
        chain = [self]
        while chain[-1].base is not None:
            chain.append(chain[-1].base)
        for base, view in reversed([*zip(chain[1:], chain, strict=False)]):
            if view.seen != base.writes:
                if view.part is None:
                    refusals.stale(view)
                view.atom = registry.methods["__getitem__"](base, view.part).atom
                view.seen, view.writes = base.writes, view.writes + 1

    def become(self, value: Any) -> None:
        """This name stands for ``value`` from now on; so does its part of what it is a view of."""
        if not self.run.is_innermost:
            refusals.written_outside(self)
        view: Writable | None = self
        while view is not None:
            view.atom, view.writes = view.run.lift(value), view.writes + 1
            base = view.base
            if base is not None:
                if view.part is None:
                    refusals.stale(view)
                value = registry.methods["write"](base, view.part, value)
                view.seen = base.writes + 1
            view = base

    def __getitem__(self, index: Any) -> Any:
        part = registry.methods["__getitem__"](self, index)
        if isinstance(part, Writable):
            parts = index if isinstance(index, tuple) else (index,)
            if part.shape and all(map(_is_basic, parts)):
                part.looks_into(self, (None,) if index is None else index)
            else:
                part.base = None
        return part

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.base is not None:
            self.refresh()
        part = value if isinstance(value, Writable) and value.base is self and value.part is index else None
        if part is None or part.seen != self.writes:  # else `x[i] += v`, which has written through already
            self.become(registry.methods["write"](self, index, value))

    def combine(self, index: Any, value: Any, op: str) -> None:
        """``numpy.ufunc.at``: as often as an index occurs."""
        if self.base is not None:
            self.refresh()
        self.become(registry.methods["write"](self, index, value, op))

    def overwrite(self, compute: Callable[[], Any]) -> Writable:
        """``out=self`` of a NumPy function: this array holds the result from now on."""
        value = compute()
        shape = np.shape(value) if not isinstance(value, Boxed) else value.shape
        if shape != self.shape:
            raise ShapeError(
                f"out= has shape {self.shape}, and the result has shape {shape}.",
                at=frames.describe(frames.user_where()),
                fix="out=wichi.numpy.empty(shape of the result)",
            )
        self.become(registry.methods["write"](self, ..., value))
        return self

    def _changed(self, name: str, other: Any) -> Writable:
        """``x += other``: in place for arrays, as NumPy has it; a number gets a new value."""
        new = getattr(self, name)(other)
        if not self.shape or not isinstance(new, Writable):
            return new  # type: ignore[no-any-return]
        if (new.shape, new.dtype) != (self.shape, self.dtype):
            raise DtypeError(
                f"An in-place operation would turn {self.aval} into {new.aval}.",
                at=frames.describe(frames.user_where()),
                because="an array keeps its shape and dtype when it is changed in place",
                fix="make a new value: x = x + y",
            )
        self.become(new)
        return self

    def __iadd__(self, other: Any) -> Writable:
        return self._changed("__add__", other)

    def __isub__(self, other: Any) -> Writable:
        return self._changed("__sub__", other)

    def __imul__(self, other: Any) -> Writable:
        return self._changed("__mul__", other)

    def __itruediv__(self, other: Any) -> Writable:
        return self._changed("__truediv__", other)

    def __ifloordiv__(self, other: Any) -> Writable:
        return self._changed("__floordiv__", other)

    def __imod__(self, other: Any) -> Writable:
        return self._changed("__mod__", other)

    def __ipow__(self, other: Any) -> Writable:
        return self._changed("__pow__", other)


def _is_basic(part: Any) -> bool:
    """Whether an index makes a view in NumPy: no arrays, and traced integers stand for NumPy's scalars."""
    if isinstance(part, Writable):
        return not part.shape and part.dtype.kind in "iu"
    if isinstance(part, bool):  # x[True] makes a copy
        return False
    return part is None or part is Ellipsis or isinstance(part, slice | int | np.integer)

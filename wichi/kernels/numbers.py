"""What a writer of loop IR hands out and asks for: scalars that read like arithmetic, variables, and its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wichi.kernels.layout import Layout
from wichi.kernels.loops import Assign, Read

if TYPE_CHECKING:
    from wichi.kernels.writer import Writer


def mapped(f: Callable[..., Any], *arrays: Any) -> np.ndarray[Any, Any]:
    """``f`` of the elements of object arrays that broadcast, as an object array."""
    out = np.frompyfunc(f, len(arrays), 1)(*arrays)
    if isinstance(out, np.ndarray):
        return out
    whole = np.empty((), object)
    whole[()] = out
    return whole


class Context(Protocol):
    """What a writer asks of the schedule: more memory, and how a graph within an equation is written."""

    def scratch(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Layout:
        """Memory for an intermediate value of this nest."""
        ...

    def inline(
        self,
        k: Writer,
        graph: Any,
        ins: Sequence[Layout],
        outs: Sequence[Layout | None],
        carried: dict[int, int] | None = None,
    ) -> set[int]:
        """Write the equations of a graph, from memory to memory.

        ``carried``: inputs that are carries of a loop, and the outputs that follow them; such an output may be written
        into its carry's own memory. Answers those that were.
        """
        ...

    def fits_registers(self, graph: Any) -> bool:
        """Whether all values of the graph are small enough to live in registers."""
        ...

    def in_registers(self, k: Writer, graph: Any, ins: Sequence[Any]) -> list[Any]:
        """Write the equations of such a graph; values are object arrays of scalars."""
        ...

    def fails(self, what: str) -> int:
        """The status of a failure that says ``what``, at the line of the equation being written."""
        ...


class Scalar:
    """A number inside a loop, with Python's operators; or a vector of ``lanes`` numbers, see ``wichi.kernels.packs``."""

    __slots__ = ("dtype", "id", "lanes", "writer")

    def __init__(self, writer: Writer, id: int, dtype: np.dtype[Any], lanes: int = 0) -> None:
        self.writer, self.id, self.dtype, self.lanes = writer, id, dtype, lanes

    def __add__(self, other: Any) -> Scalar:
        return self.writer.compute("add", self, other)

    def __radd__(self, other: Any) -> Scalar:
        return self.writer.compute("add", other, self)

    def __sub__(self, other: Any) -> Scalar:
        return self.writer.compute("sub", self, other)

    def __rsub__(self, other: Any) -> Scalar:
        return self.writer.compute("sub", other, self)

    def __mul__(self, other: Any) -> Scalar:
        return self.writer.compute("mul", self, other)

    def __rmul__(self, other: Any) -> Scalar:
        return self.writer.compute("mul", other, self)

    def __truediv__(self, other: Any) -> Scalar:
        return self.writer.compute("div", self, other)

    def __rtruediv__(self, other: Any) -> Scalar:
        return self.writer.compute("div", other, self)

    def __neg__(self) -> Scalar:
        return self.writer.compute("neg", self)

    def __and__(self, other: Any) -> Scalar:
        return self.writer.compute("and", self, other)

    def __or__(self, other: Any) -> Scalar:
        return self.writer.compute("or", self, other)


class Variable:
    """A mutable number: ``value`` reads it, ``set`` writes it."""

    __slots__ = ("_dtype", "_id", "_lanes", "_writer")

    def __init__(self, writer: Writer, id: int, dtype: np.dtype[Any], lanes: int = 0) -> None:
        self._writer, self._id, self._dtype, self._lanes = writer, id, dtype, lanes

    @property
    def value(self) -> Scalar:
        out = self._writer.fresh(self._dtype, self._lanes)
        self._writer.put(Read(out.id, self._id, self._dtype))
        return out

    def set(self, value: Scalar) -> None:
        self._writer.put(Assign(self._id, value.id))

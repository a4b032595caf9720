"""What the nests of a program share while they are written: memory, statuses, and graphs within equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.kernels import interrupts
from wichi.kernels.layout import Layout
from wichi.kernels.loops import Buffer, Size
from wichi.kernels.registers import fits_registers, write_registers
from wichi.kernels.writer import INTERRUPT_CHECK, Writer
from wichi.trace.callbacks import HostFunction
from wichi.trace.ir import Eqn, Graph, expanded
from wichi.trace.primitive import Inline as InlineKernel

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector there is
Inline = Callable[..., set[int]]


def stands_for_equations(eqn: Eqn) -> bool:
    return isinstance(eqn.prim.kernel, InlineKernel)


class Shared:
    """What the nests of a program share while they are written: the ``Context`` of their writers."""

    def __init__(
        self,
        sizes: list[int],
        scalars: list[Any],
        buffers: list[Buffer],
        arena_bytes: int,
        inline: Inline,
        free: bool = False,
    ) -> None:
        self.free = free
        self.sizes, self.scalars, self.buffers, self._inline = sizes, scalars, buffers, inline
        self.planned = self.top = self.arena_bytes = arena_bytes
        self.failures: list[tuple[str, Eqn]] = []
        self.eqn: Eqn | None = None  # the one that is being written

    def open_nest(self) -> None:
        """Nests run one after the other, so each has the same memory for what is within its loops."""
        self.top = self.planned

    def scratch(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Layout:
        self.sizes.append(self.top)
        self.buffers.append(Buffer(dtype, offset=Size(len(self.sizes) - 1)))
        self.top += room(math.prod(shape), dtype.itemsize, self.free)
        self.arena_bytes = max(self.arena_bytes, self.top)
        return Layout.contiguous(len(self.buffers) - 1, dtype, shape)

    def inline(
        self,
        k: Writer,
        graph: Graph,
        ins: Sequence[Layout],
        outs: Sequence[Layout | None],
        carried: dict[int, int] | None = None,
    ) -> set[int]:
        return self._inline(k, self, graph, ins, outs, carried or {})

    def fits_registers(self, graph: Graph) -> bool:
        return fits_registers(expanded(graph, stands_for_equations))

    def in_registers(self, k: Writer, graph: Graph, ins: Sequence[Any]) -> list[Any]:
        outer = self.eqn

        def at(eqn: Eqn) -> None:
            self.eqn = eqn

        results = write_registers(k, expanded(graph, stands_for_equations), ins, at)
        self.eqn = outer
        return results

    def fails(self, what: str) -> int:
        assert self.eqn is not None
        failure = (what, self.eqn)
        if failure not in self.failures:
            self.failures.append(failure)
        return self.failures.index(failure) + 1


def room(count: int, itemsize: int, free: bool) -> int:
    """The bytes that ``count`` elements take in the arena. ``free``: as a polynomial in ``count``."""
    if free:
        return 8 * count + _ALIGNMENT
    return max(-(-count * itemsize // _ALIGNMENT) * _ALIGNMENT, _ALIGNMENT)


class Arena:
    """First fit over the free gaps of one growing block. ``free``: one after the other, as no sizes can be compared."""

    def __init__(self, free: bool = False) -> None:
        self.high = 0
        self._free = free
        self._taken: dict[int, int] = {}

    def take(self, size: int) -> int:
        offset = 0
        if self._free:
            self.high += size
            return self.high - size
        for start, length in sorted(self._taken.items()):
            if start - offset >= size:
                break
            offset = start + length
        self._taken[offset] = size
        self.high = max(self.high, offset + size)
        return offset

    def give_back(self, offset: int) -> None:
        if self._free:
            return
        del self._taken[offset]


def words_of(scalars: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Each scalar in the first bytes of a 64-bit word of its own."""
    words = np.zeros(max(len(scalars), 1), np.int64)
    for word, value in zip(words.view((np.uint8, 8)), scalars, strict=False):
        if value is INTERRUPT_CHECK:
            value = np.int64(interrupts.address())
        elif isinstance(value, HostFunction):
            value = np.int64(value.address)
        word[: value.dtype.itemsize] = np.frombuffer(value.tobytes(), np.uint8)
    return words

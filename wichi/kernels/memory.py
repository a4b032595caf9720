"""Values into memory: arguments for inputs, constants and results; for the rest one arena, planned by lifetimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wichi.kernels.bands import Group
from wichi.kernels.loops import Buffer, Size
from wichi.kernels.shared import Arena
from wichi.trace.ir import Atom


@dataclass(frozen=True, slots=True)
class Placed:
    """The buffers of a program, the bytes of its arena, and the slot among the buffers of each buffer of the plan.

    ``tile_bytes``: of the memory that each chunk has for itself.
    """

    buffers: list[Buffer]
    arena_bytes: int
    slots: dict[int, int]
    tile_bytes: int


def assign(
    home: Mapping[int, Atom],
    arguments: Mapping[int, int],
    into: Mapping[int, int],
    lifetimes: Mapping[int, tuple[int, int]],
    steps: int,
    groups: Sequence[Group],
    sizes: list[int],
    chunked: bool,
) -> Placed:
    """Place every buffer of ``lifetimes`` (the step that makes it, the last that reads it) and of ``arguments``.

    First fit in the arena. What a band reads or adds to in each of its blocks lives as long as the band; what is made
    and read within one block is a tile, as large as the rows of a block.

    Args:
        arguments: buffers that are arguments of the program, by number.
        into: buffers that have the memory of another buffer, which is an argument.
        chunked: tiles lie in memory apart.
    """
    arena, own, offsets, slots = Arena(), Arena(), {}, {}
    tiles = {b for group in groups for b in group.tiles} if chunked else set()
    buffers: list[Buffer] = []
    born: dict[int, list[int]] = {}
    ending: dict[int, list[int]] = {}
    sized: dict[int, int] = {}
    for buffer in sorted(lifetimes):
        if buffer in arguments or buffer in into:
            continue
        first, last = lifetimes[buffer]
        aval = home[buffer].aval
        sized[buffer] = aval.size * aval.dtype.itemsize
        for group in groups:
            if buffer in group.tiles:
                sized[buffer] = sized[buffer] // group.rows * group.block
                continue
            first = group.start if group.start <= first < group.stop else first
            last = group.stop - 1 if group.start <= last < group.stop else last
        born.setdefault(first, []).append(buffer)
        ending.setdefault(last, []).append(buffer)
    for number in range(steps):
        for buffer in born.get(number, ()):
            offsets[buffer] = (own if buffer in tiles else arena).take(sized[buffer])
        for buffer in ending.get(number, ()):
            (own if buffer in tiles else arena).give_back(offsets[buffer])
    for buffer in sorted({*lifetimes, *arguments}):
        if buffer in into:  # arguments come first, so its memory is there already
            slots[buffer] = slots[into[buffer]]
            continue
        slots[buffer] = len(buffers)
        dtype = home[buffer].aval.dtype
        if buffer in arguments:
            buffers.append(Buffer(dtype, argument=arguments[buffer]))
        else:
            sizes.append(offsets[buffer])
            buffers.append(Buffer(dtype, offset=Size(len(sizes) - 1), tile=buffer in tiles))
    return Placed(buffers, arena.high, slots, own.high)

"""Bands: steps that run for one block of rows after the other, so that what they hand each other stays in the cache.

Softmax over the rows of a matrix takes several passes over it; run on a few rows at a time, all passes but the first
find their rows in the nearest cache, and the intermediate arrays shrink from the size of the data to that of a block.

The rule, whole. A step is row-wise in a family of axes (``wichi.kernels.axes``) if its loops have one axis of that
family, or if it sums over one. Row-wise steps of the most frequent family form a band, with what must come before them
in front and what needs their complete results behind. Sums over all rows are added to, block by block. Which steps
form a band does not depend on the number of rows, so that every batch size runs the same program.

A block has as many rows as ``CACHE`` bytes hold, counting all arrays that have rows in the band; with products in it
at least ``_ENOUGH_ROWS``, if ``_LARGER_CACHE`` bytes hold them, and the like where rows are innermost
(``wichi.kernels.turned``). A matrix that all blocks share (weights, or their gradient, which is added to) goes through
each product once a block: where there is one of more than ``_SHARED`` elements, blocks are large enough for products of
``_PRODUCT_ROWS`` rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from wichi.kernels.axes import Axis, Families
from wichi.kernels.layout import Layout
from wichi.kernels.plans import Step
from wichi.trace.dims import Dim
from wichi.trace.ir import Atom, Const, Eqn, Var
from wichi.trace.primitive import Reduction

CACHE = 1 << 16  # bytes that the rows of one block take together
_LARGER_CACHE = 1 << 20  # where products want more rows than fit there
_ENOUGH_ROWS = 64
_TURNED_ROWS = 96  # where rows are innermost: vectors and the sums of products go along them
_TURNED_CACHE = 1 << 21
_SHARED = 1 << 10
_PRODUCT_ROWS = 512


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive steps from ``start`` up to ``stop`` that form a band; ``cells`` are the homes that hold one block."""

    start: int
    stop: int
    family: Axis
    rows: int
    block: int
    tiles: frozenset[int]
    chunk: int = 0  # rows of a chunk, where the band is cut into chunks
    partial: Mapping[Var, Var] = field(default_factory=dict)  # sums over rows, and where each chunk's own are


@dataclass(frozen=True, slots=True)
class Memory:
    """Where values lie, as far as it matters here."""

    layouts: Mapping[Atom, Layout]
    home: Mapping[int, Atom]  # buffer -> the value it was made for
    ready: Mapping[Atom, int]  # the step after which a value lies there
    inside: Mapping[Var, int]  # the fused step that computes it element by element
    innermost: Mapping[Var, int]  # values whose rows are innermost


def row_axis(families: Families, family: Axis, step: Step) -> int | None:
    """Which loop of a fused step goes along the rows of ``family``; None if none does, or not the same for all."""
    found = set()
    for eqn in step.eqns:
        full = eqn.ins[0] if isinstance(eqn.prim.kernel, Reduction) else eqn.outs[0]
        found.add(families.axis(full, family))
    (axis,) = found if len(found) == 1 else (None,)
    return axis if axis is not None and axis >= 0 else None


def _is_row_wise(families: Families, family: Axis, step: Step) -> bool:
    if step.shape is not None:
        return row_axis(families, family, step) is not None
    return all(families.is_row_wise(family, eqn) for eqn in step.eqns)


def sums_rows(families: Families, family: Axis, eqn: Eqn) -> bool:
    """Whether the result of an equation of a band is a sum over all rows."""
    return families.axis(eqn.outs[0], family) is None


def _same_rows(families: Families, family: Axis, atom: Atom, memory: Memory) -> bool:
    """Whether each row of ``atom`` lies within the same row of the value it is read from, wherever that row lies."""
    layout = memory.layouts[atom]
    home = memory.home[layout.buffer]
    at, home_at = families.axis(atom, family), families.axis(home, family)
    if at is None or at < 0 or home_at is None or home_at < 0:
        return False
    multiple = families.multiple(atom, at, family)
    if home in memory.innermost:
        rows = families.rows[family]
        others = [s for i, s in enumerate(layout.strides) if i != at]
        alone = memory.innermost[home] == home_at and layout.strides[at] == 1 == multiple  # type: ignore[index]
        return alone and layout.shape[at] == rows and not any(s % rows for s in (*others, layout.offset))
    row = memory.layouts[home].strides[home_at] * families.multiple(home, home_at, family)
    if layout.strides[at] * multiple != row or row * families.rows[family] != home.aval.size:
        return False
    steps = [(multiple if i == at else n, s) for i, (n, s) in enumerate(zip(layout.shape, layout.strides, strict=True))]
    low = layout.offset + sum(min(0, (n - 1) * s) for n, s in steps)
    high = layout.offset + sum(max(0, (n - 1) * s) for n, s in steps)
    return low >= 0 and high < row


def read_from_memory(step: Step, number: int, memory: Memory) -> list[Atom]:
    """The values that a step does not compute itself."""
    found = {}
    for eqn in step.eqns:
        for atom in eqn.ins:
            here = type(atom) is Var and memory.inside.get(atom) == number and atom.aval.shape == step.shape
            if (
                not here
                and atom in memory.layouts
                and not (type(atom) is Const and atom.is_scalar and step.shape is not None)
            ):
                found[atom] = None
    return list(found)


def arrange(
    steps: Sequence[Step], families: Families, memory: Memory, barriers: Collection[int], single: bool = False
) -> tuple[list[int], list[tuple[int, int, Axis]]]:
    """The steps in the order in which they run, and the bands in it: (start, stop, family).

    ``barriers``: steps that write where others read; nothing moves past them. ``single``: a step that hands nothing
    on to others is a band too.
    """
    reads = [read_from_memory(s, i, memory) for i, s in enumerate(steps)]
    order: list[int] = []
    bands: list[tuple[int, int, Axis]] = []
    segment: list[int] = []
    for number in [*range(len(steps)), None]:
        if number is not None and number not in barriers:
            segment.append(number)
            continue
        waiting: list[tuple[list[int], Axis | None]] = [(segment, None)]
        while waiting:
            numbers, family = waiting.pop()
            if family is not None:
                bands.append((len(order), len(order) + len(numbers), family))
                order += numbers
                continue
            family, before, band, after = _split(numbers, steps, reads, families, memory, single)
            if family is None:
                order += numbers
            else:
                waiting += [(after, None), (band, family), (before, None)]
        segment = []
        if number is not None:
            order.append(number)
    return order, bands


def _split(
    numbers: Sequence[int],
    steps: Sequence[Step],
    reads: Sequence[Sequence[Atom]],
    families: Families,
    memory: Memory,
    single: bool,
) -> tuple[Axis | None, list[int], list[int], list[int]]:
    """The first family that makes a band of these steps: what comes before it, the band, and what comes after."""
    for family in families.ranked:
        before: list[int] = []
        band: dict[int, None] = {}
        after: dict[int, None] = {}
        linked = False
        for number in numbers:
            needs = {memory.ready[a] for a in reads[number]}
            if any(n in after for n in needs):
                after[number] = None
            elif _is_row_wise(families, family, steps[number]) and all(
                _same_rows(families, family, a, memory) for a in reads[number] if memory.ready[a] in band
            ):
                linked = linked or any(n in band for n in needs)
                band[number] = None
            elif any(n in band for n in needs):
                after[number] = None
            else:
                before.append(number)
        if linked or (single and band):
            return family, before, list(band), list(after)
    return None, [], [], []


_CHUNKS = 16  # of a band, whatever the number of threads: the order of sums does not depend on it
_PARTIAL = 1 << 22  # bytes that the sums of all chunks may take


def chunk_rows(rows: int, block: int, sums: Sequence[Atom]) -> int:
    """How many rows a chunk has: whole blocks."""
    size = sum(a.aval.size * a.aval.dtype.itemsize for a in sums)
    blocks = -(-rows // block)
    chunks = max(1, min(_CHUNKS, blocks, _PARTIAL // max(size, 1)))
    return -(-blocks // chunks) * block


def block_rows(
    touched: Sequence[Atom],
    products: Sequence[tuple[int, int]],
    families: Families,
    family: Axis,
    free: bool,
    innermost: bool,
) -> int:
    """How many rows a block has.

    Args:
        touched: values that have rows.
        products: of each product the elements of the matrix that blocks share, and what a row counts for in it.
        free: the number of rows is not known.
        innermost: rows are innermost within a block.
    """
    rows = families.rows[family]
    if free and any(type(n) is Dim and n != rows for a in touched for n in a.aval.shape):
        return _PRODUCT_ROWS if products else _ENOUGH_ROWS  # what a row takes is not known either
    a_row = sum(a.aval.size * a.aval.dtype.itemsize // rows for a in touched)
    least = max((-(-_PRODUCT_ROWS // multiple) for shared, multiple in products if shared >= _SHARED), default=1)
    block = max(CACHE // max(a_row, 1), least)
    if innermost:
        block = max(block, min(_TURNED_CACHE // max(a_row, 1), _TURNED_ROWS))
    elif products:
        block = max(block, min(_LARGER_CACHE // max(a_row, 1), _ENOUGH_ROWS))
    if rows <= block and not free:
        return rows
    return block if block < 16 else block // 16 * 16

"""A graph as a program. What runs how, rule by rule; each is written down whole where it is carried out.

1. Products that are only summed, or have equal rows or columns, are not computed (``sums``).
2. Cheap values within windows are computed where they are read (``windows``).
3. Equations that share a loop become one nest (``placing``); a value with one reader, computed from what lies in memory
   in any case, waits for that reader (``delayed``).
4. Nests that hand rows to each other run for one block of rows after the other (``bands``), whose intermediate values
   lie with their rows innermost where they are narrow (``turned``).
5. A value takes the memory of an operand that dies where it is made (``in_place``); what is left shares one arena by
   lifetimes (``memory``).
6. Each step is written as a nest of loops (``fused``, ``product``, and the primitives that have loops of their own).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wichi.kernels import memory
from wichi.kernels.axes import Axis, Families
from wichi.kernels.bands import (
    Group,
    Memory,
    arrange,
    block_rows,
    chunk_rows,
    read_from_memory,
    row_axis,
    sums_rows,
)
from wichi.kernels.fused import write_fused
from wichi.kernels.in_place import share
from wichi.kernels.layout import Layout, Rows
from wichi.kernels.loops import Band, Program, Size, neutral
from wichi.kernels.placing import Placing
from wichi.kernels.plans import Plan, Step
from wichi.kernels.product import write_product
from wichi.kernels.shared import Shared, stands_for_equations, words_of
from wichi.kernels.sums import fewer_products
from wichi.kernels.turned import turned
from wichi.kernels.windows import windowed
from wichi.kernels.writer import Writer
from wichi.ops.reducing import sum_
from wichi.trace.ir import Atom, Aval, Eqn, Graph, Var, expanded
from wichi.trace.primitive import Loops, Product, Reduction

Place = Callable[[Atom], Layout]


def plan(graph: Graph, donated: Mapping[int, int] | None = None, chunked: bool = False, free: bool = False) -> Plan:
    """Decide how ``graph`` runs.

    Args:
        donated: results that are written into the memory of inputs.
        chunked: bands are cut into chunks, which threads may run at once.
        free: the extents of some axes stand for others, so all sizes must be polynomials in them.
    """
    graph = windowed(fewer_products(expanded(graph, stands_for_equations)))
    donated = donated or {}
    families = Families(graph)
    written = [graph.ins[i] for i in donated.values()]
    found = None if free else turned(graph, families)
    banded = _banded(*found, families, chunked, written) if found is not None else None
    if banded is None:
        banded = _banded(graph, {}, families, chunked, written)
        assert banded is not None
    p, outs, groups = banded
    targets = {
        out: p.donate(outs[out], graph.ins[i], [range(g.start, g.stop) for g in groups]) for out, i in donated.items()
    }
    if chunked:
        groups = [_cut(p, families, _sized(p, families, g, {p.layouts[o].buffer for o in outs}, free)) for g in groups]
    fresh = [o for k, o in enumerate(outs) if k not in donated]
    sizes: list[int] = []
    scalars: list[Any] = []
    arguments = {p.layouts[a].buffer: i for i, a in enumerate([*graph.ins, *p.constants, *fresh])}
    into = {p.layouts[targets[k]].buffer: p.layouts[graph.ins[i]].buffer for k, i in donated.items()}
    born = share(p, outs, {*arguments, *into}, into, [range(g.start, g.stop) for g in groups])
    needed, last_use = p.needed(outs)
    needed |= {*into}
    groups = [_sized(p, families, g, {*arguments, *into}, free) for g in groups]
    lifetimes = {b: (born.get(b, p.ready[p.home[b]]), last_use.get(b, p.ready[p.home[b]])) for b in needed}
    placed = memory.assign(p.home, arguments, into, lifetimes, len(p.steps), groups, sizes, chunked, free)
    shared = Shared(sizes, scalars, placed.buffers, placed.arena_bytes, _inline, free)
    bases = {b: Layout(slot, placed.buffers[slot].dtype, (), ()) for b, slot in placed.slots.items()}
    nests, bands = [], []
    for group in groups:
        sizes += [group.rows, group.block]
        begins = group.start + bool(p.steps[group.start].begins)
        slots = [Size(len(sizes) - 2), Size(len(sizes) - 1)]
        if chunked:
            sizes.append(group.chunk)
            slots.append(Size(len(sizes) - 1))
        bands.append(Band(begins, group.stop, *slots))
    for number, step in enumerate(p.steps):
        shared.open_nest()
        group = next((g for g in groups if g.start <= number < g.stop and not step.begins), None)
        writer = Writer(sizes, scalars, shared, in_band=group is not None)
        _write_step(p, writer, shared, number, needed, bases, families if group else None, group, groups)
        nests.append(writer.nest())
    return Plan(
        Program(tuple(nests), tuple(placed.buffers), len(arguments), tuple(bands)),
        np.array(sizes or [0], np.int64),
        words_of(scalars),
        tuple(v.aval for v in graph.ins),
        tuple(c.value for c in p.constants),
        tuple(o.aval for o in fresh),
        shared.arena_bytes,
        tuple(shared.failures),
        tuple(p.steps),
        tuple(scalars),
        tuple(donated.items()),
        _homes(p, placed.slots, len(placed.buffers)),
        placed.tile_bytes,
    )


def _homes(p: Placing, slots: dict[int, int], count: int) -> tuple[Atom | None, ...]:
    """The value that each buffer of the program was made for."""
    found: list[Atom | None] = [None] * count
    for buffer, slot in slots.items():
        found[slot] = found[slot] if found[slot] is not None else p.home[buffer]
    return tuple(found)


# --- bands ---------------------------------------------------------------------------------------------------------
def _banded(
    graph: Graph, innermost: Mapping[Var, int], families: Families, chunked: bool, written: Collection[Var]
) -> tuple[Placing, list[Var], list[Group]] | None:
    """The steps in their order, the outputs, and the bands, whose blocks have no size yet.

    A value of a band has its rows one after the other in memory, also where its first axis is another; or, of those in
    ``innermost``, its rows innermost. Which values are in bands is known when all are placed, so where such a value is
    found they are placed a second time. None: a value does not stay within a block that has its rows innermost.
    """
    wanted = {v: axis for v, axis in _rows_outermost(graph, families).items() if v not in innermost}
    while True:
        p = Placing(graph, families, wanted, innermost, written=written)
        p.begin()
        outs = p.place()
        where = Memory(p.layouts, p.home, p.ready, p.inside, innermost)
        order, found = arrange(p.steps, families, where, p.barriers, chunked)
        bands = [{order[i] for i in range(start, stop)} for start, stop, _ in found]
        ours = [band for band, (_, _, family) in zip(bands, found, strict=True) if family == families.ranked[0]]
        if innermost and not _stay_within(p, outs, ours):
            return None
        made = {number: family for band, (_, _, family) in zip(bands, found, strict=True) for number in band}
        useless = [v for v, axis in wanted.items() if not _is_row_of(families, v, axis, made.get(p.ready.get(v, -1)))]
        if not useless:
            return p, outs, _reorder(p, families, order, found, chunked)
        wanted = {v: axis for v, axis in wanted.items() if v not in useless}


def _is_row_of(families: Families, value: Var, axis: int, family: Axis | None) -> bool:
    """Whether ``value``, made in a band of ``family``, has its rows along ``axis``."""
    return family is not None and families.axis(value, family) == axis


def _stay_within(p: Placing, outs: Sequence[Var], bands: Sequence[set[int]]) -> bool:
    """Whether the values with their rows innermost that lie in memory are made and read in one band."""
    needed, last_use = p.needed(outs)
    buffers = {b for b in needed if p.home[b] in p.innermost}
    made = {b: next((band for band in bands if p.ready[p.home[b]] in band), set()) for b in buffers}
    return all(last_use.get(b) in made[b] for b in buffers)


def _rows_outermost(graph: Graph, families: Families) -> dict[Var, int]:
    """Values whose axis in the most frequent family is not their first, but for results: they are in C order."""
    found = {}
    for eqn in graph.eqns:
        for out in eqn.outs:
            axes = (families.axis(out, family) for family in families.ranked)
            axis = next((a for a in axes if a is not None), None)
            if axis is not None and axis > 0 and any(n != 1 for n in out.aval.shape[:axis]) and out not in graph.outs:
                found[out] = axis
    return found


def _reorder(p: Placing, families: Families, order: Sequence[int], found: Sequence[Any], chunked: bool) -> list[Group]:
    """Put the steps in order; before a band goes a step that begins its sums over rows, after it what joins them."""
    steps: list[Step] = []
    number: dict[int, int] = {}
    starts = {start: (stop, family) for start, stop, family in found}
    groups: list[Group] = []
    at = 0
    while at < len(order):
        stop, family = starts.get(at, (at + 1, None))
        first = len(steps)
        if family is not None:
            sums = tuple(
                e
                for i in range(at, stop)
                for e in p.steps[order[i]].eqns
                if isinstance(e.prim.kernel, Reduction) and sums_rows(families, family, e)
            )
            if sums:
                steps.append(Step([], begins=sums))
        for i in range(at, stop):
            number[order[i]] = len(steps)
            steps.append(p.steps[order[i]])
        if family is not None:
            groups.append(Group(first, len(steps), family, families.rows[family], 0, frozenset()))
            if chunked:  # sums of products are sums over rows too
                last = [e for s in steps[first:] for e in s.eqns if sums_rows(families, family, e)]
                steps += [Step([e]) for e in last]
        at = stop
    p.reordered([number[i] for i in range(len(number))], steps)
    return groups


def _cut(p: Placing, families: Families, group: Group) -> Group:
    """Cut a band into chunks: each adds to sums of its own, which the steps after the band join."""
    sums = [e for step in p.steps[group.start : group.stop] for e in step.eqns if sums_rows(families, group.family, e)]
    chunk = chunk_rows(group.rows, group.block, [e.outs[0] for e in sums])
    count = -(-group.rows // chunk)
    partial: dict[Var, Var] = {}
    for number, eqn in enumerate(sums, group.stop):
        (out,) = eqn.outs
        part = partial[out] = Var(Aval((count, *out.aval.shape), out.aval.dtype))
        p.in_memory(part, group.start)
        join = eqn.prim if isinstance(eqn.prim.kernel, Reduction) else sum_
        p.steps[number] = Step([Eqn(join, (part,), {"axes": (0,)}, (out,), eqn.where)], part.aval.shape)
        p.ready[out] = number
    return replace(group, chunk=chunk, partial=partial)


def _sized(p: Placing, families: Families, group: Group, kept: set[int], free: bool) -> Group:
    """With the size of a block, and the values that live within one. ``kept``: buffers that callers see."""
    where = Memory(p.layouts, p.home, p.ready, p.inside, p.innermost)
    readers: dict[int, set[int]] = {}
    for number, step in enumerate(p.steps):
        for atom in read_from_memory(step, number, where):
            readers.setdefault(p.layouts[atom].buffer, set()).add(number)
    within = range(group.start, group.stop)
    touched: dict[Atom, None] = {}
    tiles = set()
    for buffer, home in p.home.items():
        read, made = readers.get(buffer, set()), p.ready[home] in within
        axis = families.axis(home, group.family)
        if axis is None or axis < 0:
            continue
        if (made and (read or buffer in kept)) or read & {*within}:
            touched[home] = None
        if made and read and read <= {*within} and buffer not in kept:
            tiles.add(buffer)
    products = [
        _shared(families, group.family, eqn)
        for step in p.steps[group.start : group.stop]
        for eqn in step.eqns
        if isinstance(eqn.prim.kernel, Product)
    ]
    innermost = any(p.home[buffer] in p.innermost for buffer in tiles)
    block = block_rows([*touched], products, families, group.family, free, innermost)
    return replace(group, block=block, tiles=frozenset(tiles))


def _shared(families: Families, family: Axis, eqn: Eqn) -> tuple[int, int]:
    """Of a product: the elements of a matrix that has no rows, and how many of its rows or columns are one row."""
    matrices = [(a, families.axis(a, family)) for a in (*eqn.ins, *eqn.outs)]
    with_rows = next(a for a, axis in matrices if axis is not None)
    axis = families.axis(with_rows, family)
    assert axis is not None
    shared = [a.aval.shape[-2] * a.aval.shape[-1] for a, other in matrices if other is None]
    return max(shared, default=0), families.multiple(with_rows, axis, family)


# --- steps into nests ----------------------------------------------------------------------------------------------
def _write_step(
    p: Placing,
    k: Writer,
    shared: Shared,
    number: int,
    needed: set[int],
    bases: Mapping[int, Layout],
    families: Families | None = None,
    group: Group | None = None,
    groups: Sequence[Group] = (),
) -> None:
    """Write step ``number``; ``bases`` says where the buffers lie. In a band: of one block."""

    def place(atom: Atom) -> Layout:
        part = group.partial.get(atom) if group is not None else None  # type: ignore[call-overload]
        if group is not None and part is not None:
            return _of_chunk(k, p.layouts[part].moved(bases[p.layouts[part].buffer]))
        layout = p.layouts[atom]
        moved = layout.moved(bases[layout.buffer])
        if families is None or group is None:
            return moved
        axis = families.axis(atom, group.family)
        if axis is None:
            return moved
        multiple = families.multiple(atom, axis, group.family)
        outer = moved.outer
        if p.home[layout.buffer] in p.innermost:
            moved = moved.of_block(axis, group.rows, group.block)
        elif layout.buffer not in group.tiles and layout.strides[axis] != 0:
            assert k.first is not None
            outer = (*outer, (k.first.id, k.size(layout.strides[axis] * multiple, (layout, "row"))))
        return replace(moved, shape=_with_rows(moved.shape, axis, multiple), outer=outer)

    step = p.steps[number]
    for eqn in step.begins:
        begun = next((g.partial[eqn.outs[0]] for g in groups if eqn.outs[0] in g.partial), eqn.outs[0])
        out = place(begun)
        k.fill(out, neutral(eqn.prim.kernel.op, out.dtype).item())
    if step.begins:
        return
    if step.shape is not None:
        stored = {e.outs[0] for e in step.eqns if p.layouts[e.outs[0]].buffer in needed}
        stored |= {*group.partial} if group is not None else set()
        inside = {e.outs[0] for e in step.eqns if p.inside.get(e.outs[0]) == number}
        shape = step.shape
        if families is not None and group is not None:
            axis = row_axis(families, group.family, step)
            assert axis is not None
            shape = _with_rows(shape, axis, shape[axis] // group.rows)
        write_fused(k, shape, step.eqns, inside, stored, place)
        return
    (eqn,) = step.eqns
    operands = [place(a) for a in eqn.ins]
    kept = {*group.partial} if group is not None else set()
    results = [place(o) if o in kept or p.layouts[o].buffer in needed else None for o in eqn.outs]
    if isinstance(eqn.prim.kernel, Product):
        assert results[0] is not None
        over_blocks = families is not None and group is not None and sums_rows(families, group.family, eqn)
        write_product(k, *operands, results[0], over_blocks)
    else:
        assert isinstance(eqn.prim.kernel, Loops)
        outer, shared.eqn = shared.eqn, eqn
        eqn.prim.kernel.write(k, operands, results, **eqn.params)
        shared.eqn = outer


def _of_chunk(k: Writer, layout: Layout) -> Layout:
    """The part of an array that belongs to the chunk: its first axis counts chunks."""
    assert k.chunk is not None
    whole = Layout(layout.buffer, layout.dtype, layout.shape[1:], layout.strides[1:], layout.offset, layout.outer)
    return replace(whole, outer=(*layout.outer, (k.chunk.id, k.size(layout.strides[0], (layout, "chunk")))))


def _with_rows(shape: tuple[int, ...], axis: int, multiple: int) -> tuple[int, ...]:
    return (*shape[:axis], Rows(multiple), *shape[axis + 1 :])


# --- graphs within equations ---------------------------------------------------------------------------------------
def _inline(
    k: Writer,
    shared: Shared,
    graph: Graph,
    ins: Sequence[Layout],
    outs: Sequence[Layout | None],
    carried: dict[int, int],
) -> set[int]:
    """Write a whole graph into the nest that ``k`` writes, from ``ins`` to ``outs`` (None: not asked for).

    ``carried``: inputs that are carries of a loop, and the outputs that follow them. Answers the outputs that were
    written in place, into the memory of their carries.
    """
    graph = windowed(fewer_products(expanded(graph, stands_for_equations)))
    p = Placing(graph, writable={graph.ins[i]: out for i, out in carried.items()})
    p.begin()
    bases: dict[int, Layout] = {}
    for var, given in zip(graph.ins, ins, strict=True):
        own = p.layouts[var]
        p.layouts[var] = replace(own, strides=given.strides)
        bases[own.buffer] = given
    results = p.place()
    assert not p.constants, "graphs within equations take arrays as inputs"
    needed, last_use = p.needed(results)
    in_place = {i for i, var in enumerate(results) if p.layouts[var].buffer in bases}
    for i, (var, target) in enumerate(zip(results, outs, strict=True)):
        if target is not None and i not in in_place:
            bases[p.layouts[var].buffer] = target
    ending: dict[int, list[int]] = {}
    for buffer, step in last_use.items():
        ending.setdefault(step, []).append(buffer)
    born: dict[int, list[int]] = {}
    own_buffers = needed - set(bases)
    for buffer in sorted(own_buffers):
        born.setdefault(p.ready[p.home[buffer]], []).append(buffer)
    free: dict[Any, list[Layout]] = {}  # memory of values that nothing reads any more, by type
    for number in range(len(p.steps)):
        for buffer in born.get(number, ()):
            aval = p.home[buffer].aval
            spare = free.get((aval.dtype, aval.shape))
            bases[buffer] = spare.pop() if spare else shared.scratch(aval.dtype, aval.shape)
        _write_step(p, k, shared, number, needed, bases)
        for buffer in (b for b in ending.get(number, ()) if b in own_buffers):
            aval = p.home[buffer].aval
            free.setdefault((aval.dtype, aval.shape), []).append(bases[buffer])
    return in_place

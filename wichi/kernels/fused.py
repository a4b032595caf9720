"""A fused step as one loop nest: pointwise equations computed in registers, stored where needed, and reduced.

A reduction whose axes are the innermost loops accumulates in registers. One that keeps an inner axis (the column sums
of a bias gradient) adds to its result in memory, row by row. One that does both does both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wichi.kernels.layout import Layout, Rows
from wichi.kernels.loops import neutral
from wichi.kernels.numbers import Scalar
from wichi.kernels.writer import Writer
from wichi.trace.ir import Atom, Const, Eqn, Var
from wichi.trace.primitive import Indexed, Pointwise, Reduction

Place = Callable[[Atom], Layout]
_SHORT = 4  # extents of a row's innermost axis up to which rows themselves are the vectors


@dataclass(slots=True)
class _Reduced:
    """A reduction of the nest; ``out`` is its result spread over the loops (stride 0 along those it reduces)."""

    eqn: Eqn
    op: str
    out: Layout
    axes: tuple[bool, ...]
    over_blocks: bool = False  # a sum over the rows of a band: other blocks add to it too
    accumulator: Scalar | None = None

    @property
    def depth(self) -> int:
        """How many outer loops there are before the innermost loops that are all its own."""
        depth = len(self.axes)
        while depth and self.axes[depth - 1]:
            depth -= 1
        return depth

    @property
    def in_memory(self) -> bool:
        """Whether loops further out are its own too: then partial results meet in memory."""
        return self.over_blocks or any(self.axes[: self.depth])


def write_fused(
    k: Writer, shape: tuple[int, ...], eqns: Sequence[Eqn], inside: set[Var], stored: set[Var], place: Place
) -> None:
    """Write the nest over ``shape``. ``inside``: values computed here; ``stored``: results that go to memory.

    In a band one axis of ``shape`` may be ``Rows``; then sums over it find their first value in memory.
    """
    loads = {a: place(a) for e in eqns for a in e.ins if a not in inside and not (type(a) is Const and a.is_scalar)}
    stores = {o: place(o) for e in eqns if isinstance(e.prim.kernel, Pointwise) for o in e.outs if o in stored}
    reduced = [e for e in eqns if isinstance(e.prim.kernel, Reduction) and e.outs[0] in stored]
    spread = [place(e.outs[0]).broadcast(shape, e.params["axes"]) for e in reduced]
    flags = [tuple(i in e.params["axes"] for i in range(len(shape))) for e in reduced]
    order = _loop_order(shape, loads.values(), stores.values())
    alone = {axis for v in loads.values() for axis, _, _ in v.guards}
    if any(isinstance(e.prim.kernel, Indexed) for e in eqns):
        alone.update(range(len(shape)))
    groups = _groups(shape, order, [*loads.values(), *stores.values(), *spread], flags, alone)

    def merge(layout: Layout) -> Layout:
        guards = tuple((groups.index([axis]), low, high) for axis, low, high in layout.guards)
        return replace(layout, shape=extents, strides=tuple(layout.strides[g[-1]] for g in groups), guards=guards)

    extents = tuple(math.prod(shape[a] for a in group) for group in groups)
    rows = next((axis for axis, n in enumerate(shape) if isinstance(n, Rows)), None)
    reductions = [
        _Reduced(
            e, e.prim.kernel.op, merge(layout), tuple(flag[g[0]] for g in groups), rows is not None and flag[rows]
        )
        for e, layout, flag in zip(reduced, spread, flags, strict=True)
    ]
    for r in reductions:
        if r.in_memory and not r.over_blocks:
            k.fill(place(r.eqn.outs[0]), neutral(r.op, r.out.dtype).item())
    nest = _Nest(
        k,
        shape,
        groups,
        extents,
        eqns,
        {a: merge(v) for a, v in loads.items()},
        {o: merge(v) for o, v in stores.items()},
        reductions,
    )
    nest.write([])


def _loop_order(shape: tuple[int, ...], loads: Iterable[Layout], stores: Iterable[Layout]) -> list[int]:
    """The axes from the outermost loop inwards: as they lie in memory, where arrays disagree by majority.

    A store counts twice. By places in the order of strides, not by the strides themselves, so that the sizes of axes
    do not matter.
    """
    axes = [axis for axis, n in enumerate(shape) if n != 1]
    votes = dict.fromkeys(axes, 0)
    for layouts, weight in ((stores, 2), (loads, 1)):
        for v in layouts:
            if all(v.strides[axis] for axis in axes):
                for place, axis in enumerate(sorted(axes, key=lambda a: -abs(v.strides[a]))):  # noqa: B023
                    votes[axis] += weight * place
    order = sorted(axes, key=votes.__getitem__)
    rows = next((axis for axis in order if isinstance(shape[axis], Rows)), None)
    if rows is not None and order[-1] != rows and shape[order[-1]] <= _SHORT:
        order.remove(rows)  # vectors of rows, whose elements are picked one by one, rather than vectors mostly empty
        order.append(rows)
    return order


def _groups(
    shape: tuple[int, ...],
    order: Sequence[int],
    layouts: Sequence[Layout],
    flags: Sequence[tuple[bool, ...]],
    alone: set[int],
) -> list[list[int]]:
    """Axes that run as one loop: neighbours that are evenly spaced in every layout and reduced alike.

    ``alone``: axes whose counters are looked at.
    """
    groups: list[list[int]] = []
    for axis in order:
        n = shape[axis]
        if groups and not isinstance(n, Rows) and axis not in alone and groups[-1][-1] not in alone:
            last = groups[-1][-1]
            even = all(v.strides[last] == v.strides[axis] * n for v in layouts)
            if even and all(flag[last] == flag[axis] for flag in flags):
                groups[-1].append(axis)
                continue
        groups.append([axis])
    return groups


@dataclass(slots=True)
class _Nest:
    k: Writer
    shape: tuple[int, ...]
    groups: list[list[int]]
    extents: tuple[int, ...]
    eqns: Sequence[Eqn]
    loads: dict[Atom, Layout]
    stores: dict[Var, Layout]
    reductions: list[_Reduced]

    def write(self, at: list[Scalar]) -> None:
        """The loop number ``len(at)`` and all within it. One call a loop: as deep as the array has axes."""
        k, depth = self.k, len(at)
        here = [r for r in self.reductions if r.depth == depth < len(self.extents)]
        for r in here:
            r.accumulator = k.begin(r.op, r.out.dtype)
        if depth == len(self.extents):
            self._body(at)
            return
        with k.loops(self.extents[depth : depth + 1]) as (counter,):
            self.write([*at, counter])
        for r in here:
            assert r.accumulator is not None
            self._deliver(r, at, k.end(r.accumulator))

    def _places(self, at: Sequence[Scalar]) -> list[Scalar]:
        """Where the loops stand along each axis, where no axes run as one."""
        counters = {group[0]: counter for group, counter in zip(self.groups, at, strict=True)}
        zero = self.k.constant(0)
        return [self.k.place_of(counters.get(axis, zero), n) for axis, n in enumerate(self.shape)]

    def _deliver(self, r: _Reduced, at: Sequence[Scalar], value: Scalar) -> None:
        """A partial or whole result to memory; loops within ``at`` address it, those it reduces have stride 0."""
        count = len(at)
        target = replace(r.out, shape=r.out.shape[:count], strides=r.out.strides[:count])
        if r.in_memory:
            self.k.update(target, at, r.op, value)
        else:
            self.k.store(target, at, value)

    def _body(self, at: list[Scalar]) -> None:
        k = self.k
        values: dict[Atom, Scalar] = {}

        def value(atom: Atom) -> Scalar:
            if atom not in values:
                if atom in self.loads:
                    values[atom] = k.load(self.loads[atom], at)
                else:
                    assert type(atom) is Const
                    return k.scalar(atom.value)
            return values[atom]

        by_eqn = {id(r.eqn): r for r in self.reductions}
        for eqn in self.eqns:
            kernel: Any = eqn.prim.kernel
            if isinstance(kernel, Pointwise):
                operands = (self._places(at),) if isinstance(kernel, Indexed) else map(value, eqn.ins)
                out = values[eqn.outs[0]] = kernel.scalar(k, *operands, **eqn.params)
                if eqn.outs[0] in self.stores:
                    k.store(self.stores[eqn.outs[0]], at, out)
            elif id(eqn) in by_eqn:
                r = by_eqn[id(eqn)]
                if r.accumulator is not None:
                    k.accumulate(r.accumulator, value(eqn.ins[0]))
                else:
                    self._deliver(r, at, value(eqn.ins[0]))

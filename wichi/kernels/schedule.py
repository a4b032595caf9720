"""A graph as a program: equations into steps, steps into nests, values into buffers.

The fusion rule, whole: a pointwise equation (or a reduction) joins a loop nest over the same shape if everything it
reads is computed in that nest at the same element or lies in memory before it; else it opens a new nest. So one nest
can store several results and end in several reductions. Views cost nothing: they are read through their strides.
Matrix products and primitives that write their own loops are steps of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wichi.kernels.fused import write_fused
from wichi.kernels.layout import Layout
from wichi.kernels.loops import Buffer, Program, Size
from wichi.kernels.plans import Plan, Step
from wichi.kernels.product import fits_blas, write_product
from wichi.kernels.shared import Arena, Shared, stands_for_equations, words_of
from wichi.kernels.writer import Writer
from wichi.ops.shaping import copy
from wichi.trace.ir import Atom, Const, Eqn, Graph, Var, expanded
from wichi.trace.primitive import Loops, Pointwise, Product, Reduction, View

_MOST_EQUATIONS = 150  # of one nest: keeps functions at a few hundred statements


def plan(graph: Graph, donated: Mapping[int, int] | None = None) -> Plan:
    """Decide how ``graph`` runs. ``donated``: results that are written into the memory of inputs."""
    return _Planner(graph).plan(donated or {})


def _inline(
    k: Writer,
    shared: Shared,
    graph: Graph,
    ins: Sequence[Layout],
    outs: Sequence[Layout | None],
    carried: dict[int, int],
) -> set[int]:
    """A graph within an equation, written into the nest that ``k`` writes."""
    return _Planner(graph, sizes=shared.sizes, scalars=shared.scalars).inline(k, shared, ins, outs, carried)


@dataclass(slots=True)
class _Planner:
    graph: Graph
    steps: list[Step] = field(default_factory=list)
    layouts: dict[Atom, Layout] = field(default_factory=dict)  # where a value lies, if it lies in memory
    ready: dict[Atom, int] = field(default_factory=dict)  # the step after which it does; -1: before all
    inside: dict[Var, int] = field(default_factory=dict)  # the fused step that has it element by element
    home: dict[int, Atom] = field(default_factory=dict)  # buffer -> the value it was made for
    by_shape: dict[tuple[int, ...], list[int]] = field(default_factory=dict)
    looks_at: dict[Atom, Atom] = field(default_factory=dict)  # what a view is a view of
    last_read: dict[Atom, Var | None] = field(default_factory=dict)  # None: by the caller
    writable: dict[Var, int] = field(default_factory=dict)  # carries of a loop, and the output that follows each
    constants: list[Const] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    scalars: list[Any] = field(default_factory=list)

    def plan(self, donated: Mapping[int, int]) -> Plan:
        self.graph = expanded(self.graph, stands_for_equations)
        for var in self.graph.ins:
            self._in_memory(var, -1)
        self._note_last_reads()
        for eqn in self.graph.eqns:
            self._place(eqn)
        outs = self._outputs()
        targets = {out: self._donate(outs[out], self.graph.ins[i]) for out, i in donated.items()}
        needed, last_use = self._needed(outs)
        needed |= {self.layouts[v].buffer for v in targets.values()}
        fresh = [o for k, o in enumerate(outs) if k not in donated]
        buffers, arena_bytes, slots = self._buffers(
            fresh, needed, last_use, {self.layouts[targets[k]].buffer: self.graph.ins[i] for k, i in donated.items()}
        )
        shared = Shared(self.sizes, self.scalars, buffers, arena_bytes, _inline)
        bases = {b: Layout(slot, buffers[slot].dtype, (), ()) for b, slot in slots.items()}
        nests = []
        for number in range(len(self.steps)):
            shared.open_nest()
            writer = Writer(self.sizes, self.scalars, shared)
            self.write_step(writer, shared, number, needed, bases)
            nests.append(writer.nest())
        arguments = len(self.graph.ins) + len(self.constants) + len(fresh)
        return Plan(
            Program(tuple(nests), tuple(buffers), arguments),
            np.array(self.sizes or [0], np.int64),
            words_of(self.scalars),
            tuple(v.aval for v in self.graph.ins),
            tuple(c.value for c in self.constants),
            tuple(o.aval for o in fresh),
            shared.arena_bytes,
            tuple(shared.failures),
            tuple(self.steps),
            tuple(self.scalars),
            tuple(donated.items()),
            self._homes(slots, len(buffers)),
        )

    def _homes(self, slots: dict[int, int], count: int) -> tuple[Atom | None, ...]:
        """The value that each buffer of the program was made for."""
        found: list[Atom | None] = [None] * count
        for buffer, slot in slots.items():
            found[slot] = found[slot] if found[slot] is not None else self.home[buffer]
        return tuple(found)

    def _donate(self, out: Var, target: Var) -> Var:
        """The value that is written into the memory of the input ``target``: ``out``, or a copy of it made last.

        ``out`` itself can be if nothing reads the input after the nest that computes it, and that nest reads the input
        only at the element that it writes.
        """
        buffer, made = self.layouts[target].buffer, self.ready[out]
        step = self.steps[made]
        fits = step.shape == target.aval.shape and self.inside.get(out) == made
        for number, other in enumerate(self.steps):
            for eqn in other.eqns:
                for atom in eqn.ins:
                    if atom in self.layouts and self.layouts[atom].buffer == buffer:
                        fits = fits and (number < made or (number == made and atom is target))
        if fits and self.home[self.layouts[out].buffer] is out:
            return out
        last = Var(out.aval)
        self.steps.append(Step([Eqn(copy, (out,), {}, (last,))], out.aval.shape))
        self._in_memory(last, len(self.steps) - 1)
        return last

    def inline(
        self, k: Writer, shared: Shared, ins: Sequence[Layout], outs: Sequence[Layout | None], carried: dict[int, int]
    ) -> set[int]:
        """Write the whole graph into the nest that ``k`` writes, from ``ins`` to ``outs`` (None: not asked for).

        ``carried``: inputs that are carries of a loop, and the outputs that follow them. Answers the outputs that were
        written in place, into the memory of their carries.
        """
        self.graph = expanded(self.graph, stands_for_equations)
        bases: dict[int, Layout] = {}
        for var, given in zip(self.graph.ins, ins, strict=True):
            own = self._in_memory(var, -1)
            self.layouts[var] = replace(own, strides=given.strides)
            bases[own.buffer] = given
        self.writable = {self.graph.ins[i]: out for i, out in carried.items()}
        self._note_last_reads()
        for eqn in self.graph.eqns:
            self._place(eqn)
        assert not self.constants, "graphs within equations take arrays as inputs"
        results = self._outputs()
        needed, last_use = self._needed(results)
        in_place = {i for i, var in enumerate(results) if self.layouts[var].buffer in bases}
        for i, (var, target) in enumerate(zip(results, outs, strict=True)):
            if target is not None and i not in in_place:
                bases[self.layouts[var].buffer] = target
        ending: dict[int, list[int]] = {}
        for buffer, step in last_use.items():
            ending.setdefault(step, []).append(buffer)
        born: dict[int, list[int]] = {}
        own = needed - set(bases)
        for buffer in sorted(own):
            born.setdefault(self.ready[self.home[buffer]], []).append(buffer)
        free: dict[Any, list[Layout]] = {}  # memory of values that nothing reads any more, by type
        for number in range(len(self.steps)):
            for buffer in born.get(number, ()):
                aval = self.home[buffer].aval
                spare = free.get((aval.dtype, aval.shape))
                bases[buffer] = spare.pop() if spare else shared.scratch(aval.dtype, aval.shape)
            self.write_step(k, shared, number, needed, bases)
            for buffer in (b for b in ending.get(number, ()) if b in own):
                aval = self.home[buffer].aval
                free.setdefault((aval.dtype, aval.shape), []).append(bases[buffer])
        return in_place

    # --- equations into steps ---

    def _in_memory(self, value: Atom, step: int) -> Layout:
        buffer = len(self.home)
        self.home[buffer] = value
        layout = self.layouts[value] = Layout.contiguous(buffer, value.aval.dtype, value.aval.shape)
        self.ready[value] = step
        return layout

    def _place(self, eqn: Eqn) -> None:
        kernel = eqn.prim.kernel
        if isinstance(kernel, View):
            self._place_view(eqn, kernel)
        elif isinstance(kernel, Pointwise):
            self._join(eqn, eqn.outs[0].aval.shape)
        elif isinstance(kernel, Reduction):
            self._join(eqn, eqn.ins[0].aval.shape)
        else:
            eqn = self._with_operands_in_memory(eqn)
            self.steps.append(Step([eqn]))
            number = len(self.steps) - 1
            if isinstance(kernel, Loops) and kernel.in_place and self._dies_here(eqn.ins[0], eqn):
                self.layouts[eqn.outs[0]] = self.layouts[eqn.ins[0]]
                self.ready[eqn.outs[0]] = number
                return
            for out in eqn.outs:
                self._in_memory(out, number)

    def _dies_here(self, atom: Atom, eqn: Eqn) -> bool:
        """Whether ``eqn`` is the last to read this memory, which is ours to write and holds ``atom`` alone, densely."""
        layout = self.layouts[atom]
        home = self.home[layout.buffer]
        ours = type(home) is Var and (home not in self.graph.ins or home in self.writable)
        whole = layout.is_contiguous and layout.shape == home.aval.shape
        if any(self.layouts[a].buffer == layout.buffer for a in eqn.ins if a is not atom):
            return False  # what is written lies there too: x[1:] = x[:-1]
        return ours and whole and self.last_read.get(self.looks_at.get(atom, atom)) is eqn.outs[0]

    def _note_last_reads(self) -> None:
        """For each value, by its last reader's first result, when it or a view of it is read last."""
        for eqn in self.graph.eqns:
            for atom in eqn.ins:
                self.last_read[self.looks_at.get(atom, atom)] = eqn.outs[0]
            if isinstance(eqn.prim.kernel, View):
                self.looks_at[eqn.outs[0]] = self.looks_at.get(eqn.ins[0], eqn.ins[0])
        for out in self.graph.outs:
            self.last_read[self.looks_at.get(out, out)] = None

    def _place_view(self, eqn: Eqn, kernel: View) -> None:
        (out,) = eqn.outs
        base = self._lying(eqn.ins[0])
        layout = kernel.move(self.layouts[base], base.aval, **eqn.params)
        if layout is None:
            base = self._copied(base)
            layout = kernel.move(self.layouts[base], base.aval, **eqn.params)
        self.layouts[out], self.ready[out] = layout, self.ready[base]

    def _lying(self, atom: Atom) -> Atom:
        """The atom itself if it lies in memory; a constant is put there first."""
        if atom not in self.layouts:
            assert type(atom) is Const, "equations are in topological order"
            if not atom.is_scalar:
                self.constants.append(atom)
                self._in_memory(atom, -1)
            else:
                self.layouts[atom] = self.layouts[self._copied(atom)]
                self.ready[atom] = len(self.steps) - 1
        return atom

    def _copied(self, atom: Atom) -> Var:
        out = Var(atom.aval._replace(weak=False))
        self._join(Eqn(copy, (atom,), {}, (out,)), out.aval.shape)
        return out

    def _with_operands_in_memory(self, eqn: Eqn) -> Eqn:
        """What a product or a primitive with loops of its own reads; BLAS also wants rows or columns dense."""
        ins = [self._lying(atom) for atom in eqn.ins]
        if isinstance(eqn.prim.kernel, Product):
            ins = [a if fits_blas(self.layouts[a]) else self._copied(a) for a in ins]
        return Eqn(eqn.prim, tuple(ins), eqn.params, eqn.outs, eqn.where)

    def _join(self, eqn: Eqn, shape: tuple[int, ...]) -> None:
        earliest, producer = 0, -1
        for atom in eqn.ins:
            if type(atom) is Const and atom.is_scalar:
                continue
            self._lying(atom)
            if type(atom) is Var and atom in self.inside and atom.aval.shape == shape:
                producer = max(producer, self.inside[atom])
            else:
                earliest = max(earliest, self.ready[atom] + 1)
        number = self._open_step(max(earliest, producer), shape)
        self.steps[number].eqns.append(eqn)
        (out,) = eqn.outs
        self._in_memory(out, number)
        if isinstance(eqn.prim.kernel, Pointwise):
            self.inside[out] = number

    def _open_step(self, earliest: int, shape: tuple[int, ...]) -> int:
        """The first fused step over ``shape``, not before ``earliest``, that has room; else a new one."""
        numbers = self.by_shape.setdefault(shape, [])
        for number in reversed(numbers):
            if number < earliest:
                break
            if len(self.steps[number].eqns) < _MOST_EQUATIONS:
                return number
        self.steps.append(Step([], shape))
        numbers.append(len(self.steps) - 1)
        return numbers[-1]

    def _outputs(self) -> list[Var]:
        """One variable an output, each in a buffer of its own: inputs, views and repeats are copied."""
        outs: list[Var] = []
        for i, atom in enumerate(self.graph.outs):
            home = self.home.get(self.layouts[atom].buffer) if atom in self.layouts else None
            own = type(atom) is Var and home is atom
            if home is not atom and home in self.writable and self.writable[home] == i:
                whole = self.layouts[atom].is_contiguous and self.layouts[atom].shape == home.aval.shape
                if whole and atom not in outs and not isinstance(self._maker(atom), View):
                    outs.append(atom)  # type: ignore[arg-type]
                    continue
            if own and atom not in self.graph.ins and atom not in outs:
                outs.append(atom)  # type: ignore[arg-type]
            else:
                outs.append(self._copied(atom))
        return outs

    def _maker(self, atom: Atom) -> Any:
        """The kernel of the equation that made a value."""
        return next((e.prim.kernel for e in self.graph.eqns if atom in e.outs), None)

    # --- values into buffers ---

    def _needed(self, outs: Sequence[Var]) -> tuple[set[int], dict[int, int]]:
        """Buffers that are read from memory or handed out, and the last step that reads each."""
        needed = {self.layouts[o].buffer for o in outs}
        last_use: dict[int, int] = {}
        for number, step in enumerate(self.steps):
            for eqn in step.eqns:
                for atom in eqn.ins:
                    if not self._read_inside(atom, number, step) and atom in self.layouts:
                        if type(atom) is Const and atom.is_scalar and step.shape is not None:
                            continue
                        buffer = self.layouts[atom].buffer
                        needed.add(buffer)
                        last_use[buffer] = number
        return needed, last_use

    def _read_inside(self, atom: Atom, number: int, step: Step) -> bool:
        return type(atom) is Var and self.inside.get(atom) == number and atom.aval.shape == step.shape

    def _buffers(
        self, outs: Sequence[Var], needed: set[int], last_use: dict[int, int], into: Mapping[int, Var]
    ) -> tuple[list[Buffer], int, dict[int, int]]:
        """Arguments for inputs, constants and outputs; for the rest first fit in the arena, by lifetime.

        ``into``: buffers that have the memory of an input.
        """
        arguments = {self.layouts[a].buffer: i for i, a in enumerate([*self.graph.ins, *self.constants, *outs])}
        arena = Arena()
        buffers: list[Buffer] = []
        slots: dict[int, int] = {}
        ending: dict[int, list[int]] = {}
        for buffer, step in last_use.items():
            ending.setdefault(step, []).append(buffer)
        born: dict[int, list[int]] = {}
        for buffer in sorted(needed):
            if buffer not in arguments and buffer not in into:
                born.setdefault(self.ready[self.home[buffer]], []).append(buffer)
        offsets: dict[int, int] = {}
        for number in range(len(self.steps)):
            for buffer in born.get(number, ()):
                aval = self.home[buffer].aval
                offsets[buffer] = arena.take(aval.size * aval.dtype.itemsize)
            for buffer in ending.get(number, ()):
                if buffer in offsets:
                    arena.give_back(offsets[buffer])
        for buffer in sorted(needed | set(arguments)):
            dtype = self.home[buffer].aval.dtype
            if buffer in into:  # inputs come first, so theirs is there already
                slots[buffer] = slots[self.layouts[into[buffer]].buffer]
                continue
            slots[buffer] = len(buffers)
            if buffer in arguments:
                buffers.append(Buffer(dtype, argument=arguments[buffer]))
            else:
                self.sizes.append(offsets[buffer])
                buffers.append(Buffer(dtype, offset=Size(len(self.sizes) - 1)))
        return buffers, arena.high, slots

    # --- steps into nests ---

    def write_step(
        self, writer: Writer, shared: Shared, number: int, needed: set[int], bases: dict[int, Layout]
    ) -> None:
        """Write step ``number``; ``bases`` says where the buffers lie."""

        def place(atom: Atom) -> Layout:
            layout = self.layouts[atom]
            return layout.moved(bases[layout.buffer])

        step = self.steps[number]
        if step.shape is not None:
            stored = {e.outs[0] for e in step.eqns if self.layouts[e.outs[0]].buffer in needed}
            inside = {e.outs[0] for e in step.eqns if self.inside.get(e.outs[0]) == number}
            write_fused(writer, step.shape, step.eqns, inside, stored, place)
            return
        (eqn,) = step.eqns
        operands = [place(a) for a in eqn.ins]
        results = [place(o) if self._kept(o, needed) else None for o in eqn.outs]
        if isinstance(eqn.prim.kernel, Product):
            assert results[0] is not None
            write_product(writer, *operands, results[0])
        else:
            assert isinstance(eqn.prim.kernel, Loops)
            outer, shared.eqn = shared.eqn, eqn
            eqn.prim.kernel.write(writer, operands, results, **eqn.params)
            shared.eqn = outer

    def _kept(self, out: Var, needed: set[int]) -> bool:
        return self.layouts[out].buffer in needed

"""Equations into steps, and values into memory: where each lies, and which step makes it.

The fusion rule, whole: a pointwise equation (or a reduction) joins a loop nest over the same shape if everything it
reads is computed in that nest at the same element or lies in memory before it; else it opens a new nest. So one nest
can store several results and end in several reductions. Views cost nothing: they are read through their strides.
Matrix products and primitives that write their own loops are steps of their own. Equations that ``delayed`` names wait
until the one that reads them is placed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wichi.kernels.axes import Families
from wichi.kernels.delayed import delayed
from wichi.kernels.layout import Layout
from wichi.kernels.plans import Step
from wichi.kernels.product import fits_blas
from wichi.kernels.windows import is_window, read_elementwise
from wichi.ops.shaping import copy
from wichi.trace.ir import Atom, Const, Eqn, Graph, Var
from wichi.trace.primitive import Loops, Pointwise, Product, Reduction, View

_MOST_EQUATIONS = 150  # of one nest: keeps functions at a few hundred statements


@dataclass(slots=True)
class Placing:
    """The steps of a graph.

    ``outermost``: values whose memory has another axis than the first as its outermost; ``innermost``: values whose
    memory has another axis than the last as its innermost.
    """

    graph: Graph
    families: Families | None = None
    outermost: Mapping[Var, int] = field(default_factory=dict)
    innermost: Mapping[Var, int] = field(default_factory=dict)
    writable: dict[Var, int] = field(default_factory=dict)  # carries of a loop, and the output that follows each
    steps: list[Step] = field(default_factory=list)
    layouts: dict[Atom, Layout] = field(default_factory=dict)  # where a value lies, if it lies in memory
    ready: dict[Atom, int] = field(default_factory=dict)  # the step after which it does; -1: before all
    inside: dict[Var, int] = field(default_factory=dict)  # the fused step that has it element by element
    home: dict[int, Atom] = field(default_factory=dict)  # buffer -> the value it was made for
    by_shape: dict[Any, list[int]] = field(default_factory=dict)
    looks_at: dict[Atom, Atom] = field(default_factory=dict)  # what a view is a view of
    last_read: dict[Atom, Var | None] = field(default_factory=dict)  # None: by the caller
    constants: list[Const] = field(default_factory=list)
    barriers: set[int] = field(default_factory=set)  # steps that write where others have read
    elementwise: set[Var] = field(default_factory=set)  # values that only pointwise equations and reductions read
    written: Collection[Var] = ()  # inputs that are written before all is computed
    waiting: dict[Var, Eqn] = field(default_factory=dict)  # equations that are computed where they are read

    def begin(self) -> None:
        """The inputs lie in memory."""
        for var in self.graph.ins:
            self.in_memory(var, -1)

    def place(self) -> list[Var]:
        """All equations; answers one variable an output, each in a buffer of its own."""
        self._note_last_reads()
        self.elementwise = read_elementwise(self.graph)
        late = delayed(self.graph, {*self.written, *self.writable})
        for eqn in self.graph.eqns:
            if eqn.outs[0] in late:
                self.waiting[eqn.outs[0]] = eqn
            else:
                self._place(eqn)
        return self._outputs()

    def in_memory(self, value: Atom, step: int) -> Layout:
        buffer = len(self.home)
        self.home[buffer] = value
        first, last = self.outermost.get(value, 0), self.innermost.get(value)  # type: ignore[call-overload]
        layout = self.layouts[value] = Layout.contiguous(buffer, value.aval.dtype, value.aval.shape, first, last)
        self.ready[value] = step
        return layout

    def reordered(self, order: Sequence[int], steps: Sequence[Step]) -> None:
        """``order``: where each step stands among ``steps``."""
        self.steps = list(steps)
        self.ready = {a: order[s] if s >= 0 else s for a, s in self.ready.items()}
        self.inside = {v: order[s] for v, s in self.inside.items()}

    def _place(self, eqn: Eqn) -> None:
        kernel = eqn.prim.kernel
        if isinstance(kernel, View):
            self._place_view(eqn, kernel)
        elif is_window(eqn) and eqn.outs[0] in self.elementwise:
            (out,), base = eqn.outs, self._lying(eqn.ins[0])
            self.layouts[out] = self.layouts[base].window(eqn.params["start"], out.aval.shape)
            self.ready[out] = self.ready[base]
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
                self.barriers.add(number)
                return
            for out in eqn.outs:
                self.in_memory(out, number)

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
                self.in_memory(atom, -1)
            else:
                copied = self._copied(atom)
                self.layouts[atom], self.ready[atom] = self.layouts[copied], self.ready[copied]
        return atom

    def _copied(self, atom: Atom) -> Var:
        out = Var(atom.aval._replace(weak=False))
        if self.families is not None:
            self.families.alike(atom, out)
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
        eqns = [*(self.waiting.pop(a) for a in dict.fromkeys(eqn.ins) if a in self.waiting), eqn]  # type: ignore[call-overload]
        computed = {e.outs[0] for e in eqns}
        for atom in (a for e in eqns for a in e.ins if a not in computed):
            if type(atom) is Const and atom.is_scalar:
                continue
            self._lying(atom)
            if type(atom) is Var and atom in self.inside and atom.aval.shape == shape:
                producer = max(producer, self.inside[atom])
            else:
                earliest = max(earliest, self.ready[atom] + 1)
        number = self._open_step(max(earliest, producer), shape)
        self.steps[number].eqns += eqns
        for one in eqns:
            self.in_memory(one.outs[0], number)
            if isinstance(one.prim.kernel, Pointwise):
                self.inside[one.outs[0]] = number

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
        """Inputs, views and repeats are copied."""
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

    def donate(self, out: Var, target: Var, bands: Sequence[range]) -> Var:
        """The value that is written into the memory of the input ``target``: ``out``, or a copy of it made last.

        ``out`` itself can be if nothing reads the input after the nest that computes it (in a band: no other nest of
        the band), and that nest reads the input only at the element that it writes.
        """
        buffer, made = self.layouts[target].buffer, self.ready[out]
        step = self.steps[made]
        fits = step.shape == target.aval.shape and self.inside.get(out) == made
        again = next((band for band in bands if made in band), range(0))
        for number, other in enumerate(self.steps):
            for eqn in other.eqns:
                for atom in eqn.ins:
                    if atom in self.layouts and self.layouts[atom].buffer == buffer:
                        earlier = number < made and number not in again
                        fits = fits and (earlier or (number == made and atom is target))
        if fits and self.home[self.layouts[out].buffer] is out:
            return out
        last = Var(out.aval)
        self.steps.append(Step([Eqn(copy, (out,), {}, (last,))], out.aval.shape))
        self.in_memory(last, len(self.steps) - 1)
        return last

    def needed(self, outs: Sequence[Var]) -> tuple[set[int], dict[int, int]]:
        """Buffers that are read from memory or handed out, and the last step that reads each."""
        needed = {self.layouts[o].buffer for o in outs}
        last_use: dict[int, int] = {}
        for number, step in enumerate(self.steps):
            for eqn in step.eqns:
                for atom in eqn.ins:
                    if not self.read_inside(atom, number, step) and atom in self.layouts:
                        if type(atom) is Const and atom.is_scalar and step.shape is not None:
                            continue
                        buffer = self.layouts[atom].buffer
                        needed.add(buffer)
                        last_use[buffer] = number
        return needed, last_use

    def read_inside(self, atom: Atom, number: int, step: Step) -> bool:
        return type(atom) is Var and self.inside.get(atom) == number and atom.aval.shape == step.shape

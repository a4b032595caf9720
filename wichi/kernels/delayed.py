"""Pointwise equations that are computed where they are read, though they could be earlier: nothing of them is stored.

A value with one reader, computed from at most one array that lies in memory in any case (an input, the result of a
product), costs a load where it is read. Computed as early as it can be, it costs a load, a store and another load, and
memory in between.
"""

from __future__ import annotations

from collections.abc import Collection

from wichi.kernels.windows import read_elementwise
from wichi.ops.shaping import broadcast
from wichi.trace.ir import Atom, Const, Eqn, Graph, Var
from wichi.trace.primitive import Indexed, Loops, Pointwise, Reduction, View


def delayed(graph: Graph, written: Collection[Var]) -> set[Var]:
    """The results of such equations. ``written``: inputs whose memory is written before the graph ends."""
    readers: dict[Atom, list[Eqn]] = {}
    for eqn in graph.eqns:
        for atom in dict.fromkeys(eqn.ins):
            readers.setdefault(atom, []).append(eqn)
    elementwise = read_elementwise(graph)
    changing = _changing(graph, written)
    lying: set[Atom] = {v for v in graph.ins if v not in changing}
    spread: set[Atom] = set()
    found: set[Var] = set()
    for eqn in graph.eqns:
        out = eqn.outs[0]
        if _is_plain(eqn) and out in elementwise and _is_cheap(eqn, lying, spread):
            (reader, *others) = readers.get(out, [eqn])
            if not others and _reads_whole(reader, out):
                found.add(out)
                continue
        if eqn.prim is broadcast:
            spread.add(out)
        if not any(o in changing for o in eqn.outs) and (not _is_plain(eqn) or out not in elementwise):
            lying.update(eqn.outs)
    return found


def _is_plain(eqn: Eqn) -> bool:
    return isinstance(eqn.prim.kernel, Pointwise) and not isinstance(eqn.prim.kernel, Indexed)


def _is_cheap(eqn: Eqn, lying: set[Atom], spread: set[Atom]) -> bool:
    """Whether reading the operands later costs no more than reading the result."""
    if any(type(a) is Var and a not in lying for a in eqn.ins):
        return False
    whole = [a for a in dict.fromkeys(eqn.ins) if not (type(a) is Const and a.is_scalar) and a not in spread]
    return len(whole) <= 1 and all(a.aval.dtype.itemsize <= eqn.outs[0].aval.dtype.itemsize for a in whole)


def _reads_whole(reader: Eqn, out: Var) -> bool:
    kernel = reader.prim.kernel
    return isinstance(kernel, Pointwise | Reduction) and (
        isinstance(kernel, Reduction) or reader.outs[0].aval.shape == out.aval.shape
    )


def _changing(graph: Graph, written: Collection[Var]) -> set[Atom]:
    """Values whose memory something writes once nobody is to read them any more."""
    looks_at: dict[Atom, Atom] = {}
    roots: set[Atom] = {*written}
    for eqn in graph.eqns:
        if isinstance(eqn.prim.kernel, View):
            looks_at[eqn.outs[0]] = looks_at.get(eqn.ins[0], eqn.ins[0])
        if isinstance(eqn.prim.kernel, Loops) and eqn.prim.kernel.in_place:
            roots.add(looks_at.get(eqn.ins[0], eqn.ins[0]))
    return roots | {v for v, root in looks_at.items() if root in roots}

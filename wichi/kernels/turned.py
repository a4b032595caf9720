"""Bands whose blocks lie with the rows innermost, so that vectors go along rows.

Arrays of many small matrices or of short vectors, (points, components, 10), have innermost axes that fill vectors
badly, and what is broadcast along them is loaded again and again. Where the widest values of a graph are of that kind,
what lives within one block of rows lies with its rows innermost: vectors are full, sums over short axes are sums of
vectors, and small products have the block's rows as their columns. An input that is broadcast over other axes is
turned once a block, and a sum that is a result is turned back. Inputs and results keep their order.

The rule does not look at the number of rows, so that every batch size runs the same program.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from wichi.kernels.axes import Axis, Families, product_role
from wichi.ops.shaping import broadcast, copy, reshape, transpose
from wichi.trace.ir import Atom, Eqn, Graph, Var
from wichi.trace.primitive import Pointwise, Product, Reduction

_NARROW = 32  # extents of innermost axes up to which they fill vectors badly
_MOST_PER_ROW = 2048  # elements: blocks of enough rows must stay in the cache


def turned(graph: Graph, families: Families) -> tuple[Graph, dict[Var, int]] | None:
    """The graph with its inputs turned, and the axis of rows of each value that may lie with its rows innermost.

    None where rows had better be outermost.
    """
    family = next(iter(families.ranked), None)
    computed = {e.outs[0]: e for e in graph.eqns if isinstance(e.prim.kernel, Pointwise)}
    wide = {v: e for v, e in computed.items() if family is not None and _is_wide(families, family, v)}
    if family is None or not wide or not all(_fits(families, family, v) for v in wide):
        return None
    if any(isinstance(e.prim.kernel, Product) and not _takes_rows(families, family, e) for e in graph.eqns):
        return None
    sources = _spread_inputs(graph, families, family, {a for e in wide.values() for a in e.ins})
    copies = [Eqn(copy, (source,), {}, (out,)) for source, out in sources.items()]
    views = (reshape, transpose, broadcast)
    eqns = [
        Eqn(e.prim, (sources.get(e.ins[0], e.ins[0]),), e.params, e.outs, e.where) if e.prim in views else e
        for e in graph.eqns
    ]
    found = Graph(graph.ins, (*copies, *_with_turned_sums(graph, families, family, eqns)), graph.outs, graph.in_names)
    rows = {o: _rows(families, family, o) for e in found.eqns for o in e.outs if o not in graph.outs}
    return found, {o: axis for o, axis in rows.items() if axis is not None}


def _with_turned_sums(graph: Graph, families: Families, family: Axis, eqns: Sequence[Eqn]) -> list[Eqn]:
    """With results that are sums over other axes copied from where their terms are added up."""
    found: list[Eqn] = []
    for eqn in eqns:
        (out, *_) = eqn.outs
        if isinstance(eqn.prim.kernel, Reduction) and out in graph.outs and _is_matrix(families, family, out):
            total = Var(out.aval)
            families.alike(out, total)
            found += [Eqn(eqn.prim, eqn.ins, eqn.params, (total,), eqn.where), Eqn(copy, (total,), {}, (out,))]
        else:
            found.append(eqn)
    return found


def _is_matrix(families: Families, family: Axis, value: Atom) -> bool:
    """Whether a value has rows and another axis."""
    return sum(n != 1 for n in value.aval.shape) > 1 and _rows(families, family, value) is not None


def _rows(families: Families, family: Axis, value: Atom) -> int | None:
    """The axis of rows, where it has one element a row."""
    axis = families.axis(value, family)
    single = axis is not None and axis >= 0 and families.multiple(value, axis, family) == 1
    return axis if single else None


def _is_wide(families: Families, family: Axis, value: Atom) -> bool:
    return sum(n != 1 for n in value.aval.shape) >= 3 and families.axis(value, family) is not None


def _fits(families: Families, family: Axis, value: Atom) -> bool:
    axis = _rows(families, family, value)
    others = [n for i, n in enumerate(value.aval.shape) if i != axis and n != 1]
    return axis is not None and others[-1] < _NARROW and math.prod(others) <= _MOST_PER_ROW


def _takes_rows(families: Families, family: Axis, product: Eqn) -> bool:
    """Whether the matrices of a product that has rows are dense along them: one product a row is made of others."""
    role = product_role(families, family, product.ins, product.outs[0])
    return role in ("m", "n", "k") or all(families.axis(a, family) is None for a in (*product.ins, *product.outs))


def _spread_inputs(graph: Graph, families: Families, family: Axis, read: Collection[Atom]) -> dict[Atom, Var]:
    """The inputs with rows that are broadcast into values ``read``, and a variable for a copy of each."""
    makers = {o: e for e in graph.eqns for o in e.outs}
    found: dict[Atom, Var] = {}
    for value in read:
        spread = False
        while (maker := makers.get(value)) is not None and maker.prim in (reshape, transpose, broadcast):  # type: ignore[call-overload]
            spread = spread or maker.prim is broadcast
            value = maker.ins[0]
        if spread and value in graph.ins and value not in found and _is_matrix(families, family, value):
            found[value] = Var(value.aval)
            families.alike(value, found[value])
    return found

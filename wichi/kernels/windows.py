"""Neighbours: arrays that are zero but for a window are computed where they are read.

The gradient of ``f(x[1:], x[:-1])`` is the sum of two arrays, each a result of the length of the slices with zeros
around it (``embed``). Written out they would take more passes over memory than all the rest. So an ``embed`` that only
pointwise equations read is read through its bounds (``Layout.guards``); and where what it embeds is cheap, that is
computed again at each element of the larger array, from windows on the arrays it depends on: one loop, one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wichi.ops.pointwise import where
from wichi.ops.reducing import sum_
from wichi.ops.shaping import embed, inside
from wichi.trace.ir import Atom, Aval, Const, Eqn, Graph, Var, dce
from wichi.trace.primitive import Pointwise, Reduction

_MOST_COST = 60  # of what is computed again for one window; in simple operations
_COSTS = {"div": 4, "sqrt": 4, "mod": 8, "floordiv": 8}
_SIMPLE = frozenset(
    "add sub mul neg square abs sign maximum minimum where relu cast copy stop_gradient eq ne lt le gt ge and or xor not"
    " floor ceil trunc rint".split()
)


def is_window(eqn: Eqn) -> bool:
    """Whether an equation sets an array between zeros, densely."""
    return eqn.prim is embed and all(s == 1 for s in eqn.params["step"]) and eqn.ins[0].aval.size > 0


def read_elementwise(graph: Graph) -> set[Var]:
    """The values that nothing but pointwise equations and reductions reads."""
    others: set[Any] = {*graph.outs}
    for eqn in graph.eqns:
        if not isinstance(eqn.prim.kernel, Pointwise | Reduction):
            others.update(eqn.ins)
    return {o for eqn in graph.eqns for o in eqn.outs if o not in others}


def windowed(graph: Graph) -> Graph:
    """The graph with cheap windows computed where they are read."""
    candidates = {e.outs[0]: e for e in graph.eqns if is_window(e)}
    if not candidates:
        return graph
    makers = {o: e for e in graph.eqns for o in e.outs}
    order = {e.outs[0]: i for i, e in enumerate(graph.eqns)}
    elementwise = read_elementwise(graph)
    eqns: list[Eqn] = []
    done: dict[Any, Atom] = {}
    moved: dict[tuple[int, ...], tuple[Any, set[Var]]] = {}  # by the smaller shape: the window, and what was moved
    for eqn in graph.eqns:
        out = eqn.outs[0]
        if out in candidates and out in elementwise:
            inner = _computed(eqn.ins[0], makers, order)
            fills = 2 * eqn.ins[0].aval.size >= out.aval.size  # else most of what is computed would be thrown away
            if inner and fills and _cost(inner, makers) <= _MOST_COST:
                where_ = (eqn.params["start"], eqn.params["shape"])
                _move(eqn.ins[0], inner, where_, makers, eqns, done, out)
                window, seen = moved.setdefault(eqn.ins[0].aval.shape, (where_, set()))
                if sum(where_[0]) < sum(window[0]):
                    moved[eqn.ins[0].aval.shape] = (where_, seen)
                seen.update(inner)
                continue
        eqns.append(eqn)
    if not moved:
        return graph
    return dce(Graph(graph.ins, tuple(_sums(eqns, moved, makers, order)), graph.outs, graph.in_names))


def _computed(value: Atom, makers: Mapping[Var, Eqn], order: Mapping[Var, int]) -> list[Var]:
    """The pointwise results that ``value`` is computed from at the same element, itself the last; in order."""
    found: set[Var] = set()
    waiting = [value]
    while waiting:
        atom = waiting.pop()
        eqn = makers.get(atom) if type(atom) is Var else None
        if eqn is not None and isinstance(eqn.prim.kernel, Pointwise) and atom not in found:
            found.add(eqn.outs[0])
            waiting += [a for a in eqn.ins if a.aval.shape == value.aval.shape]
    return sorted(found, key=order.__getitem__)


def _cost(values: Sequence[Var], makers: Mapping[Var, Eqn]) -> int:
    names = [makers[v].prim.name for v in values]
    return sum(1 if n in _SIMPLE else _COSTS.get(n, 15) for n in names)


def _move(
    value: Atom,
    inner: Sequence[Var],
    window: tuple[tuple[int, ...], tuple[int, ...]],
    makers: Mapping[Var, Eqn],
    eqns: list[Eqn],
    done: dict[Any, Atom],
    result: Var,
) -> None:
    """Compute ``value`` at each element of ``window``, zero outside it, as ``result``."""
    start, shape = window

    def at(atom: Atom) -> Atom:
        if type(atom) is Const and atom.is_scalar:
            return atom
        if (atom, start, shape) not in done:  # read through its bounds
            params = {"start": start, "step": (1,) * len(shape), "shape": shape}
            done[atom, start, shape] = _append(eqns, embed, (atom,), params, atom.aval.dtype, shape)
        return done[atom, start, shape]

    for out in inner:
        eqn = makers[out]
        if (out, start, shape) not in done:
            ins = tuple(map(at, eqn.ins))
            new = Var(Aval(shape, out.aval.dtype))
            eqns.append(Eqn(eqn.prim, ins, eqn.params, (new,), eqn.where))
            done[out, start, shape] = new
    size = value.aval.shape
    # One for each use: it is computed where it is read, never stored.
    within = _append(eqns, inside, (), {"start": start, "size": size, "shape": shape}, np.dtype(bool), shape)
    zero = value.aval.dtype.type(0)
    ins = (within, done[value, start, shape], Const(zero, Aval((), zero.dtype)))
    eqns.append(Eqn(where, ins, {}, (result,), makers[inner[-1]].where))


def _append(
    eqns: list[Eqn], prim: Any, ins: tuple[Atom, ...], params: dict[str, Any], dtype: Any, shape: tuple[int, ...]
) -> Var:
    out = Var(Aval(shape, dtype))
    eqns.append(Eqn(prim, ins, params, (out,)))
    return out


def _sums(
    eqns: Sequence[Eqn],
    moved: Mapping[tuple[int, ...], tuple[Any, set[Var]]],
    makers: Mapping[Var, Eqn],
    order: Mapping[Var, int],
) -> list[Eqn]:
    """With sums of what was moved taken over the larger array: one pass, and adding zero changes nothing.

    What is computed for them and for the windows alike is computed once: the nest's writer numbers values.
    """
    found: list[Eqn] = []
    done: dict[Any, Atom] = {}
    for eqn in eqns:
        (value, *_) = eqn.ins or (None,)
        if eqn.prim is sum_ and type(value) is Var and value.aval.shape in moved:
            (start, shape), seen = moved[value.aval.shape]
            inner = _computed(value, makers, order)
            differ = [i for i, (n, m) in enumerate(zip(value.aval.shape, shape, strict=True)) if n != m]
            if seen & {*inner} and all(i in eqn.params["axes"] for i in differ):
                spread = Var(Aval(shape, value.aval.dtype))
                _move(value, inner, (start, shape), makers, found, done, spread)
                found.append(Eqn(sum_, (spread,), eqn.params, eqn.outs, eqn.where))
                continue
        found.append(eqn)
    return found

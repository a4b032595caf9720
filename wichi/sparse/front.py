"""The front of a function: what only moves elements of its arguments about.

Where f(x) = g(S x) and S only selects (indexing, slicing, reshaping, broadcasting), the Jacobian of f is that of g with
its columns added up as S says. That of g is often much sparser: residuals of many observations, each of a few gathered
parameters, share no element of S x, so a handful of products by rows gives all of it. A. Griewank, Ph. L. Toint, "On
the unconstrained optimization of partially separable functions", 1982, is the idea's origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from wichi.sparse.pattern import computed
from wichi.sparse.rules import MOVES
from wichi.sparse.sets import Ints
from wichi.sparse.values import Known, Value, Watched, constant_in, looked_at
from wichi.trace.ir import Eqn, Graph, Var, dce


class Cut(NamedTuple):
    """A graph in two: ``rest`` takes what ``front`` answers, first the values that it has only moved."""

    front: Graph
    rest: Graph
    sources: list[Ints]  # of each moved value, the numbers of its elements among those of the arguments; -1: of none
    others: list[Value]  # what is known of the other inputs of ``rest``


def cut(graph: Graph, wrt: Sequence[int], arrays: Sequence[np.ndarray[Any, Any]], watched: Watched) -> Cut:
    """Cut a graph behind what only moves elements of the inputs named by ``wrt``; its last inputs are ``arrays``."""
    arguments = [graph.ins[i] for i in wrt]
    sizes = [v.aval.size for v in arguments]
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    moved: dict[Any, Ints] = {v: part.reshape(v.aval.shape) for v, part in zip(arguments, parts, strict=True)}
    known = {v: Known(a, (a,)) for v, a in zip(graph.ins[len(graph.ins) - len(arrays) :], arrays, strict=True)}
    late: set[Any] = set()  # what depends on the arguments and is more than moved
    front: list[Eqn] = []
    rest: list[Eqn] = []
    for eqn in graph.eqns:
        if not any(a in moved or a in late for a in eqn.ins):
            front.append(eqn)
            constants = [constant_in(known, a) for a in eqn.ins]
            if not eqn.prim.multiple and all(c is not None for c in constants):
                found = computed(eqn, constants)  # type: ignore[arg-type]
                if found is not None:
                    known[eqn.outs[0]] = found
            continue
        sources = None if any(a in late for a in eqn.ins) else _moved(eqn, moved, known, watched)
        if sources is None:
            rest.append(eqn)
            late.update(eqn.outs)
        else:
            front.append(eqn)
            moved[eqn.outs[0]] = sources
    wanted = dict.fromkeys(
        a for a in (*(a for e in rest for a in e.ins), *graph.outs) if type(a) is Var and a not in late
    )
    chosen = tuple(v for v in wanted if v in moved)
    others = tuple(v for v in wanted if v not in moved)
    return Cut(
        dce(Graph(graph.ins, tuple(front), (*chosen, *others))),
        Graph((*chosen, *others), tuple(rest), graph.outs),
        [moved[v] for v in chosen],
        [Value(None, known.get(v)) for v in others],
    )


def _moved(eqn: Eqn, moved: dict[Any, Ints], known: dict[Any, Known], watched: Watched) -> Ints | None:
    """The sources of what an equation only moves; None if it does more."""
    if eqn.prim.name == "gather":
        x, *indices = eqn.ins
        constants = [constant_in(known, i) for i in indices]
        if x not in moved or any(c is None for c in constants):
            return None
        try:
            return np.asarray(moved[x][tuple(looked_at(c, watched) for c in constants)])
        except IndexError:
            return None  # the program will say it
    if eqn.prim.name not in MOVES:
        return None
    # One more than the numbers, so that zeros that come in are what has no source.
    ids = [moved[a] + 1 if a in moved else np.zeros(a.aval.shape, np.int64) for a in eqn.ins]
    return np.asarray(eqn.prim.impl(*ids, **eqn.params)) - 1

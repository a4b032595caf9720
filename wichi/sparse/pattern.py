"""Which outputs of a graph depend on which elements of its inputs: one walk over the equations, with sets of elements.

What is asked is where a value may come from, not a derivative: a walk of the graph of a Jacobian-vector product, with
sets at the tangents alone, tells what each row of the Jacobian can hold. That is exact bookkeeping of the program that
will run, whatever rules its derivatives came from.

Integers that are constant while tracing (index arrays that a function closes over) are computed along, so gathers and
scatters by them are exact; by other integers they are taken to go anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wichi.sparse.holders import HOLDERS
from wichi.sparse.rules import rule_of
from wichi.sparse.sets import Ints, Sets
from wichi.sparse.values import Known, Value, Watched, constant_in, looked_at
from wichi.trace.ir import Atom, Eqn, Graph, Var, Where, reads


class Walker:
    """The walk, its sets, and the arrays whose contents it has looked at."""

    def __init__(self, sets: Sets, watched: Watched) -> None:
        self.sets, self.watched = sets, watched
        self.anywhere: Where | None = None  # the first line that reads or writes where only the running program knows

    def look(self, value: Value) -> Any:
        """The constant, for a pattern that depends on its contents; None: it is not constant."""
        return looked_at(value.known, self.watched)

    def goes_anywhere(self, eqn: Eqn) -> None:
        """Note an equation whose indices are not constant."""
        self.anywhere = self.anywhere or eqn.where

    def walk(self, graph: Graph, ins: Sequence[Value]) -> list[Value]:
        """The outputs of a graph. Patterns held elsewhere than in frames are void afterwards."""
        env: dict[Any, Ints] = {v: x.ids for v, x in zip(graph.ins, ins, strict=True) if x.ids is not None}
        known: dict[Any, Known] = {v: x.known for v, x in zip(graph.ins, ins, strict=True) if x.known is not None}

        def value(atom: Atom) -> Value:
            return Value(env.get(atom), constant_in(known, atom))

        with self.sets.keeping(env):
            for eqn, dead in zip(graph.eqns, _last_reads(graph), strict=True):
                values = [value(a) for a in eqn.ins]
                if any(v.ids is not None for v in values):
                    rule = HOLDERS.get(eqn.prim.name) or rule_of(eqn.prim)
                    outs = zip(eqn.outs, rule(self, eqn, values), strict=True)
                    env.update((out, ids) for out, ids in outs if ids is not None and ids.any())
                elif not eqn.prim.multiple and all(v.known is not None for v in values):
                    found = computed(eqn, [v.known for v in values])  # type: ignore[misc]
                    if found is not None:
                        known[eqn.outs[0]] = found
                for var in dead:
                    env.pop(var, None)
                    known.pop(var, None)
                self.sets.forget()
            return [value(o) for o in graph.outs]


def computed(eqn: Eqn, operands: Sequence[Known]) -> Known | None:
    """A constant made of constants; None where NumPy refuses, which the program will then do itself."""
    try:
        with np.errstate(all="ignore"):
            found = eqn.prim.impl(*[k.value for k in operands], **eqn.params)
    except Exception:
        return None
    sources = {id(array): array for k in operands for array in k.sources}
    return Known(found, tuple(sources.values()))


def _last_reads(graph: Graph) -> Iterator[list[Var]]:
    """For each equation the variables that nothing reads after it."""
    seen: set[Any] = set(graph.outs)
    found = []
    for eqn in reversed(graph.eqns):
        dead = [v for v in dict.fromkeys((*reads(eqn), *eqn.outs)) if v not in seen]
        seen.update(dead)
        found.append(dead)
    return reversed(found)

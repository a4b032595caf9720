"""What loops, branches and calls share: graphs as bodies, and their memory while they are written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from wichi.ops.shaping import transpose
from wichi.trace.batch import vmap_values
from wichi.trace.forward import zeros_like
from wichi.trace.ir import Aval, Const, Eqn, Graph, Var
from wichi.trace.primitive import View, lead, shape_of
from wichi.trace.reverse import active_from, split, vjp_values
from wichi.trace.tracer import stage_graph

Values = Sequence[Any]
Parts = tuple[list[Any], ...]


def closed(graph: Graph) -> tuple[Graph, tuple[np.ndarray[Any, Any], ...]]:
    """The graph with the arrays that its equations hold as further inputs, and these arrays."""
    held: dict[Const, Var] = {}

    def atom(a: Any) -> Any:
        if type(a) is not Const or a.is_scalar:
            return a
        return held.setdefault(a, Var(a.aval))

    eqns = tuple(Eqn(e.prim, tuple(map(atom, e.ins)), e.params, e.outs, e.where) for e in graph.eqns)
    outs = tuple(map(atom, graph.outs))
    if not held:
        return graph, ()
    return Graph((*graph.ins, *held.values()), eqns, outs, graph.in_names), tuple(c.value for c in held)


def closed_in_front(graph: Graph) -> tuple[Graph, tuple[np.ndarray[Any, Any], ...]]:
    """As ``closed``, with the further inputs before the others."""
    whole, arrays = closed(graph)
    count = len(graph.ins)
    return Graph((*whole.ins[count:], *whole.ins[:count]), whole.eqns, whole.outs), arrays


def parts_of(values: Values, *counts: int) -> Parts:
    """Consecutive parts of these lengths, and what is left."""
    found, start = [], 0
    for n in counts:
        found.append(list(values[start : start + n]))
        start += n
    return (*found, list(values[start:]))


def avals_of(graph: Graph) -> list[Aval]:
    return [v.aval._replace(weak=False) for v in graph.ins]


def or_zeros(value: Any, like: Any) -> Any:
    return zeros_like(like) if value is None else value


# Results of these are computed again on the way back rather than kept: a load costs as much.
_CHEAP = frozenset(
    {"add", "sub", "mul", "neg", "abs", "sign", "square", "maximum", "minimum", "where", "relu", "cast", "copy"}
    | {"eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "stop_gradient", "floor", "ceil", "trunc"}
)


def worth_keeping(eqn: Eqn) -> bool:
    return not (
        isinstance(eqn.prim.kernel, View) or eqn.prim.name in _CHEAP or eqn.prim.name in ("embed", "concatenate")
    )


def carried_on(body: Graph, consts: int, carries: int, moving: Sequence[int]) -> tuple[set[int], set[Any]]:
    """The inputs of ``body`` through which derivatives flow once its rounds have carried them on, and all values."""
    found = set(moving)
    while True:
        active: set[Any] = active_from(body.eqns, [body.ins[i] for i in found])
        new = {consts + i for i in range(carries) if body.outs[i] in active} - found
        if not new:
            return found, active
        found |= new


def batched_body(body: Graph, flags: Sequence[bool], size: int) -> Graph:
    def walk(*values: Any) -> list[Any]:
        return [v if b else lead(v, size) for v, b in vmap_values(body, values, flags, size)]

    avals = [a._replace(shape=(size, *a.shape)) if b else a for a, b in zip(avals_of(body), flags, strict=True)]
    return stage_graph(walk, avals)


def swapped(x: Any) -> Any:
    """Its first two axes swapped."""
    return transpose(x, perm=(1, 0, *range(2, len(shape_of(x)))))


def by_kind(moving: Sequence[int], consts: int, carries: int) -> tuple[list[int], list[int], list[int]]:
    """Those of consts, carries and xs."""
    return (
        [i for i in moving if i < consts],
        [i for i in moving if consts <= i < consts + carries],
        [i for i in moving if i >= consts + carries],
    )


def widths(*groups: Sequence[Any]) -> list[int]:
    return [len(g) for g in groups]


def round_trip(
    body: Graph, moving: Sequence[int], live: Sequence[int], saveable: Callable[[Eqn], bool] | None = worth_keeping
) -> tuple[Graph, Graph]:
    """``body``, and its way back from the cotangents of the results ``live`` to those of the inputs ``moving``."""
    count = len(body.ins)

    def walk(*values: Any) -> list[Any]:
        cts: list[Any] = [None] * len(body.outs)
        for i, ct in zip(live, values[count:], strict=True):
            cts[i] = ct
        outs, bars = vjp_values(body, values[:count], moving, lambda _: cts)
        return outs + [or_zeros(b, values[i]) for i, b in zip(moving, bars, strict=True)]

    full = stage_graph(walk, [*avals_of(body), *(body.outs[i].aval._replace(weak=False) for i in live)])
    return split(full, count, len(body.outs), saveable)


def carried_memory(k: Any, init: Values, results: Values) -> tuple[list[Any], list[Any]]:
    """The memory of a loop's carries, filled with ``init`` (the results' own where there are any), and of the next."""
    state = [k.context.scratch(x.dtype, x.shape) if r is None else r for x, r in zip(init, results, strict=True)]
    move(k, init, state)
    return state, [k.context.scratch(x.dtype, x.shape) for x in init]


def move(k: Any, sources: Values, targets: Values, but: Collection[int] = ()) -> None:
    """Copy memory to memory; ``but``: those of these numbers."""
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        if i not in but:
            k.copy(source, target)


def values_of(variables: Any) -> Any:
    return variables.values


def assign(state: Values, values: Values) -> None:
    for variables, new in zip(state, values, strict=False):
        variables.set(new)


def together(graphs: Sequence[Graph]) -> tuple[tuple[Graph, ...], list[Any]]:
    """Graphs of the same inputs, closed: each takes the arrays of all."""
    pairs = [closed(g) for g in graphs]
    arrays = [a for _, held in pairs for a in held]
    found, offset = [], 0
    for graph, (whole, held) in zip(graphs, pairs, strict=True):
        count = len(graph.ins)
        extra: list[Var] = [Var(Aval(a.shape, a.dtype)) for a in arrays]
        extra[offset : offset + len(held)] = whole.ins[count:]
        found.append(Graph((*whole.ins[:count], *extra), whole.eqns, whole.outs))
        offset += len(held)
    return tuple(found), arrays

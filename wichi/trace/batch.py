"""Batching: every value either has a leading batch axis or is the same for the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wichi.trace.evaluate import applied, innermost, read
from wichi.trace.ir import Graph, Var
from wichi.trace.primitive import lead
from wichi.trace.tracer import at_line, constant, stage_graph


def vmap_values(graph: Graph, args: Sequence[Any], batched: Sequence[bool], size: int) -> list[tuple[Any, bool]]:
    """Outputs on any values, each with whether it has the batch axis."""
    env: dict[Var, Any] = dict(zip(graph.ins, args, strict=True))
    has_axis: dict[Any, bool] = dict(zip(graph.ins, batched, strict=True))
    box = innermost(args)
    for eqn in graph.eqns:
        ins = [read(env, a) for a in eqn.ins]
        mapped = [has_axis.get(a, False) for a in eqn.ins]
        at_line(box, eqn.where, backward=bool(eqn.where and eqn.where.backward))
        if any(mapped):
            # In the graph an array is turned and repeated for nothing; here that would be another captured array.
            ins = [constant(x, box) if isinstance(x, np.ndarray) else x for x in ins]
            result = eqn.prim.batch(eqn.prim, ins, mapped, size, **eqn.params)
        else:
            result = applied(eqn, ins, box)
        env.update(zip(eqn.outs, result if eqn.prim.multiple else (result,), strict=True))
        has_axis.update((o, any(mapped)) for o in eqn.outs)
    at_line(box, None, backward=False)
    return [(read(env, o), has_axis.get(o, False)) for o in graph.outs]


def vmap(graph: Graph, batched: Sequence[bool], size: int) -> Graph:
    """The graph with a leading axis of ``size`` on the inputs named by ``batched`` and on every output."""

    def walk(*values: Any) -> list[Any]:
        return [v if b else lead(v, size) for v, b in vmap_values(graph, values, batched, size)]

    return stage_graph(
        walk,
        [
            v.aval._replace(shape=(size, *v.aval.shape)) if b else v.aval
            for v, b in zip(graph.ins, batched, strict=True)
        ],
    )

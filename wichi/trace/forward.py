"""Forward mode: push tangents through the equations. One loop; each primitive's one derivative is read here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wichi.trace.boxed import Boxed
from wichi.trace.evaluate import applied, innermost, read
from wichi.trace.ir import Graph, Var
from wichi.trace.primitive import ONE, ZERO, Primitive, aval_of, partial
from wichi.trace.tracer import at_line, constant, stage_graph


def is_float(x: Any) -> bool:
    """Whether a value carries derivatives: integers and bools do not."""
    return aval_of(x).dtype.kind == "f"


def zeros_like(x: Any) -> Any:
    """Zeros of the shape and dtype of ``x``, as a broadcast constant when traced."""
    aval = aval_of(x)
    zero = constant(aval.dtype.type(0), x)
    if not aval.shape:
        return zero
    if not isinstance(zero, Boxed):
        return np.zeros(aval.shape, aval.dtype)  # dense: it may become an array that native code reads
    return Primitive.table["broadcast"](zero, shape=aval.shape, axes=tuple(range(aval.ndim)))


def add(x: Any, y: Any) -> Any:
    """The sum of two tangents or cotangents, where None is a symbolic zero."""
    if x is None or y is None:
        return y if x is None else x
    return Primitive.table["add"](x, y)


def scale(by: Any, t: Any) -> Any:
    """``partial * t`` where the partial may be ONE (pass on) or ZERO (nothing)."""
    if by is ZERO or t is None:
        return None
    if by is ONE:
        return t
    return Primitive.table["mul"](t.dtype.type(by) if isinstance(by, int | float) else by, t)


def push(prim: Primitive, out: Any, ins: Sequence[Any], tangents: Sequence[Any], params: Any) -> Any:
    """The tangent of ``out = prim(*ins, **params)``; None where it is zero."""
    if not prim.differentiable or all(t is None for t in tangents) or not is_float(out):
        return None
    if prim.partials is not None:
        total = None
        for i, t in enumerate(tangents):
            if t is not None:
                total = add(total, scale(partial(prim, i, out, ins, params), t))
        return total
    if prim.jvp is not None:
        return prim.jvp(
            out, ins, [zeros_like(x) if t is None else t for x, t in zip(ins, tangents, strict=True)], **params
        )
    if prim.multilinear:
        total = None
        for i, t in enumerate(tangents):
            if t is not None:
                total = add(total, prim(*ins[:i], t, *ins[i + 1 :], **params))
        return total
    # Linear in all float inputs together; conditions and indices stand as they are.
    mixed = [(zeros_like(x) if t is None else t) if is_float(x) else x for x, t in zip(ins, tangents, strict=True)]
    return prim(*mixed, **params)


def jvp_values(graph: Graph, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Outputs and their tangents (None: zero) on any values."""
    env: dict[Var, Any] = dict(zip(graph.ins, primals, strict=True))
    dots: dict[Var, Any] = {v: t for v, t in zip(graph.ins, tangents, strict=True) if t is not None}
    box = innermost([*primals, *(t for t in tangents if t is not None)])
    for eqn in graph.eqns:
        ins = [read(env, a) for a in eqn.ins]
        ts = [dots.get(a) if type(a) is Var and 0 not in a.aval.shape else None for a in eqn.ins]
        at_line(box, eqn.where, backward=False)
        if eqn.prim.whole is not None and any(t is not None for t in ts):
            results, pushed = eqn.prim.whole.jvp(ins, ts, **eqn.params)
            env.update(zip(eqn.outs, results, strict=True))
            dots.update((o, t) for o, t in zip(eqn.outs, pushed, strict=True) if t is not None)
            continue
        result = applied(eqn, ins, box)
        env.update(zip(eqn.outs, result if eqn.prim.multiple else (result,), strict=True))
        if eqn.prim.multiple:
            continue  # no tangent comes in
        t = push(eqn.prim, result, ins, ts, eqn.params)
        if t is not None:
            dots[eqn.outs[0]] = t
    at_line(box, None, backward=False)
    return [read(env, o) for o in graph.outs], [dots.get(o) if type(o) is Var else None for o in graph.outs]


def jvp(graph: Graph, wrt: Sequence[int] | None = None) -> Graph:
    """``ins + tangents of the ins named by wrt -> outs + tangents of the float outs``."""
    which = tuple(range(len(graph.ins))) if wrt is None else tuple(wrt)
    count = len(graph.ins)

    def walk(*values: Any) -> list[Any]:
        tangents: list[Any] = [None] * count
        for i, t in zip(which, values[count:], strict=True):
            tangents[i] = t
        outs, dots = jvp_values(graph, values[:count], tangents)
        return outs + [zeros_like(o) if t is None else t for o, t in zip(outs, dots, strict=True) if is_float(o)]

    return stage_graph(walk, [v.aval for v in graph.ins] + [graph.ins[i].aval for i in which])

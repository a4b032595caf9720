"""How user functions become bodies of equations that hold graphs, and how such an equation is bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wichi import pytree
from wichi.arguments import leaf_aval
from wichi.errors import ArgumentError, LoopError
from wichi.trace import bodies, frames
from wichi.trace.boxed import Boxed
from wichi.trace.ir import Aval, Eqn, Graph, Var
from wichi.trace.primitive import Primitive, aval_of
from wichi.trace.sources import python_of
from wichi.trace.tracer import Traced, Tracer, as_view, is_tracing, trace
from wichi.traces import Runnable


def is_eager(*trees: Any) -> bool:
    return any(isinstance(x, Boxed) and not isinstance(x, Tracer) for x in pytree.leaves(trees))


def at_top(*trees: Any) -> bool:
    return not is_tracing() and not any(isinstance(x, Boxed) for x in pytree.leaves(trees))


def check_callable(name: str, **functions: Any) -> None:
    """Raise for what should be a function and is none."""
    for what, f in functions.items():
        if not callable(f):
            raise ArgumentError(
                f"{name}: {what} is {'a value' if isinstance(f, Boxed) else type(f).__name__}, not a function.",
                at=frames.describe(frames.user_where()),
                fix=f"{what}=lambda ...: ...; a constant is lambda *_: value",
            )


def trace_body(
    name: str,
    one: Callable[..., tuple[list[Any], list[Any], pytree.TreeDef]],
    init: Any,
    more: Sequence[Aval],
    root: Callable[[str], str] = "carry{}".format,
) -> tuple[Traced, list[Aval]]:
    """The body, traced with carries of types that it keeps; a weak number takes the type that the body gives it.

    ``root`` makes the name that users know of the path of a leaf in the carry.
    """
    leaves, tree = pytree.flatten(init)
    avals = [leaf_aval(x) for x in leaves]
    weak = [a.weak for a in avals]
    avals = [a._replace(weak=False) for a in avals]
    seen: list[Any] = []
    at = frames.describe(frames.user_where())
    because = "each round must hand the next one what it was handed itself"
    one = python_of(one)
    while True:

        def flat(*values: Any) -> list[Any]:
            new, ys, new_tree = one(*values)
            seen[:] = [new_tree]
            return [*new, *ys]

        traced = trace(flat, [*avals, *more], name=name)
        if seen[0] != tree:
            path, begins, returns = pytree.difference(tree, seen[0])
            raise LoopError(
                f"The carry of {name} changes its tree: {root(path)} begins as {begins} and the body returns"
                f" {returns}.",
                at=at,
                because=because,
                fix="return a tree of the same structure (a tuple is no list)",
            )
        new = [o.aval for o in traced.graph.outs[: len(avals)]]
        better = [
            b._replace(weak=False) if w and not a.shape and a.dtype.kind == "i" and b.dtype.kind == "f" else a
            for a, b, w in zip(avals, new, weak, strict=True)
        ]
        if better == avals:
            break
        avals = better
    for path, a, b in zip(pytree.paths(tree), avals, new, strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise LoopError(
                f"The carry of {name} changes: {root(path)} begins as {a} and the body returns {b}.",
                at=at,
                because=because,
                fix=_carry_fix(a, b),
            )
    return traced, avals


def _carry_fix(a: Aval, b: Aval) -> str:
    if a.shape == b.shape:
        return f"begin with {b.dtype}: np.asarray(init, np.{b.dtype.name})"
    return f"begin with the shape that the body returns: np.zeros({b.shape})"


def with_consts(traced: Traced, given: int, in_front: bool = True) -> tuple[Graph, list[Any]]:
    """The graph with its captured values and arrays as inputs before the others (or after them), and these."""
    graph, arrays = bodies.closed(traced.graph)
    own, held = graph.ins[:given], graph.ins[given:]
    ins = (*held, *own) if in_front else (*own, *held)
    return Graph(ins, graph.eqns, graph.outs), [*traced.captured, *arrays]


def as_results(graph: Graph, outs: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
    """The results of a graph. One that is an operand itself shares its memory in NumPy's eyes."""
    place = {v: i for i, v in enumerate(graph.ins)}
    return [
        as_view(x, operands[place[o]]) if type(o) is Var and o in place else x
        for x, o in zip(outs, graph.outs, strict=True)
    ]


def bind_graph(prim: Primitive, operands: Sequence[Any], **params: Any) -> Sequence[Any]:
    """The results; computed now, in native code, if nothing is being traced among the operands."""
    if any(isinstance(x, Boxed) for x in operands):
        outs: Sequence[Any] = prim(*operands, **params)
        return outs
    ins = tuple(Var(aval_of(x)._replace(weak=False)) for x in operands)
    bound = tuple(Var(a) for a in prim.type(*[v.aval for v in ins], **params))
    graph = Graph(ins, (Eqn(prim, ins, params, bound, frames.user_where()),), bound)
    return Runnable(graph)(operands)

"""The interpreter: the definition of what a graph means. Plain NumPy when given arrays; on traced values it inlines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wichi.trace.boxed import Boxed
from wichi.trace.ir import Const, Eqn, Graph, Var
from wichi.trace.tracer import Tracer, at_line

Watch = Callable[[Eqn, Sequence[Any], Sequence[Any]], None]


def evaluate(graph: Graph, *args: Any, watch: Watch | None = None) -> list[Any]:
    """The outputs of ``graph`` on ``args``, one equation after the other.

    ``watch(eqn, ins, outs)`` is called after each equation (``wichi.debug`` checks for nan there).
    """
    env: dict[Var, Any] = dict(zip(graph.ins, args, strict=True))
    run(graph.eqns, env, args, watch)
    return [read(env, out) for out in graph.outs]


def run(eqns: Sequence[Eqn], env: dict[Var, Any], args: Sequence[Any] = (), watch: Watch | None = None) -> None:
    """Bind in ``env`` what the equations bind."""
    box = innermost(args)
    for eqn in eqns:
        ins = [a.value if type(a) is Const else env[a] for a in eqn.ins]  # type: ignore[index]
        at_line(box, eqn.where, backward=False)
        result = applied(eqn, ins, box)
        outs = result if eqn.prim.multiple else (result,)
        if watch is not None:
            watch(eqn, ins, outs)
        env.update(zip(eqn.outs, outs, strict=True))
    at_line(box, None, backward=False)


def applied(eqn: Eqn, ins: Sequence[Any], box: Boxed | None) -> Any:
    """What an equation answers on values of which ``box`` is the innermost.

    Beside traced values it is staged on plain ones too: what is computed here from a captured array would not be read
    anew on each call.
    """
    if isinstance(box, Tracer) and not any(isinstance(x, Boxed) for x in ins):
        return box.stage(eqn.prim, ins, eqn.params)
    return eqn.prim(*ins, **eqn.params)


def read(env: dict[Var, Any], atom: Any) -> Any:
    """The value of an atom."""
    return atom.value if type(atom) is Const else env[atom]


def innermost(values: Sequence[Any]) -> Boxed | None:
    """The box that will stage what the values meet in: the deepest of them."""
    return max((v for v in values if isinstance(v, Boxed)), key=lambda v: v.rank, default=None)

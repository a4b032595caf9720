"""Functions kept whole in a graph: ``call`` runs its graph apart, ``custom`` has derivatives that the user wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from wichi.errors import ArgumentError
from wichi.trace import frames
from wichi.trace.batch import vmap_values
from wichi.trace.bodies import Values, avals_of, batched_body, closed, or_zeros, round_trip
from wichi.trace.evaluate import evaluate
from wichi.trace.forward import is_float, jvp_values
from wichi.trace.ir import Aval, Eqn, Graph
from wichi.trace.primitive import Inline, Loops, Primitive, Whole, aval_of, lead
from wichi.trace.reverse import active_from, transposed
from wichi.trace.tracer import stage_graph

Policy = Callable[[Eqn], bool] | None


def _type(*ins: Aval, graph: Graph, **params: Any) -> tuple[Aval, ...]:
    return tuple(o.aval._replace(weak=False) for o in graph.outs)


def _impl(*args: Any, graph: Graph, **params: Any) -> tuple[Any, ...]:
    return tuple(np.array(v, o.aval.dtype)[()] for v, o in zip(evaluate(graph, *args), graph.outs, strict=True))


# --- call: its equations are never joined with those around it, and what they need is freed when it ends ------------
# ``policy(eqn)`` says whether the result of an equation is kept for the way back; None: of no equation.
def _call_batch(prim: Primitive, args: Values, batched: Sequence[bool], size: int, graph: Graph, policy: Policy) -> Any:
    body, arrays = closed(batched_body(graph, batched, size))
    return call(*args, *arrays, graph=body, policy=policy)


def _call_jvp(ins: Values, tangents: Values, graph: Graph, policy: Policy) -> tuple[list[Any], list[Any]]:
    moving = [i for i, t in enumerate(tangents) if t is not None]
    count, active = len(graph.ins), active_from(graph.eqns, [graph.ins[i] for i in moving])
    live = [i for i, o in enumerate(graph.outs) if o in active]

    def walk(*values: Any) -> list[Any]:
        given = dict(zip(moving, values[count:], strict=True))
        outs, pushed = jvp_values(graph, values[:count], [given.get(i) for i in range(count)])
        return [*outs, *[or_zeros(pushed[i], outs[i]) for i in live]]

    types = avals_of(graph)
    body, arrays = closed(stage_graph(walk, [*types, *(types[i] for i in moving)]))
    outs = call(*ins, *[tangents[i] for i in moving], *arrays, graph=body, policy=policy)
    dots = dict(zip(live, outs[len(graph.outs) :], strict=True))
    return list(outs[: len(graph.outs)]), [dots.get(i) for i in range(len(graph.outs))]


def _call_vjp(
    ins: Values, wanted: Sequence[int], graph: Graph, policy: Policy
) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    active = active_from(graph.eqns, [graph.ins[i] for i in wanted])
    live = [i for i, o in enumerate(graph.outs) if o in active]
    first, second = round_trip(graph, wanted, live, policy or (lambda eqn: False))
    residuals = second.ins[: len(second.ins) - len(live)]
    place = {v: i for i, v in enumerate(first.ins)}
    kept = [v for v in residuals if v not in place]
    forward, arrays = closed(Graph(first.ins, first.eqns, (*first.outs[: len(graph.outs)], *kept)))
    results = call(*ins, *arrays, graph=forward, policy=policy)
    found = dict(zip(kept, results[len(graph.outs) :], strict=True))
    values = [ins[place[v]] if v in place else found[v] for v in residuals]
    outs = results[: len(graph.outs)]
    backward, more = closed(second)

    def pullback(cts: Values) -> tuple[Any, ...]:
        seeds = [or_zeros(cts[i], outs[i]) for i in live]
        answer: tuple[Any, ...] = call(*values, *seeds, *more, graph=backward, policy=policy)
        return answer

    return tuple(outs), pullback


call = Primitive(
    "call",
    type=_type,
    impl=_impl,
    batch=_call_batch,
    whole=Whole(_call_jvp, _call_vjp),
    kernel=Loops(
        lambda k, operands, results, graph, policy: k.context.inline(k, graph, operands, results),
        lambda k, *operands, graph, policy: k.context.in_registers(k, graph, operands),
    ),
    multiple=True,
    numbered=False,
)


# --- custom: where it runs, its graph stands in its place; where it is differentiated, the user's rule does it --------
# ``push(ins, tangents) -> (outs, tangents)`` or ``back(ins) -> (outs, pullback)`` or both, on flat values; None: the
# transpose of the other.
# The first ``own`` inputs are arguments, the next ``held`` are values that the function closes over: the rule has no
# derivative in these.
def _refuse(name: str) -> NoReturn:
    raise ArgumentError(
        f"{name} uses a value inside a transform that is not among its arguments, and a derivative in it is wanted.",
        at=frames.describe(frames.user_where()),
        because="its rule says nothing of this value, so the derivative would be lost",
        fix="make it an argument, or use wichi.stop_gradient(value), if it is meant as a constant",
    )


def _custom_jvp(
    ins: Values, tangents: Values, graph: Graph, push: Any, back: Any, own: int, held: int, name: str
) -> tuple[Sequence[Any], Sequence[Any]]:
    if any(t is not None for t in tangents[own : own + held]):
        _refuse(name)
    if push is not None:
        outs, dots = push(ins, [or_zeros(t, x) if is_float(x) else None for t, x in zip(tangents, ins, strict=True)])
        return outs, dots
    # The pullback is linear, ct -> J^T ct; its transpose is t -> J t.
    outs, pullback = back(ins)
    given = [i for i, t in enumerate(tangents) if t is not None]
    floats = [i for i, o in enumerate(outs) if is_float(o)]

    def linear(*cts: Any) -> list[Any]:
        known = dict(zip(floats, cts, strict=True))
        bars = pullback([known.get(i) for i in range(len(outs))])
        return [or_zeros(bars[i], ins[i]) for i in given]

    avals = [aval_of(outs[i])._replace(weak=False) for i in floats]
    found = dict(zip(floats, transposed(linear, avals, [tangents[i] for i in given]), strict=True))
    return outs, [found.get(i) for i in range(len(outs))]


def _custom_vjp(
    ins: Values, wanted: Sequence[int], graph: Graph, push: Any, back: Any, own: int, held: int, name: str
) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    if any(own <= i < own + held for i in wanted):
        _refuse(name)
    if back is not None:
        outs, pullback = back(ins)

        def chosen(cts: Values) -> list[Any]:
            bars = pullback(cts)
            return [bars[i] for i in wanted]

        return tuple(outs), chosen
    outs = custom(*ins, graph=graph, push=push, back=back, own=own, held=held, name=name)
    floats = [i for i, o in enumerate(outs) if is_float(o)]

    def linear(*dots: Any) -> list[Any]:
        given = dict(zip(wanted, dots, strict=True))
        tangents = [or_zeros(given.get(i), x) if is_float(x) else None for i, x in enumerate(ins)]
        pushed = push(ins, tangents)[1]
        return [or_zeros(pushed[i], outs[i]) for i in floats]

    def transposed_rule(cts: Values) -> list[Any]:
        avals = [aval_of(ins[i])._replace(weak=False) for i in wanted]
        return transposed(linear, avals, [cts[i] for i in floats])

    return tuple(outs), transposed_rule


def _custom_batch(
    prim: Primitive,
    args: Values,
    batched: Sequence[bool],
    size: int,
    graph: Graph,
    push: Any,
    back: Any,
    own: int,
    held: int,
    name: str,
) -> Any:
    body, arrays = closed(batched_body(graph, batched, size))
    count = len(args)

    def mapped(rule: Callable[..., Any], values: Values, flags: Sequence[bool]) -> list[Any]:
        """The rule, traced for one entry, for the whole batch."""
        avals = [aval_of(v) for v in values]
        avals = [a._replace(shape=a.shape[1:], weak=False) if b else a for a, b in zip(avals, flags, strict=True)]
        found = vmap_values(stage_graph(rule, avals), values, flags, size)
        return [v if b else lead(v, size) for v, b in found]

    def new_push(ins: Values, tangents: Values) -> tuple[list[Any], list[Any]]:
        ins, floats = ins[:count], [i for i, t in enumerate(tangents[:count]) if t is not None]

        def rule(*values: Any) -> list[Any]:
            dots = dict(zip(floats, values[count:], strict=True))
            outs, pushed = push(values[:count], [dots.get(i) for i in range(count)])
            return [*outs, *[or_zeros(t, o) for t, o in zip(pushed, outs, strict=True)]]

        flags = [*batched, *(batched[i] for i in floats)]
        found = mapped(rule, [*ins, *(tangents[i] for i in floats)], flags)
        outs, pushed = found[: len(found) // 2], found[len(found) // 2 :]
        return outs, [t if is_float(o) else None for t, o in zip(pushed, outs, strict=True)]

    def new_back(ins: Values) -> tuple[list[Any], Callable[..., Any]]:
        ins, avals = ins[:count], [o.aval for o in graph.outs]
        floats = [i for i, a in enumerate(avals) if a.dtype.kind == "f"]
        outs = mapped(lambda *values: back(values)[0], ins, batched)

        def pullback(cts: Values) -> list[Any]:
            def rule(*values: Any) -> list[Any]:
                seeds = dict(zip(floats, values[count:], strict=True))
                bars = back(values[:count])[1]([seeds.get(i) for i in range(len(avals))])
                return [or_zeros(b, x) for b, x in zip(bars, values, strict=False)]

            seeds = [or_zeros(cts[i], outs[i]) for i in floats]
            found = mapped(rule, [*ins, *seeds], [*batched, *[True] * len(seeds)])
            # What is the same for the whole batch gets the sum over it.
            total = Primitive.table["sum"]
            bars = [b if flag else total(b, axes=(0,)) for b, flag in zip(found, batched, strict=True)]
            return [*bars, *[None] * len(arrays)]

        return outs, pullback

    return custom(
        *args, *arrays, graph=body, push=push and new_push, back=back and new_back, own=own, held=held, name=name
    )


custom = Primitive(
    "custom",
    type=_type,
    impl=_impl,
    batch=_custom_batch,
    whole=Whole(_custom_jvp, _custom_vjp),
    kernel=Inline(),
    multiple=True,
    numbered=False,
)

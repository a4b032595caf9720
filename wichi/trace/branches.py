"""``cond``: one of several graphs, chosen as the program runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.ops.pointwise import eq, where
from wichi.ops.shaping import broadcast
from wichi.trace.batch import vmap_values
from wichi.trace.bodies import (
    Values,
    assign,
    avals_of,
    batched_body,
    or_zeros,
    round_trip,
    together,
    values_of,
)
from wichi.trace.evaluate import evaluate
from wichi.trace.forward import jvp_values
from wichi.trace.ir import Aval, Graph, Var
from wichi.trace.primitive import Loops, Primitive, Whole, lead, shape_of
from wichi.trace.reverse import active_from
from wichi.trace.tracer import stage_graph


# Inputs: the number of the branch, operands; every branch: operands -> results of the same types.
def _cond_type(index: Aval, *ins: Aval, branches: tuple[Graph, ...]) -> tuple[Aval, ...]:
    return tuple(o.aval._replace(weak=False) for o in branches[0].outs)


def _cond_impl(index: Any, *args: Any, branches: tuple[Graph, ...]) -> tuple[Any, ...]:
    taken = branches[int(index)]
    return tuple(np.array(v, o.aval.dtype)[()] for v, o in zip(evaluate(taken, *args), taken.outs, strict=True))


def _cond_batch(prim: Primitive, args: Values, batched: Sequence[bool], size: int, branches: tuple[Graph, ...]) -> Any:
    if not batched[0]:
        new, arrays = together([batched_body(b, batched[1:], size) for b in branches])
        return cond(*args, *arrays, branches=new)
    columns = []
    for branch in branches:
        found = vmap_values(branch, args[1:], batched[1:], size)
        columns.append([v if b else lead(v, size) for v, b in found])
    chosen = columns[-1]
    for number in reversed(range(len(branches) - 1)):
        mask = eq(args[0], np.int64(number))
        spread = [
            broadcast(mask, shape=shape_of(x), axes=tuple(range(1, len(shape_of(x))))) if len(shape_of(x)) > 1 else mask
            for x in chosen
        ]
        chosen = [where(m, x, y) for m, x, y in zip(spread, columns[number], chosen, strict=True)]
    return tuple(chosen)


def _cond_jvp(ins: Values, tangents: Values, branches: tuple[Graph, ...]) -> tuple[list[Any], list[Any]]:
    moving = [i for i, t in enumerate(tangents[1:]) if t is not None]
    live = _reached(branches, moving)

    def doubled(branch: Graph) -> Graph:
        def walk(*values: Any) -> list[Any]:
            given = dict(zip(moving, values[len(branch.ins) :], strict=True))
            outs, pushed = jvp_values(branch, values[: len(branch.ins)], [given.get(i) for i in range(len(branch.ins))])
            return [*outs, *[or_zeros(pushed[i], outs[i]) for i in live]]

        types = avals_of(branch)
        return stage_graph(walk, [*types, *(types[i] for i in moving)])

    new, arrays = together([doubled(b) for b in branches])
    outs = cond(*ins, *[tangents[1 + i] for i in moving], *arrays, branches=new)
    count = len(branches[0].outs)
    dots = dict(zip(live, outs[count:], strict=True))
    return list(outs[:count]), [dots.get(i) for i in range(count)]


def _reached(branches: Sequence[Graph], moving: Sequence[int]) -> list[int]:
    """The results that depend on these operands in any branch."""
    actives = [active_from(b.eqns, [b.ins[i] for i in moving]) for b in branches]
    return [
        i
        for i in range(len(branches[0].outs))
        if any(b.outs[i] in active for b, active in zip(branches, actives, strict=True))
    ]


def _cond_vjp(
    ins: Values, wanted: Sequence[int], branches: tuple[Graph, ...]
) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    """The branch runs again on the way back: what it would have kept is another for each branch."""
    outs = cond(*ins, branches=branches)
    moving = [i - 1 for i in wanted]
    live = _reached(branches, moving)
    backs = []
    for branch in branches:
        whole, second = round_trip(branch, moving, live, lambda eqn: False)
        place = {v: i for i, v in enumerate(whole.ins)}
        residuals = second.ins[: len(second.ins) - len(live)]
        ins_in_order: list[Var] = [Var(a) for a in avals_of(branch)]
        for v in residuals:
            ins_in_order[place[v]] = v
        backs.append(Graph((*ins_in_order, *second.ins[len(residuals) :]), second.eqns, second.outs))
    new, arrays = together(backs)

    def pullback(cts: Values) -> tuple[Any, ...]:
        seeds = [or_zeros(cts[i], outs[i]) for i in live]
        found: tuple[Any, ...] = cond(*ins, *seeds, *arrays, branches=new)
        return found

    return tuple(outs), pullback


def _cond_write(k: Any, operands: Values, results: Values, branches: tuple[Graph, ...]) -> None:
    index, *rest = operands
    number = k.load(index, [])
    if all(map(k.context.fits_registers, branches)):
        loaded = [k.registers(x) for x in rest]
        outs = _cond_registers(k, k.registers(index), *loaded, branches=branches)
        for value, result in zip(outs, results, strict=True):
            if result is not None:
                k.spill(value, result)
        return

    def write(i: int) -> Callable[[], None]:
        if i == len(branches) - 1:
            return lambda: k.context.inline(k, branches[i], rest, results)
        return lambda: k.branch(k.eq(number, i), lambda: k.context.inline(k, branches[i], rest, results), write(i + 1))

    write(0)()


def _cond_registers(k: Any, index: Any, *operands: Any, branches: tuple[Graph, ...]) -> list[Any]:
    number = index[()]
    outs = [k.variables(k.zeros(o.aval)) for o in branches[0].outs]

    def run(i: int) -> None:
        assign(outs, k.context.in_registers(k, branches[i], operands))

    def write(i: int) -> Callable[[], None]:
        if i == len(branches) - 1:
            return lambda: run(i)
        return lambda: k.branch(k.eq(number, i), lambda: run(i), write(i + 1))

    write(0)()
    return [values_of(v) for v in outs]


cond = Primitive(
    "cond",
    type=_cond_type,
    impl=_cond_impl,
    batch=_cond_batch,
    whole=Whole(_cond_jvp, _cond_vjp),
    kernel=Loops(_cond_write, _cond_registers),
    multiple=True,
    numbered=False,
)

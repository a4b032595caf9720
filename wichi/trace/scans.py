"""``scan``: a loop of a known number of rounds. What its way back needs are further stacked results, so its derivatives
are scans again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.ops.pointwise import add
from wichi.ops.products import matmul, swap
from wichi.ops.shaping import concatenate, reshape, slice_, transpose
from wichi.trace.bodies import (
    Values,
    assign,
    avals_of,
    batched_body,
    by_kind,
    carried_memory,
    carried_on,
    closed_in_front,
    move,
    or_zeros,
    parts_of,
    round_trip,
    rounds_between_questions,
    swapped,
    values_of,
    widths,
)
from wichi.trace.evaluate import evaluate
from wichi.trace.forward import jvp_values, zeros_like
from wichi.trace.ir import Aval, Eqn, Graph, Var, dce
from wichi.trace.primitive import Loops, Primitive, Whole, lead, shape_of
from wichi.trace.tracer import stage_graph


# Inputs: consts, initial carries, xs (stacked along their first axis); results: final carries, ys (stacked).
# body: consts, carries, a row of each of xs -> carries, a row of each of ys.
def _scan_type(*ins: Aval, body: Graph, consts: int, carries: int, length: int, reverse: bool) -> tuple[Aval, ...]:
    outs = [o.aval._replace(weak=False) for o in body.outs]
    return (*outs[:carries], *(a._replace(shape=(length, *a.shape)) for a in outs[carries:]))


def _scan_impl(*args: Any, body: Graph, consts: int, carries: int, length: int, reverse: bool) -> tuple[Any, ...]:
    fixed, state, xs = parts_of(args, consts, carries)
    types = [o.aval for o in body.outs]
    ys = [np.empty((length, *a.shape), a.dtype) for a in types[carries:]]
    for i in reversed(range(length)) if reverse else range(length):
        outs = evaluate(body, *fixed, *state, *[x[i] for x in xs])
        state = [np.asarray(v, a.dtype)[()] for v, a in zip(outs, types[:carries], strict=False)]
        for y, row in zip(ys, outs[carries:], strict=True):
            y[i] = row
    return (*[np.array(v)[()] for v in state], *ys)


def _scan_batch(prim: Primitive, args: Values, batched: Sequence[bool], size: int, **params: Any) -> tuple[Any, ...]:
    body, consts, carries = params["body"], params["consts"], params["carries"]
    flags = [*batched[:consts], *[True] * carries, *batched[consts + carries :]]
    rows, arrays = closed_in_front(batched_body(body, flags, size))
    fixed, init, xs = parts_of(args, consts, carries)
    init = [x if b else lead(x, size) for x, b in zip(init, batched[consts:], strict=False)]
    xs = [swapped(x) if b else x for x, b in zip(xs, batched[consts + carries :], strict=True)]
    outs = scan(*arrays, *fixed, *init, *xs, **{**params, "body": rows, "consts": consts + len(arrays)})
    return (*outs[:carries], *[swapped(y) for y in outs[carries:]])


def _scan_jvp(ins: Values, tangents: Values, **params: Any) -> tuple[list[Any], list[Any]]:
    body, consts, carries = params["body"], params["consts"], params["carries"]
    found, active = carried_on(body, consts, carries, [i for i, t in enumerate(tangents) if t is not None])
    moving = sorted(found)
    groups = by_kind(moving, consts, carries)
    live = [i for i in range(carries, len(body.outs)) if body.outs[i] in active]
    dots = {i: or_zeros(tangents[i], ins[i]) for i in moving}
    fixed, init, xs = parts_of(range(len(ins)), consts, carries)

    def walk(*values: Any) -> list[Any]:
        c, dc, s, ds, x, dx = parts_of(values, *widths(fixed, groups[0], init, groups[1], xs))
        given = dict(zip(moving, (*dc, *ds, *dx), strict=True))
        outs, pushed = jvp_values(body, [*c, *s, *x], [given.get(i) for i in range(len(ins))])
        moved = [or_zeros(pushed[i - consts], outs[i - consts]) for i in groups[1]]
        return [*outs[:carries], *moved, *outs[carries:], *[or_zeros(pushed[i], outs[i]) for i in live]]

    order = [*fixed, *groups[0], *init, *groups[1], *xs, *groups[2]]
    types = avals_of(body)
    both, arrays = closed_in_front(stage_graph(walk, [types[i] for i in order]))
    operands = [*[ins[i] for i in fixed], *[dots[i] for i in groups[0]], *[ins[i] for i in init]]
    operands += [*[dots[i] for i in groups[1]], *[ins[i] for i in xs], *[dots[i] for i in groups[2]]]
    outs = scan(
        *arrays, *operands, body=both, consts=len(arrays) + consts + len(groups[0]), carries=carries + len(groups[1]),
        length=params["length"], reverse=params["reverse"],
    )  # fmt: skip
    finals, moved, ys, dys = parts_of(outs, carries, len(groups[1]), len(body.outs) - carries)
    found_dots = dict(zip([*(i - consts for i in groups[1]), *live], [*moved, *dys], strict=True))
    return [*finals, *ys], [found_dots.get(i) for i in range(len(body.outs))]


def _scan_vjp(ins: Values, wanted: Sequence[int], **params: Any) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    body, consts, carries = params["body"], params["consts"], params["carries"]
    count, turn = len(body.ins), {"length": params["length"], "reverse": not params["reverse"]}
    found, active = carried_on(body, consts, carries, wanted)
    moving = sorted(found)
    wrt_fixed, wrt_init, wrt_xs = by_kind(moving, consts, carries)
    live = [i for i, o in enumerate(body.outs) if o in active]
    live_ys = [i for i in live if i >= carries]
    first, second = round_trip(body, moving, live)
    factors = _sums_of_products(second, moving, wrt_fixed, params["length"])
    plain = [i for i in moving if i not in factors]
    residuals = second.ins[: len(second.ins) - len(live)]
    place = {v: i for i, v in enumerate(first.ins)}  # of residuals that are inputs of the body
    stacked = [v for v in residuals if v not in place or consts <= place[v] < consts + carries]
    kept_fixed = [v for v in residuals if place.get(v, consts) < consts]
    kept_xs = [v for v in residuals if place.get(v, -1) >= consts + carries]
    # Factors that the rounds are handed anyway are there; each of the others is stacked once.
    there = {*stacked, *kept_xs}
    sides = list(dict.fromkeys(x for pairs in factors.values() for pair in pairs for x in pair if x[0] not in there))
    kept_outs = (out for i, out in zip(moving, second.outs, strict=True) if i not in factors)
    second = dce(Graph(second.ins, second.eqns, (*kept_outs, *(v for v, _ in sides))))
    wrt_summed = [i for i in wrt_fixed if i not in factors]
    ys = {v: i for i, v in enumerate(first.outs[: len(body.outs)]) if i >= carries}  # stacked as results anyway
    # A carry that is also a result: what a round begins with is what the one before it has answered.
    before = {
        first.ins[consts + j]: ys[first.outs[j]]
        for j in range(carries)
        if first.ins[consts + j] in stacked and first.outs[j] in ys and params["length"]
    }
    more = [v for v in stacked if v not in ys and v not in before]
    keeping, held_first = closed_in_front(
        dce(Graph(first.ins[:count], first.eqns, (*first.outs[: len(body.outs)], *more)))
    )
    results = scan(*held_first, *ins, **{**params, "body": keeping, "consts": len(held_first) + consts})
    outs, rest = results[: len(body.outs)], dict(zip(more, results[len(body.outs) :], strict=True))
    for v, i in before.items():
        rest[v] = _earlier(ins[place[v]], results[i], params["reverse"])
    stacks = [results[ys[v]] if v in ys else rest[v] for v in stacked]

    def walk(*values: Any) -> list[Any]:
        held, bars, sums, stack, rows, cts = parts_of(
            values, *widths(kept_fixed, wrt_init, wrt_summed, stacked, kept_xs)
        )
        known = dict(zip([*kept_fixed, *stacked, *kept_xs], [*held, *stack, *rows], strict=True))
        coming = dict(zip([*(i - consts for i in wrt_init), *live_ys], [*bars, *cts], strict=True))
        found = evaluate(second, *[known[v] for v in residuals], *[coming[i] for i in live])
        back = dict(zip(plain, found, strict=False))
        return [
            *[back[i] for i in wrt_init],
            *[add(total, back[i]) for i, total in zip(wrt_summed, sums, strict=True)],
            *[back[i] for i in wrt_xs],
            *[swap(x) if turned else x for x, (_, turned) in zip(found[len(plain) :], sides, strict=True)],
        ]

    types = [v.aval._replace(weak=False) for v in body.ins]
    avals = [v.aval for v in kept_fixed] + [types[i] for i in (*wrt_init, *wrt_summed)]
    avals += [v.aval for v in (*stacked, *kept_xs)] + [body.outs[i].aval for i in live_ys]
    backward, arrays = closed_in_front(stage_graph(walk, [a._replace(weak=False) for a in avals]))

    def pullback(cts: Values) -> list[Any]:
        bars = [or_zeros(cts[i - consts], ins[i]) for i in wrt_init]
        sums = [zeros_like(ins[i]) for i in wrt_summed]
        rows = [or_zeros(cts[i], outs[i]) for i in live_ys]
        held = [ins[place[v]] for v in kept_fixed]
        found = scan(
            *arrays, *held, *bars, *sums, *stacks, *[ins[place[v]] for v in kept_xs], *rows, body=backward,
            consts=len(arrays) + len(held), carries=len(bars) + len(sums), **turn,
        )  # fmt: skip
        back = dict(zip([*wrt_init, *wrt_summed, *wrt_xs], found, strict=False))
        rounds = dict(zip(sides, found[len(plain) :], strict=True))  # of each factor, those of all rounds
        rounds |= {(v, False): x for v, x in zip(stacked, stacks, strict=True)}
        rounds |= {(v, False): ins[place[v]] for v in kept_xs}
        for i, pairs in factors.items():
            for left, right in pairs:  # (rounds, k, m) and (rounds, k, n)
                product = matmul(swap(_joined(rounds[left])), _joined(rounds[right]))
                back[i] = add(back[i], product) if i in back else product
        return [back[i] for i in wanted]

    return tuple(outs), pullback


_MOST_STACKED = 1 << 26  # bytes of factors that may be kept for one product after the loop


def _earlier(init: Any, y: Any, reverse: bool) -> Any:
    """The stacked results of all rounds but the last, after ``init`` where there is none before."""
    shape = shape_of(y)
    rest = slice_(
        y, start=(int(reverse), *[0] * (len(shape) - 1)), step=(1,) * len(shape), size=(shape[0] - 1, *shape[1:])
    )
    first = reshape(init, shape=(1, *shape[1:]))
    return concatenate(rest, first, axis=0) if reverse else concatenate(first, rest, axis=0)


def _joined(x: Any) -> Any:
    rounds, rows, columns = shape_of(x)
    return reshape(x, shape=(rounds * rows, columns))


def _sums_of_products(
    second: Graph, moving: Sequence[int], wrt_fixed: Sequence[int], length: int
) -> dict[int, list[tuple[Any, Any]]]:
    """The consts whose cotangent is a sum of matrix products in each round, with the factors of these.

    A left factor (m, k) is needed as (k, m): it is the value that the round swaps for it, or (True) to be swapped.

    The sum over the rounds of such products is one product of the stacked factors. That pays where the factors are
    smaller than the product, and there is room for them: the weights of a recurrent network.
    """
    makers = {e.outs[0]: e for e in second.eqns}
    found: dict[int, list[tuple[Any, Any]]] = {}
    room = _MOST_STACKED
    for i in wrt_fixed:
        pairs: list[tuple[Any, Any]] | None = []
        waiting = [second.outs[moving.index(i)]]
        while waiting and pairs is not None:
            eqn = makers.get(waiting.pop())  # type: ignore[arg-type]
            if eqn is not None and eqn.prim is add and eqn.ins[0].aval.shape == eqn.ins[1].aval.shape:
                waiting += eqn.ins
            elif eqn is not None and eqn.prim is matmul and eqn.outs[0].aval.ndim == 2:
                left, right = eqn.ins
                swapped = makers.get(left)
                before = swapped.ins[0] if swapped is not None and swapped.prim is transpose else None
                pairs.append(((left, True) if before is None else (before, False), (right, False)))
            else:
                pairs = None
        if not pairs:
            continue
        kept = sum(x.aval.size for pair in pairs for x, _ in pair)
        cost = kept * length * pairs[0][0][0].aval.dtype.itemsize
        if kept <= len(pairs) * second.outs[moving.index(i)].aval.size and cost <= room:
            found[i] = pairs
            room -= cost
    return found


def _scan_prune(eqn: Eqn, live: set[Var]) -> Eqn:
    """Without stacked results that nothing reads."""
    params = dict(eqn.params)
    body, carries = params["body"], params["carries"]
    kept = [i for i, o in enumerate(eqn.outs) if i < carries or o in live]
    if len(kept) == len(eqn.outs):
        return eqn
    params["body"] = dce(Graph(body.ins, body.eqns, tuple(body.outs[i] for i in kept)))
    return Eqn(eqn.prim, eqn.ins, params, tuple(eqn.outs[i] for i in kept), eqn.where)


def _scan_write(
    k: Any, operands: Values, results: Values, body: Graph, consts: int, carries: int, length: int, reverse: bool
) -> None:
    fixed, init, xs = parts_of(operands, consts, carries)
    if k.context.fits_registers(body):
        held, state = [k.registers(c) for c in fixed], [k.variables(k.registers(x)) for x in init]
        with k.rounds(length, every=rounds_between_questions(body)) as i:
            at = k.number(length - 1) - i if reverse else i
            rows = [k.registers(k.row(x, at, literal=True)) for x in xs]
            outs = k.context.in_registers(k, body, [*held, *map(values_of, state), *rows])
            assign(state, outs)
            for y, row in zip(results[carries:], outs[carries:], strict=True):
                if y is not None:
                    k.spill(row, k.row(y, at, literal=True))
        for variables, result in zip(state, results, strict=False):
            if result is not None:
                k.spill(values_of(variables), result)
        return
    state, following = carried_memory(k, init, results[:carries])
    with k.rounds(length, every=16) as i:
        at = k.number(length - 1) - i if reverse else i
        rows = [k.row(x, at) for x in xs]
        targets = [None if y is None else k.row(y, at) for y in results[carries:]]
        carried = {consts + j: j for j in range(carries)}
        written = k.context.inline(k, body, [*fixed, *state, *rows], [*following, *targets], carried)
        move(k, following, state, but=written)


def _scan_registers(
    k: Any, *operands: Any, body: Graph, consts: int, carries: int, length: int, reverse: bool
) -> list[Any]:
    """Unrolled, for its rows are at most as many as elements fit into registers; without rows a loop."""
    fixed, state, xs = parts_of(operands, consts, carries)
    if not xs and len(body.outs) == carries:
        variables = [k.variables(x) for x in state]
        with k.rounds(length, every=rounds_between_questions(body)):
            assign(variables, k.context.in_registers(k, body, [*fixed, *map(values_of, variables)]))
        return [values_of(v) for v in variables]
    rows: list[Any] = [None] * length
    for i in reversed(range(length)) if reverse else range(length):
        outs = k.context.in_registers(k, body, [*fixed, *state, *[np.asarray(x[i], object) for x in xs]])
        state, rows[i] = outs[:carries], outs[carries:]
    ys = []
    for j, out in enumerate(body.outs[carries:]):
        y = np.empty((length, *out.aval.shape), object)
        for i in range(length):
            y[i] = rows[i][j] if out.aval.shape else rows[i][j][()]
        ys.append(y)
    return [*state, *ys]


scan = Primitive(
    "scan",
    type=_scan_type,
    impl=_scan_impl,
    batch=_scan_batch,
    whole=Whole(_scan_jvp, _scan_vjp),
    kernel=Loops(_scan_write, _scan_registers),
    multiple=True,
    numbered=False,
    prune=_scan_prune,
)

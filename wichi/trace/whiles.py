"""``while``: a loop whose end is found as it runs.

Its way back is a primitive of its own, which runs the rounds once more onto a tape that grows, and then backwards. The
derivatives of that primitive are ``while`` and itself again, so any order of derivative works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.ops.pointwise import add, where
from wichi.ops.reducing import any_
from wichi.ops.shaping import broadcast
from wichi.trace.batch import vmap_values
from wichi.trace.bodies import (
    Values,
    assign,
    avals_of,
    by_kind,
    carried_memory,
    carried_on,
    closed_in_front,
    move,
    or_zeros,
    parts_of,
    round_trip,
    rounds_between_questions,
    values_of,
)
from wichi.trace.evaluate import evaluate
from wichi.trace.forward import jvp_values
from wichi.trace.ir import Aval, Graph, Var
from wichi.trace.primitive import Loops, Primitive, Whole, lead, shape_of
from wichi.trace.tracer import stage_graph


# Inputs: consts of the condition, consts of the body, initial carries; results: final carries.
# condition: its consts, carries -> bool; body: its consts, carries -> carries.
def _while_type(*ins: Aval, condition: Graph, body: Graph, tests: int, consts: int) -> tuple[Aval, ...]:
    return tuple(o.aval._replace(weak=False) for o in body.outs)


def _while_impl(*args: Any, condition: Graph, body: Graph, tests: int, consts: int) -> tuple[Any, ...]:
    asked, fixed, state = parts_of(args, tests, consts)
    state = [np.array(x)[()] for x in state]
    while evaluate(condition, *asked, *state)[0]:
        state = [
            np.asarray(v, o.aval.dtype)[()] for v, o in zip(evaluate(body, *fixed, *state), body.outs, strict=True)
        ]
    return tuple(state)


def _while_batched(condition: Graph, body: Graph, tests: int, consts: int, batched: Sequence[bool], size: int) -> Any:
    """Condition and body of a whole batch, and arrays for both: it goes on while any entry does; others stand still."""
    carries = len(body.outs)
    asks = [*batched[:tests], *[True] * carries]
    runs = [*batched[tests : tests + consts], *[True] * carries]
    types = [a._replace(shape=(size, *a.shape)) if b else a for a, b in zip(avals_of(condition), asks, strict=True)]

    def goes_on(*values: Any) -> Any:
        ((value, has_axis),) = vmap_values(condition, values, asks, size)
        return value if has_axis else lead(value, size)

    def ask(*values: Any) -> list[Any]:
        return [any_(goes_on(*values), axes=(0,))]

    def step(*values: Any) -> list[Any]:
        asked, fixed, state = parts_of(values, tests, consts)
        alive = goes_on(*asked, *state)
        new = [v if b else lead(v, size) for v, b in vmap_values(body, [*fixed, *state], runs, size)]
        chosen = []
        for x, y in zip(new, state, strict=True):
            shape = shape_of(y)
            mask = broadcast(alive, shape=shape, axes=tuple(range(1, len(shape)))) if len(shape) > 1 else alive
            chosen.append(where(mask, x, y))
        return chosen

    body_types = [a._replace(shape=(size, *a.shape)) if b else a for a, b in zip(avals_of(body), runs, strict=True)]
    new_condition, asked_arrays = closed_in_front(stage_graph(ask, types))
    new_body, arrays = closed_in_front(stage_graph(step, [*types[:tests], *body_types]))
    return new_condition, asked_arrays, new_body, arrays


def _while_batch(
    prim: Primitive, args: Values, batched: Sequence[bool], size: int, condition: Graph, body: Graph, tests: int,
    consts: int,
) -> Any:  # fmt: skip
    new_condition, asked, new_body, arrays = _while_batched(condition, body, tests, consts, batched, size)
    test, fixed, init = parts_of(args, tests, consts)
    init = [x if b else lead(x, size) for x, b in zip(init, batched[tests + consts :], strict=True)]
    return while_(
        *asked, *test, *arrays, *test, *fixed, *init, condition=new_condition, body=new_body,
        tests=len(asked) + tests, consts=len(arrays) + tests + consts,
    )  # fmt: skip


def _while_doubled(condition: Graph, body: Graph, tests: int, consts: int, moving: Sequence[int]) -> Any:
    """The loop that carries tangents along: of the inputs ``moving`` of its body, which what they reach belongs to.

    Answers condition, arrays for it, body, arrays for it. Inputs: consts, their tangents, carries, theirs.
    """
    carries = len(body.outs)
    of_consts, of_carries, _ = by_kind(moving, consts, carries)

    def step(*values: Any) -> list[Any]:
        c, dc, s, ds = parts_of(values, consts, len(of_consts), carries)
        given = dict(zip([*of_consts, *of_carries], [*dc, *ds], strict=True))
        outs, pushed = jvp_values(body, [*c, *s], [given.get(i) for i in range(len(body.ins))])
        return [*outs, *[or_zeros(pushed[i - consts], outs[i - consts]) for i in of_carries]]

    types = avals_of(body)
    order = [*range(consts), *of_consts, *range(consts, consts + carries), *of_carries]
    new_body, arrays = closed_in_front(stage_graph(step, [types[i] for i in order]))
    ignored = tuple(Var(types[i]) for i in of_carries)
    new_condition = Graph((*condition.ins, *ignored), condition.eqns, condition.outs)
    return new_condition, new_body, arrays


def _while_jvp(ins: Values, tangents: Values, **params: Any) -> tuple[list[Any], list[Any]]:
    condition, body, tests, consts = (params[n] for n in ("condition", "body", "tests", "consts"))
    carries = len(body.outs)
    asked, fixed, init = parts_of(ins, tests, consts)
    given = list(tangents[tests:])
    moving = sorted(carried_on(body, consts, carries, [i for i, t in enumerate(given) if t is not None])[0])
    of_consts, of_carries, _ = by_kind(moving, consts, carries)
    both_condition, both, arrays = _while_doubled(condition, body, tests, consts, moving)
    values = [*fixed, *init]
    outs = while_(
        *asked, *arrays, *fixed, *[or_zeros(given[i], values[i]) for i in of_consts], *init,
        *[or_zeros(given[i], values[i]) for i in of_carries], condition=both_condition, body=both, tests=tests,
        consts=len(arrays) + consts + len(of_consts),
    )  # fmt: skip
    dots = dict(zip((i - consts for i in of_carries), outs[carries:], strict=True))
    return list(outs[:carries]), [dots.get(i) for i in range(carries)]


def _while_vjp(ins: Values, wanted: Sequence[int], **params: Any) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    body, tests, consts = params["body"], params["tests"], params["consts"]
    outs = while_(*ins, **params)
    moving = sorted(carried_on(body, consts, len(body.outs), [i - tests for i in wanted if i >= tests])[0])

    def pullback(cts: Values) -> list[Any]:
        of_carries = by_kind(moving, consts, len(body.outs))[1]
        seeds = [or_zeros(cts[i - consts], outs[i - consts]) for i in of_carries]
        back = _pulled_back(ins, seeds, moving, **params)
        return [back.get(i - tests) for i in wanted]

    return tuple(outs), pullback


def _pulled_back(
    ins: Values, seeds: Values, moving: Sequence[int], condition: Graph, body: Graph, tests: int, consts: int
) -> dict[int, Any]:
    """Cotangents of the inputs ``moving`` of the body, given those of the carries among them."""
    carries = len(body.outs)
    of_consts, of_carries, _ = by_kind(moving, consts, carries)
    live = [i - consts for i in of_carries]
    first, second = round_trip(body, moving, live, lambda eqn: False)
    residuals = second.ins[: len(second.ins) - len(live)]
    place = {v: i for i, v in enumerate(first.ins)}

    def step(*values: Any) -> list[Any]:
        given, bars, sums = parts_of(values, consts + carries, len(of_carries))
        back = dict(zip(moving, evaluate(second, *[given[place[v]] for v in residuals], *bars), strict=True))
        return [
            *[back[i] for i in of_carries],
            *[add(total, back[i]) for i, total in zip(of_consts, sums, strict=True)],
        ]

    types = avals_of(body)
    back, arrays = closed_in_front(stage_graph(step, [*types, *(types[i] for i in (*of_carries, *of_consts))]))
    found = while_pullback(
        *arrays, *ins, *seeds, condition=condition, body=body, step=back, tests=tests, consts=consts,
        moving=tuple(moving), extra=len(arrays),
    )  # fmt: skip
    return dict(zip([*of_carries, *of_consts], found, strict=True))


def _while_write(
    k: Any, operands: Values, results: Values, condition: Graph, body: Graph, tests: int, consts: int
) -> None:
    asked, fixed, init = parts_of(operands, tests, consts)
    if k.context.fits_registers(condition) and k.context.fits_registers(body):
        loaded = [k.registers(x) for x in operands]
        finals = _while_registers(k, *loaded, condition=condition, body=body, tests=tests, consts=consts)
        for value, result in zip(finals, results, strict=True):
            if result is not None:
                k.spill(value, result)
        return
    state, following = carried_memory(k, init, results)
    with k.repeat(_header(k, condition, [*asked, *state]), every=1):
        carried = {consts + j: j for j in range(len(state))}
        written = k.context.inline(k, body, [*fixed, *state], following, carried)
        move(k, following, state, but=written)


def _header(k: Any, condition: Graph, operands: Values) -> Callable[[], Any]:
    flag = k.context.scratch(np.dtype(bool), ())

    def ask() -> Any:
        k.context.inline(k, condition, operands, [flag])
        return k.load(flag, [])

    return ask


def _while_registers(k: Any, *operands: Any, condition: Graph, body: Graph, tests: int, consts: int) -> list[Any]:
    asked, fixed, init = parts_of(operands, tests, consts)
    state = [k.variables(x) for x in init]

    def ask() -> Any:
        return k.context.in_registers(k, condition, [*asked, *map(values_of, state)])[0][()]

    with k.repeat(ask, rounds_between_questions(body)):
        assign(state, k.context.in_registers(k, body, [*fixed, *map(values_of, state)]))
    return [values_of(v) for v in state]


while_ = Primitive(
    "while",
    type=_while_type,
    impl=_while_impl,
    batch=_while_batch,
    whole=Whole(_while_jvp, _while_vjp),
    kernel=Loops(_while_write, _while_registers),
    multiple=True,
    numbered=False,
)


# --- the way back ----------------------------------------------------------------------------------------------------
# Inputs: arrays of the step (``extra``), the inputs of the loop, cotangents of the carries in ``moving``; results:
# cotangents of the initial carries in ``moving`` and of the consts in ``moving``.
# step: its arrays, consts, carries before a round, cotangents after it, sums -> cotangents before it, sums.
def _pullback_type(*ins: Aval, body: Graph, consts: int, moving: tuple[int, ...], **params: Any) -> tuple[Aval, ...]:
    of_consts, of_carries, _ = by_kind(moving, consts, len(body.outs))
    types = avals_of(body)
    return tuple(types[i] for i in (*of_carries, *of_consts))


def _pullback_impl(
    *args: Any, condition: Graph, body: Graph, step: Graph, tests: int, consts: int, moving: tuple[int, ...], extra: int
) -> tuple[Any, ...]:
    arrays, asked, fixed, state, bars = parts_of(args, extra, tests, consts, len(body.outs))
    tape = []
    while evaluate(condition, *asked, *state)[0]:
        tape.append(state)
        state = evaluate(body, *fixed, *state)
    back = [*bars, *[np.zeros(body.ins[i].aval.shape, body.ins[i].aval.dtype)[()] for i in moving if i < consts]]
    while tape:
        back = evaluate(step, *arrays, *fixed, *tape.pop(), *back)
    return tuple(np.array(x)[()] for x in back)


def _loop_of(params: dict[str, Any]) -> dict[str, Any]:
    return {n: params[n] for n in ("condition", "body", "tests", "consts")}


def _pullback_parts(ins: Values, params: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """The inputs of the loop, and the cotangents."""
    count = params["tests"] + len(params["body"].ins)
    _, loop, seeds = parts_of(ins, params["extra"], count)
    return loop, seeds


def _both_ways(
    loop: Values, tangents: dict[int, Any], c: dict[int, Any], dc: dict[int, Any], params: dict[str, Any]
) -> tuple[dict[int, Any], dict[int, Any]]:
    """The way back from (x, x') -> (y, y'), the loop with tangents, given cotangents of y' (``c``) and of y (``dc``).

    With J the Jacobian of the loop, y' = J x': so the cotangent of x' is J^T c, and that of x is J^T dc plus the
    gradient in x of c^T J x', which is the change of J^T c along x' because second derivatives commute.
    """
    condition, body, tests, consts = (params[n] for n in ("condition", "body", "tests", "consts"))
    carries = len(body.outs)
    moving = sorted(carried_on(body, consts, carries, [*params["moving"], *tangents])[0])
    of_consts, of_carries, _ = by_kind(moving, consts, carries)
    both_condition, both, arrays = _while_doubled(condition, body, tests, consts, moving)
    asked, fixed, init = parts_of(loop, tests, consts)
    values = [*fixed, *init]
    dots = [or_zeros(tangents.get(i), values[i]) for i in moving]
    new_consts = len(arrays) + consts + len(of_consts)
    inputs = [*asked, *arrays, *fixed, *dots[: len(of_consts)], *init, *dots[len(of_consts) :]]
    # Where x and x' of an input of the old body stand among the inputs of the new one.
    first = {i: len(arrays) + i for i in range(consts)}
    first |= {consts + i: new_consts + i for i in range(carries)}
    second = {i: len(arrays) + consts + j for j, i in enumerate(of_consts)}
    second |= {i: new_consts + carries + j for j, i in enumerate(of_carries)}
    wrt = sorted([first[i] for i in moving] + [second[i] for i in moving])
    new_of_carries = [i for i in wrt if i >= new_consts]
    seeds = {first[i]: or_zeros(dc.get(i), values[i]) for i in of_carries}
    seeds |= {second[i]: or_zeros(c.get(i), values[i]) for i in of_carries}
    back = _pulled_back(
        inputs, [seeds[i] for i in new_of_carries], wrt, condition=both_condition, body=both, tests=tests,
        consts=new_consts,
    )  # fmt: skip
    return {i: back[second[i]] for i in moving}, {i: back[first[i]] for i in moving}


def _pullback_jvp(ins: Values, tangents: Values, **params: Any) -> tuple[list[Any], list[Any]]:
    consts, tests, moving = params["consts"], params["tests"], params["moving"]
    of_consts, of_carries, _ = by_kind(moving, consts, len(params["body"].outs))
    loop, seeds = _pullback_parts(ins, params)
    loop_dots, seed_dots = _pullback_parts(tangents, params)
    given = {i - tests: t for i, t in enumerate(loop_dots) if t is not None and i >= tests}
    c, dc = dict(zip(of_carries, seeds, strict=True)), dict(zip(of_carries, seed_dots, strict=True))
    value, change = _both_ways(loop, given, c, dc, params)
    order = [*of_carries, *of_consts]
    return [value[i] for i in order], [change[i] for i in order]


def _pullback_vjp(ins: Values, wanted: Sequence[int], **params: Any) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    consts, tests, moving, extra = (params[n] for n in ("consts", "tests", "moving", "extra"))
    of_consts, of_carries, _ = by_kind(moving, consts, len(params["body"].outs))
    loop, seeds = _pullback_parts(ins, params)
    outs = while_pullback(*ins, **params)

    def pullback(cts: Values) -> list[Any]:
        # J^T c is linear in c: the cotangent of c is J v. That of x is the gradient of v^T J^T c = c^T J v.
        along = {i: ct for i, ct in zip([*of_carries, *of_consts], cts, strict=True) if ct is not None}
        tangents = [None] * tests + [along.get(i) for i in range(len(params["body"].ins))]
        pushed = _while_jvp(loop, tangents, **_loop_of(params))[1]
        change = _both_ways(loop, along, dict(zip(of_carries, seeds, strict=True)), {}, params)[1]
        first_seed = extra + len(loop)
        found = []
        for i in wanted:
            if i >= first_seed:
                found.append(pushed[of_carries[i - first_seed] - consts])
            else:
                found.append(change.get(i - extra - tests))
        return found

    return tuple(outs), pullback


def _pullback_batch(
    prim: Primitive, args: Values, batched: Sequence[bool], size: int, **params: Any
) -> tuple[Any, ...]:
    condition, body, tests, consts, moving, extra = (
        params[n] for n in ("condition", "body", "tests", "consts", "moving", "extra")
    )
    count = tests + len(body.ins)
    loop, seeds = _pullback_parts(args, params)
    on_loop, on_seeds = _pullback_parts(batched, params)
    # Each entry of the batch has its own sum over the rounds: consts that are differentiated get the axis too.
    on_loop = [b or i - tests in moving or i >= tests + consts for i, b in enumerate(on_loop[:count])]
    loop = [lead(x, size) if b and not old else x for x, b, old in zip(loop, on_loop, batched[extra:], strict=False)]
    seeds = [x if b else lead(x, size) for x, b in zip(seeds, on_seeds, strict=True)]
    new_condition, asked, new_body, arrays = _while_batched(condition, body, tests, consts, on_loop, size)
    test, fixed, init = parts_of(loop, tests, consts)
    shift = len(arrays) + tests
    back = _pulled_back(
        [*asked, *test, *arrays, *test, *fixed, *init], seeds, [i + shift for i in moving], condition=new_condition,
        body=new_body, tests=len(asked) + tests, consts=shift + consts,
    )  # fmt: skip
    of_consts, of_carries, _ = by_kind(moving, consts, len(body.outs))
    return tuple(back[i + shift] for i in (*of_carries, *of_consts))


def _pullback_write(
    k: Any, operands: Values, results: Values, condition: Graph, body: Graph, step: Graph, tests: int, consts: int,
    moving: tuple[int, ...], extra: int,
) -> None:  # fmt: skip
    arrays, asked, fixed, init, seeds = parts_of(operands, extra, tests, consts, len(body.outs))
    in_registers = all(map(k.context.fits_registers, (condition, body, step)))
    status = k.context.fails("tape")
    tapes = [k.tape(x.dtype, max(int(np.prod(x.shape, dtype=int)), 1), status) for x in init]
    rounds = k.variable(k.constant(0))
    every = rounds_between_questions(body) if in_registers else 1
    one = k.constant(1)

    def rows(at: Any) -> list[Any]:
        return [k.shaped_row(tape, at, x.shape, literal=in_registers) for tape, x in zip(tapes, init, strict=True)]

    def there_is_room() -> Any:
        room = k.grow(tapes[0], rounds.value)
        for tape in tapes[1:]:
            room = room & k.grow(tape, rounds.value)
        return room

    if in_registers:
        test, held, more = ([k.registers(x) for x in part] for part in (asked, fixed, arrays))
        state = [k.variables(k.registers(x)) for x in init]

        def ask() -> Any:
            return k.context.in_registers(k, condition, [*test, *map(values_of, state)])[0][()]

        def forth() -> None:
            now = [values_of(v) for v in state]
            for value, row in zip(now, rows(rounds.value), strict=True):
                k.spill(value, row)
            assign(state, k.context.in_registers(k, body, [*held, *now]))
            rounds.set(rounds.value + one)

        with k.repeat(ask, every):
            k.branch(there_is_room(), forth, lambda: None)
        sums = [k.zeros(body.ins[i].aval) for i in moving if i < consts]
        bars = [k.variables(x) for x in (*[k.registers(s) for s in seeds], *sums)]
        with k.repeat(lambda: k.gt(rounds.value, 0), every):
            rounds.set(rounds.value - one)
            before = [k.registers(row) for row in rows(rounds.value)]
            assign(bars, k.context.in_registers(k, step, [*more, *held, *before, *map(values_of, bars)]))
        for value, result in zip(bars, results, strict=True):
            if result is not None:
                k.spill(values_of(value), result)
    else:
        state, following = carried_memory(k, init, [None] * len(init))

        def forth() -> None:
            move(k, state, rows(rounds.value))
            k.context.inline(k, body, [*fixed, *state], following)
            move(k, following, state)
            rounds.set(rounds.value + one)

        with k.repeat(_header(k, condition, [*asked, *state]), every):
            k.branch(there_is_room(), forth, lambda: None)
        zero = [k.context.scratch(body.ins[i].aval.dtype, body.ins[i].aval.shape) for i in moving if i < consts]
        for z in zero:
            k.fill(z, 0)
        bars, after = carried_memory(k, [*seeds, *zero], results)
        with k.repeat(lambda: k.gt(rounds.value, 0), every):
            rounds.set(rounds.value - one)
            k.context.inline(k, step, [*arrays, *fixed, *rows(rounds.value), *bars], after)
            move(k, after, bars)
    for tape in tapes:
        k.free(tape)


while_pullback = Primitive(
    "while_pullback",
    type=_pullback_type,
    impl=_pullback_impl,
    batch=_pullback_batch,
    whole=Whole(_pullback_jvp, _pullback_vjp),
    kernel=Loops(_pullback_write),
    multiple=True,
    numbered=False,
)

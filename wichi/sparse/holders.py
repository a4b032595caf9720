"""How sets go through primitives that hold graphs: calls, branches and loops.

The sets of a loop's carry are those that it may have in any round, found by going on until they grow no more. A short
``scan`` is walked round by round instead. What the rounds of a long one answer is walked for all of them at once, so
its rows stay apart as far as the carries let them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.sparse.rules import Rule, dense
from wichi.sparse.values import Kept, Known, Pattern, Value, Walk, everything, joined, keeping
from wichi.trace.bodies import batched_body, parts_of
from wichi.trace.ir import Atom, Eqn, Graph

_MOST_UNROLLED = 10_000  # equations that are walked round by round
_MOST_ROUNDS = 16  # after which the sets of carries are taken to be all that comes in


def _call(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    return [v.ids for v in walk.walk(eqn.params["graph"], values)]


def _cond(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    """Of the branch that is taken, if that is constant; else of any."""
    index, *operands = values
    if index.ids is not None:
        return dense(walk, eqn, values)
    taken, branches = walk.look(index), eqn.params["branches"]
    with keeping(walk) as kept:
        kept.put("operands", _ids(operands))
        for branch in branches if taken is None else [branches[int(taken)]]:
            found = walk.walk(branch, _values(kept, "operands", operands))
            kept.put("outs", _joined(walk, kept.of("outs", len(found)), _ids(found)))
        return kept.of("outs", len(eqn.outs))


# --- loops -----------------------------------------------------------------------------------------------------------
def _while(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    with keeping(walk) as kept:
        _run_while(walk, kept, eqn, values)
        return kept.of("state", len(eqn.outs))


def _run_while(walk: Walk, kept: Kept, eqn: Eqn, values: Sequence[Value]) -> None:
    """Leaves the patterns of the carries as ``state``, and that of the condition as ``goes on``."""
    condition, body = eqn.params["condition"], eqn.params["body"]
    asked, fixed, init = parts_of(values, eqn.params["tests"], eqn.params["consts"])
    for name, part in (("asked", asked), ("fixed", fixed), ("state", init)):
        kept.put(name, _ids(part))

    def step() -> list[Pattern]:
        state = [Value(ids) for ids in kept.of("state", len(init))]
        kept.put("goes on", _ids(walk.walk(condition, [*_values(kept, "asked", asked), *state])))
        state = [Value(ids) for ids in kept.of("state", len(init))]
        found = walk.walk(body, [*_values(kept, "fixed", fixed), *state])
        return _gated(walk, kept, body, _ids(found))

    _settle(walk, kept, "state", body.outs, step)


def _gated(walk: Walk, kept: Kept, body: Graph, patterns: Sequence[Pattern]) -> list[Pattern]:
    """How often a loop goes round decides about all that it answers."""
    (goes_on,) = kept.of("goes on", 1)
    if goes_on is None:
        return list(patterns)
    return [joined(walk, x, np.broadcast_to(goes_on, o.aval.shape)) for x, o in zip(patterns, body.outs, strict=True)]


def _while_pullback(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    """The loop forwards, and then its steps backwards."""
    params, step = eqn.params, eqn.params["step"]
    count = params["tests"] + len(params["body"].ins)
    arrays, loop, seeds = parts_of(values, params["extra"], count)
    fixed = loop[params["tests"] : params["tests"] + params["consts"]]
    with keeping(walk) as kept:
        kept.put("arrays", _ids(arrays))
        kept.put("bars", _ids(seeds))  # and sums, which begin as zeros
        _run_while(walk, kept, eqn, loop)

        def back() -> list[Pattern]:
            state, bars = kept.of("state", len(params["body"].outs)), kept.of("bars", len(step.outs))
            held = [*_values(kept, "arrays", arrays), *_values(kept, "fixed", fixed)]
            found = walk.walk(step, [*held, *map(Value, state), *map(Value, bars)])
            return _gated(walk, kept, step, _ids(found))

        _settle(walk, kept, "bars", step.outs, back)
        return kept.of("bars", len(eqn.outs))


def _settle(walk: Walk, kept: Kept, name: str, outs: Sequence[Atom], step: Callable[[], list[Pattern]]) -> None:
    """Let the carries ``name``, with types like ``outs``, grow by what ``step`` answers until they do no more."""
    for _ in range(_MOST_ROUNDS):
        new = step()
        before = kept.of(name, len(new))
        grown = _joined(walk, before, new)
        kept.put(name, grown)
        if all(map(_equal, before, grown)):
            return
    number = everything(walk, list(kept.values()))
    kept.put(name, [np.full(o.aval.shape, number) for o in outs])


def _equal(a: Pattern, b: Pattern) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


def _scan(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    body, carries, length = eqn.params["body"], eqn.params["carries"], eqn.params["length"]
    fixed, init, xs = parts_of(values, eqn.params["consts"], carries)
    if length == 0:
        return [*_ids(init), *[None] * (len(eqn.outs) - carries)]
    with keeping(walk) as kept:
        for name, part in (("fixed", fixed), ("init", init), ("state", init), ("xs", xs)):
            kept.put(name, _ids(part))
        kept.put("rows", [None if x.ids is None else walk.sets.along(x.ids, (0,)) for x in xs])

        def step() -> list[Pattern]:
            of_any = map(Value, [*kept.of("state", carries), *kept.of("rows", len(xs))])
            return _ids(walk.walk(body, [*_values(kept, "fixed", fixed), *of_any])[:carries])

        _settle(walk, kept, "state", body.outs[:carries], step)
        if any(ids is not None for ids in kept.of("state", carries)) and length * len(body.eqns) <= _MOST_UNROLLED:
            return _round_by_round(walk, kept, eqn, fixed, init, xs)
        rows = batched_body(body, [False] * len(fixed) + [True] * (len(body.ins) - len(fixed)), length)
        state = [
            Value(None if ids is None else np.broadcast_to(ids, (length, *ids.shape)))
            for ids in kept.of("state", carries)
        ]
        found = walk.walk(rows, [*_values(kept, "fixed", fixed), *state, *_values(kept, "xs", xs)])
        return [*kept.of("state", carries), *_ids(found[carries:])]


def _round_by_round(
    walk: Walk, kept: Kept, eqn: Eqn, fixed: Sequence[Value], init: Sequence[Value], xs: Sequence[Value]
) -> list[Pattern]:
    body, carries, length = eqn.params["body"], eqn.params["carries"], eqn.params["length"]
    kept.put("state", kept.of("init", carries))
    known = [v.known for v in init]
    for i in reversed(range(length)) if eqn.params["reverse"] else range(length):
        state = map(Value, kept.of("state", carries), known)
        rows = [_row(v, i) for v in _values(kept, "xs", xs)]
        found = walk.walk(body, [*_values(kept, "fixed", fixed), *state, *rows])
        kept.put("state", _ids(found[:carries]))
        kept.put(i, _ids(found[carries:]))
        known = [v.known for v in found[:carries]]
    stacked: list[Pattern] = []
    for k, out in enumerate(body.outs[carries:]):
        rounds = [kept.get((i, k)) for i in range(length)]
        empty = np.zeros(out.aval.shape, np.int64)
        stacked.append(
            None if all(ids is None for ids in rounds) else np.stack([empty if r is None else r for r in rounds])
        )
    return [*kept.of("state", carries), *stacked]


def _row(v: Value, i: int) -> Value:
    known = None if v.known is None else Known(v.known.value[i], v.known.sources)
    return Value(None if v.ids is None else np.asarray(v.ids[i]), known)


# --- lists of patterns -----------------------------------------------------------------------------------------------
def _ids(values: Sequence[Value]) -> list[Pattern]:
    return [v.ids for v in values]


def _values(kept: Kept, name: Any, values: Sequence[Value]) -> list[Value]:
    """The values that were kept under this name, with their patterns as they are now."""
    return [Value(ids, v.known) for ids, v in zip(kept.of(name, len(values)), values, strict=True)]


def _joined(walk: Walk, a: Sequence[Pattern], b: Sequence[Pattern]) -> list[Pattern]:
    return [joined(walk, x, y) for x, y in zip(a, b, strict=True)]


HOLDERS: dict[str, Rule] = {
    "call": _call,
    "custom": _call,
    "cond": _cond,
    "while": _while,
    "while_pullback": _while_pullback,
    "scan": _scan,
}

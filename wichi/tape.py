"""What one operation on eager Tensors records: the few equations it ran, and how a gradient is pulled through them.

An operation such as ``a + b`` may take several equations (a cast, a broadcast, the addition). The picture and the
walk-through show it as one step, so its equations are kept together, and backward pulls through all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from wichi.errors import ArgumentError, EscapedValueError, InPlaceError, PlainArrayError, ShapeError
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.dtypes import refuse_subclass, supported
from wichi.trace.forward import add
from wichi.trace.ir import Aval, Where
from wichi.trace.primitive import ONE, ZERO, Primitive, aval_of, partial
from wichi.trace.reverse import cotangents

Array = np.ndarray[Any, np.dtype[Any]]


class Step(NamedTuple):
    """One equation: its values, and the slots they stand in (-1: a constant, which has no gradient).

    One that holds a graph has several results, and its own way back.
    """

    prim: Primitive
    ins: tuple[Any, ...]
    slots: tuple[int, ...]
    params: dict[str, Any]
    out: Any
    slot: int
    pullback: Callable[[Sequence[Any]], Sequence[Any]] | None = None


class Recording:
    """The equations of one operation. Slots 0, 1, ... are its operands, then come the results of its equations."""

    __slots__ = ("count", "steps")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.count = 0

    def operand(self, value: Any) -> Recorded:
        self.count += 1
        return Recorded(self, self.count - 1, value)

    def stage(self, prim: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        for a in args:
            if isinstance(a, Boxed) and not (type(a) is Recorded and a.recording is self):
                raise EscapedValueError(
                    "A value from outside an operation on Tensors got into it, and its gradient would be lost.",
                    at=frames.describe(frames.user_where()),
                    because="an operation sees its arguments: Tensors, or lists, tuples and dicts of them",
                    fix="give it as an argument, or x.detach().data if its gradient is not wanted",
                )
        ins = tuple([a.data if isinstance(a, Boxed) else a for a in args])
        slots = tuple([a.slot if type(a) is Recorded else -1 for a in args])
        if prim.whole is not None:
            wanted = [i for i, s in enumerate(slots) if s >= 0 and aval_of(ins[i]).dtype.kind == "f"]
            outs, pullback = prim.whole.vjp(ins, wanted, **params)
            results = tuple([self.operand(np.asarray(x)) for x in outs])
            self.steps.append(Step(prim, ins, slots, params, outs, results[0].slot, pullback))
            return results
        out = prim.impl(*ins, **params)
        result = self.operand(out)
        self.steps.append(Step(prim, ins, slots, params, out, result.slot))
        return result


class Recorded(Boxed):
    """A value within one operation."""

    __slots__ = ("_aval", "data", "recording", "slot")

    def __init__(self, recording: Recording, slot: int, data: Any) -> None:
        self.recording, self.slot, self.data = recording, slot, data
        self._aval = Aval(data.shape, data.dtype)  # asked for several times in each operation

    @property
    def aval(self) -> Aval:
        return self._aval

    def stage(self, prim: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        return self.recording.stage(prim, args, params)


def pull(steps: Sequence[Step], slot: int, ct: Any, operands: int) -> list[Any]:
    """The cotangents of the operands (None: zero), given that of ``slot``."""
    bars: dict[int, Any] = {slot: ct}
    for step in reversed(steps):
        wanted = [i for i, s in enumerate(step.slots) if s >= 0]
        if step.pullback is not None:
            cts = [bars.pop(step.slot + k, None) for k in range(len(step.out))]
            if any(c is not None for c in cts):
                wanted = [i for i in wanted if aval_of(step.ins[i]).dtype.kind == "f"]
                for i, c in zip(wanted, step.pullback(cts), strict=True):
                    bars[step.slots[i]] = add(bars.get(step.slots[i]), c)
            continue
        ct = bars.pop(step.slot, None)
        if ct is None:
            continue
        for i, c in cotangents(step.prim, step.ins, step.out, step.params, ct, wanted):
            bars[step.slots[i]] = add(bars.get(step.slots[i]), c)
    return [bars.get(i) for i in range(operands)]


class Buffer:
    """Counts the in-place changes to one piece of memory; tensors that view the same memory share it."""

    __slots__ = ("changed", "version")

    def __init__(self) -> None:
        self.version = 0
        self.changed: Where | None = None

    def change(self) -> None:
        self.version += 1
        self.changed = frames.user_where()


# --- does backward still need a value that was changed? Asked only when something was changed. -----------------------
class _Probe(Boxed):
    """Stands for a value in a derivative rule and notes whether the rule looks at more than its type."""

    __slots__ = ("_aval", "read")

    def __init__(self, aval: Aval) -> None:
        self._aval, self.read = aval, False

    @property
    def aval(self) -> Aval:
        return self._aval

    def stage(self, prim: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        for a in args:
            if isinstance(a, _Probe):
                a.read = True
        return _Probe(prim.type(*map(aval_of, args), **params))


def values_needed(steps: Iterable[Step]) -> list[Any]:
    """The values, not only the types, that the derivatives of ``steps`` look at."""
    needed: list[Any] = []
    for step in steps:
        wanted = [i for i, s in enumerate(step.slots) if s >= 0]
        if not step.prim.differentiable or not wanted:
            continue
        if step.prim.partials is not None:
            needed += _read_by_partials(step, wanted)
        elif step.prim.transpose is None:
            needed += [*step.ins, step.out]  # a jvp rule may look at anything
        elif step.prim.multilinear:
            needed += [x for j, x in enumerate(step.ins) if any(i != j for i in wanted)]
        else:
            needed += [x for x in step.ins if aval_of(x).dtype.kind != "f"]  # conditions and indices
    return needed


def _read_by_partials(step: Step, wanted: Sequence[int]) -> list[Any]:
    values = [step.out, *step.ins]
    probes = [_Probe(aval_of(v)) for v in values]
    for i in wanted:
        result = partial(step.prim, i, probes[0], probes[1:], step.params)
        if result is not ONE and result is not ZERO and isinstance(result, _Probe):
            result.read = True
    return [v for v, p in zip(values, probes, strict=True) if p.read]


def needs_memory_of(data: Array, steps: Iterable[Step]) -> bool:
    """Whether a derivative of ``steps`` looks at values in the memory of ``data``."""
    return any(isinstance(v, np.ndarray) and np.may_share_memory(v, data) for v in values_needed(steps))


_AUGMENTED = re.compile(r"^\s*(?P<target>[\w.\[\]]+)\s*(?P<op>[-+*/])=\s*(?P<value>.+?)\s*(#.*)?$")


def refuse(
    label: str, aval: Aval, made: Where | None, buffer: Buffer, op: str, used: Where | None, why: str
) -> NoReturn:
    """Raise W301: names the line of the change and the line of the operation."""
    import linecache

    change = buffer.changed
    found = _AUGMENTED.match(linecache.getline(change.file, change.line)) if change else None
    target = found["target"] if found else ""
    name = label or target.removesuffix(".data") or "a tensor"
    by = f" by `{target} {found['op']}= {found['value']}`" if found else " in place"
    fix = "call backward() before the change, or compute the loss again after it"
    if found and not target.endswith((".data", "]")):
        fix = f"{target} = {target} {found['op']} {found['value']}"
    raise InPlaceError(
        f"`{name}` was changed{by}, but backward of {op} {why}.",
        at=frames.describe(change),
        value=f"{aval}" + (f", made at {frames.describe(made)}" if made else ""),
        because=f"{op} ran with the old value at {frames.describe(used)}" if used else "it ran with the old value",
        fix=fix,
    )


def swapped(x: Any, swap: Callable[[Any], Any]) -> Any:
    """``x`` with ``swap`` applied to what stands in nested lists, tuples, NamedTuples and dicts."""
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*[swapped(v, swap) for v in x])
    if type(x) in (list, tuple):  # arguments of NumPy functions nest two or three levels
        return type(x)([swapped(v, swap) for v in x])
    if type(x) is dict:
        return {k: swapped(v, swap) for k, v in x.items()}
    return swap(x)


# --- operands and names -----------------------------------------------------------------------------------------------
def plain_array(data: Any) -> Array:
    """A copy of ``data`` as an array of a dtype that wichi computes with; other Tensors would lose their history."""
    if isinstance(data, Boxed):
        raise ArgumentError(
            "Tensor(x) of a Tensor would lose its history.",
            at=frames.describe(frames.user_where()),
            fix="x.detach() for the same numbers without history",
        )
    if isinstance(data, list | tuple) and _holds_boxed(data):
        raise PlainArrayError(
            "Tensor([...]) of Tensors would lose their gradients.",
            at=frames.describe(frames.user_where()),
            fix="np.stack([...])",
        )
    refuse_subclass(data, "The data of a Tensor")
    try:
        array = np.array(data)
    except ValueError as error:  # ragged lists
        raise ShapeError(f"These lists form no array: {error}", at=frames.describe(frames.user_where())) from None
    return array.astype(supported(array.dtype, "A Tensor"), copy=False)


def _holds_boxed(x: Any) -> bool:
    waiting: list[Any] = list(x)
    while waiting:
        item = waiting.pop()
        if isinstance(item, Boxed):
            return True
        if isinstance(item, list | tuple):
            waiting.extend(item)
    return False


_SYMBOLS = {"add": "+", "multiply": "*", "divide": "/", "matmul": "@", "relu": "ReLU", "remainder": "%",
            "floor_divide": "//"}  # fmt: skip
_REDUCTIONS = {"sum", "mean", "prod", "amax", "amin", "max", "min", "logsumexp", "argmax", "argmin"}


def symbol(name: str, args: Iterable[Any], kwargs: dict[str, Any]) -> str:
    """An operation as pictures show it: ``+``, ``**2``, ``.sum(dim=all)``."""
    if name == "power":
        exponent = [*args][1]
        return f"**{exponent}" if isinstance(exponent, int | float | np.generic) else "**"
    if name in _REDUCTIONS:
        axis = kwargs.get("axis")
        return f".{name.removeprefix('a') if name in ('amax', 'amin') else name}(dim={'all' if axis is None else axis})"
    return _SYMBOLS.get(name, name)

"""Algebra tried once when an equation is appended. Only what IEEE arithmetic makes exact: ``x + 0`` stays, for -0.

Each rule takes the builder, the inputs and the parameters, and answers a simpler atom or None.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.trace.ir import Atom, Builder, Const
from wichi.trace.primitive import Primitive


def _prim(name: str) -> Primitive:
    return Primitive.table[name]


def _value(b: Builder, atom: Atom) -> Any | None:
    const = b.filled_with(atom)
    return None if const is None else const.value


def _shape(ins: tuple[Atom, ...]) -> tuple[int, ...]:
    return next((a.aval.shape for a in ins if a.aval.shape), ())


def _keeps(atom: Atom, ins: tuple[Atom, ...]) -> bool:
    return atom.aval.shape == _shape(ins)


def _is_float(atom: Atom) -> bool:
    return atom.aval.dtype.kind == "f"


def add(b: Builder, ins: tuple[Atom, ...], params: Any) -> Atom | None:
    """``x + (-y) -> x - y`` and ``(-x) + y -> y - x``."""
    for x, y in (ins, ins[::-1]):
        negated = b.made_by(y, "neg")
        if negated is not None and _keeps(negated.ins[0], ins):
            return b.emit(_prim("sub"), (x, negated.ins[0]), {})[0]
    return None


def sub(b: Builder, ins: tuple[Atom, ...], params: Any) -> Atom | None:
    """``x - 0 -> x`` and ``x - (-y) -> x + y``."""
    x, y = ins
    zero = _value(b, y)
    if zero is not None and zero == 0 and not np.signbit(zero) and _keeps(x, ins):
        return x
    negated = b.made_by(y, "neg")
    return b.emit(_prim("add"), (x, negated.ins[0]), {})[0] if negated is not None else None


def mul(b: Builder, ins: tuple[Atom, ...], params: Any) -> Atom | None:
    """``x * 1 -> x``, ``x * -1 -> -x``, ``x * x -> square(x)``."""
    if ins[0].aval.dtype.kind == "b":
        return None
    for x, y in (ins, ins[::-1]):
        factor = _value(b, y)
        if factor is not None and _keeps(x, ins):
            if factor == 1:
                return x
            if factor == -1:
                return b.emit(_prim("neg"), (x,), {})[0]
    return b.emit(_prim("square"), ins[:1], {})[0] if ins[0] is ins[1] and type(ins[0]) is not Const else None


def div(b: Builder, ins: tuple[Atom, ...], params: Any) -> Atom | None:
    """``x / 1 -> x``."""
    divisor = _value(b, ins[1])
    return ins[0] if divisor is not None and divisor == 1 and _keeps(ins[0], ins) else None


def neg(b: Builder, ins: tuple[Atom, ...], params: Any) -> Atom | None:
    """``-(-x) -> x``."""
    negated = b.made_by(ins[0], "neg")
    return negated.ins[0] if negated is not None else None


def power(b: Builder, ins: tuple[Atom, ...], params: Any) -> Atom | None:
    """``x**2 -> square``, ``x**1 -> x``, ``x**-1 -> 1/x``, ``x**0.5 -> sqrt`` as NumPy does it; ``x**3``, ``x**4``."""
    x, y = ins
    exponent = _value(b, y)
    if exponent is None or not _keeps(x, ins) or type(x) is Const:
        return None
    if exponent == 1:
        return x
    if exponent == 2:
        return b.emit(_prim("square"), (x,), {})[0]
    if exponent == 3:
        return b.emit(_prim("mul"), (power(b, (x, _like(b, 2, x)), {}) or x, x), {})[0]
    if exponent == 4:
        return b.emit(_prim("square"), (b.emit(_prim("square"), (x,), {})[0],), {})[0]
    if not _is_float(x):
        return None
    if exponent == -1:
        return b.emit(_prim("div"), (_like(b, 1, x), x), {})[0]
    if exponent == 0.5:
        return b.emit(_prim("sqrt"), (x,), {})[0]
    return None


def _like(b: Builder, value: float, x: Atom) -> Const:
    return b.scalar(x.aval.dtype.type(value))


def where(b: Builder, ins: tuple[Atom, ...], params: Any) -> Atom | None:
    """A constant condition chooses; equal branches need no choice."""
    condition = _value(b, ins[0])
    if condition is not None:
        chosen = ins[1] if condition else ins[2]
        return chosen if _keeps(chosen, ins) else None
    return ins[1] if ins[1] is ins[2] and _keeps(ins[1], ins) else None

"""Algebra tried once when an equation is appended. Only what IEEE arithmetic makes exact: ``x + 0`` stays, for -0.

``log(sum(exp(x - m))) + m``, ``exp(x - m) / sum(exp(x - m))`` and ``(x - m) - log(sum(exp(x - m)))`` do not depend on
``m``, which people subtract so that nothing overflows. Their values stay as they are written, but ``m`` becomes a
constant of differentiation: its parts of a derivative cancel, and cost as much as all the rest.

Each rule takes the builder, the inputs and the parameters, and answers a simpler atom or None.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.trace.ir import Atom, Builder, Const, Eqn, Var
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
    """``x + (-y) -> x - y`` and ``(-x) + y -> y - x``; ``log(sum(exp(x - m))) + m``."""
    for x, y in (ins, ins[::-1]):
        frozen = _log_of_shifted_sum(b, x, y)
        if frozen is not None:
            return b.emit(_prim("add"), frozen if x is ins[0] else frozen[::-1], {})[0]
        negated = b.made_by(y, "neg")
        if negated is not None and _keeps(negated.ins[0], ins):
            return b.emit(_prim("sub"), (x, negated.ins[0]), {})[0]
    return None


def sub(b: Builder, ins: tuple[Atom, ...], params: Any) -> Atom | None:
    """``x - 0 -> x`` and ``x - (-y) -> x + y``; ``(x - m) - log(sum(exp(x - m)))``."""
    x, y = ins
    shifted = _log_softmax(b, x, y)
    if shifted is not None:
        return shifted
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
    """``x / 1 -> x``; ``exp(x - m) / sum(exp(x - m))``.

    ``x / 8`` stays, though ``x * 0.125`` is the same and cheaper: the 8 may be a number of rows, and programs for
    other numbers of rows must be the same program.
    """
    x, y = ins
    divisor = _value(b, y)
    if divisor is not None and divisor == 1 and _keeps(x, ins):
        return x
    return _softmax(b, x, y)


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


# --- what does not depend on the number that is subtracted ---------------------------------------------------------
def _squeezed(b: Builder, atom: Atom) -> Atom:
    """Without the reshapes that only add or take axes of 1."""
    while (eqn := b.made_by(atom, "reshape")) is not None:
        (inner,) = eqn.ins
        if [n for n in inner.aval.shape if n != 1] != [n for n in atom.aval.shape if n != 1]:
            break
        atom = inner
    return atom


def _spread(b: Builder, atom: Atom) -> tuple[Atom, tuple[int, ...]] | None:
    """The value that ``atom`` is a broadcast of, and the axes of ``atom`` along which it varies."""
    eqn = b.made_by(atom, "broadcast")
    if eqn is None:
        return None
    kept = [axis for axis in range(len(eqn.params["shape"])) if axis not in eqn.params["axes"]]
    varies = tuple(axis for axis, n in zip(kept, eqn.ins[0].aval.shape, strict=True) if n != 1)
    return _squeezed(b, eqn.ins[0]), varies


def _varying(shape: tuple[int, ...], reduced: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis, n in enumerate(shape) if axis not in reduced and n != 1)


def _shifted_exp(b: Builder, atom: Atom) -> tuple[Eqn, Eqn, Atom, tuple[int, ...]] | None:
    """Of ``exp(x - m)``: the two equations, ``m``, and the axes along which it varies."""
    exp = b.made_by(atom, "exp")
    sub = b.made_by(exp.ins[0], "sub") if exp is not None else None
    found = _spread(b, sub.ins[1]) if sub is not None else None
    if exp is None or sub is None or found is None or b.made_by(found[0], "stop_gradient") is not None:
        return None
    return (exp, sub, *found) if type(found[0]) is not Const else None


def _frozen(b: Builder, m: Atom, sub: Eqn) -> tuple[Atom, Atom]:
    """``m`` as a constant of differentiation, and ``x - m`` with it."""
    constant = b.emit(_prim("stop_gradient"), (m,), {})[0]
    spread = b.made_by(sub.ins[1], "broadcast")
    assert spread is not None
    inner = b.emit(_prim("reshape"), (constant,), {"shape": spread.ins[0].aval.shape})[0]
    wide = b.emit(_prim("broadcast"), (inner,), dict(spread.params))[0]
    return constant, b.emit(_prim("sub"), (sub.ins[0], wide), {})[0]


def _log_sum_of(b: Builder, atom: Atom) -> tuple[Eqn, Eqn] | None:
    """The equations of ``log(sum(...))``."""
    made = b.producer.get(atom) if type(atom) is Var else None
    if made is None or made.prim.name not in ("log", "reshape"):
        return None
    log = b.made_by(_squeezed(b, atom), "log")
    total = b.made_by(_squeezed(b, log.ins[0]), "sum") if log is not None else None
    return (log, total) if log is not None and total is not None else None


def _like_before(b: Builder, value: Atom, atom: Atom) -> Atom:
    return b.emit(_prim("reshape"), (value,), {"shape": atom.aval.shape})[0]


def _log_of_shifted_sum(b: Builder, x: Atom, y: Atom) -> tuple[Atom, Atom] | None:
    """``x`` and ``y`` with ``m`` frozen, if they are ``log(sum(exp(z - m)))`` and ``m``."""
    found = _log_sum_of(b, x)
    shifted = _shifted_exp(b, found[1].ins[0]) if found is not None else None
    if found is None or shifted is None:
        return None
    total, (exp, sub, m, varies) = found[1], shifted
    if _squeezed(b, y) is not m or varies != _varying(exp.outs[0].aval.shape, total.params["axes"]):
        return None
    constant, difference = _frozen(b, m, sub)
    new = b.emit(_prim("exp"), (difference,), {})[0]
    new = b.emit(_prim("sum"), (new,), dict(total.params))[0]
    new = b.emit(_prim("log"), (new,), {})[0]
    return _like_before(b, new, x), _like_before(b, constant, y)


def _softmax(b: Builder, x: Atom, y: Atom) -> Atom | None:
    """``x / y`` with ``m`` frozen, if it is ``exp(z - m) / sum(exp(z - m))``."""
    shifted, found = _shifted_exp(b, x), _spread(b, y)
    total = b.made_by(found[0], "sum") if found is not None else None
    if shifted is None or found is None or total is None or total.ins[0] is not x:
        return None
    _, sub, m, varies = shifted
    if not varies == found[1] == _varying(x.aval.shape, total.params["axes"]):
        return None
    new = b.emit(_prim("exp"), (_frozen(b, m, sub)[1],), {})[0]
    return b.emit(_prim("div"), (new, _respread(b, y, b.emit(_prim("sum"), (new,), dict(total.params))[0])), {})[0]


def _log_softmax(b: Builder, x: Atom, y: Atom) -> Atom | None:
    """``x - y`` with ``m`` frozen, if it is ``(z - m) - log(sum(exp(z - m)))``."""
    sub, found = b.made_by(x, "sub"), _spread(b, y)
    logs = _log_sum_of(b, found[0]) if found is not None else None
    shifted = _shifted_exp(b, logs[1].ins[0]) if logs is not None else None
    if sub is None or found is None or logs is None or shifted is None or shifted[1] is not sub:
        return None
    _, total = logs
    if not shifted[3] == found[1] == _varying(x.aval.shape, total.params["axes"]):
        return None
    _, difference = _frozen(b, shifted[2], sub)
    new = b.emit(_prim("exp"), (difference,), {})[0]
    new = b.emit(_prim("log"), (b.emit(_prim("sum"), (new,), dict(total.params))[0],), {})[0]
    return b.emit(_prim("sub"), (difference, _respread(b, y, new)), {})[0]


def _respread(b: Builder, wide: Atom, value: Atom) -> Atom:
    """``value`` spread as ``wide`` is."""
    eqn = b.made_by(wide, "broadcast")
    assert eqn is not None
    inner = b.emit(_prim("reshape"), (value,), {"shape": eqn.ins[0].aval.shape})[0]
    return b.emit(_prim("broadcast"), (inner,), dict(eqn.params))[0]

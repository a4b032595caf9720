"""Scalar operations as LLVM instructions, for one element or a vector of them. NumPy's meaning, IEEE's edges.

Nothing traps and nothing is undefined: integer division by zero is 0 and INT_MIN / -1 wraps (as NumPy answers),
and a float outside an integer's range saturates when cast (NumPy leaves that to the CPU).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from wichi.kernels import vecmath

_I1, _I8, _I32 = ir.IntType(1), ir.IntType(8), ir.IntType(32)
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_INTRINSICS = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint", "sqrt": "sqrt", "abs": "fabs"}
_LIBM = {
    **{name: name for name in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "cbrt", "sin", "cos", "tan",
                               "sinh", "cosh", "tanh", "erf", "erfc", "pow")},
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh", "arccosh": "acosh",
    "arctanh": "atanh",
}  # fmt: skip
Builder = ir.IRBuilder
Emit = Callable[[Builder, Sequence[Any], np.dtype[Any]], Any]


def register_type(dtype: np.dtype[Any]) -> Any:
    """The LLVM type a number has in a register; a bool is one bit there."""
    if dtype.kind == "f":
        return ir.DoubleType() if dtype.itemsize == 8 else ir.FloatType()
    return _I1 if dtype.kind == "b" else ir.IntType(8 * dtype.itemsize)


def memory_type(dtype: np.dtype[Any]) -> Any:
    """The LLVM type a number has in memory; a bool is one byte there."""
    return _I8 if dtype.kind == "b" else register_type(dtype)


def constant(value: Any, dtype: np.dtype[Any]) -> Any:
    return ir.Constant(register_type(dtype), float(value) if dtype.kind == "f" else int(value))


def splat(b: Builder, value: Any, lanes: int) -> Any:
    """The same value in every lane."""
    kind = ir.VectorType(value.type, lanes)
    if isinstance(value, ir.Constant):
        return ir.Constant(kind, [value] * lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(undefined, value, _I32(0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def from_memory(b: Builder, raw: Any, dtype: np.dtype[Any]) -> Any:
    return b.icmp_unsigned("!=", raw, ir.Constant(raw.type, _filled(raw.type, 0))) if dtype.kind == "b" else raw


def to_memory(b: Builder, value: Any, dtype: np.dtype[Any]) -> Any:
    return b.zext(value, _like(value, _I8)) if dtype.kind == "b" else value


def compute(
    b: Builder,
    op: str,
    args: Sequence[Any],
    dtypes: Sequence[np.dtype[Any]],
    dtype: np.dtype[Any],
    lanes: int,
    fused: bool = False,
    mask: Any = None,
) -> Any:
    """``op(*args)``; all args are scalars (``lanes == 0``) or vectors of ``lanes``.

    ``fused``: the processor has fused multiply-adds. ``mask``: the lanes that count; what others are does not matter.
    """
    kind = dtypes[-1]
    if op == "cast":
        return _cast(b, args[0], kind, dtype)
    if op == "select":
        return b.select(*args)
    if op in _COMPARE:
        return _compare(b, op, args, kind)
    table = _FLOAT if kind.kind == "f" else _BOOL if kind.kind == "b" else _INTEGER
    if op in table:
        return table[op](b, args, kind)
    if kind.kind == "f" and op in _INTRINSICS:
        return _intrinsic(b, _INTRINSICS[op], args)
    if kind.kind == "f" and op in vecmath.FUNCTIONS:
        return vecmath.emit(b, op, args, lambda b, xs: _library(b, _name_in_c(op, xs[0]), xs, 0), fused, mask)
    if kind.kind == "f" and op in _LIBM:
        return _library(b, _name_in_c(op, args[0]), args, lanes)
    raise AssertionError(f"no native form of {op} on {kind}")


def _name_in_c(op: str, like: Any) -> str:
    """The C library's name for ``op`` on numbers (or vectors) of a float type."""
    return _LIBM[op] + ("" if _suffix(like.type).endswith("64") else "f")


def _filled(kind: Any, number: float) -> Any:
    return (
        [number if not isinstance(kind.element, ir.IntType) else int(number)] * kind.count
        if isinstance(kind, ir.VectorType)
        else number
    )


def _number(like: Any, number: float) -> Any:
    """``number`` of the type of ``like``, in every lane."""
    return ir.Constant(like.type, _filled(like.type, number))


def _like(value: Any, element: Any) -> Any:
    return ir.VectorType(element, value.type.count) if isinstance(value.type, ir.VectorType) else element


def _suffix(kind: Any) -> str:
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_suffix(kind.element)}"
    return f"i{kind.width}" if isinstance(kind, ir.IntType) else "f64" if isinstance(kind, ir.DoubleType) else "f32"


def _declared(b: Builder, name: str, kind: ir.FunctionType) -> Any:
    return b.module.globals.get(name) or ir.Function(b.module, kind, name)


def _intrinsic(b: Builder, name: str, args: Sequence[Any]) -> Any:
    kind = args[0].type
    return b.call(_declared(b, f"llvm.{name}.{_suffix(kind)}", ir.FunctionType(kind, [kind] * len(args))), args)


def multiply_add(b: Builder, x: Any, y: Any, z: Any, fused: bool) -> Any:
    """``x * y + z``, rounded once where ``fused``: that is for processors that have it."""
    if not fused:
        return b.fadd(b.fmul(x, y), z)
    return _intrinsic(b, "fma", [x, y, z])


def masked_load(b: Builder, pointer: Any, alignment: int, mask: Any, rest: Any) -> Any:
    """The lanes of ``mask`` from memory, the others from ``rest``; memory of the others is not touched."""
    kind = rest.type
    signature = ir.FunctionType(kind, [pointer.type, _I32, mask.type, kind])
    return b.call(
        _declared(b, f"llvm.masked.load.{_suffix(kind)}.p0", signature), [pointer, _I32(alignment), mask, rest]
    )


def masked_store(b: Builder, value: Any, pointer: Any, alignment: int, mask: Any) -> None:
    """The lanes of ``mask`` into memory; the others are not touched."""
    signature = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, _I32, mask.type])
    function = _declared(b, f"llvm.masked.store.{_suffix(value.type)}.p0", signature)
    b.call(function, [value, pointer, _I32(alignment), mask])


def _library(b: Builder, name: str, args: Sequence[Any], lanes: int) -> Any:
    element = args[0].type.element if lanes else args[0].type
    function = _declared(b, name, ir.FunctionType(element, [element] * len(args)))
    if not lanes:
        return b.call(function, args)
    out = ir.Constant(args[0].type, ir.Undefined)
    for lane in range(lanes):
        out = b.insert_element(out, b.call(function, [b.extract_element(a, _I32(lane)) for a in args]), _I32(lane))
    return out


def _compare(b: Builder, op: str, args: Sequence[Any], kind: np.dtype[Any]) -> Any:
    if kind.kind == "f":
        ordered = b.fcmp_unordered if op == "ne" else b.fcmp_ordered  # nan differs from everything, itself included
        return ordered(_COMPARE[op], *args)
    return (b.icmp_signed if kind.kind == "i" else b.icmp_unsigned)(_COMPARE[op], *args)


def _cast(b: Builder, x: Any, old: np.dtype[Any], new: np.dtype[Any]) -> Any:
    target = _like(x, register_type(new))
    if new.kind == "b":
        zero = _number(x, 0)
        return b.fcmp_unordered("!=", x, zero) if old.kind == "f" else b.icmp_unsigned("!=", x, zero)
    if old.kind == "f" and new.kind == "f":
        return x if old == new else b.fpext(x, target) if new.itemsize > old.itemsize else b.fptrunc(x, target)
    if old.kind == "f":
        name = f"llvm.fpto{'s' if new.kind == 'i' else 'u'}i.sat.{_suffix(target)}.{_suffix(x.type)}"
        return b.call(_declared(b, name, ir.FunctionType(target, [x.type])), [x])
    if new.kind == "f":
        return b.sitofp(x, target) if old.kind == "i" else b.uitofp(x, target)
    if old.kind != "b" and new.itemsize == old.itemsize:
        return x
    if old.kind != "b" and new.itemsize < old.itemsize:
        return b.trunc(x, target)
    return b.sext(x, target) if old.kind == "i" else b.zext(x, target)


# --- floats ------------------------------------------------------------------------------------------------------
def _extremum(comparison: str) -> Emit:
    """NumPy's maximum and minimum: the first operand if it wins, ties or is nan."""

    def emit(b: Builder, args: Sequence[Any], kind: np.dtype[Any]) -> Any:
        x, y = args
        if kind.kind != "f":
            return b.select(_compare(b, comparison, args, kind), x, y)
        return b.select(b.or_(b.fcmp_ordered(_COMPARE[comparison], x, y), b.fcmp_unordered("uno", x, x)), x, y)

    return emit


def _float_sign(b: Builder, args: Sequence[Any], kind: np.dtype[Any]) -> Any:
    (x,) = args
    zero = _number(x, 0.0)
    below = b.select(b.fcmp_ordered("<", x, zero), _number(x, -1.0), b.select(b.fcmp_ordered("==", x, zero), zero, x))
    return b.select(b.fcmp_ordered(">", x, zero), _number(x, 1.0), below)


def _copysign(b: Builder, magnitude: Any, sign: Any) -> Any:
    return _intrinsic(b, "copysign", [magnitude, sign])


def _float_mod(b: Builder, args: Sequence[Any], kind: np.dtype[Any]) -> Any:
    """Python's remainder: the sign of the divisor, and of a zero too (npy_divmod)."""
    x, y = args
    zero = _number(x, 0.0)
    rest = b.frem(x, y)
    nonzero = b.fcmp_unordered("!=", rest, zero)
    other_side = b.xor(b.fcmp_ordered("<", y, zero), b.fcmp_ordered("<", rest, zero))
    moved = b.select(b.and_(nonzero, other_side), b.fadd(rest, y), rest)
    whole = b.select(nonzero, moved, _copysign(b, zero, y))
    return b.select(b.fcmp_unordered("==", y, zero), rest, whole)  # y zero or nan: what fmod says, which is nan


def _float_floordiv(b: Builder, args: Sequence[Any], kind: np.dtype[Any]) -> Any:
    """npy_floor_divide: exact where a floor of the rounded quotient would be one too high."""
    x, y = args
    zero, one = _number(x, 0.0), _number(x, 1.0)
    rest = b.frem(x, y)
    quotient = b.fdiv(b.fsub(x, rest), y)
    other_side = b.xor(b.fcmp_ordered("<", y, zero), b.fcmp_ordered("<", rest, zero))
    fix = b.and_(b.fcmp_unordered("!=", rest, zero), other_side)
    quotient = b.select(fix, b.fsub(quotient, one), quotient)
    floored = _intrinsic(b, "floor", [quotient])
    late = b.fcmp_ordered(">", b.fsub(quotient, floored), _number(x, 0.5))
    whole = b.select(late, b.fadd(floored, one), floored)
    signed_zero = _copysign(b, zero, b.fdiv(x, y))
    result = b.select(b.fcmp_unordered("!=", quotient, zero), whole, signed_zero)
    return b.select(b.fcmp_ordered("==", y, zero), b.fdiv(x, y), result)


_FLOAT: dict[str, Emit] = {
    "add": lambda b, a, t: b.fadd(*a),
    "sub": lambda b, a, t: b.fsub(*a),
    "mul": lambda b, a, t: b.fmul(*a),
    "div": lambda b, a, t: b.fdiv(*a),
    "neg": lambda b, a, t: b.fneg(*a),
    "maximum": _extremum("ge"),
    "minimum": _extremum("le"),
    "sign": _float_sign,
    "mod": _float_mod,
    "floordiv": _float_floordiv,
}


# --- integers ------------------------------------------------------------------------------------------------------
def _divide(b: Builder, x: Any, y: Any, kind: np.dtype[Any]) -> tuple[Any, Any]:
    """Floored quotient and remainder; both 0 for a zero divisor, and INT_MIN / -1 = INT_MIN."""
    zero, one = _number(x, 0), _number(x, 1)
    by_zero = b.icmp_unsigned("==", y, zero)
    if kind.kind == "u":
        safe = b.select(by_zero, one, y)
        quotient, rest = b.udiv(x, safe), b.urem(x, safe)
        return b.select(by_zero, zero, quotient), b.select(by_zero, zero, rest)
    by_minus_one = b.icmp_signed("==", y, _number(x, -1))
    safe = b.select(b.or_(by_zero, by_minus_one), one, y)
    quotient, rest = b.sdiv(x, safe), b.srem(x, safe)
    low = b.and_(b.icmp_signed("!=", rest, zero), b.xor(b.icmp_signed("<", rest, zero), b.icmp_signed("<", y, zero)))
    quotient = b.select(low, b.sub(quotient, one), quotient)
    rest = b.select(low, b.add(rest, y), rest)
    quotient = b.select(by_minus_one, b.sub(zero, x), quotient)
    return b.select(by_zero, zero, quotient), b.select(by_zero, zero, rest)


def _integer_abs(b: Builder, args: Sequence[Any], kind: np.dtype[Any]) -> Any:
    (x,) = args
    if kind.kind == "u":
        return x
    zero = _number(x, 0)
    return b.select(b.icmp_signed("<", x, zero), b.sub(zero, x), x)


def _integer_sign(b: Builder, args: Sequence[Any], kind: np.dtype[Any]) -> Any:
    (x,) = args
    zero = _number(x, 0)
    positive = b.zext(_compare(b, "gt", [x, zero], kind), x.type)
    return b.sub(positive, b.zext(_compare(b, "lt", [x, zero], kind), x.type))


def _same(b: Builder, args: Sequence[Any], kind: np.dtype[Any]) -> Any:
    return args[0]


_INTEGER: dict[str, Emit] = {
    "add": lambda b, a, t: b.add(*a),
    "sub": lambda b, a, t: b.sub(*a),
    "mul": lambda b, a, t: b.mul(*a),
    "neg": lambda b, a, t: b.sub(_number(a[0], 0), a[0]),
    "floordiv": lambda b, a, t: _divide(b, *a, t)[0],
    "mod": lambda b, a, t: _divide(b, *a, t)[1],
    "abs": _integer_abs,
    "sign": _integer_sign,
    "maximum": _extremum("ge"),
    "minimum": _extremum("le"),
    "and": lambda b, a, t: b.and_(*a),
    "or": lambda b, a, t: b.or_(*a),
    "xor": lambda b, a, t: b.xor(*a),
    "not": lambda b, a, t: b.not_(*a),
    **dict.fromkeys(("floor", "ceil", "trunc", "rint"), _same),
}
_BOOL: dict[str, Emit] = {
    **dict.fromkeys(("add", "or", "maximum"), _INTEGER["or"]),
    **dict.fromkeys(("mul", "and", "minimum"), _INTEGER["and"]),
    "xor": _INTEGER["xor"],
    "not": _INTEGER["not"],
}

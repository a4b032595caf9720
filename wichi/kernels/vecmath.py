"""exp, log, sin … as straight-line arithmetic on vectors: the same instructions for one number and for many.

Only ``+ - * /``, square roots, comparisons, selects and integer operations on the bits of a float are used, so any LLVM
target runs them at the width it has. What a formula does not serve (an infinity, a subnormal, the sine of 1e9) is
flagged; a branch that is hardly ever taken, one a block, mends the flagged lanes and no others, so that a number has
the same result whatever stands beside it. What mends is a function of its own, once a module.

``docs/vecmath.md`` has the measured errors and times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir

from wichi.kernels import vecmath_arc as arc
from wichi.kernels import vecmath_circular as circular
from wichi.kernels import vecmath_error as error
from wichi.kernels import vecmath_exponential as exponential
from wichi.kernels import vecmath_hyperbolic as hyperbolic
from wichi.kernels import vecmath_logarithm as logarithm
from wichi.kernels import vecmath_power as power
from wichi.kernels.vecmath_numbers import DOUBLE, Real, beside, format_of

Library = Callable[[ir.IRBuilder, Sequence[Any]], Any]


class Function(NamedTuple):
    """``formula(*xs)`` answers the value and the lanes where it does not hold (None: it holds everywhere).

    These are ``mend(*xs)``; ``mend`` None: the C library, lane by lane. ``simple(*xs)``: those of these lanes, and
    their one answer, that are so frequent in some data that no function should be called for them.
    """

    formula: Callable[..., tuple[Real, Any]]
    mend: Callable[..., Real] | None = None
    simple: Callable[..., tuple[Any, float]] | None = None


def _function(
    formula: Callable[..., Real], special: Callable[..., Any] | None = None, mend: Any = None, simple: Any = None
) -> Function:
    return Function(lambda *xs: (formula(*xs), special(*xs) if special is not None else None), mend, simple)


FUNCTIONS: dict[str, Function] = {
    "exp": _function(exponential.exp, exponential.is_extreme, exponential.exp_anywhere, exponential.vanishes),
    "exp2": _function(exponential.exp2, exponential.is_extreme2, exponential.exp2_anywhere),
    "expm1": _function(exponential.expm1, exponential.expm1_is_special, exponential.exp_anywhere),
    "softplus": _function(exponential.softplus, exponential.softplus_is_special, exponential.exp_anywhere),
    "sinh": _function(hyperbolic.sinh, exponential.is_extreme, hyperbolic.sinh_anywhere),
    "cosh": _function(hyperbolic.cosh, exponential.is_extreme, hyperbolic.cosh_anywhere),
    "tanh": _function(hyperbolic.tanh),
    "log": _function(logarithm.log, logarithm.is_special, logarithm.log_anywhere),
    "log2": _function(logarithm.log2, logarithm.is_special, logarithm.log2_anywhere),
    "log10": _function(logarithm.log10, logarithm.is_special, logarithm.log10_anywhere),
    "log1p": _function(logarithm.log1p, logarithm.log1p_is_special, logarithm.log1p_anywhere),
    "sin": _function(circular.sin, circular.is_large),
    "cos": _function(circular.cos, circular.is_large),
    "tan": _function(circular.tan, circular.is_large),
    "arctan": _function(arc.atan),
    "arctan2": _function(arc.atan2, arc.atan2_is_special, arc.atan2_anywhere),
    "arcsin": _function(arc.asin),
    "arccos": _function(arc.acos),
    "arcsinh": _function(hyperbolic.arcsinh, hyperbolic.arcsinh_is_special, hyperbolic.arcsinh_anywhere),
    "arccosh": _function(hyperbolic.arccosh, hyperbolic.arccosh_is_special, hyperbolic.arccosh_anywhere),
    "arctanh": _function(hyperbolic.arctanh, hyperbolic.arctanh_is_special, hyperbolic.arctanh_anywhere),
    "erf": _function(error.erf),
    "erfc": _function(error.erfc, error.erfc_is_special, error.erfc_anywhere),
    "cbrt": _function(power.cbrt, power.cbrt_is_special, power.cbrt_anywhere),
    "pow": Function(power.pow_, power.pow_anywhere),
}
# Those that have no formula of their own in float32: computed in float64, and rounded once more.
_WIDENED: frozenset[str] = frozenset()


def emit(b: ir.IRBuilder, name: str, args: Sequence[Any], library: Library, fused: bool, mask: Any = None) -> Any:
    """``name`` of floats or vectors of floats.

    ``library`` computes it by the C library. ``fused``: the processor has fused multiply-adds. ``mask``: the lanes that
    count, None for all.
    """
    kind = args[0].type
    if name in _WIDENED and format_of(kind) is not DOUBLE:
        wide = beside(kind, DOUBLE.real)
        return b.fptrunc(emit(b, name, [b.fpext(a, wide) for a in args], library, fused, mask), kind)
    function = FUNCTIONS[name]
    xs = [Real(b, a, fused) for a in args]
    answer, flags = function.formula(*xs)
    if flags is None:
        return answer.value
    if mask is not None:
        flags = b.and_(flags, mask)
    return _mended(b, name, args, answer.value, flags, library, fused)


def _mended(
    b: ir.IRBuilder, name: str, args: Sequence[Any], answer: Any, flags: Any, library: Library, fused: bool
) -> Any:
    """One branch for the whole block, and another within it where some lanes have a simple answer."""
    before = b.block
    with b.if_then(_any(b, flags), likely=False):
        simple = FUNCTIONS[name].simple
        if simple is None:
            mended = _careful(b, name, args, answer, flags, library, fused)
        else:
            lanes, value = simple(*(Real(b, a, fused) for a in args))
            known = b.select(lanes, Real(b, answer, fused).like(value).value, answer)
            flags = b.and_(flags, b.not_(lanes))
            settled = b.block
            with b.if_then(_any(b, flags), likely=False):
                careful = _careful(b, name, args, known, flags, library, fused)
                called = b.block
            mended = _joined(b, (known, settled), (careful, called))
        rare = b.block
    return _joined(b, (answer, before), (mended, rare))


def _any(b: ir.IRBuilder, flags: Any) -> Any:
    if not isinstance(flags.type, ir.VectorType):
        return flags
    lanes = ir.IntType(flags.type.count)
    return b.icmp_unsigned("!=", b.bitcast(flags, lanes), lanes(0))


def _careful(
    b: ir.IRBuilder, name: str, args: Sequence[Any], answer: Any, flags: Any, library: Library, fused: bool
) -> Any:
    """The answer by the function that mends, in the lanes with flags."""
    function = _mending(b.module, name, answer.type, len(args), library, fused)
    if not isinstance(flags.type, ir.VectorType):
        return b.call(function, args)
    return b.call(function, [*args, answer, b.bitcast(flags, ir.IntType(flags.type.count))])


def _joined(b: ir.IRBuilder, *ways: tuple[Any, Any]) -> Any:
    """The value by which the current block was reached: pairs of a value and the block that ends with it."""
    out = b.phi(ways[0][0].type)
    for value, block in ways:
        out.add_incoming(value, block)
    return out


def _mending(module: ir.Module, name: str, kind: Any, arity: int, library: Library, fused: bool) -> ir.Function:
    """The function that mends: of the arguments alone for a number; of these, the answer and the flags for vectors."""
    vector = isinstance(kind, ir.VectorType)
    lanes = f"v{kind.count}" if vector else ""
    full = f"wichi_mend_{name}_{lanes}f{format_of(kind).integer.width}"
    found = module.globals.get(full)
    if found is not None:
        return found
    extra = [kind, ir.IntType(kind.count)] if vector else []
    function = ir.Function(module, ir.FunctionType(kind, [kind] * arity + extra), full)
    function.linkage = "internal"
    for attribute in ("noinline", "cold", "nounwind"):
        function.attributes.add(attribute)
    b = ir.IRBuilder(function.append_basic_block())
    args = function.args[:arity]
    mend = FUNCTIONS[name].mend
    if mend is None:
        b.ret(_lane_by_lane(b, function.args, library) if vector else library(b, args))
    else:
        careful = mend(*(Real(b, a, fused) for a in args)).value
        if vector:
            flags = b.bitcast(function.args[-1], ir.VectorType(ir.IntType(1), kind.count))
            careful = b.select(flags, careful, function.args[-2])
        b.ret(careful)
    return function


def _lane_by_lane(b: ir.IRBuilder, arguments: Sequence[Any], library: Library) -> Any:
    """The answer with the flagged lanes computed by the library, one after the other."""
    *given, mask = arguments
    kind, index = given[-1].type, ir.IntType(32)
    flags = b.bitcast(mask, ir.VectorType(ir.IntType(1), kind.count))
    slots = [b.alloca(kind) for _ in given]
    for slot, value in zip(slots, given, strict=True):
        b.store(value, slot)
    start = b.block
    loop, flagged, following, end = (b.append_basic_block() for _ in range(4))
    b.branch(loop)
    b.position_at_end(loop)
    lane = b.phi(index)
    lane.add_incoming(index(0), start)
    b.cbranch(b.extract_element(flags, lane), flagged, following)
    b.position_at_end(flagged)
    *places, answer = (b.gep(b.bitcast(slot, kind.element.as_pointer()), [lane], inbounds=True) for slot in slots)
    b.store(library(b, [b.load(p) for p in places]), answer)
    b.branch(following)
    b.position_at_end(following)
    after = b.add(lane, index(1))
    lane.add_incoming(after, following)
    b.cbranch(b.icmp_unsigned("<", after, index(kind.count)), loop, end)
    b.position_at_end(end)
    return b.load(slots[-1])

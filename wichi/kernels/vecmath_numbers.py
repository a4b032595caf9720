"""Floats and their bits with Python's operators, for one number and for vectors: vecmath's formulas read like text.

Each operator is one LLVM instruction, and nothing is reordered. What differs between processors is the fused
multiply-add: numbers know whether there is one (``fused``). With it ``mul_add`` rounds once, and the error of a product
is one instruction; without it ``mul_add`` rounds twice, and products are split as T. J. Dekker does ("A floating-point
technique for extending the available precision", 1971). Formulas hold either way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir

_F32, _F64, _I32, _I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64)


class Format(NamedTuple):
    """A float format: the integer as wide, mantissa bits, bias of the exponent, and the number that rounds.

    ``magic`` is 1.5 * 2**mantissa: added to a float it leaves the nearest integer in the low bits.
    """

    real: Any
    integer: Any
    mantissa: int
    bias: int
    magic: float
    magic_bits: int
    tiny: float  # the smallest normal number
    largest: float  # number that is finite

    @property
    def sign(self) -> int:
        return -(1 << (self.integer.width - 1))

    @property
    def single(self) -> bool:
        return self.mantissa == 23


DOUBLE = Format(_F64, _I64, 52, 1023, 6755399441055744.0, 0x4338000000000000, 2.0**-1022, 2.0**1023 * (2 - 2.0**-52))
SINGLE = Format(_F32, _I32, 23, 127, 12582912.0, 0x4B400000, 2.0**-126, 2.0**127 * (2 - 2.0**-23))


def format_of(kind: Any) -> Format:
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    return SINGLE if element in (_F32, _I32) else DOUBLE


def constant(kind: Any, number: float) -> ir.Constant:
    """``number`` of the type ``kind``, in every lane."""
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


def beside(kind: Any, element: Any) -> Any:
    """``element`` in as many lanes as ``kind`` has."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def declared(b: ir.IRBuilder, name: str, kind: ir.FunctionType) -> ir.Function:
    """The function ``name`` of the module."""
    return b.module.globals.get(name) or ir.Function(b.module, kind, name)


def intrinsic(b: ir.IRBuilder, name: str, *args: Any) -> Any:
    """LLVM's ``name`` of floats or vectors of floats."""
    kind = args[0].type
    lanes = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
    full = f"llvm.{name}.{lanes}f{format_of(kind).integer.width}"
    return b.call(declared(b, full, ir.FunctionType(kind, [kind] * len(args))), args)


class Real:
    """A float or a vector of floats. ``fused``: the processor multiplies and adds in one instruction."""

    __slots__ = ("b", "fused", "value")

    def __init__(self, b: ir.IRBuilder, value: Any, fused: bool) -> None:
        self.b, self.value, self.fused = b, value, fused

    @property
    def format(self) -> Format:
        return format_of(self.value.type)

    def _real(self, value: Any) -> Real:
        return Real(self.b, value, self.fused)

    def like(self, number: float) -> Real:
        """``number`` in every lane."""
        return self._real(constant(self.value.type, float(number)))

    def _other(self, other: Any) -> Any:
        return other.value if isinstance(other, Real) else constant(self.value.type, float(other))

    def __add__(self, other: Any) -> Real:
        return self._real(self.b.fadd(self.value, self._other(other)))

    def __sub__(self, other: Any) -> Real:
        return self._real(self.b.fsub(self.value, self._other(other)))

    def __rsub__(self, other: Any) -> Real:
        return self._real(self.b.fsub(self._other(other), self.value))

    def __mul__(self, other: Any) -> Real:
        return self._real(self.b.fmul(self.value, self._other(other)))

    def __truediv__(self, other: Any) -> Real:
        return self._real(self.b.fdiv(self.value, self._other(other)))

    def __rtruediv__(self, other: Any) -> Real:
        return self._real(self.b.fdiv(self._other(other), self.value))

    def __neg__(self) -> Real:
        return self._real(self.b.fneg(self.value))

    __radd__, __rmul__ = __add__, __mul__

    def mul_add(self, factor: Any, term: Any) -> Real:
        """``self * factor + term``, rounded once where ``fused``, else twice."""
        if not self.fused:
            return self * factor + term
        return self._real(intrinsic(self.b, "fma", self.value, self._other(factor), self._other(term)))

    def error_of_product(self, factor: Real, product: Real) -> Real:
        """``self * factor - product``, for the rounded product: exact, but for the last bit of Dekker's way."""
        if self.fused:
            return self.mul_add(factor, -product)
        (x, x_low), (y, y_low) = self.halves(), factor.halves()
        return ((x * y - product) + x * y_low + x_low * y) + x_low * y_low

    def less_product(self, x: Real, y: Real) -> Real:
        """``self - x * y``, where that is small beside ``self``: rounded once, but for the last bit of Dekker's way."""
        if self.fused:
            return (-x).mul_add(y, self)
        product = x * y
        return (self - product) - x.error_of_product(y, product)

    def halves(self) -> tuple[Real, Real]:
        """In two parts of half as many bits."""
        head = self.head(12 if self.format.single else 27)
        return head, self - head

    def sqrt(self) -> Real:
        return self._real(intrinsic(self.b, "sqrt", self.value))

    def __lt__(self, other: Any) -> Any:
        return self.b.fcmp_ordered("<", self.value, self._other(other))

    def __gt__(self, other: Any) -> Any:
        return self.b.fcmp_ordered(">", self.value, self._other(other))

    def __ge__(self, other: Any) -> Any:
        return self.b.fcmp_ordered(">=", self.value, self._other(other))

    def equals(self, other: Any) -> Any:
        return self.b.fcmp_ordered("==", self.value, self._other(other))

    def beyond(self, limit: Any) -> Any:
        """Above ``limit``, or nan."""
        return self.b.fcmp_unordered(">", self.value, self._other(limit))

    def not_above(self, limit: Any) -> Any:
        """Up to ``limit``, or nan."""
        return self.b.fcmp_unordered("<=", self.value, self._other(limit))

    def outside(self, low: float, high: float) -> Any:
        """Below ``low``, above ``high``, or nan."""
        below = self.b.fcmp_unordered("<", self.value, self._other(low))
        return self.b.or_(below, self.beyond(high))

    def is_nan(self) -> Any:
        return self.b.fcmp_unordered("uno", self.value, self.value)

    def where(self, condition: Any, other: Any) -> Real:
        """This where ``condition`` holds, else ``other``."""
        return self._real(self.b.select(condition, self.value, self._other(other)))

    def at_most(self, high: Any) -> Real:
        """The lesser of the two; nan stays nan."""
        return self.like(high).where(self > high, self)

    def at_least(self, low: Any) -> Real:
        """The greater of the two; nan stays nan."""
        return self.like(low).where(self < low, self)

    def clipped(self, low: float, high: float) -> Real:
        """Within ``low`` and ``high``; nan stays nan."""
        return self.at_least(low).at_most(high)

    def bits(self) -> Bits:
        return Bits(self.b, self.b.bitcast(self.value, beside(self.value.type, self.format.integer)), self.fused)

    def magnitude(self) -> Real:
        return (self.bits() & ~self.format.sign).real()

    def sign_bit(self) -> Bits:
        return self.bits() & self.format.sign

    def signed_like(self, other: Real) -> Real:
        """This, which is not negative, with the sign of ``other``."""
        return (self.bits() | other.sign_bit()).real()

    def head(self, cut: int) -> Real:
        """Without its last ``cut`` mantissa bits: products of heads are exact."""
        return (self.bits() & -(1 << cut)).real()

    def polynomial(self, *coefficients: float) -> Real:
        """``c0 + c1 x + c2 x**2 + ...``"""
        return self._estrin([*coefficients])

    def series(self, first: Real, *coefficients: float) -> Real:
        """``first + c0 x**2 + c1 x**3 + ...``"""
        return self._estrin([first, 0.0, *coefficients])

    def _estrin(self, terms: list[Any]) -> Real:
        """By G. Estrin's scheme (1960): neighbours first, so that few steps wait for each other; powers before them."""
        power = self
        while len(terms) > 1:
            following = power * power if len(terms) > 2 else power
            pairs: list[Any] = [
                power.mul_add(high, low) if isinstance(high, Real) or high else low
                for low, high in zip(terms[::2], terms[1::2], strict=False)
            ]
            terms = pairs + terms[len(pairs) * 2 :]
            power = following
        return terms[0]


class Bits:
    """The bits of a float, or an integer as wide."""

    __slots__ = ("b", "fused", "value")

    def __init__(self, b: ir.IRBuilder, value: Any, fused: bool) -> None:
        self.b, self.value, self.fused = b, value, fused

    def _bits(self, value: Any) -> Bits:
        return Bits(self.b, value, self.fused)

    @property
    def format(self) -> Format:
        return format_of(self.value.type)

    def _other(self, other: Any) -> Any:
        return other.value if isinstance(other, Bits) else constant(self.value.type, other)

    def __add__(self, other: Any) -> Bits:
        return self._bits(self.b.add(self.value, self._other(other)))

    def __sub__(self, other: Any) -> Bits:
        return self._bits(self.b.sub(self.value, self._other(other)))

    def __rsub__(self, other: Any) -> Bits:
        return self._bits(self.b.sub(self._other(other), self.value))

    def __neg__(self) -> Bits:
        return 0 - self

    def __and__(self, other: Any) -> Bits:
        return self._bits(self.b.and_(self.value, self._other(other)))

    def __or__(self, other: Any) -> Bits:
        return self._bits(self.b.or_(self.value, self._other(other)))

    def __xor__(self, other: Any) -> Bits:
        return self._bits(self.b.xor(self.value, self._other(other)))

    def __lshift__(self, count: int) -> Bits:
        return self._bits(self.b.shl(self.value, self._other(count)))

    def __rshift__(self, count: int) -> Bits:
        """With the sign."""
        return self._bits(self.b.ashr(self.value, self._other(count)))

    def without_sign_shifted(self, count: int) -> Bits:
        """Right by ``count``, zeros coming in (before AVX-512 x86 has no 64-bit shift that keeps signs)."""
        return self._bits(self.b.lshr(self.value, self._other(count)))

    def is_zero(self) -> Any:
        return self.b.icmp_signed("==", self.value, self._other(0))

    def is_negative(self) -> Any:
        return self.b.icmp_signed("<", self.value, self._other(0))

    def real(self) -> Real:
        """The float that has these bits."""
        return Real(self.b, self.b.bitcast(self.value, beside(self.value.type, self.format.real)), self.fused)

    def to_real(self) -> Real:
        """The float equal to this integer, which must be shorter than the mantissa."""
        f = self.format
        return (self + f.magic_bits).real() - f.magic

    def power_of_two(self) -> Real:
        """``2**self`` within the range of normal numbers."""
        f = self.format
        return ((self + f.bias) << f.mantissa).real()


def rounded(x: Real) -> tuple[Bits, Real]:
    """The nearest integer, as an integer whose high bits are not defined, and as a float."""
    f = x.format
    shifted = x + f.magic
    return shifted.bits(), shifted - f.magic


def times_power(x: Real, k: Bits) -> Real:
    """``x * 2**k``, where both are normal numbers; of ``k`` only the low bits count."""
    return (x.bits() + (k << x.format.mantissa)).real()


def scaled(x: Real, k: Bits) -> Real:
    """``x * 2**k``, in two steps so that subnormal and overflowing results round once and come out right."""
    half = k >> 1
    return x * half.power_of_two() * (k - half).power_of_two()


def widened(x: Real) -> Real:
    """In float64."""
    return Real(x.b, x.b.fpext(x.value, beside(x.value.type, _F64)), x.fused) if x.format.single else x


def narrowed(x: Real) -> Real:
    """In float32."""
    return Real(x.b, x.b.fptrunc(x.value, beside(x.value.type, _F32)), x.fused)

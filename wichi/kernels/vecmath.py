"""exp, log, tanh, sin … as straight-line arithmetic on vectors: the same instructions for one number and for many.

Only ``+ - * /``, comparisons, selects and integer operations on the bits of a float are used, so any LLVM target runs
them at the width it has; no fused multiply-add is assumed. Where a range needs more (the sine of 1e9) the whole block
goes to the C library, by one branch a block. exp, log and tanh have formulas of their own for float32; the others are
computed in float64 there and rounded once.

``docs/vecmath.md`` has the measured errors. Methods and coefficients, where not said otherwise, are those of FreeBSD's
msun (fdlibm, Sun Microsystems 1993; https://www.netlib.org/fdlibm), rewritten without branches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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

    @property
    def sign(self) -> int:
        return -(1 << (self.integer.width - 1))


_DOUBLE = Format(_F64, _I64, 52, 1023, 6755399441055744.0, 0x4338000000000000)
_SINGLE = Format(_F32, _I32, 23, 127, 12582912.0, 0x4B400000)


def _format_of(kind: Any) -> Format:
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    return _SINGLE if element in (_F32, _I32) else _DOUBLE


_LN2_HI, _LN2_LO = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # hi has 32 bits, so k * hi is exact


def _constant(kind: Any, number: float) -> ir.Constant:
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


def _beside(kind: Any, element: Any) -> Any:
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


class Real:
    """A float or a vector of floats with Python's operators, so that the formulas below read as formulas."""

    __slots__ = ("b", "value")

    def __init__(self, b: ir.IRBuilder, value: Any) -> None:
        self.b, self.value = b, value

    def _other(self, other: Any) -> Any:
        return other.value if isinstance(other, Real) else _constant(self.value.type, float(other))

    def __add__(self, other: Any) -> Real:
        return Real(self.b, self.b.fadd(self.value, self._other(other)))

    def __sub__(self, other: Any) -> Real:
        return Real(self.b, self.b.fsub(self.value, self._other(other)))

    def __rsub__(self, other: Any) -> Real:
        return Real(self.b, self.b.fsub(self._other(other), self.value))

    def __mul__(self, other: Any) -> Real:
        return Real(self.b, self.b.fmul(self.value, self._other(other)))

    def __truediv__(self, other: Any) -> Real:
        return Real(self.b, self.b.fdiv(self.value, self._other(other)))

    def __rtruediv__(self, other: Any) -> Real:
        return Real(self.b, self.b.fdiv(self._other(other), self.value))

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other: Any) -> Any:
        return self.b.fcmp_ordered("<", self.value, self._other(other))

    def __gt__(self, other: Any) -> Any:
        return self.b.fcmp_ordered(">", self.value, self._other(other))

    def equals(self, other: Any) -> Any:
        return self.b.fcmp_ordered("==", self.value, self._other(other))

    def where(self, condition: Any, other: Any) -> Real:
        """This where ``condition`` holds, else ``other``."""
        return Real(self.b, self.b.select(condition, self.value, self._other(other)))

    def clipped(self, low: float, high: float) -> Real:
        """Within ``low`` and ``high``; nan stays nan."""
        below = Real(self.b, _constant(self.value.type, low)).where(self < low, self)
        return Real(self.b, _constant(self.value.type, high)).where(below > high, below)

    def bits(self) -> Bits:
        return Bits(self.b, self.b.bitcast(self.value, _beside(self.value.type, _format_of(self.value.type).integer)))

    def magnitude(self) -> Real:
        return (self.bits() & ~_format_of(self.value.type).sign).real()

    def signed_like(self, other: Real) -> Real:
        """This magnitude with the sign of ``other``."""
        return (self.bits() | (other.bits() & _format_of(self.value.type).sign)).real()

    def polynomial(self, *coefficients: float) -> Real:
        """``c0 + c1 x + c2 x**2 + ...`` by Estrin's scheme: pairs first, so that few steps wait for each other."""
        terms: list[Any] = list(coefficients)
        power = self
        while len(terms) > 1:
            pairs: list[Any] = [power * terms[i + 1] + terms[i] for i in range(0, len(terms) - 1, 2)]
            terms = pairs + terms[len(pairs) * 2 :]
            power = power * power
        return terms[0]


class Bits:
    """The bits of a float, or an integer as wide."""

    __slots__ = ("b", "value")

    def __init__(self, b: ir.IRBuilder, value: Any) -> None:
        self.b, self.value = b, value

    def _other(self, other: Any) -> Any:
        return other.value if isinstance(other, Bits) else _constant(self.value.type, other)

    def __add__(self, other: Any) -> Bits:
        return Bits(self.b, self.b.add(self.value, self._other(other)))

    def __sub__(self, other: Any) -> Bits:
        return Bits(self.b, self.b.sub(self.value, self._other(other)))

    def __and__(self, other: Any) -> Bits:
        return Bits(self.b, self.b.and_(self.value, self._other(other)))

    def __or__(self, other: Any) -> Bits:
        return Bits(self.b, self.b.or_(self.value, self._other(other)))

    def __xor__(self, other: Any) -> Bits:
        return Bits(self.b, self.b.xor(self.value, self._other(other)))

    def __lshift__(self, count: int) -> Bits:
        return Bits(self.b, self.b.shl(self.value, self._other(count)))

    def __rshift__(self, count: int) -> Bits:
        """With the sign."""
        return Bits(self.b, self.b.ashr(self.value, self._other(count)))

    def is_zero(self) -> Any:
        return self.b.icmp_signed("==", self.value, self._other(0))

    def real(self) -> Real:
        """The float that has these bits."""
        return Real(self.b, self.b.bitcast(self.value, _beside(self.value.type, _format_of(self.value.type).real)))

    def to_real(self) -> Real:
        """The float equal to this integer, which must be shorter than the mantissa."""
        f = _format_of(self.value.type)
        return (self + f.magic_bits).real() - f.magic

    def power_of_two(self) -> Real:
        """``2**self`` within the range of normal numbers."""
        f = _format_of(self.value.type)
        return ((self + f.bias) << f.mantissa).real()


def _rounded(x: Real) -> tuple[Bits, Real]:
    """The nearest integer, as an integer and as a float; nan gives some integer and nan."""
    f = _format_of(x.value.type)
    shifted = x + f.magic
    return shifted.bits() - f.magic_bits, shifted - f.magic


def _scaled(x: Real, k: Bits) -> Real:
    """``x * 2**k``, in two steps so that subnormal and overflowing results round once and come out right."""
    half = k >> 1
    return x * half.power_of_two() * (k - half).power_of_two()


# Of (exp(r) - 1 - r) / r**2; Taylor's: on |r| <= ln2 / 2 the first term left out is 4e-18 of the result.
_EXP = [1 / math.factorial(n) for n in range(2, 14)]


def exp(x: Real) -> Real:
    x = x.clipped(-746.0, 710.0)
    k, n = _rounded(x * 1.44269504088896338700)
    r = (x - n * _LN2_HI) - n * _LN2_LO
    return _scaled(1.0 + (r + r * r * r.polynomial(*_EXP)), k)


def exp2(x: Real) -> Real:
    x = x.clipped(-1076.0, 1025.0)
    k, n = _rounded(x)
    r = (x - n) * 0.69314718055994530942
    return _scaled(1.0 + (r + r * r * r.polynomial(*_EXP)), k)


def expm1(x: Real) -> Real:
    """``2**k (exp(r) - 1 + (1 - 2**-k))``: near zero k is 0 and nothing cancels."""
    inside = x.clipped(-40.0, 710.0)
    k, n = _rounded(inside * 1.44269504088896338700)
    high = inside - n * _LN2_HI
    low = n * _LN2_LO
    r = high - low
    lost = (high - r) - low
    p = r + (lost + (r * r * r.polynomial(*_EXP) + r * lost))
    # 2**-k in halves as well: k reaches 1024.
    half = Bits(k.b, k.b.sub(_constant(k.value.type, 0), k.value))
    inverse = ((half >> 1).power_of_two()) * ((half - (half >> 1)).power_of_two())
    answer = _scaled(p + (1.0 - inverse), k)
    return answer.where(x.magnitude() > 1e-300, x)  # zero keeps its sign, and subnormals their bits


_LOG = (6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
        1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01)  # fmt: skip
_SQRT_HALF_BITS = 0x3FE6A09E00000000


def _split(x: Real) -> tuple[Bits, Real]:
    """``k`` and ``m`` with ``x == m * 2**k`` and ``m`` between sqrt(1/2) and sqrt(2), for normal x."""
    bits = x.bits() + (0x3FF0000000000000 - _SQRT_HALF_BITS)
    return (bits >> 52) - 1023, ((bits & 0x000FFFFFFFFFFFFF) + _SQRT_HALF_BITS).real()


def _log_of_fraction(f: Real) -> tuple[Real, Real]:
    """``log(1 + f)`` is ``f`` minus the first plus the second of the answer."""
    s = f / (f + 2.0)
    z = s * s
    half_square = f * f * 0.5
    return half_square, s * (half_square + z * z.polynomial(*_LOG))


def _log_edges(answer: Real, x: Real) -> Real:
    """What is the same for all logarithms of x: -inf at 0, inf at inf, nan below 0 and for nan."""
    b, kind = x.b, x.value.type
    infinity = Real(b, _constant(kind, float("inf")))
    answer = infinity.where(x.equals(float("inf")), answer)
    answer = Real(b, _constant(kind, -float("inf"))).where(x.equals(0.0), answer)
    ordered = b.fcmp_ordered(">=", x.value, _constant(kind, 0.0))
    return answer.where(ordered, float("nan"))


def _normal(x: Real) -> tuple[Real, Real]:
    """``x`` out of the subnormal range, and the exponent that this has added."""
    tiny = x < 2.2250738585072014e-308
    zero = Real(x.b, _constant(x.value.type, 0.0))
    return (x * 18014398509481984.0).where(tiny, x), Real(x.b, _constant(x.value.type, 54.0)).where(tiny, zero)


def log(x: Real) -> Real:
    scaled, added = _normal(x)
    exponent, m = _split(scaled)
    k, f = exponent.to_real() - added, m - 1.0
    half_square, rest = _log_of_fraction(f)
    return _log_edges(k * _LN2_HI - ((half_square - (rest + k * _LN2_LO)) - f), x)


def log2(x: Real) -> Real:
    scaled, added = _normal(x)
    exponent, m = _split(scaled)
    k, f = exponent.to_real() - added, m - 1.0
    half_square, rest = _log_of_fraction(f)
    # f - half_square in two parts, the first short enough that its product with the head of 1/ln2 is exact.
    head = ((f - half_square).bits() & -0x100000000).real()
    tail = ((f - head) - half_square) + rest
    high, low = (
        head * 1.44269504072144627571,
        (tail + head) * 1.67517131648865118353e-10 + tail * 1.44269504072144627571,
    )
    whole = k + high
    return _log_edges((low + ((k - whole) + high)) + whole, x)


def log1p(x: Real) -> Real:
    u = x + 1.0
    exponent, m = _split(u)
    k, f = exponent.to_real(), m - 1.0
    # What 1 + x has lost in rounding, as a part of u.
    lost = (1.0 - (u - x)).where(k > 1.5, x - (u - 1.0)) / u
    half_square, rest = _log_of_fraction(f)
    answer = k * _LN2_HI + (f - (half_square - (rest + (k * _LN2_LO + lost))))
    answer = _log_edges(answer, u)
    return answer.where(x.magnitude() > 1e-17, x)  # zero keeps its sign


# S. L. Moshier, Cephes (https://www.netlib.org/cephes), tanh.c: tanh(x) = x + x z P(z) / Q(z), z = x**2, |x| < 0.625.
_TANH_P = (-1.61468768441708447952e03, -9.92877231001918586564e01, -9.64399179425052238628e-01)
_TANH_Q = (4.84406305325125486048e03, 2.23548839060100448583e03, 1.12811678491632931402e02, 1.0)


def tanh(x: Real) -> Real:
    """A rational function near zero, ``1 - 2 / (exp(2|x|) + 1)`` elsewhere; one division for both."""
    a = x.magnitude().clipped(0.0, 22.0)
    z, small = a * a, a < 0.625
    two = Real(x.b, _constant(x.value.type, 2.0))
    top = (a * z * z.polynomial(*_TANH_P)).where(small, two)
    q = top / z.polynomial(*_TANH_Q).where(small, exp(a + a) + 1.0)
    return (a + q).where(small, 1.0 - q).signed_like(x).where(x.equals(x), x)


_SIN = (-1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
        2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10)  # fmt: skip
_COS = (4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
        -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11)  # fmt: skip
TRIGONOMETRIC_LIMIT = 1.0e6  # up to here n * (the first 33 bits of pi/2) is exact; larger ones go to the C library


def _sine_and_cosine(x: Real) -> tuple[Real, Real, Bits]:
    """Of the remainder of x by pi/2, and the quadrant."""
    quadrant, n = _rounded(x * 6.36619772367581382433e-01)
    # Cody and Waite's reduction, pi/2 in three parts; y0 + y1 is the remainder to more than 53 bits.
    t = x - n * 1.57079632673412561417e00
    w = n * 6.07710050630396597660e-11
    r = t - w
    w = n * 2.02226624879595063154e-21 - ((t - r) - w)
    y0 = r - w
    y1 = (r - y0) - w
    z = y0 * y0
    cube = z * y0
    sine = y0 - ((z * (y1 * 0.5 - cube * z.polynomial(*_SIN[1:])) - y1) - cube * _SIN[0])
    half = z * 0.5
    one_less = 1.0 - half
    cosine = one_less + (((1.0 - one_less) - half) + (z * (z * z.polynomial(*_COS)) - y0 * y1))
    return sine, cosine, quadrant


def sin(x: Real) -> Real:
    sine, cosine, quadrant = _sine_and_cosine(x)
    answer = sine.where((quadrant & 1).is_zero(), cosine)
    answer = (answer.bits() ^ ((quadrant & 2) << 62)).real()
    return answer.where(x.magnitude() > 1e-8, x)  # zero keeps its sign


def cos(x: Real) -> Real:
    sine, cosine, quadrant = _sine_and_cosine(x)
    answer = cosine.where((quadrant & 1).is_zero(), sine)
    return (answer.bits() ^ (((quadrant + 1) & 2) << 62)).real()


# --- float32: Cephes' expf.c, logf.c and tanhf.c (S. L. Moshier), without branches ----------------------------------
_LN2_HI_32, _LN2_LO_32 = 0.693359375, -2.12194440e-4
_EXP_32 = (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4)
_LOG_32 = (3.3333331174e-1, -2.4999993993e-1, 2.0000714765e-1, -1.6668057665e-1, 1.4249322787e-1, -1.2420140846e-1,
           1.1676998740e-1, -1.1514610310e-1, 7.0376836292e-2)  # fmt: skip
_TANH_32 = (-3.33332819422e-1, 1.33314422036e-1, -5.37397155531e-2, 2.06390887954e-2, -5.70498872745e-3)
_SQRT_HALF_BITS_32 = 0x3F3504F3


def exp_32(x: Real) -> Real:
    x = x.clipped(-104.0, 89.0)
    k, n = _rounded(x * 1.44269504088896341)
    r = (x - n * _LN2_HI_32) - n * _LN2_LO_32
    return _scaled(1.0 + (r + r * r * r.polynomial(*_EXP_32)), k)


def log_32(x: Real) -> Real:
    b, kind = x.b, x.value.type
    tiny = x < 1.17549435e-38
    scaled = (x * 33554432.0).where(tiny, x)
    added = Real(b, _constant(kind, 25.0)).where(tiny, 0.0)
    bits = scaled.bits() + (0x3F800000 - _SQRT_HALF_BITS_32)
    k = ((bits >> 23) - 127).to_real() - added
    f = ((bits & 0x007FFFFF) + _SQRT_HALF_BITS_32).real() - 1.0
    z = f * f
    rest = f * z * f.polynomial(*_LOG_32) + k * _LN2_LO_32 - z * 0.5
    return _log_edges(f + rest + k * _LN2_HI_32, x)


def tanh_32(x: Real) -> Real:
    a = x.magnitude().clipped(0.0, 10.0)
    z, small = a * a, a < 0.625
    near = a + a * z * z.polynomial(*_TANH_32)
    far = 1.0 - 2.0 / (exp_32(a + a) + 1.0)
    return near.where(small, far).signed_like(x).where(x.equals(x), x)


Formula = Callable[[Real], Real]
FUNCTIONS: dict[str, Formula] = {
    "exp": exp, "exp2": exp2, "expm1": expm1, "log": log, "log2": log2, "log1p": log1p, "tanh": tanh,
    "sin": sin, "cos": cos,
}  # fmt: skip
SINGLE: dict[str, Formula] = {"exp": exp_32, "log": log_32, "tanh": tanh_32}
_LIMITED = {"sin": TRIGONOMETRIC_LIMIT, "cos": TRIGONOMETRIC_LIMIT}


def emit(b: ir.IRBuilder, name: str, x: Any, by_library: Callable[[], Any]) -> Any:
    """``name`` of a float or vector of floats; ``by_library`` computes it by the C library."""
    kind = x.type
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    if element == _F32 and name in SINGLE:
        return SINGLE[name](Real(b, x)).value
    wide = x if element == _F64 else b.fpext(x, _beside(kind, _F64))

    def by_formula() -> Any:
        answer = FUNCTIONS[name](Real(b, wide)).value
        return answer if element == _F64 else b.fptrunc(answer, kind)

    limit = _LIMITED.get(name)
    if limit is None:
        return by_formula()
    return _if_any(b, Real(b, wide).magnitude() > limit, by_library, by_formula)


def _if_any(b: ir.IRBuilder, condition: Any, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """One branch for the whole block."""
    flag = condition
    if isinstance(condition.type, ir.VectorType):
        lanes = condition.type.count
        flag = b.icmp_unsigned("!=", b.bitcast(condition, ir.IntType(lanes)), ir.IntType(lanes)(0))
    answers: list[tuple[Any, Any]] = []
    with b.if_else(flag, likely=False) as (yes, no):
        for part, compute in ((yes, then), (no, otherwise)):
            with part:
                answers.append((compute(), b.block))
    phi = b.phi(answers[0][0].type)
    for value, block in answers:
        phi.add_incoming(value, block)
    return phi

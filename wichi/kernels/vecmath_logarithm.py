"""log, log2, log10 and log1p.

``x == 2**k (1 + f)`` with ``1 + f`` between sqrt(1/2) and sqrt(2). Methods, and the coefficients of float64, are those
of FreeBSD's msun (fdlibm, Sun Microsystems 1993; https://www.netlib.org/fdlibm), rewritten without branches; those of
float32 are of Cephes' logf.c (S. L. Moshier; https://www.netlib.org/cephes).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from wichi.kernels.vecmath_numbers import Bits, Real

_LOG = (6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
        1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01)  # fmt: skip
_LOG_SINGLE = (3.3333331174e-1, -2.4999993993e-1, 2.0000714765e-1, -1.6668057665e-1, 1.4249322787e-1,
               -1.2420140846e-1, 1.1676998740e-1, -1.1514610310e-1, 7.0376836292e-2)  # fmt: skip


class Base(NamedTuple):
    """Constants of a logarithm in two parts each: log(2) in its base, and 1 / ln(base).

    The first parts are so short that products with an exponent, or with the head of a fraction, are exact. ``cut`` bits
    are missing from such a head.
    """

    of_two: tuple[float, float]
    factor: tuple[float, float]
    cut: int


_LN2 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)
_LN2_SINGLE = (0.693359375, -2.12194440e-4)
_TWO = Base((1.0, 0.0), (1.44269504072144627571, 1.67517131648865118353e-10), 32)
_TEN = Base((3.01029995663611771306e-01, 3.69423907715893078616e-13),
            (4.34294481878168880939e-01, 2.50829467116452752298e-11), 32)  # fmt: skip
_TWO_SINGLE = Base((1.0, 0.0), (1.4428710938, -1.7605285393e-04), 12)
_TEN_SINGLE = Base((3.0102920532e-01, 7.9034151668e-07), (4.3432617188e-01, -3.1689971365e-05), 12)


class Fraction(NamedTuple):
    """``x == 2**k (1 + f)``; log(1 + f) is ``f - (half_square - rest)``."""

    exponent: Bits
    k: Real
    f: Real
    half_square: Real
    rest: Real


def significand(x: Real) -> tuple[Bits, Real]:
    """``k`` and ``m`` of a positive normal number: ``x == m * 2**k``, and ``m`` lies between sqrt(1/2) and sqrt(2)."""
    f = x.format
    half, one = (0x3F3504F3, 0x3F800000) if f.single else (0x3FE6A09E00000000, 0x3FF0000000000000)
    bits = x.bits() + (one - half)
    exponent = bits.without_sign_shifted(f.mantissa) - f.bias
    return exponent, ((bits & (1 << f.mantissa) - 1) + half).real()


def fraction(x: Real) -> Fraction:
    """Of a positive normal number."""
    exponent, m = significand(x)
    return Fraction(exponent, exponent.to_real(), m - 1.0, *of_one_plus(m - 1.0))


def of_one_plus(f: Real) -> tuple[Real, Real]:
    """``half_square`` and ``rest`` of log(1 + f)."""
    square = f * f
    half_square = square * 0.5
    if f.format.single:
        return half_square, f * square * f.polynomial(*_LOG_SINGLE)
    s = f / (f + 2.0)
    z = s * s
    return half_square, s * z.mul_add(z.polynomial(*_LOG), half_square)


def _is_zero(x: Real) -> Any:
    return x.equals(0.0)


def is_special(x: Real) -> Any:
    """Negative, subnormal, infinite or nan."""
    return x.b.and_(x.outside(x.format.tiny, x.format.largest), x.b.not_(_is_zero(x)))


def _with_zero(answer: Real, x: Real) -> Real:
    return x.like(-float("inf")).where(_is_zero(x), answer)


def natural(p: Fraction) -> Real:
    high, low = _LN2_SINGLE if p.k.format.single else _LN2
    return p.k.mul_add(high, p.f - (p.half_square - p.k.mul_add(low, p.rest)))


def in_base(p: Fraction, base: Base) -> Real:
    """f - half_square in two parts, the first so short that its product with the head of the factor is exact."""
    (two, two_low), (factor, factor_low) = base.of_two, base.factor
    head = (p.f - p.half_square).head(base.cut)
    tail = ((p.f - head) - p.half_square) + p.rest
    low = (tail + head).mul_add(factor_low, tail * factor)
    if two_low:
        low = p.k.mul_add(two_low, low)
    whole, high = p.k * two, head * factor
    total = whole + high
    return total + (low + ((whole - total) + high))


def log(x: Real) -> Real:
    return _with_zero(natural(fraction(x)), x)


def log2(x: Real) -> Real:
    return _with_zero(in_base(fraction(x), _TWO_SINGLE if x.format.single else _TWO), x)


def log10(x: Real) -> Real:
    return _with_zero(in_base(fraction(x), _TEN_SINGLE if x.format.single else _TEN), x)


def _anywhere(x: Real, finish: Any) -> Real:
    f = x.format
    shift = f.mantissa + 1.0
    subnormal = x < f.tiny
    p = fraction((x * 2.0**shift).where(subnormal, x))
    answer = finish(p._replace(k=(p.k - shift).where(subnormal, p.k)))
    answer = x.where(x.equals(float("inf")), answer)
    return answer.where(x > 0.0, float("nan"))


def log_anywhere(x: Real) -> Real:
    return _anywhere(x, natural)


def log2_anywhere(x: Real) -> Real:
    return _anywhere(x, lambda p: in_base(p, _TWO_SINGLE if x.format.single else _TWO))


def log10_anywhere(x: Real) -> Real:
    return _anywhere(x, lambda p: in_base(p, _TEN_SINGLE if x.format.single else _TEN))


def log1p(x: Real) -> Real:
    """log(1 + f) with what ``1 + x`` loses in rounding (D. E. Knuth's two-sum) as a second part of f."""
    u = x + 1.0
    added = u - x
    lost = (x - (u - added)) + (1.0 - added)
    p = fraction(u)
    lost = lost * (-p.exponent).power_of_two()
    return natural(p._replace(rest=p.rest + lost.mul_add(-p.f, lost))).magnitude().signed_like(x)


def log1p_is_special(x: Real) -> Any:
    """-1 and below, huge or nan."""
    f = x.format
    return x.b.or_(x.not_above(-1.0), x.beyond(2.0 ** (f.bias - 1)))


def log1p_anywhere(x: Real) -> Real:
    return _with_zero(log_anywhere(x + 1.0), x + 1.0)


def softplus_of(x: Real, power: Real) -> Real:
    """log(1 + exp(x)), for ``power`` that is exp(-|x|): up to sqrt(2) - 1 as log(1 + f), beyond as log(2 (1 + f))."""
    near = power < 0.41421356237309503
    f = power.where(near, (power - 1.0) * 0.5)
    high, low = _LN2_SINGLE if x.format.single else _LN2
    half_square, rest = of_one_plus(f)
    log = f - (half_square - (x.like(0.0).where(near, low) + rest))
    return x.at_least(0.0) + (x.like(0.0).where(near, high) + log)

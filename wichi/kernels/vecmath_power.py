"""pow and cbrt.

``x**y == 2**(y log2(x))``: a result of 2**1000 has 53 bits only if the logarithm has 64, so that of float64 is computed
in two parts. In float32 both are computed in float64 by shorter series, and rounded once.
"""

from __future__ import annotations

from typing import Any

from wichi.kernels.vecmath_logarithm import significand
from wichi.kernels.vecmath_numbers import Bits, Real, narrowed, rounded, scaled, times_power, widened
from wichi.kernels.vecmath_pairs import Pair, added

# 2 atanh(s) / log(2) == s (2 / log(2)) (1 + z (1/3 + z (1/5 + ...))), z = s**2; what follows 1/3 is minimax.
_TWO_OVER_LN2 = (2.8853900817779268, 4.0710547481862066e-17)
_THIRD = (0.3333333333333333, 1.850371707708594e-17)
_ATANH = (0.1999999999999999, 0.14285714285721923, 0.11111111108893665, 0.09090909422194546, 0.07692279198067038,
          0.06668132955526476, 0.05837874655961154, 0.05991016919854492)  # fmt: skip
# (2**r - 1) / r, |r| < 0.69
_EXP2 = (0.6931471805599453, 0.24022650695910083, 0.05550410866482368, 0.009618129107624898, 0.0013333558146017372,
         0.00015403530396776704, 1.5252734125466317e-05, 1.3215485419427248e-06, 1.0177967459960211e-07,
         7.055147615305641e-09, 4.466192663594084e-10, 2.5569776289944223e-11)  # fmt: skip
# The same, and log2(1 + f) / f, for results of float32.
_EXP2_SHORT = (0.6931471807053248, 0.24022651067876014, 0.05550410363817711, 0.009618037916563049,
               0.0013333936266548092, 0.00015466831175739966, 1.5196015558758608e-05)  # fmt: skip
_LOG2_SHORT = (1.4426950408865724, -0.721347520327476, 0.4808983488042275, -0.36067379315696063, 0.28853879559672224,
               -0.24044643217349432, 0.20610712692340213, -0.18043679122544892, 0.1602166368993631,
               -0.14249812279993737, 0.13027538522249588, -0.13463172098922055, 0.1325149049653108,
               -0.06973868641216953)  # fmt: skip
_ENDS = 1100.0
# m**(-1/3), m between sqrt(1/2) and sqrt(2), and the factors of 2**(-1/3), 1 and 2**(1/3).
_CBRT = (1.9991756315625997, -2.4859449183181943, 2.792260832903254, -1.8981819003212101, 0.700763040006984,
         -0.10806883849561834)  # fmt: skip
_CBRT_SINGLE = (1.730715274810791, -1.2857487201690674, 0.7133570909500122, -0.15854500234127045)
_THIRDS = (1.2599210498948732, 1.0, 0.7937005259840998)


def _log2(x: Real) -> Pair:
    """Of a positive normal number, to 64 bits; the low part is up to 2**-12 of the high one.

    The high part does not wait for the series, which is in the low part.
    """
    exponent, m = significand(x)
    f = m - 1.0
    s = Pair(f, x.like(0.0)) / added(2.0, f)
    z = Pair.product(s.high, s.high)
    third = z * _THIRD[0]
    series = z.high.mul_add(z.high.polynomial(*_ATANH), _THIRD[1])
    cubes = Pair.product(s.high, third.high)
    rest = s.high.mul_add(z.high.mul_add(series, third.low), cubes.low) + s.low.mul_add(z.high, s.low)
    log = added(s.high, cubes.high, rest) * Pair(x.like(_TWO_OVER_LN2[0]), x.like(_TWO_OVER_LN2[1]))
    return added(exponent.to_real(), log.high, log.low)


def _log2_short(x: Real) -> Real:
    """The same to 35 bits."""
    exponent, m = significand(x)
    f = m - 1.0
    return f.mul_add(f.polynomial(*_LOG2_SHORT), exponent.to_real())


def _exp2(high: Real, low: Real, series: tuple[float, ...]) -> tuple[Real, Bits]:
    """2**r and k, with r + k == high + low; of k only the low bits are defined."""
    k, n = rounded(high)
    r = (high - n) + low
    return r.mul_add(r.polynomial(*series), 1.0), k


def pow_(x: Real, y: Real) -> tuple[Real, Any]:
    """For positive normal x; and where that does not hold, or the result is not a normal number."""
    if x.format.single:
        exponent = _log2_short(widened(x)) * widened(y)
        value, k = _exp2(exponent, exponent.like(-0.0), _EXP2_SHORT)
        answer, limit = narrowed(times_power(value, k)), 125.0
    else:
        exponent, low = _log2(x) * y
        answer, limit = times_power(*_exp2(exponent, low, _EXP2)), 1021.0
    return answer, x.b.or_(x.outside(x.format.tiny, x.format.largest), exponent.magnitude().beyond(limit))


def _is_whole(a: Real) -> Any:
    """Of a number that is not negative."""
    shift = 2.0**a.format.mantissa
    return a.b.or_(a >= shift, ((a + shift) - shift).equals(a))


def pow_anywhere(x: Real, y: Real) -> Real:
    """With the edges of ISO C, annex F.10.4.4."""
    if x.format.single:
        return narrowed(pow_anywhere(widened(x), widened(y)))
    b, f, size = x.b, x.format, x.magnitude()
    log = _log2_anywhere(size)
    exponent, low = log * y
    rough = log.high * y
    # Results beyond these ends are 0 or infinite, and the low part is nothing there.
    beyond = rough.magnitude().beyond(_ENDS)
    exponent, low = rough.clipped(-_ENDS, _ENDS).where(beyond, exponent), x.like(0.0).where(beyond, low)
    value, k = _exp2(exponent, low, _EXP2)
    answer = scaled(value, k - f.magic_bits)
    one = b.or_(x.equals(1.0), b.or_(y.equals(0.0), b.and_(size.equals(1.0), y.equals(y))))
    answer = x.like(1.0).where(one, answer)
    # Negative numbers have powers where y is whole, and -inf and -0 everywhere.
    whole, half_whole = _is_whole(y.magnitude()), _is_whole(y.magnitude() * 0.5)
    negative = x.bits().is_negative()
    flipped = (-answer).where(b.and_(negative, b.and_(whole, b.not_(half_whole))), answer)
    undefined = b.and_(b.and_(x < 0.0, b.not_(whole)), b.not_(size.equals(float("inf"))))
    return x.like(float("nan")).where(undefined, flipped)


def _log2_anywhere(x: Real) -> Pair:
    """Of a number that is not negative."""
    shift, subnormal = x.format.mantissa + 2.0, x < x.format.tiny
    log = _log2((x * 2.0**shift).where(subnormal, x))
    high = log.high - x.like(shift).where(subnormal, 0.0)
    high = x.where(x.beyond(x.format.largest), high)
    return Pair(x.like(-float("inf")).where(x.equals(0.0), high), log.low)


def cbrt(x: Real) -> Real:
    """Of a normal number: ``x == m 2**j 2**(3n)``, and m**(-1/3) is bettered by two steps that do not divide."""
    f, a = x.format, x.magnitude()
    exponent, m = significand(a)
    e = exponent.to_real()
    shifted = e.mul_add(1.0 / 3.0, f.magic)
    j, n = (shifted - f.magic).mul_add(-3.0, e), shifted.bits()  # j is -1, 0 or 1
    small, same, large = _THIRDS
    r = m.polynomial(*(_CBRT_SINGLE if f.single else _CBRT)) * x.like(small).where(
        j < -0.5, x.like(large).where(j > 0.5, same)
    )
    number, square = times_power(m, exponent - (n + n + n)), r * r
    y = number * square
    error = 1.0 - y * r
    y = (y * error).mul_add(2.0 / 3.0 if f.single else error.mul_add(5.0 / 9.0, 2.0 / 3.0), y)
    high, low = Pair.product(y, y)
    left = number.less_product(high, y) - low * y
    answer = times_power(left.mul_add(square * (1.0 / 3.0), y), n)
    return a.where(a.equals(0.0), answer).signed_like(x)


def cbrt_is_special(x: Real) -> Any:
    a = x.magnitude()
    return x.b.and_(a.outside(x.format.tiny, x.format.largest), x.b.not_(a.equals(0.0)))


def cbrt_anywhere(x: Real) -> Real:
    """Of a subnormal number, or infinity or nan, which stay themselves."""
    shift = 18 if not x.format.single else 8
    return x.where(x.magnitude().beyond(x.format.largest), cbrt(x * 2.0 ** (3 * shift)) * 2.0**-shift)

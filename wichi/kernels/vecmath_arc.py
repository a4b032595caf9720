"""arctan, arctan2, arcsin and arccos.

Arguments are brought near zero by the addition theorem of the tangent and by halving the angle (J. F. Hart et al.,
Computer Approximations, 1968); the angle taken away is a multiple of pi/4, added at the end in two parts. The
coefficients are minimax ones (``tools/minimax.py``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from wichi.kernels.vecmath_numbers import Real
from wichi.kernels.vecmath_pairs import added


class Constants(NamedTuple):
    """What differs between the formats. ``eighth`` is pi/4, its first part so short that multiples by 3 are exact."""

    eighth: tuple[float, float]
    atan: tuple[float, ...]  # (atan(t) / t - 1) / t**2 by t**2, |t| <= tan(pi/8)
    asin: tuple[float, ...]  # (asin(s) / s - 1) / s**2 by s**2, |s| <= 1/2
    largest: float  # between these arctan2 neither overflows nor loses bits
    smallest: float


_DOUBLE = Constants(
    eighth=(0.7853981633974483, 3.061616997868383e-17),
    atan=(-0.3333333333333319, 0.19999999999952187, -0.14285714280054623, 0.11111110776338298, -0.09090897552444926,
          0.07692056556333104, -0.06663062387968618, 0.05847585629740693, -0.05037934056154234, 0.03802968318144231,
          -0.01786896517853318),
    asin=(0.1666666666666676, 0.0749999999997081, 0.04464285717464554, 0.03038194270473441, 0.022372215103913733,
          0.017351609488280413, 0.013980855208646371, 0.011398597535533479, 0.010782171380535121,
          0.0036986324555566526, 0.02172755082866803, -0.021029069507358222, 0.032648303400512876),
    largest=2.0**1000,
    smallest=2.0**-960,
)  # fmt: skip
_SINGLE = Constants(
    eighth=(0.785398006439209, 1.5695823663008923e-07),
    atan=(-0.33333316445350647, 0.19998526573181152, -0.14244344830513, 0.10598728805780411, -0.0608874075114727),
    asin=(0.16666659712791443, 0.07500521838665009, 0.044513385742902756, 0.03183874115347862, 0.014317823573946953,
          0.03768929839134216),
    largest=2.0**100,
    smallest=2.0**-80,
)  # fmt: skip
_LOW, _HIGH = 0.41421356237309503, 2.414213562373095  # tan(pi/8), tan(3 pi/8)


def _constants(x: Real) -> Constants:
    return _SINGLE if x.format.single else _DOUBLE


def _turned(eighths: Real, head: Real, tail: Real) -> Real:
    """``eighths pi/4 + head + tail``."""
    first, second = _constants(head).eighth
    total, lost = added(eighths * first, head, eighths.mul_add(second, tail))
    return total + lost


def _angle(y: Real, x: Real, turned: Any = None) -> Real:
    """The angle of the point (x, y), of numbers not negative; ``turned``: that of (-x, y) where the sign bit is set."""
    middle, steep = y > x * _LOW, y > x * _HIGH
    top = (-x).where(steep, (y - x).where(middle, y))
    bottom = y.where(steep, (x + y).where(middle, x))
    eighths = x.like(2.0).where(steep, x.like(1.0).where(middle, 0.0))
    t = top / bottom
    if turned is not None:
        t = (t.bits() ^ turned).real()
        eighths = (4.0 - eighths).where(turned.is_negative(), eighths)
    z = t * t
    return _turned(eighths, t, t * z * z.polynomial(*_constants(t).atan))


def atan(x: Real) -> Real:
    return _angle(x.magnitude(), x.like(1.0)).signed_like(x)


def atan2(y: Real, x: Real) -> Real:
    return _angle(y.magnitude(), x.magnitude(), x.sign_bit()).signed_like(y)


def atan2_is_special(y: Real, x: Real) -> Any:
    """Huge or both tiny, or nan."""
    a, c = y.magnitude(), x.magnitude()
    larger = a.where(a > c, c)
    return x.b.or_((a + c).beyond(_constants(x).largest), larger.not_above(_constants(x).smallest))


def atan2_anywhere(y: Real, x: Real) -> Real:
    """Infinities count as if they were alike, zeros as if the one of x were infinitely larger."""
    a, c, f = y.magnitude(), x.magnitude(), x.format
    larger, infinity = a.where(a > c, c), float("inf")
    shift = 2.0 ** (f.bias // 2)
    factor = x.like(1.0 / shift).where(larger > 1.0, shift)
    infinite = x.b.or_(a.equals(infinity), c.equals(infinity))

    def brought_near(v: Real) -> Real:
        end = x.like(1.0).where(v.equals(infinity), v * 0.0)
        return end.where(infinite, v * factor)

    a, c = brought_near(a), brought_near(c)
    return _angle(a, x.like(1.0).where((a + c).equals(0.0), c), x.sign_bit()).signed_like(y)


def _of_half(a: Real) -> tuple[Any, Real, Real]:
    """asin(a) = s + tail where ``large`` does not hold, pi/2 - 2 (s + tail) where it does."""
    large = a > 0.5
    z = a.mul_add(-0.5, 0.5).where(large, a * a)
    s = z.sqrt().where(large, a)
    return large, s, s * z * z.polynomial(*_constants(a).asin)


def asin(x: Real) -> Real:
    large, s, tail = _of_half(x.magnitude())
    factor, eighths = x.like(-2.0).where(large, 1.0), x.like(2.0).where(large, 0.0)
    return _turned(eighths, s * factor, tail * factor).signed_like(x)


def acos(x: Real) -> Real:
    large, s, tail = _of_half(x.magnitude())
    factor = (x.like(2.0).where(large, -1.0).bits() ^ x.sign_bit()).real()
    eighths = x.like(4.0).where(x < 0.0, 0.0).where(large, 2.0)
    return _turned(eighths, s * factor, tail * factor)

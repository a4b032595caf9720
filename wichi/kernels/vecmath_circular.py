"""sin, cos and tan.

The argument is reduced to the nearest multiple of pi/2 (W. J. Cody and W. Waite, Software Manual for the Elementary
Functions, 1980), and both a sine and a cosine of the rest are computed: the gradient of the one is the other, and LLVM
computes what both need once. The coefficients are minimax ones (``tools/minimax.py``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from wichi.kernels.vecmath_numbers import Bits, Real, beside, narrowed, widened
from wichi.kernels.vecmath_pairs import added


class Constants(NamedTuple):
    """What differs between the formats. ``half_pi`` is in three parts, for processors with fused multiply-adds.

    Up to ``limit`` the number of quarter turns is right.
    """

    half_pi: tuple[float, float, float]
    limit: float
    sine: tuple[float, ...]  # (sin(r) / r - 1) / r**2 by r**2
    cosine: tuple[float, ...]  # (cos(r) - 1 + r**2 / 2) / r**4 by r**2


_DOUBLE = Constants(
    half_pi=(1.5707963267948966, 6.12323399409214e-17, 1.6446256936324258e-26),  # the second has 30 bits
    limit=2.0**23,
    sine=(-0.1666666666666663, 0.00833333333332184, -0.00019841269829358436, 2.7557313538457965e-06,
          -2.5050734378086333e-08, 1.589543256343788e-10),
    cosine=(0.041666666666666595, -0.0013888888888873307, 2.480158728896525e-05, -2.755731420309273e-07,
            2.087570314241384e-09, -1.1358617206873218e-11),
)  # fmt: skip
_SINGLE = Constants(
    half_pi=(1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
    limit=1.0e5,
    sine=(-0.16666655242443085, 0.008332187309861183, -0.00019517897453624755),
    cosine=(0.04166664555668831, -0.0013887309469282627, 2.4432327336398885e-05),
)
# Without fused multiply-adds: parts of 33 bits, so that their products with up to 20 bits are exact.
_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
_LIMIT = 1.0e6
_TWO_OVER_PI = 6.36619772367581382433e-01


def _constants(x: Real) -> Constants:
    return _SINGLE if x.format.single else _DOUBLE


class Angle(NamedTuple):
    """``x == quadrant pi/2 + r + lost``; of ``quadrant`` only the low bits are defined."""

    quadrant: Bits
    r: Real
    lost: Real

    def is_even(self) -> Any:
        return (self.quadrant & 1).is_zero()


def reduced(a: Real) -> Angle:
    """Of a number that is not negative."""
    f = a.format
    if f.single and not a.fused:
        wide = reduced(widened(a))
        r = narrowed(wide.r)
        quadrant = Bits(a.b, a.b.trunc(wide.quadrant.value, beside(a.value.type, f.integer)), a.fused)
        return Angle(quadrant, r, narrowed(wide.r - widened(r)))
    shifted = a.mul_add(_TWO_OVER_PI, f.magic)
    n = shifted - f.magic
    first, second, third = _constants(a).half_pi if a.fused else _HALF_PI
    if a.fused:
        begun = n.mul_add(-first, a)
        r = n.mul_add(-second, begun)
        # In float64 no product with the second part has more than 53 bits, so that begun - r is exact where r is small.
        lost = n * -third if f.single else n.mul_add(-third, n.mul_add(-second, begun - r))
        return Angle(shifted.bits(), r, lost)
    begun, small = (a - n * first) - n * second, n * third
    r = begun - small
    return Angle(shifted.bits(), r, (begun - r) - small)


def is_large(x: Real) -> Any:
    """Beyond the limit, or nan."""
    return x.magnitude().beyond(_constants(x).limit if x.fused else _LIMIT)


def sine_of(angle: Angle) -> tuple[Real, Real]:
    """Of the rest: one term and what is added to it."""
    r = angle.r
    z = r * r
    return r, (r * z).mul_add(z.polynomial(*_constants(r).sine), angle.lost)


def cosine_of(angle: Angle) -> tuple[Real, Real]:
    r = angle.r
    z = r * r
    head = z.mul_add(-0.5, 1.0)
    lost = z.mul_add(-0.5, 1.0 - head) - r * angle.lost
    return head, (z * z).mul_add(z.polynomial(*_constants(r).cosine), lost)


def sin(x: Real) -> Real:
    angle = reduced(x.magnitude())
    sine, cosine = sine_of(angle), cosine_of(angle)
    answer = (sine[0] + sine[1]).where(angle.is_even(), cosine[0] + cosine[1])
    sign = ((angle.quadrant << (x.format.integer.width - 2)) ^ x.bits()) & x.format.sign
    return (answer.bits() ^ sign).real()


def cos(x: Real) -> Real:
    angle = reduced(x.magnitude())
    sine, cosine = sine_of(angle), cosine_of(angle)
    answer = (cosine[0] + cosine[1]).where(angle.is_even(), sine[0] + sine[1])
    sign = ((angle.quadrant + 1) << (x.format.integer.width - 2)) & x.format.sign
    return (answer.bits() ^ sign).real()


def tan(x: Real) -> Real:
    """The sine by the cosine, or in every other quadrant the cosine by the sine, negative."""
    angle = reduced(x.magnitude())
    sine, cosine, even = added(*sine_of(angle)), added(*cosine_of(angle)), angle.is_even()
    answer = (sine.where(even, cosine) / cosine.where(even, sine)).rounded()
    sign = ((angle.quadrant << (x.format.integer.width - 1)) ^ x.bits()) & x.format.sign
    return (answer.bits() ^ sign).real()

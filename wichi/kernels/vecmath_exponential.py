"""exp, exp2, expm1 and softplus.

All split ``x == k ln2 + r`` with ``|r| <= ln2 / 2`` (W. J. Cody and W. Waite, Software Manual for the Elementary
Functions, 1980) and put ``2**k`` together from bits. The coefficients are minimax ones (``tools/minimax.py``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from wichi.kernels.vecmath_logarithm import softplus_of
from wichi.kernels.vecmath_numbers import Bits, Real, rounded, scaled, times_power


class Constants(NamedTuple):
    """What differs between the formats. ``ln2`` is in two parts, the first so short that its product with k is exact.

    Within ``limit`` results of exp are normal numbers, within ``limit2`` those of exp2.
    """

    ln2: tuple[float, float]
    limit: float
    limit2: float
    ends: tuple[float, float]  # exp is 0 below, infinite above
    exp: tuple[float, ...]  # (exp(r) - 1 - r) / r**2
    expm1: tuple[float, ...]  # as for exp, with the error of expm1


_DOUBLE = Constants(
    ln2=(6.93147180369123816490e-01, 1.90821492927058770002e-10),
    limit=708.0,
    limit2=1021.0,
    ends=(-746.0, 712.0),
    exp=(0.5000000000000011, 0.16666666666666466, 0.04166666666652881, 0.008333333333470229, 0.0013888888943697848,
         0.00019841269546169843, 2.4801493173140074e-05, 2.7557558570108202e-06, 2.7630194244409324e-07,
         2.5007182966927154e-08),
    expm1=(0.5, 0.16666666666666677, 0.04166666666666669, 0.008333333333321773, 0.0013888888888886537,
           0.0001984126988534894, 2.480158729555123e-05, 2.755724520756836e-06, 2.7557315166887896e-07,
           2.5108648513386736e-08, 2.0898181224055145e-09),
)  # fmt: skip
_SINGLE = Constants(
    ln2=(0.693359375, -2.12194440e-4),
    limit=86.5,
    limit2=125.0,
    ends=(-104.0, 90.0),
    exp=(0.4999999403953552, 0.1666652262210846, 0.04166829213500023, 0.008368532173335552, 0.0013818296138197184),
    expm1=(0.4999999701976776, 0.1666654646396637, 0.04166744649410248, 0.008366248570382595, 0.0013869658578187227),
)
LOG2_E, _LN2 = 1.44269504088896338700, 0.69314718055994530942


def constants(x: Real) -> Constants:
    return _SINGLE if x.format.single else _DOUBLE


class Split(NamedTuple):
    """``x == k ln2 + r + lost``; of ``k`` only the low bits are defined."""

    k: Bits
    r: Real
    lost: Real

    def power(self) -> Real:
        """``2**k``, where that is a normal number."""
        return self.k.power_of_two()


def split(x: Real) -> Split:
    f = x.format
    high, low = constants(x).ln2
    shifted = x.mul_add(LOG2_E, f.magic)
    n = shifted - f.magic
    rest = n.mul_add(-high, x)
    r = n.mul_add(-low, rest)
    return Split(shifted.bits(), r, n.mul_add(-low, rest - r))


def exp_of_rest(r: Real) -> Real:
    return less_one_of_rest(r) + 1.0


def less_one_of_rest(r: Real) -> Real:
    return (r * r).mul_add(r.polynomial(*constants(r).exp), r)


def exp(x: Real) -> Real:
    """Within ``limit``."""
    s = split(x)
    return times_power(exp_of_rest(s.r), s.k)


def vanishes(x: Real) -> tuple[Any, float]:
    """Where exp(x) is 0: masks of attention are full of exp(-1e9)."""
    return x < constants(x).ends[0], 0.0


def is_extreme(x: Real) -> Any:
    """Whether exp(x) or exp(-x) might not be a normal number, or x is nan."""
    return x.magnitude().beyond(constants(x).limit)


def exp_anywhere(x: Real) -> Real:
    x = x.clipped(*constants(x).ends)
    s = split(x)
    return scaled(exp_of_rest(s.r), s.k - x.format.magic_bits)


def exp2(x: Real) -> Real:
    """Within ``limit2``."""
    bits, n = rounded(x)
    r = (x - n) * _LN2
    return times_power(exp_of_rest(r), bits)


def is_extreme2(x: Real) -> Any:
    return x.magnitude().beyond(constants(x).limit2)


def exp2_anywhere(x: Real) -> Real:
    f = x.format
    x = x.clipped(-f.bias - f.mantissa - 2.0, f.bias + 2.0)
    bits, n = rounded(x)
    return scaled(exp_of_rest((x - n) * _LN2), bits - f.magic_bits)


def _expm1_of_rest(s: Split) -> Real:
    r = s.r
    return r + (r * r).mul_add(r.polynomial(*constants(r).expm1), r.mul_add(s.lost, s.lost))


def expm1(x: Real) -> Real:
    """``2**k (exp(r) - 1) + (2**k - 1)``, up to ``limit``: near zero k is 0 and nothing cancels."""
    s = split(x.like(-50.0).where(x < -50.0, x))
    power = s.power()
    return power.mul_add(_expm1_of_rest(s), power - 1.0).magnitude().signed_like(x)


def expm1_is_special(x: Real) -> Any:
    return x.beyond(constants(x).limit)


def exp_of_negative(x: Real) -> Real:
    """exp(-|x|), and 0 where that is less than a normal number."""
    a = -x.magnitude()
    s = split(a)
    return times_power(exp_of_rest(s.r), s.k).where(a >= -constants(x).limit, 0.0)


def softplus(x: Real) -> Real:
    return softplus_of(x, exp_of_negative(x))


def softplus_is_special(x: Real) -> Any:
    """Where exp(x) is subnormal, and is the answer; or nan."""
    c = constants(x)
    return x.b.and_(x.not_above(-c.limit), x.b.not_(x < c.ends[0]))

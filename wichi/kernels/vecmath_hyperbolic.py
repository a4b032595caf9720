"""sinh, cosh, tanh and their inverses.

sinh and cosh come from those of the rest of an exponential's argument. The inverses are ``k log(2) + 2 artanh(s)`` with
a small s, which the addition theorems give without a logarithm: s is ``tanh((A - L) / 2)`` for A that is sought and
``L == k log(2)``. The coefficients are minimax ones (``tools/minimax.py``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from wichi.kernels import vecmath_exponential as exponential
from wichi.kernels.vecmath_logarithm import log_anywhere
from wichi.kernels.vecmath_numbers import Bits, Real, scaled
from wichi.kernels.vecmath_pairs import added


class Constants(NamedTuple):
    """What differs between the formats."""

    sinh: tuple[float, ...]  # (sinh(r) / r - 1) / r**2 by r**2, |r| <= 1
    cosh: tuple[float, ...]  # (cosh(r) - 1) / r**2 by r**2
    artanh: tuple[float, ...]  # (artanh(s) / s - 1) / s**2 by s**2, |s| <= 0.268
    large: float  # from here on x**2 + 1 is x**2
    largest: float  # up to here nothing overflows


_DOUBLE = Constants(
    sinh=(0.16666666666666669, 0.008333333333332912, 0.0001984126984159342, 2.7557319106750125e-06,
          2.505213100053114e-08, 1.6056658957816426e-10, 7.776608924607928e-13),
    cosh=(0.5000000000000012, 0.041666666666519296, 0.0013888888946092404, 2.4801490827451875e-05,
          2.763098441389934e-07),
    artanh=(0.3333333333333342, 0.19999999999951262, 0.14285714295072227, 0.11111110232998123, 0.09090955558411974,
            0.07690828676109757, 0.0669547692794936, 0.055484690767110184, 0.07334743943307331),
    large=2.0**30,
    largest=2.0**1000,
)  # fmt: skip
_SINGLE = Constants(
    sinh=(0.1666666716337204, 0.00833331048488617, 0.00019842895562760532, 2.7822129595733713e-06),
    cosh=(0.5, 0.041666459292173386, 0.0013935451861470938),
    artanh=(0.3333331346511841, 0.20002660155296326, 0.14175723493099213, 0.12873968482017517),
    large=2.0**14,
    largest=2.0**100,
)


def _constants(x: Real) -> Constants:
    return _SINGLE if x.format.single else _DOUBLE


def _halves(x: Real, k: Bits) -> tuple[Real, Real]:
    """``2**(k-1)`` and ``2**(-k-1)``."""
    f = x.format
    up = (k + (f.bias - 1)) << f.mantissa
    down = ((f.bias - 1) - k) << f.mantissa
    return up.real(), down.real()


def _sinh_of_rest(r: Real) -> Real:
    z = r * r
    return (r * z).mul_add(z.polynomial(*_constants(r).sinh), r)


def _cosh_of_rest_less_one(r: Real) -> Real:
    z = r * r
    return z * z.polynomial(*_constants(r).cosh)


def sinh(x: Real) -> Real:
    """``sinh(r) (2**k + 2**-k) / 2 + cosh(r) (2**k - 2**-k) / 2``, within ``limit``; up to 1, k is 0."""
    a = x.magnitude()
    s, small = exponential.split(a), a < 1.0
    up, down = _halves(x, s.k)
    r = a.where(small, s.r)
    near = _sinh_of_rest(r)
    far = up + (up + down).mul_add(near, (up - down).mul_add(_cosh_of_rest_less_one(s.r), -down))
    return near.where(small, far).signed_like(x)


def cosh(x: Real) -> Real:
    """``cosh(r) (2**k + 2**-k) / 2 + sinh(r) (2**k - 2**-k) / 2``, within ``limit``."""
    s = exponential.split(x.magnitude())
    up, down = _halves(x, s.k)
    return up + (up - down).mul_add(_sinh_of_rest(s.r), (up + down).mul_add(_cosh_of_rest_less_one(s.r), down))


def cosh_anywhere(x: Real) -> Real:
    """What ``cosh`` leaves, where exp(-|x|) is nothing."""
    x = x.magnitude().clipped(*exponential.constants(x).ends)
    s = exponential.split(x)
    return scaled(exponential.exp_of_rest(s.r) * 0.5, s.k - x.format.magic_bits)


def sinh_anywhere(x: Real) -> Real:
    return cosh_anywhere(x).signed_like(x)


# S. L. Moshier, Cephes (https://www.netlib.org/cephes), tanh.c: tanh(x) = x + x z P(z) / Q(z), z = x**2, |x| < 0.625.
_TANH_P = (-1.61468768441708447952e03, -9.92877231001918586564e01, -9.64399179425052238628e-01)
_TANH_Q = (4.84406305325125486048e03, 2.23548839060100448583e03, 1.12811678491632931402e02, 1.0)
_TANH_SINGLE = (-0.3333328068256378, 0.13331405818462372, -0.05373651534318924, 0.02062816731631756,
                -0.005692296661436558)  # fmt: skip


def tanh(x: Real) -> Real:
    """A rational function near zero, ``1 - 2 / (exp(2|x|) + 1)`` elsewhere; one division for both.

    Written so that few steps wait for each other, as in a recurrent network steps do: the constants of exp are those of
    half an exponent, and what chooses between the two is known before the exponential is.
    """
    f, a = x.format, x.magnitude()
    small, large = a < 0.55, a > 20.0
    high, low = exponential.constants(x).ln2
    shifted = a.mul_add(2.0 * exponential.LOG2_E, f.magic)
    n = shifted - f.magic
    r = n.mul_add(-0.5 * low, n.mul_add(-0.5 * high, a))
    less_one = r.series(r + r, *(c * 2.0 ** (i + 2) for i, c in enumerate(exponential.constants(x).exp)))
    power = shifted.bits().power_of_two()
    z = a * a
    if f.single:
        near = (a * z).mul_add(z.polynomial(*_TANH_SINGLE), a)
        far = 1.0 - 2.0 / power.mul_add(less_one, power + 1.0)
        return near.where(small, x.like(1.0).where(large, far)).signed_like(x)
    top = (a * z * z.polynomial(*_TANH_P)).where(small, -2.0)
    bottom = x.like(0.0).where(small, power).mul_add(less_one, z.polynomial(*_TANH_Q).where(small, power + 1.0))
    return x.like(1.0).where(large, a.where(small, 1.0) + top / bottom).signed_like(x)


def _joined(k: Real, twice: Real, head: Real | None = None, tail: Real | None = None) -> Real:
    """``k log(2) + 2 artanh(twice / 2)``, or ``k log(2) + head + tail + (what artanh's series adds to its term)``."""
    high, low = exponential.constants(k).ln2
    z = twice * twice
    series = z.polynomial(*(c / 4.0 ** (i + 1) for i, c in enumerate(_constants(k).artanh)))
    rest = (twice * z).mul_add(series, k * low if tail is None else tail)
    total, lost = added(k * high, twice if head is None else head, rest)
    return total + lost


def _nearest_power(bits: Bits) -> Bits:
    """The exponent of a number from its bits, rounded: 0 from 1 to 1.7, so that k is 0 up to 0.5."""
    f = bits.format
    return (bits + int(0.3 * 2**f.mantissa)).without_sign_shifted(f.mantissa)


def arcsinh(x: Real) -> Real:
    """``tanh((A - L) / 2) == (sinh A - sinh L) / (cosh A + cosh L)``

    With L == 0 its double t is ``|x| - |x| t**2 / 4``: the rounding of t does not matter where that is used.
    """
    a = x.magnitude()
    root = a.where(a > _constants(x).large, a.mul_add(a, 1.0).sqrt())
    exponent = _nearest_power((a + root).bits()) - x.format.bias
    up, down = _halves(x, exponent)
    near, k, top = exponent.is_zero(), exponent.to_real(), a - (up - down)
    t = (top + top) / (root + (up + down))
    tail = (a * (t * t) * -0.25).where(near, k * exponential.constants(x).ln2[1])
    return _joined(k, t, a.where(near, t), tail).signed_like(x)


def arccosh(x: Real) -> Real:
    """``tanh((A - L) / 2) == (cosh A - cosh L) / (sinh A + sinh L)``; near 1 the root must be better than rounded."""
    f, large = x.format, x > _constants(x).large
    square = x.like(-1.0).less_product(-x, x).at_least(f.tiny)
    root = x.where(large, square.sqrt())
    k = _nearest_power((x + root).bits()) - f.bias
    up, down = _halves(x, k)
    top, bottom = x - (up + down), root + (up - down)
    inverse = 1.0 / bottom
    t = (top + top) * inverse
    lost = x.like(0.0).where(large, square.less_product(root, root)) * inverse * 0.5
    rest = (top + top).less_product(t, bottom) - t * lost
    return _joined(k.to_real(), rest.mul_add(inverse, t))


def arctanh(x: Real) -> Real:
    """``tanh((A - L) / 2) == (tanh A cosh L - sinh L) / (cosh L - tanh A sinh L)``, for ``|x| < 1``."""
    a = x.magnitude()
    more, less = added(1.0, a), added(1.0, -a)
    k = _nearest_power(more.high.bits() - less.high.bits())
    near, power = k.is_zero(), k.power_of_two()
    top = (more.high - power * less.high) + (more.low - power * less.low)
    bottom = x.like(2.0).where(near, power.mul_add(less.high, more.high))
    return (_joined(k.to_real(), (top + top) / bottom) * 0.5).signed_like(x)


def arcsinh_is_special(x: Real) -> Any:
    return x.magnitude().beyond(_constants(x).largest)


def arccosh_is_special(x: Real) -> Any:
    return x.outside(1.0, _constants(x).largest)


def arctanh_is_special(x: Real) -> Any:
    return x.b.not_(x.magnitude() < 1.0)


def arcsinh_anywhere(x: Real) -> Real:
    """What ``arcsinh`` leaves: log(2 |x|)."""
    return (log_anywhere(x.magnitude()) + 0.69314718055994530942).signed_like(x)


def arccosh_anywhere(x: Real) -> Real:
    return x.like(float("nan")).where(x < 1.0, log_anywhere(x) + 0.69314718055994530942)


def arctanh_anywhere(x: Real) -> Real:
    """What ``arctanh`` leaves: the poles, and nan."""
    return x.like(float("inf")).where(x.magnitude().equals(1.0), float("nan")).signed_like(x)

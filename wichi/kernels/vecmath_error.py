"""erf and erfc. The coefficients are minimax ones (``tools/minimax.py``)."""

from __future__ import annotations

from typing import Any, NamedTuple

from wichi.kernels.vecmath_exponential import less_one_of_rest, split
from wichi.kernels.vecmath_numbers import Bits, Real, scaled, times_power
from wichi.kernels.vecmath_pairs import Pair, added


class Constants(NamedTuple):
    """What differs between the formats.

    erf is 1 from ``end`` on. erfc is a normal number up to ``limit``, and 0 from ``zero`` on. ``middle`` is where the
    variable q of ``scaled`` is 0.
    """

    near: tuple[float, ...]  # erf(x) / x - 1 by x**2, x <= 1
    far: tuple[float, ...]  # log(1 - erf(x)) from 1 to the end
    end: float
    middle: float
    small: tuple[float, ...]  # as near, x <= 1/2, with the error of erfc
    scaled: tuple[float, ...]  # (1 + 2x) exp(x**2) erfc(x) - 1.25 by q
    limit: float
    zero: float


_DOUBLE = Constants(
    near=(0.12837916709551256, -0.37612638903183343, 0.11283791670936869, -0.026866170641931943, 0.005223977596391782,
          -0.0008548325462506041, 0.00012055279639829878, -1.4924445581933226e-05, 1.644385821161008e-06,
          -1.618140726772417e-07, 1.360403476493053e-08, -7.581417813217599e-10),
    far=(-1.0817864978980432e-06, -1.1283685489541946, -0.6366682558999746, -0.10263592665202245, 0.01886237361973603,
         0.000587893585156586, -0.0021024435814386375, 0.0009226429836345284, -0.00023219017061038233,
         2.8683881071624204e-05, 3.37453430636496e-06, -2.6105050411491843e-06, 6.753384540031096e-07,
         -1.064279517111606e-07, 1.0725759015691327e-08, -6.410375233863819e-10, 1.7402301246827392e-11),
    end=5.93,
    middle=4.0,
    small=(0.1283791670955125, -0.3761263890318223, 0.11283791670856332, -0.02686617061561528, 0.005223977142971154,
           -0.0008548280333908664, 0.00012052582808823208, -1.4828592827812533e-05, 1.4562773757918324e-06),
    scaled=(-0.017004881374447476, -0.13962111684056172, 0.01537965210261397, 0.06809705425459227, -0.10103906603593092,
            0.0937328350021256, -0.06633036582144801, 0.03716751547216307, -0.016197733942621553, 0.005031970600955843,
            -0.0007577741137796983, -0.000199260279283231, 0.00015062529505090595, -2.4386218938640184e-05,
            -1.1231995219160354e-05, 5.679742637797081e-06, 3.1090204286861885e-07, -7.823783784790066e-07,
            5.7244329130076185e-08, 7.436381420241302e-08, -8.649604800707259e-09),
    limit=26.5,
    zero=27.3,
)  # fmt: skip
_SINGLE = Constants(
    near=(0.12837912142276764, -0.37612318992614746, 0.11280113458633423, -0.026709217578172684, 0.004914915654808283,
          -0.0005619966541416943),
    far=(-0.000353753479430452, -1.127039909362793, -0.6382258534431458, -0.1030372604727745, 0.02180529572069645,
         -0.0029396109748631716, 0.00018557553994469345),
    end=3.93,
    middle=2.5,
    small=(0.12837915122509003, -0.3761253356933594, 0.1128174439072609, -0.02669939026236534, 0.004614459816366434),
    scaled=(0.014838183298707008, -0.12235677242279053, -0.09902438521385193, 0.1576303094625473, -0.10297045111656189,
            0.032755497843027115, 0.0009575582225807011, -0.004348601680248976, 0.0004125717969145626,
            0.0005349084385670722),
    limit=9.1,
    zero=10.1,
)  # fmt: skip


def _constants(x: Real) -> Constants:
    return _SINGLE if x.format.single else _DOUBLE


def erf(x: Real) -> Real:
    """A polynomial up to 1, and from there ``1 - exp(polynomial)``."""
    constants = _constants(x)
    a = x.magnitude()
    near = a.mul_add((a * a).polynomial(*constants.near), a)
    s = split(a.at_most(constants.end).polynomial(*constants.far))
    power = s.power()
    far = (-power).mul_add(less_one_of_rest(s.r), 1.0 - power)
    return far.where(a >= 1.0, near).signed_like(x)


def _tail(a: Real) -> tuple[Real, Bits]:
    """erfc(a) == v 2**k for a that is not negative; of k only the low bits are defined.

    ``(1 + 2a) exp(a**2) erfc(a)`` varies little, and is a polynomial by ``q == (a - m) / (a + m)`` (M. M. Shepherd and
    J. G. Laframboise, Mathematics of Computation 36, 1981). The rest is done in two parts: the rounding of a**2 alone
    would be seen in the last ten bits.
    """
    constants = _constants(a)
    q = (a - constants.middle) / (a + constants.middle)
    below = a + a + 1.0
    bottom = Pair(below, (a + a) - (below - 1.0))
    square = Pair.product(a, a)
    s = split(-square.high)
    less_one, lost = less_one_of_rest(s.r), s.lost - square.low
    power = added(1.0, less_one, lost.mul_add(less_one, lost))
    answer = added(1.25, q.polynomial(*constants.scaled)) / bottom * power
    return answer.rounded(), s.k


def erfc(x: Real) -> Real:
    """``1 - erf(x)`` near 0, where the other form loses bits."""
    constants, a = _constants(x), x.magnitude()
    near = (-x).mul_add((x * x).polynomial(*constants.small), 1.0 - x)
    tail = times_power(*_tail(a.at_most(constants.limit)))
    far = (2.0 - tail).where(x < 0.0, tail)
    return x.like(0.0).where(x > constants.zero, near.where(a < 0.5, far))


def erfc_is_special(x: Real) -> Any:
    """Where it is subnormal, or x is nan."""
    constants = _constants(x)
    return x.b.and_(x.beyond(constants.limit), x.b.not_(x > constants.zero))


def erfc_anywhere(x: Real) -> Real:
    value, k = _tail(x.magnitude().at_most(_constants(x).zero))
    return x.where(x.is_nan(), scaled(value, k - x.format.magic_bits))

"""More functions of single numbers: parts and powers of 2, shifts of bits, roundings, kinds of infinity."""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.numpy import _pointwise as pw
from wichi.numpy._indexing import index
from wichi.numpy._pointwise import UFUNCS
from wichi.numpy._promote import Array, as_value, cast_to, is_boxed, public, resolve
from wichi.numpy._reducing import _plain_options
from wichi.trace.primitive import aval_of


@public(np.fix)
def fix(x: Array, out: Any = None) -> Array:
    _plain_options("fix", out=out)
    return pw.trunc(x)


@public(np.isposinf)
def isposinf(x: Array, out: Any = None) -> Array:
    _plain_options("isposinf", out=out)
    return pw.logical_and(pw.isinf(x), pw.greater(x, 0))


@public(np.isneginf)
def isneginf(x: Array, out: Any = None) -> Array:
    _plain_options("isneginf", out=out)
    return pw.logical_and(pw.isinf(x), pw.less(x, 0))


@public(np.angle)
def angle(z: Array, deg: bool = False) -> Array:
    """As ``numpy.angle`` of real numbers: 0, or pi where they are negative."""
    z = as_value(z)
    z = z if aval_of(z).dtype.kind == "f" else cast_to(z, np.dtype(float))
    found = pw.arctan2(pw.where(pw.isnan(z), z, aval_of(z).dtype.type(0)), z)
    return pw.multiply(found, 180 / np.pi) if deg else found


# --- parts of floats -----------------------------------------------------------------------------------------------
def modf(x: Array) -> tuple[Array, Array]:
    """As ``numpy.modf``: what is behind the point, and the whole number, both with the sign of ``x``."""
    x = as_value(x)
    x = cast_to(x, resolve(np.fabs, [aval_of(x)])[1])  # the same dtypes; NumPy is not asked about two results
    below = pw.signbit(x)
    size = pw.where(below, pw.negative(x), x)
    rest = pw.where(pw.isinf(x), aval_of(x).dtype.type(0), pw.subtract(size, pw.floor(size)))
    return pw.where(below, pw.negative(rest), rest), pw.trunc(x)


def ldexp(x1: Array, x2: Array) -> Array:
    """As ``numpy.ldexp``: ``x1 * 2**x2``, rounded once, where ``2**x2`` has no float too."""
    x1, x2 = as_value(x1), as_value(x2)
    (dtype, exponent), _ = resolve(np.ldexp, [aval_of(x1), aval_of(x2)])
    info = np.finfo(dtype)
    least, most = int(info.minexp), int(info.maxexp) - 1
    # A step down that leaves so much to go that what it rounds off among the subnormal numbers is lost anyway.
    step = least + info.nmant + 1
    powers = np.ldexp(dtype.type(1), np.arange(least, most + 1))
    rest = cast_to(cast_to(x2, exponent), np.dtype("i8"))
    found = cast_to(x1, dtype)
    for last in (False, False, True):
        part = pw.clip(rest, least, most) if last else pw.where(pw.less(rest, least), step, pw.minimum(rest, most))
        place = pw.subtract(part, least)
        found = pw.multiply(found, index(powers, place if is_boxed(place) else np.asarray(place)))
        rest = pw.subtract(rest, part)
    return found


# --- shifts: products with powers of 2, which wrap as shifts do ----------------------------------------------------
def _shifted(ufunc: np.ufunc, x1: Array, x2: Array) -> tuple[Array, Array, Array, int]:
    """Both in NumPy's dtype; 2 to the power of the second, where it is in range, and whether it is; how many bits."""
    x1, x2 = as_value(x1), as_value(x2)
    (left, right), _ = resolve(ufunc, [aval_of(x1), aval_of(x2)])
    x1, x2 = cast_to(x1, left), cast_to(x2, right)
    usable = 8 * left.itemsize - (left.kind == "i")  # the highest bit of a signed number is its sign
    powers = np.array([1 << i for i in range(usable)], left)
    inside = pw.logical_and(pw.greater_equal(x2, 0), pw.less(x2, usable))
    places = pw.where(inside, x2, right.type(0))
    return x1, index(powers, places if is_boxed(places) else np.asarray(places)), inside, usable


def left_shift(x1: Array, x2: Array) -> Array:
    x1, power, inside, usable = _shifted(np.left_shift, x1, x2)
    found = pw.where(inside, pw.multiply(x1, power), aval_of(x1).dtype.type(0))
    if aval_of(x1).dtype.kind == "u":
        return found
    lowest = np.iinfo(aval_of(x1).dtype).min
    odd = pw.not_equal(pw.bitwise_and(x1, aval_of(x1).dtype.type(1)), 0)
    to_sign = pw.logical_and(pw.equal(x2, usable), odd)
    return pw.where(to_sign, aval_of(x1).dtype.type(lowest), found)


def right_shift(x1: Array, x2: Array) -> Array:
    x1, power, inside, _ = _shifted(np.right_shift, x1, x2)
    sign = pw.where(
        pw.less(x1, 0), aval_of(x1).dtype.type(-1 if aval_of(x1).dtype.kind == "i" else 0), aval_of(x1).dtype.type(0)
    )
    return pw.where(inside, pw.floor_divide(x1, power), sign)


def _ufunc(ufunc: np.ufunc, ours: Any) -> Any:
    UFUNCS[ufunc] = public(ufunc)(ours)
    return UFUNCS[ufunc]


modf, ldexp = _ufunc(np.modf, modf), _ufunc(np.ldexp, ldexp)
left_shift, right_shift = _ufunc(np.left_shift, left_shift), _ufunc(np.right_shift, right_shift)
bitwise_left_shift, bitwise_right_shift = left_shift, right_shift

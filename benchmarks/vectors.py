"""exp, log and tanh as an engineer would write them into a loop by hand: straight lines that LLVM makes vectors of.

For the hand-written limits only. They are right to a few ulp for the ordinary arguments of the benchmarks (their
callers are checked against the other contestants) and do not handle nan, infinities or subnormals: less work than
wichi's own ``vecmath`` has, so a tight limit.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

# Sums may be reordered, products fused, nothing else assumed: what wichi's own sums of many lanes do.
FAST = {"reassoc", "contract", "nsz", "nnan", "ninf"}
# No "reassoc": adding and taking away a large number rounds, and must stay.
_STRICT = {"contract", "nsz", "nnan", "ninf"}


@intrinsic
def wide(context: Any) -> Any:
    """Let LLVM use the widest vectors in this function; by itself it takes half of AVX-512."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # llvmlite knows no attribute with a value
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def larger(context: Any, a: Any, b: Any) -> Any:
    """The larger number, neither of them nan: Python's ``max`` in a loop stays scalar."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(arguments[0].type, (arguments[0].type, arguments[1].type))
        maximum = cgutils.get_or_insert_function(builder.module, kind, f"llvm.maxnum.f{a.bitwidth}")
        return builder.call(maximum, arguments, fastmath=("nnan", "nsz"))

    return a(a, a), generate


@intrinsic
def _bits(context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def _from_bits(context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@intrinsic
def _times_power(context: Any, p: Any, t: Any) -> Any:
    """p * 2**k, where k is in the lowest bits of t."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer, places = (ir.IntType(64), 52) if p == types.float64 else (ir.IntType(32), 23)
        significand, power = (builder.bitcast(a, integer) for a in arguments)
        moved = builder.add(significand, builder.shl(power, integer(places)))
        return builder.bitcast(moved, arguments[0].type)

    return p(p, p), generate


def exp(x: Any) -> Any:
    """Compiled code only: see ``_exp``."""
    raise NotImplementedError


@overload(exp, jit_options={"fastmath": _STRICT}, inline="never")
def _exp(x: Any) -> Any:
    """2**k * exp(r), |r| <= log(2) / 2, by Taylor's polynomial (float32: Cephes'), short chains."""
    if x == types.float64:

        def double(x: Any) -> Any:
            x = min(max(x, -708.0), 709.0)
            t = x * 1.4426950408889634 + 6755399441055744.0
            k = t - 6755399441055744.0
            r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10
            r2 = r * r
            r4 = r2 * r2
            low = 1.0 + (r + r2 * (0.5 + 0.16666666666666666 * r))
            middle = (0.041666666666666664 + 0.008333333333333333 * r) + r2 * (
                0.001388888888888889 + 0.0001984126984126984 * r
            )
            high = (2.48015873015873e-05 + 2.7557319223985893e-06 * r) + r2 * (
                2.755731922398589e-07 + 2.505210838544172e-08 * r + 2.08767569878681e-09 * r2
            )
            return _times_power(low + r4 * (middle + r4 * high), t)

        return double

    f = numba.float32

    def single(x: Any) -> Any:
        x = min(max(x, f(-87.0)), f(88.0))
        t = x * f(1.442695) + f(12582912.0)
        k = t - f(12582912.0)
        r = (x - k * f(0.693359375)) - k * f(-2.12194440e-4)
        r2 = r * r
        tail = (f(0.50000001201) + f(0.16666665459) * r) + r2 * (
            (f(4.1665795894e-2) + f(8.3334519073e-3) * r) + r2 * (f(1.3981999507e-3) + f(1.9875691500e-4) * r)
        )
        return _times_power(f(1.0) + (r + r2 * tail), t)

    return single


@numba.njit(fastmath=_STRICT, error_model="numpy")
def log(x: float) -> float:
    """k * log(2) + log(m), m about 1, as fdlibm's ``e_log.c`` has it."""
    bits = _bits(x)
    k = (bits - 0x3FE6A09E667F3BCD) >> 52
    m = _from_bits(bits - (k << 52))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    w = z * z
    even = w * (0.3999999999940942 + w * (0.22222198432149784 + w * 0.15313837699209373))
    odd = z * (0.6666666666666735 + w * (0.2857142874366239 + w * (0.1818357216161805 + w * 0.14798198605116586)))
    return k * 0.6931471805599453 + s * (2.0 + (even + odd))


@numba.njit(fastmath=_STRICT, error_model="numpy")
def tanh(x: float) -> float:
    """1 - 2 / (exp(2 x) + 1)."""
    return 1.0 - 2.0 / (exp(2.0 * x) + 1.0)

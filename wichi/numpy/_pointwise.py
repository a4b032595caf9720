"""NumPy's elementwise functions. Those with a primitive are one row; the others are composed of them."""

from __future__ import annotations

import builtins
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from wichi.errors import DtypeError
from wichi.numpy._comparing import COMPARISONS, compared
from wichi.numpy._promote import (
    Array,
    as_value,
    cast_to,
    is_boxed,
    pointwise,
    public,
    resolve,
    result_type,
    spread,
)
from wichi.ops import pointwise as table
from wichi.ops import shaping
from wichi.trace import frames
from wichi.trace.primitive import Primitive, aval_of, shape_of
from wichi.trace.tracer import Tracer, concrete

_ROWS: dict[str, Primitive] = {
    "add": table.add, "subtract": table.sub, "multiply": table.mul, "divide": table.div, "negative": table.neg,
    "floor_divide": table.floordiv, "remainder": table.mod, "absolute": table.abs_, "sign": table.sign,
    "square": table.square, "floor": table.floor, "ceil": table.ceil, "trunc": table.trunc, "rint": table.rint,
    "maximum": table.maximum, "minimum": table.minimum, **COMPARISONS, "bitwise_and": table.and_,
    "bitwise_or": table.or_, "bitwise_xor": table.xor, "invert": table.not_, "exp": table.exp, "exp2": table.exp2,
    "expm1": table.expm1, "log": table.log, "log2": table.log2, "log10": table.log10, "log1p": table.log1p,
    "sqrt": table.sqrt, "cbrt": table.cbrt, "sin": table.sin, "cos": table.cos, "tan": table.tan,
    "arcsin": table.arcsin, "arccos": table.arccos, "arctan": table.arctan, "arctan2": table.arctan2,
    "sinh": table.sinh, "cosh": table.cosh, "tanh": table.tanh, "arcsinh": table.arcsinh, "arccosh": table.arccosh,
    "arctanh": table.arctanh,
}  # fmt: skip
_KEEPING = {"absolute", "floor", "ceil", "trunc", "rint"}  # what some integers already are


def _from_row(ufunc: np.ufunc, prim: Primitive) -> Callable[..., Any]:
    name = ufunc.__name__

    def function(*args: Array, **kwargs: Any) -> Array:
        if kwargs:
            _no_options(name, kwargs)
        args = tuple([as_value(a) for a in args])
        if name in COMPARISONS:
            found = compared(name, *args)
            if found is not None:
                return found
        if name in _KEEPING and _changes_nothing(ufunc, args[0]):
            return positive(args[0])
        return pointwise(ufunc, prim, *args)

    function.__name__ = name
    return public(ufunc)(function)


def _changes_nothing(ufunc: np.ufunc, x: Array) -> bool:
    """Whether ``x`` is an integer, which is rounded already, or a bool, which has no sign."""
    kind = aval_of(x).dtype.kind
    if ufunc is np.absolute:
        return kind == "b"
    return kind in "iub" and resolve(ufunc, [aval_of(x)])[1].kind != "f"


def _no_options(name: str, options: dict[str, Any]) -> None:
    given = {k for k, v in options.items() if v is not None and not (k == "where" and v is True)}
    if given:
        raise TypeError(f"np.{name} on a value inside a transform does not take {', '.join(sorted(given))}")


UFUNCS: dict[np.ufunc, Callable[..., Any]] = {getattr(np, n): _from_row(getattr(np, n), p) for n, p in _ROWS.items()}
_of = {f.__name__: f for f in UFUNCS.values()}
add, subtract, multiply, divide, negative = (_of[n] for n in ("add", "subtract", "multiply", "divide", "negative"))
floor_divide, remainder, absolute, sign, square = (
    _of[n] for n in ("floor_divide", "remainder", "absolute", "sign", "square")
)
floor, ceil, trunc, rint = (_of[n] for n in ("floor", "ceil", "trunc", "rint"))
maximum, minimum = _of["maximum"], _of["minimum"]
equal, not_equal, less, less_equal = (_of[n] for n in ("equal", "not_equal", "less", "less_equal"))
greater, greater_equal = _of["greater"], _of["greater_equal"]
bitwise_and, bitwise_or, bitwise_xor, invert = (_of[n] for n in ("bitwise_and", "bitwise_or", "bitwise_xor", "invert"))
exp, exp2, expm1, log, log2, log10, log1p = (_of[n] for n in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p"))
sqrt, cbrt, sin, cos, tan, sinh, cosh, tanh = (
    _of[n] for n in ("sqrt", "cbrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")
)
arcsin, arccos, arctan, arctan2 = (_of[n] for n in ("arcsin", "arccos", "arctan", "arctan2"))
arcsinh, arccosh, arctanh = (_of[n] for n in ("arcsinh", "arccosh", "arctanh"))
true_divide, mod, abs = divide, remainder, absolute


def _composed(ufunc: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function composed of others for NumPy's ``ufunc``."""

    def decorate(ours: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(ours)
        def on_values(*args: Any, **kwargs: Any) -> Any:
            _no_options(ufunc.__name__, kwargs)
            return ours(*map(as_value, args))

        UFUNCS[ufunc] = public(ufunc)(on_values)
        return UFUNCS[ufunc]

    return decorate


@_composed(np.positive)
def positive(x: Array) -> Array:
    return shaping.copy(x)


@_composed(np.reciprocal)
def reciprocal(x: Array) -> Array:
    x = cast_to(x, resolve(np.reciprocal, [aval_of(x)])[1])
    return divide(1, x) if aval_of(x).dtype.kind == "f" else where(equal(absolute(x), 1), x, 0)


@_composed(np.power)
def power(x: Array, y: Array) -> Array:
    """As ``numpy.power``. Constant exponents 2, 1, -1, 0.5, 3 and 4 become products, quotients and roots."""
    exponent = concrete(y)
    (dtype, y_dtype), _ = resolve(np.power, [aval_of(x), aval_of(y)])
    if dtype.kind != "f":
        if exponent is not None and aval_of(y).weak and int(exponent) >= 0:
            cast_to(int(exponent), y_dtype)  # refuses what NumPy does
        return _integer_power(cast_to(x, dtype), exponent)
    if exponent is not None and not isinstance(exponent, np.ndarray):
        return table.pow_(cast_to(x, dtype), y_dtype.type(exponent))
    return table.pow_(*spread("power", [cast_to(x, dtype), cast_to(y, y_dtype)]))


def _integer_power(x: Array, exponent: Any) -> Array:
    """By repeated squaring; the exponent must be a plain integer."""
    if exponent is None:
        raise DtypeError(
            "An integer power with an exponent that depends on input values cannot be traced.",
            at=frames.describe(frames.user_where()),
            because="its size decides how many products there are",
            fix="use floats: np.power(x.astype(float), n)",
        )
    n = int(exponent)
    if n < 0:
        raise ValueError("Integers to negative integer powers are not allowed.")
    result: Array = None
    while n:
        if n & 1:
            result = x if result is None else multiply(result, x)
        n >>= 1
        x = square(x) if n else x
    dtype = aval_of(x).dtype
    return where(equal(x, x), dtype.type(1), dtype.type(1)) if result is None else result


@_composed(np.float_power)
def float_power(x: Array, y: Array) -> Array:
    return power(cast_to(x, np.dtype(float)), cast_to(y, np.dtype(float)))


@_composed(np.fmod)
def fmod(x: Array, y: Array) -> Array:
    dtype = resolve(np.fmod, [aval_of(x), aval_of(y)])[1]
    rest = remainder(absolute(x), absolute(y))
    return cast_to(where(less(x, 0), negative(rest), rest), dtype)


@_composed(np.divmod)
def divmod(x: Array, y: Array) -> tuple[Array, Array]:
    return floor_divide(x, y), remainder(x, y)


@_composed(np.fabs)
def fabs(x: Array) -> Array:
    return absolute(cast_to(x, resolve(np.fabs, [aval_of(x)])[1]))


def _truth(x: Array) -> Array:
    return cast_to(x, np.dtype(bool))


@_composed(np.logical_and)
def logical_and(x: Array, y: Array) -> Array:
    return bitwise_and(_truth(x), _truth(y))


@_composed(np.logical_or)
def logical_or(x: Array, y: Array) -> Array:
    return bitwise_or(_truth(x), _truth(y))


@_composed(np.logical_xor)
def logical_xor(x: Array, y: Array) -> Array:
    return bitwise_xor(_truth(x), _truth(y))


@_composed(np.logical_not)
def logical_not(x: Array) -> Array:
    return invert(_truth(x))


@_composed(np.isnan)
def isnan(x: Array) -> Array:
    return not_equal(x, x)


@_composed(np.isinf)
def isinf(x: Array) -> Array:
    return equal(absolute(x), np.inf) if aval_of(x).dtype.kind == "f" else not_equal(x, x)


@_composed(np.isfinite)
def isfinite(x: Array) -> Array:
    return less(absolute(x), np.inf) if aval_of(x).dtype.kind == "f" else equal(x, x)


@_composed(np.signbit)
def signbit(x: Array) -> Array:
    return less(x, 0) if aval_of(x).dtype.kind != "f" else logical_or(less(x, 0), less(divide(1, x), 0))


@_composed(np.copysign)
def copysign(x: Array, y: Array) -> Array:
    dtype = resolve(np.copysign, [aval_of(x), aval_of(y)])[1]
    size = absolute(cast_to(x, dtype))
    return where(signbit(y), negative(size), size)


@_composed(np.fmax)
def fmax(x: Array, y: Array) -> Array:
    return where(isnan(x), y, where(isnan(y), x, maximum(x, y)))


@_composed(np.fmin)
def fmin(x: Array, y: Array) -> Array:
    return where(isnan(x), y, where(isnan(y), x, minimum(x, y)))


@_composed(np.hypot)
def hypot(x: Array, y: Array) -> Array:
    """As ``numpy.hypot``: scaled, so that large and tiny sides neither overflow nor vanish."""
    dtype = resolve(np.hypot, [aval_of(x), aval_of(y)])[1]
    a, b = absolute(cast_to(x, dtype)), absolute(cast_to(y, dtype))
    large, small = maximum(a, b), minimum(a, b)
    usable = logical_and(greater(large, 0), isfinite(large))
    ratio = where(usable, divide(small, where(usable, large, 1)), 0)
    infinite = logical_or(equal(a, np.inf), equal(b, np.inf))  # beside nan too
    return where(infinite, np.inf, multiply(large, sqrt(add(1, square(ratio)))))


@_composed(np.logaddexp)
def logaddexp(x: Array, y: Array) -> Array:
    """As ``numpy.logaddexp``; equal infinities give themselves."""
    dtype = resolve(np.logaddexp, [aval_of(x), aval_of(y)])[1]
    x, y = cast_to(x, dtype), cast_to(y, dtype)
    return _joined(x, y, lambda gap: log1p(exp(negative(gap))))


@_composed(np.logaddexp2)
def logaddexp2(x: Array, y: Array) -> Array:
    dtype = resolve(np.logaddexp2, [aval_of(x), aval_of(y)])[1]
    x, y = cast_to(x, dtype), cast_to(y, dtype)
    return _joined(x, y, lambda gap: multiply(log1p(exp2(negative(gap))), 1 / math.log(2.0)))


def _joined(x: Array, y: Array, more: Callable[[Array], Array]) -> Array:
    """The greater of the two, and what the other adds, by how far they are apart."""
    top, difference = maximum(x, y), subtract(x, y)
    same = isnan(difference)  # inf - inf, or a nan operand: their sum is inf or nan as it should be
    spread_out = add(top, more(absolute(where(same, 0, difference))))
    return where(logical_and(same, equal(x, y)), x, where(same, add(x, y), spread_out))


@_composed(np.heaviside)
def heaviside(x: Array, y: Array) -> Array:
    dtype = resolve(np.heaviside, [aval_of(x), aval_of(y)])[1]
    x, y = cast_to(x, dtype), cast_to(y, dtype)
    step = where(less(x, 0), dtype.type(0), where(equal(x, 0), y, dtype.type(1)))
    return where(isnan(x), x, step)


def _scaled(ufunc: np.ufunc, factor: float) -> Callable[..., Any]:
    def function(x: Array) -> Array:
        return multiply(cast_to(x, resolve(ufunc, [aval_of(x)])[1]), factor)

    function.__name__ = ufunc.__name__
    return _composed(ufunc)(function)


deg2rad, rad2deg = _scaled(np.deg2rad, np.pi / 180), _scaled(np.rad2deg, 180 / np.pi)
radians, degrees = _scaled(np.radians, np.pi / 180), _scaled(np.degrees, 180 / np.pi)


@_composed(np.conjugate)
def conjugate(x: Array) -> Array:
    return positive(x)


# --- functions that are no ufuncs ----------------------------------------------------------------------------------
@public(np.where)
def where(condition: Array, x: Array = None, y: Array = None) -> Array:
    """As ``numpy.where`` with three arguments. The gradient selects: a nan in the branch not taken cannot leak."""
    if x is None or y is None:
        raise TypeError("np.where with one argument has a result whose shape depends on values; it cannot be traced")
    condition, x, y = map(as_value, (condition, x, y))
    dtype = result_type(x, y)
    return table.where(*spread("where", [_truth(condition), cast_to(x, dtype), cast_to(y, dtype)]))


@public(np.clip)
def clip(a: Array, a_min: Array = None, a_max: Array = None, *, min: Array = None, max: Array = None) -> Array:
    low, high = a_min if a_min is not None else min, a_max if a_max is not None else max
    if aval_of(a).dtype.kind in "iu":  # limits that no integer of this dtype reaches, though it cannot hold them
        limits = np.iinfo(aval_of(a).dtype)
        low = None if type(low) is int and low <= limits.min else low
        high = None if type(high) is int and high >= limits.max else high
    if low is not None:
        a = maximum(a, low)
    elif high is None:
        return positive(a)
    return a if high is None else minimum(a, high)


@public(np.round)
def round(a: Array, decimals: int = 0) -> Array:
    dtype = aval_of(a).dtype
    scale = 10.0 ** builtins.abs(decimals)
    if dtype.kind in "iu":
        return cast_to(multiply(rint(divide(a, scale)), scale), dtype) if decimals < 0 else positive(a)
    if decimals == 0 or dtype.kind != "f":
        return rint(a)
    return divide(rint(multiply(a, scale)), scale) if decimals > 0 else multiply(rint(divide(a, scale)), scale)


@public(np.sinc)
def sinc(x: Array) -> Array:
    y = multiply(x, np.pi)
    zero = equal(y, 0)
    safe = where(zero, 1.0, y)
    # Near 0 the series keeps all derivatives right where sin(y) / y is 0 / 0.
    return where(zero, subtract(1.0, divide(square(y), 6.0)), divide(sin(safe), safe))


@public(np.nan_to_num)
def nan_to_num(
    x: Array, copy: bool = True, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Array:
    if aval_of(x).dtype.kind != "f":
        return positive(x) if copy else x
    info = np.finfo(aval_of(x).dtype)
    high, low = info.max if posinf is None else posinf, info.min if neginf is None else neginf
    found = where(isnan(x), nan, where(equal(x, np.inf), high, where(equal(x, -np.inf), low, x)))
    return found if copy or not isinstance(x, Tracer) else x.overwrite(lambda: found)


@public(np.isclose)
def isclose(a: Array, b: Array, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    # In floats, as in NumPy: differences of unsigned integers would wrap around.
    b = cast_to(as_value(b), result_type(as_value(b), 1.0)) if shape_of(b) or is_boxed(b) else float(b)
    close = less_equal(absolute(subtract(a, b)), add(atol, multiply(rtol, absolute(b))))
    close = logical_or(logical_and(close, isfinite(b)), equal(a, b))
    return logical_or(close, logical_and(isnan(a), isnan(b))) if equal_nan else close


# --- names that NumPy does not have -----------------------------------------------------------------------------------
def _float(x: Array) -> Array:
    """A float array or value: integers become float64."""
    x = as_value(x)
    dtype = aval_of(x).dtype
    return (
        cast_to(x, dtype if dtype.kind == "f" else np.dtype(float))
        if is_boxed(x)
        else (np.asarray(x, dtype if dtype.kind == "f" else float))
    )


@public()
def relu(x: Array) -> Array:
    """``max(x, 0)`` element by element; the derivative at 0 is 0, as in PyTorch and JAX.

    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return table.relu(_float(x))[()]


@public()
def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``, without overflow at either end.

    >>> sigmoid(0.0)
    np.float64(0.5)
    """
    return table.sigmoid(_float(x))[()]


@public()
def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``, without overflow; its derivative is the sigmoid.

    >>> softplus(1000.0)
    np.float64(1000.0)
    """
    return table.softplus(_float(x))[()]


@public()
def erf(x: Array) -> Array:
    """The error function, ``2/sqrt(pi)`` times the integral of ``exp(-t**2)`` from 0 to ``x``.

    >>> erf(0.0)
    np.float64(0.0)
    """
    return table.erf(_float(x))[()]


@public()
def erfc(x: Array) -> Array:
    """``1 - erf(x)``, without losing what is left of it for large ``x``.

    >>> erfc(0.0)
    np.float64(1.0)
    """
    return table.erfc(_float(x))[()]

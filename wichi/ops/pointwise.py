"""Pointwise primitives: a row each. Partials prefer ``out`` to recomputing; ties, poles and edges stand at the row.

Rules that choose (where, maximum, relu, abs at 0) select instead of multiplying by 0 or 1, so that an infinite
cotangent of the branch not taken cannot become nan.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wichi.ops import algebra
from wichi.trace.ir import Aval
from wichi.trace.primitive import ONE, ZERO, Primitive, elementwise, pointwise_shape, sample


def _constant(value: float, like: Any) -> Any:
    return like.dtype.type(value)


_LN2, _LN10 = math.log(2.0), math.log(10.0)

# --- arithmetic ------------------------------------------------------------------------------------------------
add = elementwise("add", np.add, (ONE, ONE), arity=2, dtypes="feib", simplify=algebra.add)
sub = elementwise("sub", np.subtract, (ONE, -1), arity=2, dtypes="fei", simplify=algebra.sub)
mul = elementwise(
    "mul", np.multiply, (lambda out, x, y: y, lambda out, x, y: x), arity=2, dtypes="feib", simplify=algebra.mul
)
div = elementwise(
    "div", np.divide, (lambda out, x, y: 1 / y, lambda out, x, y: -out * (1 / y)),  # one division for both
    arity=2, domain=(0.5, 2.0), dtypes="fe", simplify=algebra.div,
)  # fmt: skip
neg = elementwise("neg", np.negative, (-1,), dtypes="fei", simplify=algebra.neg)
# Piecewise constant: the derivative is 0 wherever it exists. At its jumps it is 0 too.
floordiv = elementwise("floordiv", np.floor_divide, (ZERO, ZERO), arity=2, domain=(0.5, 2.0), dtypes="fei")
mod = elementwise("mod", np.mod, (ONE, lambda out, x, y: -floordiv(x, y)), arity=2, domain=(0.5, 2.0), dtypes="fei")
square = elementwise("square", np.square, lambda out, x: 2 * x, kernel=lambda k, x: x * x, dtypes="fei")
abs_ = elementwise("abs", np.abs, lambda out, x: sign(x), dtypes="fei")
sign = elementwise("sign", np.sign, (ZERO,), dtypes="fei")
floor = elementwise("floor", np.floor, (ZERO,), dtypes="fe")
ceil = elementwise("ceil", np.ceil, (ZERO,), dtypes="fe")
trunc = elementwise("trunc", np.trunc, (ZERO,), dtypes="fe")
rint = elementwise("rint", np.rint, (ZERO,), dtypes="fe")


def _power_in_x(out: Any, x: Any, y: Any) -> Any:
    # x**0 is 1 everywhere, so its partial in x is 0, also at x = 0, where y * x**(y - 1) would be 0 * inf.
    zero, one = _constant(0, x), _constant(1, x)
    return where(y == 0, zero, y * pow_(x, where(y == 0, one, y - 1)))


def _power_in_y(out: Any, x: Any, y: Any) -> Any:
    # The limit of out * log(x) at x = 0 is 0 for y > 0 (as in JAX); for x < 0 there is none: nan.
    zero, one = _constant(0, x), _constant(1, x)
    return where(x == 0, zero, out * log(where(x == 0, one, x)))


pow_ = elementwise(
    "pow", np.power, (_power_in_x, _power_in_y), arity=2, domain=(0.5, 2.0), dtypes="fe", simplify=algebra.power
)


# --- comparisons and logic: no derivative ----------------------------------------------------------------------
def _comparison(name: str, ufunc: np.ufunc) -> Primitive:
    return elementwise(name, ufunc, arity=2, out="bool", dtypes="feib")


eq, ne = _comparison("eq", np.equal), _comparison("ne", np.not_equal)
lt, le = _comparison("lt", np.less), _comparison("le", np.less_equal)
gt, ge = _comparison("gt", np.greater), _comparison("ge", np.greater_equal)
and_ = elementwise("and", np.bitwise_and, arity=2, dtypes="bi")
or_ = elementwise("or", np.bitwise_or, arity=2, dtypes="bi")
xor = elementwise("xor", np.bitwise_xor, arity=2, dtypes="bi")
not_ = elementwise("not", np.invert, dtypes="bi")


# --- choosing --------------------------------------------------------------------------------------------------
def _where_type(c: Aval, x: Aval, y: Aval) -> Aval:
    return Aval(pointwise_shape("where", (c, x, y)), x.dtype, x.weak and y.weak)


def _where_samples(rng: np.random.Generator) -> list[Any]:
    return [([sample(rng, s, "b"), sample(rng, s, kind), sample(rng, s, kind)], {})
            for kind in "feib" for s in ((3, 5), (17,), (), (2, 0))]  # fmt: skip


# Linear in both branches together, for a fixed condition: what the condition does not choose gets exactly 0.
where = elementwise(
    "where", np.where, type=_where_type, samples=_where_samples, simplify=algebra.where,
    transpose=lambda ct, i, ins: where(ins[0], *((ct, _constant(0, ct)) if i == 1 else (_constant(0, ct), ct))),
    kernel=lambda k, c, x, y: k.select(c, x, y),
)  # fmt: skip


def _between(out: Any, ins: Any, tangents: Any, first_wins: Any) -> Any:
    (x, y), (x_dot, y_dot) = ins, tangents
    both = y_dot if _is_zero(x_dot) else x_dot if _is_zero(y_dot) else x_dot + y_dot
    return where(first_wins(x, y), x_dot, where(eq(x, y), both * 0.5, y_dot))  # a tie is split evenly


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, np.generic) and bool(tangent == 0)


maximum = elementwise("maximum", np.maximum, arity=2, dtypes="feib", jvp=lambda o, ins, ts: _between(o, ins, ts, gt))
minimum = elementwise("minimum", np.minimum, arity=2, dtypes="feib", jvp=lambda o, ins, ts: _between(o, ins, ts, lt))
# The derivative at 0 is 0, as in PyTorch and JAX.
relu = elementwise("relu", lambda x: np.maximum(x, x.dtype.type(0)), kernel=lambda k, x: k.maximum(x, 0), dtypes="fei",
                   jvp=lambda out, ins, ts: where(ins[0] > 0, ts[0], _constant(0, ts[0])))  # fmt: skip

# --- exponentials and roots --------------------------------------------------------------------------------------
exp = elementwise("exp", np.exp, lambda out, x: out, dtypes="fe")
exp2 = elementwise("exp2", np.exp2, lambda out, x: out * _LN2, dtypes="fe")
expm1 = elementwise("expm1", np.expm1, lambda out, x: out + 1, dtypes="fe")
log = elementwise("log", np.log, lambda out, x: 1 / x, domain=(0.1, 3.0), dtypes="fe")
log2 = elementwise("log2", np.log2, lambda out, x: 1 / (x * _LN2), domain=(0.1, 3.0), dtypes="fe")
log10 = elementwise("log10", np.log10, lambda out, x: 1 / (x * _LN10), domain=(0.1, 3.0), dtypes="fe")
log1p = elementwise("log1p", np.log1p, lambda out, x: 1 / (x + 1), domain=(-0.9, 3.0), dtypes="fe")
# The derivative at 0 is infinite, as the mathematics has it.
sqrt = elementwise("sqrt", np.sqrt, lambda out, x: 0.5 / out, domain=(0.1, 3.0), dtypes="fe")
cbrt = elementwise("cbrt", np.cbrt, lambda out, x: 1 / (3 * square(out)), domain=(0.1, 3.0), dtypes="fe")

# --- circular and hyperbolic ---------------------------------------------------------------------------------------
sin = elementwise("sin", np.sin, lambda out, x: cos(x), dtypes="fe")
cos = elementwise("cos", np.cos, lambda out, x: -sin(x), dtypes="fe")
tan = elementwise("tan", np.tan, lambda out, x: 1 + square(out), domain=(-1.2, 1.2), dtypes="fe")
arcsin = elementwise("arcsin", np.arcsin, lambda out, x: 1 / sqrt(1 - square(x)), domain=(-0.9, 0.9), dtypes="fe")
arccos = elementwise("arccos", np.arccos, lambda out, x: -1 / sqrt(1 - square(x)), domain=(-0.9, 0.9), dtypes="fe")
arctan = elementwise("arctan", np.arctan, lambda out, x: 1 / (1 + square(x)), dtypes="fe")


_ARCTAN2 = (lambda out, y, x: x / (square(x) + square(y)), lambda out, y, x: -y / (square(x) + square(y)))
arctan2 = elementwise("arctan2", np.arctan2, _ARCTAN2, arity=2, domain=(0.2, 2.0), dtypes="fe")
sinh = elementwise("sinh", np.sinh, lambda out, x: cosh(x), dtypes="fe")
cosh = elementwise("cosh", np.cosh, lambda out, x: sinh(x), dtypes="fe")
tanh = elementwise("tanh", np.tanh, lambda out, x: 1 - square(out), dtypes="fe")
arcsinh = elementwise("arcsinh", np.arcsinh, lambda out, x: 1 / sqrt(square(x) + 1), dtypes="fe")
arccosh = elementwise("arccosh", np.arccosh, lambda out, x: 1 / sqrt(square(x) - 1), domain=(1.1, 3.0), dtypes="fe")
arctanh = elementwise("arctanh", np.arctanh, lambda out, x: 1 / (1 - square(x)), domain=(-0.9, 0.9), dtypes="fe")


# --- named functions of statistics and learning ------------------------------------------------------------------
def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))  # never overflows; both forms keep full relative accuracy on their side
    return (np.where(x >= 0, x.dtype.type(1), e) / (1 + e)).astype(x.dtype)


def _sigmoid_kernel(k: Any, x: Any) -> Any:
    e = k.exp(-k.abs(x))
    return k.select(k.ge(x, 0), 1, e) / (1 + e)


sigmoid = elementwise("sigmoid", _sigmoid, lambda out, x: out * (1 - out), kernel=_sigmoid_kernel, dtypes="fe")
softplus = elementwise(
    "softplus", lambda x: np.maximum(x, x.dtype.type(0)) + np.log1p(np.exp(-np.abs(x))), lambda out, x: sigmoid(x),
    dtypes="fe",
)  # fmt: skip


def _of_scipy(name: str) -> Any:
    def value(x: Any) -> Any:
        from scipy import special  # deferred: `import wichi` stays light

        return getattr(special, name)(x)

    return value


_BELL = 2 / math.sqrt(math.pi)
erf = elementwise("erf", _of_scipy("erf"), lambda out, x: _BELL * exp(-square(x)), dtypes="fe")
erfc = elementwise("erfc", _of_scipy("erfc"), lambda out, x: -_BELL * exp(-square(x)), dtypes="fe")

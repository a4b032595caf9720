"""Fills the registry: what NumPy's own functions, Python's operators and array methods do with a traced value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wichi.errors import DtypeError
from wichi.numpy import (
    _arranging,
    _composed,
    _creation,
    _cumulative,
    _differences,
    _histogram,
    _indexing,
    _inplace,
    _least,
    _nan,
    _numbers,
    _pointwise,
    _products,
    _questions,
    _reducing,
    _shaping,
    _solving,
    _sorting,
    _writing,
)
from wichi.numpy._promote import Array, cast_to
from wichi.ops import shaping
from wichi.trace import frames
from wichi.trace.boxed import registry
from wichi.trace.dtypes import supported
from wichi.trace.primitive import aval_of, shape_of
from wichi.trace.tracer import of_its_own

_MODULES = (
    _arranging, _composed, _creation, _cumulative, _differences, _histogram, _indexing, _inplace, _least, _nan,
    _numbers, _products, _questions, _reducing, _shaping, _solving, _sorting, _pointwise,
)  # fmt: skip


def _array_functions() -> dict[Any, Any]:
    found = {}
    for module in _MODULES:
        for function in vars(module).values():
            theirs = getattr(function, "numpy_function", None)
            if theirs is not None:
                found[theirs] = function
    found.update(_pointwise.UFUNCS)
    found.update({np.shape: shape_of, np.ndim: lambda a: len(shape_of(a)), np.size: _size, np.real: lambda val: val})
    found[np.matmul], found[np.vecdot] = _products.matmul, _products.vecdot
    found[np.around] = _pointwise.round
    found[np.amax], found[np.amin] = _reducing.max, _reducing.min
    # NumPy asks for these where an argument is traced, or `like=` names a traced value.
    found.update({getattr(np, name): getattr(_creation, name) for name in _CREATING})
    return found


_CREATING = (
    "zeros", "ones", "empty", "full", "eye", "identity", "array", "zeros_like", "ones_like", "empty_like", "full_like",
)  # fmt: skip


def _size(a: Array, axis: int | None = None) -> int:
    return aval_of(a).size if axis is None else shape_of(a)[axis]


def _methods_of_ufuncs() -> dict[Any, Any]:
    reductions = {
        np.add: _reducing.sum, np.multiply: _reducing.prod, np.maximum: _reducing.max, np.minimum: _reducing.min,
        np.logical_and: _reducing.all, np.logical_or: _reducing.any, np.logaddexp: _log_total,
    }  # fmt: skip

    def reduce_with(function: Any) -> Any:
        def reduce(a: Array, axis: Any = 0, dtype: Any = None, keepdims: bool = False, **options: Any) -> Array:
            extra = {} if dtype is None else {"dtype": dtype}
            return function(a, axis=axis, keepdims=keepdims, **extra, **options)

        return reduce

    def outer_with(ufunc: np.ufunc) -> Any:
        def outer(a: Array, b: Array) -> Array:
            left = _shaping.reshape(a, (*shape_of(a), *(1,) * len(shape_of(b))))
            return _pointwise.UFUNCS[ufunc](left, b)

        return outer

    table: dict[Any, Any] = {(u, "reduce"): reduce_with(f) for u, f in reductions.items()}
    binary = [u for u in _pointwise.UFUNCS if (u.nin, u.nout, u.signature) == (2, 1, None)]
    table.update({(u, "outer"): outer_with(u) for u in binary})
    table[np.add, "accumulate"] = _accumulate
    table[np.multiply, "accumulate"] = lambda a, axis=0, dtype=None: _cumulative.cumprod(a, axis, dtype)
    table.update(_inplace.UFUNC_AT)
    return table


def _log_total(a: Array, axis: Any, keepdims: bool, dtype: Any = None) -> Array:
    return _reducing.logsumexp(a if dtype is None else astype(a, dtype), axis, keepdims)


def _accumulate(a: Array, axis: int = 0, dtype: Any = None) -> Array:
    return _reducing.cumsum(a, axis, dtype)


def _round(x: Array, n: int | None = None) -> Array:
    return _pointwise.round(x, n or 0)


def _pow(x: Array, y: Array) -> Array:
    """``x ** y``, which NumPy has as a square where y is 2: that of bools is int8, not int64."""
    if type(y) is int and y == 2 and aval_of(x).dtype.kind == "b" and shape_of(x):
        return _pointwise.square(x)
    return _pointwise.power(x, y)


def _operators() -> dict[str, Any]:
    p = _pointwise
    binary = {
        "add": p.add, "sub": p.subtract, "mul": p.multiply, "truediv": p.divide, "floordiv": p.floor_divide,
        "mod": p.remainder, "pow": _pow, "matmul": _products.matmul, "and": p.bitwise_and, "or": p.bitwise_or,
        "xor": p.bitwise_xor, "divmod": p.divmod, "lshift": _numbers.left_shift, "rshift": _numbers.right_shift,
    }  # fmt: skip
    table: dict[str, Any] = {f"__{n}__": f for n, f in binary.items()}
    table.update(
        {
            "__neg__": p.negative,
            "__pos__": p.positive,
            "__abs__": p.absolute,
            "__invert__": p.invert,
            "__lt__": p.less,
            "__le__": p.less_equal,
            "__gt__": p.greater,
            "__ge__": p.greater_equal,
            "__getitem__": _indexing.index,
            "write": _writing.write,
            "at": _writing.At,
            "__eq__": lambda x, y: False if y is None else p.equal(x, y),
            "__ne__": lambda x, y: True if y is None else p.not_equal(x, y),
            "__round__": _round,
        }
    )
    return table


def _reshape(x: Array, *shape: Any, order: str = "C") -> Array:
    return _shaping.reshape(x, shape[0] if len(shape) == 1 else shape, order)


def _transpose(x: Array, *axes: Any) -> Array:
    chosen = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
    return _shaping.transpose(x, chosen or None)


def _flatten(x: Array, order: str = "C") -> Array:
    return of_its_own(_shaping.ravel(x, order))


def astype(x: Array, dtype: Any, copy: bool = True) -> Array:
    """``x`` in another dtype. The gradient is cast back; through integers and bools there is none."""
    target = np.dtype(dtype)
    if target.kind not in "fiub":
        raise DtypeError(
            f"astype({target}): wichi does not compute with this dtype.", at=frames.describe(frames.user_where())
        )
    if aval_of(x).dtype != target:
        return cast_to(x, supported(target))
    return shaping.copy(x) if copy else x


def _methods() -> dict[str, Any]:
    r, s = _reducing, _shaping
    table: dict[str, Any] = {
        "sum": r.sum, "mean": r.mean, "prod": r.prod, "max": r.max, "min": r.min, "var": r.var, "std": r.std,
        "argmax": r.argmax, "argmin": r.argmin, "any": r.any, "all": r.all, "cumsum": r.cumsum, "reshape": _reshape,
        "transpose": _transpose, "ravel": s.ravel, "flatten": _flatten, "squeeze": s.squeeze, "swapaxes": s.swapaxes,
        "dot": _products.dot, "astype": astype, "clip": _pointwise.clip, "round": _pointwise.round, "copy": s.copy,
        "take": _indexing.take, "diagonal": s.diagonal, "trace": s.trace, "repeat": s.repeat, "ptp": r.ptp,
        "sort": _sorting.sort_in_place, "argsort": _sorting.argsort, "partition": _sorting.partition_in_place,
        "argpartition": _sorting.argpartition, "choose": _arranging.choose,
        "compress": lambda x, condition, axis=None: _arranging.compress(condition, x, axis),
        "searchsorted": _sorting.searchsorted,
        "cumprod": _cumulative.cumprod, "fill": _inplace.fill, "conj": lambda x: x, "conjugate": lambda x: x,
        "T": s.transpose, "mT": s.matrix_transpose, "real": lambda x: x,
    }  # fmt: skip
    return table


def _zero_times(x: Array, y: Array, logarithm: Any, safe: float) -> Array:
    """``x * logarithm(y)``, and 0 where x is 0 and that has no number, unless y is nan; ``safe``: a y that has one."""
    p = _pointwise
    none = p.logical_and(p.logical_not(p.isfinite(logarithm(y))), p.logical_not(p.isnan(y)))
    zero = p.logical_and(p.equal(x, 0), none)
    return p.where(zero, 0.0, p.multiply(x, logarithm(p.where(zero, safe, y))))


def _scipy_special() -> dict[str, Any]:
    """SciPy's ufuncs by name: they are found when the user has imported them, and need not be imported here."""
    p = _pointwise
    return {
        "erf": p.erf,
        "erfc": p.erfc,
        "expit": p.sigmoid,
        "exp2": p.exp2,
        "expm1": p.expm1,
        "log1p": p.log1p,
        "cbrt": p.cbrt,
        "logit": _logit,
        "xlogy": lambda x, y: _zero_times(x, y, p.log, 1.0),
        "xlog1py": lambda x, y: _zero_times(x, y, p.log1p, 0.0),
        "log_expit": lambda x: p.negative(p.softplus(p.negative(x))),
        "ndtr": lambda x: p.multiply(p.erfc(p.multiply(x, -math.sqrt(0.5))), 0.5),
        "entr": _entr,
        "rel_entr": _rel_entr,
        "kl_div": _kl_div,
    }


def _logit(x: Array) -> Array:
    """Near 1/2, where the difference of two logarithms would cancel, as twice an inverse hyperbolic tangent."""
    p = _pointwise
    centred = p.subtract(p.multiply(x, 2.0), 1.0)
    near = p.less(p.absolute(centred), 0.4)
    far = p.subtract(p.log(p.where(near, 0.25, x)), p.log1p(p.negative(p.where(near, 0.25, x))))
    return p.where(near, p.multiply(p.arctanh(p.where(near, centred, 0.0)), 2.0), far)


def _entr(x: Array) -> Array:
    """``-x log(x)``: 0 at 0, and -inf below."""
    p = _pointwise
    inside = p.greater(x, 0)
    value = p.negative(p.multiply(x, p.log(p.where(inside, x, 1.0))))
    return p.where(p.logical_or(inside, p.isnan(x)), value, p.where(p.equal(x, 0), 0.0, -np.inf))


def _rel_entr(x: Array, y: Array) -> Array:
    """``x log(x / y)``: 0 at x == 0, and inf where x or y is negative, or y is 0 and x is not."""
    p = _pointwise
    inside = p.logical_and(p.greater(x, 0), p.greater(y, 0))
    ratio = p.divide(p.where(inside, x, 1.0), p.where(inside, y, 1.0))
    zero = p.logical_and(p.equal(x, 0), p.greater_equal(y, 0))
    unknown = p.logical_or(p.isnan(x), p.isnan(y))
    outside = p.where(zero, 0.0, p.where(unknown, np.nan, np.inf))
    return p.where(inside, p.multiply(x, p.log(ratio)), outside)


def _kl_div(x: Array, y: Array) -> Array:
    """``x log(x / y) - x + y``, and inf where the first term has no number."""
    p = _pointwise
    first = _rel_entr(x, y)
    inside = p.logical_and(p.greater(x, 0), p.greater(y, 0))
    infinite = p.logical_and(p.equal(first, np.inf), p.logical_not(inside))
    return p.where(infinite, np.inf, p.add(p.subtract(first, p.where(infinite, 0.0, x)), p.where(infinite, 0.0, y)))


registry.add(registry.functions, _array_functions() | _methods_of_ufuncs())
registry.add(registry.functions, {("scipy.special", name): f for name, f in _scipy_special().items()})
registry.add(registry.methods, _operators() | _methods())

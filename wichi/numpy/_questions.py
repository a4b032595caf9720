"""What code asks of values: answered from shape and dtype as NumPy would answer for an array of these."""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.errors import ConditionError
from wichi.numpy import _pointwise as pw
from wichi.numpy import _reducing
from wichi.numpy._promote import Array, as_value, is_boxed, public
from wichi.trace import frames
from wichi.trace.primitive import aval_of, shape_of


@public(np.iscomplexobj)
def iscomplexobj(x: Array) -> bool:
    return False


@public(np.isrealobj)
def isrealobj(x: Array) -> bool:
    return True


@public(np.isreal)
def isreal(x: Array) -> Array:
    return _everywhere(x, True)


@public(np.iscomplex)
def iscomplex(x: Array) -> Array:
    return _everywhere(x, False)


def _everywhere(x: Array, value: bool) -> Array:
    shape = shape_of(as_value(x))
    return np.full(shape, value) if shape else np.bool_(value)


@public(np.imag)
def imag(val: Array) -> Array:
    aval = aval_of(as_value(val))
    return np.zeros(aval.shape, aval.dtype)


@public(np.real_if_close)
def real_if_close(a: Array, tol: float = 100) -> Array:
    return as_value(a)


@public(np.isfortran)
def isfortran(a: Array) -> bool:
    """False: values inside transforms are in C order."""
    return False


@public(np.result_type)
def result_type(*arrays_and_dtypes: Any) -> np.dtype[Any]:
    """As ``numpy.result_type``; Python numbers that are inputs promote nothing, as Python numbers do."""
    asked: list[Any] = []
    for x in arrays_and_dtypes:
        if not is_boxed(x):
            asked.append(x)
            continue
        aval = aval_of(x)
        weak = {"f": 0.0, "i": 0}.get(aval.dtype.kind) if aval.weak else None
        asked.append(aval.dtype if weak is None else weak)
    return np.result_type(*asked)


@public(np.can_cast)
def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    source = aval_of(from_).dtype if is_boxed(from_) else from_
    return np.can_cast(source, aval_of(to).dtype if is_boxed(to) else to, casting)


@public(np.common_type)
def common_type(*arrays: Array) -> type[Any]:
    return np.common_type(*[np.empty(0, aval_of(as_value(a)).dtype) for a in arrays])


@public(np.min_scalar_type)
def min_scalar_type(a: Array) -> np.dtype[Any]:
    if shape_of(a):
        return aval_of(a).dtype
    raise ConditionError(
        "np.min_scalar_type of one number depends on its value.",
        at=frames.describe(frames.user_where()),
        because="dtypes must be known while tracing",
        fix="x.dtype",
    )


@public(np.array_equiv)
def array_equiv(a1: Array, a2: Array) -> Array:
    """As ``numpy.array_equiv``; of traced values the answer is a traced bool."""
    a1, a2 = as_value(a1), as_value(a2)
    try:
        np.broadcast_shapes(shape_of(a1), shape_of(a2))
    except ValueError:
        return False
    return _reducing.all(pw.equal(a1, a2))


@public(np.astype)
def astype(x: Array, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Array:
    return x.astype(dtype, copy=copy)


def _from(function: Any) -> Any:
    def indices(arr: Array, *args: Any, **options: Any) -> tuple[np.ndarray[Any, Any], ...]:
        return function(np.empty(shape_of(arr), bool), *args, **options)  # type: ignore[no-any-return]

    indices.__name__ = function.__name__
    return public(function)(indices)


diag_indices_from, tril_indices_from, triu_indices_from = (
    _from(f) for f in (np.diag_indices_from, np.tril_indices_from, np.triu_indices_from)
)

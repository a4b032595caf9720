"""NumPy's functions that change an argument: ``copyto``, ``put``, ``putmask``, ``fill_diagonal``, ``ufunc.at``.

A traced array stands for the changed value afterwards; a plain array cannot hold what is still to be computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from wichi.errors import PlainArrayWriteError, ShapeError
from wichi.numpy._pointwise import negative, where
from wichi.numpy._promote import Array, as_value, public
from wichi.numpy._shaping import reshape
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.primitive import aval_of, shape_of
from wichi.trace.tracer import Tracer


def _target(x: Array, name: str) -> Tracer:
    if isinstance(x, Tracer):
        return x
    frame = frames.user_frame()
    text = (frames.segment(frame) if frame else None) or ""
    target = text.partition("(")[2].split(",")[0].strip() or "a"
    raise PlainArrayWriteError(
        f"{name} would write a value inside a transform into `{target}`, which cannot hold it.",
        at=frames.describe(frames.user_where()),
        because="a NumPy array holds numbers, not values still to be computed",
        fix=f"make it with wichi: {target} = wichi.numpy.zeros(...) can be written",
    )


@public(np.copyto)
def copyto(dst: Array, src: Array, casting: str = "same_kind", where: Array = True) -> None:
    target = _target(dst, "np.copyto")
    target[...] = src if where is True else _chosen(where, src, target)


def _chosen(mask: Array, x: Array, y: Array) -> Array:
    return where(mask, x, y)


@public(np.putmask)
def putmask(a: Array, mask: Array, values: Array) -> None:
    target = _target(a, "np.putmask")
    values = as_value(values)
    if shape_of(values) not in ((), shape_of(target)):
        raise ShapeError(
            f"np.putmask of values of shape {shape_of(values)} into {shape_of(target)}.",
            at=frames.describe(frames.user_where()),
            because="inside a transform they must be one number, or an array of the whole shape",
        )
    target[...] = where(mask, values, target)


@public(np.put)
def put(a: Array, ind: Array, v: Array, mode: str = "raise") -> None:
    """As ``numpy.put``, with ``mode="raise"`` only."""
    if mode != "raise":
        raise TypeError("np.put of a value inside a transform takes mode='raise' only")
    target, ind, v = _target(a, "np.put"), as_value(ind), as_value(v)
    count, given = aval_of(ind).size, aval_of(v).size
    if not given and count:
        raise ShapeError("np.put of no values.", at=frames.describe(frames.user_where()))
    flat = reshape(target, (-1,)) * 1 if count else target
    if count:
        copied = reshape(v, (-1,))[np.arange(count) % given]
        flat[reshape(ind, (-1,))] = copied
        target[...] = reshape(flat, shape_of(target))


@public(np.fill_diagonal)
def fill_diagonal(a: Array, val: Array, wrap: bool = False) -> None:
    """As ``numpy.fill_diagonal`` with one number or one a row; without ``wrap``."""
    target = _target(a, "np.fill_diagonal")
    shape = shape_of(target)
    if wrap or len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
        raise ShapeError(
            f"np.fill_diagonal of shape {shape}{' with wrap' if wrap else ''}.",
            at=frames.describe(frames.user_where()),
            because="inside a transform it takes matrices, or arrays whose axes are all equal, without wrap",
        )
    places = np.arange(min(shape))
    target[(places,) * len(shape)] = val


def fill(x: Array, value: Array) -> None:
    """``x.fill(value)``."""
    x[...] = value


def _at(ufunc: np.ufunc, op: str) -> Callable[..., None]:
    def at(a: Array, indices: Any, b: Array) -> None:
        _target(a, f"np.{ufunc.__name__}.at").combine(indices, b, op)

    return at


def _subtract_at(a: Array, indices: Any, b: Array) -> None:
    b = as_value(b)
    _target(a, "np.subtract.at").combine(indices, negative(b) if isinstance(b, Boxed) else -b, "add")


UFUNC_AT: dict[Any, Any] = {
    (np.add, "at"): _at(np.add, "add"),
    (np.subtract, "at"): _subtract_at,
    (np.multiply, "at"): _at(np.multiply, "multiply"),
    (np.minimum, "at"): _at(np.minimum, "minimum"),
    (np.maximum, "at"): _at(np.maximum, "maximum"),
}

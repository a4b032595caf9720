"""Products and sums so far."""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.numpy import _reducing
from wichi.numpy._promote import Array, as_value, axis_in, broadcast_to, cast_to, public
from wichi.numpy._shaping import concatenate, moveaxis, ravel
from wichi.ops import pointwise
from wichi.trace import scans
from wichi.trace.ir import Aval
from wichi.trace.primitive import aval_of, shape_of
from wichi.trace.tracer import stage_graph


@public(np.cumprod)
def cumprod(a: Array, axis: int | None = None, dtype: Any = None, out: Any = None) -> Array:
    """As ``numpy.cumprod``. Its derivative divides by nothing, so it is right where elements are 0.

    >>> wichi.grad(lambda x: np.cumprod(x)[2])(np.array([2.0, 0.0, 3.0]))
    array([0., 6., 0.])
    """
    _reducing._plain_options("cumprod", out=out)
    a = as_value(a)
    a = cast_to(a, _reducing._sum_dtype(a, dtype))
    if axis is None or not shape_of(a):
        axis = axis_in(axis or 0, 1)
        a = ravel(a)
    axis = axis_in(axis, len(shape_of(a)))
    if not aval_of(a).size:
        return a
    return moveaxis(_along_first(moveaxis(a, axis, 0)), 0, axis)


def _along_first(rows: Array) -> Array:
    """One loop over the rows, which keeps what its way back needs."""
    count, *row = shape_of(rows)
    aval = Aval(tuple(row), aval_of(rows).dtype)

    def body(so_far: Any, x: Any) -> list[Any]:
        product = pointwise.mul(so_far, x)
        return [product, product]

    one = broadcast_to(np.asarray(aval.dtype.type(1)), aval.shape)
    _, products = scans.scan(
        one, rows, body=stage_graph(body, [aval, aval]), consts=0, carries=1, length=count, reverse=False
    )
    return products


def _cumulative(function: Any, along: Any, first: int) -> Any:
    name = function.__name__

    def cumulative(
        x: Array, /, *, axis: int | None = None, dtype: Any = None, out: Any = None, include_initial: bool = False
    ) -> Array:
        x = as_value(x)
        ndim = len(shape_of(x))
        if ndim == 0:
            x, ndim = ravel(x), 1
        if axis is None:
            if ndim > 1:
                raise ValueError("For arrays which have more than one dimension ``axis`` argument is required.")
            axis = 0
        found = along(x, axis, dtype, out)
        if not include_initial:
            return found
        axis = axis_in(axis, ndim)
        shape = shape_of(found)
        start = np.full((*shape[:axis], 1, *shape[axis + 1 :]), first, aval_of(found).dtype)
        return concatenate([start, found], axis)

    cumulative.__name__ = name
    return public(function)(cumulative)


cumulative_sum = _cumulative(np.cumulative_sum, _reducing.cumsum, 0)
cumulative_prod = _cumulative(np.cumulative_prod, cumprod, 1)

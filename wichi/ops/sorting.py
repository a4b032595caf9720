"""Sorting, and searching in what is sorted.

The order is that of ``numpy.sort(kind="stable")``: equal elements stay in turn, -0.0 and 0.0 are equal, nan comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.errors import ShapeError
from wichi.ops.indexing import gather, scatter_add
from wichi.ops.shaping import broadcast, iota
from wichi.trace.dims import Dim
from wichi.trace.ir import Aval
from wichi.trace.primitive import Loops, Primitive, Whole, lead, sample, shape_of
from wichi.trace.tracer import stage

Values = Sequence[Any]
_I8 = np.dtype("i8")


# --- the sorted values, and where each of them stood ---------------------------------------------------------------
def _sort_impl(x: Any, axis: int) -> tuple[Any, Any]:
    order = np.argsort(x, axis, kind="stable")
    return np.take_along_axis(x, order, axis), order


def _sort_loops(k: Any, operands: Values, results: Values, axis: int) -> None:
    """Each line along the axis is sorted in working memory, beside its numbers where somebody wants to know them."""
    (x,), (values, order) = operands, results
    n = x.shape[axis]
    keys, spare = (k.context.scratch(x.dtype, (n,)) for _ in range(2))
    numbers = [] if order is None else [k.context.scratch(_I8, (n,)) for _ in range(2)]
    with k.loops([m for i, m in enumerate(x.shape) if i != axis], ordered=True) as at:
        with k.loops((n,)) as (i,):
            k.store(keys, (i,), k.load(x, [*at[:axis], i, *at[axis:]]))
            for layout in numbers[:1]:
                k.store(layout, (i,), i)
        k.library("stable_sort", x.dtype, [n, keys, spare, *numbers], 0)
        with k.loops((n,)) as (i,):
            for layout, out in zip((keys, *numbers[:1]), (values, order), strict=False):
                if out is not None:
                    k.store(out, [*at[:axis], i, *at[axis:]], k.load(layout, (i,)))


def along(indices: Any, axis: int) -> list[Any]:
    """Index arrays that take the elements ``indices`` along an axis, and on the other axes each its own place."""
    shape = shape_of(indices)
    return [indices if i == axis else _places(n, shape, i) for i, n in enumerate(shape)]


def _places(n: int, shape: tuple[int, ...], axis: int) -> Any:
    numbers = stage(iota, size=n) if isinstance(n, Dim) else np.arange(n)
    others = tuple(i for i in range(len(shape)) if i != axis)
    return broadcast(numbers, shape=shape, axes=others)


def _sort_jvp(ins: Values, tangents: Values, axis: int) -> tuple[Values, Values]:
    values, order = sort(*ins, axis=axis)
    return [values, order], [gather(tangents[0], *along(order, axis)), None]


def _sort_vjp(ins: Values, wanted: Sequence[int], axis: int) -> tuple[Values, Callable[[Values], Values]]:
    values, order = sort(*ins, axis=axis)

    def pullback(cts: Values) -> Values:
        return [scatter_add(cts[0], *along(order, axis), shape=shape_of(ins[0])) for _ in wanted]

    return [values, order], pullback


# The derivative of each sorted element goes to the place that it came from; among equal ones their turn decides.
sort = Primitive(
    "sort",
    type=lambda x, axis: (Aval(x.shape, x.dtype), Aval(x.shape, _I8)),
    impl=_sort_impl,
    batch=lambda prim, args, batched, size, axis: prim(args[0], axis=axis + 1),
    whole=Whole(_sort_jvp, _sort_vjp),
    kernel=Loops(_sort_loops),
    multiple=True,
    samples=lambda rng: [
        ([sample(rng, shape, kind)], {"axis": axis})
        for kind in "feib"
        for shape, axis in (((7,), 0), ((100,), 0), ((3, 4), 0), ((3, 30), 1), ((2, 3, 4), 1), ((0, 2), 0), ((2, 0), 0))
    ],
)


# --- where in sorted keys each number belongs ----------------------------------------------------------------------
def _search_type(keys: Aval, values: Aval, right: bool) -> Aval:
    if keys.ndim != values.ndim or not keys.ndim or keys.dtype != values.dtype or keys.shape[:-1] != values.shape[:-1]:
        raise ShapeError(f"searchsorted of {keys} and {values}")
    return Aval(values.shape, _I8)


def _search_impl(keys: Any, values: Any, right: bool) -> Any:
    out = np.empty(values.shape, _I8)
    for at in np.ndindex(*keys.shape[:-1]):
        out[at] = np.searchsorted(keys[at], values[at], "right" if right else "left")
    return out


def _search_loops(k: Any, operands: Values, results: Values, right: bool) -> None:
    (keys, values), (out,) = operands, results
    n, apart, zero = keys.shape[-1], keys.strides[-1], k.constant(0)
    with k.loops(values.shape, ordered=True) as at:
        first = (keys, [*at[:-1], zero])
        k.library("search", keys.dtype, [n, first, apart, (values, at), (out, at), int(right)], 0)


def _search_batch(prim: Primitive, args: Values, batched: Sequence[bool], size: int, right: bool) -> Any:
    return prim(*[x if b else lead(x, size) for x, b in zip(args, batched, strict=True)], right=right)


def _sorted_keys(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Any:
    return np.sort(sample(rng, shape, kind), axis=-1)


# The last axis of both; leading axes are batches and equal. The keys must be sorted: that is not checked, as in NumPy.
searchsorted = Primitive(
    "searchsorted",
    type=_search_type,
    impl=_search_impl,
    batch=_search_batch,
    kernel=Loops(_search_loops),
    differentiable=False,
    folds=False,
    samples=lambda rng: [
        ([_sorted_keys(rng, (*batch, n), kind), sample(rng, (*batch, m), kind)], {"right": right})
        for kind in "fei"
        for right in (False, True)
        for batch, n, m in (((), 9, 5), ((2,), 4, 7), ((), 1, 3), ((), 0, 2), ((3,), 5, 0))
    ],
)

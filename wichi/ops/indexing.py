"""Reading and adding at integer arrays: ``gather`` and its transpose ``scatter_add``.

Both index the leading axes: with ``n`` index arrays of shape ``I``, ``gather(x, *indices)`` has shape
``I + x.shape[n:]``. Negative indices count from the end; an index outside its axis is an error, in native code too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wichi.errors import ShapeError
from wichi.ops.shaping import broadcast, transpose
from wichi.trace.ir import Aval
from wichi.trace.primitive import Loops, Primitive, lead, sample, shape_of


def _gather_type(x: Aval, *indices: Aval) -> Aval:
    if any(i.shape != indices[0].shape or i.dtype != np.dtype("i8") for i in indices) or len(indices) > x.ndim:
        raise ShapeError(f"gather from {x} with indices {', '.join(map(str, indices))}")
    return Aval((*indices[0].shape, *x.shape[len(indices) :]), x.dtype)


def _scatter_type(updates: Aval, *indices: Aval, shape: tuple[int, ...]) -> Aval:
    expected = (*indices[0].shape, *shape[len(indices) :])
    if updates.shape != expected:
        raise ShapeError(f"scatter_add of {updates} where {expected} fits")
    return Aval(tuple(shape), updates.dtype)


def _scatter_impl(updates: Any, *indices: Any, shape: tuple[int, ...]) -> Any:
    out = np.zeros(shape, updates.dtype)
    np.add.at(out, indices, updates)
    return out


def _gather_loops(k: Any, operands: Any, results: Any) -> None:
    x, *indices = operands
    out, count = results[0], indices[0].ndim
    with k.loops(out.shape) as at:
        picked = [k.index_in(k.load(i, at[:count]), n) for i, n in zip(indices, x.shape, strict=False)]
        k.store(out, at, k.load(x, (*picked, *at[count:])))


def _scatter_loops(k: Any, operands: Any, results: Any, shape: tuple[int, ...]) -> None:
    updates, *indices = operands
    out, count = results[0], indices[0].ndim
    k.fill(out, 0)
    with k.loops(updates.shape, ordered=True) as at:  # two updates may meet at one place: never at once
        picked = [k.index_in(k.load(i, at[:count]), n) for i, n in zip(indices, shape, strict=False)]
        k.update(out, (*picked, *at[count:]), "add", k.load(updates, at))


def positions(size: int, shape: tuple[int, ...]) -> Any:
    """The number of its own batch entry, as an index array of ``(size, *shape)``."""
    return broadcast(np.arange(size), shape=(size, *shape), axes=tuple(range(1, 1 + len(shape))))


def batched_indices(indices: Sequence[Any], batched: Sequence[bool], size: int) -> list[Any]:
    return [i if b else lead(i, size) for i, b in zip(indices, batched, strict=True)]


def _gather_batch(prim: Primitive, args: Sequence[Any], batched: Sequence[bool], size: int) -> Any:
    (x, *indices), (x_batched, *index_batched) = args, batched
    if not any(index_batched):  # read each entry alike: put the batch behind the indexed axes, and back in front
        count, ndim, inner = len(indices), len(shape_of(x)), len(shape_of(indices[0]))
        moved = transpose(x, perm=(*range(1, count + 1), 0, *range(count + 1, ndim)))
        out = prim(moved, *indices)
        return transpose(out, perm=(inner, *range(inner), *range(inner + 1, len(shape_of(out)))))
    indices = batched_indices(indices, index_batched, size)
    if not x_batched:
        return prim(x, *indices)
    return prim(x, positions(size, shape_of(indices[0])[1:]), *indices)


def _scatter_batch(prim: Primitive, args: Sequence[Any], batched: Sequence[bool], size: int, shape: Any) -> Any:
    (updates, *indices), (updates_batched, *index_batched) = args, batched
    updates = updates if updates_batched else lead(updates, size)
    indices = batched_indices(indices, index_batched, size)
    return prim(updates, positions(size, shape_of(indices[0])[1:]), *indices, shape=(size, *shape))


def _samples(rng: np.random.Generator) -> list[Any]:
    def index(n: int, *shape: int) -> Any:
        return rng.integers(-n, n, shape)

    return [
        ([sample(rng, (5,)), index(5, 4)], {}),
        ([sample(rng, (5, 3)), index(5, 2, 2)], {}),
        ([sample(rng, (5, 3)), index(5, 6), index(3, 6)], {}),
        ([sample(rng, (5, 2), "i"), index(5, 0)], {}),
    ]


gather = Primitive(
    "gather",
    type=_gather_type,
    impl=lambda x, *indices: x[tuple(indices)],
    transpose=lambda ct, i, ins: scatter_add(ct, *ins[1:], shape=shape_of(ins[0])),
    batch=_gather_batch,
    kernel=Loops(_gather_loops),
    samples=_samples,
    folds=False,
)
scatter_add = Primitive(
    "scatter_add",
    type=_scatter_type,
    impl=_scatter_impl,
    transpose=lambda ct, i, ins, shape: gather(ct, *ins[1:]),
    batch=_scatter_batch,
    kernel=Loops(_scatter_loops),
    samples=lambda rng: [
        ([np.asarray(gather.impl(*args)), *args[1:]], {"shape": args[0].shape}) for args, _ in _samples(rng)
    ],
    folds=False,
)

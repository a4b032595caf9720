"""Arrays with some elements written anew: ``slice_update`` at slices, ``index_update`` at integer arrays,
``index_extremum`` likewise where the update is larger or smaller.

The first operand stays as it is; where nothing else reads it any more (the carry of a loop), the schedule lets the
result have its memory, and a write costs as much as what is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wichi.errors import ShapeError
from wichi.ops.indexing import batched_indices, gather, positions
from wichi.ops.pointwise import div, eq, where
from wichi.ops.shaping import broadcast, cast, python_slice, reshape, slice_
from wichi.trace.ir import Aval
from wichi.trace.primitive import Loops, Primitive, lead, sample, shape_of
from wichi.trace.tracer import constant


def _zeros_like(x: Any) -> Any:
    shape = shape_of(x)
    zero = constant(x.dtype.type(0), x)
    return broadcast(zero, shape=shape, axes=tuple(range(len(shape)))) if shape else zero


# --- at slices: x with u at start + step * i -------------------------------------------------------------------------
def _slice_type(x: Aval, u: Aval, start: Any, step: Any) -> Aval:
    if x.dtype != u.dtype or x.ndim != u.ndim:
        raise ShapeError(f"slice_update of {x} by {u}")
    return Aval(x.shape, x.dtype)


def _slice_impl(x: Any, u: Any, start: Any, step: Any) -> Any:
    out = np.array(x)
    out[tuple(python_slice(*s) for s in zip(start, step, np.shape(u), strict=True))] = u
    return out


def _slice_transpose(ct: Any, i: int, ins: Sequence[Any], start: Any, step: Any) -> Any:
    if i == 1:
        return slice_(ct, start=start, step=step, size=shape_of(ins[1]))
    return slice_update(ct, _zeros_like(ins[1]), start=start, step=step)


def _slice_batch(prim: Primitive, args: Any, batched: Any, size: int, start: Any, step: Any) -> Any:
    x, u = (v if b else lead(v, size) for v, b in zip(args, batched, strict=True))
    return prim(x, u, start=(0, *start), step=(1, *step))


def _slice_loops(k: Any, operands: Any, results: Any, start: Any, step: Any) -> None:
    (x, u), (out,) = operands, results
    if x != out:
        k.copy(x, out)
    k.copy(u, out.slice(start, step, u.shape))


def _slice_registers(k: Any, x: Any, u: Any, start: Any, step: Any) -> Any:
    out = x.copy()
    out[tuple(python_slice(*s) for s in zip(start, step, u.shape, strict=True))] = u
    return out


slice_update = Primitive(
    "slice_update",
    type=_slice_type,
    impl=_slice_impl,
    transpose=_slice_transpose,
    batch=_slice_batch,
    kernel=Loops(_slice_loops, _slice_registers, in_place=True),
    folds=False,
    samples=lambda rng: [
        ([sample(rng, (7,)), sample(rng, (3,))], {"start": (1,), "step": (2,)}),
        ([sample(rng, (4, 5)), sample(rng, (4, 2))], {"start": (3, 1), "step": (-1, 1)}),
        ([sample(rng, (4, 5), "i"), sample(rng, (0, 2), "i")], {"start": (0, 1), "step": (1, 1)}),
    ],
)


# --- at integer arrays over the leading axes, one update after the other ---------------------------------------------
def _index_type(x: Aval, u: Aval, *indices: Aval, op: str) -> Aval:
    expected = (*indices[0].shape, *x.shape[len(indices) :])
    if u.shape != expected or u.dtype != x.dtype:
        raise ShapeError(f"index_update of {x} by {u} where {expected} fits")
    return Aval(x.shape, x.dtype)


def _index_impl(x: Any, u: Any, *indices: Any, op: str) -> Any:
    out = np.array(x)
    if op == "set":
        out[tuple(indices)] = u
    else:
        np.add.at(out, tuple(indices), u)
    return out


def _index_transpose(ct: Any, i: int, ins: Sequence[Any], op: str) -> Any:
    _, u, *indices = ins
    if i == 0:
        return ct if op == "add" else index_update(ct, _zeros_like(u), *indices, op="set")
    bar = gather(ct, *indices)
    if op == "add" or np.prod(shape_of(indices[0]), dtype=int) == 1:
        return bar
    # Where several updates meet the last one stands, and it alone has a derivative.
    shape, order = shape_of(ct)[: len(indices)], np.arange(np.prod(shape_of(indices[0]), dtype=int))
    numbers = reshape(order, shape=shape_of(indices[0]))
    last = gather(index_update(np.zeros(shape, np.int64), numbers, *indices, op="set"), *indices)
    wins = eq(last, numbers)
    missing = tuple(range(len(shape_of(wins)), len(shape_of(bar))))
    if missing:
        wins = broadcast(wins, shape=shape_of(bar), axes=missing)
    return where(wins, bar, _zeros_like(bar))


def _index_batch(prim: Primitive, args: Any, batched: Any, size: int, op: str) -> Any:
    (x, u, *indices), (on_x, on_u, *on_indices) = args, batched
    x, u = (v if b else lead(v, size) for v, b in ((x, on_x), (u, on_u)))
    indices = batched_indices(indices, on_indices, size)
    return prim(x, u, positions(size, shape_of(indices[0])[1:]), *indices, op=op)


def _index_loops(k: Any, operands: Any, results: Any, op: str) -> None:
    (x, u, *indices), (out,) = operands, results
    count = indices[0].ndim
    if x != out:
        k.copy(x, out)
    with k.loops(u.shape, ordered=True) as at:
        picked = [k.index_in(k.load(i, at[:count]), n) for i, n in zip(indices, x.shape, strict=False)]
        place, value = (*picked, *at[count:]), k.load(u, at)
        if op == "set":
            k.store(out, place, value)
        else:
            k.update(out, place, "add", value)


index_update = Primitive(
    "index_update",
    type=_index_type,
    impl=_index_impl,
    transpose=_index_transpose,
    batch=_index_batch,
    kernel=Loops(_index_loops, in_place=True),
    folds=False,
    samples=lambda rng: (
        [
            ([sample(rng, (5,), kind), sample(rng, (4,), kind), rng.integers(-5, 5, 4)], {"op": op})
            for op in ("set", "add")
            for kind in "fi"
        ]
        + [
            ([sample(rng, (5, 3)), sample(rng, (2, 2, 3)), rng.integers(-5, 5, (2, 2))], {"op": op})
            for op in ("set", "add")
        ]
        + [([sample(rng, (5, 3)), sample(rng, ()), np.int64(2), np.int64(-1)], {"op": "set"})]
    ),
)


# --- the larger (or smaller) of what is there and each update ---------------------------------------------------------
def _extremum_impl(x: Any, u: Any, *indices: Any, op: str) -> Any:
    out = np.array(x)
    getattr(np, op).at(out, tuple(indices), u)
    return out


def _extremum_jvp(out: Any, ins: Sequence[Any], tangents: Sequence[Any], op: str) -> Any:
    """The mean of the tangents that reach the extremum: ties are split evenly, as ``max`` and JAX's ``.at`` do it.

    A nan equals nothing, so its derivative is nan.
    """
    (x, u, *indices), (x_dot, u_dot, *_) = ins, tangents
    stays, taken = eq(x, out), eq(u, gather(out, *indices))
    count = index_update(cast(stays, dtype=x.dtype), cast(taken, dtype=x.dtype), *indices, op="add")
    kept = where(stays, x_dot, _zeros_like(x))
    return div(index_update(kept, where(taken, u_dot, _zeros_like(u)), *indices, op="add"), count)


def _extremum_loops(k: Any, operands: Any, results: Any, op: str) -> None:
    (x, u, *indices), (out,) = operands, results
    count = indices[0].ndim
    if x != out:
        k.copy(x, out)
    with k.loops(u.shape, ordered=True) as at:
        picked = [k.index_in(k.load(i, at[:count]), n) for i, n in zip(indices, x.shape, strict=False)]
        k.update(out, (*picked, *at[count:]), op, k.load(u, at))


index_extremum = Primitive(
    "index_extremum",
    type=_index_type,
    impl=_extremum_impl,
    jvp=_extremum_jvp,
    batch=_index_batch,
    kernel=Loops(_extremum_loops, in_place=True),
    folds=False,
    samples=lambda rng: [
        ([sample(rng, shape, kind), sample(rng, updates, kind), rng.integers(-5, 5, updates[:1])], {"op": op})
        for op in ("maximum", "minimum")
        for kind in "fei"
        for shape, updates in (((5,), (7,)), ((5, 3), (4, 3)))
    ],
)

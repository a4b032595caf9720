"""Primitives that move elements: broadcast, reshape, transpose, slice and its transpose embed, concatenate, cast.

All are linear. Those that only re-address memory carry a ``View`` kernel: they cost nothing until someone must copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wichi.errors import ShapeError
from wichi.trace.ir import Atom, Aval, Builder
from wichi.trace.primitive import ONE, ZERO, Indexed, Loops, Primitive, View, elementwise, lead, sample, shape_of


# --- broadcast: new axes `axes` of the result's shape; an old axis of size 1 may grow ------------------------------
def _broadcast_type(x: Aval, shape: tuple[int, ...], axes: tuple[int, ...]) -> Aval:
    kept = [n for i, n in enumerate(shape) if i not in axes]
    if len(kept) != x.ndim or any(a not in (1, b) for a, b in zip(x.shape, kept, strict=True)):
        raise ShapeError(f"shape {x.shape} does not broadcast to {shape}")
    return Aval(shape, x.dtype, x.weak)


def _broadcast_transpose(ct: Any, i: int, ins: Sequence[Any], shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    x_shape = shape_of(ins[0])
    kept = [k for k in range(len(shape)) if k not in axes]
    grown = tuple(k for k, n in zip(kept, x_shape, strict=True) if n == 1 and shape[k] != 1)
    summed = tuple(sorted((*axes, *grown)))
    out = Primitive.table["sum"](ct, axes=summed) if summed else ct
    return reshape(out, shape=x_shape) if shape_of(out) != x_shape else out


def _broadcast_simplify(b: Builder, ins: tuple[Atom, ...], params: dict[str, Any]) -> Atom | None:
    (x,), shape, axes = ins, params["shape"], params["axes"]
    if x.aval.shape == shape:
        return x
    earlier = b.made_by(x, "broadcast")
    if earlier is None:
        return None
    kept = [i for i in range(len(shape)) if i not in axes]
    merged = tuple(sorted((*axes, *(kept[a] for a in earlier.params["axes"]))))
    return b.emit(broadcast, earlier.ins, {"shape": shape, "axes": merged})[0]


def _broadcast_batch(prim: Primitive, args: Any, batched: Any, size: int, shape: Any, axes: Any) -> Any:
    return prim(args[0], shape=(size, *shape), axes=tuple(a + 1 for a in axes))


def _broadcast_along(avals: Any, out: Aval, shape: Any, axes: Any) -> Any:
    kept = [i for i in range(len(shape)) if i not in axes]
    return ((0, i, k) for i, k in enumerate(kept) if avals[0].shape[i] == shape[k])


broadcast = Primitive(
    "broadcast",
    type=_broadcast_type,
    impl=lambda x, shape, axes: np.broadcast_to(np.expand_dims(x, axes) if axes else x, shape),
    transpose=_broadcast_transpose,
    batch=_broadcast_batch,
    kernel=View(lambda layout, aval, shape, axes: layout.broadcast(shape, axes), _broadcast_along),
    simplify=_broadcast_simplify,
    folds=False,
    samples=lambda rng: [
        ([sample(rng, (3,))], {"shape": (4, 3), "axes": (0,)}),
        ([sample(rng, (2, 1))], {"shape": (2, 5, 3), "axes": (1,)}),
        ([sample(rng, ())], {"shape": (2, 3), "axes": (0, 1)}),
        ([sample(rng, (1, 3))], {"shape": (0, 3), "axes": ()}),
        ([sample(rng, (3,), "i")], {"shape": (2, 3), "axes": (0,)}),
    ],
)


# --- reshape: the same elements in C order ---------------------------------------------------------------------------
def _reshape_type(x: Aval, shape: tuple[int, ...]) -> Aval:
    if math.prod(shape) != x.size:
        raise ShapeError(f"cannot reshape {x.shape} into {shape}")
    return Aval(shape, x.dtype, x.weak)


def _reshape_simplify(b: Builder, ins: tuple[Atom, ...], params: dict[str, Any]) -> Atom | None:
    if ins[0].aval.shape == params["shape"]:
        return ins[0]
    earlier = b.made_by(ins[0], "reshape")
    if earlier is not None:
        return b.emit(reshape, earlier.ins, params)[0]
    fill = b.filled_with(ins[0])
    if fill is not None and params["shape"]:
        return b.emit(broadcast, (fill,), {"shape": params["shape"], "axes": tuple(range(len(params["shape"])))})[0]
    return None


def _reshape_along(avals: Any, out: Aval, shape: Any) -> Any:
    """The first axes of runs of equal product: a row of the one is some rows of the other."""
    if 0 in shape:
        return
    old = [(i, n) for i, n in enumerate(avals[0].shape) if n != 1]
    new = [(i, n) for i, n in enumerate(shape) if n != 1]
    while old and new:
        (i, a), (j, b) = old.pop(0), new.pop(0)
        yield 0, i, j
        while a != b:
            if a < b:
                a *= old.pop(0)[1]
            else:
                b *= new.pop(0)[1]


reshape = Primitive(
    "reshape",
    type=_reshape_type,
    impl=lambda x, shape: np.reshape(x, shape),
    transpose=lambda ct, i, ins, shape: reshape(ct, shape=shape_of(ins[0])),
    batch=lambda prim, args, batched, size, shape: prim(args[0], shape=(size, *shape)),
    kernel=View(lambda layout, aval, shape: layout.reshape(shape), _reshape_along),
    simplify=_reshape_simplify,
    samples=lambda rng: [
        ([sample(rng, (3, 4))], {"shape": (2, 6)}),
        ([sample(rng, (6,))], {"shape": (2, 1, 3)}),
        ([sample(rng, (1, 1))], {"shape": ()}),
        ([sample(rng, (0, 3))], {"shape": (3, 0)}),
    ],
)


# --- transpose: axis i of the result is axis perm[i] of the operand ----------------------------------------------
def _transpose_simplify(b: Builder, ins: tuple[Atom, ...], params: dict[str, Any]) -> Atom | None:
    perm = params["perm"]
    if perm == tuple(range(len(perm))):
        return ins[0]
    earlier = b.made_by(ins[0], "transpose")
    if earlier is not None:
        return b.emit(transpose, earlier.ins, {"perm": tuple(earlier.params["perm"][p] for p in perm)})[0]
    return None


transpose = Primitive(
    "transpose",
    type=lambda x, perm: Aval(tuple(x.shape[p] for p in perm), x.dtype),
    impl=lambda x, perm: np.transpose(x, perm),
    transpose=lambda ct, i, ins, perm: transpose(ct, perm=tuple(perm.index(k) for k in range(len(perm)))),
    batch=lambda prim, args, batched, size, perm: prim(args[0], perm=(0, *(p + 1 for p in perm))),
    kernel=View(
        lambda layout, aval, perm: layout.transpose(perm),
        lambda avals, out, perm: ((0, p, i) for i, p in enumerate(perm)),
    ),
    simplify=_transpose_simplify,
    samples=lambda rng: [
        ([sample(rng, (3, 4))], {"perm": (1, 0)}),
        ([sample(rng, (2, 3, 4))], {"perm": (2, 0, 1)}),
        ([sample(rng, (2, 0))], {"perm": (1, 0)}),
    ],
)


# --- slice: along axis k the elements start[k] + step[k] * i for i < size[k] -----------------------------------------
def _slice_impl(x: Any, start: Any, step: Any, size: Any) -> Any:
    return x[tuple(python_slice(*s) for s in zip(start, step, size, strict=True))]


def python_slice(start: int, step: int, size: int) -> slice:
    if size == 0:
        return slice(0, 0)
    stop = start + step * (size - 1) + (1 if step > 0 else -1)
    return slice(start, stop if stop >= 0 else None, step)


def _slice_type(x: Aval, start: Any, step: Any, size: Any) -> Aval:
    for n, first, by, count in zip(x.shape, start, step, size, strict=True):
        if count and not (0 <= first < n and 0 <= first + by * (count - 1) < n):
            raise ShapeError(f"slice from {first} by {by}, {count} long, of an axis of {n}")
    return Aval(tuple(size), x.dtype, x.weak)


def _slice_simplify(b: Builder, ins: tuple[Atom, ...], params: dict[str, Any]) -> Atom | None:
    if params["size"] == ins[0].aval.shape and all(s == 1 for s in params["step"]):
        return ins[0]
    return None


def _slice_along(avals: Any, out: Aval, start: Any, step: Any, size: Any) -> Any:
    """Axes that are taken whole."""
    whole = ((i, n, by) for i, (n, by) in enumerate(zip(size, step, strict=True)))
    return ((0, i, i) for i, n, by in whole if n == avals[0].shape[i] and by == 1)


slice_ = Primitive(
    "slice",
    type=_slice_type,
    impl=_slice_impl,
    transpose=lambda ct, i, ins, start, step, size: embed(ct, start=start, step=step, shape=shape_of(ins[0])),
    batch=lambda prim, args, batched, n, start, step, size: prim(
        args[0], start=(0, *start), step=(1, *step), size=(n, *size)
    ),
    kernel=View(lambda layout, aval, start, step, size: layout.slice(start, step, size), _slice_along),
    simplify=_slice_simplify,
    samples=lambda rng: [
        ([sample(rng, (7,))], {"start": (1,), "step": (2,), "size": (3,)}),
        ([sample(rng, (4, 5))], {"start": (3, 0), "step": (-1, 1), "size": (4, 2)}),
        ([sample(rng, (4, 5))], {"start": (0, 0), "step": (1, 1), "size": (0, 5)}),
    ],
)


# --- embed: zeros of `shape` with the operand at start + step * i, the transpose of slice --------------------------
def _embed_impl(x: Any, start: Any, step: Any, shape: Any) -> Any:
    out = np.zeros(shape, np.asarray(x).dtype)
    out[tuple(python_slice(*s) for s in zip(start, step, np.shape(x), strict=True))] = x
    return out


def _embed_loops(k: Any, operands: Any, results: Any, start: Any, step: Any, shape: Any) -> None:
    (x,), (out,) = operands, results
    k.fill(out, 0)
    k.copy(x, out.slice(start, step, x.shape))


def _embed_registers(k: Any, x: Any, start: Any, step: Any, shape: Any) -> Any:
    out = np.empty(shape, object)
    out[...] = k.constant(0, x.flat[0].dtype) if x.size else None
    out[tuple(python_slice(*s) for s in zip(start, step, x.shape, strict=True))] = x
    return out


def _embed_batch(prim: Primitive, args: Any, batched: Any, n: int, start: Any, step: Any, shape: Any) -> Any:
    return prim(args[0], start=(0, *start), step=(1, *step), shape=(n, *shape))


def _embed_along(avals: Any, out: Aval, start: Any, step: Any, shape: Any) -> Any:
    return ((0, i, i) for i, n in enumerate(shape) if avals[0].shape[i] == n and step[i] == 1)


embed = Primitive(
    "embed",
    type=lambda x, start, step, shape: Aval(tuple(shape), x.dtype),
    impl=_embed_impl,
    transpose=lambda ct, i, ins, start, step, shape: slice_(ct, start=start, step=step, size=shape_of(ins[0])),
    batch=_embed_batch,
    kernel=Loops(_embed_loops, _embed_registers, along=_embed_along),
    folds=False,
    samples=lambda rng: [
        ([sample(rng, (3,))], {"start": (1,), "step": (2,), "shape": (7,)}),
        ([sample(rng, (4, 2))], {"start": (3, 1), "step": (-1, 1), "shape": (4, 5)}),
        ([sample(rng, (0, 2))], {"start": (0, 1), "step": (1, 1), "shape": (4, 5)}),
    ],
)


# Whether a place lies within the window that ``embed`` fills: the schedule uses it where it computes windows in place.
def _inside_impl(start: Any, size: Any, shape: Any) -> Any:
    out = np.zeros(shape, bool)
    out[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return out


def _inside_kernel(k: Any, places: Any, start: Any, size: Any, shape: Any) -> Any:
    windows = [(a, a + n) if n != whole else None for a, n, whole in zip(start, size, shape, strict=True)]
    return k.within(places, windows)


inside = Primitive(
    "inside",
    type=lambda start, size, shape: Aval(tuple(shape), np.dtype(bool)),
    impl=_inside_impl,
    batch=None,  # it has no operands
    samples=lambda rng: [],  # nor inputs to try: tests/test_windows.py has what it is for
    kernel=Indexed(_inside_kernel),
    differentiable=False,
    pointwise=True,
    folds=False,
)


# --- concatenate ---------------------------------------------------------------------------------------------------
def _concatenate_type(*xs: Aval, axis: int) -> Aval:
    first = xs[0].shape
    for x in xs[1:]:
        if x.shape[:axis] + x.shape[axis + 1 :] != first[:axis] + first[axis + 1 :] or x.ndim != len(first):
            raise ShapeError(f"concatenate of {first} and {x.shape} along axis {axis}")
    return Aval((*first[:axis], sum(x.shape[axis] for x in xs), *first[axis + 1 :]), xs[0].dtype)


def _part(shape: tuple[int, ...], axis: int, offset: int) -> dict[str, Any]:
    start = tuple(offset if k == axis else 0 for k in range(len(shape)))
    return {"start": start, "step": (1,) * len(shape)}


def _concatenate_transpose(ct: Any, i: int, ins: Sequence[Any], axis: int) -> Any:
    shape = shape_of(ins[i])
    offset = sum(shape_of(x)[axis] for x in ins[:i])
    return slice_(ct, **_part(shape, axis, offset), size=shape)


def _concatenate_loops(k: Any, operands: Any, results: Any, axis: int) -> None:
    offset = 0
    for x in operands:
        k.copy(x, results[0].slice(**_part(x.shape, axis, offset), size=x.shape))
        offset += x.shape[axis]


def _concatenate_batch(prim: Primitive, args: Any, batched: Any, size: int, axis: int) -> Any:
    return prim(*[x if b else lead(x, size) for x, b in zip(args, batched, strict=True)], axis=axis + 1)


def _concatenate_along(avals: Any, out: Aval, axis: int) -> Any:
    return ((k, i, i) for k in range(len(avals)) for i in range(out.ndim) if i != axis)


concatenate = Primitive(
    "concatenate",
    type=_concatenate_type,
    impl=lambda *xs, axis: np.concatenate(xs, axis),
    transpose=_concatenate_transpose,
    batch=_concatenate_batch,
    kernel=Loops(
        _concatenate_loops, lambda k, *xs, axis: np.concatenate(xs, axis), along=_concatenate_along
    ),
    samples=lambda rng: [
        ([sample(rng, (2,)), sample(rng, (3,))], {"axis": 0}),
        ([sample(rng, (2, 3)), sample(rng, (2, 0)), sample(rng, (2, 1))], {"axis": 1}),
        ([sample(rng, (2, 3), "i"), sample(rng, (1, 3), "i")], {"axis": 0}),
    ],
)


# --- cast ----------------------------------------------------------------------------------------------------------
def _cast_impl(x: Any, dtype: np.dtype[Any]) -> Any:
    return np.asarray(x).astype(dtype)[()]


def _cast_transpose(ct: Any, i: int, ins: Sequence[Any], dtype: np.dtype[Any]) -> Any:
    return cast(ct, dtype=ins[0].dtype)


cast = elementwise(
    "cast", _cast_impl, transpose=_cast_transpose, kernel=lambda k, x, dtype: k.cast(x, dtype),
    type=lambda x, dtype: Aval(x.shape, dtype),
    simplify=lambda b, ins, params: ins[0] if ins[0].aval.dtype == params["dtype"] and not ins[0].aval.weak else None,
    samples=lambda rng: [([sample(rng, (5,), a)], {"dtype": np.dtype(b)})
                         for a in "feib" for b in ("f8", "f4", "i8", "?", "i4") if not (a in "fe" and b == "i4")],
)  # fmt: skip
# The identity. The schedule uses it where a value must lie in memory of its own.
copy = elementwise("copy", np.copy, (ONE,), kernel=lambda k, x: x, dtypes="feib")
# The identity, with derivative zero.
stop_gradient = elementwise("stop_gradient", lambda x: x, (ZERO,), kernel=lambda k, x: x, dtypes="fe")

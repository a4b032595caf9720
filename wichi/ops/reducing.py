"""Reductions and cumulative sums. ``axes`` is a sorted tuple of axes; they disappear from the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.errors import ArgumentError, ShapeError
from wichi.kernels.loops import Check
from wichi.ops.pointwise import add, div, eq, mul, where
from wichi.ops.shaping import broadcast, cast, concatenate, reshape, slice_, transpose
from wichi.trace.ir import Aval
from wichi.trace.primitive import Loops, Primitive, Reduction, Rule, sample, shape_of
from wichi.trace.tracer import constant


def _type(x: Aval, axes: tuple[int, ...]) -> Aval:
    return Aval(tuple(n for i, n in enumerate(x.shape) if i not in axes), x.dtype)


def _batch(prim: Primitive, args: Any, batched: Any, size: int, axes: tuple[int, ...]) -> Any:
    return prim(args[0], axes=tuple(a + 1 for a in axes))


def _samples(kinds: str) -> Callable[[np.random.Generator], list[Any]]:
    def draw(rng: np.random.Generator) -> list[Any]:
        cases = (((7,), (0,)), ((3, 4), (0,)), ((3, 4), (1,)), ((3, 4), (0, 1)), ((2, 3, 4), (0, 2)), ((37, 5), (0, 1)))
        return [([sample(rng, shape, kind)], {"axes": axes}) for kind in kinds for shape, axes in cases]

    return draw


def _spread(out: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """A reduced value back over the axes it lost."""
    return broadcast(out, shape=shape_of(x), axes=axes)


def _reduction(name: str, ufunc: np.ufunc, op: str, kinds: str, **derivative: Rule) -> Primitive:
    return Primitive(
        name, type=_type, impl=lambda x, axes: ufunc.reduce(x, axis=axes, dtype=x.dtype), batch=_batch,
        kernel=Reduction(op), samples=_samples(kinds), differentiable=bool(derivative), folds=False, **derivative,
    )  # fmt: skip


def _extremum_jvp(out: Any, ins: Sequence[Any], tangents: Sequence[Any], axes: tuple[int, ...]) -> Any:
    """The mean of the tangents at the extremum: a tie is split evenly, as in PyTorch's amax and JAX."""
    (x,), (x_dot,) = ins, tangents
    at_extremum = eq(x, _spread(out, x, axes))
    count = sum_(cast(at_extremum, dtype=x.dtype), axes=axes)
    return div(sum_(where(at_extremum, x_dot, x.dtype.type(0)), axes=axes), count)


def _prod_jvp(out: Any, ins: Sequence[Any], tangents: Sequence[Any], axes: tuple[int, ...]) -> Any:
    """By halves: (p, p')(q, q') = (pq, p'q + pq'). Dividing ``out`` by each factor would fail at zeros."""
    x, x_dot = (_last_axis(v, axes) for v in (ins[0], tangents[0]))
    while (n := shape_of(x)[-1]) > 1:
        half = n // 2
        p, q, rest = (_part(x, *at) for at in ((0, half), (half, 2 * half), (2 * half, n)))
        p_dot, q_dot, rest_dot = (_part(x_dot, *at) for at in ((0, half), (half, 2 * half), (2 * half, n)))
        x, x_dot = mul(p, q), add(mul(p_dot, q), mul(p, q_dot))
        if n % 2:
            x, x_dot = concatenate(x, rest, axis=x.ndim - 1), concatenate(x_dot, rest_dot, axis=x_dot.ndim - 1)
    if n == 0:  # the product of nothing is 1, whatever x
        return _zero_of(out)
    return reshape(x_dot, shape=shape_of(x_dot)[:-1])


def _zero_of(out: Any) -> Any:
    shape = shape_of(out)
    return broadcast(constant(out.dtype.type(0), out), shape=shape, axes=tuple(range(len(shape))))


def _last_axis(x: Any, axes: tuple[int, ...]) -> Any:
    """``axes`` moved to the end and joined."""
    shape = shape_of(x)
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    moved = transpose(x, perm=(*kept, *axes))
    return reshape(moved, shape=(*(shape[i] for i in kept), int(np.prod([shape[i] for i in axes], dtype=int))))


def _part(x: Any, start: int, stop: int) -> Any:
    shape = shape_of(x)
    begin = (*(0 for _ in shape[:-1]), start)
    return slice_(x, start=begin, step=(1,) * len(shape), size=(*shape[:-1], stop - start))


sum_ = _reduction("sum", np.add, "add", "fei", transpose=lambda ct, i, ins, axes: _spread(ct, ins[0], axes))
prod = _reduction("prod", np.multiply, "mul", "fei", jvp=_prod_jvp)
max_ = _reduction("max", np.maximum, "maximum", "feib", jvp=_extremum_jvp)
min_ = _reduction("min", np.minimum, "minimum", "feib", jvp=_extremum_jvp)
any_ = _reduction("any", np.logical_or, "or", "b")
all_ = _reduction("all", np.logical_and, "and", "b")


# --- where the extremum is: no derivative ------------------------------------------------------------------------
def _position(name: str, impl: Rule, better: str, without_nan: bool = False) -> Primitive:
    """``without_nan``: the first number of them that is best, and a failure where there is none."""

    def loops(k: Any, operands: Any, results: Any, axis: int) -> None:
        (x,), (out,) = operands, results
        kept = [i for i in range(x.ndim) if i != axis]
        with k.loops([x.shape[i] for i in kept]) as at:

            def place(i: Any) -> list[Any]:
                return [*at[:axis], i, *at[axis:]]

            best, where_best = k.variable(k.load(x, place(k.constant(0)))), k.variable(k.constant(0))
            with k.loops([x.shape[axis]], ordered=True) as (i,):
                value = k.load(x, place(i))
                # As NumPy: the first of equals, and the first nan if there is one (or else the first that is none).
                new, old = (best.value, value) if without_nan else (value, best.value)
                wins = k.compute(better, value, best.value) | (k.ne(new, new) & k.eq(old, old))
                best.set(k.select(wins, value, best.value))
                where_best.set(k.select(wins, i, where_best.value))
            if without_nan:
                k.put(Check(k.eq(best.value, best.value).id, k.context.fails("nans")))
            k.store(out, at, where_best.value)

    def batch(prim: Primitive, args: Any, batched: Any, size: int, axis: int) -> Any:
        return prim(args[0], axis=axis + 1)

    def type_(x: Aval, axis: int) -> Aval:
        if x.shape[axis] == 0:
            raise ShapeError(f"{name} of an empty axis")
        return Aval(x.shape[:axis] + x.shape[axis + 1 :], np.dtype("i8"))

    def along(avals: Any, out: Aval, axis: int) -> Any:
        return ((0, i, i - (i > axis)) for i in range(out.ndim + 1) if i != axis)

    return Primitive(
        name, type=type_, impl=impl, batch=batch, kernel=Loops(loops, along=along), differentiable=False, folds=False,
        samples=lambda rng: [([_holed(sample(rng, shape, kind), without_nan)], {"axis": axis})
                             for kind in ("fe" if without_nan else "fei")
                             for shape, axis in (((7,), 0), ((3, 4), 0), ((3, 4), 1), ((2, 3, 4), 1))],
    )  # fmt: skip


argmax = _position("argmax", lambda x, axis: np.argmax(x, axis), "gt")
argmin = _position("argmin", lambda x, axis: np.argmin(x, axis), "lt")


def _holed(x: Any, holes: bool) -> Any:
    """``x`` with a nan in front and some more, but not all along any axis."""
    if holes:
        x.reshape(-1)[:: x.shape[-1] + 1] = np.nan
    return x


def _numbers_of(best: Rule, worst: float, name: str) -> Rule:
    """The interpreter's ``best``, of numbers alone."""

    def impl(x: Any, axis: int) -> Any:
        numbers = ~np.isnan(x)
        if not np.all(np.any(numbers, axis)):
            raise ArgumentError(f"{name}: all numbers of a line are nan.")
        # Where the worst of all numbers is the best there is, it must not be mistaken for what stands in for nan.
        filled = np.where(numbers, x, worst)
        return np.argmax((filled == np.expand_dims(best(filled, axis), axis)) & numbers, axis)

    return impl


nanargmax = _position("nanargmax", _numbers_of(np.max, -np.inf, "nanargmax"), "gt", without_nan=True)
nanargmin = _position("nanargmin", _numbers_of(np.min, np.inf, "nanargmin"), "lt", without_nan=True)


# --- cumulative sum ------------------------------------------------------------------------------------------------
def _cumsum_impl(x: Any, axis: int, reverse: bool) -> Any:
    if reverse:
        return np.flip(np.cumsum(np.flip(x, axis), axis, dtype=x.dtype), axis)
    return np.cumsum(x, axis, dtype=x.dtype)


def _cumsum_loops(k: Any, operands: Any, results: Any, axis: int, reverse: bool) -> None:
    (x,), (out,) = operands, results
    if reverse:
        x, out = (v.slice(**_flipped(v.shape, axis)) for v in (x, out))
    with k.loops([n for i, n in enumerate(x.shape) if i != axis]) as at:
        total = k.variable(k.constant(0, x.dtype))
        with k.loops([x.shape[axis]], ordered=True) as (i,):
            place = [*at[:axis], i, *at[axis:]]
            total.set(total.value + k.load(x, place))
            k.store(out, place, total.value)


def _flipped(shape: tuple[int, ...], axis: int) -> dict[str, Any]:
    start = tuple(max(n - 1, 0) if i == axis else 0 for i, n in enumerate(shape))
    return {"start": start, "step": tuple(-1 if i == axis else 1 for i in range(len(shape))), "size": shape}


cumsum = Primitive(
    "cumsum",
    type=lambda x, axis, reverse: x,
    impl=_cumsum_impl,
    transpose=lambda ct, i, ins, axis, reverse: cumsum(ct, axis=axis, reverse=not reverse),
    batch=lambda prim, args, batched, size, axis, reverse: prim(args[0], axis=axis + 1, reverse=reverse),
    kernel=Loops(
        _cumsum_loops,
        along=lambda avals, out, axis, reverse: ((0, i, i) for i in range(out.ndim) if i != axis),
    ),
    folds=False,
    samples=lambda rng: [
        ([sample(rng, shape, kind)], {"axis": axis, "reverse": reverse})
        for kind in "fei"
        for shape, axis in (((7,), 0), ((3, 4), 0), ((3, 4), 1), ((0, 2), 0))
        for reverse in (False, True)
    ],
)

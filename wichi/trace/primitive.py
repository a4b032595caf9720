"""What a primitive is: one record, complete. Constructors carry what a family shares; a row says what is special.

Each primitive declares exactly one derivative (design: "each derivative is written once"):

``partials``               one an input: a rule ``(out, *ins) -> partial`` that jvp and vjp multiply by, a number, ONE
                           (pass on) or ZERO (let nothing through).
``transpose(ct, i, ins)``  the cotangent of input ``i``; for functions linear in all inputs together, or, with
                           ``multilinear=True``, in each input apart.
``jvp(out, ins, tangents)`` a rule linear in the tangents; reverse mode pulls that small linear program back.
``whole``                  for primitives that hold a graph (loops, branches, functions with rules of the user's):
                           a pair of rules that do the equation and its derivative at once; see ``Whole``.

Rules are ordinary expressions on whatever is passed: arrays when eager, traced values when staged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from wichi.errors import ShapeError
from wichi.trace.boxed import Boxed
from wichi.trace.ir import Aval

ONE, ZERO = object(), None
Rule = Callable[..., Any]


class Whole(NamedTuple):
    """Both modes of a primitive that holds a graph: what its body needs must be kept while the equation runs.

    ``jvp(ins, tangents, **params) -> (outs, tangents of outs)``, where None is a tangent that is zero.
    ``vjp(ins, wanted, **params) -> (outs, pullback)``; ``pullback(cotangents of outs)`` answers those of the inputs
    ``wanted``, in turn; None is zero.
    """

    jvp: Rule
    vjp: Rule


class Primitive:
    """One operation of the graph; see the module's text. Called on values, it computes, records or stages."""

    __slots__ = (
        "batch", "differentiable", "effect", "folds", "impl", "jvp", "kernel", "multilinear", "multiple", "name",
        "numbered", "partials", "pointwise", "prune", "samples", "simplify", "transpose", "type", "whole",
    )  # fmt: skip
    table: ClassVar[dict[str, Primitive]] = {}

    def __init__(
        self,
        name: str,
        *,
        type: Rule,
        impl: Rule,
        batch: Rule,
        kernel: Any,
        partials: Sequence[Any] | None = None,
        transpose: Rule | None = None,
        jvp: Rule | None = None,
        whole: Whole | None = None,
        multilinear: bool = False,
        differentiable: bool = True,
        simplify: Rule | None = None,
        prune: Rule | None = None,
        samples: Rule | None = None,
        pointwise: bool = False,
        multiple: bool = False,
        numbered: bool = True,
        folds: bool = True,
        effect: bool = False,
    ) -> None:
        assert sum(rule is not None for rule in (partials, transpose, jvp, whole)) == differentiable, name
        assert name not in self.table, name
        self.name, self.type, self.impl, self.batch, self.kernel = name, type, impl, batch, kernel
        self.partials, self.transpose, self.jvp, self.multilinear = partials, transpose, jvp, multilinear
        self.differentiable, self.simplify, self.samples, self.pointwise = differentiable, simplify, samples, pointwise
        self.whole, self.prune = whole, prune  # prune(eqn, live outputs) -> an equation that computes these alone
        self.multiple, self.numbered, self.folds, self.effect = multiple, numbered, folds and not multiple, effect
        self.table[name] = self

    def __call__(self, *args: Any, **params: Any) -> Any:
        top = None
        for a in args:
            if isinstance(a, Boxed) and (top is None or a.rank > top.rank):
                top = a
        if top is None:
            result = self.impl(*args, **params)
            return result[()] if type(result) is np.ndarray and not result.ndim else result  # as of np.where of scalars
        return top.stage(self, args, params)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self.name,)


def _by_name(name: str) -> Primitive:
    return Primitive.table[name]


def partial(prim: Primitive, i: int, out: Any, ins: Sequence[Any], params: dict[str, Any]) -> Any:
    """The partial derivative of ``out`` in input ``i``: ONE, ZERO, a number or a value."""
    assert prim.partials is not None
    rule = prim.partials[i]
    return rule(out, *ins, **params) if callable(rule) else rule


_NUMPYS = (np.ndarray, np.generic)
_FLOAT, _INTEGER = Aval((), np.dtype(np.float64), weak=True), Aval((), np.dtype(np.int64), weak=True)


def aval_of(x: Any) -> Aval:
    """Shape and dtype of an array, a scalar or a boxed value; Python scalars are weak."""
    if isinstance(x, Boxed):
        return x.aval
    if isinstance(x, _NUMPYS):
        return Aval(x.shape, x.dtype)
    if type(x) is float:
        return _FLOAT
    if type(x) is int:
        return _INTEGER
    array = np.asarray(x)
    return Aval(array.shape, array.dtype)


def shape_of(x: Any) -> tuple[int, ...]:
    """The shape of an array, a scalar or a boxed value."""
    return x.aval.shape if isinstance(x, Boxed) else x.shape if hasattr(x, "shape") else np.shape(x)


def pointwise_shape(name: str, avals: Sequence[Aval]) -> tuple[int, ...]:
    """The common shape of the operands; 0-d constants may stand beside any shape."""
    shape: tuple[int, ...] = ()
    for aval in avals:
        if aval.shape:
            if shape and aval.shape != shape:
                raise ShapeError(f"{name} of shapes {shape} and {aval.shape}")
            shape = aval.shape
    return shape


def _batch_pointwise(prim: Primitive, args: Sequence[Any], batched: Sequence[bool], size: int, **params: Any) -> Any:
    return prim(*[a if b or _plain_scalar(a) else lead(a, size) for a, b in zip(args, batched, strict=True)], **params)


def _plain_scalar(a: Any) -> bool:
    return not isinstance(a, Boxed | np.ndarray)


def lead(x: Any, size: int) -> Any:
    """``x`` repeated along a new leading axis of ``size``."""
    return Primitive.table["broadcast"](x, shape=(size, *shape_of(x)), axes=(0,))


def elementwise(
    name: str,
    impl: Rule,
    partials: Sequence[Any] | Rule | None = None,
    *,
    jvp: Rule | None = None,
    transpose: Rule | None = None,
    kernel: Rule | None = None,
    arity: int = 1,
    out: str | None = None,
    domain: tuple[float, float] = (-2.0, 2.0),
    dtypes: str = "f",
    simplify: Rule | None = None,
    type: Rule | None = None,
    samples: Rule | None = None,
) -> Primitive:
    """A pointwise primitive: operands of one shape and dtype, ``out`` the result's dtype where it differs.

    ``kernel(k, *scalars)`` is the scalar expression, by default the scalar operation of the same name; ``domain`` is
    where tests draw from; ``dtypes`` are the kinds (as in ``sample``) that tests run it on.
    """
    out_dtype = np.dtype(out) if out else None

    def same(*avals: Aval, **params: Any) -> Aval:
        if out_dtype is None and avals.count(avals[0]) == len(avals):
            return avals[0]
        return Aval(pointwise_shape(name, avals), out_dtype or avals[-1].dtype, all(a.weak for a in avals))

    def by_name(k: Any, *scalars: Any) -> Any:
        return k.compute(name, *scalars)

    def draw(rng: np.random.Generator) -> list[tuple[list[Any], dict[str, Any]]]:
        return [
            ([sample(rng, shape, kind, domain) for _ in range(arity)], {})
            for kind in dtypes
            for shape in ((3, 5), (17,), (), (2, 0))
        ]

    return Primitive(
        name,
        type=type or same,
        impl=impl,
        batch=_batch_pointwise,
        kernel=Pointwise(kernel or by_name),
        partials=(partials,) if callable(partials) else partials,
        jvp=jvp,
        transpose=transpose,
        differentiable=bool(partials or jvp or transpose),
        simplify=simplify,
        samples=samples or draw,
        pointwise=True,
    )


def sample(
    rng: np.random.Generator, shape: tuple[int, ...], kind: str = "f", domain: tuple[float, float] = (-2.0, 2.0)
) -> Any:
    """Random test data of a kind: ``f`` float64, ``e`` float32, ``i`` int64, ``b`` bool."""
    if kind == "b":
        return np.asarray(rng.integers(0, 2, shape), bool)
    if kind == "i":
        return np.asarray(rng.integers(int(domain[0]) * 3, int(domain[1]) * 3 + 1, shape), np.int64)
    return np.asarray(rng.uniform(*domain, shape), np.float32 if kind == "e" else np.float64)


# How a primitive runs natively. The schedule (wichi/kernels/schedule.py) knows these kinds and no primitive by name.


class Pointwise:
    """``scalar(k, *values, **params)`` builds one element of the result from one element of each operand."""

    __slots__ = ("scalar",)

    def __init__(self, scalar: Rule) -> None:
        self.scalar = scalar


class Indexed(Pointwise):
    """``scalar(k, places, **params)`` builds one element from its place in the array, one integer an axis."""

    __slots__ = ()


class View:
    """``move(layout, aval, **params)`` answers the layout of the result in the operand's memory, or None to copy.

    ``along`` as for ``Loops``.
    """

    __slots__ = ("along", "move")

    def __init__(self, move: Rule, along: Rule) -> None:
        self.move, self.along = move, along


class Reduction:
    """The operand combined along ``axes`` by the scalar operation ``op``, from its neutral element."""

    __slots__ = ("op",)

    def __init__(self, op: str) -> None:
        self.op = op


class Product:
    """A matrix product of the last two axes, batched over the others."""

    __slots__ = ()


class Loops:
    """``write(k, operands, results, **params)`` writes the loops itself; see ``wichi.kernels.writer.Writer``.

    Results that nothing reads are None. ``registers(k, *operands, **params)`` does the same for small values that
    live in registers, as object arrays of scalars; without it the primitive's operands must lie in memory.
    ``in_place``: the result may have the memory of the first operand; both layouts are equal then.
    ``along(avals, out, **params)`` yields ``(operand, its axis, the result's axis)`` where one row of the result comes
    from the same row of each operand; without it no axis is like that.
    """

    __slots__ = ("along", "in_place", "registers", "write")

    def __init__(
        self, write: Rule, registers: Rule | None = None, in_place: bool = False, along: Rule | None = None
    ) -> None:
        self.write, self.registers, self.in_place, self.along = write, registers, in_place, along


class Inline:
    """The equations of the graph in the parameter ``graph`` stand in its place where it runs."""

    __slots__ = ()
    along = None

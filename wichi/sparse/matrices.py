"""``wichi.sparse.jacobian`` and ``hessian``: exact sparse matrices of derivatives, from a few compiled products."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import wichi.numpy as wnp
from wichi import control, pytree
from wichi.arguments import leaf_aval
from wichi.batching import vmap
from wichi.compiled import Transformed
from wichi.config import config
from wichi.errors import ArgumentError, DtypeError
from wichi.jacobians import _in_arguments, _numbers
from wichi.linear import _traced
from wichi.sparse import colouring
from wichi.sparse.pattern import Walker
from wichi.sparse.sets import Ints, Sets, TooDense
from wichi.sparse.values import Value
from wichi.trace import forward, frames, reverse
from wichi.trace.boxed import Boxed
from wichi.trace.evaluate import evaluate
from wichi.trace.ir import Graph, dce
from wichi.trace.tracer import Tracer
from wichi.transforms import AsItIs, grad

_MOST_AT_ONCE = 1 << 24  # elements of one value, for all the products that are computed together


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is found out once for a signature: where entries can be, and how many products give them."""

    shape: tuple[int, int]
    starts: Ints
    columns: Ints
    products: int
    by_rows: bool
    watched: tuple[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], ...]  # arrays looked at, as they were then

    def holds(self) -> bool:
        """Whether the arrays whose contents decided about the pattern are what they were."""
        return all(np.array_equal(now, then) for now, then in self.watched)

    def matrix(self, entries: Any) -> Any:
        """A ``csr_array`` of its own arrays."""
        from scipy.sparse import csr_array

        made = csr_array((entries, self.columns.copy(), self.starts.copy()), shape=self.shape)
        made.has_sorted_indices = made.has_canonical_format = True
        return made


@dataclass(frozen=True, eq=False)
class _Entries:
    """What a compiled call answers."""

    entries: Any
    plan: Plan = pytree.static()


class SparseDerivative:
    """A function whose answer is a sparse matrix. Made by ``wichi.sparse.jacobian`` and ``hessian``."""

    def __init__(self, fn: Callable[..., Any], argnums: int | Sequence[int], symmetric: bool) -> None:
        name = "sparse.hessian" if symmetric else "sparse.jacobian"
        if not callable(fn):
            raise ArgumentError(
                f"{name} needs a function, not {type(fn).__name__}.",
                at=frames.describe(frames.user_where()),
                fix=f"wichi.{name}(f)(x), not wichi.{name}(f(x))",
            )
        functools.update_wrapper(self, fn)
        self.__wrapped__ = fn
        self._name, self._argnums, self._symmetric = name, _numbers(argnums), symmetric
        self._entries = _entries_of(fn, self._argnums, symmetric, None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = self._found(args, kwargs)
        return found.plan.matrix(found.entries)

    def pattern(self, *args: Any, **kwargs: Any) -> Any:
        """Where the matrix can have entries: a ``csr_array`` of bool. Nothing is computed or compiled for it.

        Only shapes and dtypes of the arguments matter, unless Python branches on their values.
        """
        plan = self._plan(args, kwargs)
        return plan.matrix(np.ones(len(plan.columns), bool))

    def products(self, *args: Any, **kwargs: Any) -> int:
        """How many Jacobian-vector products (or vector-Jacobian, where these are fewer) a call computes."""
        return self._plan(args, kwargs).products

    def __repr__(self) -> str:
        return f"<wichi.{self._name} of {getattr(self, '__name__', type(self.__wrapped__).__name__)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return SparseDerivative, (self.__wrapped__, self._argnums, self._symmetric)

    def _found(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Entries:
        self._refuse_traced(args, kwargs)
        found: _Entries = self._entries(*args, **kwargs)
        if found.plan.holds():
            return found
        self._forget()
        found = self._entries(*args, **kwargs)
        return found

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        self._refuse_traced(args, kwargs)
        leaves, tree = pytree.flatten((args, kwargs))
        trace = self._entries.find(leaves, tree, guarded=config.guards)
        if trace.guards:  # which way it goes is known when it has run
            return self._found(args, kwargs).plan
        plan: Plan = pytree.unflatten(trace.out_tree, [None]).plan
        if plan.holds():
            return plan
        self._forget()
        return self._plan(args, kwargs)

    def _forget(self) -> None:
        """Trace anew: an index array that is closed over has other contents now."""
        self._entries = _entries_of(self.__wrapped__, self._argnums, self._symmetric, object())

    def _refuse_traced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(isinstance(x, Tracer) for x in pytree.leaves((args, kwargs))):
            raise ArgumentError(
                f"{self._name} was called within a transform.",
                at=frames.describe(frames.user_where()),
                because="its answer is a scipy.sparse array, which no compiled function can hold",
                fix="call it from outside; within, wichi.jvp, wichi.vjp and wichi.hvp are the products with it",
            )


def _entries_of(fn: Callable[..., Any], argnums: int | tuple[int, ...], symmetric: bool, since: Any) -> Transformed[..., Any]:
    """The compiled function from arguments to entries. ``since`` is new where older traces do not hold any more."""

    @functools.wraps(fn)
    def entries(*args: Any, **kwargs: Any) -> _Entries:
        return _traced_entries(fn, argnums, symmetric, since, args, kwargs)

    return Transformed(entries, AsItIs("sparse.hessian" if symmetric else "sparse.jacobian"))


def _traced_entries(
    fn: Callable[..., Any],
    argnums: int | tuple[int, ...],
    symmetric: bool,
    since: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> _Entries:
    name = "sparse.hessian" if symmetric else "sparse.jacobian"
    if symmetric:
        fn = grad(fn, argnums, allow_unused=True)
    of_leaves, leaves, _ = _in_arguments(fn, args, kwargs, argnums, False, name)
    found, leaves = _traced(of_leaves, tuple(leaves))
    graph, values = found.run.graph, [*leaves, *found.captured]
    for out in graph.outs:
        if out.aval.dtype.kind != "f":
            raise DtypeError(
                f"{name}: a result is {out.aval}; integers have no derivative.", at=frames.describe(frames.user_where())
            )
    pushed = forward.jvp(graph, range(len(leaves)))
    pushed = dce(Graph(pushed.ins, pushed.eqns, pushed.outs[len(graph.outs) :], pushed.in_names))
    pattern, watched = _pattern(pushed, len(leaves), symmetric, name)
    if symmetric:
        colours, by_rows = colouring.star(pattern), False
        places = colouring.places_in_symmetric(pattern, colours)
    else:
        colours, by_rows = _cheaper(pattern)
        places = (colouring.places_by_rows if by_rows else colouring.places_in_products)(pattern, colours)
    plan = Plan(pattern.shape, pattern.indptr, pattern.indices, colouring.count(colours), by_rows, watched)
    if by_rows:
        linear = reverse.vjp(graph, range(len(leaves)))
        linear = Graph(linear.ins, linear.eqns, linear.outs[len(graph.outs) :], linear.in_names)
    else:
        linear = pushed
    products = _products(linear, values, colours, plan.products)
    return _Entries(products[places], plan)


def _cheaper(pattern: Any) -> tuple[Ints, bool]:
    """Colours of the columns, or of the rows where these are fewer, and which."""
    by_column, by_row = (int(np.diff(p.indptr).max(initial=0)) for p in (pattern, pattern.tocsc()))
    if by_column <= by_row:  # neither can do with fewer colours than entries in a line
        colours = colouring.columns(pattern)
        if colouring.count(colours) <= by_row:
            return colours, False
        other = colouring.columns(pattern.T.tocsr())
        return (other, True) if colouring.count(other) < colouring.count(colours) else (colours, False)
    other = colouring.columns(pattern.T.tocsr())
    if colouring.count(other) < by_column:
        return other, True
    colours = colouring.columns(pattern)
    return (colours, False) if colouring.count(colours) <= colouring.count(other) else (other, True)


def _pattern(pushed: Graph, count: int, symmetric: bool, name: str) -> tuple[Any, Any]:
    """Where tangents reach, as a ``csr_array`` of bool, and the arrays that decided about it."""
    from scipy.sparse import csr_array

    tangents = pushed.ins[len(pushed.ins) - count :]
    sizes = [v.aval.size for v in tangents]
    sets = Sets(sum(sizes))
    walker = Walker(sets)
    parts = np.split(sets.singles(), np.cumsum(sizes)[:-1])
    seeds = [Value(ids.reshape(v.aval.shape)) for ids, v in zip(parts, tangents, strict=True)]
    try:
        found = walker.walk(pushed, [*[Value()] * (len(pushed.ins) - count), *seeds])
        flat = [
            np.zeros(o.aval.size, np.int64) if v.ids is None else v.ids.ravel()
            for v, o in zip(found, pushed.outs, strict=True)
        ]
        ids = np.concatenate([np.zeros(0, np.int64), *flat])
        starts, members = sets.rows(ids)
    except TooDense:
        raise ArgumentError(
            f"{name}: the matrix would have more entries than can be held.",
            at=frames.describe(frames.user_where()),
        ) from None
    shape = (len(ids), sets.columns)
    pattern = csr_array((np.ones(len(members), bool), members, starts), shape=shape)
    if symmetric:
        pattern = csr_array(pattern + pattern.T)
    pattern.sort_indices()
    return pattern, tuple((a, a.copy()) for a in walker.watched.values())


def _products(linear: Graph, values: Sequence[Any], colours: Ints, count: int) -> Any:
    """The products of a linear program with one seed a colour, (colours, results), flat.

    The inputs of ``linear`` are ``values`` and what is seeded.
    """
    seeded = [v.aval for v in linear.ins[len(values) :]]
    bounds = np.cumsum([0, *(a.size for a in seeded)])

    def along(colour: Any) -> Any:
        chosen = wnp.equal(colours, colour)
        seeds = [
            wnp.reshape(chosen[a:b], aval.shape).astype(aval.dtype)
            for a, b, aval in zip(bounds, bounds[1:], seeded, strict=False)
        ]
        found = evaluate(linear, *values, *seeds)
        return wnp.concatenate([wnp.reshape(x, (-1,)) for x in found])

    largest = max((v.aval.size for e in linear.eqns for v in e.outs), default=1)
    at_once = max(1, _MOST_AT_ONCE // max(largest, 1))
    if count <= at_once:
        return wnp.reshape(vmap(along)(np.arange(count)), (-1,))
    rounds = -(-count // at_once)
    numbers = np.arange(rounds * at_once).reshape(rounds, at_once)  # the last ones are of no colour
    return wnp.reshape(control.map(vmap(along), numbers), (-1,))


def jacobian(fn: Callable[..., Any], argnums: int | Sequence[int] = 0) -> SparseDerivative:
    """doc"""
    return SparseDerivative(fn, argnums, False)


def hessian(fn: Callable[..., Any], argnums: int | Sequence[int] = 0) -> SparseDerivative:
    """doc"""
    return SparseDerivative(fn, argnums, True)

"""From a graph to the products that give all entries of its Jacobian: found once for a signature."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import wichi.numpy as wnp
from wichi import control
from wichi.batching import vmap
from wichi.errors import ArgumentError, WichiError
from wichi.ops.indexing import scatter_add
from wichi.sparse import colouring
from wichi.sparse.front import Cut, cut
from wichi.sparse.pattern import Walker
from wichi.sparse.sets import Ints, Sets, TooDense, starts_of
from wichi.sparse.values import Value, Watched
from wichi.trace import forward, frames, reverse
from wichi.trace.evaluate import evaluate
from wichi.trace.ir import Graph, dce
from wichi.trace.tracer import staged

_MOST_AT_ONCE = 1 << 22  # elements of one value, for all the products that are computed together


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Where entries can be, and how many products give them."""

    pattern: Any  # a csr_array of bool, with sorted indices and no duplicates
    products: int
    watched: tuple[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], ...]  # arrays looked at, as they were then

    def holds(self) -> bool:
        """Whether the arrays whose contents decided about the pattern are what they were."""
        return all(np.array_equal(now, then) for now, then in self.watched)

    def matrix(self, entries: Any) -> Any:
        """The matrix with these entries: of its own arrays, which users may change."""
        made = copy.copy(self.pattern)  # the constructor would look at all indices again
        made.data, made.indices, made.indptr = entries, self.pattern.indices.copy(), self.pattern.indptr.copy()
        return made


class _Products(NamedTuple):
    """A linear program, the colours of its seeds, and where in its answers the entries are found."""

    linear: Graph
    colours: Ints
    places: Ints
    added_to: Ints | None = None  # which entry each of these belongs to, if several make one


def derive(
    graph: Graph,
    values: Sequence[Any],
    wrt: Sequence[int],
    arrays: Sequence[np.ndarray[Any, Any]],
    symmetric: bool,
    name: str,
) -> tuple[Any, Plan]:
    """The entries of the Jacobian in the inputs named by ``wrt``, computed from ``values`` of all, and their plan.

    The last inputs are ``arrays``, whose contents the pattern may depend on.
    """
    watched: Watched = {}
    parts = cut(graph, wrt, arrays, watched)
    pushed = forward.jvp(parts.rest, range(len(parts.sources)))
    pushed = dce(Graph(pushed.ins, pushed.eqns, pushed.outs[len(graph.outs) :]))
    behind = _pattern_behind(pushed, parts, watched, name)
    sources = np.concatenate([np.zeros(0, np.int64), *[s.ravel() for s in parts.sources]])
    whole, order, added_to = _gathered(behind, sources, sum(graph.ins[i].aval.size for i in wrt))
    if symmetric:
        whole = _symmetric(whole)
        colours = colouring.star(whole)
        chosen = _by_columns(pushed, colours, sources, colouring.places_in_symmetric(whole, colours))
    else:
        chosen = _fewest(parts, pushed, behind, sources, whole, order, added_to)
    number = colouring.count(chosen.colours)
    held = tuple((array, array.copy()) for array in watched.values())
    whole.has_sorted_indices = whole.has_canonical_format = True
    plan = Plan(whole, number, held)
    if not number:
        return np.zeros(0, np.result_type(*[o.aval.dtype for o in graph.outs])), plan
    answers = _products(chosen.linear, evaluate(parts.front, *values), chosen.colours, number)[chosen.places]
    if chosen.added_to is not None:
        answers = scatter_add(answers, chosen.added_to, shape=(len(whole.indices),))
    return answers, plan


def _pattern_behind(pushed: Graph, parts: Cut, watched: Watched, name: str) -> Any:
    """Where the tangents of what the front answers reach, as a ``csr_array`` of bool."""
    from scipy.sparse import csr_array

    tangents = pushed.ins[len(pushed.ins) - len(parts.sources) :]
    sizes = [v.aval.size for v in tangents]
    sets = Sets(sum(sizes))
    seeds = np.split(sets.singles(), np.cumsum(sizes)[:-1])
    ins = [*[Value()] * len(tangents), *parts.others]
    ins += [Value(ids.reshape(v.aval.shape)) for ids, v in zip(seeds, tangents, strict=False)]
    walker = Walker(sets, watched)
    try:
        found = walker.walk(pushed, ins)
        ids = [
            np.zeros(o.aval.size, np.int64) if v.ids is None else v.ids.ravel()
            for v, o in zip(found, pushed.outs, strict=True)
        ]
        starts, members = sets.rows(np.concatenate(ids))
    except TooDense as error:
        by_variable = frames.describe(walker.anywhere) if walker.anywhere else None
        raise ArgumentError(
            f"{name}: the pattern has more than {error.args[0]} entries.",
            at=frames.describe(frames.user_where()),
            value=by_variable and f"{by_variable}  (indices that are known only as it runs)",
            because="indices that are no constants may go anywhere" if by_variable else "this matrix is not sparse",
            fix="close over the index arrays instead of giving them as arguments"
            if by_variable
            else "products with it: wichi.jvp, wichi.vjp, wichi.hvp",
        ) from None
    return csr_array((np.ones(len(members), bool), members, starts), shape=(len(starts) - 1, sets.columns))


def _gathered(behind: Any, sources: Ints, width: int) -> tuple[Any, Ints, Ints | None]:
    """The pattern of the whole; which entries behind the front make it, in its order; and which of its entries each of
    them is added to, if that is not one each."""
    from scipy.sparse import csr_array

    rows = np.repeat(np.arange(behind.shape[0]), np.diff(behind.indptr))
    keys = np.where(sources[behind.indices] < 0, -1, rows * width + sources[behind.indices])
    order = np.argsort(keys, kind="stable")[np.count_nonzero(keys < 0) :]
    keys = keys[order]
    first = np.diff(keys, prepend=-1) > 0
    added_to = None if first.all() else np.cumsum(first) - 1
    keys = keys[first]
    starts = starts_of(np.bincount(keys // width, minlength=behind.shape[0]))
    whole = csr_array((np.ones(len(keys), bool), keys % width, starts), shape=(behind.shape[0], width))
    return whole, order, added_to


def _symmetric(pattern: Any) -> Any:
    whole = (pattern + pattern.T).tocsr()
    whole.sort_indices()
    return whole


def _fewest(
    parts: Cut, pushed: Graph, behind: Any, sources: Ints, whole: Any, order: Ints, added_to: Ints | None
) -> _Products:
    """Products by columns of the whole, or by rows of what is behind the front, where these are fewer."""
    least_by_columns = int(np.diff(whole.indptr).max(initial=0))  # all entries of a line take different colours
    least_by_rows = int(np.bincount(behind.indices, minlength=1).max(initial=0))
    colours = None if least_by_rows < least_by_columns else colouring.columns(whole)
    if colours is None or colouring.count(colours) > least_by_rows:
        rows = colouring.columns(behind.T.tocsr())
        if colours is None and colouring.count(rows) >= least_by_columns:
            colours = colouring.columns(whole)
        if colours is None or colouring.count(rows) < colouring.count(colours):
            try:
                pulled = reverse.vjp(parts.rest, range(len(parts.sources)))
            except WichiError:  # a rule of the user's that goes forward only
                colours = colouring.columns(whole) if colours is None else colours
            else:
                linear = dce(Graph(pulled.ins, pulled.eqns, pulled.outs[len(parts.rest.outs) :]))
                return _Products(linear, rows, colouring.places_by_rows(behind, rows)[order], added_to)
    return _by_columns(pushed, colours, sources, colouring.places_by_columns(whole, colours))


def _by_columns(pushed: Graph, colours: Ints, sources: Ints, places: Ints) -> _Products:
    return _Products(pushed, np.where(sources < 0, -1, colours[sources]), places)


def _products(linear: Graph, values: Sequence[Any], colours: Ints, count: int) -> Any:
    """The products of a linear program with one seed a colour, (colours, results), flat.

    The inputs of ``linear`` are ``values`` and what is seeded. Nothing here is plain: rules would fold what meets, and
    arrays of the user's may be among that, which change later.
    """
    seeded = [v.aval for v in linear.ins[len(values) :]]
    bounds = np.cumsum([0, *(a.size for a in seeded)])
    parts = [colours[a:b].reshape(x.shape) for a, b, x in zip(bounds, bounds[1:], seeded, strict=False)]

    def product(*seeds: Any) -> Any:
        return wnp.concatenate([wnp.reshape(x, (-1,)) for x in evaluate(linear, *values, *seeds)])

    def of_colour(colour: Any) -> Any:
        return product(*[wnp.equal(part, colour).astype(x.dtype) for part, x in zip(parts, seeded, strict=True)])

    largest = max((v.aval.size for e in linear.eqns for v in e.outs), default=1)
    at_once = max(1, _MOST_AT_ONCE // max(largest, 1))
    if count <= at_once:
        seeds = [
            np.stack([part == c for c in range(count)]).astype(x.dtype) for part, x in zip(parts, seeded, strict=True)
        ]
        return wnp.reshape(vmap(product)(*map(staged, seeds)), (-1,))
    rounds = -(-count // at_once)
    numbers = np.arange(rounds * at_once).reshape(rounds, at_once)  # the last ones are of no colour
    return wnp.reshape(control.map(vmap(of_colour), staged(numbers)), (-1,))

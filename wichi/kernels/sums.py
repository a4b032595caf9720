"""Matrix products that need not be computed: they are only summed, or a factor is the same along an axis.

Sums over rows or columns of a matrix product are products of sums. The gradient with respect to a mean that was taken
away from every point is ``sum(A @ B, axis=-1)`` over the points, which is ``A @ sum(B, axis=-1)``: the product itself,
which nothing else reads, need not be computed. Such a sum goes through what is linear on the way: signs, sums,
transposes, and factors that do not depend on the summed axes.

``A @ B`` of a ``B`` with equal columns has equal columns, and if the rows of ``B`` are equal it is the product of the
sums of ``A``'s rows with one of them: derivatives of the above have such factors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wichi.ops.pointwise import add, mul, neg
from wichi.ops.products import matmul
from wichi.ops.reducing import sum_
from wichi.ops.shaping import broadcast, reshape, transpose
from wichi.trace.ir import Atom, Builder, Const, Eqn, Graph, Var, dce


@dataclass(frozen=True, slots=True)
class _Term:
    """``sum(value, axes)``, and what is done with it then, in order: (primitive, other operands, parameters)."""

    value: Atom
    axes: tuple[int, ...]
    then: tuple[tuple[Any, tuple[Atom, ...], Any], ...] = ()


def fewer_products(graph: Graph) -> Graph:
    """The graph without products that are sums of others, or others spread."""
    return _without_summed_products(_without_spread_factors(graph))


def _without_summed_products(graph: Graph) -> Graph:
    """The graph with products that are only summed replaced by products of sums."""
    if not any(e.prim is matmul for e in graph.eqns) or not any(e.prim is sum_ for e in graph.eqns):
        return graph
    makers = {o: e for e in graph.eqns for o in e.outs}
    uses = Counter(a for a in (*(a for e in graph.eqns for a in dict.fromkeys(e.ins)), *graph.outs) if type(a) is Var)
    pulled = {e: terms for e in graph.eqns if e.prim is sum_ and (terms := _terms(e, makers, uses))}
    if not pulled:
        return graph
    return _rewritten(graph, lambda b, eqn, ins: _total(b, pulled[eqn]) if eqn in pulled else None)


def _rewritten(graph: Graph, answer: Callable[[Builder, Eqn, Sequence[Atom]], Atom | None]) -> Graph:
    """The graph with what ``answer`` emits in the place of an equation, where it does; it is given the new operands."""
    b = Builder()
    atoms: dict[Atom, Atom] = {}
    for eqn in graph.eqns:
        ins = tuple(atoms.get(a, a) for a in eqn.ins)
        b.where = eqn.where
        other = answer(b, eqn, ins)
        if other is not None:
            atoms[eqn.outs[0]] = other
            continue
        new = Eqn(eqn.prim, ins, eqn.params, eqn.outs, eqn.where)
        b.eqns.append(new)
        b.producer.update(dict.fromkeys(new.outs, new))
    return dce(Graph(graph.ins, tuple(b.eqns), tuple(atoms.get(o, o) for o in graph.outs), graph.in_names))


def _terms(eqn: Eqn, makers: Mapping[Atom, Eqn], uses: Mapping[Atom, int]) -> list[_Term]:
    """What the sum is the sum of; nothing where no product could be left out."""
    found: list[_Term] = []
    waiting = [_Term(eqn.ins[0], eqn.params["axes"])]
    products = 0
    while waiting:
        term = waiting.pop()
        maker = makers.get(term.value)
        steps = _through(maker, term, makers) if maker is not None and uses[term.value] == 1 else None
        if steps is not None:
            waiting += steps
            continue
        found.append(term)
        if maker is not None and _sums_product(maker, term.axes) and uses[term.value] == 1:
            products += 1
    return found if products else []


def _through(maker: Eqn, term: _Term, makers: Mapping[Atom, Eqn]) -> list[_Term] | None:
    """The sum of what ``maker`` makes, by sums of its operands."""
    name, axes, ins = maker.prim.name, term.axes, maker.ins
    if name == "neg":
        return [_Term(ins[0], axes, ((neg, (), {}), *term.then))]
    if name in ("add", "sub") and not any(type(a) is Const for a in ins):
        second = ((neg, (), {}), *term.then) if name == "sub" else term.then
        return [_Term(ins[0], axes, term.then), _Term(ins[1], axes, second)]
    if name == "transpose":
        perm = maker.params["perm"]
        left = [p for i, p in enumerate(perm) if i not in axes]
        order = tuple(sorted(left).index(p) for p in left)
        return [_Term(ins[0], tuple(sorted(perm[i] for i in axes)), ((transpose, (), {"perm": order}), *term.then))]
    if name == "mul":
        for factor, value in (ins, ins[::-1]):
            if type(value) is Var and (small := _constant_along(factor, axes, makers)) is not None:
                return [_Term(value, axes, ((mul, *small), *term.then))]
    return None


def _constant_along(
    factor: Atom, axes: tuple[int, ...], makers: Mapping[Atom, Eqn]
) -> tuple[tuple[Atom, ...], Any] | None:
    """The factor without ``axes``, along which it does not change: an atom, and how to spread it. None: it does."""
    if type(factor) is Const and factor.is_scalar:
        return (factor,), None
    maker = makers.get(factor)
    if maker is None or maker.prim is not broadcast:
        return None
    (source,), shape, added = maker.ins, maker.params["shape"], maker.params["axes"]
    kept = [i for i in range(len(shape)) if i not in added]
    extents = dict(zip(kept, source.aval.shape, strict=True))
    if any(extents.get(i, 1) != 1 for i in axes):
        return None
    left = [i for i in range(len(shape)) if i not in axes]
    return (source,), {
        "bare": tuple(extents[i] for i in kept if i not in axes),
        "shape": tuple(shape[i] for i in left),
        "axes": tuple(left.index(i) for i in added if i not in axes),
    }


def _sums_product(maker: Eqn, axes: tuple[int, ...]) -> bool:
    """Whether ``maker`` is a product of which rows, columns or both are summed, and nothing else."""
    rank = maker.outs[0].aval.ndim
    return maker.prim is matmul and maker.outs[0].aval.dtype.kind == "f" and all(axis >= rank - 2 for axis in axes)


# --- equations -----------------------------------------------------------------------------------------------------
def _total(b: Builder, terms: list[_Term]) -> Atom:
    total: Atom | None = None
    for term in terms:
        value = _value(b, term)
        total = value if total is None else b.emit(add, (total, value), {})[0]
    assert total is not None
    return total


def _value(b: Builder, term: _Term) -> Atom:
    maker = b.producer.get(term.value) if type(term.value) is Var else None
    if maker is not None and _sums_product(maker, term.axes):
        value = _product_of_sums(b, maker, term.axes)
    else:
        value = _sum(b, term.value, term.axes)
    for prim, others, how in term.then:
        if prim is mul and how is not None:
            bare = b.emit(reshape, others, {"shape": how["bare"]})[0]
            others = b.emit(broadcast, (bare,), {"shape": how["shape"], "axes": how["axes"]})
            how = None
        (value,) = b.emit(prim, (*others, value), how or {})
    return value


def _product_of_sums(b: Builder, product: Eqn, axes: tuple[int, ...]) -> Atom:
    left, right = product.ins
    rows, columns = (product.outs[0].aval.ndim - k in axes for k in (2, 1))
    batch = product.outs[0].aval.shape[:-2]
    if rows:
        left = b.emit(reshape, (_sum(b, left, (left.aval.ndim - 2,)),), {"shape": (*batch, 1, left.aval.shape[-1])})[0]
    if columns:
        inner = right.aval.shape[-2]
        right = b.emit(reshape, (_sum(b, right, (right.aval.ndim - 1,)),), {"shape": (*batch, inner, 1)})[0]
    (out,) = b.emit(matmul, (left, right), {})
    shape = tuple(n for i, n in enumerate(product.outs[0].aval.shape) if i not in axes)
    return b.emit(reshape, (out,), {"shape": shape})[0]


def _sum(b: Builder, value: Atom, axes: tuple[int, ...]) -> Atom:
    """A sum is taken where the value lies in the order in which it was computed."""
    value, perm = _unturned(b, value)
    left = [p for i, p in enumerate(perm) if i not in axes]
    (total,) = b.emit(sum_, (value,), {"axes": tuple(sorted(perm[i] for i in axes))})
    return b.emit(transpose, (total,), {"perm": tuple(sorted(left).index(p) for p in left)})[0]


def _unturned(b: Builder, value: Atom) -> tuple[Atom, tuple[int, ...]]:
    """What ``value`` is a transpose of, and the permutation that makes it."""
    perm = tuple(range(value.aval.ndim))
    while (turned := b.made_by(value, "transpose")) is not None:
        perm = tuple(turned.params["perm"][p] for p in perm)
        value = turned.ins[0]
    return value, perm


# --- factors that are the same along an axis -------------------------------------------------------------------------
def _without_spread_factors(graph: Graph) -> Graph:
    if not any(e.prim is matmul for e in graph.eqns) or not any(e.prim is broadcast for e in graph.eqns):
        return graph
    return _rewritten(graph, lambda b, eqn, ins: _of_spread_factors(b, eqn, ins) if eqn.prim is matmul else None)


def _of_spread_factors(b: Builder, product: Eqn, factors: Sequence[Atom]) -> Atom | None:
    """The product where a factor does not change along one of its axes; None where both change along all."""
    (out,) = product.outs
    last, shape = out.aval.ndim - 1, out.aval.shape
    if out.aval.dtype.kind != "f":
        return None
    left, right = factors
    for place, (axis, summed) in enumerate(((last - 1, last), (last, last - 1))):
        if (narrow := _narrowed(b, factors[place], axis)) is not None:  # its rows, or its columns, are equal
            (small,) = b.emit(matmul, (narrow, right) if place == 0 else (left, narrow), {})
            return b.emit(broadcast, (small,), {"shape": shape, "axes": ()})[0]
        if (narrow := _narrowed(b, factors[place], summed)) is not None:  # it is the same for every term of the sums
            other, along = factors[1 - place], last if place else last - 1
            total = _sum(b, other, (along,))
            kept = tuple(1 if i == along else n for i, n in enumerate(other.aval.shape))
            total = b.emit(reshape, (total,), {"shape": kept})[0]
            return b.emit(matmul, (narrow, total) if place == 0 else (total, narrow), {})[0]
    return None


def _narrowed(b: Builder, value: Atom, axis: int) -> Atom | None:
    """``value`` with one element along ``axis``, if it is the same along it: it was spread, and perhaps turned."""
    if value.aval.shape[axis] == 1:
        return None
    value, perm = _unturned(b, value)
    axis = perm[axis]
    spread = b.made_by(value, "broadcast")
    if spread is None:
        return None
    (source,), shape, added = spread.ins, spread.params["shape"], spread.params["axes"]
    kept = [i for i in range(len(shape)) if i not in added]
    if axis not in added and source.aval.shape[kept.index(axis)] != 1:
        return None
    narrow = tuple(1 if i == axis else n for i, n in enumerate(shape))
    (found,) = b.emit(broadcast, (source,), {"shape": narrow, "axes": added})
    return b.emit(transpose, (found,), {"perm": perm})[0]

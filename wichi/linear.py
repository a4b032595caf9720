"""Derivatives as linear maps at a point: ``jvp``, ``linearize`` and ``vjp``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wichi import pytree
from wichi.arguments import as_typed, input_names, leaf_aval
from wichi.errors import ArgumentError
from wichi.trace import forward, frames, reverse
from wichi.trace.evaluate import evaluate
from wichi.trace.ir import Aval, Graph
from wichi.trace.tracer import stage_graph
from wichi.traces import CompiledTrace, Runnable
from wichi.transforms import jit


def jvp(
    fn: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> tuple[Any, ...]:
    """The result of ``fn`` at ``primals`` and its change along ``tangents`` (forward mode).

    Args:
        fn: a function of ``len(primals)`` positional arguments.
        primals, tangents: sequences of trees of the same structure and shapes. Tangents of integer and bool leaves
            are ignored.
        has_aux: ``fn`` answers ``(result, aux)``, of which only the first is differentiated.

    Returns:
        ``(result, tangent of the result)``, two trees of the same structure, and ``aux`` with ``has_aux``; integer
        results have tangent zero.

    Raises:
        ArgumentError: the tangents do not fit the primals.

    >>> import numpy as np, wichi
    >>> wichi.jvp(np.sin, (0.0,), (2.0,))
    (np.float64(0.0), np.float64(2.0))
    """
    found, leaves = _traced(fn, tuple(primals))
    graph = found.run.graph
    dots = _fitting(
        "tangents of jvp", tuple(tangents), tuple(primals), input_names(fn, pytree.flatten((tuple(primals), {}))[1])
    )
    which = [i for i in range(len(leaves)) if graph.ins[i].aval.dtype.kind == "f"]
    main_tree, aux_tree = _main_and_aux(found.out_tree, has_aux)
    count = main_tree.num_leaves
    pushed = _derived(found, ("jvp", count), lambda: Runnable(_pushed(graph, which, count)))
    results = pushed([*leaves, *found.captured, *(as_typed(dots[i], graph.ins[i].aval) for i in which)])
    outs, moved = results[: len(graph.outs)], results[len(graph.outs) :]
    out_dots = _with_zeros([o.aval for o in graph.outs[:count]], moved)
    main = pytree.unflatten(main_tree, outs[:count]), pytree.unflatten(main_tree, out_dots)
    return main if aux_tree is None else (*main, pytree.unflatten(aux_tree, outs[count:]))


def linearize(fn: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The result of ``fn`` at ``primals`` and its derivative there, as a linear function of tangents.

    Returns:
        ``(result, push)``, or ``(result, push, aux)`` with ``has_aux``. ``push(*tangents)`` takes trees like the
        primals and answers one like the result. The point is evaluated once; what the derivative needs of it is kept
        by ``push``.

    >>> import numpy as np, wichi
    >>> y, push = wichi.linearize(np.sin, 0.0)
    >>> push(2.0)
    np.float64(2.0)
    """
    found, leaves = _traced(fn, primals)
    graph = found.run.graph
    which = [i for i in range(len(leaves)) if graph.ins[i].aval.dtype.kind == "f"]

    main_tree, aux_tree = _main_and_aux(found.out_tree, has_aux)
    count = main_tree.num_leaves

    def halves() -> tuple[Runnable, Runnable]:
        first, second = reverse.split(_pushed(graph, which, count), len(graph.ins), len(graph.outs))
        return Runnable(first), Runnable(second)

    first, second = _derived(found, ("linearize", count), halves)
    results = first([*leaves, *found.captured])
    outs, residuals = results[: len(graph.outs)], results[len(graph.outs) :]

    names = input_names(fn, pytree.flatten((primals, {}))[1])
    ins, of_result = [v.aval for v in graph.ins[: len(leaves)]], [o.aval for o in graph.outs[:count]]
    push = _Push(second, residuals, primals, names, ins, of_result, main_tree)
    main = pytree.unflatten(main_tree, outs[:count])
    return (main, push) if aux_tree is None else (main, push, pytree.unflatten(aux_tree, outs[count:]))


def vjp(fn: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The result of ``fn`` at ``primals`` and a function that pulls cotangents back (reverse mode).

    Returns:
        ``(result, pullback)``, or ``(result, pullback, aux)`` with ``has_aux``. ``pullback(cotangent)`` takes a tree
        like the result and answers a tuple with one gradient tree a primal. The forward pass runs once; what the
        backward pass needs of it is kept by the pullback. Gradients of integer leaves are zeros.

    Raises:
        ArgumentError: the cotangent does not fit the result.

    >>> import numpy as np, wichi
    >>> y, pullback = wichi.vjp(np.sin, 0.0)
    >>> pullback(1.0)
    (np.float64(1.0),)
    """
    found, leaves = _traced(fn, primals)
    graph = found.run.graph
    main_tree, aux_tree = _main_and_aux(found.out_tree, has_aux)
    count = main_tree.num_leaves
    first, second = _derived(found, ("vjp", count), lambda: _halves(graph, count, len(leaves)))
    results = first([*leaves, *found.captured])
    outs, residuals = results[: len(graph.outs)], results[len(graph.outs) :]
    main = pytree.unflatten(main_tree, outs[:count])

    ins, of_result = [v.aval for v in graph.ins[: len(leaves)]], [o.aval for o in graph.outs[:count]]
    pullback = _Pullback(second, residuals, main, ins, of_result, pytree.flatten(primals)[1])
    return (main, pullback) if aux_tree is None else (main, pullback, pytree.unflatten(aux_tree, outs[count:]))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Push:
    """What ``linearize`` answers: it pickles and copies, with what it keeps of the point."""

    second: Runnable
    residuals: list[Any]
    primals: tuple[Any, ...]
    names: Sequence[str]
    ins: list[Aval]
    of_result: list[Aval]
    tree: pytree.TreeDef

    def __call__(self, *tangents: Any) -> Any:
        dots = _fitting("tangents of linearize", tangents, self.primals, self.names)
        floats = [as_typed(d, a) for d, a in zip(dots, self.ins, strict=True) if a.dtype.kind == "f"]
        return pytree.unflatten(self.tree, _with_zeros(self.of_result, self.second([*self.residuals, *floats])))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Pullback:
    """What ``vjp`` answers; as ``_Push``."""

    second: Runnable
    residuals: list[Any]
    result: Any
    ins: list[Aval]
    of_result: list[Aval]
    tree: pytree.TreeDef

    def __call__(self, cotangent: Any) -> tuple[Any, ...]:
        names = ["result" + p for p in pytree.paths(pytree.flatten(self.result)[1])]
        cts = _fitting("cotangent of vjp", cotangent, self.result, names)
        floats = [as_typed(c, a) for c, a in zip(cts, self.of_result, strict=True) if a.dtype.kind == "f"]
        bars = _with_zeros(self.ins, self.second([*self.residuals, *floats]))
        gradients: tuple[Any, ...] = pytree.unflatten(self.tree, bars)
        return gradients


def _main_and_aux(tree: pytree.TreeDef, has_aux: bool) -> tuple[pytree.TreeDef, pytree.TreeDef | None]:
    """The structure of what is differentiated, and of what is passed on."""
    if not has_aux:
        return tree, None
    children = tree.children() if tree.type is tuple else []
    if len(children) != 2:
        raise ArgumentError(
            "The function must return a pair (result, aux) under has_aux=True.",
            at=frames.describe(frames.user_where()),
            fix="return result, anything_else",
        )
    return children[0], children[1]


def _pushed(graph: Graph, which: Sequence[int], count: int) -> Graph:
    """``graph`` with the tangents of the float ones of its first ``count`` outputs.

    The outputs are computed without tangents, also where an equation (a loop) answers both at once.
    """
    full = forward.jvp(graph, which)
    every, inputs = len(graph.outs), len(graph.ins)
    kept = sum(o.aval.dtype.kind == "f" for o in graph.outs[:count])

    def walk(*values: Any) -> list[Any]:
        return evaluate(graph, *values[:inputs]) + evaluate(full, *values)[every : every + kept]

    return stage_graph(walk, [v.aval for v in full.ins], full.in_names)


def _traced(fn: Callable[..., Any], primals: tuple[Any, ...]) -> tuple[CompiledTrace, list[Any]]:
    leaves, treedef = pytree.flatten((primals, {}))
    return jit(fn).find(leaves, treedef), leaves


def _derived(found: CompiledTrace, key: Any, make: Callable[[], Any]) -> Any:
    """What ``make`` made of this trace, once."""
    if key not in found.derived:
        found.derived[key] = make()
    return found.derived[key]


def _halves(graph: Graph, count: int, inputs: int) -> tuple[Runnable, Runnable]:
    """Reverse mode of the first ``count`` outputs, cut where the cotangents come in."""
    wrt = [i for i in range(inputs) if graph.ins[i].aval.dtype.kind == "f"]
    full = reverse.vjp(graph, wrt, count=count)
    first, second = reverse.split(full, len(graph.ins), len(graph.outs))
    return Runnable(first), Runnable(second)


def _fitting(what: str, given: Any, wanted: Any, names: Sequence[str]) -> list[Any]:
    """The leaves of ``given``, a tree that must have the structure and shapes of ``wanted``."""
    (leaves, tree), (models, model_tree) = pytree.flatten(given), pytree.flatten(wanted)
    at = frames.describe(frames.user_where())
    if tree != model_tree:
        raise ArgumentError(
            f"The {what} are a tree of another structure.", at=at, value=f"{tree} where {model_tree} fits"
        )
    for name, leaf, model in zip(names, leaves, models, strict=True):
        if leaf_aval(leaf).shape != leaf_aval(model).shape:
            raise ArgumentError(
                f"The {what}: {leaf_aval(leaf)} was given for {name}, which is {leaf_aval(model)}.",
                at=at,
                because="tangents and cotangents have the shapes of what they belong to",
            )
    return leaves


def _with_zeros(avals: Sequence[Aval], derivatives: Sequence[Any]) -> list[Any]:
    """The derivatives of the float values in turn; zeros for the integers between them."""
    rest = iter(derivatives)
    return [next(rest) if a.dtype.kind == "f" else np.zeros(a.shape, a.dtype)[()] for a in avals]

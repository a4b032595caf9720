"""Branches on values: ``cond`` and ``switch``. One native branch, forward and backward; only the one taken runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import wichi.numpy as wnp
from wichi import pytree
from wichi.arguments import as_typed, check_results, leaf_aval
from wichi.binding import check_callable
from wichi.errors import ArgumentError, LoopError
from wichi.ops.shaping import cast
from wichi.trace import bodies, branches, frames
from wichi.trace.evaluate import evaluate
from wichi.trace.ir import Aval, Graph, Var
from wichi.trace.primitive import aval_of
from wichi.trace.tracer import Traced, Tracer, of_its_own, stage_graph, trace

_NOTHING = object()


def cond(
    pred: Any,
    true_fun: Callable[..., Any],
    false_fun: Callable[..., Any],
    *operands: Any,
    operand: Any = _NOTHING,
) -> Any:
    """``true_fun(*operands)`` where ``pred`` holds, else ``false_fun(*operands)``. Only the branch taken runs.

    Args:
        pred: one bool, or one number, which holds unless it is 0. Known while tracing it chooses then, and the other
            branch is not looked at.
        true_fun, false_fun: answer trees of the same structure, shapes and dtypes. A Python number in one takes the
            dtype that stands in its place in the other.
        operands: trees.
        operand: one operand, as JAX also takes it.

    Under ``vmap`` with a batched ``pred`` both branches run and each entry takes its own.

    Raises:
        LoopError: the branches disagree, or ``pred`` is not one bool or number.

    >>> import numpy as np, wichi
    >>> wichi.grad(lambda x: wichi.cond(x > 0, np.sqrt, lambda x: 0.0 * x, x))(4.0)
    np.float64(0.25)
    """
    check_callable("cond", true_fun=true_fun, false_fun=false_fun)
    given = _operands("cond", operands, operand)
    aval = aval_of(pred)
    if aval.shape or aval.dtype.kind not in "biuf":
        raise LoopError(
            f"The first argument of cond must be one bool; it is {aval}.",
            at=frames.describe(frames.user_where()),
            fix="compare: wichi.cond(x > 0, ...); of an array, .any() or .all()",
        )
    if not isinstance(pred, Tracer):
        return (true_fun if bool(pred) else false_fun)(*pytree.tree_map(of_its_own, given))
    holds = pred if aval.dtype.kind == "b" else wnp.not_equal(pred, 0)
    names = ("false_fun", "true_fun")
    return _choose("cond", cast(holds, dtype=np.dtype("i8")), names, [false_fun, true_fun], given)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any, operand: Any = _NOTHING) -> Any:
    """``branches[index](*operands)``; only the branch taken runs. An index outside is moved to the nearest branch.

    As ``cond`` in all else.

    >>> import numpy as np, wichi
    >>> wichi.jit(lambda i, x: wichi.switch(i, [np.sin, np.cos, np.exp], x))(1, 0.0)
    np.float64(1.0)
    """
    branches = list(branches)
    if not branches:
        raise ArgumentError("switch needs at least one branch.", at=frames.describe(frames.user_where()))
    names = [f"branch {i}" for i in range(len(branches))]
    for name, branch in zip(names, branches, strict=True):
        check_callable("switch", **{name: branch})
    given = _operands("switch", operands, operand)
    aval = aval_of(index)
    if aval.shape or aval.dtype.kind not in "iu":
        raise LoopError(
            f"The first argument of switch must be one integer; it is {aval}.",
            at=frames.describe(frames.user_where()),
            fix="wichi.switch(i.astype(int), ...)" if aval.dtype.kind in "bf" and not aval.shape else None,
        )
    if not isinstance(index, Tracer):
        return branches[min(max(int(index), 0), len(branches) - 1)](*pytree.tree_map(of_its_own, given))
    number = wnp.clip(cast(index, dtype=np.dtype("i8")), 0, len(branches) - 1)
    return _choose("switch", number, names, branches, given)


def _operands(name: str, operands: tuple[Any, ...], operand: Any) -> tuple[Any, ...]:
    if operand is _NOTHING:
        return operands
    if operands:
        raise ArgumentError(
            f"{name}: operands were given both in place and as operand=.", at=frames.describe(frames.user_where())
        )
    return (operand,)


def _choose(
    name: str, index: Any, names: Sequence[str], functions: Sequence[Callable[..., Any]], operands: tuple[Any, ...]
) -> Any:
    leaves, tree = pytree.flatten(operands)
    avals = [leaf_aval(x)._replace(weak=False) for x in leaves]
    trees: list[pytree.TreeDef] = []
    found: list[Traced] = []
    for which, function in zip(names, functions, strict=True):

        def flat(*values: Any, which: str = which, function: Callable[..., Any] = function) -> list[Any]:
            outs, out_tree = pytree.flatten(function(*pytree.unflatten(tree, values)))
            check_results(f"{which} of {name}", outs, out_tree)
            trees.append(out_tree)
            return outs

        found.append(trace(flat, avals, name=name))
    _check_trees(name, names, trees)
    taking = _with_weak_numbers_fitted([t.graph for t in found])
    _check_types(name, names, taking, trees[0])
    # All branches take the values that any of them captured.
    captured: dict[int, Any] = {id(x): x for t in found for x in t.captured}
    graphs = []
    for graph, t in zip(taking, found, strict=True):
        own = {id(x): v for x, v in zip(t.captured, graph.ins[len(avals) :], strict=True)}
        extra = tuple(own.get(i) or Var(x.aval) for i, x in captured.items())
        graphs.append(Graph((*graph.ins[: len(avals)], *extra), graph.eqns, graph.outs))
    together, arrays = bodies.together(graphs)
    values = [as_typed(x, a) for x, a in zip(leaves, avals, strict=True)]
    outs = branches.cond(index, *values, *captured.values(), *arrays, branches=together)
    return pytree.unflatten(trees[0], outs)


def _with_weak_numbers_fitted(graphs: Sequence[Graph]) -> list[Graph]:
    """Python numbers among the results take the dtype that the others have in their place (NEP 50)."""
    wanted = [_common_dtype([g.outs[i].aval for g in graphs]) for i in range(len(graphs[0].outs))]
    fitted = []
    for graph in graphs:
        casts = [
            None if dtype is None or not out.aval.weak or out.aval.dtype == dtype else dtype
            for out, dtype in zip(graph.outs, wanted, strict=True)
        ]
        if any(casts):

            def walk(*values: Any, graph: Graph = graph, casts: Sequence[Any] = casts) -> list[Any]:
                outs = evaluate(graph, *values)
                return [
                    x if d is None else cast(x, dtype=d) if isinstance(x, Tracer) else d.type(x)
                    for x, d in zip(outs, casts, strict=True)
                ]

            graph = stage_graph(walk, [v.aval for v in graph.ins])
        fitted.append(graph)
    return fitted


def _common_dtype(avals: Sequence[Aval]) -> np.dtype[Any] | None:
    """The one dtype of what is no Python number, if all of these fit it."""
    given = {a.dtype for a in avals if not a.weak}
    numbers = "".join(a.dtype.kind for a in avals if a.weak)
    if not given:
        return np.dtype(float if "f" in numbers else int)
    (dtype, *others) = given
    fits = dtype.kind == "f" or (dtype.kind in "iu" and "f" not in numbers)
    return dtype if fits and not others else None


_BECAUSE = "which branch runs is known only when it runs, so all must answer alike"


def _check_trees(name: str, names: Sequence[str], trees: Sequence[pytree.TreeDef]) -> None:
    for which, tree in zip(names, trees, strict=True):
        if tree != trees[0]:
            path, first, other = pytree.difference(trees[0], tree, "result")
            raise LoopError(
                f"The branches of {name} answer different trees: {path} is {first} in {names[0]} and {other} in"
                f" {which}.",
                at=frames.describe(frames.user_where()),
                because=_BECAUSE,
            )


def _check_types(name: str, names: Sequence[str], graphs: Sequence[Graph], tree: pytree.TreeDef) -> None:
    for which, graph in zip(names, graphs, strict=True):
        for path, a, b in zip(pytree.paths(tree), graphs[0].outs, graph.outs, strict=True):
            if (a.aval.shape, a.aval.dtype) != (b.aval.shape, b.aval.dtype):
                raise LoopError(
                    f"The branches of {name} answer different types: result{path} is {a.aval} in {names[0]} and"
                    f" {b.aval} in {which}.",
                    at=frames.describe(frames.user_where()),
                    because=_BECAUSE,
                    fix="make them alike, for instance with .astype(...) or np.broadcast_to(...)",
                )

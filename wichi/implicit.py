"""Derivatives of solutions, not of the steps that found them: ``custom_root`` and ``custom_linear_solve``.

By the implicit function theorem: where f(x, p) = 0, dx = -(df/dx)^-1 df/dp dp, however x was found. C. Blondel et al.,
"Efficient and modular implicit differentiation", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import wichi.numpy as wnp
from wichi import pytree
from wichi.arguments import as_typed, leaf_aval
from wichi.binding import at_top, bind_graph, check_callable, is_eager, with_consts
from wichi.compiled import Transformed
from wichi.errors import ArgumentError
from wichi.linear import jvp
from wichi.trace import calls, frames
from wichi.trace.evaluate import evaluate
from wichi.trace.forward import is_float, jvp_values
from wichi.trace.ir import Aval, Graph
from wichi.trace.reverse import transposed, vjp_values
from wichi.trace.tracer import trace
from wichi.transforms import AsItIs

Values = Sequence[Any]


def custom_root(
    f: Callable[[Any], Any],
    initial_guess: Any,
    solve: Callable[[Callable[[Any], Any], Any], Any],
    tangent_solve: Callable[[Callable[[Any], Any], Any], Any],
    has_aux: bool = False,
) -> Any:
    """The root that ``solve`` finds of ``f``, with the derivative of a root in all that ``f`` closes over.

    Args:
        f: a function of a tree of floats that answers one like it; parameters come by closure.
        initial_guess: where to begin; the root does not depend on it.
        solve: ``solve(f, initial_guess) -> x`` with ``f(x) = 0``; its steps are never differentiated.
        tangent_solve: ``tangent_solve(g, y) -> z`` with ``g(z) = y`` for a linear ``g``, for instance
            ``lambda g, y: np.linalg.solve(wichi.jacobian(g)(y), y)``; for scalars ``lambda g, y: y / g(1.0)``.
        has_aux: ``solve`` answers ``(x, aux)``, and so does ``custom_root``; ``aux`` is a tree without derivative.

    Raises:
        ArgumentError: a function answers another tree, shape or dtype than it must.

    >>> import numpy as np, wichi
    >>> def root(a):
    ...     f = lambda x: x * x - a
    ...     newton = lambda f, x: wichi.fori_loop(0, 20, lambda i, x: x - f(x) / (2 * x), x)
    ...     return wichi.custom_root(f, 1.0, newton, lambda g, y: y / g(1.0))
    >>> bool(np.isclose(wichi.grad(root)(9.0), 1 / 6))
    True
    """
    leaves, tree = pytree.flatten(initial_guess)
    if is_eager(leaves):
        raise ArgumentError(
            "custom_root runs in compiled functions, not on eager Tensors.",
            at=frames.describe(frames.user_where()),
            fix="wichi.value_and_grad(function)(x.data)",
        )
    check_callable("custom_root", f=f, solve=solve, tangent_solve=tangent_solve)
    if at_top(leaves):
        return Transformed(lambda guess: custom_root(f, guess, solve, tangent_solve, has_aux), AsItIs("custom_root"))(
            initial_guess
        )
    avals = [leaf_aval(x)._replace(weak=False) for x in leaves]
    equation, held = _graph_of("custom_root", f, tree, avals)
    aux_tree: list[pytree.TreeDef] = []

    def solved(*values: Any) -> list[Any]:
        of, guess = values[: len(held)], values[len(held) :]
        answer = solve(_function(equation, of, tree), pytree.unflatten(tree, guess))
        x, aux = _with_aux("custom_root", answer, has_aux)
        extras, found_tree = pytree.flatten(aux)
        aux_tree[:] = [found_tree]
        return [*_like("custom_root", "solve", x, tree, avals), *extras]

    types = [*[leaf_aval(x)._replace(weak=False) for x in held], *avals]
    traced = trace(solved, types, name="custom_root")
    graph, more = with_consts(traced, len(types), in_front=False)

    def push(ins: Values, tangents: Values) -> tuple[Values, Values]:
        of, dots = ins[: len(held)], tangents[: len(held)]
        outs = calls.custom(*ins, graph=graph, **rule)
        x = outs[: len(avals)]
        given = [*[t if is_float(v) else None for t, v in zip(dots, of, strict=True)], *[None] * len(x)]
        moved = jvp_values(equation, [*of, *x], given)[1]
        right = [-wnp.zeros_like(v) if t is None else -t for t, v in zip(moved, x, strict=True)]

        def linear(z: Any) -> Any:
            return jvp(_function(equation, of, tree), (pytree.unflatten(tree, x),), (z,))[1]

        answer = tangent_solve(linear, pytree.unflatten(tree, right))
        return list(outs), [*_like("custom_root", "tangent_solve", answer, tree, avals), *[None] * len(outs[len(x) :])]

    operands = [*held, *[as_typed(x, a) for x, a in zip(leaves, avals, strict=True)], *more]
    rule = {"push": push, "back": None, "own": len(operands), "held": 0, "name": "custom_root"}
    outs = bind_graph(calls.custom, operands, graph=graph, **rule)
    root = pytree.unflatten(tree, outs[: len(avals)])
    return (root, pytree.unflatten(aux_tree[0], outs[len(avals) :])) if has_aux else root


def custom_linear_solve(
    matvec: Callable[[Any], Any],
    b: Any,
    solve: Callable[[Callable[[Any], Any], Any], Any],
    transpose_solve: Callable[[Callable[[Any], Any], Any], Any] | None = None,
    symmetric: bool = False,
    has_aux: bool = False,
) -> Any:
    """The ``x`` with ``matvec(x) = b`` that ``solve`` finds, with the derivative of a solution.

    Args:
        matvec: a linear function of a tree of floats that answers one like it; parameters come by closure.
        b: the right side.
        solve: ``solve(matvec, b) -> x``; its steps are never differentiated.
        transpose_solve: the same for the transpose of ``matvec``; not needed if ``symmetric``.
        symmetric: ``matvec`` is its own transpose.
        has_aux: both solves answer ``(x, aux)``, and so does this function; ``aux`` is a tree without derivative.

    Without ``transpose_solve`` forward mode works and reverse mode is an error.

    Raises:
        ArgumentError: a function answers another tree, shape or dtype than it must, or ``matvec`` is not linear.

    >>> import numpy as np, wichi
    >>> a = np.array([[2.0, 1.0], [0.0, 1.0]])
    >>> direct = lambda f, b: np.linalg.solve(wichi.jacobian(f)(b), b)
    >>> x = lambda b: wichi.custom_linear_solve(lambda v: a @ v, b, direct, direct)
    >>> wichi.jacobian(x)(np.ones(2))
    array([[ 0.5, -0.5],
           [ 0. ,  1. ]])
    """
    leaves, tree = pytree.flatten(b)
    if is_eager(leaves):
        raise ArgumentError(
            "custom_linear_solve runs in compiled functions, not on eager Tensors.",
            at=frames.describe(frames.user_where()),
        )
    check_callable("custom_linear_solve", matvec=matvec, solve=solve)
    if at_top(leaves):
        return Transformed(
            lambda b: custom_linear_solve(matvec, b, solve, transpose_solve, symmetric, has_aux),
            AsItIs("custom_linear_solve"),
        )(b)
    avals = [leaf_aval(x)._replace(weak=False) for x in leaves]
    product, held = _graph_of("custom_linear_solve", matvec, tree, avals)
    flipped = product if symmetric else _flipped(product, len(held), avals)
    operands = [*held, *[as_typed(x, a) for x, a in zip(leaves, avals, strict=True)]]
    solves = (solve, solve if symmetric else transpose_solve)
    outs, aux_tree = _linear(operands, len(held), (product, flipped), solves, tree, has_aux)
    x = pytree.unflatten(tree, outs[: len(avals)])
    return (x, pytree.unflatten(aux_tree, outs[len(avals) :])) if has_aux else x


def _linear(
    operands: Values, count: int, products: tuple[Graph, Graph], solves: tuple[Any, Any], tree: pytree.TreeDef,
    has_aux: bool,
) -> tuple[Values, pytree.TreeDef]:  # fmt: skip
    """Solve with the first product; the way back solves with the second, and so on to any order."""
    product, solve = products[0], solves[0]
    if solve is None:
        raise ArgumentError(
            "custom_linear_solve needs transpose_solve for reverse mode of a matvec that is not symmetric.",
            at=frames.describe(frames.user_where()),
            fix="transpose_solve=..., or symmetric=True",
        )
    types = [leaf_aval(x)._replace(weak=False) for x in operands]
    avals = types[count:]
    aux_tree: list[pytree.TreeDef] = []

    def solved(*values: Any) -> list[Any]:
        answer = solve(_function(product, values[:count], tree), pytree.unflatten(tree, values[count:]))
        x, aux = _with_aux("custom_linear_solve", answer, has_aux)
        extras, found_tree = pytree.flatten(aux)
        aux_tree[:] = [found_tree]
        return [*_like("custom_linear_solve", "solve", x, tree, avals), *extras]

    traced = trace(solved, types, name="custom_linear_solve")
    graph, more = with_consts(traced, len(types), in_front=False)

    def push(ins: Values, tangents: Values) -> tuple[Values, Values]:
        """A x = b: A x' = b' - A' x."""
        own, dots = ins[: len(types)], tangents[: len(types)]
        outs = calls.custom(*ins, graph=graph, **rule)
        x = outs[: len(avals)]
        moved = jvp_values(product, [*own[:count], *x], [*dots[:count], *[None] * len(x)])[1]
        right = [
            -m if t is None and m is not None else t if m is None else t - m
            for t, m in zip(dots[count:], moved, strict=True)
        ]
        right = [wnp.zeros_like(v) if r is None else r for r, v in zip(right, x, strict=True)]
        found, _ = _linear([*own[:count], *right], count, products, solves, tree, has_aux)
        return list(outs), [*found[: len(x)], *[None] * len(outs[len(x) :])]

    def back(ins: Values) -> tuple[Values, Callable[[Values], Values]]:
        own = ins[: len(types)]
        outs = calls.custom(*ins, graph=graph, **rule)
        x = outs[: len(avals)]

        def pullback(cts: Values) -> Values:
            seeds = [wnp.zeros_like(v) if c is None else c for c, v in zip(cts, x, strict=False)]
            found, _ = _linear([*own[:count], *seeds], count, products[::-1], solves[::-1], tree, has_aux)
            bars = found[: len(x)]
            floats = [i for i in range(count) if is_float(own[i])]
            moved = vjp_values(product, [*own[:count], *x], floats, lambda _: [-v for v in bars])[1]
            known = dict(zip(floats, moved, strict=True))
            return [*[known.get(i) for i in range(count)], *bars, *[None] * (len(ins) - len(types))]

        return list(outs), pullback

    given = [*operands, *more]
    rule = {"push": push, "back": back, "own": len(given), "held": 0, "name": "custom_linear_solve"}
    return bind_graph(calls.custom, given, graph=graph, **rule), aux_tree[0]


def _with_aux(name: str, answer: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return answer, None
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise ArgumentError(
            f"{name}: solve must answer a pair (x, aux) under has_aux=True.", at=frames.describe(frames.user_where())
        )
    return answer[0], answer[1]


def _like(name: str, what: str, given: Any, tree: pytree.TreeDef, avals: Sequence[Aval]) -> list[Any]:
    """The leaves of a solution, which must be like the unknown."""
    leaves, found = pytree.flatten(given)
    at = frames.describe(frames.user_where())
    if found != tree:
        path, wanted, has = pytree.difference(tree, found, "x")
        raise ArgumentError(f"{name}: {what} answers another tree than x: {path} is {has} where {wanted} fits.", at=at)
    for path, leaf, aval in zip(pytree.paths(tree), leaves, avals, strict=True):
        has_aval = leaf_aval(leaf)
        if has_aval.shape != aval.shape or (has_aval.dtype != aval.dtype and not has_aval.weak):
            raise ArgumentError(f"{name}: {what} answers {has_aval} for x{path}, which is {aval}.", at=at)
    return [as_typed(x, a) for x, a in zip(leaves, avals, strict=True)]


def _graph_of(
    name: str, f: Callable[[Any], Any], tree: pytree.TreeDef, avals: Sequence[Aval]
) -> tuple[Graph, list[Any]]:
    """``f`` as a graph of what it closes over and its argument, and what it closes over."""

    def flat(*values: Any) -> list[Any]:
        found, found_tree = pytree.flatten(f(pytree.unflatten(tree, values)))
        if found_tree != tree:
            path, takes, answers = pytree.difference(tree, found_tree, "x")
            raise ArgumentError(
                f"{name}: the function answers another tree than it takes: {path} is {answers} where {takes} fits.",
                at=frames.describe(frames.user_where()),
            )
        return found

    at = frames.describe(frames.user_where())
    for path, a in zip(pytree.paths(tree), avals, strict=True):
        if a.dtype.kind != "f":
            raise ArgumentError(
                f"{name}: the unknown x{path} is {a}; it must be floats.", at=at, fix="np.asarray(x, float)"
            )
    traced = trace(flat, avals, name=name)
    for path, a, out in zip(pytree.paths(tree), avals, traced.graph.outs, strict=True):
        if (a.shape, a.dtype) != (out.aval.shape, out.aval.dtype):
            raise ArgumentError(
                f"{name}: the function takes {a} for x{path} and answers {out.aval}; both must be alike.", at=at
            )
    return with_consts(traced, len(avals))


def _function(graph: Graph, held: Values, tree: pytree.TreeDef) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        return pytree.unflatten(tree, evaluate(graph, *held, *pytree.leaves(x)))

    return f


def _flipped(graph: Graph, count: int, avals: Sequence[Aval]) -> Graph:
    """The transpose of a graph that is linear in the inputs after the first ``count``."""

    def walk(*values: Any) -> list[Any]:
        found = transposed(lambda *v: evaluate(graph, *values[:count], *v), list(avals), values[count:])
        return [wnp.zeros_like(c) if v is None else v for v, c in zip(found, values[count:], strict=True)]

    types = [v.aval._replace(weak=False) for v in graph.ins]
    return trace(walk, types).graph

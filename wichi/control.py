"""Control flow on values: ``cond``, ``switch``, ``while_loop``, ``fori_loop``, ``scan``, ``map``, ``associative_scan``.

Each is one native loop or branch, forward and backward; nothing returns to Python between the rounds. Called on eager
Tensors they are plain Python loops, to be stepped through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import wichi.numpy as wnp
from wichi import pytree
from wichi.arguments import as_typed, leaf_aval
from wichi.binding import at_top, bind_graph, is_eager, trace_body, with_consts
from wichi.compiled import Transformed
from wichi.errors import ArgumentError, LoopError
from wichi.ops.shaping import cast
from wichi.trace import bodies, branches, frames, scans, whiles
from wichi.trace.boxed import Boxed
from wichi.trace.ir import Graph, Var
from wichi.trace.primitive import aval_of
from wichi.trace.tracer import Traced, Tracer, trace
from wichi.transforms import AsItIs


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Carry a value through a loop and stack what each round answers.

    Args:
        f: ``f(carry, x) -> (carry, y)``; the carry keeps its tree, shapes and dtypes.
        init: the first carry, a tree.
        xs: a tree of arrays; round ``i`` gets their entries ``i`` along the first axis. None: no values.
        length: the number of rounds, where ``xs`` does not tell it.
        reverse: from the last entry to the first; each ``y`` stands in the place of its ``x``.
        unroll: accepted as JAX has it and ignored: LLVM unrolls where it pays.

    Returns:
        the last carry, and the tree of stacked ``y``.

    Raises:
        LoopError: the carry changes its tree, shape or dtype, or the lengths of ``xs`` differ.

    Another length compiles nothing. In reverse mode each round keeps its carry and the results of its dear operations
    (products, transcendental functions); the rest is computed again.

    >>> import numpy as np, wichi
    >>> wichi.scan(lambda total, x: (total + x, total), 0.0, np.array([1.0, 2.0, 3.0]))
    (np.float64(6.0), array([0., 1., 3.]))
    """
    if is_eager(init, xs):
        return _scan_eagerly(f, init, xs, length, reverse)
    if at_top(init, xs):

        @functools.wraps(f)
        def whole(init: Any, xs: Any) -> Any:
            return scan(f, init, xs, length, reverse, unroll)

        return Transformed(whole, AsItIs("scan"))(init, xs)
    rows, row_tree = pytree.flatten(xs)
    rounds = _length(rows, xs, length)
    row_avals = [a._replace(shape=a.shape[1:], weak=False) for a in (leaf_aval(x) for x in rows)]
    carries, tree = pytree.flatten(init)
    y_tree: list[pytree.TreeDef] = []

    def one(*values: Any) -> tuple[list[Any], list[Any], pytree.TreeDef]:
        carry = pytree.unflatten(tree, values[: len(carries)])
        answer = f(carry, pytree.unflatten(row_tree, values[len(carries) :]))
        if type(answer) not in (tuple, list) or len(answer) != 2:
            raise LoopError(
                f"The body of scan must return a pair (carry, y); it returned {type(answer).__name__}.",
                at=frames.describe(frames.user_where()),
                fix="return carry, y  (y may be None)",
            )
        new, new_tree = pytree.flatten(answer[0])
        ys, out_tree = pytree.flatten(answer[1])
        y_tree[:] = [out_tree]
        return new, ys, new_tree

    traced, init_avals = trace_body("scan", one, init, row_avals)
    body, consts = with_consts(traced, len(carries) + len(rows))
    operands = [*consts, *[as_typed(x, a) for x, a in zip(carries, init_avals, strict=True)], *rows]
    outs = bind_graph(
        scans.scan, operands, body=body, consts=len(consts), carries=len(carries), length=rounds, reverse=bool(reverse)
    )
    return pytree.unflatten(tree, outs[: len(carries)]), pytree.unflatten(y_tree[0], outs[len(carries) :])


def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """``f`` of each entry of ``xs`` along its first axis, one after the other, stacked.

    Takes the memory of one entry at a time, where ``vmap`` takes that of the whole batch.

    >>> import numpy as np, wichi
    >>> wichi.map(lambda x: x**2, np.arange(3.0))
    array([0., 1., 4.])
    """
    return scan(lambda carry, x: (carry, f(x)), None, xs)[1]


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """``val = body_fun(i, val)`` for ``i`` from ``lower`` up to but not including ``upper``.

    Bounds known while tracing make a ``scan``; bounds that are computed make a ``while_loop``. Both can be
    differentiated in reverse (JAX: only the former).

    >>> import wichi
    >>> wichi.fori_loop(0, 5, lambda i, total: total + i, 0)
    np.int64(10)
    """
    if is_eager(init_val):
        for i in range(int(lower), int(upper)):
            init_val = body_fun(i, init_val)
        return init_val
    if isinstance(lower, Boxed) or isinstance(upper, Boxed):
        return while_loop(
            lambda state: state[0] < upper,
            lambda state: (state[0] + 1, body_fun(state[0], state[1])),
            (wnp.asarray(lower), init_val),
        )[1]
    first, count = int(lower), max(int(upper) - int(lower), 0)

    def one(state: Any, _: Any) -> Any:
        return (state[0] + 1, body_fun(state[0], state[1])), None

    return scan(one, (np.int64(first), init_val), None, count)[0][1]


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any) -> Any:
    """``while cond_fun(val): val = body_fun(val)``, on a value that keeps its tree, shapes and dtypes.

    Differs from JAX: reverse mode works. The way back runs the rounds once more and keeps the state of each on a tape
    of at most ``wichi.config.tape_bytes`` bytes. Ctrl-C interrupts a loop that does not end.

    Raises:
        LoopError: the carry changes, the condition is not one bool, or the tape is full.

    >>> import wichi
    >>> wichi.while_loop(lambda x: x < 100.0, lambda x: 2 * x, 1.0)
    np.float64(128.0)
    >>> wichi.grad(lambda x: wichi.while_loop(lambda v: v < 100.0, lambda v: 2 * v, x))(1.0)
    np.float64(128.0)
    """
    if is_eager(init_val):
        while bool(cond_fun(init_val)):
            init_val = body_fun(init_val)
        return init_val
    if at_top(init_val):

        @functools.wraps(body_fun)
        def whole(init_val: Any) -> Any:
            return while_loop(cond_fun, body_fun, init_val)

        return Transformed(whole, AsItIs("while_loop"))(init_val)
    carries, tree = pytree.flatten(init_val)

    def one(*values: Any) -> tuple[list[Any], list[Any], pytree.TreeDef]:
        new, new_tree = pytree.flatten(body_fun(pytree.unflatten(tree, values)))
        return new, [], new_tree

    traced, avals = trace_body("while_loop", one, init_val, [])
    body, consts = with_consts(traced, len(carries))

    def ask(*values: Any) -> list[Any]:
        return [cond_fun(pytree.unflatten(tree, values))]

    asked = trace(ask, avals, name="while_loop")
    found = asked.graph.outs[0].aval
    if found.shape or found.dtype != np.dtype(bool):
        raise LoopError(
            f"The condition of while_loop must be one bool; it is {found}.",
            at=frames.describe(frames.user_where()),
            fix="compare: lambda x: x < limit; of an array, .any() or .all()",
        )
    condition, tests = with_consts(asked, len(carries))
    outs = bind_graph(
        whiles.while_, [*tests, *consts, *[as_typed(x, a) for x, a in zip(carries, avals, strict=True)]],
        condition=condition, body=body, tests=len(tests), consts=len(consts),
    )  # fmt: skip
    return pytree.unflatten(tree, outs)


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """``true_fun(*operands)`` where ``pred`` holds, else ``false_fun(*operands)``. Only the branch taken runs.

    Both must answer trees of the same structure, shapes and dtypes. Under ``vmap`` with a batched ``pred`` both run
    and each entry takes its own. A ``pred`` that is known while tracing chooses then.

    Raises:
        LoopError: the branches disagree, or ``pred`` is not one bool.

    >>> import numpy as np, wichi
    >>> wichi.grad(lambda x: wichi.cond(x > 0, np.sqrt, lambda x: 0.0 * x, x))(4.0)
    np.float64(0.25)
    """
    aval = aval_of(pred)
    if aval.shape or aval.dtype != np.dtype(bool):
        raise LoopError(
            f"The first argument of cond must be one bool; it is {aval}.",
            at=frames.describe(frames.user_where()),
            fix="compare: wichi.cond(x > 0, ...)",
        )
    if not isinstance(pred, Tracer):
        return (true_fun if bool(pred) else false_fun)(*operands)
    return _choose("cond", cast(pred, dtype=np.dtype("i8")), [false_fun, true_fun], operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """``branches[index](*operands)``; only the branch taken runs. An index outside is moved to the nearest branch.

    >>> import numpy as np, wichi
    >>> wichi.jit(lambda i, x: wichi.switch(i, [np.sin, np.cos, np.exp], x))(1, 0.0)
    np.float64(1.0)
    """
    if not branches:
        raise ArgumentError("switch needs at least one branch.", at=frames.describe(frames.user_where()))
    aval = aval_of(index)
    if aval.shape or aval.dtype.kind not in "iu":
        raise LoopError(
            f"The first argument of switch must be one integer; it is {aval}.",
            at=frames.describe(frames.user_where()),
        )
    if not isinstance(index, Tracer):
        return branches[min(max(int(index), 0), len(branches) - 1)](*operands)
    number = wnp.clip(cast(index, dtype=np.dtype("i8")), 0, len(branches) - 1)
    return _choose("switch", number, branches, operands)


def associative_scan(fn: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """Running results of an associative ``fn`` along an axis: ``e0, fn(e0, e1), fn(fn(e0, e1), e2), ...``.

    Args:
        fn: takes and answers trees like ``elems``, of entries that keep their axis with extent 1.
        elems: a tree of arrays of one extent along ``axis``.
        reverse: from the end.

    JAX combines by halves, for many processors; here it is one sequential loop, the least work there is.

    >>> import numpy as np, wichi
    >>> wichi.associative_scan(np.multiply, np.array([1.0, 2.0, 3.0]))
    array([1., 2., 6.])
    """
    front = pytree.tree_map(lambda x: wnp.moveaxis(x, axis, 0), elems)
    leaves = pytree.leaves(front)
    if not leaves or leaf_aval(leaves[0]).shape[0] == 0:
        return elems
    start = -1 if reverse else 0
    first = pytree.tree_map(lambda x: wnp.moveaxis(x[start][None], 0, axis), front)
    rest = pytree.tree_map(lambda x: x[:-1] if reverse else x[1:], front)

    def one(total: Any, row: Any) -> Any:
        entry = pytree.tree_map(lambda x: wnp.moveaxis(x[None], 0, axis), row)
        total = fn(total, entry)
        return total, total

    _, found = scan(one, first, rest, reverse=reverse)

    def whole(begin: Any, stacked: Any) -> Any:
        rows = wnp.moveaxis(stacked, axis + 1 if axis >= 0 else axis, 1)[:, 0]
        begin = wnp.moveaxis(begin, axis, 0)
        return wnp.moveaxis(wnp.concatenate([rows, begin] if reverse else [begin, rows]), 0, axis)

    return pytree.tree_map(whole, first, found)


def _scan_eagerly(f: Callable[..., Any], init: Any, xs: Any, length: int | None, reverse: bool) -> tuple[Any, Any]:
    rows = pytree.leaves(xs)
    rounds = range(_length(rows, xs, length))
    ys = []
    for i in reversed(rounds) if reverse else rounds:
        init, y = f(init, pytree.tree_map(lambda x, i=i: x[i], xs))
        ys.append(y)
    if reverse:
        ys.reverse()
    return init, pytree.tree_map(lambda *row: wnp.stack(row), *ys) if ys else None


def _length(rows: Sequence[Any], xs: Any, length: int | None) -> int:
    at = frames.describe(frames.user_where())
    names = ["xs" + p for p in pytree.paths(pytree.flatten(xs)[1])]
    found: dict[str, int] = {} if length is None else {"length": int(length)}
    for name, x in zip(names, rows, strict=True):
        shape = leaf_aval(x).shape
        if not shape:
            raise LoopError(f"scan: {name} has no axis to go along.", at=at, fix="give it to the body by closure")
        found[name] = shape[0]
    if not found:
        raise ArgumentError("scan: neither xs nor length says how many rounds.", at=at, fix="scan(f, init, length=n)")
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{n}: {size}" for n, size in found.items())
        raise LoopError(f"scan: the lengths disagree ({listed}).", at=at)
    return next(iter(found.values()))


def _choose(name: str, index: Any, functions: Sequence[Callable[..., Any]], operands: Sequence[Any]) -> Any:
    leaves, tree = pytree.flatten(tuple(operands))
    avals = [leaf_aval(x)._replace(weak=False) for x in leaves]
    trees: list[pytree.TreeDef] = []
    found: list[Traced] = []
    for function in functions:

        def flat(*values: Any, function: Callable[..., Any] = function) -> list[Any]:
            outs, out_tree = pytree.flatten(function(*pytree.unflatten(tree, values)))
            trees.append(out_tree)
            return outs

        found.append(trace(flat, avals, name=name))
    _check_branches(name, found, trees)
    # All branches take the values that any of them captured.
    captured: dict[int, Any] = {id(x): x for t in found for x in t.captured}
    graphs = []
    for t in found:
        own = {id(x): v for x, v in zip(t.captured, t.graph.ins[len(avals) :], strict=True)}
        extra = tuple(own.get(i) or Var(x.aval) for i, x in captured.items())
        graphs.append(Graph((*t.graph.ins[: len(avals)], *extra), t.graph.eqns, t.graph.outs))
    together, arrays = bodies.together(graphs)
    values = [as_typed(x, a) for x, a in zip(leaves, avals, strict=True)]
    outs = branches.cond(index, *values, *captured.values(), *arrays, branches=together)
    return pytree.unflatten(trees[0], outs)


def _check_branches(name: str, found: Sequence[Traced], trees: Sequence[pytree.TreeDef]) -> None:
    at = frames.describe(frames.user_where())
    because = "which branch runs is known only when it runs, so all must answer alike"
    for number, tree in enumerate(trees):
        if tree != trees[0]:
            raise LoopError(
                f"The branches of {name} answer different trees: {trees[0]} and (branch {number}) {tree}.",
                at=at,
                because=because,
            )
    for number, t in enumerate(found):
        for path, a, b in zip(pytree.paths(trees[0]), found[0].graph.outs, t.graph.outs, strict=True):
            if (a.aval.shape, a.aval.dtype) != (b.aval.shape, b.aval.dtype):
                raise LoopError(
                    f"The branches of {name} answer different types: result{path} is {a.aval} in one and {b.aval} in"
                    f" another (branch {number}).",
                    at=at,
                    because=because,
                    fix="make them alike, for instance 0.0 * x in place of 0",
                )

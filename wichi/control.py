"""Loops on values: ``scan``, ``map``, ``fori_loop``, ``while_loop``, ``associative_scan``.

Each is one native loop, forward and backward; nothing returns to Python between the rounds. Called on eager Tensors
they are plain Python loops, to be stepped through.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import wichi.numpy as wnp
from wichi import pytree
from wichi.arguments import as_typed, check_results, leaf_aval
from wichi.batching import vmap
from wichi.binding import at_top, bind_graph, check_callable, is_eager, trace_body, with_consts
from wichi.compiled import Transformed
from wichi.errors import ArgumentError, ConditionError, LoopError
from wichi.trace import frames, scans, whiles
from wichi.trace.boxed import Boxed
from wichi.trace.primitive import aval_of
from wichi.trace.tracer import trace
from wichi.transforms import AsItIs


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """Carry a value through a loop and stack what each round answers.

    Args:
        f: ``f(carry, x) -> (carry, y)``; the carry keeps its tree, shapes and dtypes.
        init: the first carry, a tree.
        xs: a tree of arrays; round ``i`` gets their entries ``i`` along the first axis. None: no values.
        length: the number of rounds, where ``xs`` does not tell it.
        reverse: from the last entry to the first; each ``y`` stands in the place of its ``x``.
        unroll: a bool or a number of rounds, accepted as JAX has it and ignored: LLVM unrolls where it pays.

    Returns:
        the last carry, and the tree of stacked ``y``.

    Raises:
        LoopError: the carry changes its tree, shape or dtype, or the lengths of ``xs`` differ.
        ArgumentError: nothing says how many rounds, or a number is none.

    Another length compiles nothing. In reverse mode each round keeps its carry and the results of its dear operations
    (products, transcendental functions); the rest is computed again.

    >>> import numpy as np, wichi
    >>> wichi.scan(lambda total, x: (total + x, total), 0.0, np.array([1.0, 2.0, 3.0]))
    (np.float64(6.0), array([0., 1., 3.]))
    """
    check_callable("scan", f=f)
    _check_unroll("scan", unroll)
    if length is not None:
        length = _whole("scan", "length", length)
    return _scanned("scan", f, init, xs, length, reverse)


def _scanned(
    name: str,
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    length: int | None,
    reverse: bool = False,
    root: Callable[[str], str] = "carry{}".format,
) -> tuple[Any, Any]:
    """``scan`` under the name that the user called; ``root`` names a leaf of the carry by its path."""
    if is_eager(init, xs):
        return _scan_eagerly(name, f, init, xs, length, reverse)
    if at_top(init, xs):

        @functools.wraps(f)
        def whole(init: Any, xs: Any) -> Any:
            return _scanned(name, f, init, xs, length, reverse, root)

        return Transformed(whole, AsItIs(name))(init, xs)
    rows, row_tree = pytree.flatten(xs)
    rounds = _length(name, rows, xs, length)
    row_avals = [a._replace(shape=a.shape[1:], weak=False) for a in (leaf_aval(x) for x in rows)]
    carries, tree = pytree.flatten(init)
    y_tree: list[pytree.TreeDef] = []

    def one(*values: Any) -> tuple[list[Any], list[Any], pytree.TreeDef]:
        carry = pytree.unflatten(tree, values[: len(carries)])
        answer = f(carry, pytree.unflatten(row_tree, values[len(carries) :]))
        if type(answer) not in (tuple, list) or len(answer) != 2:
            raise LoopError(
                f"The body of {name} must return a pair (carry, y); it returned {type(answer).__name__}.",
                at=frames.describe(frames.user_where()),
                fix="return carry, y  (y may be None)",
            )
        check_results(f"The body of {name}", *pytree.flatten(answer))
        new, new_tree = pytree.flatten(answer[0])
        ys, out_tree = pytree.flatten(answer[1])
        y_tree[:] = [out_tree]
        return new, ys, new_tree

    traced, init_avals = trace_body(name, one, init, row_avals, root)
    body, consts = with_consts(traced, len(carries) + len(rows))
    operands = [*consts, *[as_typed(x, a) for x, a in zip(carries, init_avals, strict=True)], *rows]
    outs = bind_graph(
        scans.scan, operands, body=body, consts=len(consts), carries=len(carries), length=rounds, reverse=bool(reverse)
    )
    return pytree.unflatten(tree, outs[: len(carries)]), pytree.unflatten(y_tree[0], outs[len(carries) :])


def map(f: Callable[[Any], Any], xs: Any, *, batch_size: int | None = None) -> Any:
    """``f`` of each entry of ``xs`` along its first axis, one after the other, stacked.

    Takes the memory of one entry at a time, where ``vmap`` takes that of the whole batch.

    Args:
        f: a function of an entry, a tree like ``xs`` without the first axis.
        xs: a tree of arrays of one length.
        batch_size: how many entries are computed together, as ``vmap`` does it. None: one.

    >>> import numpy as np, wichi
    >>> wichi.map(lambda x: x**2, np.arange(3.0))
    array([0., 1., 4.])
    """
    check_callable("map", f=f)

    def one(carry: Any, x: Any) -> Any:
        return carry, f(x)

    if batch_size is None:
        return _scanned("map", one, None, xs, None)[1]
    size = _whole("map", "batch_size", batch_size, least=1)
    count = _length("map", pytree.leaves(xs), xs, None)
    whole = count - count % size
    parts = []
    if whole:
        blocks = pytree.tree_map(lambda x: wnp.reshape(x[:whole], (whole // size, size, *np.shape(x)[1:])), xs)
        found = _scanned("map", lambda carry, block: (carry, vmap(f)(block)), None, blocks, None)[1]
        parts.append(pytree.tree_map(lambda y: wnp.reshape(y, (whole, *np.shape(y)[2:])), found))
    if count % size or not count:
        parts.append(vmap(f)(pytree.tree_map(lambda x: x[whole:], xs)))
    return parts[0] if len(parts) == 1 else pytree.tree_map(lambda *ys: wnp.concatenate(ys), *parts)


def fori_loop(
    lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any, *, unroll: int | bool | None = None
) -> Any:
    """``val = body_fun(i, val)`` for ``i`` from ``lower`` up to but not including ``upper``.

    Args:
        lower, upper: integers. Known while tracing they make a ``scan``; computed ones make a ``while_loop``.
        body_fun: answers a value of the same tree, shapes and dtypes.
        init_val: a tree.
        unroll: as for ``scan``.

    Differs from JAX: both kinds can be differentiated in reverse.

    Raises:
        LoopError: the value changes.
        ArgumentError: a bound is no integer.

    >>> import wichi
    >>> wichi.fori_loop(0, 5, lambda i, total: total + i, 0)
    np.int64(10)
    """
    check_callable("fori_loop", body_fun=body_fun)
    _check_unroll("fori_loop", unroll)
    for what, bound in (("lower", lower), ("upper", upper)):
        aval = aval_of(bound)
        if aval.shape or aval.dtype.kind not in "iu":
            raise ArgumentError(
                f"fori_loop: {what} must be an integer; it is {aval}.",
                at=frames.describe(frames.user_where()),
                fix="count in integers and compute the rest: x = start + i * step",
            )
    if is_eager(init_val):
        for i in range(int(lower), int(upper)):
            init_val = body_fun(i, init_val)
        return init_val
    if isinstance(lower, Boxed) or isinstance(upper, Boxed):
        return _repeated(
            "fori_loop",
            lambda state: state[0] < upper,
            lambda state: (state[0] + 1, body_fun(state[0], state[1])),
            (wnp.asarray(lower), init_val),
            _without_counter,
        )[1]
    first, count = int(lower), max(int(upper) - int(lower), 0)

    def one(state: Any, _: Any) -> Any:
        return (state[0] + 1, body_fun(state[0], state[1])), None

    return _scanned("fori_loop", one, (np.int64(first), init_val), None, count, root=_without_counter)[0][1]


def _without_counter(path: str) -> str:
    """The name of a leaf of ``(counter, value)``."""
    return "the counter" if path == "[0]" else "val" + path.removeprefix("[1]")


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any) -> Any:
    """``while cond_fun(val): val = body_fun(val)``, on a value that keeps its tree, shapes and dtypes.

    Under ``vmap`` the loop goes on while any entry does; the others stand still.

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
    check_callable("while_loop", cond_fun=cond_fun, body_fun=body_fun)
    return _repeated("while_loop", cond_fun, body_fun, init_val)


def _repeated(
    name: str,
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    root: Callable[[str], str] = "carry{}".format,
) -> Any:
    if is_eager(init_val):
        while bool(cond_fun(init_val)):
            init_val = body_fun(init_val)
        return init_val
    if at_top(init_val):

        @functools.wraps(body_fun)
        def whole(init_val: Any) -> Any:
            return _repeated(name, cond_fun, body_fun, init_val, root)

        return Transformed(whole, AsItIs(name))(init_val)
    carries, tree = pytree.flatten(init_val)

    def one(*values: Any) -> tuple[list[Any], list[Any], pytree.TreeDef]:
        answer = body_fun(pytree.unflatten(tree, values))
        new, new_tree = pytree.flatten(answer)
        check_results(f"The body of {name}", new, new_tree)
        return new, [], new_tree

    traced, avals = trace_body(name, one, init_val, [], root)
    body, consts = with_consts(traced, len(carries))

    def ask(*values: Any) -> list[Any]:
        found, found_tree = pytree.flatten(cond_fun(pytree.unflatten(tree, values)))
        avals = [aval_of(x) for x in found]
        if not found_tree.is_leaf() or avals[0].shape or avals[0].dtype != np.dtype(bool):
            is_ = avals[0] if found_tree.is_leaf() else f"the tree {pytree.shown(found_tree)}"
            raise LoopError(
                f"The condition of {name} must be one bool; it is {is_}.",
                at=frames.describe(frames.user_where()),
                fix="compare: lambda x: x < limit; of an array, .any() or .all()",
            )
        return found

    asked = trace(ask, avals, name=name)
    condition, tests = with_consts(asked, len(carries))
    outs = bind_graph(
        whiles.while_, [*tests, *consts, *[as_typed(x, a) for x, a in zip(carries, avals, strict=True)]],
        condition=condition, body=body, tests=len(tests), consts=len(consts),
    )  # fmt: skip
    return pytree.unflatten(tree, outs)


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
    check_callable("associative_scan", fn=fn)
    leaves, tree = pytree.flatten(elems)
    sizes: dict[str, int] = {}
    for path, x in zip(pytree.paths(tree), leaves, strict=True):
        shape = leaf_aval(x).shape
        if not -len(shape) <= axis < len(shape):
            raise ArgumentError(
                f"associative_scan: elems{path} has shape {shape}, so there is no axis {axis} to go along.",
                at=frames.describe(frames.user_where()),
            )
        sizes[f"elems{path}"] = shape[axis]
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{n}: {size}" for n, size in sizes.items())
        raise LoopError(f"associative_scan: the lengths disagree ({listed}).", at=frames.describe(frames.user_where()))
    if not leaves or 0 in sizes.values():
        return elems
    front = pytree.tree_map(lambda x: wnp.moveaxis(x, axis, 0), elems)
    start = -1 if reverse else 0
    first = pytree.tree_map(lambda x: wnp.moveaxis(x[start][None], 0, axis), front)
    rest = pytree.tree_map(lambda x: x[:-1] if reverse else x[1:], front)

    def one(total: Any, row: Any) -> Any:
        entry = pytree.tree_map(lambda x: wnp.moveaxis(x[None], 0, axis), row)
        total = fn(total, entry)
        return total, total

    _, found = _scanned("associative_scan", one, first, rest, None, reverse)

    def whole(begin: Any, stacked: Any) -> Any:
        rows = wnp.moveaxis(stacked, axis + 1 if axis >= 0 else axis, 1)[:, 0]
        begin = wnp.moveaxis(begin, axis, 0)
        return wnp.moveaxis(wnp.concatenate([rows, begin] if reverse else [begin, rows]), 0, axis)

    return pytree.tree_map(whole, first, found)


def _scan_eagerly(
    name: str, f: Callable[..., Any], init: Any, xs: Any, length: int | None, reverse: bool
) -> tuple[Any, Any]:
    rounds = range(_length(name, pytree.leaves(xs), xs, length))
    ys = []
    for i in reversed(rounds) if reverse else rounds:
        init, y = f(init, pytree.tree_map(lambda x, i=i: x[i], xs))
        ys.append(y)
    if reverse:
        ys.reverse()
    return init, pytree.tree_map(lambda *row: wnp.stack(row), *ys) if ys else None


def _check_unroll(name: str, unroll: Any) -> None:
    if unroll is not None and not isinstance(unroll, bool):
        _whole(name, "unroll", unroll)


def _whole(name: str, what: str, number: Any, least: int = 0) -> int:
    """A number of rounds as an int."""
    at = frames.describe(frames.user_where())
    try:
        found = operator.index(number)
    except ConditionError:
        raise
    except TypeError:
        raise ArgumentError(f"{name}: {what} must be an integer; it is {number!r}.", at=at) from None
    if found < least:
        raise ArgumentError(f"{name}: {what}={found}, but it must be at least {least}.", at=at)
    return found


def _length(name: str, rows: Sequence[Any], xs: Any, length: int | None) -> int:
    at = frames.describe(frames.user_where())
    names = ["xs" + p for p in pytree.paths(pytree.flatten(xs)[1])]
    found: dict[str, int] = {} if length is None else {"length": length}
    for leaf, x in zip(names, rows, strict=True):
        shape = leaf_aval(x).shape
        if not shape:
            raise LoopError(
                f"{name}: {leaf} is {leaf_aval(x)}, which has no axis to go along.",
                at=at,
                fix="give it to the body by closure; a list of numbers is a tree: np.array([...])",
            )
        found[leaf] = shape[0]
    if not found:
        raise ArgumentError(f"{name}: neither xs nor length says how many rounds.", at=at, fix="length=n")
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{n}: {size}" for n, size in found.items())
        raise LoopError(f"{name}: the lengths disagree ({listed}).", at=at)
    return next(iter(found.values()))

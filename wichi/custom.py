"""Rules of the user's own: ``custom_jvp``, ``custom_vjp``; and ``checkpoint``, which trades time for memory."""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi import pytree
from wichi.arguments import as_typed, leaf_aval
from wichi.binding import bind_graph, with_consts
from wichi.errors import ArgumentError
from wichi.trace import callbacks, calls, frames
from wichi.trace.boxed import Boxed
from wichi.trace.evaluate import innermost
from wichi.trace.ir import Aval, Eqn
from wichi.trace.primitive import Product, aval_of
from wichi.trace.tracer import Traced, Tracer, is_tracing, trace
from wichi.travel import Portable, wraps


class _Custom(Portable, abc.ABC):
    """A function with a derivative of the user's own; see ``custom_jvp`` and ``custom_vjp``."""

    kind = ""
    __name__: str

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: Sequence[int] = ()) -> None:
        wraps(fun)(self)
        self.fun, self.nondiff_argnums = fun, tuple(nondiff_argnums)
        self.rules: tuple[Callable[..., Any], ...] = ()

    def _made_of(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.fun, self.nondiff_argnums)

    def _contents(self) -> Any:
        return self.rules or None

    def _take(self, contents: Any) -> None:
        self.rules = contents

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = _positional(self.fun, args, kwargs)
        if not self.rules:
            raise ArgumentError(
                f"{self.__name__} has no rule yet.",
                at=frames.describe(frames.user_where()),
                fix=f"@{self.__name__}.def{self.kind} above the rule",
            )
        for i in self.nondiff_argnums:
            if isinstance(args[i], Boxed):
                raise ArgumentError(
                    f"Argument {i} of {self.__name__} is in nondiff_argnums, but it is a value inside a transform.",
                    at=frames.describe(frames.user_where()),
                    because="such arguments are plain Python objects",
                )
        box = innermost(pytree.leaves([a for i, a in enumerate(args) if i not in self.nondiff_argnums]))
        if box is None and not is_tracing():
            return self.fun(*args)
        if box is not None and not isinstance(box, Tracer):
            return box.call(functools.update_wrapper(functools.partial(self.staged), self.fun), args, {})
        return self.staged(*args)

    def staged(self, *args: Any) -> Any:
        """The call as one equation."""
        static = {i: args[i] for i in self.nondiff_argnums}
        given = tuple(a for i, a in enumerate(args) if i not in static)
        leaves, tree = pytree.flatten(given)
        avals = [leaf_aval(x)._replace(weak=False) for x in leaves]
        out_tree: list[pytree.TreeDef] = []

        def whole(*values: Any) -> tuple[Any, ...]:
            rest = iter(pytree.unflatten(tree, values))
            return tuple(static[i] if i in static else next(rest) for i in range(len(args)))

        def flat(*values: Any) -> list[Any]:
            results, found = pytree.flatten(self.fun(*whole(*values)))
            out_tree[:] = [found]
            return results

        traced = trace(flat, avals, name=self.kind)
        for x in traced.captured:
            if x.dtype.kind == "f":
                raise ArgumentError(
                    f"{self.__name__} uses a value inside a transform that is not among its arguments.",
                    at=frames.describe(frames.user_where()),
                    value=str(x.aval),
                    because="its rule could not know of it, and the derivative would be lost",
                    fix="make it an argument",
                )
        graph, extra = with_consts(traced, len(leaves), in_front=False)
        rule = self._rule(whole, tree, out_tree[0], avals, [o.aval for o in graph.outs], tuple(static.values()))
        operands = [*[as_typed(x, a) for x, a in zip(leaves, avals, strict=True)], *extra]
        outs = bind_graph(calls.custom, operands, graph=graph, **rule)
        return pytree.unflatten(out_tree[0], outs)

    @abc.abstractmethod
    def _rule(
        self, whole: Any, tree: Any, out_tree: Any, avals: list[Aval], outs: list[Aval], static: tuple[Any, ...]
    ) -> dict[str, Any]:
        """The rule on flat values, as a parameter of the equation."""


class custom_jvp(_Custom):
    """A function whose derivative is a rule of yours, in forward mode; reverse mode transposes the rule.

    ``f.defjvp(rule)``: ``rule(primals, tangents) -> (result, tangent of the result)``, linear in the tangents. With
    ``nondiff_argnums=(i, ...)`` these arguments come first: ``rule(arg_i, ..., primals, tangents)``.

    Raises:
        ArgumentError: the rule answers other trees, shapes or dtypes than the function; or the function uses values
            from around it.

    ``wichi.testing.check_grads`` finds a rule that is numerically wrong.

    >>> import numpy as np, wichi
    >>> @wichi.custom_jvp
    ... def safe_log(x):
    ...     return np.log(x)
    >>> @safe_log.defjvp
    ... def rule(primals, tangents):
    ...     (x,), (t,) = primals, tangents
    ...     return safe_log(x), t / np.maximum(x, 0.5)
    >>> wichi.grad(safe_log)(0.1)
    np.float64(2.0)
    """

    kind = "jvp"

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        self.rules = (rule,)
        return rule

    def _rule(
        self, whole: Any, tree: Any, out_tree: Any, avals: list[Aval], outs: list[Aval], static: tuple[Any, ...]
    ) -> dict[str, Any]:
        (user,) = self.rules
        count = len(avals)

        def push(ins: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            dots = [
                np.zeros(a.shape, a.dtype) if t is None else t for t, a in zip(tangents[:count], avals, strict=True)
            ]
            answer = user(*static, pytree.unflatten(tree, ins[:count]), pytree.unflatten(tree, dots))
            if not isinstance(answer, tuple) or len(answer) != 2:
                self._wrong("must return a pair (result, tangent)")
            found = [
                self._checked(part, out_tree, outs, what)
                for part, what in zip(answer, ("result", "tangent"), strict=True)
            ]
            return found[0], [t if a.dtype.kind == "f" else None for t, a in zip(found[1], outs, strict=True)]

        return {"push": push, "back": None}

    def _checked(self, part: Any, out_tree: Any, outs: list[Aval], what: str) -> list[Any]:
        return _fitting(self.__name__, f"{what} of the jvp rule", part, out_tree, outs)

    def _wrong(self, what: str) -> None:
        raise ArgumentError(f"The jvp rule of {self.__name__} {what}.", at=frames.describe(frames.user_where()))


class custom_vjp(_Custom):
    """A function whose derivative is a pair of rules of yours, in reverse mode.

    ``f.defvjp(forward, backward)``: ``forward(*args) -> (result, residuals)``, a tree of what the way back needs;
    ``backward(residuals, cotangent) -> `` a tuple with one cotangent an argument (None: zero). With
    ``nondiff_argnums=(i, ...)`` these arguments come first in ``backward``.

    Differs from JAX: forward mode works too (the backward rule is linear, and is transposed), so ``hessian`` does.

    Raises:
        ArgumentError: as ``custom_jvp``.

    >>> import numpy as np, wichi
    >>> @wichi.custom_vjp
    ... def clipped(x):
    ...     return x
    >>> clipped.defvjp(lambda x: (x, None), lambda _, ct: (np.clip(ct, -1.0, 1.0),))
    >>> wichi.grad(lambda x: 5.0 * clipped(x))(3.0)
    np.float64(1.0)
    """

    kind = "vjp"

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        self.rules = (forward, backward)

    def _rule(
        self, whole: Any, tree: Any, out_tree: Any, avals: list[Aval], outs: list[Aval], static: tuple[Any, ...]
    ) -> dict[str, Any]:
        forward, backward = self.rules
        name, count = self.__name__, len(avals)

        def back(ins: Sequence[Any]) -> tuple[list[Any], Callable[..., Any]]:
            answer = forward(*whole(*ins[:count]))
            if not isinstance(answer, tuple) or len(answer) != 2:
                raise ArgumentError(
                    f"The forward rule of {name} must return a pair (result, residuals).",
                    at=frames.describe(frames.user_where()),
                )
            results = _fitting(name, "result of the forward rule", answer[0], out_tree, outs)

            def pullback(cts: Sequence[Any]) -> list[Any]:
                seeds = [np.zeros(a.shape, a.dtype)[()] if c is None else c for c, a in zip(cts, outs, strict=True)]
                bars = backward(*static, answer[1], pytree.unflatten(out_tree, seeds))
                children = tree.children()
                if not isinstance(bars, tuple) or len(bars) != len(children):
                    raise ArgumentError(
                        f"The backward rule of {name} must return a tuple of {len(children)}, one an argument.",
                        at=frames.describe(frames.user_where()),
                    )
                found: list[Any] = []
                for i, (bar, child) in enumerate(zip(bars, children, strict=True)):
                    part = avals[len(found) : len(found) + child.num_leaves]
                    what = f"cotangent of argument {i} of the backward rule"
                    found += [None] * child.num_leaves if bar is None else _fitting(name, what, bar, child, part)
                bars = [b if a.dtype.kind == "f" else None for b, a in zip(found, avals, strict=True)]
                return [*bars, *[None] * (len(ins) - count)]

            return results, pullback

        return {"push": None, "back": back}


def _fitting(name: str, what: str, given: Any, tree: pytree.TreeDef, avals: Sequence[Aval]) -> list[Any]:
    """The leaves of a rule's answer, which must have this tree, these shapes and dtypes."""
    leaves, found = pytree.flatten(given)
    at = frames.describe(frames.user_where())
    if found != tree:
        raise ArgumentError(f"{name}: the {what} is the tree {found} where {tree} fits.", at=at)
    answer = []
    for path, x, aval in zip(pytree.paths(tree), leaves, avals, strict=True):
        has = leaf_aval(x)
        if has.shape != aval.shape:
            raise ArgumentError(f"{name}: the {what}{path} is {has} where {aval} fits.", at=at)
        if has.dtype != aval.dtype and not has.weak and aval.dtype.kind == "f":
            raise ArgumentError(
                f"{name}: the {what}{path} is {has} where {aval} fits.", at=at, fix=f".astype(np.{aval.dtype.name})"
            )
        answer.append(as_typed(x, aval))
    return answer


def _positional(fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Keyword arguments and defaults in the places of positional ones."""
    try:
        bound = inspect.signature(fun).bind(*args, **kwargs)
    except ValueError:  # a builtin without a signature
        return args
    bound.apply_defaults()
    return bound.args


# --- primitive: a black box -----------------------------------------------------------------------------------------
class _Primitive(custom_vjp):
    """Around a black box; see ``primitive``."""

    def __init__(self, boxed: Callable[..., Any], made_from: tuple[Callable[..., Any], Any]) -> None:
        super().__init__(boxed)
        self.made_from = made_from

    def _made_of(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return primitive, self.made_from


def primitive(fun: Callable[..., Any], result: Callable[..., Any] | None = None) -> custom_vjp:
    """A Python function that wichi does not look into, with a rule of yours.

    Args:
        fun: takes and answers trees of plain arrays; it is called as it is, also from compiled code (which takes the
            GIL for it). It must be pure: how often it is called is not said.
        result: ``result(*args)`` on arrays of zeros answers a tree of the shapes and dtypes of what ``fun`` answers;
            by default that is like the first argument.

    Returns:
        a function to which ``defvjp`` (as ``custom_vjp`` has it) gives a rule; rules may call other primitives. Works
        under ``jit``, ``grad`` and ``vmap`` (entry by entry), and ``hessian`` where the rule can be differentiated.

    Raises:
        ShapeError: ``fun`` answers another shape than was promised. What ``fun`` raises passes through.

    >>> import numpy as np, wichi
    >>> cube = wichi.primitive(lambda x: np.asarray([v**3 for v in x]))
    >>> cube.defvjp(lambda x: (cube(x), x), lambda x, ct: (3 * x**2 * ct,))
    >>> wichi.grad(lambda x: np.sum(cube(x)))(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """

    @wraps(fun)
    def boxed(*args: Any) -> Any:
        leaves, tree = pytree.flatten(args)
        if not is_tracing():
            return fun(*args)
        avals = [leaf_aval(x)._replace(weak=False) for x in leaves]
        zeros = pytree.unflatten(tree, [np.zeros(a.shape, a.dtype)[()] for a in avals])
        models, out_tree = pytree.flatten(zeros[0] if result is None else result(*zeros))

        def flat(*values: Any) -> list[Any]:
            found, found_tree = pytree.flatten(fun(*pytree.unflatten(tree, values)))
            if found_tree != out_tree:
                raise ArgumentError(f"{fun.__name__} answered the tree {found_tree} where {out_tree} was promised.")
            return found

        function = callbacks.HostFunction(flat, avals, [leaf_aval(x)._replace(weak=False) for x in models])
        operands = [as_typed(x, a) for x, a in zip(leaves, avals, strict=True)]
        return pytree.unflatten(out_tree, callbacks.host(*operands, function=function))

    return _Primitive(boxed, (fun, result))


# --- checkpoint ------------------------------------------------------------------------------------------------------
def products_saveable(eqn: Eqn) -> bool:
    """A policy for ``checkpoint``: keep the results of matrix products, compute all else again."""
    return isinstance(eqn.prim.kernel, Product)


def checkpoint(fun: Callable[..., Any], policy: Callable[[Eqn], bool] | None = None) -> Callable[..., Any]:
    """``fun``, whose inner values are not kept for reverse mode but computed again on the way back.

    Args:
        fun: a function of trees.
        policy: says of an equation whether its result is kept all the same; ``wichi.products_saveable`` is one.

    Returns:
        a function that answers the same. Its memory is freed when it ends, on both ways; ``f.memory(*args)`` of the
        gradient shows what that saves.

    >>> import numpy as np, wichi
    >>> f = wichi.checkpoint(lambda x: np.sin(np.sin(x)))
    >>> bool(np.isclose(wichi.grad(f)(1.0), np.cos(np.sin(1.0)) * np.cos(1.0)))
    True
    """

    @wraps(fun)
    def apart(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = pytree.flatten((args, kwargs))
        box = innermost(leaves)
        if (box is None and not is_tracing()) or (box is not None and not isinstance(box, Tracer)):
            return fun(*args, **kwargs)
        avals = [aval_of(x)._replace(weak=False) for x in leaves]
        out_tree: list[pytree.TreeDef] = []

        def flat(*values: Any) -> list[Any]:
            given, named = pytree.unflatten(tree, values)
            results, found = pytree.flatten(fun(*given, **named))
            out_tree[:] = [found]
            return results

        traced: Traced = trace(flat, avals, name="checkpoint")
        graph, extra = with_consts(traced, len(leaves), in_front=False)
        operands = [*[as_typed(x, a) for x, a in zip(leaves, avals, strict=True)], *extra]
        return pytree.unflatten(out_tree[0], bind_graph(calls.call, operands, graph=graph, policy=policy))

    return apart

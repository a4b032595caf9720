"""Rules of the user's own: ``custom_jvp`` and ``custom_vjp``."""

from __future__ import annotations

import abc
import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

import wichi.numpy as wnp
from wichi import pytree
from wichi.arguments import as_typed, leaf_aval
from wichi.binding import as_results, bind_graph
from wichi.errors import ArgumentError
from wichi.trace import bodies, calls, frames
from wichi.trace.boxed import Boxed
from wichi.trace.captured import dependencies
from wichi.trace.evaluate import innermost
from wichi.trace.ir import Aval, Graph, Var
from wichi.trace.tracer import Tracer, is_tracing, standing_for, trace
from wichi.travel import Portable, wraps


class _Custom(Portable, abc.ABC):
    """A function with a derivative of the user's own; see ``custom_jvp`` and ``custom_vjp``."""

    kind = ""
    how = ""  # how a rule is given
    __name__: str

    def __init__(
        self, fun: Callable[..., Any], nondiff_argnums: int | Sequence[int] = (), nondiff_argnames: Sequence[str] = ()
    ) -> None:
        wraps(fun)(self)
        self.__name__ = getattr(fun, "__name__", type(fun).__name__)
        self.fun = fun
        numbers = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)
        self.nondiff_argnums = _argnums(self.__name__, fun, numbers, tuple(nondiff_argnames))
        self.rules: tuple[Callable[..., Any], ...] = ()

    def _made_of(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.fun, self.nondiff_argnums)

    def _contents(self) -> Any:
        return self.rules or None

    def _take(self, contents: Any) -> None:
        self.rules = contents

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = _positional(self.__name__, self.fun, args, kwargs)
        self._check(args)
        box = innermost(pytree.leaves([a for i, a in enumerate(args) if i not in self.nondiff_argnums]))
        if box is None and not is_tracing():
            return self.fun(*args)
        if box is not None and not isinstance(box, Tracer):
            return box.call(functools.update_wrapper(functools.partial(self.staged), self.fun), args, {})
        return self.staged(*args)

    def _check(self, args: Sequence[Any]) -> None:
        at = frames.describe(frames.user_where())
        if not self.rules:
            raise ArgumentError(f"{self.__name__} has no rule yet.", at=at, fix=self.how.format(f=self.__name__))
        for i in self.nondiff_argnums:
            if i >= len(args):
                raise ArgumentError(
                    f"{self.__name__}: nondiff_argnums has {i}, but there are {len(args)} positional arguments.", at=at
                )
            if any(isinstance(x, Boxed) for x in pytree.leaves(args[i])):
                raise ArgumentError(
                    f"Argument {i} of {self.__name__} is in nondiff_argnums, but it is a value inside a transform.",
                    at=at,
                    because="such arguments are plain Python objects",
                    fix="make it an ordinary argument with the cotangent None",
                )

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
        # What the function and its rules close over is read anew where the rules run. The rules may be differentiated
        # in it; the function may not.
        of_rules = [x for x in _closed_over(self.rules) if all(x is not y for y in traced.captured)]
        held = [*traced.captured, *of_rules]
        closed, arrays = bodies.closed(traced.graph)
        own = len(leaves)
        first = own + len(traced.captured)
        ins = (*closed.ins[:first], *[Var(x.aval) for x in of_rules], *closed.ins[first:])
        graph = Graph(ins, closed.eqns, closed.outs)
        rule = self._rule(whole, tree, out_tree[0], avals, [o.aval for o in graph.outs], tuple(static.values()))
        if held:
            rule = {n: r and _with_meanings(r, held, own) for n, r in rule.items()}
        operands = [*[as_typed(x, a) for x, a in zip(leaves, avals, strict=True)], *held, *arrays]
        outs = bind_graph(
            calls.custom, operands, graph=graph, **rule, own=own, held=len(traced.captured), name=self.__name__
        )
        return pytree.unflatten(out_tree[0], as_results(graph, outs, operands))

    @abc.abstractmethod
    def _rule(
        self, whole: Any, tree: Any, out_tree: Any, avals: list[Aval], outs: list[Aval], static: tuple[Any, ...]
    ) -> dict[str, Any]:
        """The rule on flat values, as ``push`` or ``back`` of the equation."""


class custom_jvp(_Custom):
    """A function whose derivative is a rule of yours, in forward mode; reverse mode transposes the rule.

    ``f.defjvp(rule)``: ``rule(primals, tangents) -> (result, tangent of the result)``, linear in the tangents. With
    ``nondiff_argnums=(i, ...)`` (or ``nondiff_argnames``) these arguments come first:
    ``rule(arg_i, ..., primals, tangents)``. ``f.defjvps(rule_0, rule_1, ...)`` takes one rule an argument.

    The function and its rule may close over values inside a transform, as long as no derivative in these is wanted.

    Raises:
        ArgumentError: the rule answers other trees, shapes or dtypes than the function, or is not linear; or a
            derivative is wanted in a value that the function closes over.

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
    how = "@{f}.defjvp above the rule"

    def defjvp(self, rule: Callable[..., Any], symbolic_zeros: bool = False) -> Callable[..., Any]:
        """The rule. Tangents are always arrays: ``symbolic_zeros`` must be False."""
        _no_symbolic_zeros(symbolic_zeros)
        self.rules = (rule,)
        return rule

    def defjvps(self, *rules: Callable[..., Any] | None) -> None:
        """One rule an argument: ``rule(tangent, result, *primals) -> tangent of the result``; None: it has no part.

        >>> import numpy as np, wichi
        >>> f = wichi.custom_jvp(lambda x, y: np.sin(x) * y)
        >>> f.defjvps(lambda t, out, x, y: np.cos(x) * y * t, lambda t, out, x, y: np.sin(x) * t)
        >>> wichi.grad(f, argnums=1)(0.0, 5.0)
        np.float64(0.0)
        """
        if self.nondiff_argnums:
            raise ArgumentError(
                "defjvps has no place for nondiff_argnums.",
                at=frames.describe(frames.user_where()),
                fix="give one rule with defjvp",
            )

        def together(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
            if len(rules) != len(primals):
                self._wrong(f"are {len(rules)} for {len(primals)} arguments")
            result = self(*primals)
            parts = [r(t, result, *primals) for r, t in zip(rules, tangents, strict=True) if r is not None]
            if not parts:
                return result, pytree.tree_map(wnp.zeros_like, result)
            return result, functools.reduce(lambda a, b: pytree.tree_map(wnp.add, a, b), parts)

        self.rules = (together,)

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
            if not isinstance(answer, tuple | list) or len(answer) != 2:
                self._wrong("must return a pair (result, tangent)")
            found = [
                _fitting(self.__name__, f"{what} of the jvp rule", part, out_tree, outs)
                for part, what in zip(answer, ("result", "tangent"), strict=True)
            ]
            return found[0], [t if a.dtype.kind == "f" else None for t, a in zip(found[1], outs, strict=True)]

        return {"push": push, "back": None}

    def _wrong(self, what: str) -> NoReturn:
        raise ArgumentError(f"The jvp rule of {self.__name__} {what}.", at=frames.describe(frames.user_where()))


class custom_vjp(_Custom):
    """A function whose derivative is a pair of rules of yours, in reverse mode.

    ``f.defvjp(forward, backward)``: ``forward(*args) -> (result, residuals)``, a tree of what the way back needs;
    ``backward(residuals, cotangent) -> `` a tuple with one cotangent an argument (None: zero). With
    ``nondiff_argnums=(i, ...)`` (or ``nondiff_argnames``) these arguments come first in ``backward``.

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
    how = "{f}.defvjp(forward, backward)"

    def defvjp(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        symbolic_zeros: bool = False,
        optimize_remat: bool = False,
    ) -> None:
        """The rules. Cotangents are always arrays: ``symbolic_zeros`` must be False; ``optimize_remat`` is ignored."""
        _no_symbolic_zeros(symbolic_zeros)
        self.rules = (forward, backward)

    def _rule(
        self, whole: Any, tree: Any, out_tree: Any, avals: list[Aval], outs: list[Aval], static: tuple[Any, ...]
    ) -> dict[str, Any]:
        forward, backward = self.rules
        name, count = self.__name__, len(avals)

        def back(ins: Sequence[Any]) -> tuple[list[Any], Callable[..., Any]]:
            answer = forward(*whole(*ins[:count]))
            if not isinstance(answer, tuple | list) or len(answer) != 2:
                raise ArgumentError(
                    f"The forward rule of {name} must return a pair (result, residuals).",
                    at=frames.describe(frames.user_where()),
                )
            results = _fitting(name, "result of the forward rule", answer[0], out_tree, outs)

            def pullback(cts: Sequence[Any]) -> list[Any]:
                seeds = [np.zeros(a.shape, a.dtype)[()] if c is None else c for c, a in zip(cts, outs, strict=True)]
                bars = backward(*static, answer[1], pytree.unflatten(out_tree, seeds))
                children = tree.children()
                if not isinstance(bars, tuple | list) or len(bars) != len(children):
                    raise ArgumentError(
                        f"The backward rule of {name} must return a tuple of {len(children)}, one an argument.",
                        at=frames.describe(frames.user_where()),
                        fix="return (cotangent,)  (with the comma)" if len(children) == 1 else None,
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


def _no_symbolic_zeros(asked: bool) -> None:
    if asked:
        raise ArgumentError(
            "Rules take arrays, never symbolic zeros: symbolic_zeros must be False.",
            at=frames.describe(frames.user_where()),
            because="a tangent or cotangent that is zero comes as an array of zeros, which compiles to nothing",
        )


def _argnums(name: str, fun: Callable[..., Any], numbers: tuple[int, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    """Positions counted from 0, of numbers and names."""
    if not names and all(i >= 0 for i in numbers):
        return tuple(sorted(set(numbers)))
    known = [p.name for p in inspect.signature(fun).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    for n in names:
        if n not in known:
            raise ArgumentError(f"{name} has no parameter {n!r}.", at=frames.describe(frames.user_where()))
    return tuple(sorted({*[i % len(known) for i in numbers], *map(known.index, names)}))


def _positional(name: str, fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Keyword arguments and the defaults of a Python function in the places of positional ones."""
    python = isinstance(inspect.unwrap(fun), types.FunctionType | types.MethodType | functools.partial)
    if not kwargs and not python:
        return args  # a ufunc, for instance, whose `out` and `where` are no arguments of its rule
    try:
        bound = inspect.signature(fun).bind(*args, **kwargs)
    except ValueError:  # a builtin without a signature
        return args
    if bound.kwargs:
        raise ArgumentError(
            f"{name}: {', '.join(bound.kwargs)} can only be given by keyword, and rules take arguments by position.",
            at=frames.describe(frames.user_where()),
            fix="bind it with functools.partial or a closure, or make it a positional parameter",
        )
    if python:
        bound.apply_defaults()
    return bound.args


def _closed_over(rules: Sequence[Callable[..., Any]]) -> list[Tracer]:
    """The traced values that rules close over, also in trees."""
    found: dict[int, Tracer] = {}
    for rule in rules:
        for dependency in dependencies(rule):
            value = dependency.read()
            if isinstance(value, Tracer | dict | list | tuple):
                found |= {id(x): x for x in pytree.leaves(value) if isinstance(x, Tracer) and x.run.active}
    return list(found.values())


def _with_meanings(rule: Callable[..., Any], held: Sequence[Any], own: int) -> Callable[..., Any]:
    """A rule that runs after the trace in which its closure was made: what it holds stands for operands then."""

    def run(ins: Sequence[Any], *rest: Any) -> Any:
        values = ins[own : own + len(held)]
        with standing_for(held, values):
            answer = rule(ins, *rest)
        if not callable(answer[1]):
            return answer
        results, pullback = answer

        def pulled(cts: Sequence[Any]) -> Any:
            with standing_for(held, values):
                return pullback(cts)

        return results, pulled

    return run


def _fitting(name: str, what: str, given: Any, tree: pytree.TreeDef, avals: Sequence[Aval]) -> list[Any]:
    """The leaves of a rule's answer, which must have this tree, these shapes and dtypes."""
    leaves, found = pytree.flatten(given)
    at = frames.describe(frames.user_where())
    if found != tree:
        path, has, wanted = pytree.difference(found, tree)
        raise ArgumentError(f"{name}: the {what}{path} is the tree {has} where {wanted} fits.", at=at)
    answer = []
    for path, x, aval in zip(pytree.paths(tree), leaves, avals, strict=True):
        try:
            has_aval = leaf_aval(x)
        except TypeError:
            raise ArgumentError(f"{name}: the {what}{path} is {type(x).__name__} where {aval} fits.", at=at) from None
        other_dtype = has_aval.dtype != aval.dtype and not has_aval.weak and aval.dtype.kind == "f"
        if has_aval.shape != aval.shape or other_dtype:
            raise ArgumentError(
                f"{name}: the {what}{path} is {has_aval} where {aval} fits.",
                at=at,
                fix=f".astype(np.{aval.dtype.name})" if has_aval.shape == aval.shape else None,
            )
        answer.append(as_typed(x, aval))
    return answer

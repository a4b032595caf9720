"""``checkpoint``, which trades time for memory."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

from wichi import pytree
from wichi.arguments import as_typed
from wichi.binding import as_results, bind_graph, check_callable, with_consts
from wichi.errors import ArgumentError
from wichi.trace import calls, frames
from wichi.trace.evaluate import innermost
from wichi.trace.ir import Eqn
from wichi.trace.primitive import Product, aval_of
from wichi.trace.sources import python_of
from wichi.trace.tracer import Traced, Tracer, is_tracing, trace
from wichi.travel import Portable, wraps


def products_saveable(eqn: Eqn) -> bool:
    """A policy for ``checkpoint``: keep the results of matrix products, compute all else again."""
    return isinstance(eqn.prim.kernel, Product)


def checkpoint(
    fun: Callable[..., Any],
    policy: Callable[[Eqn], bool] | None = None,
    static_argnums: int | Sequence[int] = (),
    prevent_cse: bool = True,
) -> Callable[..., Any]:
    """``fun``, whose inner values are not kept for reverse mode but computed again on the way back.

    Args:
        fun: a function of trees. It may close over values inside a transform; they are differentiated like arguments.
        policy: says of an equation whether its result is kept all the same; ``wichi.products_saveable`` is one.
            None: nothing is.
        static_argnums: positional arguments that are plain Python objects.
        prevent_cse: accepted as JAX has it and ignored: what is computed again is never joined with the original.

    Returns:
        a function that answers the same. Its memory is freed when it ends, on both ways; ``f.memory(*args)`` of the
        gradient shows what that saves.

    >>> import numpy as np, wichi
    >>> f = wichi.checkpoint(lambda x: np.sin(np.sin(x)))
    >>> bool(np.isclose(wichi.grad(f)(1.0), np.cos(np.sin(1.0)) * np.cos(1.0)))
    True
    """
    check_callable("checkpoint", fun=fun)
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
    return _Checkpointed(fun, policy, numbers)


class _Checkpointed(Portable):
    """What ``checkpoint`` answers."""

    def __init__(self, fun: Callable[..., Any], policy: Callable[[Eqn], bool] | None, numbers: tuple[int, ...]) -> None:
        wraps(fun)(self)
        self.__wrapped__ = fun
        self.policy, self.static_argnums = policy, numbers

    def _made_of(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return checkpoint, (self.__wrapped__, self.policy, self.static_argnums)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        fun = self.__wrapped__
        static = {_argument(i, len(args)): args[i] for i in self.static_argnums}
        given = tuple(a for i, a in enumerate(args) if i not in static)
        leaves, tree = pytree.flatten((given, kwargs))
        box = innermost(leaves)
        if (box is None and not is_tracing()) or (box is not None and not isinstance(box, Tracer)):
            return fun(*args, **kwargs)
        fun = python_of(fun)
        avals = [aval_of(x)._replace(weak=False) for x in leaves]
        out_tree: list[pytree.TreeDef] = []

        def flat(*values: Any) -> list[Any]:
            positional, named = pytree.unflatten(tree, values)
            rest = iter(positional)
            results, found = pytree.flatten(
                fun(*[static[i] if i in static else next(rest) for i in range(len(args))], **named)
            )
            out_tree[:] = [found]
            return results

        traced: Traced = trace(flat, avals, name="checkpoint")
        graph, extra = with_consts(traced, len(leaves), in_front=False)
        operands = [*[as_typed(x, a) for x, a in zip(leaves, avals, strict=True)], *extra]
        outs = bind_graph(calls.call, operands, graph=graph, policy=self.policy)
        return pytree.unflatten(out_tree[0], as_results(graph, outs, operands))


def _argument(i: int, count: int) -> int:
    if not -count <= i < count:
        raise ArgumentError(
            f"checkpoint: static_argnums has {i}, but there are {count} positional arguments.",
            at=frames.describe(frames.user_where()),
        )
    return i % count

"""``wichi.sparse.jacobian`` and ``hessian``: exact sparse matrices of derivatives, from a few compiled products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


from wichi import pytree
from wichi.compiled import Transformed
from wichi.config import config
from wichi.errors import ArgumentError, DtypeError
from wichi.jacobians import _in_arguments, _numbers
from wichi.linear import _traced
from wichi.sparse.plans import Plan, derive
from wichi.trace import frames
from wichi.trace.tracer import Tracer
from wichi.transforms import AsItIs, grad

@dataclass(frozen=True, eq=False)
class _Entries:
    """What a compiled call answers."""

    entries: Any
    plan: Plan = pytree.static()


class SparseDerivative:
    """A function whose answer is a sparse matrix. Made by ``wichi.sparse.jacobian`` and ``hessian``."""

    def __init__(self, fn: Callable[..., Any], argnums: int | Sequence[int], symmetric: bool) -> None:
        name = "sparse.hessian" if symmetric else "sparse.jacobian"
        if not callable(fn):
            raise ArgumentError(
                f"{name} needs a function, not {type(fn).__name__}.",
                at=frames.describe(frames.user_where()),
                fix=f"wichi.{name}(f)(x), not wichi.{name}(f(x))",
            )
        functools.update_wrapper(self, fn)
        self.__wrapped__ = fn
        self._name, self._argnums, self._symmetric = name, _numbers(argnums), symmetric
        self._entries = _entries_of(fn, self._argnums, symmetric, None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = self._found(args, kwargs)
        return found.plan.matrix(found.entries)

    def pattern(self, *args: Any, **kwargs: Any) -> Any:
        """Where the matrix can have entries: a ``csr_array`` of bool. Nothing is computed or compiled for it.

        Only shapes and dtypes of the arguments matter, unless Python branches on their values.
        """
        plan = self._plan(args, kwargs)
        return plan.matrix(np.ones(len(plan.columns), bool))

    def products(self, *args: Any, **kwargs: Any) -> int:
        """How many Jacobian-vector products (or vector-Jacobian, where these are fewer) a call computes."""
        return self._plan(args, kwargs).products

    def __repr__(self) -> str:
        return f"<wichi.{self._name} of {getattr(self, '__name__', type(self.__wrapped__).__name__)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return SparseDerivative, (self.__wrapped__, self._argnums, self._symmetric)

    def _found(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Entries:
        self._refuse_traced(args, kwargs)
        found: _Entries = self._entries(*args, **kwargs)
        if found.plan.holds():
            return found
        self._forget()
        found = self._entries(*args, **kwargs)
        return found

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        self._refuse_traced(args, kwargs)
        leaves, tree = pytree.flatten((args, kwargs))
        trace = self._entries.find(leaves, tree, guarded=config.guards)
        if trace.guards:  # which way it goes is known when it has run
            return self._found(args, kwargs).plan
        plan: Plan = pytree.unflatten(trace.out_tree, [None]).plan
        if plan.holds():
            return plan
        self._forget()
        return self._plan(args, kwargs)

    def _forget(self) -> None:
        """Trace anew: an index array that is closed over has other contents now."""
        self._entries = _entries_of(self.__wrapped__, self._argnums, self._symmetric, object())

    def _refuse_traced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(isinstance(x, Tracer) for x in pytree.leaves((args, kwargs))):
            raise ArgumentError(
                f"{self._name} was called within a transform.",
                at=frames.describe(frames.user_where()),
                because="its answer is a scipy.sparse array, which no compiled function can hold",
                fix="call it from outside; within, wichi.jvp, wichi.vjp and wichi.hvp are the products with it",
            )


def _entries_of(fn: Callable[..., Any], argnums: int | tuple[int, ...], symmetric: bool, since: Any) -> Transformed[..., Any]:
    """The compiled function from arguments to entries. ``since`` is new where older traces do not hold any more."""

    @functools.wraps(fn)
    def entries(*args: Any, **kwargs: Any) -> _Entries:
        return _traced_entries(fn, argnums, symmetric, since, args, kwargs)

    return Transformed(entries, AsItIs("sparse.hessian" if symmetric else "sparse.jacobian"))


def _traced_entries(
    fn: Callable[..., Any],
    argnums: int | tuple[int, ...],
    symmetric: bool,
    since: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> _Entries:
    name = "sparse.hessian" if symmetric else "sparse.jacobian"
    if symmetric:
        fn = grad(fn, argnums, allow_unused=True)
    of_leaves, leaves, _ = _in_arguments(fn, args, kwargs, argnums, False, name)
    found, leaves = _traced(of_leaves, tuple(leaves))
    graph, values = found.run.graph, [*leaves, *found.captured]
    for out in graph.outs:
        if out.aval.dtype.kind != "f":
            raise DtypeError(
                f"{name}: a result is {out.aval}; integers have no derivative.", at=frames.describe(frames.user_where())
            )
    answers, plan = derive(graph, values, len(leaves), symmetric, name)
    return _Entries(answers, plan)


def jacobian(fn: Callable[..., Any], argnums: int | Sequence[int] = 0) -> SparseDerivative:
    """doc"""
    return SparseDerivative(fn, argnums, False)


def hessian(fn: Callable[..., Any], argnums: int | Sequence[int] = 0) -> SparseDerivative:
    """doc"""
    return SparseDerivative(fn, argnums, True)

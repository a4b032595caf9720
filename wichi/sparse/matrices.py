"""``wichi.sparse.jacobian`` and ``hessian``: functions whose answers are sparse matrices of exact derivatives."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wichi import pytree
from wichi.compiled import Transformed
from wichi.config import config
from wichi.errors import ArgumentError, DtypeError
from wichi.sparse.plans import Plan, derive
from wichi.trace import frames, reverse
from wichi.trace.bodies import closed
from wichi.trace.evaluate import evaluate
from wichi.trace.ir import Graph, dce
from wichi.trace.tracer import Tracer, stage_graph, staged
from wichi.traces import Signature
from wichi.transforms import _scalar_result, _wrt
from wichi.travel import Portable, wraps


@dataclass(frozen=True, eq=False)
class _Entries:
    """What a compiled call answers; the plan is part of the tree of its results."""

    entries: Any
    plan: Plan = field(metadata={"static": True})


@dataclass(frozen=True, slots=True)
class _Sparse:
    """The rewrite: a function becomes that of the entries of its Jacobian or Hessian."""

    name: str
    argnums: int | tuple[int, ...]
    since: Any = None  # another object where older traces do not hold any more
    has_aux: bool = False
    donate_argnums: tuple[int, ...] = ()

    @property
    def symmetric(self) -> bool:
        return self.name == "sparse.hessian"

    def __call__(self, graph: Graph, signature: Signature) -> tuple[Graph, pytree.TreeDef]:
        if self.symmetric:
            _scalar_result(self, graph, signature)  # type: ignore[arg-type]
        wrt = _wrt(self, graph, signature)[0]  # type: ignore[arg-type]
        count = len(graph.outs) - signature.guards
        guards = dce(Graph(graph.ins, graph.eqns, graph.outs[count:]))
        function, arrays = self._function(Graph(graph.ins, graph.eqns, graph.outs[:count]), wrt)
        plans: list[Plan] = []

        def walk(*values: Any) -> list[Any]:
            entries, plan = derive(function, [*values, *map(staged, arrays)], wrt, arrays, self.symmetric, self.name)
            plans.append(plan)
            return [entries, *evaluate(guards, *values)]

        made = stage_graph(walk, [v.aval for v in graph.ins], graph.in_names)
        return made, pytree.flatten(_Entries(0, plans[0]))[1]

    def _function(self, graph: Graph, wrt: Sequence[int]) -> tuple[Graph, Sequence[np.ndarray[Any, Any]]]:
        """What the Jacobian is of. The arrays that it holds are further inputs: rules would compute with them now, and
        their contents may change until it is called."""
        at = frames.describe(frames.user_where())
        if not wrt:
            raise ArgumentError(f"{self.name}: the argument has no leaves.", at=at)
        if not graph.outs:
            raise ArgumentError(f"{self.name}: the function returns no values.", at=at)
        for out in graph.outs:
            if out.aval.dtype.kind != "f":
                raise DtypeError(f"{self.name}: a result is {out.aval}; integers have no derivative.", at=at)
        function, arrays = closed(dce(graph))
        if self.symmetric:
            full = reverse.vjp(function, wrt, [graph.outs[0].aval.dtype.type(1)])
            function = dce(Graph(full.ins, full.eqns, full.outs[1:]))
        return function, arrays


class SparseDerivative(Portable):
    """A function whose answer is a sparse matrix. Made by ``wichi.sparse.jacobian`` and ``wichi.sparse.hessian``."""

    def __init__(self, fn: Callable[..., Any], argnums: int | Sequence[int], symmetric: bool) -> None:
        name = "sparse.hessian" if symmetric else "sparse.jacobian"
        if not callable(fn):
            raise ArgumentError(
                f"{name} needs a function, not {type(fn).__name__}.",
                at=frames.describe(frames.user_where()),
                fix=f"wichi.{name}(f)(x), not wichi.{name}(f(x))",
            )
        wraps(fn)(self)
        self.__wrapped__ = fn
        self._rewrite = _Sparse(name, argnums if isinstance(argnums, int) else tuple(argnums))
        self._entries: Transformed[..., _Entries] = Transformed(fn, self._rewrite)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = self._found(args, kwargs)
        return found.plan.matrix(found.entries)

    def pattern(self, *args: Any, **kwargs: Any) -> Any:
        """Where the matrix can have entries: a ``csr_array`` of bool, for ``jac_sparsity=`` and the like.

        Only shapes and dtypes of the arguments matter, and nothing is compiled or run, unless Python branches on their
        values.
        """
        plan = self._plan(args, kwargs)
        return plan.matrix(np.ones(plan.pattern.nnz, bool))

    def products(self, *args: Any, **kwargs: Any) -> int:
        """How many products a call computes, with the Jacobian from the right or from the left."""
        return self._plan(args, kwargs).products

    def __repr__(self) -> str:
        return f"<wichi.{self._rewrite.name} of {getattr(self, '__name__', type(self.__wrapped__).__name__)}>"

    def _made_of(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return SparseDerivative, (self.__wrapped__, self._rewrite.argnums, self._rewrite.symmetric)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def _found(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Entries:
        found: _Entries = self._entries(*args, **kwargs)
        if isinstance(found.entries, Tracer):
            raise ArgumentError(
                f"{self._rewrite.name} was called on a value inside a transform.",
                at=frames.describe(frames.user_where()),
                because="its answer is a scipy.sparse array, which no compiled function can hold",
                fix="call it from outside; within, wichi.jvp, wichi.vjp and wichi.hvp are the products with it",
            )
        if not found.plan.holds():
            self._forget()
            found = self._entries(*args, **kwargs)
        return found

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        leaves, tree = pytree.flatten((args, kwargs))
        plan = self._traced_plan(leaves, tree)
        if plan is not None and not plan.holds():
            self._forget()
            plan = self._traced_plan(leaves, tree)
        return self._found(args, kwargs).plan if plan is None else plan

    def _traced_plan(self, leaves: list[Any], tree: pytree.TreeDef) -> Plan | None:
        """None where Python branches on values: which way it goes is known when it has run."""
        trace = self._entries.find(leaves, tree, guarded=config.guards)
        return None if trace.guards else pytree.unflatten(trace.out_tree, [None]).plan

    def _forget(self) -> None:
        """Trace anew from now on: an array that decided about the pattern has other contents now."""
        self._rewrite = replace(self._rewrite, since=object())
        self._entries = Transformed(self.__wrapped__, self._rewrite)


def jacobian(fn: Callable[..., Any], argnums: int | Sequence[int] = 0) -> SparseDerivative:
    """The Jacobian as a sparse matrix, from as few products as its pattern allows.

    Args:
        fn: a function of arrays with float results; vectors, usually. Trees count as the vector of all their elements,
            leaf after leaf, each in C order.
        argnums: the positional argument(s) to differentiate; the columns of several stand one after the other.

    Returns:
        a function of the same arguments that answers a ``scipy.sparse.csr_array`` of shape (elements of the result,
        elements of the argument), with sorted indices and no duplicates. ``.pattern(*args)`` is where entries can be,
        ``.products(*args)`` how many products give them all.

    The pattern comes from the traced function, for all values of the arguments at once: entries that happen to be zero
    are stored, and an entry that is not stored is zero everywhere. Indices that are constants while tracing (arrays
    that the function closes over) are exact; indices given as arguments are taken to go anywhere, so close over them:
    ``wichi.sparse.jacobian(lambda x: f(x, indices))``.

    Pattern and colouring are found once for a signature, and anew where a global or a closed-over variable is another
    object, or the contents of an index array have changed.

    Raises:
        ArgumentError: the pattern has more entries than can be held (2**25), or the call is within a transform.
        DtypeError: an integer leaf in the argument or the result.

    >>> import numpy as np, wichi
    >>> J = wichi.sparse.jacobian(lambda x: x[1:] * x[:-1])
    >>> J(np.array([1.0, 2.0, 3.0])).toarray()
    array([[2., 1., 0.],
           [0., 3., 2.]])
    >>> J.products(np.ones(10_000))
    1
    """
    return SparseDerivative(fn, argnums, symmetric=False)


def hessian(fn: Callable[..., Any], argnums: int | Sequence[int] = 0) -> SparseDerivative:
    """The matrix of second derivatives of a scalar function as a sparse matrix; see ``wichi.sparse.jacobian``.

    It comes from Hessian-vector products, one for each colour of a star colouring of its pattern, and is stored whole.

    Raises:
        NonScalarError: ``fn`` returned an array or several values.

    >>> import numpy as np, wichi
    >>> H = wichi.sparse.hessian(lambda x: np.sum((x[1:] - x[:-1]) ** 2))
    >>> H(np.zeros(3)).toarray()
    array([[ 2., -2.,  0.],
           [-2.,  4., -2.],
           [ 0., -2.,  2.]])
    """
    return SparseDerivative(fn, argnums, symmetric=True)

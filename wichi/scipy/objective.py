"""Functions of trees as functions of vectors, with their derivatives, as SciPy's solvers call them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import wichi.numpy as wnp
from wichi import pytree
from wichi.arguments import leaf_aval, refuse_leaf
from wichi.errors import ArgumentError, DtypeError
from wichi.jacobians import hessian, hvp, jacobian
from wichi.trace import frames
from wichi.trace.ir import Aval
from wichi.transforms import jit, value_and_grad
from wichi.travel import Likeness, examples

Vector = np.ndarray[Any, np.dtype[np.float64]]


class Unraveller:
    """Between a tree of float arrays and one vector of float64."""

    def __init__(self, tree: Any, what: str = "x0") -> None:
        leaves, self.tree = pytree.flatten(tree)
        self.avals = [_aval(x, f"{what}{path}") for x, path in zip(leaves, pytree.paths(self.tree), strict=True)]
        for path, aval in zip(pytree.paths(self.tree), self.avals, strict=True):
            if aval.dtype.kind != "f" and not aval.weak:
                raise DtypeError(
                    f"{what}{path} is {aval}; solvers move real numbers.",
                    at=frames.describe(frames.user_where()),
                    fix="make it a float: np.asarray(x, float)",
                )
        self.offsets = np.cumsum([0, *(a.size for a in self.avals)])

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (pytree.unflatten(self.tree, [Likeness(a) for a in self.avals]),)

    @property
    def size(self) -> int:
        return int(self.offsets[-1])

    def vector(self, tree: Any, what: str = "x0") -> Vector:
        """The vector of a tree of this structure.

        Raises:
            ArgumentError: it is another structure, or a leaf has another shape.
        """
        leaves, found = pytree.flatten(tree)
        if found != self.tree:
            raise ArgumentError(
                f"{what} is the tree {found} where {self.tree} fits.", at=frames.describe(frames.user_where())
            )
        parts = [np.broadcast_to(np.asarray(x, float), a.shape) for x, a in zip(leaves, self.avals, strict=True)]
        return np.concatenate([p.ravel() for p in parts]) if parts else np.empty(0)

    def __call__(self, vector: Any) -> Any:
        """The tree of a vector; plain or traced."""
        if len(self.avals) == 1 and self.tree.is_leaf() and self.avals[0].ndim == 1:
            return vector
        parts = [
            wnp.reshape(vector[a:b], aval.shape)
            for a, b, aval in zip(self.offsets, self.offsets[1:], self.avals, strict=False)
        ]
        return pytree.unflatten(self.tree, parts)


def _aval(x: Any, what: str) -> Aval:
    try:
        return leaf_aval(x)
    except TypeError:
        refuse_leaf(what, x)


def _again(like: Any) -> Unraveller:
    return Unraveller(examples(like))


def flat(tree: Any) -> Any:
    """A tree of results as one vector."""
    leaves = [wnp.reshape(wnp.asarray(x), (-1,)) for x in pytree.leaves(tree)]
    return leaves[0] if len(leaves) == 1 else wnp.concatenate(leaves)


class Objective:
    """A scalar function of a vector. SciPy asks for value and gradient apart; both come from one evaluation.

    ``evaluations`` counts the runs of the compiled function.
    """

    def __init__(self, f: Callable[..., Any], unravel: Unraveller, args: Sequence[Any] = ()) -> None:
        self.evaluations, self._made_from = 0, (f, unravel, args)

        def of_vector(v: Any) -> Any:
            return f(unravel(v), *args)

        self.function = of_vector
        self._both = value_and_grad(of_vector, allow_unused=True)
        self._hessian, self._last = hessian(of_vector), np.empty(0)
        self._hvp = jit(lambda v, p: hvp(of_vector, (v,), (p,)))
        self._value, self._gradient = float("nan"), np.empty(0)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_from  # workers of a solver count their own evaluations

    def _at(self, v: Vector) -> None:
        if not np.array_equal(v, self._last):
            v = np.array(v, float)  # a copy: solvers write into their vectors
            value, gradient = self._both(v)
            self.evaluations += 1
            self._last, self._value, self._gradient = v, float(value), np.asarray(gradient)

    def fun(self, v: Vector) -> float:
        self._at(v)
        return self._value

    def jac(self, v: Vector) -> Vector:
        self._at(v)
        return self._gradient.copy()

    def hess(self, v: Vector) -> Vector:
        return np.asarray(self._hessian(np.array(v, float)))

    def hessp(self, v: Vector, p: Vector) -> Vector:
        return np.asarray(self._hvp(np.array(v, float), np.array(p, float)))


class Residuals:
    """A vector function of a vector, and its Jacobian."""

    def __init__(self, f: Callable[..., Any], unravel: Unraveller, args: Sequence[Any] = ()) -> None:
        def of_vector(v: Any) -> Any:
            return flat(f(unravel(v), *args))

        self.function, self._made_from = of_vector, (f, unravel, args)
        self._value, self._jacobian = jit(of_vector), jacobian(of_vector)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_from

    def fun(self, v: Vector) -> Vector:
        return np.asarray(self._value(np.array(v, float)))

    def jac(self, v: Vector) -> Vector:
        return np.asarray(self._jacobian(np.array(v, float)))


class ForSciPy(NamedTuple):
    """Functions of a vector, the vector to begin with, and the way back to a tree."""

    fun: Callable[[Vector], float]
    jac: Callable[[Vector], Vector]
    hess: Callable[[Vector], Vector]
    hessp: Callable[[Vector, Vector], Vector]


def for_scipy(f: Callable[..., Any], x0: Any, *args: Any) -> ForSciPy:
    """``fun, jac, hess, hessp`` of a scalar function of a tree, as functions of a flat vector of float64.

    Args:
        f: ``f(tree, *args)`` answers one float.
        x0: a tree of the structure and shapes that ``f`` takes.
        args: further arguments, fixed.

    For solvers that are called directly (SciPy, iminuit, NLopt, cyipopt, ...). Value and gradient at one point come
    from one evaluation.

    >>> import numpy as np, scipy.optimize, wichi
    >>> fun, jac, hess, hessp = wichi.for_scipy(lambda x: np.sum((x - 3.0) ** 2), np.zeros(2))
    >>> scipy.optimize.minimize(fun, np.zeros(2), jac=jac, method="BFGS").x.round(6)
    array([3., 3.])
    """
    objective = Objective(f, Unraveller(x0), args)
    return ForSciPy(objective.fun, objective.jac, objective.hess, objective.hessp)

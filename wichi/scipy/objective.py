"""Functions of trees as functions of vectors, with their derivatives, as SciPy's solvers call them."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import wichi.numpy as wnp
from wichi import pytree
from wichi.arguments import leaf_aval, refuse_leaf
from wichi.errors import ArgumentError, DtypeError, NonScalarError, ShapeError
from wichi.jacobians import hessian, hvp, jacobian
from wichi.trace import frames
from wichi.trace.ir import Aval
from wichi.transforms import jit, value_and_grad
from wichi.travel import Likeness, examples

Vector = np.ndarray[Any, np.dtype[np.float64]]


class Unraveller:
    """Between a tree of float arrays and one vector of float64. Made by ``unraveller``."""

    def __init__(self, tree: pytree.TreeDef, avals: tuple[Aval, ...]) -> None:
        self.tree, self.avals = tree, avals
        self.offsets = np.cumsum([0, *(a.size for a in avals)])

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
        """The tree of a vector; plain or traced.

        Raises:
            ShapeError: it is no vector of as many numbers.
        """
        shape = leaf_aval(vector).shape
        if shape != (self.size,):
            raise ShapeError(
                f"An array of shape {shape} was given where x0 has {self.size} numbers.",
                at=frames.describe(frames.user_where()),
                because="the function was made for vectors like the one that x0 makes",
            )
        if self.is_vector:
            return vector
        parts = [
            wnp.reshape(vector[a:b], aval.shape)
            for a, b, aval in zip(self.offsets, self.offsets[1:], self.avals, strict=False)
        ]
        return pytree.unflatten(self.tree, parts)

    def plain(self, vector: Any) -> Any:
        """The tree of an array, with 0-d leaves as NumPy's scalars."""
        tree = self(np.asarray(vector, float))
        return pytree.tree_map(lambda x: x[()] if isinstance(x, np.ndarray) and not x.ndim else x, tree)

    @property
    def is_vector(self) -> bool:
        """Whether the tree is the vector itself."""
        return len(self.avals) == 1 and self.tree.is_leaf() and self.avals[0].ndim == 1

    @property
    def names(self) -> list[str]:
        """A name for each number: ``a``, ``b[1]``, ``layers[0].w[2, 3]``."""
        found = []
        for path, aval in zip(pytree.paths(self.tree), self.avals, strict=True):
            name = re.sub(r"^\['(\w+)'\]|^\.", r"\1", path) or "x"
            name = name if not name.startswith("[") else f"x{name}"
            places = itertools.product(*map(range, aval.shape))
            found += [f"{name}[{', '.join(map(str, place))}]" if place else name for place in places]
        return found


def unraveller(tree: Any, what: str = "x0") -> Unraveller:
    """The one of trees like this. Equal trees have the same one, by which functions made with it find their traces.

    Raises:
        DtypeError: a leaf is no float.
        ArgumentError: a leaf is no number.
    """
    leaves, treedef = pytree.flatten(tree)
    names = [f"{what}{path}" for path in pytree.paths(treedef)]
    avals = tuple(_aval(x, name) for x, name in zip(leaves, names, strict=True))
    for name, aval in zip(names, avals, strict=True):
        if aval.dtype.kind != "f" and not aval.weak:
            raise DtypeError(
                f"{name} is {aval}; solvers move real numbers.",
                at=frames.describe(frames.user_where()),
                fix="make it a float: np.asarray(x, float)",
            )
    return _unraveller(treedef, avals)


_unraveller = functools.lru_cache(maxsize=256)(Unraveller)


def _aval(x: Any, what: str) -> Aval:
    try:
        return leaf_aval(x)
    except TypeError:
        refuse_leaf(what, x)


def _again(like: Any) -> Unraveller:
    return unraveller(examples(like))


def flat(tree: Any) -> Any:
    """A tree of results as one vector."""
    leaves = [wnp.reshape(wnp.asarray(x), (-1,)) for x in pytree.leaves(tree)]
    if not leaves:
        raise ArgumentError(
            "The function answers no numbers.",
            at=frames.describe(frames.user_where()),
            because="its result is None or an empty tree",
            fix="return an array, a number, or a tree of them",
        )
    return leaves[0] if len(leaves) == 1 else wnp.concatenate(leaves)


def _named_like(f: Callable[..., Any], of_vector: Callable[..., Any]) -> str:
    """Gives a function of vectors the name of the user's, for messages."""
    name = getattr(f, "__name__", type(f).__name__)
    of_vector.__name__ = name
    return str(name)


class Objective:
    """A scalar function of a vector. SciPy asks for value and gradient apart; both come from one evaluation.

    ``evaluations`` counts the runs of the compiled function.
    """

    def __init__(self, f: Callable[..., Any], unravel: Unraveller, args: Sequence[Any] = (), start: Any = None) -> None:
        self.evaluations, self._made_from = 0, (f, unravel, args, start)
        self.unravel, self.start = unravel, start

        def of_vector(v: Any) -> Any:
            return f(unravel(v), *args)

        self.function, self._name = of_vector, _named_like(f, of_vector)
        self._both = value_and_grad(of_vector, allow_unused=True)
        self._alone, self._hessian = jit(of_vector), hessian(of_vector)
        self._hvp = jit(lambda v, p: hvp(of_vector, (v,), (p,)))
        # The last point with its value and gradient, replaced as a whole: solvers may ask from several threads.
        self._last: tuple[bytes, float, Vector] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_from  # workers of a solver count their own evaluations

    def _at(self, v: Any) -> tuple[float, Vector]:
        v = np.array(v, float)  # a copy: solvers write into their vectors
        key, last = v.tobytes(), self._last  # by bits: a function may tell 0.0 from -0.0
        if last is None or key != last[0]:
            value, gradient = self._both(v)
            self.evaluations += 1
            last = self._last = (key, float(value), np.asarray(gradient))
        return last[1], last[2]

    def fun(self, v: Vector) -> float:
        return self._at(v)[0]

    def jac(self, v: Vector) -> Vector:
        return self._at(v)[1].copy()

    def hess(self, v: Vector) -> Vector:
        return np.asarray(self._hessian(np.array(v, float)))

    def hessp(self, v: Vector, p: Vector) -> Vector:
        return np.asarray(self._hvp(np.array(v, float), np.array(p, float)))

    def value(self, v: Vector) -> float:
        """The value alone, for methods that ask for no gradient."""
        found = self._alone(np.array(v, float))
        self.evaluations += 1
        if not isinstance(found, np.generic):
            what = f"{leaf_aval(found)}" if isinstance(found, np.ndarray) else f"the tree {found!r}"
            raise NonScalarError(
                f"minimize needs a scalar; {self._name} returned {what}.",
                at=frames.describe(frames.user_where()),
                fix="reduce it, for instance with .sum() or .mean()",
            )
        return float(found)


class Residuals:
    """A vector function of a vector, and its Jacobian.

    ``evaluations`` and ``jacobians`` count the runs of the compiled functions.
    """

    def __init__(self, f: Callable[..., Any], unravel: Unraveller, args: Sequence[Any] = ()) -> None:
        def of_vector(v: Any) -> Any:
            return flat(f(unravel(v), *args))

        self.function, self._made_from, self._name = of_vector, (f, unravel, args), _named_like(f, of_vector)
        self._count, self.evaluations, self.jacobians = -1, 0, 0
        self._value, self._jacobian = jit(of_vector), jacobian(of_vector)
        # At the last points, for solvers that ask twice. What solvers get are copies, which some write into.
        self._last_value: tuple[bytes, Vector] = (b"", np.empty(0))
        self._last_jacobian: tuple[bytes, Vector] = (b"", np.empty(0))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_from

    def fun(self, v: Vector) -> Vector:
        v = np.array(v, float)
        key, last = v.tobytes(), self._last_value
        if key != last[0]:
            last = self._last_value = (key, self._of_one_length(self._value(v)))
            self.evaluations += 1
        return last[1].copy()

    def jac(self, v: Vector) -> Vector:
        v = np.array(v, float)
        key, last = v.tobytes(), self._last_jacobian
        if key != last[0]:
            last = self._last_jacobian = (key, self._of_one_length(self._jacobian(v)))
            self.jacobians += 1
        return last[1].copy()

    def _of_one_length(self, found: Vector) -> Vector:
        if self._count not in (-1, len(found)):
            raise ShapeError(
                f"{self._name} answered {self._count} numbers before, and {len(found)} now.",
                at=frames.describe(frames.user_where()),
                because="solvers need as many numbers at each point",
                fix="put zeros where there is nothing: np.where(condition, residual, 0.0)",
            )
        self._count = len(found)
        return found


class ForSciPy(NamedTuple):
    """Functions of a vector. ``x0`` is the vector to begin with, ``tree(v)`` the way back, ``names`` its entries'."""

    fun: Callable[[Vector], float]
    jac: Callable[[Vector], Vector]
    hess: Callable[[Vector], Vector]
    hessp: Callable[[Vector, Vector], Vector]

    @property
    def _objective(self) -> Objective:
        return self.fun.__self__  # type: ignore[attr-defined, no-any-return]

    @property
    def x0(self) -> Vector:
        """The vector of the tree that was given."""
        return self._objective.unravel.vector(self._objective.start)

    def tree(self, v: Any) -> Any:
        """The tree of a vector."""
        return self._objective.unravel.plain(v)

    @property
    def names(self) -> list[str]:
        """A name for each entry of the vector, of its place in the tree."""
        return self._objective.unravel.names

    @property
    def evaluations(self) -> int:
        """How often the compiled function ran for ``fun`` and ``jac``."""
        return self._objective.evaluations


def for_scipy(f: Callable[..., Any], x0: Any, *args: Any) -> ForSciPy:
    """``fun, jac, hess, hessp`` of a scalar function of a tree, as functions of a flat vector of float64.

    Args:
        f: ``f(tree, *args)`` answers one float.
        x0: a tree of the structure and shapes that ``f`` takes.
        args: further arguments, fixed.

    Returns:
        the four functions, which also have ``x0`` (the vector of the tree), ``tree(v)`` (the tree of a vector),
        ``names`` (one an entry) and ``evaluations`` as attributes.

    Raises:
        ShapeError: when one of them is called with another number of parameters.

    For solvers that are called directly (SciPy, iminuit, NLopt, cyipopt, ...). Value and gradient at one point come
    from one evaluation, also where a solver asks for them from several threads.

    >>> import numpy as np, scipy.optimize, wichi
    >>> made = wichi.for_scipy(lambda p: np.sum((p["a"] - 3.0) ** 2) + p["b"] ** 2, {"a": np.zeros(2), "b": 1.0})
    >>> found = scipy.optimize.minimize(made.fun, made.x0, jac=made.jac, method="BFGS")
    >>> made.names, made.tree(found.x)["a"].round(6)
    (['a[0]', 'a[1]', 'b'], array([3., 3.]))
    """
    unravel = unraveller(x0)
    objective = Objective(f, unravel, args, x0)
    return ForSciPy(objective.fun, objective.jac, objective.hess, objective.hessp)

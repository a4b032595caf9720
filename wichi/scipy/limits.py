"""Bounds and constraints of trees, as SciPy takes them: of vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wichi import pytree
from wichi.errors import ArgumentError
from wichi.jacobians import hvp
from wichi.scipy.objective import Residuals, Unraveller, Vector, unraveller
from wichi.trace import frames
from wichi.transforms import jit


@dataclass(frozen=True)
class NonlinearConstraint:
    """``lb <= fun(x) <= ub`` for a function of the tree; bounds are trees like its result, or numbers.

    ``lb`` and ``ub`` may have None for no bound. ``options`` are SciPy's further ones, such as ``keep_feasible``.

    >>> import numpy as np, wichi
    >>> inside = wichi.scipy.optimize.NonlinearConstraint(lambda p: p["x"] ** 2 + p["y"] ** 2, None, 2.0)
    >>> f = lambda p: p["x"] + p["y"]
    >>> found = wichi.scipy.optimize.minimize(f, {"x": 0.5, "y": 0.0}, method="SLSQP", constraints=inside)
    >>> {name: round(float(v), 4) for name, v in found.x.items()}
    {'x': -1.0, 'y': -1.0}
    """

    fun: Callable[[Any], Any]
    lb: Any
    ub: Any
    options: dict[str, Any] = field(default_factory=dict)


# --- bounds ----------------------------------------------------------------------------------------------------------
def of_minimize(bounds: Any, unravel: Unraveller) -> Any:
    """Two trees, a ``Bounds`` of SciPy's, or its pairs of numbers, as ``Bounds``."""
    from scipy import optimize

    if isinstance(bounds, optimize.Bounds):
        return bounds
    pairs = _pairs(bounds, unravel)
    trees = None
    if isinstance(bounds, tuple | list) and len(bounds) == 2:
        trees = [_spread(bound, unravel, side) for side, bound in enumerate(bounds)]
    if pairs is not None and trees is not None and all(t is not None for t in trees):
        raise _error(
            "bounds can be read as two trees like x0 and as pairs of numbers.",
            "make x0 an array, or give scipy.optimize.Bounds([lowest, ...], [highest, ...])",
        )
    if pairs is not None:
        return optimize.Bounds(*pairs)
    if trees is None or any(t is None for t in trees):
        raise _error("bounds must be two trees like x0, or numbers.", 'bounds=({"a": 0.0, "b": None}, None)')
    return optimize.Bounds(*trees)


def of_least_squares(bounds: Any, unravel: Unraveller) -> Any:
    """Two trees, as two vectors; or a ``Bounds`` of SciPy's. Of a vector they may be lists, as SciPy has it."""
    from scipy import optimize

    if isinstance(bounds, optimize.Bounds):
        return bounds
    if isinstance(bounds, tuple | list) and len(bounds) == 2:
        given = [np.array(b, float) if unravel.is_vector and isinstance(b, tuple | list) else b for b in bounds]
        trees = [_spread(bound, unravel, side) for side, bound in enumerate(given)]
        if all(t is not None for t in trees):
            return tuple(trees)
    raise _error("bounds must be two trees like x0, or numbers.", 'bounds=({"a": 0.0, "b": None}, None)')


def scale_of(scale: Any, unravel: Unraveller) -> Any:
    """SciPy's ``x_scale``: a word, a number, or a tree like ``x0`` as a vector."""
    if isinstance(scale, str) or np.isscalar(scale):
        return scale
    found = _spread(np.array(scale, float) if isinstance(scale, tuple | list) else scale, unravel, 1)
    if found is None:
        raise _error("x_scale must be a tree like x0, or a number.", "x_scale=1.0")
    return found


def _pairs(bounds: Any, unravel: Unraveller) -> tuple[Vector, Vector] | None:
    """SciPy's form of bounds, ``[(lowest, highest), ...]`` with one pair a number; None where it is another."""
    if not isinstance(bounds, tuple | list | np.ndarray) or len(bounds) != unravel.size:
        return None
    if not unravel.is_vector and any(a.shape for a in unravel.avals):
        return None  # its numbers have no order that a user would count in
    if isinstance(bounds, np.ndarray):
        bounds = bounds.tolist() if bounds.shape == (unravel.size, 2) else ()
    if not all(isinstance(p, tuple | list) and len(p) == 2 and all(map(_is_limit, p)) for p in bounds):
        return None
    lower, upper = ([np.inf * sign if p[k] is None else float(p[k]) for p in bounds] for k, sign in ((0, -1), (1, 1)))
    return (np.array(lower), np.array(upper)) if len(bounds) else None


def _is_limit(x: Any) -> bool:
    return x is None or (np.isscalar(x) and not isinstance(x, str | bytes))


def _spread(bound: Any, unravel: Unraveller, side: int) -> Vector | None:
    """The vector of a tree above ``x0``, with no limit where it has None; None if it is no such tree."""
    missing = np.inf if side else -np.inf
    whole = pytree.unflatten(unravel.tree, [np.zeros(a.shape) for a in unravel.avals])
    try:
        above = pytree.spread_prefix(bound, whole)
        parts = [
            np.broadcast_to(missing if b is None else np.asarray(b, float), a.shape).ravel()
            for b, a in zip(above, unravel.avals, strict=True)
        ]
    except (TypeError, ValueError):
        return None
    return np.concatenate(parts)


def _error(what: str, fix: str) -> ArgumentError:
    return ArgumentError(what, at=frames.describe(frames.user_where()), fix=fix)


# --- constraints -----------------------------------------------------------------------------------------------------
def constraints_of(given: Any, unravel: Unraveller, x0: Any, with_hessian: bool) -> list[Any]:
    """Ours and SciPy's dicts, whose functions see trees, with exact derivatives; others of SciPy's as they are."""
    if isinstance(given, dict | NonlinearConstraint) or not isinstance(given, Sequence):
        given = [given]
    made = []
    for c in given:
        if isinstance(c, NonlinearConstraint):
            made.append(_nonlinear(c, unravel, x0, with_hessian))
        elif isinstance(c, dict):
            made.append(_of_dict(c, unravel))
        else:
            made.append(c)
    return made


def _of_dict(c: dict[str, Any], unravel: Unraveller) -> dict[str, Any]:
    """``{"type": "eq" or "ineq", "fun": f}``, as SLSQP and COBYLA know them."""
    if not callable(c.get("fun")):
        raise _error("A constraint has no function.", '{"type": "ineq", "fun": lambda p: p["a"] - 1.0}')
    values = Residuals(c["fun"], unravel, tuple(c.get("args", ())))
    made = {k: v for k, v in c.items() if k != "args"} | {"fun": values.fun}
    return made if "jac" in c else made | {"jac": values.jac}


def _nonlinear(c: NonlinearConstraint, unravel: Unraveller, x0: Any, with_hessian: bool) -> Any:
    from scipy import optimize

    values = Residuals(c.fun, unravel)
    of_vector = values.function
    value = jit(lambda v: c.fun(unravel(v)))(unravel.vector(x0))
    result = unraveller(value, "the result of a constraint")

    def weighted(v: Any, weights: Any) -> Any:
        return np.sum(of_vector(v) * weights)

    curvature = jit(lambda v, w, p: hvp(lambda u: weighted(u, w), (v,), (p,)))

    def hess(v: Any, weights: Any) -> Any:
        from scipy.sparse.linalg import LinearOperator

        n = len(v)
        return LinearOperator((n, n), lambda p: curvature(np.array(v, float), np.array(weights, float), np.ravel(p)))

    limits = [_spread(b, result, side) for side, b in enumerate((c.lb, c.ub))]
    if any(limit is None for limit in limits):
        raise _error(
            "lb and ub of a constraint must be trees like the result of its function, or numbers.",
            "NonlinearConstraint(fun, 0.0, None)",
        )
    return optimize.NonlinearConstraint(
        values.fun, *limits, jac=values.jac, **({"hess": hess} if with_hessian else {}), **c.options
    )

"""``scipy.optimize`` with exact derivatives and trees: ``minimize``, ``least_squares``, ``curve_fit``, ``root``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wichi import pytree
from wichi.arguments import leaf_aval
from wichi.errors import ArgumentError
from wichi.jacobians import hvp, jacobian
from wichi.scipy.objective import Objective, Residuals, Unraveller, flat
from wichi.trace import frames
from wichi.transforms import jit

_WITHOUT_DERIVATIVES = frozenset({"nelder-mead", "powell", "cobyla", "cobyqa"})
_WITH_HESSIAN = frozenset({"dogleg", "trust-exact"})
_WITH_PRODUCTS = frozenset({"newton-cg", "trust-ncg", "trust-krylov", "trust-constr"})


@dataclass(frozen=True)
class NonlinearConstraint:
    """``lb <= fun(x) <= ub`` for a function of the tree; bounds are trees like its result, or numbers."""

    fun: Callable[[Any], Any]
    lb: Any
    ub: Any
    options: dict[str, Any] = field(default_factory=dict)


def minimize(
    f: Callable[..., Any],
    x0: Any,
    args: Sequence[Any] = (),
    method: str | None = None,
    bounds: tuple[Any, Any] | None = None,
    constraints: NonlinearConstraint | Sequence[NonlinearConstraint] = (),
    **options: Any,
) -> Any:
    """``scipy.optimize.minimize`` of a scalar function of a tree, with the derivatives that the method asks for.

    Args:
        f: ``f(tree, *args)`` answers one float.
        x0: where to begin, a tree of floats.
        args: further arguments of ``f``.
        method: SciPy's; None: its own choice.
        bounds: two trees like ``x0`` (or numbers), lower and upper; None in them: no bound.
        constraints: of ``wichi.scipy.optimize.NonlinearConstraint``.
        options: everything else, handed on (``tol``, ``options``, ``callback``, ...); a callback sees vectors.

    Returns:
        SciPy's ``OptimizeResult``, with ``x`` and ``jac`` as trees; ``nfev`` and ``njev`` count as SciPy counts,
        ``evaluations`` the runs of the compiled function.

    >>> import numpy as np, wichi
    >>> f = lambda p: (p["a"] - 1.0) ** 2 + np.sum(p["b"] ** 2)
    >>> found = wichi.scipy.optimize.minimize(f, {"a": 3.0, "b": np.ones(2)})
    >>> round(float(found.x["a"]), 5)
    1.0
    """
    from scipy import optimize

    unravel = Unraveller(x0)
    objective = Objective(f, unravel, tuple(args))
    name = (method or "").lower()
    if name not in _WITHOUT_DERIVATIVES:
        options.setdefault("jac", objective.jac)
    if name in _WITH_HESSIAN:
        options.setdefault("hess", objective.hess)
    if name in _WITH_PRODUCTS:
        options.setdefault("hessp", objective.hessp)
    if bounds is not None:
        options["bounds"] = optimize.Bounds(*(_bound(b, unravel, side) for side, b in enumerate(bounds)))
    given = [constraints] if isinstance(constraints, NonlinearConstraint) else list(constraints)
    if given:
        options["constraints"] = [_constraint(c, unravel, x0, name == "trust-constr") for c in given]
    found = optimize.minimize(objective.fun, unravel.vector(x0), method=method, **options)
    found.x = _plain(unravel(found.x))
    if getattr(found, "jac", None) is not None and np.shape(found.jac) == (unravel.size,):
        found.jac = _plain(unravel(np.asarray(found.jac)))
    found.evaluations = objective.evaluations
    return found


def _plain(tree: Any) -> Any:
    """0-d leaves as NumPy's scalars."""
    return pytree.tree_map(lambda x: x[()] if isinstance(x, np.ndarray) and not x.ndim else x, tree)


def _bound(bound: Any, unravel: Unraveller, side: int) -> Any:
    missing = np.inf if side else -np.inf
    if bound is None or np.isscalar(bound):
        return np.full(unravel.size, missing if bound is None else np.asarray(bound, float))
    whole = pytree.unflatten(unravel.tree, [np.zeros(a.shape) for a in unravel.avals])
    try:
        spread = pytree.spread_prefix(bound, whole)
    except ValueError:
        raise ArgumentError(
            "bounds must be two trees like x0, or numbers.",
            at=frames.describe(frames.user_where()),
            fix='bounds=({"a": 0.0, "b": None}, None)',
        ) from None
    parts = [
        np.broadcast_to(missing if b is None else np.asarray(b, float), a.shape).ravel()
        for b, a in zip(spread, unravel.avals, strict=True)
    ]
    return np.concatenate(parts)


def _constraint(c: NonlinearConstraint, unravel: Unraveller, x0: Any, with_hessian: bool) -> Any:
    from scipy import optimize

    shape = jit(lambda v: flat(c.fun(unravel(v))))
    size = leaf_aval(shape(unravel.vector(x0))).size

    def of_vector(v: Any) -> Any:
        return flat(c.fun(unravel(v)))

    def weighted(v: Any, weights: Any) -> Any:
        return np.sum(of_vector(v) * weights)

    slopes = jacobian(of_vector)
    curvature = jit(lambda v, w, p: hvp(lambda u: weighted(u, w), (v,), (p,)))

    def hess(v: Any, weights: Any) -> Any:
        from scipy.sparse.linalg import LinearOperator

        n = len(v)
        return LinearOperator((n, n), lambda p: curvature(np.array(v, float), np.array(weights, float), np.ravel(p)))

    lower, upper = (
        np.broadcast_to(np.asarray(flat(b) if not np.isscalar(b) else b, float), (size,)) for b in (c.lb, c.ub)
    )
    return optimize.NonlinearConstraint(
        lambda v: np.asarray(shape(np.array(v, float))),
        lower,
        upper,
        jac=lambda v: np.asarray(slopes(np.array(v, float))),
        **({"hess": hess} if with_hessian else {}),
        **c.options,
    )


def least_squares(residual: Callable[..., Any], x0: Any, args: Sequence[Any] = (), **options: Any) -> Any:
    """``scipy.optimize.least_squares`` of a function from a tree to a tree of residuals, with its exact Jacobian.

    ``bounds`` are two trees like ``x0``, or numbers. The result's ``x`` is a tree; ``cov`` is the covariance of the
    flat parameters by the Gauss-Newton approximation, scaled by the residual variance as ``curve_fit`` does.

    >>> import numpy as np, wichi
    >>> t = np.linspace(0, 1, 20)
    >>> residual = lambda p: p["a"] * np.exp(-p["k"] * t) - 2 * np.exp(-3 * t)
    >>> found = wichi.scipy.optimize.least_squares(residual, {"a": 1.0, "k": 1.0})
    >>> round(float(found.x["k"]), 6)
    3.0
    """
    from scipy import optimize

    unravel = Unraveller(x0)
    residuals = Residuals(residual, unravel, tuple(args))
    if "bounds" in options:
        options["bounds"] = tuple(_bound(b, unravel, side) for side, b in enumerate(options["bounds"]))
    options.setdefault("jac", residuals.jac)
    found = optimize.least_squares(residuals.fun, unravel.vector(x0), **options)
    freedom = max(len(found.fun) - unravel.size, 1)
    found.cov = np.linalg.pinv(found.jac.T @ found.jac) * 2 * found.cost / freedom
    found.x = _plain(unravel(found.x))
    return found


def curve_fit(
    f: Callable[..., Any], xdata: Any, ydata: Any, p0: Sequence[float] | None = None, **options: Any
) -> tuple[Any, Any]:
    """``scipy.optimize.curve_fit`` of ``f(x, *parameters)``, with the exact Jacobian.

    >>> import numpy as np, wichi
    >>> x = np.linspace(0, 4, 50)
    >>> model = lambda x, a, b: a * np.exp(-b * x)
    >>> best, cov = wichi.scipy.optimize.curve_fit(model, x, 2.5 * np.exp(-1.3 * x), (1.0, 1.0))
    >>> best.round(6)
    array([2.5, 1.3])
    """
    import inspect

    from scipy import optimize

    if p0 is None:
        count = len(inspect.signature(f).parameters) - 1
        p0 = [1.0] * count
    size = len(p0)
    value = jit(lambda x, v: f(x, *[v[i] for i in range(size)]))
    slopes = jacobian(lambda v, x: f(x, *[v[i] for i in range(size)]))

    def fun(x: Any, *parameters: float) -> Any:
        return np.asarray(value(x, np.array(parameters)))

    def jac(x: Any, *parameters: float) -> Any:
        return np.asarray(slopes(np.array(parameters), x))

    best, cov = optimize.curve_fit(fun, np.asarray(xdata, float), ydata, p0=p0, jac=jac, **options)[:2]
    return best, cov


def root(f: Callable[..., Any], x0: Any, args: Sequence[Any] = (), method: str = "hybr", **options: Any) -> Any:
    """``scipy.optimize.root`` of a function from a tree to a tree of as many numbers, with its exact Jacobian."""
    from scipy import optimize

    unravel = Unraveller(x0)
    residuals = Residuals(f, unravel, tuple(args))
    found = optimize.root(residuals.fun, unravel.vector(x0), jac=residuals.jac, method=method, **options)
    found.x = _plain(unravel(found.x))
    return found

"""``scipy.optimize`` with exact derivatives and trees: ``minimize``, ``least_squares``, ``curve_fit``, ``root``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.errors import ArgumentError
from wichi.jacobians import jacobian
from wichi.scipy import limits
from wichi.scipy.limits import NonlinearConstraint
from wichi.scipy.objective import Objective, Residuals, Unraveller, Vector, unraveller
from wichi.trace import frames
from wichi.transforms import jit

__all__ = ["NonlinearConstraint", "curve_fit", "least_squares", "minimize", "root"]

_WITHOUT_DERIVATIVES = frozenset({"nelder-mead", "powell", "cobyla", "cobyqa"})
_WITH_HESSIAN = frozenset({"dogleg", "trust-exact"})
_WITH_PRODUCTS = frozenset({"newton-cg", "trust-ncg", "trust-krylov", "trust-constr"})
_ROOTS_WITH_JACOBIAN = frozenset({"hybr", "lm"})


def minimize(
    f: Callable[..., Any],
    x0: Any,
    args: Sequence[Any] = (),
    method: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable[..., Any] | None = None,
    **options: Any,
) -> Any:
    """``scipy.optimize.minimize`` of a scalar function of a tree, with the derivatives that the method asks for.

    Args:
        f: ``f(tree, *args)`` answers one float.
        x0: where to begin, a tree of floats.
        args: further arguments of ``f``.
        method: SciPy's, or a function as SciPy takes it; None: SciPy's own choice.
        bounds: two trees like ``x0`` (or numbers), lower and upper; None in them: no bound. A
            ``scipy.optimize.Bounds``, and SciPy's pairs, one a number, are taken too.
        constraints: of ``wichi.scipy.optimize.NonlinearConstraint``, or dicts as SciPy takes them; their functions see
            trees. Other objects of SciPy's, such as ``LinearConstraint``, are of the flat vector.
        callback: called as SciPy does, with trees in place of vectors.
        options: everything else, handed on (``tol``, ``options``, ...).

    Returns:
        SciPy's ``OptimizeResult``, with ``x`` and ``jac`` as trees (``hess``, ``hess_inv`` are of the flat vector);
        ``nfev`` and ``njev`` count as SciPy counts, ``evaluations`` the runs of the compiled function. Where SciPy
        ends early with a result (``StopIteration`` in a callback, ``maxiter``), so does this.

    Raises:
        NonScalarError: ``f`` answers an array.
        DtypeError: a leaf of ``x0`` is no float.
        ArgumentError: bounds or constraints that do not fit ``x0``.

    nan and infinity are handed to the solver as they are. Exceptions of ``f`` and of the callback pass through.

    >>> import numpy as np, wichi
    >>> f = lambda p: (p["a"] - 1.0) ** 2 + np.sum(p["b"] ** 2)
    >>> found = wichi.scipy.optimize.minimize(f, {"a": 3.0, "b": np.ones(2)})
    >>> round(float(found.x["a"]), 5)
    1.0
    """
    from scipy import optimize

    unravel = unraveller(x0)
    objective = Objective(f, unravel, tuple(args))
    name = method.lower() if isinstance(method, str) else ""
    fun = objective.value if name in _WITHOUT_DERIVATIVES else objective.fun
    if options.get("jac") is True:
        raise ArgumentError(
            "minimize: jac=True means that f answers its gradient too.",
            at=frames.describe(frames.user_where()),
            because="the gradient is taken of f, which must answer one float",
            fix="leave jac out, and return the value alone",
        )
    if name not in _WITHOUT_DERIVATIVES:
        options.setdefault("jac", objective.jac)
    if name in _WITH_HESSIAN or callable(method):
        options.setdefault("hess", objective.hess)
    if name in _WITH_PRODUCTS or callable(method):
        options.setdefault("hessp", objective.hessp)
    if bounds is not None:
        options["bounds"] = limits.of_minimize(bounds, unravel)
    if not (isinstance(constraints, tuple | list) and not constraints):
        options["constraints"] = limits.constraints_of(constraints, unravel, x0, name == "trust-constr")
    if callback is not None:
        options["callback"] = _of_trees(callback, unravel)
    found = optimize.minimize(fun, unravel.vector(x0), method=method, **options)
    return _with_trees(found, unravel, evaluations=objective.evaluations)


def least_squares(
    residual: Callable[..., Any],
    x0: Any,
    args: Sequence[Any] = (),
    bounds: Any = None,
    callback: Callable[..., Any] | None = None,
    **options: Any,
) -> Any:
    """``scipy.optimize.least_squares`` of a function from a tree to a tree of residuals, with its exact Jacobian.

    Args:
        residual: ``residual(tree, *args)`` answers a tree of floats, as many at each point.
        x0: where to begin, a tree of floats.
        args: further arguments of ``residual``.
        bounds: two trees like ``x0``, or numbers; None in them: no bound. Of a vector also as SciPy takes them.
        callback: called as SciPy does, with trees in place of vectors.
        options: everything else, handed on (``method``, ``loss``, ``x_scale`` which may be a tree, ...).

    Returns:
        SciPy's result with ``x`` as a tree. ``cov`` is the covariance of the flat parameters by the Gauss-Newton
        approximation, scaled by the variance of the residuals as ``curve_fit`` does it: infinite where the Jacobian
        has not full rank, or there are not more residuals than parameters. ``evaluations`` and ``jacobians`` count
        the runs of the compiled functions.

    Raises:
        DtypeError: a leaf of ``x0`` is no float.
        ShapeError: ``residual`` answers another number of residuals than before.
        ArgumentError: bounds that do not fit ``x0``.

    >>> import numpy as np, wichi
    >>> t = np.linspace(0, 1, 20)
    >>> residual = lambda p: p["a"] * np.exp(-p["k"] * t) - 2 * np.exp(-3 * t)
    >>> found = wichi.scipy.optimize.least_squares(residual, {"a": 1.0, "k": 1.0})
    >>> round(float(found.x["k"]), 6)
    3.0
    """
    from scipy import optimize

    unravel = unraveller(x0)
    residuals = Residuals(residual, unravel, tuple(args))
    if bounds is not None:
        options["bounds"] = limits.of_least_squares(bounds, unravel)
    if options.get("x_scale") is not None:
        options["x_scale"] = limits.scale_of(options["x_scale"], unravel)
    if callback is not None:
        options["callback"] = _of_trees(callback, unravel)
    options.setdefault("jac", residuals.jac)
    found = optimize.least_squares(residuals.fun, unravel.vector(x0), **options)
    found.cov = _covariance(found)
    return _with_trees(found, unravel, evaluations=residuals.evaluations, jacobians=residuals.jacobians)


def curve_fit(f: Callable[..., Any], xdata: Any, ydata: Any, p0: Any = None, **options: Any) -> Any:
    """``scipy.optimize.curve_fit`` of ``f(x, *parameters)``, with the exact Jacobian.

    Args:
        f: ``f(xdata, *parameters)`` answers values like ``ydata``.
        xdata, ydata: as SciPy takes them; ``xdata`` may also be a tree of arrays.
        p0: where to begin, one number a parameter; None: as SciPy does. A dict goes to ``f`` by its keywords, may
            have arrays in it, and then the best parameters come as a dict, and ``bounds`` are two trees.
        options: SciPy's others (``sigma``, ``absolute_sigma``, ``bounds``, ``method``, ``full_output``, ...).

    Returns:
        ``(best, cov)``, or SciPy's five results with ``full_output``; of a dict ``cov`` is in the order of sorted keys.

    >>> import numpy as np, wichi
    >>> x = np.linspace(0, 4, 50)
    >>> model = lambda x, a, b: a * np.exp(-b * x)
    >>> best, cov = wichi.scipy.optimize.curve_fit(model, x, 2.5 * np.exp(-1.3 * x), (1.0, 1.0))
    >>> best.round(6)
    array([2.5, 1.3])
    """
    from scipy import optimize

    unravel = unraveller(p0, "p0") if isinstance(p0, dict) else None

    def model(x: Any, v: Any) -> Any:
        if unravel is not None:
            return f(x, **unravel(v))
        return f(x, *[v[i] for i in range(v.shape[0])])

    value, slopes = jit(model), jacobian(model, argnums=1)

    def fun(x: Any, *parameters: float) -> Any:
        return np.asarray(value(x, np.array(parameters)))

    def jac(x: Any, *parameters: float) -> Any:
        return np.asarray(slopes(x, np.array(parameters)))

    if unravel is not None:
        p0 = unravel.vector(p0, "p0")
        if options.get("bounds") is not None:
            options["bounds"] = limits.of_least_squares(options["bounds"], unravel)
    elif p0 is None:
        fun.__signature__ = inspect.signature(f)  # type: ignore[attr-defined]  # SciPy counts parameters by it
    if hasattr(xdata, "__array__"):
        xdata = np.asarray(xdata, float)
    found = optimize.curve_fit(fun, xdata, ydata, p0=p0, jac=jac, **options)
    return found if unravel is None else (unravel.plain(found[0]), *found[1:])


def root(
    f: Callable[..., Any],
    x0: Any,
    args: Sequence[Any] = (),
    method: str = "hybr",
    callback: Callable[..., Any] | None = None,
    **options: Any,
) -> Any:
    """``scipy.optimize.root`` of a function from a tree to a tree of as many numbers, with its exact Jacobian.

    Args:
        f: ``f(tree, *args)`` answers a tree of as many floats as ``x0`` has.
        x0: where to begin, a tree of floats.
        args: further arguments of ``f``.
        method: SciPy's; "hybr" and "lm" use the Jacobian.
        callback: ``callback(x, f)`` with a tree and SciPy's vector, of the methods that have one.
        options: everything else, handed on (``tol``, ``options``).

    Returns:
        SciPy's result with ``x`` as a tree; ``evaluations`` and ``jacobians`` count the runs of the compiled functions.

    Raises:
        ArgumentError: ``f`` answers another number of values than ``x0`` has.

    >>> import wichi
    >>> found = wichi.scipy.optimize.root(lambda p: (p["x"] ** 2 - p["y"], p["y"] - 4.0), {"x": 1.0, "y": 1.0})
    >>> round(float(found.x["x"]), 9)
    2.0
    """
    from scipy import optimize

    unravel = unraveller(x0)
    start, equations = unravel.vector(x0), Residuals(f, unravel, tuple(args))
    count = len(equations.fun(start))
    if count != len(start):
        raise ArgumentError(
            f"root: the function answers {count} numbers, and x0 has {len(start)}.",
            at=frames.describe(frames.user_where()),
            because="a root of as many equations as unknowns is sought",
            fix="wichi.scipy.optimize.least_squares",
        )
    if method in _ROOTS_WITH_JACOBIAN:
        options.setdefault("jac", equations.jac)
    if callback is not None:
        options["callback"] = _of_trees(callback, unravel)
    found = optimize.root(equations.fun, start, method=method, **options)
    return _with_trees(found, unravel, evaluations=equations.evaluations, jacobians=equations.jacobians)


def _with_trees(found: Any, unravel: Unraveller, **more: Any) -> Any:
    """SciPy's result with trees in it."""
    for key in ("x", "jac", "grad"):
        if np.shape(found.get(key)) == (unravel.size,):
            found[key] = unravel.plain(found[key])
    found.update(more)
    return found


def _of_trees(callback: Callable[..., Any], unravel: Unraveller) -> Callable[..., Any]:
    """A callback with the parameters by which SciPy chooses how to call it."""

    def seen(result: Any) -> Any:
        return _with_trees(type(result)(result), unravel)

    try:
        names = set(inspect.signature(callback).parameters)
    except (TypeError, ValueError):  # a builtin
        names = set()
    if names == {"intermediate_result"}:

        def of_result(intermediate_result: Any) -> Any:
            return callback(intermediate_result=seen(intermediate_result))

        return of_result

    def of_vector(x: Any, *rest: Any) -> Any:
        return callback(unravel.plain(x), *[seen(r) if isinstance(r, dict) else r for r in rest])

    return of_vector


def _covariance(found: Any) -> Vector:
    """By the singular values of the Jacobian, as ``curve_fit`` does it."""
    count, size = found.jac.shape
    dense = found.jac.toarray() if hasattr(found.jac, "toarray") else np.asarray(found.jac)
    unknown: Vector = np.full((size, size), np.inf)
    if count <= size or not np.isfinite(dense).all():
        return unknown
    _, s, rows = np.linalg.svd(dense, full_matrices=False)
    if s.size and s[-1] <= np.finfo(float).eps * count * s[0]:
        return unknown
    cov: Vector = (rows.T / s**2) @ rows * (2 * found.cost / (count - size))
    return cov

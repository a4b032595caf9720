"""``scipy.integrate.solve_ivp`` with the exact Jacobian, for stiff equations, and of trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi import pytree
from wichi.errors import ArgumentError
from wichi.jacobians import jacobian
from wichi.scipy.objective import Unraveller, Vector, flat, unraveller
from wichi.trace import frames
from wichi.transforms import jit

_IMPLICIT = frozenset({"Radau", "BDF", "LSODA"})


def solve_ivp(
    fun: Callable[..., Any],
    t_span: tuple[float, float],
    y0: Any,
    method: Any = "Radau",
    args: Sequence[Any] = (),
    events: Any = None,
    **options: Any,
) -> Any:
    """``scipy.integrate.solve_ivp`` of ``fun(t, y, *args)``, compiled, with its exact Jacobian for implicit methods.

    Args:
        fun: answers a tree like ``y``.
        t_span: from where to where.
        y0: the state at the start, a vector or a tree of floats.
        method: SciPy's. The default is Radau, for it is with stiff equations that a Jacobian pays.
        args: further arguments of ``fun`` and of the events.
        events: as SciPy takes them; they see ``y`` as ``fun`` does.
        options: everything else, handed on (``t_eval``, ``dense_output``, ``rtol``, ...).

    Returns:
        SciPy's result. Of a tree, ``y`` is a tree whose leaves have the times as their last axis; ``y_events`` and
        ``sol`` are of the flat vector.

    Raises:
        DtypeError: a leaf of ``y0`` is no float.
        ArgumentError: ``fun`` answers another number of values than ``y0`` has.

    Derivatives *of* a solution are ``wichi.odeint``'s.

    >>> import numpy as np, wichi
    >>> found = wichi.scipy.integrate.solve_ivp(lambda t, y: -1e4 * (y - np.cos(t)), (0, 1), np.zeros(1))
    >>> found.success and found.njev < 10
    True
    """
    from scipy import integrate

    given = tuple(args)
    if isinstance(y0, list | tuple) and all(map(np.isscalar, y0)):
        y0 = np.asarray(y0, float)  # as SciPy's users write a vector
    unravel = unraveller(y0, "y0")

    def of_vector(t: Any, v: Any) -> Any:
        slope = flat(fun(t, unravel(v), *given))
        if slope.shape != (unravel.size,):
            raise ArgumentError(
                f"solve_ivp: the function answers {slope.shape[0]} numbers, and y0 has {unravel.size}.",
                at=frames.describe(frames.user_where()),
            )
        return slope

    value, slopes = jit(of_vector), jacobian(of_vector, argnums=1)

    def right(t: float, y: Vector) -> Vector:
        return np.asarray(value(float(t), np.array(y, float)))

    def jac(t: float, y: Vector) -> Vector:
        return np.asarray(slopes(float(t), np.array(y, float)))

    if method in _IMPLICIT or method in [getattr(integrate, name) for name in _IMPLICIT]:
        options.setdefault("jac", jac)
    if events is not None:
        several = isinstance(events, list | tuple)
        seen = [_of_trees(event, unravel, given) for event in (events if several else [events])]
        options["events"] = seen if several else seen[0]
    found = integrate.solve_ivp(right, t_span, unravel.vector(y0, "y0"), method=method, **options)
    if not unravel.is_vector:
        found.y = _over_times(found.y, unravel)
    return found


def _over_times(y: Vector, unravel: Unraveller) -> Any:
    """The rows of a solution as a tree, times last."""
    parts = [
        y[a:b].reshape(*aval.shape, y.shape[1])
        for a, b, aval in zip(unravel.offsets, unravel.offsets[1:], unravel.avals, strict=False)
    ]
    return pytree.unflatten(unravel.tree, parts)


def _of_trees(event: Callable[..., Any], unravel: Unraveller, args: tuple[Any, ...]) -> Callable[..., Any]:
    """An event of vectors, which ends or counts as the user's does."""

    def seen(t: float, y: Vector) -> Any:
        return event(t, unravel.plain(y), *args)

    for name in ("terminal", "direction"):
        if hasattr(event, name):
            setattr(seen, name, getattr(event, name))
    return seen

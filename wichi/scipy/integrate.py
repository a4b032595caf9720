"""``scipy.integrate.solve_ivp`` with the exact Jacobian, for stiff equations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.jacobians import jacobian
from wichi.scipy.objective import Vector
from wichi.transforms import jit

_IMPLICIT = frozenset({"Radau", "BDF", "LSODA"})


def solve_ivp(
    fun: Callable[..., Any],
    t_span: tuple[float, float],
    y0: Any,
    method: str = "Radau",
    args: Sequence[Any] = (),
    **options: Any,
) -> Any:
    """``scipy.integrate.solve_ivp`` of ``fun(t, y, *args)``, compiled, with its exact Jacobian for implicit methods.

    The default method is Radau, for it is with stiff equations that a Jacobian pays. Derivatives *of* a solution are
    ``wichi.odeint``'s.

    >>> import numpy as np, wichi
    >>> found = wichi.scipy.integrate.solve_ivp(lambda t, y: -1e4 * (y - np.cos(t)), (0, 1), np.zeros(1))
    >>> found.success and found.njev < 10
    True
    """
    from scipy import integrate

    given = tuple(args)
    value = jit(lambda t, y: fun(t, y, *given))
    slopes = jacobian(lambda y, t: fun(t, y, *given))

    def right(t: float, y: Vector) -> Vector:
        return np.asarray(value(float(t), np.array(y, float)))

    def jac(t: float, y: Vector) -> Vector:
        return np.asarray(slopes(np.array(y, float), float(t)))

    if method in _IMPLICIT:
        options.setdefault("jac", jac)
    return integrate.solve_ivp(right, t_span, np.asarray(y0, float), method=method, **options)

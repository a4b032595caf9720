"""Ordinary differential equations: ``odeint``, an adaptive Dormand-Prince method as one native loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import wichi.numpy as wnp
from wichi import pytree
from wichi.arguments import as_typed, leaf_aval
from wichi.binding import check_callable
from wichi.control import scan, while_loop
from wichi.errors import ArgumentError
from wichi.trace import frames
from wichi.trace.ir import Aval
from wichi.transforms import jit, stop_gradient

# J. R. Dormand, P. J. Prince, "A family of embedded Runge-Kutta formulae", J. Comp. Appl. Math. 6, 1980; the middle
# of a step: L. F. Shampine, "Some practical Runge-Kutta formulas", Math. Comp. 46, 1986.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (
    35 / 384 - 1951 / 21600, 0.0, 500 / 1113 - 22642 / 50085, 125 / 192 - 451 / 720, -2187 / 6784 + 12231 / 42400,
    11 / 84 - 649 / 6300, -1 / 60,
)  # fmt: skip
_MIDDLE = (
    6025192743 / 30085553152 / 2, 0.0, 51252292925 / 65400821598 / 2, -2691868925 / 45128329728 / 2,
    187940372067 / 1594534317056 / 2, -1776094331 / 19743644256 / 2, 11237099 / 235043384 / 2,
)  # fmt: skip


def odeint(
    func: Callable[..., Any],
    y0: Any,
    t: Any,
    *args: Any,
    rtol: float = 1.4e-8,
    atol: float = 1.4e-8,
    mxstep: float = 10**6,
    hmax: float = math.inf,
) -> Any:
    """The solution of ``dy/dt = func(y, t, *args)`` with ``y(t[0]) = y0``, at the times ``t``.

    Args:
        func: answers a tree like ``y``; what it closes over is differentiated as well.
        y0: a tree of float arrays.
        t: times of shape (n,), each at least the one before it. The solution between steps is a quartic polynomial.
        args: further arguments of ``func``, trees; they are differentiated too.
        rtol, atol: the error allowed in each step, relative to ``y`` and absolute.
        mxstep: the most steps between two times; past it the rest of the solution is nan.
        hmax: the longest step.

    Returns:
        a tree like ``y0`` with a leading axis of n. A computed time before the last step that was taken gives nan.

    Raises:
        ArgumentError: ``y0`` is not of floats, ``t`` is no vector or decreases, or ``func`` answers another tree,
            shape or dtype than ``y``.

    The derivative, in any mode and of any order, is that of the steps taken, whose lengths count as fixed: exact for
    the discrete solution, and as near to that of the equation as the tolerances are. JAX integrates an adjoint equation
    backwards instead, which loses accuracy where the equation damps.

    >>> import numpy as np, wichi
    >>> decay = lambda rate: wichi.odeint(lambda y, t: -rate * y, 1.0, np.array([0.0, 1.0]))[-1]
    >>> bool(np.isclose(wichi.grad(decay)(0.5), -np.exp(-0.5)))
    True
    """
    check_callable("odeint", func=func)
    at = frames.describe(frames.user_where())
    leaves, tree = pytree.flatten(y0)
    avals = [leaf_aval(x)._replace(weak=False) for x in leaves]
    for path, a in zip(pytree.paths(tree), avals, strict=True):
        if a.dtype.kind != "f":
            raise ArgumentError(f"odeint: y0{path} is {a}; y0 must be floats.", at=at, fix="np.asarray(y0, float)")
    t = wnp.asarray(t)
    if leaf_aval(t).ndim != 1 or leaf_aval(t).size < 1:
        raise ArgumentError(f"odeint: t must be a vector of times, not {leaf_aval(t)}.", at=at)
    if isinstance(t, np.ndarray) and not np.all(np.diff(t) >= 0):
        raise ArgumentError(
            "odeint: the times decrease, or are not numbers.",
            at=at,
            fix="to go backwards integrate lambda y, s: -func(y, -s) over -t",
        )

    def fitted(slope: Any) -> list[Any]:
        found, found_tree = pytree.flatten(slope)
        if found_tree != tree:
            path, wanted, has = pytree.difference(tree, found_tree)
            raise ArgumentError(f"odeint: func answers the tree {has} for y{path}, where {wanted} fits.", at=at)
        for path, x, a in zip(pytree.paths(tree), found, avals, strict=True):
            if leaf_aval(x).shape != a.shape:
                raise ArgumentError(f"odeint: func answers {leaf_aval(x)} for y{path}, which is {a}.", at=at)
        return found

    def flat(y: Any) -> Any:
        return wnp.concatenate([wnp.reshape(wnp.asarray(x), -1) for x in pytree.leaves(y)])

    def shaped(v: Any) -> Any:
        parts, offset = [], 0
        for a in avals:
            part = wnp.reshape(v[..., offset : offset + a.size], v.shape[:-1] + a.shape)
            parts.append(as_typed(part, a))
            offset += a.size
        return pytree.unflatten(tree, parts)

    def whole(y0: Any, t: Any, args: Any) -> Any:
        def slope(y: Any, at: Any) -> Any:
            return as_typed(flat(fitted(func(shaped(y), at, *args))), state)

        state = Aval((), np.result_type(*[a.dtype for a in avals], leaf_aval(t * 1.0).dtype))
        return shaped(_solution(slope, as_typed(flat(y0), state), as_typed(t, state), rtol, atol, mxstep, hmax))

    return jit(whole)(y0, t, args)


def _solution(slope: Any, y: Any, t: Any, rtol: float, atol: float, mxstep: float, hmax: float) -> Any:
    f = slope(y, t[0])
    dt = wnp.minimum(stop_gradient(_first_step(slope, y, t[0], f, rtol, atol)), hmax)
    coefficients = wnp.stack([y * 0.0] * 4 + [y])

    def advance(carry: Any, target: Any) -> Any:
        def goes_on(state: Any) -> Any:
            return (state[2] < target) & (state[6] < mxstep)

        def step(state: Any) -> Any:
            y, f, now, dt, last, found, count = state
            new_y, new_f, error, middle = _step(slope, y, f, now, dt)
            scale = atol + rtol * wnp.maximum(wnp.abs(y), wnp.abs(new_y))
            ratio = stop_gradient(wnp.sqrt(wnp.mean((error / scale) ** 2)))
            good = ratio <= 1.0
            polynomial = _interpolation(y, new_y, middle, f, new_f, dt)
            # Half to ten times the step, aimed at nine tenths of the error allowed; a nan halves it.
            factor = wnp.where(ratio == 0.0, 10.0, wnp.clip(0.9 * ratio**-0.2, 0.2, 10.0))
            factor = wnp.where(ratio == ratio, wnp.where(good, wnp.maximum(factor, 1.0), factor), 0.5)
            return (
                wnp.where(good, new_y, y), wnp.where(good, new_f, f), wnp.where(good, now + dt, now),
                wnp.minimum(stop_gradient(dt * factor), hmax), wnp.where(good, now, last),
                wnp.where(good, polynomial, found), count + 1,
            )  # fmt: skip

        y, f, now, dt, last, found, count = while_loop(goes_on, step, (*carry, np.int64(0)))
        where = wnp.where(now > last, (target - last) / wnp.where(now > last, now - last, 1.0), 0.0)
        value = found[0]
        for k in range(1, 5):
            value = value * where + found[k]
        value = wnp.where((count < mxstep) & (target >= last), value, wnp.nan)
        return (y, f, now, dt, last, found), value

    _, rest = scan(advance, (y, f, t[0], dt, t[0], coefficients), t[1:])
    return wnp.concatenate([y[None], rest])


def _step(slope: Any, y: Any, f: Any, t: Any, dt: Any) -> tuple[Any, Any, Any, Any]:
    """One step: the new value and slope, the estimate of its error, and the value in its middle."""
    slopes = [f]
    new = y
    for node, row in zip(_NODES, _STAGES, strict=True):
        new = y + dt * _sum(row, slopes)
        slopes.append(slope(new, t + dt * node))
    return new, slopes[-1], dt * _sum(_ERROR, slopes), y + dt * _sum(_MIDDLE, slopes)


def _sum(weights: tuple[float, ...], slopes: list[Any]) -> Any:
    terms = [w * s for w, s in zip(weights, slopes, strict=False) if w]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _interpolation(y0: Any, y1: Any, middle: Any, f0: Any, f1: Any, dt: Any) -> Any:
    """The quartic through both ends and the middle with the slopes at both ends, highest power first."""
    a = -2 * dt * f0 + 2 * dt * f1 - 8 * y0 - 8 * y1 + 16 * middle
    b = 5 * dt * f0 - 3 * dt * f1 + 18 * y0 + 14 * y1 - 32 * middle
    c = -4 * dt * f0 + dt * f1 - 11 * y0 - 5 * y1 + 16 * middle
    return wnp.stack([a, b, c, dt * f0, y0])


def _first_step(slope: Any, y: Any, t: Any, f: Any, rtol: float, atol: float) -> Any:
    """E. Hairer, S. P. Norsett, G. Wanner, "Solving Ordinary Differential Equations I", section II.4."""
    scale = atol + wnp.abs(y) * rtol

    def norm(v: Any) -> Any:
        return wnp.sqrt(wnp.sum((v / scale) ** 2)) / math.sqrt(max(v.size, 1))

    d0, d1 = norm(y), norm(f)
    first = wnp.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / wnp.where(d1 == 0.0, 1.0, d1))
    d2 = norm(slope(y + first * f, t + first) - f) / first
    largest = wnp.maximum(d1, d2)
    safe = wnp.where(largest <= 1e-15, 1.0, largest)
    second = wnp.where(largest <= 1e-15, wnp.maximum(1e-6, first * 1e-3), (0.01 / safe) ** 0.2)
    return wnp.minimum(100.0 * first, second)

"""Many small fits in one native call: ``least_squares_batch`` and ``minimize_batch``.

Each item is fitted by itself, one after the other, in machine code; an item that fails says so in its status and
touches no other.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

import wichi.numpy as wnp
from wichi import control, pytree
from wichi.arguments import leaf_aval
from wichi.errors import ArgumentError, ShapeError
from wichi.jacobians import jacfwd
from wichi.kernels import interrupts
from wichi.scipy.objective import Unraveller, flat, unraveller
from wichi.trace import frames
from wichi.transforms import jit, value_and_grad

MOST_PARAMETERS = 16  # of one fit by least squares: its normal equations are solved in registers
GRADIENT, COST, STEP, UNFINISHED, NOT_FINITE, SINGULAR = 1, 2, 3, 0, -1, -2


class BatchResult(NamedTuple):
    """One entry an item.

    Attributes:
        x: the parameters, a tree like ``p0s``.
        cost: half the sum of squares, or the value of the function.
        status: 1: the gradient is small; 2: the cost no longer changes; 3: the step is small; 0: ``max_rounds`` were
            not enough; -1: the data or the function are not finite at the start, or wherever a step leads from where
            it ended; -2: the normal equations stayed singular, or the slopes are not finite.
        rounds: how many were taken.
        cov: of ``least_squares_batch``: the covariance of the flat parameters, scaled by the variance of the residuals
            (nan where it does not exist); of ``minimize_batch``: None.
    """

    x: Any
    cost: Any
    status: Any
    rounds: Any
    cov: Any = None

    @property
    def success(self) -> Any:
        """Which items have converged."""
        return self.status > 0


def least_squares_batch(
    residual: Callable[..., Any],
    p0s: Any,
    *data: Any,
    tolerance: float = 1e-10,
    max_rounds: int = 100,
    threads: int = 1,
    progress: bool = False,
) -> BatchResult:
    """Levenberg and Marquardt's method on each item of a batch.

    Args:
        residual: ``residual(p, *data)`` of one item: parameters (a vector or a tree) and its row of each of ``data``;
            answers a vector or a tree of residuals.
        p0s: where to begin, a tree of arrays whose first axis counts items.
        data: trees of arrays whose first axis counts items. What all items share comes by closure.
        tolerance: of the gradient and of the change of the cost that a step promises, relative to the cost; of the
            step, relative to the parameters.
        max_rounds: the most steps tried for an item.
        threads: over how many threads the batch is spread; the answers are the same bits.
        progress: show a bar.

    Raises:
        ShapeError: the batches differ in length.
        DtypeError: parameters that are no floats.
        ArgumentError: more than 16 parameters.
        KeyboardInterrupt: Ctrl-C ends the whole batch, also within its native loop; no results are left then.

    K. Madsen, H. B. Nielsen, O. Tingleff, "Methods for non-linear least squares problems", 2004, section 3.2,
    with MINPACK's scaling.

    >>> import numpy as np, wichi
    >>> t = np.linspace(0, 4, 32)
    >>> truth = np.array([[2.0, 1.0], [1.0, 0.5], [3.0, 2.0]])
    >>> y = truth[:, :1] * np.exp(-truth[:, 1:] * t)
    >>> found = wichi.fit.least_squares_batch(lambda p, y: p[0] * np.exp(-p[1] * t) - y, np.ones((3, 2)), y)
    >>> bool(np.allclose(found.x, truth)) and found.status.min() > 0
    np.True_
    """
    one, unravel = _item(p0s)
    if unravel.size > MOST_PARAMETERS:
        raise ArgumentError(
            f"least_squares_batch fits up to {MOST_PARAMETERS} parameters an item; here are {unravel.size}.",
            at=frames.describe(frames.user_where()),
            fix="wichi.fit.minimize_batch, or wichi.scipy.optimize.least_squares for one large fit",
        )

    def fit(row: Any) -> Any:
        p0, rest = row
        r = lambda v: flat(residual(unravel(v), *rest))  # noqa: E731
        v, cost, status, rounds, cov = _levenberg_marquardt(r, flat(p0) * 1.0, tolerance, max_rounds)
        return unravel(v), cost, status, rounds, cov

    return BatchResult(*_over_batch(fit, p0s, data, one, threads, progress, residual))


def minimize_batch(
    f: Callable[..., Any],
    p0s: Any,
    *data: Any,
    tolerance: float = 1e-8,
    max_rounds: int = 500,
    history: int = 8,
    threads: int = 1,
    progress: bool = False,
) -> BatchResult:
    """The L-BFGS method on each item of a batch.

    Args:
        f: ``f(p, *data)`` of one item answers one float.
        history: how many steps the method remembers.

    The rest is as in ``least_squares_batch``. J. Nocedal, S. J. Wright, "Numerical Optimization", 2006, section 7.2,
    with Armijo's rule.

    >>> import numpy as np, wichi
    >>> centres = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> found = wichi.fit.minimize_batch(lambda p, c: np.sum((p - c) ** 4 + (p - c) ** 2), np.zeros((2, 2)), centres)
    >>> bool(np.allclose(found.x, centres, atol=1e-6))
    True
    """
    one, unravel = _item(p0s)

    def fit(row: Any) -> Any:
        p0, rest = row
        both = value_and_grad(lambda v: f(unravel(v), *rest), allow_unused=True)
        v, cost, status, rounds = _lbfgs(both, flat(p0) * 1.0, tolerance, max_rounds, history)
        return unravel(v), cost, status, rounds

    return BatchResult(*_over_batch(fit, p0s, data, one, threads, progress, f))


# --- the batch -------------------------------------------------------------------------------------------------------
def _item(p0s: Any) -> tuple[int, Unraveller]:
    """The number of items, and the parameters of one."""
    leaves = pytree.leaves(p0s)
    if not leaves or any(leaf_aval(x).ndim == 0 for x in leaves):
        raise ShapeError("p0s must be arrays whose first axis counts items.", at=frames.describe(frames.user_where()))
    example = pytree.tree_map(lambda x: np.zeros(leaf_aval(x).shape[1:], leaf_aval(x).dtype), p0s)
    return leaf_aval(leaves[0]).shape[0], unraveller(example, "p0s")


def _over_batch(
    fit: Callable[[Any], Any], p0s: Any, data: tuple[Any, ...], size: int, threads: int, progress: bool, named: Any
) -> Any:
    at = frames.describe(frames.user_where())
    for x in pytree.leaves((p0s, data)):
        if leaf_aval(x).ndim == 0 or leaf_aval(x).shape[0] != size:
            raise ShapeError(
                f"Arrays of {size} items and of shape {leaf_aval(x).shape} were given.",
                at=at,
                because="the first axis of p0s and of all data counts items",
                fix="what all items share comes by closure",
            )
    if type(threads) is not int or threads < 1:
        raise ArgumentError(f"threads={threads!r}, but the work is done by 1 thread or more.", at=at)
    # Its trace is found again by the code and the cells of `fit`; the whole batch is one native loop.
    run = jit(lambda rows: control.map(fit, rows))
    rows = (p0s, data)
    if size == 0 or (threads == 1 and not progress):
        return run(rows)
    # More parts than threads, for some items take longer than others.
    edges = np.linspace(0, size, min(size, max(16 * threads, 50 if progress else 1)) + 1).astype(int)
    chunks = [
        pytree.tree_map(lambda x, a=a, b=b: np.ascontiguousarray(x[a:b]), rows) for a, b in itertools.pairwise(edges)
    ]
    bar = _bar(len(chunks), getattr(named, "__name__", "fit")) if progress else iter
    found: list[Any] = []
    working: list[int] = []
    with ThreadPoolExecutor(
        min(threads, os.cpu_count() or 1), initializer=lambda: working.append(threading.get_ident())
    ) as pool:
        try:
            # The first alone: it is compiled before others begin. In a thread, so that Ctrl-C is heard here.
            first = pool.submit(run, chunks[0])
            found += bar(itertools.chain([first.result()], pool.map(run, chunks[1:])))
        except BaseException:
            with interrupts.stopping(working):
                pool.shutdown(cancel_futures=True)
            raise
    return pytree.tree_map(lambda *parts: np.concatenate(parts), *found)


def _bar(count: int, name: str) -> Callable[[Any], Any]:
    try:
        from tqdm import tqdm
    except ImportError:
        raise ArgumentError("progress=True needs tqdm.", fix="pip install tqdm") from None
    return functools.partial(tqdm, total=count, desc=name)


# --- Levenberg and Marquardt -----------------------------------------------------------------------------------------
def _levenberg_marquardt(r: Callable[[Any], Any], p0: Any, tolerance: float, max_rounds: int) -> Any:
    def half_square(v: Any) -> Any:
        return 0.5 * wnp.sum(v * v)

    def goes_on(state: Any) -> Any:
        return (state["status"] == UNFINISHED) & (state["rounds"] < max_rounds)

    def step(state: Any) -> Any:
        p, cost, damping = state["p"], state["cost"], state["damping"]
        slopes, value = jacfwd(r)(p), r(p)
        normal, gradient = slopes.T @ slopes, value @ slopes
        size = gradient.shape[0]
        diagonal = wnp.stack([normal[i, i] for i in range(size)])
        # The largest scale that a parameter has had, as in MINPACK: it keeps fits out of valleys at infinity.
        scale = wnp.maximum(state["scale"], diagonal)
        # A parameter without effect has a zero there: 1 keeps the equations regular, and leaves it where it is.
        positive = wnp.where(scale > 0.0, scale, 1.0)
        change, regular = _cholesky_solve(normal + damping * (positive[:, None] * np.eye(size)), -gradient)
        new = p + change
        new_cost = half_square(r(new))
        predicted = 0.5 * (change @ (damping * positive * change - gradient))
        gain = (cost - new_cost) / wnp.where(predicted > 0.0, predicted, 1.0)
        better = regular & (new_cost < cost) & (gain > 1e-4)
        small = wnp.max(wnp.abs(gradient)) <= tolerance * wnp.maximum(cost, 1e-300)
        # A step that grows short because it must not leave the domain has not converged.
        well = regular & wnp.isfinite(new_cost)
        flat_cost = well & (predicted <= tolerance * cost)
        short = well & (wnp.sum(change * change) <= tolerance**2 * (wnp.sum(p * p) + tolerance**2))
        stuck = wnp.where(regular, wnp.where(well, STEP, NOT_FINITE), SINGULAR)
        status = wnp.where(short, STEP, wnp.where(damping > 1e14, stuck, UNFINISHED))
        status = wnp.where(small, GRADIENT, wnp.where(flat_cost, COST, status))
        eased = damping * wnp.maximum(1.0 / 3.0, 1.0 - (2.0 * wnp.clip(gain, 0.0, 2.0) - 1.0) ** 3)
        return {
            "p": wnp.where(better, new, p), "cost": wnp.where(better, new_cost, cost), "scale": scale,
            "damping": wnp.where(better, wnp.maximum(eased, 1e-14), damping * state["raise"]),
            "raise": wnp.where(better, 2.0, state["raise"] * 2.0), "status": status, "rounds": state["rounds"] + 1,
        }  # fmt: skip

    first = half_square(r(p0))
    begin = {
        "p": p0, "cost": first, "scale": wnp.zeros(p0.shape), "damping": 1e-2, "raise": 2.0,
        "status": wnp.where(wnp.isfinite(first), UNFINISHED, NOT_FINITE), "rounds": np.int64(0),
    }  # fmt: skip
    end = control.while_loop(goes_on, step, begin)
    p, cost, status, rounds = end["p"], end["cost"], end["status"], end["rounds"]
    slopes = jacfwd(r)(p)
    count, size = slopes.shape
    normal = slopes.T @ slopes
    columns = [_cholesky_solve(normal, np.eye(size)[i]) for i in range(size)]
    variance = 2.0 * cost / max(count - size, 1)
    cov = wnp.stack([wnp.where(regular & (status >= 0), c * variance, wnp.nan) for c, regular in columns])
    return p, cost, status, rounds, cov


def _cholesky_solve(a: Any, b: Any) -> tuple[Any, Any]:
    """``x`` with ``a x = b`` for a small symmetric ``a``, and whether it is positive definite. Never fails."""
    n = a.shape[0]
    factor: list[list[Any]] = [[None] * n for _ in range(n)]
    regular: Any = None
    for j in range(n):
        pivot = a[j, j]
        for k in range(j):
            pivot = pivot - factor[j][k] * factor[j][k]
        well = pivot > 1e-14 * wnp.abs(a[j, j])
        regular = well if regular is None else regular & well
        root = wnp.sqrt(wnp.where(well, pivot, 1.0))
        factor[j][j] = root
        for i in range(j + 1, n):
            entry = a[i, j]
            for k in range(j):
                entry = entry - factor[i][k] * factor[j][k]
            factor[i][j] = entry / root
    y: list[Any] = []
    for i in range(n):
        value = b[i]
        for k in range(i):
            value = value - factor[i][k] * y[k]
        y.append(value / factor[i][i])
    x: list[Any] = [None] * n
    for i in reversed(range(n)):
        value = y[i]
        for k in range(i + 1, n):
            value = value - factor[k][i] * x[k]
        x[i] = value / factor[i][i]
    return wnp.stack(x), regular


# --- L-BFGS ----------------------------------------------------------------------------------------------------------
def _lbfgs(both: Callable[[Any], Any], p0: Any, tolerance: float, max_rounds: int, history: int) -> Any:
    size = p0.shape[0]

    def goes_on(state: Any) -> Any:
        return (state["status"] == UNFINISHED) & (state["rounds"] < max_rounds)

    def step(state: Any) -> Any:
        p, value, g = state["p"], state["value"], state["g"]
        direction = -_two_loops(g, state["s"], state["y"], state["rho"], history)
        slope = g @ direction
        direction = wnp.where(slope < 0.0, direction, -g)  # not downhill: forget
        slope = wnp.where(slope < 0.0, slope, -(g @ g))
        first = wnp.where(state["rounds"] == 0, 1.0 / wnp.maximum(wnp.sqrt(g @ g), 1.0), 1.0)

        def too_long(search: Any) -> Any:
            length, found, _ = search
            return ~(found <= value + 1e-4 * length * slope) & (length > 1e-20)

        def shorter(search: Any) -> Any:
            length = search[0] * 0.5
            found, found_g = both(p + length * direction)
            return length, found, found_g

        begin, begin_g = both(p + first * direction)
        length, new_value, new_g = control.while_loop(too_long, shorter, (first, begin, begin_g))
        moved = length > 1e-20
        s, y = length * direction, new_g - g
        curvature = s @ y
        useful = moved & (curvature > 1e-12 * wnp.sqrt((s @ s) * (y @ y)))
        new_p = wnp.where(moved, p + s, p)
        largest = wnp.max(wnp.abs(wnp.where(moved, new_g, g)))
        status = wnp.where(moved, UNFINISHED, STEP)
        status = wnp.where(wnp.abs(value - new_value) <= tolerance**2 * wnp.abs(value), COST, status)
        status = wnp.where(largest <= tolerance, GRADIENT, status)

        def remembered(old: Any, new: Any) -> Any:
            return wnp.where(useful, wnp.concatenate([new[None], old[:-1]]), old)

        return {
            "p": new_p, "value": wnp.where(moved, new_value, value), "g": wnp.where(moved, new_g, g),
            "s": remembered(state["s"], s), "y": remembered(state["y"], y),
            "rho": remembered(state["rho"], 1.0 / wnp.where(useful, curvature, 1.0)),
            "status": status, "rounds": state["rounds"] + 1,
        }  # fmt: skip

    value, g = both(p0)
    well = wnp.isfinite(value) & wnp.all(wnp.isfinite(g))
    small = wnp.max(wnp.abs(g)) <= tolerance
    begin = {
        "p": p0, "value": value, "g": g, "s": wnp.zeros((history, size)), "y": wnp.zeros((history, size)),
        "rho": wnp.zeros(history), "status": wnp.where(well, wnp.where(small, GRADIENT, UNFINISHED), NOT_FINITE),
        "rounds": np.int64(0),
    }  # fmt: skip
    end = control.while_loop(goes_on, step, begin)
    return end["p"], end["value"], end["status"], end["rounds"]


def _two_loops(g: Any, s: Any, y: Any, rho: Any, history: int) -> Any:
    """The inverse Hessian that the remembered steps imply, times ``g``; steps that are missing have ``rho`` 0."""
    weights = []
    for k in range(history):
        weight = rho[k] * (s[k] @ g)
        g = g - weight * y[k]
        weights.append(weight)
    square = y[0] @ y[0]
    g = g * wnp.where(square > 0.0, (s[0] @ y[0]) / wnp.where(square > 0.0, square, 1.0), 1.0)
    for k in reversed(range(history)):
        g = g + s[k] * (weights[k] - rho[k] * (y[k] @ g))
    return g

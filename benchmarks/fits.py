"""Whole fits and solves: SciPy's solvers with wichi's derivatives, and the same solvers with their own differences.

    make bench ROWS=fits

As in ``compare``: one process pinned to one core, taking turns, answers compared before anything is timed. Each run is
a whole call of a solver, as a user writes it; wichi's are made anew each time and find their compiled functions again.
Prints a table with evaluations in brackets, and writes ``out/fits.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.integrate
import scipy.optimize

from benchmarks.compare import best_of, duration, pin, processor
from benchmarks.loops import fits as batch_of_fits
from wichi.scipy import integrate, optimize

Run = Callable[[], Any]


class Row(NamedTuple):
    """Runs by contestant, of which the first is wichi's; ``answer`` of a result must agree; ``count``: evaluations."""

    runs: dict[str, Run]
    answer: Callable[[Any], Any]
    count: Callable[[Any], int | None]


def rosenbrock(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def minimize(n: int, method: str = "BFGS") -> Row:
    """From the left of the valley to its end."""
    start = np.linspace(0.5, 1.4, n)
    tight = {"gtol": 1e-6, "maxiter": 2000, **({"maxfun": 10**6} if method == "L-BFGS-B" else {})}
    slope = scipy.optimize.rosen_der
    return Row(
        {
            "wichi": lambda: optimize.minimize(rosenbrock, start, method=method, options=tight),
            "SciPy": lambda: scipy.optimize.minimize(rosenbrock, start, method=method, options=tight),
            "SciPy, gradient by hand": lambda: scipy.optimize.minimize(
                rosenbrock, start, jac=slope, method=method, options=tight
            ),
        },
        lambda found: found.fun,
        lambda found: found.nfev,
    )


def peaks(p: Any, t: Any) -> Any:
    """Two peaks on a slope: eight parameters."""
    return p[0] + p[1] * t + p[2] * np.exp(-(((t - p[3]) / p[4]) ** 2)) + p[5] * np.exp(-(((t - p[6]) / p[7]) ** 2))


TRUTH = np.array([0.5, 0.1, 2.0, 3.0, 0.5, 1.0, 6.0, 0.8])
T = np.linspace(0.0, 10.0, 400)
MEASURED = peaks(TRUTH, T) + 0.02 * np.random.default_rng(0).normal(size=T.size)
START = TRUTH * np.array([0.5, 2.0, 0.8, 1.05, 1.3, 1.3, 0.97, 0.8])


def least_squares() -> Row:
    """Eight parameters to 400 points."""
    ours, theirs = optimize.least_squares, scipy.optimize.least_squares
    return Row(
        {
            "wichi": lambda: ours(lambda p: peaks(p, T) - MEASURED, START),
            "SciPy": lambda: theirs(lambda p: peaks(p, T) - MEASURED, START),
            "SciPy, 3-point": lambda: theirs(lambda p: peaks(p, T) - MEASURED, START, jac="3-point"),
        },
        lambda found: found.x,
        lambda found: found.nfev,
    )


def curve_fit() -> Row:
    """The same by MINPACK."""

    def model(t: Any, *p: Any) -> Any:
        return peaks(p, t)

    def counted(find: Callable[..., Any]) -> Any:
        return find(model, T, MEASURED, START, full_output=True)

    return Row(
        {"wichi": lambda: counted(optimize.curve_fit), "SciPy": lambda: counted(scipy.optimize.curve_fit)},
        lambda found: found[0],
        lambda found: found[2]["nfev"],
    )


def root() -> Row:
    """Broyden's tridiagonal equations in 50 unknowns."""

    def f(x: Any) -> Any:
        y = (3 - 2 * x) * x + 1
        zero = np.zeros(1)
        return y - np.concatenate([zero, x[:-1]]) - 2 * np.concatenate([x[1:], zero])

    start = -np.ones(50)
    return Row(
        {"wichi": lambda: optimize.root(f, start), "SciPy": lambda: scipy.optimize.root(f, start)},
        lambda found: found.x,
        lambda found: found.nfev,
    )


def stiff() -> Row:
    """Robertson's equations to 10⁴ by Radau."""

    def field(t: Any, y: Any) -> Any:
        a, b, c = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return np.stack([b - a, a - b - c, c])

    options: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-10}
    start = np.array([1.0, 0.0, 0.0])
    return Row(
        {
            "wichi": lambda: integrate.solve_ivp(field, (0, 1e4), start, **options),
            "SciPy": lambda: scipy.integrate.solve_ivp(field, (0, 1e4), start, method="Radau", **options),
        },
        lambda found: found.y[:, -1],
        lambda found: found.nfev,
    )


def batch() -> Row:
    """10⁵ fits; SciPy does 200 of them."""
    return Row(batch_of_fits(), lambda found: np.zeros(1), lambda found: None)


ROWS: dict[str, Callable[[], Row]] = {
    "minimize, BFGS, Rosenbrock n=3": lambda: minimize(3),
    "minimize, BFGS, Rosenbrock n=10": lambda: minimize(10),
    "minimize, BFGS, Rosenbrock n=100": lambda: minimize(100),
    "minimize, L-BFGS-B, Rosenbrock n=1000": lambda: minimize(1000, "L-BFGS-B"),
    "least_squares, 8 parameters, 400 points": least_squares,
    "curve_fit, 8 parameters, 400 points": curve_fit,
    "root, 50 unknowns": root,
    "solve_ivp, Robertson, Radau": stiff,
    "10⁵ fits, 4 parameters, 32 points": batch,
}


def _check(name: str, row: Row) -> dict[str, str]:
    """Answers must agree; the evaluations of each contestant."""
    counts, first = {}, None
    for who, run in row.runs.items():
        found = run()
        answer, count = np.asarray(row.answer(found)), row.count(found)
        first = answer if first is None else first
        np.testing.assert_allclose(answer, first, rtol=1e-4, atol=1e-5, err_msg=f"{name}: {who}")
        counts[who] = "" if count is None else f", {count} evaluations"
    return counts


def main(out: Path = Path("out")) -> None:
    pin()
    print(f"{processor()}, one core, {time.strftime('%Y-%m-%d')}; float64, best of many, taking turns\n")
    print("| whole call | wichi | others (ratio to wichi) |\n|---|---|---|")
    rows = {}
    for name, make in ROWS.items():
        row = make()
        counts = _check(name, row)
        times = rows[name] = best_of(row.runs, 2.0)
        others = [
            f"{who} {duration(t)} ({t / times['wichi']:.2f}{counts[who]})" for who, t in times.items() if who != "wichi"
        ]
        print(f"| {name} | {duration(times['wichi'])}{counts['wichi']} | {', '.join(others)} |", flush=True)
    out.mkdir(exist_ok=True)
    (out / "fits.json").write_text(json.dumps({"machine": processor(), "seconds": rows}, indent=1))

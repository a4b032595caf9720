"""Minimax polynomials for the mathematics of native code: where coefficients in ``wichi/kernels/vecmath*.py`` are from.

    python tools/minimax.py              prints all of them
    python tools/minimax.py EXP SINH     prints those

Each is the polynomial ``c0 + c1 t + c2 t**2 + ...`` whose largest weighted error on an interval is smallest. It is
found by linear programming on many points, in rounds: each corrects what mpmath says is left. Coefficients are rounded
to their format one after the other, the lowest first, and the others are fitted anew each time, so that the rounding of
one is made good by those after it. Needs mpmath and SciPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mpmath import mp, mpf
from scipy.optimize import linprog

mp.dps = 50
Function = Callable[[mpf], mpf]


class Wanted(NamedTuple):
    """``function`` on ``low``..``high`` by a polynomial of ``degree``; an error counts ``weight`` times.

    ``single``: coefficients are float32. ``fixed``: the first coefficients, where they are given.
    """

    function: Function
    low: float
    high: float
    degree: int
    weight: Function
    single: bool = False
    fixed: tuple[float, ...] = ()


class Fit:
    """The values on a grid, and the coefficients as they stand."""

    def __init__(self, wanted: Wanted) -> None:
        low, high = mpf(wanted.low), mpf(wanted.high)
        count = 40 * (wanted.degree + 2)
        steps = [-mp.cos(mp.pi * (i + mpf(1) / 3) / (count + 1)) for i in range(count + 1)]
        self.grid = [(low + high) / 2 + (high - low) / 2 * s for s in steps]
        self.values = [wanted.function(t) for t in self.grid]
        self.weights = [wanted.weight(t) for t in self.grid]
        self.coefficients = [mpf(c) for c in wanted.fixed] + [mpf(0)] * (wanted.degree + 1 - len(wanted.fixed))

    def errors(self) -> list[mpf]:
        return [
            w * (v - mp.polyval(self.coefficients[::-1], t))
            for w, v, t in zip(self.weights, self.values, self.grid, strict=True)
        ]

    def worst(self) -> mpf:
        return max(map(abs, self.errors()))

    def improve(self, first: int, rounds: int) -> None:
        """Fit the coefficients from ``first`` on."""
        size = len(self.coefficients) - first
        if not size:
            return
        basis, mix = self._orthogonal(first)
        columns = np.array([[float(x) for x in column] for column in basis]).T
        ones = np.ones((len(columns), 1))
        for _ in range(rounds):
            errors = self.errors()
            largest = max(map(abs, errors))
            left = np.array([float(e / largest) for e in errors])
            found = linprog(
                [0] * size + [1],
                np.block([[columns, -ones], [-columns, -ones]]),
                np.concatenate([left, -left]),
                bounds=[(None, None)] * size + [(0, None)],
                method="highs",
            )
            if not found.success or found.x[-1] >= 1:
                return
            for j in range(size):
                self.coefficients[first + j] += largest * mp.fdot(
                    (mpf(c), m[j]) for c, m in zip(found.x, mix, strict=False)
                )

    def _orthogonal(self, first: int) -> tuple[list[list[mpf]], list[list[mpf]]]:
        """The weighted powers from ``first`` on, made orthogonal (Gram and Schmidt), and what each is made of."""
        basis: list[list[mpf]] = []
        mix: list[list[mpf]] = []
        size = len(self.coefficients) - first
        column = [w * t**first for w, t in zip(self.weights, self.grid, strict=True)]
        for j in range(size):
            made = [mpf(i == j) for i in range(size)]
            # Of the last one times t: nearly orthogonal to all but two of the others from the start.
            if j:
                column = [c * t for c, t in zip(basis[-1], self.grid, strict=True)]
                made = [mpf(0), *mix[-1][:-1]]
            for other, how in zip(basis, mix, strict=True):
                part = mp.fdot(zip(column, other, strict=True))
                column = [c - part * o for c, o in zip(column, other, strict=True)]
                made = [m - part * h for m, h in zip(made, how, strict=True)]
            norm = mp.sqrt(mp.fdot(zip(column, column, strict=True)))
            basis.append([c / norm for c in column])
            mix.append([m / norm for m in made])
            column = basis[-1]
        return basis, mix


def fitted(wanted: Wanted) -> tuple[list[float], float, float]:
    """Rounded coefficients, their largest weighted error, and that before rounding."""
    kind = np.float32 if wanted.single else np.float64
    fit = Fit(wanted)
    start = len(wanted.fixed)
    fit.improve(start, 6)
    exact = float(fit.worst())
    for i in range(start, wanted.degree + 1):
        fit.coefficients[i] = mpf(float(kind(float(fit.coefficients[i]))))
        fit.improve(i + 1, 2)
    return [float(c) for c in fit.coefficients], float(fit.worst()), exact

"""Minimax polynomials for the mathematics of native code: where coefficients in ``wichi/kernels/vecmath*.py`` are from.

    python tools/minimax.py              prints all of them
    python tools/minimax.py EXP SINH     prints those

Each is the polynomial ``c0 + c1 t + c2 t**2 + ...`` whose largest weighted error on an interval is smallest. It is found
by linear programming on many points, in rounds: each corrects what mpmath says is left. Coefficients are rounded to
their format one after the other, the lowest first, and the others are fitted anew each time, so that the rounding of
one is made good by those after it. Needs mpmath and SciPy.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mpmath import mp, mpf
from numpy.polynomial import chebyshev
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
        self.low, self.high, self.degree = mpf(wanted.low), mpf(wanted.high), wanted.degree
        count = 40 * (wanted.degree + 2)
        steps = [-mp.cos(mp.pi * (i + mpf(1) / 3) / (count + 1)) for i in range(count + 1)]
        self.steps = np.array([float(s) for s in steps])
        self.grid = [(self.low + self.high) / 2 + (self.high - self.low) / 2 * s for s in steps]
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
        size = self.degree + 1 - first
        if not size:
            return
        # Chebyshev polynomials times t**first: a basis that keeps the program well conditioned.
        basis = chebyshev.chebvander(self.steps, size - 1)
        scale = max(abs(self.low), abs(self.high))
        factors = np.array([float(w * (t / scale) ** first) for w, t in zip(self.weights, self.grid, strict=True)])
        basis *= factors[:, None]
        power = [chebyshev.cheb2poly([0] * j + [1]) for j in range(size)]
        for _ in range(rounds):
            errors = self.errors()
            largest = max(map(abs, errors))
            left = np.array([float(e / largest) for e in errors])
            ones = np.ones((len(left), 1))
            found = linprog(
                [0] * size + [1],
                np.block([[basis, -ones], [-basis, -ones]]),
                np.concatenate([left, -left]),
                bounds=[(None, None)] * size + [(0, None)],
                method="highs",
            )
            if not found.success or found.x[-1] >= 1:
                return
            # From Chebyshev polynomials of the step to powers of t.
            in_steps = [mp.fsum(mpf(c) * int(p[i]) for c, p in zip(found.x, power, strict=False) if i < len(p))
                        for i in range(size)]  # fmt: skip
            a, b = 2 / (self.high - self.low), -(self.high + self.low) / (self.high - self.low)
            moved = [mpf(0)] * size
            for i, c in enumerate(in_steps):
                for j in range(i + 1):
                    moved[j] += c * math.comb(i, j) * a**j * b ** (i - j)
            for j, c in enumerate(moved):
                self.coefficients[first + j] += largest * c / scale**first


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

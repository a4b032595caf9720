"""The tightest lower limits we know of each workload: what wichi's time is divided by.

Three kinds, and the longest of them counts:

- ``numba by hand``: value and gradient differentiated by hand and written as loops as good as we can make them, blocks
  that stay in the nearest cache, results into arrays made beforehand, ``exp`` and ``log`` of ``vectors``, matrix
  products by BLAS.
- ``BLAS``: the matrix products alone, into arrays made beforehand, no more of them than shapes; nothing in between.
- ``bytes``: a triad (a = b + 3 c) that moves as many bytes as the arguments and the gradient have. It runs beside the
  contestants and takes turns with them, so it is this machine's bandwidth at this size at this time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from benchmarks.limits_mixture import mixture
from benchmarks.limits_models import attention, mlp, mlp_step, two_moons
from benchmarks.vectors import FAST, exp, larger, log, tanh, wide
from benchmarks.workloads import Workload

Run = Callable[[], Any]
_compiled = njit(fastmath=FAST, error_model="numpy")


@_compiled
def _rosenbrock(x: Any, g: Any) -> Any:
    wide()
    n = len(x)
    bend = x[1] - x[0] * x[0]
    value = 100.0 * bend * bend + (1.0 - x[0]) * (1.0 - x[0])
    g[0] = -400.0 * bend * x[0] - 2.0 * (1.0 - x[0])
    for i in range(1, n - 1):
        here, back = x[i + 1] - x[i] * x[i], x[i] - x[i - 1] * x[i - 1]
        value += 100.0 * here * here + (1.0 - x[i]) * (1.0 - x[i])
        g[i] = 200.0 * back - 400.0 * here * x[i] - 2.0 * (1.0 - x[i])
    g[n - 1] = 200.0 * (x[n - 1] - x[n - 2] * x[n - 2])
    return value


def rosenbrock(w: Workload) -> Run:
    (x,) = w.arguments
    g = np.empty_like(x)
    return lambda: (_rosenbrock(x, g), g)


def chain(w: Workload) -> Run:
    (x,), (steps,) = w.arguments, w.settings
    size = len(x)

    @_compiled
    def loop(x: Any, y: Any, g: Any) -> Any:
        wide()
        for i in range(size):
            y[i] = x[i]
            g[i] = 1.0
        for _ in range(steps):
            for i in range(size):
                t = tanh(y[i] * 1.1 + 0.1)
                g[i] *= 1.1 * (1.0 - t * t)
                y[i] = t
        value = 0.0
        for i in range(size):
            value += y[i]
        return value

    y, g = np.empty_like(x), np.empty_like(x)
    return lambda: (loop(x, y, g), g)


def pointwise(w: Workload) -> Run:
    """In blocks: the exponentials of one element wait for each other, those of one round do not."""
    (x,), (operations,) = w.arguments, w.settings
    number = x.dtype.type
    first, *others = (number(1.0 + 0.1 * i) for i in range(operations // 5))
    later, half, block = tuple(others), number(0.5), 256

    @_compiled
    def loop(x: Any, g: Any, y: Any) -> Any:
        wide()
        value = number(0.0)
        for start in range(0, len(x), block):
            stop = min(start + block, len(x))
            of_x, of_g = x[start:stop], g[start:stop]
            for i in range(stop - start):
                e = exp(-of_x[i] * of_x[i])
                of_g[i] = first - of_x[i] * e
                y[i] = e * half + of_x[i] * first
            for slope in later:
                for i in range(stop - start):
                    e = exp(-y[i] * y[i])
                    of_g[i] *= slope - y[i] * e
                    y[i] = e * half + y[i] * slope
            for i in range(stop - start):
                value += y[i]
        return value

    if not later:
        loop = _pointwise_of_one(first, half, number(0.0))
    g, y = np.empty_like(x), np.empty(block, x.dtype)
    return lambda: (loop(x, g, y), g)


def _pointwise_of_one(first: Any, half: Any, zero: Any) -> Any:
    @_compiled
    def loop(x: Any, g: Any, y: Any) -> Any:
        wide()
        value = zero
        for i in range(len(x)):
            e = exp(-x[i] * x[i])
            g[i] = first - x[i] * e
            value += e * half + x[i] * first
        return value

    return loop


@_compiled
def _logistic(w: Any, x: Any, y: Any, g: Any, z: Any, part: Any) -> Any:
    wide()
    n, block = len(x), len(z)
    value = 0.0
    g[:] = 0.0
    for start in range(0, n, block):
        stop = min(start + block, n)
        size, seen = stop - start, y[start:stop]  # a slice: LLVM cannot tell that start + i is not below zero
        np.dot(x[start:stop], w, z[:size])
        for i in range(size):
            e = exp(-abs(z[i]))
            inverse = 1.0 / (1.0 + e)
            value += max(z[i], 0.0) - z[i] * seen[i] + log(1.0 + e)
            z[i] = ((inverse if z[i] > 0.0 else e * inverse) - seen[i]) / n
        np.dot(z[:size], x[start:stop], part)
        for j in range(len(g)):
            g[j] += part[j]
    return value / n


def logistic(w: Workload) -> Run:
    weights, x, y = w.arguments
    g, part, z = np.empty_like(weights), np.empty_like(weights), np.empty(512)
    return lambda: (_logistic(weights, x, y, g, z, part), g)


@_compiled
def _poisson(p: Any, t: Any, counts: Any, g: Any, divides: Any) -> Any:
    wide()
    p0, p1, p2, p3, inverse = p[0], p[1], p[2], p[3], 1.0 / p[4]
    value = g0 = g1 = g2 = g3 = g4 = 0.0
    for i in range(len(t)):
        u = (t[i] - p3) / p[4] if divides else (t[i] - p3) * inverse
        a, e = exp(p0 + p1 * t[i]), exp(-0.5 * u * u)
        rate = a + p2 * p2 * e
        value += rate - counts[i] * log(rate)
        r = 1.0 - counts[i] / rate
        g0 += r * a
        g1 += r * a * t[i]
        g2 += r * e
        g3 += r * e * u
        g4 += r * e * u * u
    g[0], g[1], g[2] = g0, g1, 2.0 * p2 * g2
    g[3], g[4] = p2 * p2 * inverse * g3, p2 * p2 * inverse * g4
    return value


def poisson(w: Workload, divides: bool = False) -> Run:
    p, t, counts = w.arguments
    g = np.empty_like(p)
    return lambda: (_poisson(p, t, counts, g, divides), g)


@_compiled
def _softmax(z: Any, y: Any, g: Any) -> Any:
    wide()
    n, classes = z.shape
    value, share = 0.0, 1.0 / n
    for i in range(n):
        top = z[i, 0]
        for j in range(classes):
            top = larger(top, z[i, j])
        total = hit = 0.0
        for j in range(classes):
            e = exp(z[i, j] - top)
            g[i, j] = e
            total += e
            hit += z[i, j] * y[i, j]
        value += np.log(total) + top - hit
        inverse = share / total
        for j in range(classes):
            g[i, j] = g[i, j] * inverse - y[i, j] * share
    return value * share


def softmax(w: Workload) -> Run:
    z, y = w.arguments
    g = np.empty_like(z)
    return lambda: (_softmax(z, y, g), g)


BY_HAND: dict[str, Callable[[Workload], Run]] = {
    "rosenbrock": rosenbrock, "chain": chain, "pointwise": pointwise, "logistic": logistic, "poisson": poisson,
    "softmax": softmax, "two moons": two_moons, "mlp": mlp, "mixture": mixture, "attention": attention,
}  # fmt: skip


def by_hand(w: Workload) -> Run:
    return mlp_step(w) if w.step else BY_HAND[w.family](w)


def blas_alone(w: Workload) -> Run | None:
    """The matrix products of the workload and nothing else."""
    if not w.products:
        return None
    rng = np.random.default_rng(0)

    @functools.cache  # as many different arrays as a careful program has: those of one shape and role are one
    def stored(role: str, shape: tuple[int, int]) -> np.ndarray:
        return rng.standard_normal(shape).astype(w.dtype)

    def factor(role: str, rows: int, columns: int, how: str) -> np.ndarray:
        return stored(role, (rows, columns)) if how == "n" else stored(role, (columns, rows)).T

    matrices = [
        (factor("a", m, k, how[0]), factor("b", k, n, how[1]), stored("out", (m, n))) for m, k, n, how in w.products
    ]

    def run() -> None:
        for a, b, c in matrices:
            np.matmul(a, b, out=c)

    return run


@_compiled
def _triad(a: Any, b: Any, c: Any) -> None:
    wide()
    for i in range(len(a)):
        a[i] = b[i] + 3.0 * c[i]


def bytes_alone(w: Workload) -> Run | None:
    """A triad over as many bytes as the workload's arguments and gradient; none where they fit the nearest cache."""
    size = w.bytes // 24
    if w.bytes < 2**17:
        return None
    a, b, c = np.zeros(size), np.ones(size), np.ones(size)
    return lambda: _triad(a, b, c)


LIMITS: dict[str, Callable[[Workload], Run | None]] = {
    "numba by hand": by_hand, "BLAS": blas_alone, "bytes": bytes_alone,
}  # fmt: skip

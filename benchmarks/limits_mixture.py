"""Value and gradient by hand of the Gaussian mixture: see ``limits``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from benchmarks.vectors import FAST, exp, larger, log, wide
from benchmarks.workloads import Workload

Run = Callable[[], Any]
_compiled = njit(fastmath=FAST, error_model="numpy")
_BLOCK = 128  # points at a time: their differences in all components stay in the second cache


@_compiled
def _add(to: Any, k: Any, i: Any, j: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    to[k, i, j] += a
    to[k, i, j + 1] += b
    to[k, i, j + 2] += c
    to[k, i, j + 3] += d


@_compiled
def _mixture(
    alphas: Any, means: Any, diagonals: Any, rest: Any, x: Any, of_alphas: Any, of_means: Any, of_diagonals: Any,
    of_rest: Any, q: Any, shift: Any, constants: Any, turned: Any, moved: Any, inner: Any, sums: Any, products: Any,
    whole: Any,
) -> Any:  # fmt: skip
    """Points lie along the vectors. ``q`` are the triangles with zeros above (or not: ``whole``), padded to fours.

    With m = q x - q mean, the gradients need only the sums over points of w m and of w m x^T: w, the shares, come in
    once, and no difference x - mean is ever stored.
    """
    wide()
    n, d, components = len(x), x.shape[1], len(alphas)
    value = 0.0
    of_alphas[:] = 0.0
    sums[:] = 0.0
    products[:] = 0.0
    for k in range(components):
        constants[k] = alphas[k]
        for i in range(d):
            q[k, i, i] = np.exp(diagonals[k, i])
            constants[k] += diagonals[k, i]
            for j in range(i):
                q[k, i, j] = rest[k, i, j]
        for i in range(d):
            total = 0.0
            for j in range(i + 1):
                total += q[k, i, j] * means[k, j]
            shift[k, i] = total
    for start in range(0, n, _BLOCK):
        size = min(_BLOCK, n - start)
        for p in range(size):
            for j in range(d):
                turned[j, p] = x[start + p, j]
        for k in range(components):
            for p in range(_BLOCK):
                inner[k, p] = 0.0
            for i in range(0, d, 2):
                for p in range(_BLOCK):
                    moved[k, i, p] = -shift[k, i]
                    moved[k, i + 1, p] = -shift[k, i + 1]
                for j in range(0, d if whole else i + 2, 4):
                    a0, a1, a2, a3 = q[k, i, j], q[k, i, j + 1], q[k, i, j + 2], q[k, i, j + 3]
                    b0, b1, b2, b3 = q[k, i + 1, j], q[k, i + 1, j + 1], q[k, i + 1, j + 2], q[k, i + 1, j + 3]
                    for p in range(_BLOCK):
                        x0, x1, x2, x3 = turned[j, p], turned[j + 1, p], turned[j + 2, p], turned[j + 3, p]
                        moved[k, i, p] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                        moved[k, i + 1, p] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                for p in range(_BLOCK):
                    inner[k, p] += moved[k, i, p] * moved[k, i, p] + moved[k, i + 1, p] * moved[k, i + 1, p]
            for p in range(_BLOCK):
                inner[k, p] = constants[k] - 0.5 * inner[k, p]
        value += _shares(inner, size)
        for k in range(components):
            total = 0.0
            for p in range(_BLOCK):
                total += inner[k, p]
            of_alphas[k] += total
            for i in range(0, d, 2):
                s0 = s1 = 0.0
                for p in range(_BLOCK):
                    m0, m1 = moved[k, i, p] * inner[k, p], moved[k, i + 1, p] * inner[k, p]
                    moved[k, i, p], moved[k, i + 1, p] = m0, m1
                    s0 += m0
                    s1 += m1
                sums[k, i] += s0
                sums[k, i + 1] += s1
                for j in range(0, d if whole else min(i + 2, d), 4):
                    p00 = p01 = p02 = p03 = p10 = p11 = p12 = p13 = 0.0
                    for p in range(_BLOCK):
                        m0, m1 = moved[k, i, p], moved[k, i + 1, p]
                        x0, x1, x2, x3 = turned[j, p], turned[j + 1, p], turned[j + 2, p], turned[j + 3, p]
                        p00 += m0 * x0
                        p01 += m0 * x1
                        p02 += m0 * x2
                        p03 += m0 * x3
                        p10 += m1 * x0
                        p11 += m1 * x1
                        p12 += m1 * x2
                        p13 += m1 * x3
                    _add(products, k, i, j, p00, p01, p02, p03)
                    _add(products, k, i + 1, j, p10, p11, p12, p13)
    for k in range(components):
        of_means[k] = 0.0
        for i in range(d):
            for j in range(i + 1):
                of_means[k, j] += q[k, i, j] * sums[k, i]
            of_diagonals[k, i] = of_alphas[k] - q[k, i, i] * (products[k, i, i] - sums[k, i] * means[k, i])
            for j in range(d):
                of_rest[k, i, j] = sums[k, i] * means[k, j] - products[k, i, j] if j < i else 0.0
    return value


@_compiled
def _shares(inner: Any, size: Any) -> Any:
    """Softmax over the components in place, zero beyond ``size``; the sum of the logarithms of their sums."""
    wide()
    components = len(inner)
    top, total = np.empty(_BLOCK), np.zeros(_BLOCK)
    top[:] = inner[0]
    for k in range(1, components):
        for p in range(_BLOCK):
            top[p] = larger(top[p], inner[k, p])
    for k in range(components):
        for p in range(_BLOCK):
            inner[k, p] = exp(inner[k, p] - top[p])
            total[p] += inner[k, p]
    value = 0.0
    for p in range(_BLOCK):
        real = 1.0 if p < size else 0.0
        value += real * (log(total[p]) + top[p])
        total[p] = real / total[p]
    for k in range(components):
        for p in range(_BLOCK):
            inner[k, p] *= total[p]
    return value


def mixture(w: Workload, whole: bool = False) -> Run:
    params, x, _ = w.arguments
    gradient = [np.empty_like(p) for p in params]
    components, padded = len(params[1]), -(-x.shape[1] // 4) * 4
    of_rows, of_squares = (components, padded), (components, padded, padded)
    of_points = ((padded, _BLOCK), (components, padded, _BLOCK), (components, _BLOCK))
    buffers = [np.zeros(s) for s in (of_squares, of_rows, (components,), *of_points, of_rows, of_squares)]
    arrays = (*params, x, *gradient, *buffers, whole)
    return lambda: (_mixture(*arrays), gradient)

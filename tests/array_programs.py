"""Random functions of arrays with rows: what the schedule cuts into bands, fuses, and hands to matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Function = Callable[..., Any]


def arguments(rng: np.random.Generator, dtype: Any = np.float64) -> tuple[dict[str, tuple[int, ...]], list[Any]]:
    """Sizes, and the arguments of a program: data, another of the same rows, two matrices, two vectors, a number."""
    n, d, k = rng.choice([1, 2, 3, 7, 16, 33, 50, 64, 129]), rng.integers(1, 9), rng.integers(1, 9)
    return of_sizes(rng, int(n), int(d), int(k), dtype)


def of_sizes(
    rng: np.random.Generator, n: int, d: int, k: int, dtype: Any = np.float64
) -> tuple[dict[str, tuple[int, ...]], list[Any]]:
    """The same of the given sizes."""
    shapes = {"x": (n, d), "y": (n, k), "w": (d, k), "v": (k, k), "b": (k,), "r": (n,), "c": ()}
    return shapes, [np.asarray(rng.standard_normal(s) * 0.7, dtype)[()] for s in shapes.values()]


def program(rng: np.random.Generator, length: int) -> Function:
    """A function of these arguments, of ``length`` operations drawn at random."""
    choices = rng.integers(0, 2**31, (length, 6))

    def run(*values: Any) -> Any:
        pool = list(values)
        rows = values[0].shape[0]
        for draw in choices:
            pool.append(_step(pool, rows, [int(c) for c in draw]))
        total = 0.0
        for number, value in enumerate(pool[len(values) :]):
            if number % 3 == 0 or number == length - 1:
                total = total + np.sum(value * (0.5 + number % 2)) / max(value.size, 1)
        return total

    return run


def _step(pool: list[Any], rows: int, draw: list[int]) -> Any:
    def pick(fits: Callable[[Any], bool]) -> Any:
        found = [v for v in pool if fits(v)]
        return found[-1 - draw[1] % min(len(found), 5)] if found else None

    kind = draw[0] % 17
    x = pick(lambda v: v.ndim == 2) if draw[2] % 3 else pick(lambda v: v.ndim > 0)
    like = [v for v in pool if v.shape == x.shape]
    y = like[draw[3] % len(like)]
    axis = draw[4] % x.ndim
    if kind == 0:
        return np.tanh(x) * 0.9 + 0.1
    if kind == 1:
        return np.sin(x) * y
    if kind == 2:
        return x / (1.5 + np.abs(y))
    if kind == 3:
        return np.maximum(x, y * 0.3) - 0.2 * x
    if kind == 4:
        return np.where(x > 0.1, x, 0.3 * y)
    if kind == 5:
        return np.exp(-(x**2)) + y * 0.1
    if kind == 6:
        return x - np.sum(x, axis, keepdims=True) / x.shape[axis]
    if kind == 7:
        return np.max(x, axis) * 0.5
    if kind == 8:
        return np.mean(x * y, axis)
    if kind == 9:
        e = np.exp(x - np.max(x, axis, keepdims=True))
        return e / np.sum(e, axis, keepdims=True)
    if kind == 10:
        return np.log(np.sum(np.exp(x), axis) + 1.0)
    if kind == 11:
        return x.T * 0.8 if x.ndim == 2 else np.cumsum(x) / x.size
    if kind == 12:
        row = [v for v in pool if v.ndim == 1 and v.shape[0] == x.shape[-1]]
        return x * row[draw[3] % len(row)] if row else x * 0.5
    if kind == 13:
        column = [v for v in pool if x.ndim == 2 and v.ndim == 1 and v.shape[0] == x.shape[0]]
        return x + column[draw[3] % len(column)][:, None] if column else x + 0.5
    if kind == 14:
        return np.concatenate([x, y], axis) * 0.6 if x.size < 2000 else np.sqrt(1 + x * x)
    if kind == 15:
        half = max(x.shape[axis] // 2, 1)
        return x[:half] * y[-half:] if axis == 0 else x[:, :half] - y[:, ::-1][:, :half]
    right = [v for v in pool if v.ndim == 2 and x.ndim == 2 and v.shape[0] == x.shape[1]]
    flipped = [v.T for v in pool if v.ndim == 2 and x.ndim == 2 and v.shape[1] == x.shape[1]]
    both = right + flipped
    return np.tanh(x @ both[draw[3] % len(both)] / np.sqrt(x.shape[1])) if both else np.cos(x)

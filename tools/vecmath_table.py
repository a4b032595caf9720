"""The tables of docs/vecmath.md: errors and times of our mathematics on this machine.

    python tools/vecmath_table.py              prints both
    python tools/vecmath_table.py exp tanh     of those

Errors are the worst of some 50,000 arguments a function and dtype (those of tests/test_vecmath.py, more of them), of
code with fused multiply-adds and of code without. Times are nanoseconds an element of arrays of 10,000, the best of
many, with the call: of ``wichi.jit``, NumPy (or SciPy), and JAX where it is installed. Needs mpmath.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mpmath

import wichi
import wichi.numpy as wnp
from tests.test_vecmath import CASES, DTYPES, block_of, errors, kernel, points

RANGES = {"log": (0.01, 10), "log2": (0.01, 10), "log10": (0.01, 10), "log1p": (-0.9, 5), "arccosh": (1, 5),
          "arcsin": (-1, 1), "arccos": (-1, 1), "arctanh": (-1, 1), "pow": (0.1, 5), "sin": (-10, 10), "cos": (-10, 10),
          "tan": (-10, 10), "sqrt": (0.1, 5), "1 / sqrt": (0.1, 5)}  # fmt: skip


def functions(name: str) -> tuple[Callable[..., Any], Callable[..., Any], str]:
    """What is compiled, what NumPy or SciPy has, and JAX's name."""
    if name == "1 / sqrt":
        return lambda x: 1 / np.sqrt(x), lambda x: 1 / np.sqrt(x), "jax.lax.rsqrt"
    if name == "sigmoid":
        from scipy.special import expit

        return wnp.sigmoid, expit, "jax.nn.sigmoid"
    theirs = (
        CASES[name].numpy if name in CASES and CASES[name].numpy else getattr(np, "power" if name == "pow" else name)
    )
    ours = getattr(wnp, name) if name in ("erf", "erfc", "softplus") else theirs
    place = {"erf": "scipy.special.", "erfc": "scipy.special.", "softplus": "nn."}.get(name, "numpy.")
    return ours, theirs, f"jax.{place}{'power' if name == 'pow' else name}"


def best(call: Callable[[], Any], seconds: float = 0.3) -> float:
    call()
    found, stop = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.perf_counter()
        for _ in range(5):
            call()
        found = min(found, (time.perf_counter() - start) / 5)
    return found


def worst(name: str, dtype: Any) -> list[float]:
    """With fused multiply-adds and without."""
    xs = points(name, dtype, np.random.default_rng(7), 6000)
    with mpmath.workprec(120):
        exact = [CASES[name].exact(*map(mpmath.mpf, row)) for row in zip(*(x.tolist() for x in xs), strict=True)]
        return [errors(exact, kernel(name, dtype, fused, block_of(dtype))(*xs)).max() for fused in (True, False)]


def times(name: str, dtype: Any) -> list[float]:
    rng, count = np.random.default_rng(3), 10_000
    arity = CASES[name].arity if name in CASES else 1
    xs = [rng.uniform(*RANGES.get(name, (-3, 3)), count).astype(dtype)]
    xs += [rng.uniform(-3, 3, count).astype(dtype)] * (arity - 1)
    ours, theirs, third = functions(name)
    compiled = wichi.jit(lambda *xs: ours(*xs))
    found = [best(lambda: compiled(*xs)), best(lambda: theirs(*xs))]
    try:
        import jax
    except ImportError:
        return [t / count * 1e9 for t in found]
    jax.config.update("jax_enable_x64", True)
    module, _, attribute = third.rpartition(".")
    f = jax.jit(getattr(__import__(module, fromlist=["_"]), attribute))
    arrays = [jax.device_put(x) for x in xs]
    return [t / count * 1e9 for t in (*found, best(lambda: f(*arrays).block_until_ready()))]


def main() -> None:
    names = sys.argv[1:] or [*CASES, "sigmoid", "sqrt", "1 / sqrt"]
    for name in names:
        if name in CASES:
            found = [e for dtype in DTYPES for e in worst(name, dtype)]
            print(f"| {name} | " + " | ".join(f"{e:.2f}" for e in found) + " |", flush=True)
    for name in names:
        found = [t for dtype in DTYPES for t in times(name, dtype)]
        print(f"| {name} | " + " | ".join(f"{t:.2f}" for t in found) + " |", flush=True)


if __name__ == "__main__":
    main()

"""Our exp, log, tanh … against mpmath, at the edges of IEEE arithmetic, and as vector instructions."""

from __future__ import annotations

import re

import mpmath
import numpy as np
import pytest

import wichi
from wichi.kernels import vecmath

EXACT = {
    "exp": mpmath.exp, "exp2": lambda x: mpmath.mpf(2) ** x, "expm1": mpmath.expm1, "log": mpmath.log,
    "log2": lambda x: mpmath.log(x, 2), "log1p": mpmath.log1p, "tanh": mpmath.tanh, "sin": mpmath.sin, "cos": mpmath.cos,
}  # fmt: skip
# The bounds that docs/vecmath.md states, in units in the last place of the result.
BOUNDS = {
    "exp": 1.0,
    "exp2": 1.0,
    "expm1": 1.6,
    "log": 1.0,
    "log2": 1.0,
    "log1p": 1.0,
    "tanh": 1.6,
    "sin": 1.0,
    "cos": 1.0,
}
FLOAT32_BOUNDS = {**dict.fromkeys(EXACT, 0.6), "exp": 1.0, "log": 1.0, "tanh": 1.5}
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 2e-308, 1e308, -1e308, 1e22, -745.2, 709.79])


def points(name, dtype, rng, count=400):
    low = -300 if dtype == np.float64 else -37
    signs = rng.choice([-1.0, 1.0], count)
    found = [
        rng.uniform(-1, 1, count), rng.uniform(-30, 30, count), rng.uniform(-750, 712, count), rng.uniform(0.5, 2, count),
        signs * 10.0 ** rng.uniform(low, 0, count), signs * 10.0 ** rng.uniform(-10, 5, count),
        10.0 ** rng.uniform(low - 10, -low, count), np.arange(-20, 20) * np.pi / 2,
    ]  # fmt: skip
    with np.errstate(over="ignore"):
        x = np.unique(np.concatenate(found).astype(dtype))
    x = x[np.isfinite(x) & (x != 0)]
    return x[x > 0] if name in ("log", "log2") else x[x > -1] if name == "log1p" else x


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_error_in_units_in_the_last_place(name, dtype):
    x = points(name, dtype, np.random.default_rng(0))
    y = wichi.jit(lambda x: getattr(np, name)(x))(x)
    assert y.dtype == dtype
    limits = np.finfo(dtype)
    worst = 0.0
    with mpmath.workprec(200):
        for a, b in zip(x.tolist(), y.tolist(), strict=True):
            exact = EXACT[name](mpmath.mpf(a))
            if abs(exact) > float(limits.max):
                assert b == np.inf, (a, b)
                continue
            assert np.isfinite(b), (a, b)
            with np.errstate(over="ignore"):
                unit = np.spacing(np.maximum(np.abs(dtype(float(exact))), limits.tiny))
            worst = max(worst, float(abs(mpmath.mpf(b) - exact) / mpmath.mpf(float(unit))))
    assert worst <= (BOUNDS[name] if dtype == np.float64 else FLOAT32_BOUNDS[name])


@pytest.mark.parametrize("name", EXACT)
def test_edges_are_numpys(name):
    f = getattr(np, name)
    with np.errstate(all="ignore"):
        want = f(SPECIAL)
    got = wichi.jit(lambda x: f(x))(SPECIAL)
    np.testing.assert_allclose(got, want, rtol=5e-16, atol=0)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


@pytest.mark.parametrize("name", EXACT)
def test_one_number_gives_the_bits_it_gives_in_a_vector(name):
    f = wichi.jit(lambda x: getattr(np, name)(x))
    x = np.random.default_rng(1).uniform(0.01, 3, 37)
    assert f(x).tolist() == [f(v) for v in x]


def test_large_angles_go_to_the_library_block_by_block():
    x = np.linspace(-3, 3, 40)
    x[[3, 17]] = 1e9, -1e15
    np.testing.assert_allclose(wichi.jit(lambda x: np.sin(x))(x), np.sin(x), rtol=1e-15, atol=1e-16)


@pytest.mark.parametrize("name", vecmath.FUNCTIONS)
def test_vectorised_code_calls_no_library(name):
    """Counts instructions in the LLVM IR after its passes, which names vector types on any processor."""
    from wichi.kernels import link
    from wichi.kernels.native import llvm_ir
    from wichi.kernels.schedule import plan

    program = plan(wichi.jit(lambda x: getattr(np, name)(x)).graph(np.ones(64))).program
    text = str(link.optimised(llvm_ir(program)[1], link.host()))
    assert len(re.findall(r"fmul <8 x double>", text)) >= 8
    calls = len(re.findall(rf"call double @{name}\(", text))
    # The limited ones keep their calls, lane by lane, for the full blocks and for the last one.
    assert calls == (16 if name in ("sin", "cos") else 0)

"""Random numbers that are drawn while a function is traced are frozen in it: a warning tells, where that can be seen."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

import wichi
from wichi import randomness


def test_draws_from_the_global_generator_are_told_once_a_function():
    def noisy(x):
        return np.sum(x) * np.random.rand()  # noqa: NPY002

    f = wichi.jit(noisy)
    with pytest.warns(RuntimeWarning, match=r"noisy drew from np.random .* noisy\(x, np.random.normal") as caught:
        first = f(np.ones(3))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert caught[0].lineno == noisy.__code__.co_firstlineno
    assert f(np.ones(3)) == first  # frozen, as it says
    f(np.ones(4))
    wichi.grad(noisy)(np.ones(3))  # no second warning, which would be an error


def test_seeding_and_the_innermost_functions_are_told_too():
    def seeded(x):
        np.random.seed(0)  # noqa: NPY002
        return x * 2

    def outer(x):
        return wichi.grad(lambda y: y * np.random.normal())(x)  # noqa: NPY002

    for f, name in ((seeded, "seeded"), (outer, "outer")):
        with pytest.warns(RuntimeWarning, match=f"{name} drew") as caught:
            wichi.jit(f)(1.0)
        assert len(caught) == 1


def test_nothing_is_told_of_functions_that_draw_nothing_or_of_calls():
    f = wichi.jit(lambda x, noise: x + noise)
    for _ in range(3):
        f(1.0, np.random.normal())  # noqa: NPY002
    rng = np.random.default_rng(0)
    wichi.jit(lambda x: x + rng.normal())(1.0)  # frozen as well, and not to be seen


def test_a_generator_of_another_kind_is_left_alone():
    old = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(0))
    try:
        assert randomness.position() is None
        wichi.jit(lambda x: x + np.random.normal())(1.0)  # noqa: NPY002
    finally:
        np.random.set_bit_generator(old)
    assert randomness.position() is not None


def test_the_first_draw_of_a_process_is_told():
    script = (
        "import sys, numpy as np, wichi\n"
        "wichi.jit(lambda x: x * 2)(1.0)\n"
        "assert 'numpy.random' not in sys.modules\n"
        "wichi.jit(lambda x: x + np.random.normal())(1.0)\n"
    )
    done = subprocess.run([sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, check=True)
    assert "f drew from np.random" in done.stderr


def test_the_place_is_the_generators_own():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for count in (1, 5, 700):
            np.random.rand(count)  # noqa: NPY002
            assert randomness.position()[0] == np.random.get_state(legacy=False)["state"]["pos"]  # noqa: NPY002

"""Random array programs under every way they may be cut into blocks of rows, against NumPy and the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from tests.array_programs import arguments, of_sizes, program
from wichi.kernels import bands, writer
from wichi.kernels.loops import Load, Loop, walk
from wichi.kernels.schedule import plan
from wichi.kernels.source import source

WAYS = {
    "as it is": {},
    "short blocks": {"CACHE": 256, "_LARGER_CACHE": 2048, "_ENOUGH_ROWS": 4, "_PRODUCT_ROWS": 8, "_SHARED": 16},
    "blocks of one row": {"CACHE": 1, "_LARGER_CACHE": 1, "_ENOUGH_ROWS": 1, "_PRODUCT_ROWS": 1, "_SHARED": 1},
    "blocks of all rows": {"CACHE": 1 << 40},
}


def close(got, want, dtype=np.float64):
    error = 1e-9 if dtype == np.float64 else 2e-3
    for a, b in zip(wichi.pytree.leaves(got), wichi.pytree.leaves(want), strict=True):
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        np.testing.assert_allclose(a, b, rtol=error, atol=error * scale)


def cut(monkeypatch, way):
    for name, value in WAYS[way].items():
        monkeypatch.setattr(bands, name, value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed, way, monkeypatch):
    cut(monkeypatch, way)
    rng = np.random.default_rng(seed)
    dtype = [np.float64, np.float64, np.float32][seed % 3]
    _, given = arguments(rng, dtype)
    f = program(rng, int(rng.integers(3, 40)))
    g = wichi.value_and_grad(f, argnums=tuple(range(len(given))), allow_unused=True)
    value, gradients = g(*given)
    close(value, f(*given), dtype)
    with wichi.debug():
        close((value, gradients), g(*given), dtype)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of means of nothing
@pytest.mark.parametrize("sizes", [(0, 3, 0), (0, 4, 4), (1, 0, 4), (5, 2, 0), (5, 0, 1)])
def test_random_programs_of_empty_arrays(sizes):
    checked = 0
    for seed in range(18):
        rng = np.random.default_rng(seed)
        _, given = of_sizes(rng, *sizes)
        f = program(rng, int(rng.integers(3, 30)))
        try:
            want = f(*given)
        except ValueError:  # the largest of no numbers
            continue
        g = wichi.value_and_grad(f, argnums=tuple(range(len(given))), allow_unused=True)
        value, gradients = g(*given)
        close(value, want)
        with wichi.debug():
            close((value, gradients), g(*given))
        checked += 1
    assert checked >= 3


@pytest.mark.parametrize("columns", [1, 7, 16, 17, 32, 33, 100])
def test_longer_blocks_where_functions_wait_for_each_other(columns, monkeypatch):
    monkeypatch.setattr(
        writer, "LONG", frozenset({"sqrt", "div"})
    )  # in place of exp and its like: NumPy's bits are ours

    def f(x):
        for i in range(5):
            x = np.sqrt(np.abs(x * x - 0.3) + 0.1 * i) * 0.9 - x / 7
        return np.sum(x), np.max(x), np.sum(x, axis=0), x

    for dtype in (np.float64, np.float32):
        x = np.random.default_rng(columns).standard_normal((5, columns)).astype(dtype)
        g = wichi.jit(f)
        nests = plan(g.graph(x)).program.nests
        assert any(s.brief for nest in nests for s in walk(nest.body) if isinstance(s, Loop))
        space = {}
        exec(g.source(x), space)
        for got, want in zip(g(x), space["program"](x), strict=True):
            assert np.asarray(got).tobytes() == np.asarray(want).tobytes()
        close(g(x), f(x), dtype)


@pytest.mark.parametrize("way", ["as it is", "short blocks"])
@pytest.mark.parametrize("seed", range(20, 24))
def test_the_printed_program_runs_in_the_same_blocks(seed, way, monkeypatch):
    cut(monkeypatch, way)
    rng = np.random.default_rng(seed)
    _, given = arguments(rng)
    g = wichi.value_and_grad(program(rng, 12), argnums=(0, 1, 2), allow_unused=True)
    space = {}
    exec(source(g.graph(*given)), space)
    close(wichi.pytree.leaves(g(*given)), space["program"](*given))


@pytest.mark.parametrize("seed", range(6))
def test_any_number_of_threads_gives_the_same_bits(seed, monkeypatch):
    monkeypatch.setattr("wichi.kernels.program.FROM_BYTES", 0)
    cut(monkeypatch, "short blocks")
    rng = np.random.default_rng(100 + seed)
    _, given = arguments(rng)
    f = program(rng, 20)
    found = []
    for threads in (1, 2, 3, 7):
        monkeypatch.setattr(wichi.config, "parallel", threads)
        g = wichi.value_and_grad(f, argnums=tuple(range(len(given))), allow_unused=True)
        found.append([np.asarray(v).tobytes() for v in wichi.pytree.leaves(g(*given))])
        with wichi.debug():
            want = g(*given)
        close(g(*given), want)
    assert all(bits == found[0] for bits in found)


def logistic(w, x, y):
    return np.mean(np.logaddexp(0, -y * (x @ w)))


def test_rows_go_through_memory_once():
    """Between the product with the data and the product with its transpose nothing of the rows' length is kept."""
    x, y, w = np.ones((100_000, 20)), np.ones(100_000), np.ones(20)
    found = plan(wichi.value_and_grad(logistic).graph(w, x, y))
    assert len(found.program.bands) == 1
    assert found.arena_bytes < 1 << 19


def test_a_child_process_has_threads_of_its_own():
    import multiprocessing

    x, y = np.random.default_rng(0).standard_normal((60_000, 20)), np.sign(np.linspace(-1, 1, 60_000))
    wichi.config.parallel = 2
    try:
        want = wichi.grad(logistic)(np.ones(20), x, y)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            got = pool.apply_async(wichi.grad(logistic), (np.ones(20), x, y)).get(timeout=60)
    finally:
        wichi.config.parallel = 0
    assert got.tobytes() == want.tobytes()


def test_what_others_than_its_band_read_lies_in_their_order():
    """The gradient of a weight, made in a band of another family: the step of the optimiser reads it along its rows."""

    def step(params, moments, x):
        hidden = np.tanh(x @ params[0])
        value, pull = wichi.vjp(lambda p: np.sum(np.square(np.tanh(np.tanh(x @ p[0]) @ p[1]) @ p[2])), params)
        (gradient,) = pull(1.0)
        moments = [0.9 * m + 0.1 * np.square(g) for m, g in zip(moments, gradient, strict=True)]
        new = [p - g / (np.sqrt(m) + 1e-6) for p, m, g in zip(params, moments, gradient, strict=True)]
        return new, moments, value + hidden[0, 0]

    rng = np.random.default_rng(0)
    params = [rng.normal(size=s) * 0.1 for s in ((90, 40), (40, 30), (30, 10))]
    graph = wichi.jit(step).graph(params, [np.zeros_like(p) for p in params], rng.normal(size=(32, 90)))
    found = plan(graph)
    sqrt = [nest for nest in found.program.nests if any(getattr(s, "op", "") == "sqrt" for s in walk(nest.body))]
    assert sqrt
    for nest in sqrt:
        for loop in (s for s in walk(nest.body) if isinstance(s, Loop) and s.lanes):
            loads = [s for s in walk(loop.body) if isinstance(s, Load)]
            assert all(stride == 1 for s in loads for counter, stride in s.index.terms if counter == loop.counter)

"""Matrix products of all sizes and layouts: our own loops for small ones and BLAS, chosen while the program runs."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from wichi.kernels import program
from wichi.kernels.schedule import plan

SIZES = [0, 1, 2, 3, 5, 8, 9, 15, 16, 17, 23, 33, 40]
# What is done to an argument inside the function, and the shape that the argument then has.
VIEWS = {
    "rows": (lambda a: a, lambda m, n: (m, n)),
    "transposed": (lambda a: a.T, lambda m, n: (n, m)),
    "every other row": (lambda a: a[::2], lambda m, n: (2 * m, n)),
    "backwards": (lambda a: a[::-1], lambda m, n: (m, n)),
    "middle columns": (lambda a: a[:, 1:-1], lambda m, n: (m, n + 2)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("left", VIEWS)
@pytest.mark.parametrize("right", VIEWS)
def test_sizes_and_layouts(left, right, dtype):
    rng = np.random.default_rng(0)
    (view_a, shape_a), (view_b, shape_b) = VIEWS[left], VIEWS[right]
    f = wichi.jit(lambda a, b: view_a(a) @ view_b(b))
    for _ in range(30):
        m, k, n = (int(s) for s in rng.choice(SIZES, 3))
        a = np.asarray(rng.standard_normal(shape_a(m, k)), dtype)
        b = np.asarray(rng.standard_normal(shape_b(k, n)), dtype)
        want = view_a(a).astype(np.float64) @ view_b(b).astype(np.float64)
        bound = 8 * np.finfo(dtype).eps * (np.abs(view_a(a)) @ np.abs(view_b(b)) + 1e-30) * (k + 1)
        assert np.all(np.abs(f(a, b) - want) <= bound)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_of_products_are_added_where_they_lie(dtype):
    rng = np.random.default_rng(1)
    for m, k, n in ((3, 4, 5), (1, 1, 1), (16, 2, 33), (60, 50, 70)):
        a, b, c, d = (np.asarray(rng.standard_normal(s), dtype) for s in ((m, k), (k, n), (m, k), (k, n)))
        got = wichi.jit(lambda a, b, c, d: a @ b + c @ d)(a, b, c, d)
        np.testing.assert_allclose(got, a @ b + c @ d, rtol=1e-4 if dtype == np.float32 else 1e-12, atol=1e-5)
        gradients = wichi.grad(lambda a, b: np.sum(np.tanh(a @ b) + np.tanh(a @ b * 2)), argnums=(0, 1))(a, b)
        with wichi.debug():
            want = wichi.grad(lambda a, b: np.sum(np.tanh(a @ b) + np.tanh(a @ b * 2)), argnums=(0, 1))(a, b)
        for x, y in zip(gradients, want, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3 if dtype == np.float32 else 1e-10, atol=1e-4)


def test_results_hold_nan_and_infinity_as_blas_does():
    a, b = np.ones((4, 4)), np.ones((4, 4))
    a[1, 2], b[3, 0] = np.nan, np.inf
    np.testing.assert_array_equal(wichi.jit(np.matmul)(a, b), a @ b)


def test_empty_sums_are_zero():
    assert not wichi.jit(np.matmul)(np.ones((3, 0)), np.ones((0, 4))).any()
    assert wichi.jit(np.matmul)(np.ones((0, 3)), np.ones((3, 4))).shape == (0, 4)
    assert wichi.jit(lambda a, b: a @ b)(np.ones(0), np.ones(0)) == 0.0


def test_all_sizes_share_a_program():
    """The choice between our loops and BLAS is made where the sizes are known: when the program runs."""
    f = wichi.jit(lambda a, b: a @ b)
    made = {repr(plan(f.graph(np.ones((m, 6)), np.ones((6, 5)))).program) for m in (2, 3, 10, 100, 1000)}
    assert len(made) == 1


def test_an_mlp_compiles_once_for_all_batch_sizes():
    model = wichi.MLP(dim=[6, 5, 3], seed=0)
    step = wichi.value_and_grad(lambda model, x, y: wichi.nn.cross_entropy(y, model(x)))
    programs = {}
    for n in range(2, 101):
        found = plan(step.graph(model, np.ones((n, 6)), np.eye(3)[np.zeros(n, int)]))
        programs.setdefault(repr(found.program), []).append(n)
    assert len(programs) == 1, {len(text): sizes for text, sizes in programs.items()}


def test_a_new_batch_size_compiles_nothing():
    w = np.random.default_rng(0).standard_normal((4, 3))

    @wichi.jit
    def step(w, x, y):
        loss, g = wichi.value_and_grad(lambda w: np.mean((np.tanh(x @ w) - y) ** 2))(w)
        return w - 0.1 * g, loss

    step(w, np.ones((2, 4)), np.ones((2, 3)))
    before = program.compile_count
    for n in (3, 4, 7, 32, 100, 1000):
        step(w, np.ones((n, 4)), np.ones((n, 3)))
    assert program.compile_count == before

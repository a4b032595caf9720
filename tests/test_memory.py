"""Donated arguments, what a call allocates, and functions that travel."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import tracemalloc

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError


def step(params, state, x):
    def loss(p):
        return np.mean((np.tanh(x @ p["w"]) + p["b"]) ** 2)

    value, g = wichi.value_and_grad(loss)(params)
    new = {k: 0.9 * state[k] + g[k] for k in g}
    return {k: params[k] - 0.1 * new[k] for k in new}, new, value


def start():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(300, 200)), "b": rng.normal(size=200)}
    return params, {k: np.zeros_like(v) for k, v in params.items()}, rng.normal(size=(10, 300))


class TestDonation:
    def test_same_numbers_in_the_same_arrays(self):
        plain, donating = wichi.jit(step), wichi.jit(step, donate_argnums=(0, 1))
        p, s, x = start()
        q, r, _ = copy.deepcopy((p, s, x))
        addresses = [v.ctypes.data for v in (*q.values(), *r.values())]
        for _ in range(4):
            p, s, value = plain(p, s, x)
            q, r, other = donating(q, r, x)
            assert value == other
            for a, b in zip((*p.values(), *s.values()), (*q.values(), *r.values()), strict=True):
                np.testing.assert_array_equal(a, b)
        assert [v.ctypes.data for v in (q["w"], q["b"], r["w"], r["b"])] == addresses

    def test_allocates_nothing_of_the_size_of_the_parameters(self):
        donating = wichi.jit(step, donate_argnums=(0, 1))
        q, r, x = start()
        for _ in range(3):
            q, r, _ = donating(q, r, x)
        assert donating.memory(q, r, x).outputs == 8
        tracemalloc.start()
        for _ in range(3):
            q, r, _ = donating(q, r, x)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50_000  # w alone has 480,000 bytes

    def test_reads_of_the_old_value_come_first(self):
        f = wichi.jit(lambda a, b: (b[::-1] + 1.0, a[::-1] * 2.0), donate_argnums=(0, 1))
        a, b = np.arange(5.0), np.arange(5.0) * 10
        x, y = f(a, b)
        np.testing.assert_array_equal(x, [41, 31, 21, 11, 1])
        np.testing.assert_array_equal(y, [8, 6, 4, 2, 0])
        assert x is a
        assert y is b
        g = wichi.jit(lambda a: (a + 1.0, np.sum(a), a @ np.ones(5)), donate_argnums=0)
        new, total, product = g(np.ones(5))
        assert total == product == 5.0
        assert new.tolist() == [2.0] * 5

    def test_under_debug_and_inside_a_trace(self):
        f = wichi.jit(lambda a: a * 2.0, donate_argnums=0)
        a = np.ones(3)
        with wichi.debug():
            assert f(a) is a
        np.testing.assert_array_equal(a, 2.0)
        np.testing.assert_array_equal(wichi.grad(lambda a: np.sum(f(a)))(a), 2.0)
        np.testing.assert_array_equal(a, 2.0)

    def test_refusals(self):
        f = wichi.jit(lambda a, b: a + b, donate_argnums=0)
        a = np.ones((3, 3))
        with pytest.raises(ArgumentError, match="shares memory"):
            f(a, a)
        with pytest.raises(ArgumentError, match="not contiguous"):
            f(np.ones((3, 6))[:, ::2], a)
        a.flags.writeable = False
        with pytest.raises(ArgumentError, match="writable"):
            f(a, np.ones((3, 3)))
        np.testing.assert_array_equal(a, 1.0)
        with pytest.raises(ArgumentError, match="donate_argnums=3"):
            wichi.jit(lambda a: a, donate_argnums=3)(np.ones(2))


def test_a_pointwise_gradient_allocates_its_result_and_nothing_else_of_that_size():
    f = wichi.value_and_grad(lambda x: np.sum(np.sin(x) * np.exp(-(x**2))))
    found = f.memory(np.ones(10**6))
    assert found.outputs == 8 * 10**6 + 8
    assert found.working < 1000


def softmax_loss(z, y):
    top = np.max(z, axis=1)[:, None]
    return np.mean(np.log(np.sum(np.exp(z - top), axis=1)) + top[:, 0] - np.sum(z * y, axis=1))


@pytest.mark.parametrize("classes", [7, 1000])
def test_what_dies_where_a_result_is_made_lies_in_its_memory(classes):
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(300, classes)), rng.normal(size=(300, classes))
    f = wichi.grad(softmax_loss)
    assert f.memory(z, y).working < 8 * 300 * 3  # the exponentials are rows of the gradient
    with wichi.debug():
        expected = f(z, y)
    np.testing.assert_allclose(f(z, y), expected, rtol=1e-12, atol=1e-15)


def test_what_dies_is_kept_where_others_read_it():
    x = np.random.default_rng(1).normal(size=(40, 30))

    def f(x):
        a = np.exp(x) @ x.T  # lies in memory
        b = a * 2.0 + a.T  # a is read in another order too
        c = np.tanh(a)
        return b @ c, c + a, np.sum(b, axis=0), a[:3]

    for got, want in zip(wichi.jit(f)(x), f(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_checkpoint_takes_less():
    def deep(x, wrap):
        for _ in range(8):
            x = wrap(lambda v: np.sin(np.tanh(v @ np.eye(64)) * 1.5))(x)
        return np.sum(x)

    x = np.ones((256, 64))
    plain = wichi.grad(lambda x: deep(x, lambda f: f)).memory(x).working
    apart = wichi.grad(lambda x: deep(x, wichi.checkpoint)).memory(x).working
    assert apart < 0.75 * plain


# --- functions that travel -------------------------------------------------------------------------------------------
@wichi.jit
def decorated(x):
    return np.sum(x**2)


gradient = wichi.value_and_grad(step and (lambda x: np.sum(np.sin(x))))


def plain_function(x):
    return np.sum(np.cos(x))


def slope(x):
    return wichi.grad(plain_function)(x)


def test_pickle_and_copy():
    x = np.arange(3.0)
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    assert copy.deepcopy(decorated) is decorated
    again = pickle.loads(pickle.dumps(wichi.grad(plain_function)))
    np.testing.assert_array_equal(again(x), -np.sin(x))
    np.testing.assert_array_equal(copy.copy(wichi.grad(plain_function))(x), -np.sin(x))


def test_cloudpickle_takes_lambdas():
    cloudpickle = pytest.importorskip("cloudpickle", reason="install cloudpickle to run this")
    scale = 3.0
    again = pickle.loads(cloudpickle.dumps(wichi.grad(lambda x: scale * x**2)))
    assert again(2.0) == 12.0


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes(method):
    x = np.arange(3.0)
    wichi.grad(plain_function)(x)
    with multiprocessing.get_context(method).Pool(2) as pool:
        for found in pool.map(wichi.grad(plain_function), [x, 2 * x, 3 * x]):
            assert found.shape == (3,)
        np.testing.assert_array_equal(pool.map(slope, [x])[0], -np.sin(x))

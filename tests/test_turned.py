"""Blocks with their rows innermost: random programs on narrow arrays of three axes, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from tests.test_bands import WAYS, close, cut
from wichi.kernels import turned
from wichi.kernels.axes import Families
from wichi.kernels.schedule import plan


def arguments(rng, dtype):
    """Points, what is taken from them, a matrix a component, a share a component."""
    n, k, d = int(rng.choice([1, 2, 7, 16, 33, 64, 129, 300])), int(rng.integers(1, 9)), int(rng.integers(1, 20))
    shapes = ((n, d), (k, d), (k, d, d), (k,), (d, 3))
    return [np.asarray(rng.standard_normal(s) * 0.6, dtype) for s in shapes]


def program(rng):
    kinds = rng.integers(0, 10, 5)

    def loss(x, means, matrices, shares, w):
        wide = x[:, None, :] - means[None]
        total = 0.0
        for kind in kinds:
            if kind == 0:
                wide = np.einsum("kij,nkj->nki", matrices, wide) + 0.3 * wide
            elif kind == 1:
                wide = np.tanh(wide) * shares[None, :, None]
            elif kind == 2:
                wide = wide - np.max(wide, axis=1, keepdims=True)
            elif kind == 3:
                wide = wide / (1.0 + np.sum(np.square(wide), axis=2)[:, :, None])
            elif kind == 4:
                total = total + np.mean(np.log(np.sum(np.exp(np.sum(wide, axis=2)), axis=1)))
            elif kind == 5:
                wide = wide * np.exp(means)[None] + x[:, None, :]
            elif kind == 6:
                total = total + np.sum((x @ w) ** 2) / x.size
            elif kind == 7:
                wide = np.maximum(wide, 0.1 * wide[:, ::-1, :])
            elif kind == 8:
                wide = wide + np.mean(wide, axis=0)[None]
            else:
                total = total + np.sum(wide[:, :1] * wide[:, -1:]) / wide.size
        return total + np.sum(np.square(wide) * shares[:, None]) / wide.size

    return loss


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(7))
def test_random_programs(seed, way, monkeypatch):
    cut(monkeypatch, way)
    rng = np.random.default_rng(4 * seed + [*WAYS].index(way))
    dtype = [np.float64, np.float64, np.float32][seed % 3]
    values, loss = arguments(rng, dtype), program(rng)
    f = wichi.value_and_grad(loss, argnums=(0, 1, 2, 3))
    with wichi.debug():
        expected = f(*values)
    close(f(*values), expected, dtype)
    close(wichi.jit(loss)(*values), loss(*values), dtype)
    monkeypatch.setattr(wichi.config, "parallel", 2)
    close(wichi.value_and_grad(lambda *a: loss(*a), argnums=(0, 1, 2, 3))(*values), expected, dtype)


def mixture(x, means, matrices):
    moved = np.einsum("kij,nkj->nki", matrices, x[:, None, :] - means[None])
    inner = -0.5 * np.sum(np.square(moved), axis=2)
    top = np.max(inner, axis=1)[:, None]
    return np.sum(np.log(np.sum(np.exp(inner - top), axis=1)) + top[:, 0])


def mixture_arguments(n=500, k=6, d=10):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)), rng.normal(size=(k, d)), rng.normal(size=(k, d, d))


def is_turned(f, *values):
    graph = f.graph(*values)
    return turned.turned(graph, Families(graph)) is not None


def test_a_mixture_is_turned_and_what_is_not_narrow_is_not():
    f = wichi.grad(mixture, argnums=(1, 2))
    assert is_turned(f, *mixture_arguments())
    assert not is_turned(f, *mixture_arguments(d=40))
    assert not is_turned(wichi.grad(lambda x: np.sum(np.tanh(x))), np.ones((50, 10)))


def test_all_that_lives_in_a_block_takes_the_memory_of_a_block():
    values = mixture_arguments(n=20_000)
    f = wichi.grad(mixture, argnums=(1, 2))
    assert f.memory(*values).working < 1 << 20  # one array of points and components has 9.6 MB


def test_every_number_of_points_runs_one_program():
    f = wichi.grad(mixture, argnums=(1, 2))
    programs = {plan(f.graph(*mixture_arguments(n=n))).program for n in (2, 15, 64, 100, 5000)}
    assert len(programs) == 1


def test_sums_over_components_that_are_results_lie_in_their_order():
    rng = np.random.default_rng(0)
    x, centres = rng.normal(size=(700, 13)), rng.normal(size=(5, 13))

    def loss(centres, x):
        apart = np.sum((x[:, None, :] - centres[None]) ** 2, axis=2)
        return -np.sum(np.log(np.sum(np.exp(-apart), axis=1)))

    f = wichi.grad(loss, argnums=(0, 1))
    assert is_turned(f, centres, x)
    with wichi.debug():
        expected = f(centres, x)
    for got, want in zip(f(centres, x), expected, strict=True):
        assert got.flags.c_contiguous
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)

"""Sparse Jacobians and Hessians: patterns hold the truth, values are the dense ones, products are few."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import wichi
from wichi.sparse import hessian, jacobian

SPOTS = np.array([3, 0, 7, 3, 5, -1])


def _scan_rows(x, m, i):
    def body(carry, row):
        return carry, np.sin(row) * row[0] + m[0]

    return wichi.scan(body, 0.0, m)[1].ravel()


def _scan_carry(x, m, i):
    def body(carry, row):
        carry = 0.5 * carry + np.roll(carry, 1) * row[0]
        return carry, carry[:2]

    last, ys = wichi.scan(body, m[0], m, reverse=True)
    return np.concatenate([last, ys.ravel()[:4]])


def _scan_counter(x, m, i):
    def body(k, z):
        return wichi.cond(k % 2 == 0, lambda: z * x[k], lambda: z + x[k + 1])

    return wichi.fori_loop(0, 5, body, x)


def _long_scan(x, m, i):
    def body(z, k):
        return np.concatenate([z[:1] * 0.9, z[1:] + 0.1 * np.sin(z[:-1])]), z[k % 3]

    last, ys = wichi.scan(body, x, np.arange(1500))
    return last + ys[:8]


def _while(x, m, i):
    return wichi.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, np.concatenate([s[1][:1], s[1][:-1] * 0.7])), (i, x)
    )[1]


def _while_on_values(x, m, i):
    halved = wichi.while_loop(lambda s: s[0] ** 2 > 0.3, lambda s: (s[0] * 0.5, s[1] * s[1][0]), (x[0], x))
    return halved[1] + halved[0]


STEPS = {
    "sin": lambda x, m, i: np.sin(x),
    "product": lambda x, m, i: x * np.roll(x, 3),
    "difference": lambda x, m, i: np.concatenate([x[1:] - x[:-1], x[:1]]),
    "stride": lambda x, m, i: np.concatenate([x[::2], x[::-2]]),
    "sum": lambda x, m, i: x / (2 + np.sum(m**2, axis=0))[i],
    "mean": lambda x, m, i: (m - np.mean(m, axis=1, keepdims=True)).ravel(),
    "cumsum": lambda x, m, i: np.cumsum(m, axis=0).ravel(),
    "reversed cumsum": lambda x, m, i: np.cumsum(x[::-1])[::-1] * 0.3,
    "prod": lambda x, m, i: x * np.prod(m[:, 1:3], axis=1)[1],
    "max": lambda x, m, i: np.max(m, axis=0)[[0, 1, 2, 3, 3, 2, 1, 0]] + x,
    "matrix": lambda x, m, i: (m @ (np.eye(4) + np.eye(4, k=1))).ravel(),
    "matrix, left": lambda x, m, i: (np.array([[0.0, 2.0], [1.0, 0.0]]) @ m).ravel() + np.arange(8.0),
    "gram": lambda x, m, i: np.concatenate([(m @ m.T).ravel(), x[:4]]),
    "gather": lambda x, m, i: np.concatenate([x[SPOTS], x[:2]]),
    "gather two": lambda x, m, i: np.concatenate([m[[0, 1, 1], [3, 3, 0]], x[3:]]),
    "gather a variable": lambda x, m, i: x * x[i] + m[i % 2, 0],
    "scatter": lambda x, m, i: _added(x),
    "scatter to a variable": lambda x, m, i: _added_at(x, i),
    "write": lambda x, m, i: _written(x, m),
    "where": lambda x, m, i: np.where(x > 0.1, x, np.roll(x, -1)),
    "maximum": lambda x, m, i: np.maximum(x, np.roll(x, 2)),
    "cond": lambda x, m, i: wichi.cond(x[0] > 0.2, lambda z: np.roll(z, 1), lambda z: z**2, x),
    "switch": lambda x, m, i: wichi.switch(i, [lambda z: z[::-1], np.sin, lambda z: z + z[0]], x),
    "stop": lambda x, m, i: x * wichi.stop_gradient(np.roll(x, 1)),
    "checkpoint": lambda x, m, i: wichi.checkpoint(lambda z: np.sin(z) * np.roll(z, 1))(x),
    "solve": lambda x, m, i: np.concatenate([np.linalg.solve(m[:, :2] + 9 * np.eye(2), m[:, 2:]).ravel(), x[4:]]),
    "vmap": lambda x, m, i: wichi.vmap(lambda r: r * r[::-1] + r[0])(m).ravel(),
    "scan over rows": _scan_rows,
    "scan with a carry": _scan_carry,
    "loop with a counter": _scan_counter,
    "long scan": _long_scan,
    "while": _while,
    "while on values": _while_on_values,
}


def _added(x):
    z = x * 0.5
    np.add.at(z, SPOTS, x[:6])
    return z


def _added_at(x, i):
    z = x * 0.5
    z[i] += x[2] * x[3]
    return z


def _written(x, m):
    z = x * 1.0
    z[2:5] = m[0, 1:]
    z[SPOTS] = x[1:7] ** 2
    return z


def program(names):
    def f(x, i):
        for name in names:
            x = np.sin(STEPS[name](x, x.reshape(2, 4), i)) + 0.1
        return x

    return f


NUMBERS = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=8))
PROGRAMS = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4)


def check(f, x, i=2):
    dense = wichi.jacobian(f)(x, i)
    found = jacobian(f)(x, i)
    np.testing.assert_allclose(found.toarray(), dense, rtol=1e-9, atol=1e-12)
    assert not np.any(dense[jacobian(f).pattern(x, i).toarray() == 0])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PROGRAMS, NUMBERS)
def test_jacobians_of_random_programs(names, x):
    with wichi.debug():
        check(program(names), x)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(PROGRAMS, NUMBERS)
def test_hessians_of_random_programs(names, x):
    def loss(x, i):
        return np.sum(np.sin(program(names)(x, i)))

    with wichi.debug():
        dense = wichi.hessian(loss)(x, 2)
        found = hessian(loss)(x, 2)
        np.testing.assert_allclose(found.toarray(), dense, rtol=1e-8, atol=1e-10)

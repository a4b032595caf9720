"""Functions made again by the same line find their traces, by all that they hold; and never those of another."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import wichi

X = np.array([1.0, 2.0])


class Counter:
    """How often a function body ran: once a trace."""

    def __init__(self):
        self.runs = 0

    def __call__(self):
        self.runs += 1


def test_a_function_that_holds_another_made_by_the_same_line():
    ran = Counter()

    def fresh(scale):
        def inner(x):
            ran()
            return np.sum(x**2) * scale

        return wichi.value_and_grad(lambda x: inner(x) + 1.0)

    array = np.array(3.0)
    for _ in range(3):
        f = fresh(array)
        for _ in range(4):  # the fast way in, too
            assert f(X)[0] == 16.0
    assert ran.runs == 1
    for scale in (np.array(3.0), 2.0, 4.0, 2.0):
        f = fresh(scale)
        for _ in range(4):
            assert f(X)[0] == 5.0 * scale + 1.0


def test_a_function_that_takes_the_place_of_another_of_the_same_line():
    """Both have the same code; what is compared must be what the new one holds."""

    def maker(scale):
        return lambda x: np.sum(x) * scale[0]

    one, two = [np.float64(1.0)], [np.float64(2.0)]
    inner = maker(one)
    f = wichi.grad(lambda x: inner(x))
    for _ in range(4):
        assert f(X)[0] == 1.0
    inner = maker(two)
    for _ in range(4):
        assert f(X)[0] == 2.0

    def deeper(k):
        def middle(x):
            return innermost(x)

        def innermost(x):
            return np.sum(x) * k

        return middle

    held = deeper(1.0)
    g = wichi.grad(lambda x: held(x))
    for k in (1.0, 5.0, 1.0, 7.0):
        held = deeper(k)
        for _ in range(4):
            assert g(X)[0] == k


GLOBAL = [lambda x, k=k: np.sum(x) * k for k in (1.0, 2.0, 3.0)]
chosen = GLOBAL[0]


def by_global(x):
    return chosen(x)


def test_globals_that_are_functions_of_the_same_line(monkeypatch):
    f = wichi.grad(by_global)
    for k in (0, 1, 2, 0):
        monkeypatch.setitem(globals(), "chosen", GLOBAL[k])
        for _ in range(4):
            assert f(X)[0] == k + 1.0


class Model:
    def __init__(self, k):
        self.k = k

    def loss(self, x):
        return np.sum(x) * self.k


def plain(k, x, power=1):
    return np.sum(x**power) * k


@pytest.mark.parametrize(
    "make",
    [
        lambda k: Model(k).loss,
        lambda k: functools.partial(plain, k),
        lambda k: functools.partial(lambda x, k: plain(k, x), k=k),
        lambda k: functools.partial(functools.partial(plain, k), power=1),
        lambda k: wichi.jit(lambda x: plain(k, x)),
        lambda k: wichi.checkpoint(lambda x: plain(k, x)),
        lambda k: (lambda ks: lambda x: plain(ks[1], x))((0, k)),
        lambda k: (lambda ks: lambda x: plain(ks["k"], x))({"k": k}),
    ],
    ids=["method", "partial", "partial of a lambda", "partials", "jit", "checkpoint", "tuple", "dict"],
)
def test_all_that_holds_numbers(make):
    """Functions of one line, each holding another number in its own way."""
    for k in (1.0, 2.0, 0.0, -0.0, np.float64(3.0), np.array(4.0), 5, 1.0, 2.0):
        held = make(k)
        f = wichi.value_and_grad(lambda x: held(x) + np.sum(x))
        for _ in range(4):
            assert f(X)[0] == 3.0 * k + 3.0
            assert f(X)[1][0] == k + 1.0


def test_numbers_are_told_apart_by_their_bits_and_types():
    def fresh(k):
        return wichi.jit(lambda x: np.copysign(x, k) if isinstance(k, float) else np.sum(x) + isinstance(k, bool))

    for _ in range(2):
        assert fresh(0.0)(X).tolist() == [1.0, 2.0]
        assert fresh(-0.0)(X).tolist() == [-1.0, -2.0]
        assert fresh(1)(X) == 3.0
        assert fresh(True)(X) == 4.0
        assert fresh(1.0)(X).tolist() == [1.0, 2.0]


def test_solvers_trace_a_function_written_in_their_call_once():
    ran = Counter()
    data = np.linspace(0.0, 1.0, 5)
    for k in range(4):
        found = wichi.scipy.optimize.minimize(
            lambda p, d: ran() or np.sum((p["a"] * d - d) ** 2), {"a": 3.0}, args=(data,), method="BFGS"
        )
        np.testing.assert_allclose(found.x["a"], 1.0, rtol=1e-6)
        if k == 0:
            first = ran.runs
    assert ran.runs == first
    other = wichi.scipy.optimize.minimize(
        lambda p, d: np.sum((p["a"] * d - 2 * d) ** 2), {"a": 3.0}, args=(data,), method="BFGS"
    )
    np.testing.assert_allclose(other.x["a"], 2.0, rtol=1e-6)
    ran.runs = 0
    y = np.stack([2.0 * data, 3.0 * data])
    for _ in range(3):
        batch = wichi.fit.least_squares_batch(lambda p, y: (ran(), p[0] * data - y)[1], np.ones((2, 1)), y)
        np.testing.assert_allclose(batch.x[:, 0], [2.0, 3.0])
    twice = ran.runs
    wichi.fit.least_squares_batch(lambda p, y: (ran(), p[0] * data - y)[1], np.ones((2, 1)), y)  # of another line
    assert ran.runs == 2 * twice

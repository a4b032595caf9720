"""Roots, linear solves and differential equations: derivatives of the solution."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError


def root(a):
    def f(x):
        return {"u": x["u"] ** 2 + x["v"] - a[0], "v": x["v"] ** 3 + x["u"] * a[1] - 2.0}

    def newton(f, x):
        def step(_, x):
            flat = lambda v: np.stack([f({"u": v[0], "v": v[1]})["u"], f({"u": v[0], "v": v[1]})["v"]])  # noqa: E731
            v = np.stack([x["u"], x["v"]])
            v = v - np.linalg.solve(wichi.jacobian(flat)(v), flat(v))
            return {"u": v[0], "v": v[1]}

        return wichi.fori_loop(0, 30, step, x)

    def tangent(g, y):
        m = wichi.jacobian(g)(y)
        matrix = np.stack([np.stack([m["u"]["u"], m["u"]["v"]]), np.stack([m["v"]["u"], m["v"]["v"]])])
        z = np.linalg.solve(matrix, np.stack([y["u"], y["v"]]))
        return {"u": z[0], "v": z[1]}

    x = wichi.custom_root(f, {"u": 1.0, "v": 1.0}, newton, tangent)
    return x["u"] + 2.0 * x["v"]


def test_root_and_its_derivatives():
    a = np.array([2.0, 0.5])
    value = wichi.jit(root)(a)
    g = wichi.grad(root)
    eye = np.eye(2) * 1e-5
    np.testing.assert_allclose(g(a), [(root(a + e) - root(a - e)) / 2e-5 for e in eye], rtol=1e-7)
    np.testing.assert_allclose(wichi.jvp(root, (a,), (a,))[1], g(a) @ a)
    second = np.stack([(g(a + e) - g(a - e)) / 2e-5 for e in eye])
    np.testing.assert_allclose(wichi.hessian(root)(a), second, rtol=1e-6)
    np.testing.assert_allclose(wichi.jacrev(g)(a), second, rtol=1e-6)
    np.testing.assert_allclose(wichi.vmap(g)(np.stack([a, 1.1 * a])), [g(a), g(1.1 * a)])
    assert np.isclose(value, root(a))


@pytest.mark.parametrize("symmetric", [True, False])
def test_linear_solve(symmetric):
    rng = np.random.default_rng(0)
    m, b = rng.normal(size=(3, 3)) + 4 * np.eye(3), rng.normal(size=3)

    def direct(f, y):
        return np.linalg.solve(wichi.jacobian(f)(y), y)

    def solution(m, b):
        a = m @ m.T if symmetric else m
        x = wichi.custom_linear_solve(lambda v: a @ v, b, direct, None if symmetric else direct, symmetric)
        return np.sum(np.sin(x))

    def plain(m, b):
        return np.sum(np.sin(np.linalg.solve(m @ m.T if symmetric else m, b)))

    found = wichi.grad(solution, argnums=(0, 1))(m, b)
    for g, w in zip(found, wichi.grad(plain, argnums=(0, 1))(m, b), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10)
    np.testing.assert_allclose(wichi.hessian(solution, argnums=1)(m, b), wichi.hessian(plain, argnums=1)(m, b))
    np.testing.assert_allclose(
        wichi.jvp(solution, (m, b), (m, b))[1], np.sum(found[0] * m) + np.sum(found[1] * b), rtol=1e-10, atol=1e-12
    )


def test_linear_solve_refuses_what_it_cannot_turn_round():
    with pytest.raises(ArgumentError, match="transpose_solve"):
        wichi.custom_linear_solve(lambda v: v, np.ones(2), lambda f, b: b)


class TestOdeint:
    def test_against_scipy_at_requested_times(self):
        from scipy.integrate import solve_ivp

        def field(y, t, mu):
            return np.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0] + 0.1 * np.sin(t)])

        t = np.array([0.0, 0.3, 1.0, 1.01, 5.0, 9.0])
        ours = wichi.odeint(field, np.array([2.0, 0.0]), t, 1.5)
        theirs = solve_ivp(lambda t, y: field(y, t, 1.5), (0, 9), [2.0, 0.0], t_eval=t, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(ours, theirs.y.T, atol=2e-6)

    def test_derivatives_in_state_and_parameters(self):
        t = np.linspace(0.0, 2.0, 5)

        def loss(y0, rate):
            ys = wichi.odeint(lambda y, t, r: {"a": -r * y["a"] * y["b"], "b": y["a"] - y["b"]}, y0, t, rate)
            return np.sum(ys["a"] ** 2 * t) + np.sum(ys["b"])

        y0, rate = {"a": 1.0, "b": np.float64(0.5)}, 0.7
        g0, gr = wichi.grad(loss, argnums=(0, 1))(y0, rate)
        e = 1e-4
        numeric = (loss(y0, rate + e) - loss(y0, rate - e)) / (2 * e)
        assert np.isclose(gr, numeric, rtol=1e-5)
        numeric = (loss({**y0, "a": 1.0 + e}, rate) - loss({**y0, "a": 1.0 - e}, rate)) / (2 * e)
        assert np.isclose(g0["a"], numeric, rtol=1e-5)
        along = wichi.jvp(loss, (y0, rate), (y0, rate))[1]
        assert np.isclose(along, g0["a"] * 1.0 + g0["b"] * 0.5 + gr * rate, rtol=1e-9)

    def test_vmap(self):
        t = np.array([0.0, 1.0])
        rates = np.array([0.5, 2.0, 8.0])
        found = wichi.vmap(lambda r: wichi.odeint(lambda y, t: -r * y, 1.0, t)[-1])(rates)
        np.testing.assert_allclose(found, np.exp(-rates), atol=1e-8)

    def test_too_many_steps_give_nan_not_a_wrong_number(self):
        found = wichi.odeint(lambda y, t: -1000.0 * (y - np.cos(t)), 0.0, np.array([0.0, 5.0]), mxstep=20)
        assert np.isnan(found[-1])

    def test_bad_input(self):
        with pytest.raises(ArgumentError, match="must be floats"):
            wichi.odeint(lambda y, t: y, 1, np.array([0.0, 1.0]))
        with pytest.raises(ArgumentError, match="vector of times"):
            wichi.odeint(lambda y, t: y, 1.0, 2.0)

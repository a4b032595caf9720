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
    def f(b):
        return np.sum(wichi.custom_linear_solve(lambda v: 2.0 * v, b, lambda f, b: b / 2.0) ** 2)

    b = np.array([1.0, 3.0])
    assert f(b) == 2.5
    assert wichi.jvp(f, (b,), (np.array([1.0, 0.0]),))[1] == 0.5  # forward mode needs no transpose
    np.testing.assert_allclose(np.stack([wichi.jvp(lambda b: wichi.jvp(f, (b,), (b,))[1], (b,), (b,))[1]]), 10.0)
    with pytest.raises(ArgumentError, match="transpose_solve"):
        wichi.grad(f)(b)


def test_auxiliary_results_of_solves():
    newton = lambda f, x: (wichi.fori_loop(0, 30, lambda i, x: x - f(x) / (3 * x**2), x), {"rounds": 30, "first": x})  # noqa: E731

    def cube_root(a):
        return wichi.custom_root(lambda x: x**3 - a, 1.0, newton, lambda g, y: y / g(1.0), has_aux=True)

    (value, aux), slope = wichi.value_and_grad(cube_root, has_aux=True)(8.0)
    assert np.isclose(value, 2.0)
    assert np.isclose(slope, 1 / 12)
    assert aux == {"rounds": 30, "first": 1.0}
    found, aux = wichi.vmap(wichi.grad(cube_root, has_aux=True))(np.array([8.0, 27.0]))
    np.testing.assert_allclose(found, [1 / 12, 1 / 27])
    np.testing.assert_array_equal(aux["rounds"], [30, 30])

    def halved(b):
        return wichi.custom_linear_solve(lambda v: 2.0 * v, b, lambda f, b: (b / 2.0, 7), symmetric=True, has_aux=True)

    assert wichi.grad(halved, has_aux=True)(3.0) == (0.5, 7)


X = np.array([1.0, 2.0, 3.0])
direct = lambda f, b: np.linalg.solve(wichi.jacobian(f)(b), b)  # noqa: E731


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: wichi.custom_root(lambda x: (x, x), X, lambda f, x: x, direct), r"another tree.*x is \(\*, \*\) where \* fits"),
        (lambda: wichi.custom_root(lambda x: x[:2], X, lambda f, x: x, direct), r"takes f64\[3\] for x and answers f64\[2\]"),
        (lambda: wichi.custom_root(lambda x: x - 1, X, lambda f, x: x[:2], direct), r"solve answers f64\[2\] for x"),
        (lambda: wichi.custom_root(lambda x: x - 1, {"a": X}, lambda f, x: x, direct), "unsupported operand|another tree"),
        (lambda: wichi.custom_root(lambda x: x - 1, X, lambda f, x: {"a": x}, direct), r"x is \{'a': \*\} where \* fits"),
        (lambda: wichi.custom_root(lambda x: x, np.arange(3), lambda f, x: x, direct), r"x is i64\[3\]; it must be floats"),
        (lambda: wichi.custom_root(lambda x: x, X, lambda f, x: x, direct, has_aux=True), r"pair \(x, aux\)"),
        (lambda: wichi.custom_root(lambda x: x, X, 3, direct), "solve is int, not a function"),
        (lambda: wichi.jacfwd(lambda a: wichi.custom_root(lambda x: x - a, X, lambda f, x: a, lambda g, y: y[0]))(X), r"tangent_solve answers f64\[\] for x"),
        (lambda: wichi.custom_linear_solve(lambda v: v, X, lambda f, b: b[:2], symmetric=True), r"solve answers f64\[2\] for x"),
        (lambda: wichi.custom_linear_solve(lambda v: v * v, X, direct, direct), r"must be linear is not.*\n.*test_implicit.py:\d+ in <lambda>"),
    ],
)  # fmt: skip
def test_solves_that_answer_something_else(call, text):
    with pytest.raises((ArgumentError, TypeError), match=text):
        call()


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

    def test_derivatives_against_scipy(self):
        from scipy.integrate import solve_ivp

        t = np.array([0.0, 0.4, 1.7, 1.7, 3.0])
        weights = np.arange(10.0).reshape(5, 2)

        def field(y, t, mu):
            return np.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

        def theirs(y0, mu):
            found = solve_ivp(lambda t, y: field(y, t, mu), (0, 3), y0, t_eval=np.unique(t), rtol=1e-12, atol=1e-13).y.T
            return np.sum(found[[0, 1, 2, 2, 3]] * weights)

        g0, gm = wichi.grad(lambda y0, mu: np.sum(wichi.odeint(field, y0, t, mu) * weights), argnums=(0, 1))(
            np.array([2.0, 0.5]), 0.7
        )
        e = 1e-5
        assert np.isclose(g0[0], (theirs([2 + e, 0.5], 0.7) - theirs([2 - e, 0.5], 0.7)) / (2 * e), rtol=1e-5)
        assert np.isclose(g0[1], (theirs([2, 0.5 + e], 0.7) - theirs([2, 0.5 - e], 0.7)) / (2 * e), rtol=1e-5)
        assert np.isclose(gm, (theirs([2, 0.5], 0.7 + e) - theirs([2, 0.5], 0.7 - e)) / (2 * e), rtol=1e-5)

    def test_dtypes_are_kept_and_steps_bounded(self):
        t = np.linspace(0.0, 1.0, 4)
        y0 = {"a": np.ones(2, np.float32), "b": 1.0}
        found = wichi.odeint(lambda y, t: {"a": -y["a"], "b": y["a"].sum() - y["b"]}, y0, t)
        assert found["a"].dtype == np.float32
        assert found["b"].dtype == np.float64
        np.testing.assert_allclose(found["a"][:, 0], np.exp(-t), rtol=1e-6)
        # A field that is zero at first: only a bounded step sees that it does not stay so.
        kick = lambda y, t: np.where(np.abs(t - 6.0) < 0.5, 1.0, 0.0) + 0.0 * y  # noqa: E731
        assert np.isclose(wichi.odeint(kick, 0.0, [0.0, 10.0], hmax=0.1)[-1], 1.0, atol=0.05)

    def test_times_that_decrease(self):
        decay = lambda t: wichi.odeint(lambda y, t: -y, 1.0, t)  # noqa: E731
        with pytest.raises(ArgumentError, match=r"times decrease.*\n(.*\n)*.*-func\(y, -s\)"):
            decay(np.array([0.0, 1.0, 0.5]))
        found = wichi.jit(decay)(np.array([0.0, 1.0, 0.1, 2.0]))
        assert np.isnan(found[2])
        np.testing.assert_allclose(found[[1, 3]], np.exp([-1.0, -2.0]), rtol=1e-6)

    def test_bad_input(self):
        t = np.array([0.0, 1.0])
        for call, text in (
            (lambda: wichi.odeint(lambda y, t: y, {"a": 1}, t), r"y0\['a'\] is i64\[\]; y0 must be floats"),
            (lambda: wichi.odeint(lambda y, t: y, 1.0, 2.0), "vector of times"),
            (
                lambda: wichi.odeint(lambda y, t: (y, y), 1.0, t),
                r"func answers the tree \(\*, \*\) for y, where \* fits",
            ),
            (
                lambda: wichi.odeint(lambda y, t: {"a": y["a"][:2]}, {"a": X}, t),
                r"answers f64\[2\] for y\['a'\], which is f64\[3\]",
            ),
            (lambda: wichi.odeint(3, 1.0, t), "func is int, not a function"),
        ):
            with pytest.raises(ArgumentError, match=text):
                call()

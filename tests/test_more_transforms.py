"""linearize, static arguments, chunks of a Hessian, and check_grads."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError, GradientError


def test_linearize():
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(3, 3)), rng.normal(size=3)
    result, push = wichi.linearize(lambda w, x: {"y": np.tanh(w @ x), "n": np.sum(x > 0)}, w, x)
    value, along = wichi.jvp(lambda w, x: np.tanh(w @ x), (w, x), (x[None] * w, x))
    np.testing.assert_allclose(result["y"], value)
    np.testing.assert_allclose(push(x[None] * w, x)["y"], along)
    np.testing.assert_allclose(push(2 * x[None] * w, 2 * x)["y"], 2 * along)
    with pytest.raises(ArgumentError, match="tangents of linearize"):
        push(x, w)


@pytest.mark.parametrize("loop", ["scan", "while", "cond"])
def test_linearize_around_loops(loop):
    def f(x):
        if loop == "scan":
            return np.sum(wichi.scan(lambda s, _: (np.sin(s) * x, np.sum(s)), x, length=3)[0])
        if loop == "while":
            return wichi.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, np.sin(c[1]) * x), (0, x))[1].sum()
        return wichi.cond(x[0] > 0, lambda x: np.sum(np.sin(x)), np.sum, x)

    x, t = np.array([0.4, 0.9, 1.3]), np.array([1.0, -2.0, 0.5])
    value, push = wichi.linearize(f, x)
    want, tangent = wichi.jvp(f, (x,), (t,))
    assert value == pytest.approx(want)
    assert push(t) == pytest.approx(tangent)
    assert push(3 * t) == pytest.approx(3 * tangent)
    assert wichi.jit(lambda x: wichi.linearize(f, x)[1](t))(x) == pytest.approx(tangent)


class TestStatic:
    def test_each_value_has_its_own_trace(self):
        calls = []

        def f(x, n, mode):
            calls.append((n, mode))
            y = x
            for _ in range(n):
                y = np.sin(y) if mode == "sin" else y * x
            return np.sum(y)

        g = wichi.grad(f, static_argnums=(1, 2))
        x = np.array([0.3, 0.5])
        for _ in range(3):
            np.testing.assert_allclose(g(x, 2, "mul"), 3 * x**2)
            np.testing.assert_allclose(g(x, 1, "sin"), np.cos(x))
        assert calls == [(2, "mul"), (1, "sin")]
        assert np.isclose(wichi.jit(f, static_argnums=(1, -1))(x, 1, "sin"), np.sin(x).sum())

    def test_argnums_count_static_arguments_too(self):
        g = wichi.value_and_grad(lambda n, x: x**n, argnums=1, static_argnums=0)
        assert g(3, 2.0) == (8.0, 12.0)

    def test_refusals(self):
        with pytest.raises(ArgumentError, match="cannot be hashed"):
            wichi.jit(lambda x, n: x, static_argnums=1)(1.0, [1])
        with pytest.raises(ArgumentError, match="both static and differentiated"):
            wichi.grad(lambda n, x: x**n, static_argnums=0)(3, 2.0)
        with pytest.raises(ArgumentError, match="2 positional arguments"):
            wichi.jit(lambda x, n: x, static_argnums=4)(1.0, 2)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50])
def test_chunks_do_not_change_a_hessian(chunk):
    rng = np.random.default_rng(0)
    x, data = rng.normal(size=7), rng.normal(size=(20, 7))

    def f(x):
        return np.sum(np.log1p(np.exp(data @ x)))

    whole = wichi.hessian(f)(x)
    np.testing.assert_allclose(wichi.hessian(f, chunk=chunk)(x), whole, rtol=1e-12)
    s = 1 / (1 + np.exp(-data @ x))
    np.testing.assert_allclose(whole, (data * (s * (1 - s))[:, None]).T @ data)


class TestCheckGrads:
    def test_passes_what_is_right(self):
        wichi.testing.check_grads(lambda p, n: p["a"] ** n * np.sin(p["b"]), ({"a": 1.5, "b": np.ones(2)}, 3), order=2)
        wichi.testing.check_grads(np.tanh, (np.linspace(-1, 1, 4, dtype=np.float32),))

    def test_names_the_input_that_is_wrong(self):
        @wichi.custom_vjp
        def f(x, y):
            return x * y

        f.defvjp(lambda x, y: (x * y, (x, y)), lambda r, ct: (ct * r[1], ct * r[0] * 1.01))
        with pytest.raises(GradientError, match=r"derivative in y is wrong \(fwd\)"):
            wichi.testing.check_grads(f, (2.0, 3.0))
        with pytest.raises(GradientError, match=r"derivative in p\['b'\]\[1\] is wrong \(rev\)"):
            wichi.testing.check_grads(lambda p: f(p["a"], p["b"][1]), ({"a": 2.0, "b": [1.0, 3.0]},), modes="rev")

    def test_names_the_order(self):
        f = wichi.custom_jvp(np.sin)
        f.defjvp(lambda p, t: (np.sin(p[0]), wichi.stop_gradient(np.cos(p[0])) * t[0]))
        wichi.testing.check_grads(f, (np.ones(3),))
        with pytest.raises(GradientError, match="derivative of order 2 in x is wrong"):
            wichi.testing.check_grads(f, (np.ones(3),), order=2)

    def test_finds_a_rule_that_answers_another_value(self):
        f = wichi.custom_vjp(lambda x: {"y": np.sin(x)})
        f.defvjp(lambda x: ({"y": np.sin(x) * np.array([1.0, 1.01])}, x), lambda x, ct: (np.cos(x) * ct["y"],))
        with pytest.raises(GradientError, match=r"result\['y'\]\[1\] is 0.90.* where the function answers 0.89"):
            wichi.testing.check_grads(f, (np.array([0.5, 1.1]),), modes="rev")

    def test_bad_input(self):
        for call, text in (
            (lambda: wichi.testing.check_grads(np.sin, np.ones(2)), "must be a tuple"),
            (lambda: wichi.testing.check_grads(np.sin, (1.0,), modes="reverse"), "no mode 'reverse'"),
            (lambda: wichi.testing.check_grads(np.sin, (1,)), "nothing to check"),
        ):
            with pytest.raises(ArgumentError, match=text):
                call()


def test_integer_tangents_become_floats_inside_a_transform_too():
    def f(x):
        return np.sum(x**3)

    x, p = np.array([1.0, 2.0]), np.array([1, 0])
    np.testing.assert_allclose(wichi.jit(lambda x, p: wichi.hvp(f, (x,), (p,)))(x, p), [6.0, 0.0])
    np.testing.assert_allclose(wichi.jit(lambda x, p: wichi.vjp(lambda y: y**2, x)[1](p)[0])(x, p), [2.0, 0.0])

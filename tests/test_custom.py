"""Functions with rules of the user's own, and recomputed ones."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError


@wichi.custom_jvp
def twice(x, y):
    return np.sin(x) * y


@twice.defjvp
def _twice_rule(primals, tangents):
    (x, y), (x_dot, y_dot) = primals, tangents
    return twice(x, y), 2.0 * (np.cos(x) * y * x_dot + np.sin(x) * y_dot)  # twice the truth, to be told apart


@wichi.custom_vjp
def thrice(x, y):
    return np.sin(x) * y


thrice.defvjp(
    lambda x, y: (np.sin(x) * y, (x, y)),
    lambda res, ct: (3.0 * ct * np.cos(res[0]) * res[1], 3.0 * ct * np.sin(res[0])),
)


@pytest.mark.parametrize(("f", "factor"), [(twice, 2.0), (thrice, 3.0)])
class TestRules:
    def test_first_order(self, f, factor):
        assert np.isclose(f(0.3, 2.0), 2 * np.sin(0.3))
        assert np.isclose(wichi.jit(f)(0.3, 2.0), 2 * np.sin(0.3))
        gx, gy = wichi.grad(f, argnums=(0, 1))(0.3, 2.0)
        assert np.isclose(gx, factor * 2 * np.cos(0.3))
        assert np.isclose(gy, factor * np.sin(0.3))
        value, along = wichi.jvp(f, (0.3, 2.0), (1.0, 0.0))
        assert np.isclose(value, 2 * np.sin(0.3))
        assert np.isclose(along, gx)

    def test_second_order_differentiates_the_rule(self, f, factor):
        # Of the rule's result, 2 cos(x) y x': its sine is plain, so the second derivative has the factor once.
        for second in (wichi.jacfwd(wichi.grad(f)), wichi.jacrev(wichi.grad(f))):
            assert np.isclose(second(0.3, 2.0), -factor * 2 * np.sin(0.3))

    def test_vmap(self, f, factor):
        x = np.linspace(0.1, 1.0, 5)
        np.testing.assert_allclose(wichi.vmap(f, (0, None))(x, 2.0), 2 * np.sin(x))
        g = wichi.vmap(wichi.grad(f, argnums=(0, 1)), (0, None))(x, 2.0)
        np.testing.assert_allclose(g[0], factor * 2 * np.cos(x))
        np.testing.assert_allclose(g[1], factor * np.sin(x))
        total = wichi.grad(lambda y: np.sum(wichi.vmap(f, (0, None))(x, y)))(2.0)
        np.testing.assert_allclose(total, factor * np.sum(np.sin(x)))

    def test_inside_scan(self, f, factor):
        g = wichi.grad(lambda x: wichi.scan(lambda c, _: (f(c, x), None), x, None, 2)[0])
        s, c, x = np.sin, np.cos, 0.7
        inner = s(x) * x
        inner_dot = factor * (c(x) * x + s(x))
        assert np.isclose(g(x), factor * (c(inner) * x * inner_dot + s(inner)))

    def test_eager(self, f, factor):
        x = wichi.Tensor(0.3)
        f(x, 2.0).backward()
        assert np.isclose(float(np.asarray(getattr(x.grad, "data", x.grad))), factor * 2 * np.cos(0.3))


def test_eager_trees_in_and_out():
    @wichi.custom_vjp
    def f(p):
        return {"out": p["a"] * p["b"], "other": p["a"]}

    f.defvjp(
        lambda p: ({"out": p["a"] * p["b"], "other": p["a"]}, p),
        lambda p, ct: ({"a": 2.0 * ct["out"] * p["b"] + ct["other"], "b": 2.0 * ct["out"] * p["a"]},),
    )
    a, b = wichi.Tensor(3.0), wichi.Tensor(5.0)
    found = f({"a": a, "b": b})
    (found["out"] * 1.0 + found["other"] * 10.0).backward()
    assert (float(np.asarray(a.grad)), float(np.asarray(b.grad))) == (20.0, 6.0)


def test_trees_and_static_arguments():
    @wichi.custom_vjp
    def f(p, scale):
        return {"out": p["a"] * scale["s"]}

    f.defvjp(
        lambda p, scale: ({"out": p["a"] * scale["s"]}, (p, scale)),
        lambda res, ct: ({"a": ct["out"] * res[1]["s"], "b": np.zeros(2)}, None),
    )
    g = wichi.grad(lambda p, s: np.sum(f(p, s)["out"]))({"a": np.ones(3), "b": np.ones(2)}, {"s": 4.0})
    np.testing.assert_allclose(g["a"], [4.0, 4.0, 4.0])

    power = wichi.custom_jvp(lambda n, x: x**n, nondiff_argnums=(0,))
    power.defjvp(lambda n, primals, tangents: (primals[0] ** n, n * primals[0] ** (n - 1) * tangents[0]))
    assert np.isclose(wichi.grad(lambda x: power(3, x))(2.0), 12.0)


def test_one_rule_an_argument():
    f = wichi.custom_jvp(lambda x, y: np.sin(x) * y)
    f.defjvps(lambda t, out, x, y: 2.0 * np.cos(x) * y * t, lambda t, out, x, y: out / y * t)
    gx, gy = wichi.grad(f, argnums=(0, 1))(0.3, 2.0)
    assert np.isclose(gx, 4.0 * np.cos(0.3))
    assert np.isclose(gy, np.sin(0.3))
    f.defjvps(None, lambda t, out, x, y: t)
    assert wichi.grad(f, argnums=(0, 1))(0.3, 2.0) == (0.0, 1.0)
    f.defjvps(None, None)
    assert wichi.grad(f)(0.3, 2.0) == 0.0


def test_arguments_that_are_no_arrays_by_number_and_by_name():
    for how in ({"nondiff_argnums": (0, 2)}, {"nondiff_argnames": ("g", "n")}, {"nondiff_argnums": (0, -1)}):

        @functools.partial(wichi.custom_vjp, **how)
        def f(g, x, n):
            return g(x) * n

        f.defvjp(lambda g, x, n: (f(g, x, n), x), lambda g, n, x, ct: (ct * x * n,))
        assert wichi.grad(lambda x: f(np.sin, x, 3))(2.0) == 6.0
        assert wichi.grad(lambda x: f(n=3, g=np.sin, x=x))(2.0) == 6.0


def test_methods_defaults_and_ufuncs():
    class Model:
        @functools.partial(wichi.custom_jvp, nondiff_argnums=(0,))
        def f(self, x):
            return x * 2

        @f.defjvp
        def _(self, primals, tangents):
            return primals[0] * 2, tangents[0] * 5

    assert wichi.grad(Model().f)(1.0) == 5.0

    f = wichi.custom_vjp(lambda x, k=2.0: x * k)
    f.defvjp(lambda x, k: (x * k, k), lambda k, ct: (ct * k, None))
    assert wichi.grad(f)(1.0) == 2.0
    assert wichi.grad(lambda x: f(x, k=7.0))(1.0) == 7.0

    sine = wichi.custom_vjp(np.sin)  # whose `out=` is no argument of the rule
    sine.defvjp(lambda x: (sine(x), x), lambda x, ct: (3.0 * ct * np.cos(x),))
    assert np.isclose(wichi.grad(sine)(0.3), 3.0 * np.cos(0.3))


class TestClosures:
    """Functions and rules that close over values inside a transform: no need to convert closures to arguments."""

    @staticmethod
    def make(kind, a):
        if kind == "jvp":
            f = wichi.custom_jvp(lambda x: np.sin(x) * a)
            f.defjvp(lambda p, t: (f(*p), 2.0 * np.cos(p[0]) * a * t[0]))
        else:
            f = wichi.custom_vjp(lambda x: np.sin(x) * a)
            f.defvjp(lambda x: (np.sin(x) * a, x), lambda x, ct: (2.0 * np.cos(x) * a * ct,))
        return f

    @pytest.mark.parametrize("kind", ["jvp", "vjp"])
    def test_what_is_not_differentiated_may_be_closed_over(self, kind):
        def f(x, a):
            return self.make(kind, a)(x)

        x, xs = 0.3, np.array([0.3, 1.0, 2.0])
        c, s = np.cos, np.sin
        assert np.isclose(wichi.grad(f)(x, 5.0), 10 * c(x))
        assert np.isclose(wichi.grad(wichi.jit(f))(x, 5.0), 10 * c(x))
        assert np.isclose(wichi.grad(wichi.grad(f))(x, 5.0), -10 * s(x))
        np.testing.assert_allclose(wichi.vmap(wichi.grad(f), (None, 0))(x, xs), 2 * c(x) * xs)
        np.testing.assert_allclose(wichi.vmap(wichi.grad(f))(xs, xs), 2 * c(xs) * xs)
        np.testing.assert_allclose(np.diag(wichi.jacfwd(f)(xs, 5.0)), 10 * c(xs))
        jitted = wichi.jit(f)
        for a in (5.0, 7.0):  # what a cached trace holds is read anew
            assert np.isclose(jitted(x, a), a * s(x))
            assert np.isclose(wichi.grad(jitted)(x, a), 2 * a * c(x))
        # Rules are differentiated in what they close over: the inner gradient is 2 cos(x) a.
        assert np.isclose(wichi.grad(lambda a: wichi.grad(self.make(kind, a))(x))(5.0), 2 * c(x))
        last = wichi.grad(lambda x: wichi.scan(lambda v, r: (self.make(kind, r)(v), None), x, xs)[0])(x)
        v, slope = x, 1.0
        for r in xs:
            slope *= 2 * r * c(v)
            v = r * s(v)
        assert np.isclose(last, slope)

    @pytest.mark.parametrize("kind", ["jvp", "vjp"])
    def test_a_derivative_that_would_be_lost_is_an_error(self, kind):
        def f(x, a):
            return self.make(kind, a)(x)

        for wanted in (1, (0, 1)):
            with pytest.raises(ArgumentError, match=r"not among its arguments.*\n(.*\n)*.*stop_gradient"):
                wichi.grad(f, argnums=wanted)(0.3, 5.0)
        with pytest.raises(ArgumentError, match="not among its arguments"):
            wichi.jvp(f, (0.3, 5.0), (1.0, 1.0))
        g = wichi.grad(lambda x, a: f(x, wichi.stop_gradient(a)) * a, argnums=1)
        assert np.isclose(g(0.3, 5.0), 5.0 * np.sin(0.3))


class TestRefusals:
    @pytest.mark.parametrize(
        ("define", "text"),
        [
            (lambda f: f.defjvp(lambda p, t: p[0]), r"must return a pair \(result, tangent\)"),
            (lambda f: f.defjvp(lambda p, t: (p[0], t[0] ** 2)), r"test_custom.py:\d+ in <lambda>:.*t\[0\] \*\* 2"),
            (lambda f: f.defjvp(lambda p, t: (p[0], np.abs(t[0]))), "must be linear is not"),
            (lambda f: f.defjvp(lambda p, t: (p[0], None)), "tangent of the jvp rule is the tree None"),
            (lambda f: f.defjvp(lambda p, t: (p[0], "x")), "tangent of the jvp rule is str"),
            (lambda f: f.defjvps(None, None), "are 2 for 1 arguments"),
            (lambda f: f.defjvp(lambda p, t: (p[0], t[0]), symbolic_zeros=True), "never symbolic zeros"),
        ],
    )
    def test_jvp_rules(self, define, text):
        f = wichi.custom_jvp(lambda x: x * 2.0)
        with pytest.raises(ArgumentError, match=text):
            define(f), wichi.grad(f)(1.0)

    @pytest.mark.parametrize(
        ("forward", "backward", "text"),
        [
            (lambda x: x, lambda r, ct: (ct,), r"must return a pair \(result, residuals\)"),
            (
                lambda x: ({"b": x}, None),
                lambda r, ct: (ct,),
                r"result of the forward rule is the tree \{'b': \*\} where \*",
            ),
            (lambda x: (x, None), lambda r, ct: ct, r"tuple of 1, one an argument.*\n(.*\n)*.*with the comma"),
            (lambda x: (x, None), lambda r, ct: (ct, ct), "tuple of 1"),
            (
                lambda x: (x, None),
                lambda r, ct: ((ct, ct),),
                r"cotangent of argument 0 .* is the tree \(\*, \*\) where \*",
            ),
            (
                lambda x: (x, None),
                lambda r, ct: (np.float32(1) * ct.astype(np.float32),),
                r"is f32\[\] where f64\[\] fits",
            ),
        ],
    )
    def test_vjp_rules(self, forward, backward, text):
        f = wichi.custom_vjp(lambda x: x * 2.0)
        f.defvjp(forward, backward)
        with pytest.raises(ArgumentError, match=text):
            wichi.grad(f)(1.0)

    def test_arguments(self):
        f = wichi.custom_vjp(lambda x, *, k=2.0: x * k)
        f.defvjp(lambda x: (x, None), lambda _, ct: (ct,))
        with pytest.raises(ArgumentError, match="k can only be given by keyword"):
            f(1.0, k=3.0)
        f = wichi.custom_vjp(lambda n, x: x * n, nondiff_argnums=(0,))
        f.defvjp(lambda n, x: (x * n, None), lambda n, r, ct: (ct * n,))
        with pytest.raises(ArgumentError, match=r"Argument 0 .* is in nondiff_argnums, but it is a value inside"):
            wichi.grad(lambda x, n: f(n, x))(1.0, 2)
        f = wichi.custom_vjp(lambda x: x, nondiff_argnums=(3,))
        f.defvjp(lambda x: (x, None), lambda r, ct: (ct,))
        with pytest.raises(ArgumentError, match="nondiff_argnums has 3"):
            f(1.0)
        with pytest.raises(ArgumentError, match="no parameter 'z'"):
            wichi.custom_vjp(lambda x: x, nondiff_argnames=("z",))

    def test_wrong_shape_from_a_rule(self):
        f = wichi.custom_vjp(lambda x: np.sum(x))
        f.defvjp(lambda x: (np.sum(x), None), lambda _, ct: (ct,))
        with pytest.raises(ArgumentError, match=r"cotangent of argument 0 .* is f64\[\] where f64\[3\] fits"):
            wichi.grad(f)(np.ones(3))

    def test_wrong_tree_from_a_rule(self):
        f = wichi.custom_jvp(lambda x: x * 2.0)
        f.defjvp(lambda p, t: (p[0] * 2.0, (t[0], t[0])))
        with pytest.raises(ArgumentError, match="tangent of the jvp rule is the tree"):
            wichi.grad(f)(1.0)

    def test_wrong_dtype_from_a_rule(self):
        f = wichi.custom_jvp(lambda x: x * 2.0)
        f.defjvp(lambda p, t: (p[0] * 2.0, t[0].astype(np.float32)))
        with pytest.raises(ArgumentError, match=r"is f32\[\] where f64\[\] fits"):
            wichi.grad(f)(1.0)

    def test_no_rule_yet(self):
        with pytest.raises(ArgumentError, match="has no rule yet"):
            wichi.custom_jvp(np.sin)(1.0)


class TestCheckpoint:
    @staticmethod
    def layers(w, x, wrap):
        def block(w, x):
            h = np.tanh(x @ w)
            return np.sin(h) + x

        for _ in range(4):
            x = wrap(block)(w, x)
        return np.sum(x**2)

    @pytest.mark.parametrize("policy", [None, wichi.products_saveable])
    def test_same_derivatives(self, policy):
        rng = np.random.default_rng(0)
        w, x = rng.normal(size=(6, 6)), rng.normal(size=(5, 6))

        def plain(w, x):
            return self.layers(w, x, lambda b: b)

        def apart(w, x):
            return self.layers(w, x, lambda b: wichi.checkpoint(b, policy))

        np.testing.assert_allclose(wichi.grad(apart)(w, x), wichi.grad(plain)(w, x), rtol=1e-12)
        np.testing.assert_allclose(wichi.hvp(apart, (w, x), (w, x)), wichi.hvp(plain, (w, x), (w, x)), rtol=1e-10)
        ws = np.stack([w, 2 * w])
        found = wichi.vmap(wichi.grad(apart), (0, None))(ws, x)
        np.testing.assert_allclose(found, np.stack([wichi.grad(plain)(v, x) for v in ws]), rtol=1e-10)

    def test_static_arguments_and_values_closed_over(self):
        w = np.array([0.5, 2.0])

        def f(w, x):
            block = wichi.checkpoint(lambda n, x: np.sin(w * x) ** n, static_argnums=(0,), prevent_cse=False)
            return np.sum(block(2, x) * x)

        wichi.testing.check_grads(f, (w, np.array([0.3, 0.7])), order=2)
        with pytest.raises(ArgumentError, match="static_argnums has 3"):
            wichi.checkpoint(np.sin, static_argnums=3)(1.0)

    def test_in_a_scan_body(self):
        w, x = np.full((3, 3), 0.3), np.ones((2, 3))

        def f(w, wrap):
            return np.sum(wichi.scan(lambda c, _: (wrap(lambda c: np.tanh(c @ w) * c)(c), None), x, None, 5)[0])

        found = wichi.grad(lambda w: f(w, wichi.checkpoint))(w)
        np.testing.assert_allclose(found, wichi.grad(lambda w: f(w, lambda b: b))(w), rtol=1e-12)


class TestBlackBox:
    @staticmethod
    def cube(calls=None):
        def fun(x):
            assert type(x) in (np.ndarray, np.float64)
            if calls is not None:
                calls.append(1)
            return np.asarray([v**3 for v in np.ravel(x)]).reshape(np.shape(x))

        box = wichi.primitive(fun)
        square = wichi.primitive(lambda x: np.asarray(x) ** 2)
        square.defvjp(lambda x: (square(x), x), lambda x, ct: (2 * x * ct,))
        box.defvjp(lambda x: (box(x), x), lambda x, ct: (3 * square(x) * ct,))
        return box

    def test_in_every_transform(self):
        cube, x = self.cube(), np.array([1.0, 2.0, -3.0])
        np.testing.assert_allclose(cube(x), x**3)
        f = lambda x: np.sum(np.sin(cube(x * 1.0)))  # noqa: E731
        g = lambda x: np.cos(x**3) * 3 * x**2  # noqa: E731
        for _ in range(3):
            np.testing.assert_allclose(wichi.jit(f)(x), f(x))
            np.testing.assert_allclose(wichi.grad(f)(x), g(x))
        xs = np.stack([x, 2 * x])
        np.testing.assert_allclose(wichi.vmap(wichi.grad(f))(xs), g(xs))
        np.testing.assert_allclose(
            wichi.hessian(f)(x), np.diag(-np.sin(x**3) * 9 * x**4 + np.cos(x**3) * 6 * x), rtol=1e-10
        )
        last = wichi.scan(lambda c, _: (cube(c) * 0.5, None), x, None, 3)[0]
        expected = x
        for _ in range(3):
            expected = expected**3 * 0.5
        np.testing.assert_allclose(last, expected)

    def test_it_is_called_when_the_program_runs(self):
        calls = []
        f = wichi.jit(self.cube(calls))
        before = len(calls)
        for _ in range(5):
            f(np.ones(2))
        assert len(calls) - before == 5

    def test_other_results(self):
        stats = wichi.primitive(lambda x: {"n": x.size, "s": x.sum()}, result=lambda x: {"n": 0, "s": 0.0})
        stats.defvjp(lambda x: (stats(x), x), lambda x, ct: (ct["s"] * np.ones(4),))
        found = wichi.jit(lambda x: stats(x[::2]))(np.arange(8.0))
        assert found["n"] == 4
        assert found["s"] == 12.0
        np.testing.assert_array_equal(wichi.grad(lambda x: stats(x)["s"])(np.arange(4.0)), 1.0)

    def test_without_a_rule_it_is_computed_and_not_differentiated(self):
        box, x = wichi.primitive(np.sin), np.array([1.0, 2.0])
        np.testing.assert_array_equal(box(x), np.sin(x))
        np.testing.assert_array_equal(wichi.jit(box)(x), np.sin(x))
        np.testing.assert_array_equal(wichi.vmap(box)(x), np.sin(x))
        for derivative in (wichi.grad(lambda x: np.sum(box(x))), lambda x: wichi.jvp(box, (x,), (x,))):
            with pytest.raises(wichi.errors.MissingRuleError, match="sin has no derivative"):
                derivative(x)
        box.defjvp(lambda p, t: (box(*p), np.cos(p[0]) * t[0]))
        np.testing.assert_allclose(wichi.grad(lambda x: np.sum(box(x)))(x), np.cos(x))
        wichi.testing.check_grads(box, (x,), order=2)

    def test_in_branches_loops_and_checkpoints(self):
        cube = self.cube()
        for f in (
            lambda x: wichi.cond(x > 0, cube, lambda v: v * 0.0, x),
            lambda x: wichi.while_loop(lambda v: v < 30.0, lambda v: cube(v) + v, x),
            lambda x: wichi.checkpoint(cube)(x) * x,
            lambda x: wichi.switch(wichi.numpy.asarray(x > 0).astype(int), [np.sin, cube], x),
        ):
            wichi.testing.check_grads(f, (np.float64(1.3),), order=2, atol=1e-2)

    def test_what_it_answers_must_fit(self):
        box = wichi.primitive(lambda x: x * 1j)
        with pytest.raises(wichi.errors.DtypeError, match=r"complex128 where f64\[\] was promised"):
            wichi.jit(box)(1.0)
        box = wichi.primitive(lambda x: (x, x))
        with pytest.raises(ArgumentError, match=r"result is \(\*, \*\) where \* was promised"):
            wichi.jit(box)(1.0)
        with pytest.raises(ArgumentError, match="no arguments to tell"):
            wichi.jit(wichi.primitive(lambda: 1.0))()

    def test_what_it_raises_passes_through(self):
        def angry(x):
            if np.any(x > 5):
                raise LookupError("too large for my table")
            return x

        box = wichi.primitive(angry)
        box.defvjp(lambda x: (box(x), None), lambda _, ct: (ct,))
        f = wichi.jit(lambda x: box(x) * 2.0)
        for _ in range(3):
            with pytest.raises(LookupError, match="too large for my table"):
                f(np.array([6.0]))
            assert f(np.array([1.0])) == 2.0

    def test_another_shape_than_promised(self):
        box = wichi.primitive(lambda x: x[:1])
        box.defvjp(lambda x: (box(x), None), lambda _, ct: (ct,))
        with pytest.raises(wichi.errors.ShapeError, match=r"shape \(1,\) where f64\[3\] was promised"):
            wichi.jit(lambda x: box(x))(np.ones(3))

"""``vmap`` against loops, Jacobians and Hessians against differences, and all of them nested."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import wichi
import wichi.numpy as wnp
from wichi.errors import ArgumentError, DtypeError, ShapeError

RNG = np.random.default_rng(0)
A = RNG.standard_normal((4, 4))
EXAMPLES = {
    "pointwise": lambda x: np.sin(x) * np.exp(-x * x),
    "sum": lambda x: np.sum(x**2),
    "matmul": lambda x: np.tanh(A @ x),
    "outer": lambda x: np.outer(x, x + 1) @ x,
    "softmax": lambda x: np.exp(x - wnp.logsumexp(x)),
    "where": lambda x: np.where(x > 0, x, 0.1 * x**3),
    "sorted out": lambda x: np.concatenate([x[::-1], x[:2] * x[1]]),
    "gather": lambda x: x[np.array([2, 0, 0])] * x[3],
    "cumsum": lambda x: np.cumsum(x) / (1 + np.max(x) ** 2),
    "einsum": lambda x: np.einsum("i,ij,j->j", x, A, x),
    "norm": lambda x: x / np.linalg.norm(x),
    "constant": lambda x: np.arange(3.0),
}


def each(f, xs, axis=0):
    return np.stack([f(x) for x in np.moveaxis(xs, axis, 0)])


@pytest.mark.parametrize("name", EXAMPLES)
def test_vmap_is_the_loop(name):
    f, xs = EXAMPLES[name], RNG.standard_normal((5, 4))
    np.testing.assert_allclose(wichi.vmap(f)(xs), each(f, xs), rtol=1e-12)
    np.testing.assert_allclose(wichi.vmap(f, in_axes=1)(xs.T), each(f, xs), rtol=1e-12)
    np.testing.assert_allclose(wichi.vmap(f, out_axes=-1)(xs), np.moveaxis(each(f, xs), 0, -1), rtol=1e-12)
    assert wichi.vmap(f)(np.ones((0, 4))).shape == (0, *np.shape(f(np.ones(4))))


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "constant"])
def test_vmap_of_gradient_is_the_loop(name):
    xs = RNG.standard_normal((5, 4))

    def g(x):
        return wichi.grad(lambda x: np.sum(np.cos(EXAMPLES[name](x))))(x)

    np.testing.assert_allclose(wichi.vmap(g)(xs), each(g, xs), rtol=1e-10, atol=1e-12)


def test_nested_vmap_is_two_loops():
    xs, ys = RNG.standard_normal((3, 4)), RNG.standard_normal((5, 4))
    pairs = wichi.vmap(wichi.vmap(np.dot, in_axes=(None, 0)), in_axes=(0, None))
    np.testing.assert_allclose(pairs(xs, ys), xs @ ys.T)


def test_axes_as_trees():
    params = {"w": np.ones((3, 2)), "b": RNG.standard_normal((2, 5))}
    f = wichi.vmap(lambda p, x: {"y": p["w"] @ p["b"] + x, "s": np.sum(x)}, ({"w": None, "b": 1}, 0), {"y": 1, "s": 0})
    out = f(params, np.arange(5.0))
    assert out["y"].shape == (3, 5)
    np.testing.assert_allclose(out["y"][:, 2], np.ones((3, 2)) @ params["b"][:, 2] + 2)
    np.testing.assert_array_equal(out["s"], np.arange(5.0))


def test_results_that_do_not_depend_on_the_batch():
    out = wichi.vmap(lambda x, y: y * 2, in_axes=(0, None))(np.ones(3), 4.0)
    np.testing.assert_array_equal(out, [8, 8, 8])
    np.testing.assert_array_equal(wichi.vmap(lambda: np.ones(2), axis_size=3)(), np.ones((3, 2)))


def test_keywords_and_captured_values():
    k = np.array(3.0)
    np.testing.assert_array_equal(wichi.vmap(lambda x, scale: x * scale + k)(np.ones(2), scale=np.arange(2.0)), [3, 4])
    g = wichi.grad(lambda w: np.sum(wichi.vmap(lambda x: w * x)(np.arange(3.0))))
    assert g(2.0) == 3


def test_one_graph_no_loop():
    graph = wichi.make_graph(wichi.vmap(lambda x: np.sum(np.sin(x))))(np.ones((100, 7)))
    assert [e.prim.name for e in graph.eqns] == ["sin", "sum"]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: wichi.vmap(np.add)(np.ones(3), np.ones(4)), ShapeError, "disagree"),
        (lambda: wichi.vmap(np.sin)(1.0), ArgumentError, "no axis 0"),
        (lambda: wichi.vmap(np.sin, in_axes=None)(np.ones(3)), ArgumentError, "no argument has a batch axis"),
        (lambda: wichi.vmap(np.add, in_axes=(0,))(np.ones(3), 1.0), ArgumentError, "1 entries for 2"),
        (lambda: wichi.vmap(lambda p: p["a"], in_axes=({"b": 0},))({"a": np.ones(3)}), ArgumentError, "does not fit"),
        (lambda: wichi.vmap(np.sin, out_axes=(0, 1))(np.ones(3)), ArgumentError, "out_axes"),
        (lambda: wichi.vmap(np.sin, in_axes="0")(np.ones(3)), ArgumentError, "axis"),
        (lambda: wichi.vmap(np.sin, axis_size=4)(np.ones(3)), ShapeError, "axis_size"),
    ],
)
def test_bad_axes(call, error, text):
    with pytest.raises(error, match=text):
        call()


# --- Jacobians ------------------------------------------------------------------------------------------------------
def differences(f, x, step=1e-6):
    columns = []
    for i in range(x.size):
        e = np.zeros(x.size)
        e[i] = step
        e = e.reshape(x.shape)
        columns.append((np.asarray(f(x + e)) - np.asarray(f(x - e))) / (2 * step))
    return np.stack(columns, -1).reshape(*np.shape(f(x)), *x.shape)


@pytest.mark.parametrize("name", EXAMPLES)
def test_jacobians_against_differences(name):
    f, x = EXAMPLES[name], RNG.standard_normal(4)
    want = differences(f, x)
    for jacobian in (wichi.jacfwd, wichi.jacrev, wichi.jacobian):
        np.testing.assert_allclose(jacobian(f)(x), want, rtol=1e-6, atol=1e-8)


def test_jacobian_of_matrices_and_trees():
    f = lambda p, x: {"y": p["w"] @ x, "n": np.sum(p["b"] * x)}  # noqa: E731
    p, x = {"w": RNG.standard_normal((2, 3)), "b": np.ones(3)}, RNG.standard_normal(3)
    for jacobian in (wichi.jacfwd, wichi.jacrev, wichi.jacobian):
        j = jacobian(f)(p, x)
        assert j["y"]["w"].shape == (2, 2, 3)
        np.testing.assert_allclose(j["y"]["w"], np.einsum("ij,k->ijk", np.eye(2), x))
        np.testing.assert_allclose(j["n"]["b"], x)
        np.testing.assert_array_equal(j["y"]["b"], np.zeros((2, 3)))
        np.testing.assert_allclose(jacobian(f, argnums=1)(p, x)["y"], p["w"])


def test_jacobian_takes_the_cheaper_side():
    many_in = wichi.make_graph(wichi.jacobian(lambda x: np.sum(np.sin(x))))(np.ones(50))
    assert max(o.aval.size for e in many_in.eqns for o in e.outs) == 50
    many_out = wichi.make_graph(wichi.jacobian(lambda x: np.sin(x) * np.arange(50.0)))(np.float64(1.0))
    assert max(o.aval.size for e in many_out.eqns for o in e.outs) == 50


def test_equal_transforms_of_different_functions_do_not_share_traces():
    """The wrappers are one code object; what tells them apart is the function in their cell."""
    for transform in (wichi.vmap, wichi.jacfwd, wichi.jacrev, wichi.jacobian, wichi.hessian):
        first = transform(lambda x: np.sum(x**2))(np.ones((2, 2)))
        second = transform(lambda x: np.sum(x**3))(np.full((2, 2), 2.0))
        assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "constant"])
def test_hessian_and_products_with_it(name):
    def f(x):
        return np.sum(np.sin(EXAMPLES[name](x)))

    x, v = RNG.standard_normal(4), RNG.standard_normal(4)
    h = wichi.hessian(f)(x)
    np.testing.assert_allclose(h, differences(wichi.grad(f), x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(h, h.T, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(wichi.hvp(f, (x,), (v,)), h @ v, rtol=1e-9, atol=1e-10)


def test_integer_arguments_are_refused():
    for jacobian in (wichi.jacfwd, wichi.jacrev, wichi.jacobian):
        with pytest.raises(DtypeError, match="integers"):
            jacobian(np.sin)(np.arange(3))
        with pytest.raises(ArgumentError, match="argnums"):
            jacobian(np.sin, argnums=2)(np.ones(3))
    with pytest.raises(DtypeError, match="result"):
        wichi.jacrev(lambda x: np.argmax(x))(np.ones(3))


# --- compositions ---------------------------------------------------------------------------------------------------
def base(x):
    return np.sum(np.sin(x) * np.exp(-0.1 * x * x)) + np.prod(x[:2])


LEVELS = {
    "jit": lambda f: lambda x: np.sum(wichi.jit(f)(x)),
    "grad": lambda f: lambda x: np.sum(wichi.grad(f)(x) ** 2),
    "jvp": lambda f: lambda x: wichi.jvp(f, (x,), (np.cos(x),))[1],
    "vjp": lambda f: lambda x: np.sum(wichi.vjp(f, x)[1](1.0)[0] * x),
    "vmap": lambda f: lambda x: np.sum(wichi.vmap(f)(np.stack([x, 2.0 * x, x * x]))),
    "jacfwd": lambda f: lambda x: np.sum(np.cos(wichi.jacfwd(f)(x))),
    "jacrev": lambda f: lambda x: np.sum(np.sin(wichi.jacrev(f)(x))),
}


@pytest.mark.parametrize(("first", "second"), [*itertools.product(LEVELS, LEVELS)])
def test_pairs_compose(first, second):
    f = LEVELS[second](LEVELS[first](base))
    x = np.array([0.3, -0.7, 1.1])
    assert f(x) == pytest.approx(wichi.jit(f)(x), rel=1e-10)
    np.testing.assert_allclose(wichi.grad(f)(x), differences(f, x), rtol=2e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second", "third"), [*itertools.product(LEVELS, LEVELS, LEVELS)])
def test_triples_compose(first, second, third):
    f = LEVELS[third](LEVELS[second](LEVELS[first](base)))
    x = np.array([0.3, -0.7, 1.1])
    with wichi.debug():
        want = f(x)
    assert wichi.jit(f)(x) == pytest.approx(want, rel=1e-9)


def test_stop_gradient():
    assert wichi.grad(lambda x: x * wichi.stop_gradient(x) ** 2)(3.0) == 9
    tree = wichi.grad(lambda p: np.sum(wichi.stop_gradient(p)["a"] * p["a"]))({"a": np.ones(2)})
    np.testing.assert_array_equal(tree["a"], [1, 1])
    assert wichi.jvp(lambda x: wichi.stop_gradient(x) + x, (2.0,), (1.0,)) == (4.0, 1.0)

"""NumPy functions as PyTensor operators: values and derivatives as wichi's own, in Python and in numba mode."""

from __future__ import annotations

import contextlib
import pickle

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError, DtypeError

pytensor = pytest.importorskip(
    "pytensor", reason="needs PyTensor: pip install 'wichi[pymc]' into an environment of its own"
)
import pytensor.tensor as pt  # noqa: E402
from pytensor.graph.replace import vectorize_graph  # noqa: E402

from wichi.pytensor import Pullback, Value, WichiOp, WithGradient, as_op  # noqa: E402

# PyTensor's Python mode without rewrites, and its numba mode.
MODES = ["FAST_COMPILE", "NUMBA"]
A, K, N = np.array([0.5, -0.3, 0.8]), np.array([1.0, 2.0, 0.5], np.float32), np.array([1, 2, 3])


def wave(p, k, n):
    return np.sum(np.sin(p["a"] * k) * n) + np.exp(p["b"])


def inputs(length):
    return (
        pt.tensor("a", dtype="float64", shape=(length,)), pt.scalar("b", dtype="float64"),
        pt.tensor("k", dtype="float32", shape=(length,)), pt.tensor("n", dtype="int64", shape=(length,)),
    )  # fmt: skip


def rules(function):
    return [type(n.op.rule) for n in function.maker.fgraph.toposort() if isinstance(n.op, WichiOp)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [3, None], ids=["known", "unknown"])
@pytest.mark.filterwarnings("ignore:WichiOp.* runs through Python:UserWarning")
def test_value_and_gradients(mode, length):
    a, b, k, n = inputs(length)
    y = as_op(wave)({"a": a, "b": b}, k, n)
    found = pytensor.function([a, b, k, n], [y, *pt.grad(y * y, [a, b, k])], mode=mode)(A, 0.3, K, N)
    want, (slopes, of_k) = wichi.value_and_grad(lambda p, k, n: wave(p, k, n) ** 2, argnums=(0, 1))(
        {"a": A, "b": 0.3}, K, N
    )
    assert [x.dtype for x in found] == ["f8", "f8", "f8", "f4"]
    assert [x.shape for x in found] == [(), (3,), (), (3,)]
    np.testing.assert_allclose(found[0] ** 2, want, rtol=1e-14)
    np.testing.assert_allclose(found[1], slopes["a"], rtol=1e-14)
    np.testing.assert_allclose(found[2], slopes["b"], rtol=1e-14)
    np.testing.assert_allclose(found[3], of_k, rtol=1e-6)


def test_single_precision_stays_single():
    x = pt.fvector("x")
    y = as_op(lambda x: np.sum(np.sin(x)))(x)
    assert y.dtype == pt.grad(y, x).dtype == "float32"


def test_one_evaluation_and_no_gradient_that_nobody_asks_for():
    a, b, k, n = inputs(3)
    y = as_op(wave)({"a": a, "b": b}, k, n)
    assert rules(pytensor.function([a, b, k, n], y, mode="NUMBA")) == [Value]
    both = pytensor.function([a, b, k, n], [y, pt.grad(y, a)], mode="NUMBA")
    (op,) = [n.op for n in both.maker.fgraph.toposort() if isinstance(n.op, WichiOp)]
    assert type(op.rule) is WithGradient
    assert op.rule.wrt == (0,)


def test_numba_mode_calls_no_python(monkeypatch):
    def refuse(*_):
        raise AssertionError("Python was called")

    monkeypatch.setattr(WichiOp, "perform", refuse)
    a, b, k, n = inputs(3)
    y = as_op(wave)({"a": a, "b": b}, k, n)
    function = pytensor.function([a, b, k, n], [y, *pt.grad(y, [a, b])], mode="NUMBA")
    assert np.isclose(function(A, 0.3, K, N)[0], wave({"a": A, "b": 0.3}, K, N))
    x = pt.vector("x")
    with pytest.warns(UserWarning, match="because the shapes of its arguments are not known.  fix: pt.specify_shape"):
        slow = pytensor.function([x], as_op(lambda x: np.sum(x**2))(x), mode="NUMBA")
    with pytest.raises(Exception, match="Python was called"):
        slow([1.0, 2.0])
    quick = pytensor.function([x], as_op(lambda x: np.sum(x**2))(pt.specify_shape(x, (2,))), mode="NUMBA")
    assert quick([1.0, 2.0]) == 5.0


@pytest.mark.parametrize("mode", MODES)
def test_arrays_and_trees_as_results(mode):
    def curve(p, t):
        y = p[0] * np.exp(-p[1] * t)
        return {"mean": y, "last": y[-1], "count": np.sum(y > 0.5)}

    p, t = pt.tensor("p", dtype="float64", shape=(2,)), np.linspace(0.0, 2.0, 5)
    out = as_op(curve)(p, t)
    assert out["mean"].type.shape == (5,)
    assert out["count"].dtype == "int64"
    cost = pt.sum(out["mean"] ** 2) + 3.0 * out["last"]
    value, slope, count = pytensor.function([p], [cost, pt.grad(cost, p), out["count"]], mode=mode)([2.0, 0.7])
    loss = lambda p: np.sum(curve(p, t)["mean"] ** 2) + 3.0 * curve(p, t)["last"]  # noqa: E731
    np.testing.assert_allclose(value, loss(np.array([2.0, 0.7])))
    np.testing.assert_allclose(slope, wichi.grad(loss)(np.array([2.0, 0.7])), rtol=1e-12)
    assert count == 4
    slopes = pytensor.gradient.jacobian(out["mean"], p)
    np.testing.assert_allclose(
        pytensor.function([p], slopes, mode=mode)([2.0, 0.7]),
        wichi.jacobian(lambda p: curve(p, t)["mean"])(np.array([2.0, 0.7])), rtol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_second_derivatives(mode):
    f = lambda x: np.sum(x**3) * x[0] + np.sin(x[1])  # noqa: E731
    x = pt.tensor("x", dtype="float64", shape=(3,))
    v = pt.tensor("v", dtype="float64", shape=(3,))
    y = as_op(f)(x)
    hessian, product = pytensor.gradient.hessian(y, x), pytensor.gradient.hessian_vector_product(y, x, v)
    at, along = np.array([1.0, 0.5, -2.0]), np.array([0.3, -1.0, 2.0])
    found = pytensor.function([x, v], [hessian, product], mode=mode)(at, along)
    np.testing.assert_allclose(found[0], wichi.hessian(f)(at), rtol=1e-12)
    np.testing.assert_allclose(found[1], wichi.hvp(f, (at,), (along,)), rtol=1e-12)
    third = pt.grad(pt.sum(pt.grad(pt.sum(pt.grad(y, x) * v), x) * v), x)
    want = wichi.grad(lambda x: np.sum(wichi.hvp(f, (x,), (along,)) * along))(at)
    np.testing.assert_allclose(pytensor.function([x, v], third, mode=mode)(at, along), want, rtol=1e-12)


def test_integers_are_not_differentiated():
    a, b, k, n = inputs(3)
    y = as_op(wave)({"a": a, "b": b}, k, n)
    assert y.owner.op.connection_pattern(y.owner) == [[True], [True], [True], [False]]
    with pytest.raises(pytensor.gradient.DisconnectedInputError):
        pt.grad(y, pt.lvector("other"))
    indices = pt.tensor("i", dtype="int64", shape=(2,))
    x = pt.tensor("x", dtype="float64", shape=(3,))
    slope = pt.grad(as_op(lambda x, i: np.sum(x[i] ** 2))(x, indices), x)
    np.testing.assert_array_equal(slope.eval({x: [1.0, 2.0, 3.0], indices: [2, 0]}), [2.0, 0.0, 6.0])


def test_vectorised_graphs():
    x = pt.tensor("x", dtype="float64", shape=(3,))
    y = as_op(lambda x: np.sum(x**2))(x)
    rows = pt.tensor("rows", dtype="float64", shape=(4, 3))
    batch = np.arange(12.0).reshape(4, 3)
    for mode in MODES:
        found = pytensor.function([rows], vectorize_graph([y, pt.grad(y, x)], {x: rows}), mode=mode)(batch)
        np.testing.assert_allclose(found[0], np.sum(batch**2, 1))
        np.testing.assert_allclose(found[1], 2 * batch)


def test_shapes_are_known_without_computing():
    x = pt.vector("x")
    slope = pt.grad(as_op(lambda x: np.sum(x**2))(x), x)
    function = pytensor.function([x], slope.shape, mode=pytensor.compile.mode.get_mode("NUMBA"))
    assert rules(function) == []
    assert function(np.ones(7)).tolist() == [7]


SCALE = 2.0


def scaled(x):
    return SCALE * np.sum(x)


def test_equal_operators_merge_and_travel(monkeypatch):
    x = pt.vector("x")
    first, second = as_op(scaled)(x), as_op(scaled)(x)
    assert first.owner.op == second.owner.op
    assert rules(pytensor.function([x], [first, second], mode="FAST_COMPILE")) == [Value]
    again = pickle.loads(pickle.dumps(pytensor.function([x], pt.grad(first, x), mode="FAST_COMPILE")))
    np.testing.assert_array_equal(again([1.0, 1.0]), [2.0, 2.0])
    other = as_op(lambda x: np.sum(x))(x)
    assert other.owner.op != first.owner.op
    # A global of the user's function is compared on each call.
    value = pytensor.function([x], first, mode="FAST_COMPILE")
    assert value([1.0, 1.0]) == 4.0
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert value([1.0, 1.0]) == 6.0


def test_traces_of_one_operator_do_not_push_out_those_of_another():
    x = pt.tensor("x", dtype="float64", shape=(2,))
    made = [as_op(lambda x, k=k: np.sum(x) * k)(x).owner.op for k in range(20)]
    tables = [op.compiled._traces for op in made]
    assert len({id(t) for t in tables}) == 20
    for _ in range(3):
        assert [op.compiled(np.ones(2))[0] for op in made] == [2.0 * k for k in range(20)]
    assert all(op.compiled._direct for op in made)


class TestBadInput:
    def test_no_function(self):
        with pytest.raises(ArgumentError, match="as_op needs a function, not float"):
            as_op(1.0)

    def test_dtypes_that_wichi_has_not(self):
        with pytest.raises(DtypeError, match="The argument x has dtype complex128"):
            as_op(lambda x: np.sum(x))(pt.zvector("x"))

    def test_result_that_is_no_number_though_shapes_were_unknown(self):
        x = pt.vector("x")
        y = as_op(lambda x: x * 2.0)(x)
        for mode in MODES:
            with pytest.warns(UserWarning, match="not known") if mode == "NUMBA" else contextlib.nullcontext():
                function = pytensor.function([x], y, mode=mode)
            with pytest.raises(ArgumentError, match=r"the result is f64\[2\], where f64\[\] was assumed") as caught:
                function([1.0, 2.0])
            assert str(caught.value).count("W206") == 1
        assert as_op(lambda x: x * 2.0)(pt.specify_shape(x, (2,))).type.shape == (2,)

    def test_digits_are_not_lost_unseen(self):
        x = pt.fvector("x")
        table = np.arange(2.0)
        with pytest.raises(ArgumentError, match=r"the result is f64\[\], where f32\[\] was assumed"):
            pytensor.function([x], as_op(lambda x: np.sum(x * table))(x), mode="FAST_COMPILE")([1.0, 2.0])

    def test_a_way_that_depends_on_values(self):
        x = pt.scalar("x", dtype="float64")
        y = as_op(lambda x: x**2 if x > 0 else -x)(x)
        with pytest.warns(UserWarning, match="the way through it depends on values"):
            function = pytensor.function([x], [y, pt.grad(y, x)], mode="NUMBA")
        assert [float(v) for v in function(3.0)] == [9.0, 6.0]
        assert [float(v) for v in function(-3.0)] == [3.0, -1.0]

    def test_errors_in_the_function_name_its_line(self):
        x = pt.tensor("x", dtype="float64", shape=(3,))
        with pytest.raises(wichi.errors.ShapeError, match=r"test_pytensor\.py"):
            as_op(lambda x: np.sum(x @ np.ones((2, 2))))(x)

    def test_nan_passes(self):
        x = pt.tensor("x", dtype="float64", shape=(1,))
        y = as_op(lambda x: np.sum(np.log(x)))(x)
        for mode in MODES:
            assert np.isnan(pytensor.function([x], y, mode=mode)([-1.0]))


def test_pullbacks_of_pullbacks_are_operators_too():
    rule = Value(scaled, wichi.pytree.flatten((0.0,))[1])
    assert Pullback(rule, 1, (0,), (0,)) == Pullback(rule, 1, (0,), (0,))
    assert Pullback(Pullback(rule, 1, (0,), (0,)), 2, (0, 1), (0,)).__name__ == "pullback_of_pullback_of_scaled"

"""grad, value_and_grad, jit, jvp, vjp, make_graph: values against differences, nesting, trees, traces and captures."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
import threading
import types
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wichi
import wichi.numpy as wnp
from wichi.kernels import fastcall, program
from wichi.kernels.source import source
from wichi.pytree import static
from wichi.trace.ir import check

rng = np.random.default_rng(0)


def rosenbrock(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def differences(f: Any, x: Any, step: float = 1e-6) -> Any:
    flat = [(f(x + step * e) - f(x - step * e)) / (2 * step) for e in np.eye(x.size).reshape(x.size, *x.shape)]
    return np.reshape(flat, x.shape)


FUNCTIONS = [
    rosenbrock,
    lambda x: np.mean(np.tanh(x) * x),
    lambda x: np.max(x) * np.sum(x[::2]) - np.prod(x[:3]),
    lambda x: np.log(np.sum(np.exp(x - np.max(x)))) + np.max(x),
    lambda x: np.sum(np.where(x > 0, np.sqrt(np.abs(x) + 1), x**3)),
    lambda x: np.linalg.norm(np.outer(x, x) @ x) + x[0] ** 2.5 * 0 if False else np.linalg.norm(np.outer(x, x) @ x),
    lambda x: np.sum(np.cumsum(x)[1:] * np.diff(x)),
    lambda x: np.einsum("i,ij,j->", x, np.outer(np.sin(x), x), x),
    lambda x: np.sum(x[[0, 2, 2, -1]] ** 2) + x[np.argmax(x)],
    lambda x: np.sum(np.concatenate([x, x[::-1] * 2]).reshape(2, -1) ** 2 * np.pad(x, (0, 3))[None, : x.size]),
    lambda x: np.std(x) + np.var(x) + np.ptp(x),
    lambda x: wnp.logsumexp(x) + np.sum(wnp.sigmoid(x) + wnp.softplus(x) + wnp.erf(x) + wnp.relu(x)),
    lambda x: np.sum(np.stack([x, np.sin(x)]).T @ np.ones((2, 3))),
]


@pytest.mark.parametrize("f", FUNCTIONS)
def test_gradients_against_differences(f: Any) -> None:
    x = np.random.default_rng(3).standard_normal(7)
    value, gradient = wichi.value_and_grad(f)(x)
    np.testing.assert_allclose(value, f(x), rtol=1e-12)
    np.testing.assert_allclose(gradient, differences(f, x), rtol=1e-5, atol=1e-6)
    assert gradient.dtype == x.dtype
    with wichi.debug():
        np.testing.assert_allclose(wichi.grad(f)(x), gradient, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_transforms_nest_in_any_order(f: Any) -> None:
    x, v = (np.random.default_rng(k).standard_normal(7) for k in (4, 5))
    g = wichi.grad(f)
    want = (g(x + 1e-6 * v) - g(x - 1e-6 * v)) / 2e-6
    reverse_over_reverse = wichi.grad(lambda x: np.sum(wichi.grad(f)(x) * v), allow_unused=True)
    forward_over_reverse = wichi.jit(lambda x: wichi.jvp(wichi.grad(f), (x,), (v,))[1])
    reverse_over_forward = wichi.grad(lambda x: wichi.jvp(f, (x,), (v,))[1])
    vjp_of_grad = wichi.jit(lambda x: wichi.vjp(wichi.grad(f), x)[1](v)[0])
    for product in (reverse_over_reverse, forward_over_reverse, reverse_over_forward, vjp_of_grad):
        np.testing.assert_allclose(product(x), want, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(forward_over_reverse(x), vjp_of_grad(x), rtol=1e-9, atol=1e-10)


def test_jvp_and_vjp() -> None:
    x, v = rng.standard_normal(5), rng.standard_normal(5)
    value, change = wichi.jvp(rosenbrock, (x,), (v,))
    np.testing.assert_allclose(value, rosenbrock(x))
    np.testing.assert_allclose(change, wichi.grad(rosenbrock)(x) @ v)
    out, pullback = wichi.vjp(lambda a, n: (np.sin(a) * n, {"b": a.sum()}), x, 3)
    bar_a, bar_n = pullback((np.ones(5), {"b": 2.0}))
    np.testing.assert_allclose(out[0], np.sin(x) * 3)
    np.testing.assert_allclose(bar_a, 3 * np.cos(x) + 2)
    assert bar_n == 0
    _, pullback, aux = wichi.vjp(lambda a: (a**2, a + 1), x, has_aux=True)
    np.testing.assert_allclose(pullback(np.ones(5))[0], 2 * x)
    np.testing.assert_allclose(aux, x + 1)


def test_perturbation_confusion() -> None:
    """d/dx (x * d/dy (x + y)) is 1, not 2; and the example of autodidax."""
    assert wichi.grad(lambda x: x * wichi.grad(lambda y: x + y)(2.0))(1.0) == 1.0
    assert wichi.jvp(lambda x: x * wichi.jvp(lambda y: x + y, (1.0,), (1.0,))[1], (1.0,), (1.0,))[1] == 1.0
    should_be_zero = wichi.grad(lambda x: wichi.grad(lambda y: x * 1.0, allow_unused=True)(0.0) + 0.0 * x)(2.0)
    assert should_be_zero == 0.0
    assert wichi.grad(wichi.grad(wichi.grad(lambda x: x**4)))(2.0) == 48.0


# --- trees -------------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Line:
    slope: Any
    offset: Any
    name: str = static(default="line")


class Pair(NamedTuple):
    a: Any
    b: Any


@pytest.mark.parametrize(
    "tree",
    [
        {"w": np.ones(3), "b": 2.0},
        [np.ones(3), (np.float64(1.0), None)],
        Pair(np.ones((2, 2)), 3.0),
        Line(np.ones(3), 1.0, "x"),
        {"nest": [Line(1.0, Pair(2.0, np.ones(2)))], "none": None},
    ],
)
def test_gradient_is_a_tree_like_the_argument(tree: Any) -> None:
    def loss(t: Any) -> Any:
        return sum(np.sum(leaf**2) for leaf in wichi.pytree.leaves(t))

    gradient = wichi.grad(loss)(tree)
    (mine, shape), (theirs, theirs_shape) = wichi.pytree.flatten(gradient), wichi.pytree.flatten(tree)
    assert shape == theirs_shape
    for g, x in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(g, 2 * np.asarray(x))
        assert np.shape(g) == np.shape(x)
        assert np.asarray(g).dtype == np.asarray(x).dtype


def test_argnums_and_aux() -> None:
    def f(x: Any, n: int, y: Any) -> Any:
        return np.sum(x * y) * n, {"sum": x + y}

    x, y = rng.standard_normal(3), rng.standard_normal(3)
    gradient, aux = wichi.grad(f, argnums=(0, 2), has_aux=True)(x, 2, y)
    np.testing.assert_allclose(gradient[0], 2 * y)
    np.testing.assert_allclose(gradient[1], 2 * x)
    np.testing.assert_allclose(aux["sum"], x + y)
    (value, aux), gradient = wichi.value_and_grad(f, argnums=-1, has_aux=True)(x, 2, y)
    np.testing.assert_allclose(gradient, 2 * x)
    np.testing.assert_allclose(value, 2 * x @ y)
    assert wichi.grad(lambda x, *, scale: x * scale)(1.0, scale=3.0) == 3.0


def test_dtypes_are_kept() -> None:
    for dtype in (np.float32, np.float64):
        x = np.ones(3, dtype)
        value, gradient = wichi.value_and_grad(lambda x: np.mean(np.sin(x) * 2.0 + 1) ** 2)(x)
        assert value.dtype == gradient.dtype == dtype
    mixed = wichi.grad(lambda x: np.sum(x.astype(np.float64) ** 2))(np.ones(3, np.float32))
    assert mixed.dtype == np.float32


# --- traces: what is found again, what is never stale ---------------------------------------------------------------
def test_one_compile_for_all_batch_sizes_and_learning_rates() -> None:
    w = rng.standard_normal((4, 3))

    @wichi.jit
    def step(w: Any, x: Any, y: Any) -> Any:
        loss, g = wichi.value_and_grad(lambda w: np.mean((np.tanh(x @ w) - y) ** 2))(w)
        return w - 0.1 * g, loss

    step(w, rng.standard_normal((5, 4)), rng.standard_normal((5, 3)))
    before = program.compile_count
    for n in range(2, 101):
        x, y = rng.standard_normal((n, 4)), rng.standard_normal((n, 3))
        new, loss = step(w, x, y)
        np.testing.assert_allclose(loss, np.mean((np.tanh(x @ w) - y) ** 2))
        assert new.shape == w.shape
    assert program.compile_count == before

    def updated(rate: float) -> Any:
        return wichi.jit(lambda w, g: w - rate * g)(w, w)

    updated(0.123)
    before = program.compile_count
    for rate in np.linspace(0.01, 0.45, 100).tolist():
        np.testing.assert_allclose(updated(rate), w - rate * w)
    assert program.compile_count == before


TRACED: list[int] = []
RATE = 0.5
WEIGHTS = np.ones(3)


def scale() -> float:
    return RATE


def counted(x: Any) -> Any:
    TRACED.append(1)
    return np.sum(x * WEIGHTS) * scale()


def test_traces_once_a_signature_and_follows_globals(monkeypatch: pytest.MonkeyPatch) -> None:
    f = wichi.jit(counted)
    TRACED.clear()
    x = np.ones(3)
    assert f(x) == f(x) == 1.5
    assert len(TRACED) == 1
    assert f(x.astype(np.float32)) == 1.5
    assert len(TRACED) == 2
    monkeypatch.setitem(globals(), "RATE", 2.0)  # used by a function that the traced one calls
    assert f(x) == 6.0
    WEIGHTS[0] = 5.0  # arrays are read by reference
    assert f(x) == 14.0
    monkeypatch.setitem(globals(), "WEIGHTS", np.zeros(3))
    assert f(x) == 0.0
    monkeypatch.setitem(globals(), "scale", lambda: 0.25)
    monkeypatch.setitem(globals(), "WEIGHTS", np.ones(3))
    assert f(x) == 0.75
    assert "WEIGHTS" in f.captured()["compared"]
    assert any(text.startswith("WEIGHTS") for text in f.captured()["by reference"])


def test_closure_cells_are_followed() -> None:
    factor = 2.0
    f = wichi.jit(lambda x: x * factor)
    assert f(3.0) == 6.0
    factor = 5.0
    assert f(3.0) == 15.0


def test_inline_transforms_find_their_trace_again() -> None:
    runs = []

    def loss(x: Any) -> Any:
        runs.append(1)
        return np.sum(x**2)

    for _ in range(5):
        wichi.grad(loss)(np.ones(3))
        wichi.grad(lambda x: runs.append(1) or np.sum(x**3))(np.ones(3))
    assert len(runs) == 2


def test_equal_lambdas_with_other_cells_do_not_share_answers() -> None:
    functions = [wichi.jit(lambda x, k=k: x * k) for k in (2.0, 3.0)] + [
        wichi.jit((lambda k: lambda x: x + k)(k)) for k in (2.0, 3.0)
    ]
    for _ in range(2):
        assert [f(1.0) for f in functions] == [2.0, 3.0, 3.0, 4.0]


def test_frozen_values_are_listed() -> None:
    table = {"k": np.arange(3.0)}
    f = wichi.jit(lambda x: x * (table["k"] + 1))
    np.testing.assert_array_equal(f(np.ones(3)), [1, 2, 3])
    assert f.captured()["frozen"] == ["f64[3]"]


def test_partial_methods_and_callables() -> None:
    class Model:
        def __init__(self, k: float) -> None:
            self.k = k

        def loss(self, x: Any) -> Any:
            return x * self.k

        def __call__(self, x: Any) -> Any:
            return x + self.k

    assert wichi.jit(functools.partial(lambda a, x: a * x, 3.0))(2.0) == 6.0
    assert wichi.jit(Model(4.0).loss)(2.0) == 8.0
    assert wichi.jit(Model(5.0).loss)(2.0) == 10.0
    assert wichi.jit(Model(4.0))(2.0) == 6.0


def test_a_transformed_function_keeps_its_name_and_doc() -> None:
    f = wichi.grad(rosenbrock)
    assert f.__name__ == "rosenbrock"
    assert f.__wrapped__ is rosenbrock
    again = pickle.loads(pickle.dumps(f))
    x = np.ones(4)
    np.testing.assert_array_equal(again(x), f(x))
    np.testing.assert_array_equal(copy.deepcopy(f)(x), f(x))


# --- running -------------------------------------------------------------------------------------------------------
def test_inputs_are_never_written_and_outputs_are_fresh() -> None:
    x = rng.standard_normal(5)
    kept = x.copy()
    x.flags.writeable = False
    f = wichi.jit(lambda x: (x, x[::2], x * 1, x.reshape(5, 1), np.zeros(2)))
    first, second = f(x), f(x)
    for a, b in zip(first, second, strict=True):
        assert not np.shares_memory(a, b)
        assert not np.shares_memory(a, x)
        a[...] = 7
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(second[0], kept)


@pytest.mark.parametrize(
    "x",
    [
        np.arange(12.0)[::2], np.arange(12.0)[::-1], np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.arange(6).astype(">f8"),
        np.frombuffer(b"x" + np.arange(6.0).tobytes(), np.uint8)[1:].view(np.float64), np.zeros((0, 3)), np.float64(2.0),
        np.array(2.0), np.array([np.nan, np.inf, -np.inf, 0.0]), np.arange(4.0).reshape(2, 1, 2).transpose(2, 1, 0),
    ],
)  # fmt: skip
def test_unusual_inputs_give_numpys_answer(x: Any) -> None:
    def f(x: Any) -> Any:
        return np.sum(x * x + 1), x + 1

    total, plus = wichi.jit(f)(x)
    np.testing.assert_allclose(total, np.sum(x * x + 1))
    np.testing.assert_array_equal(plus, x + 1)


def test_empty_graphs_and_constant_results() -> None:
    assert wichi.jit(lambda: 3.0)() == 3.0
    assert wichi.jit(lambda x: {"x": x, "c": np.arange(3), "none": None})(1.0)["c"].tolist() == [0, 1, 2]
    assert wichi.jit(lambda x, y: y)(1.0, 2.0) == 2.0


def test_integer_division_never_traps() -> None:
    low = np.iinfo(np.int64).min
    x, y = np.array([1, -7, low, 5]), np.array([0, 0, -1, -2])
    quotient, rest = wichi.jit(lambda x, y: (x // y, x % y))(x, y)
    assert quotient.tolist() == [0, 0, low, -3]
    assert rest.tolist() == [0, 0, 0, -1]


def test_a_chain_of_100_000_operations() -> None:
    def chain(x: Any) -> Any:
        for _ in range(100_000):
            x = x + 1.0
        return x

    graph = check(wichi.make_graph(chain)(1.0))
    assert len(graph.eqns) == 100_000
    with wichi.debug():
        assert wichi.jit(chain)(1.0) == 100_001.0


def test_threads_share_a_compiled_function() -> None:
    f = wichi.value_and_grad(rosenbrock)
    xs = [rng.standard_normal(300) for _ in range(8)]
    want = [f(x) for x in xs]
    failures: list[int] = []

    def work(k: int) -> None:
        for _ in range(50):
            value, gradient = f(xs[k])
            if value != want[k][0] or not np.array_equal(gradient, want[k][1]):
                failures.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


# --- random graphs ---------------------------------------------------------------------------------------------------
OPERATIONS: list[Any] = [
    lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - 2.0 * b, lambda a, b: np.maximum(a, b), lambda a, b: a / (b * b + 1.5),
    lambda a, b: np.sum(a, axis=0) + b, lambda a, b: np.sum(a, axis=1, keepdims=True) * b, lambda a, b: a @ b.T @ a * 0.1,
    lambda a, b: a[::-1] - b[:, ::-1], lambda a, b: np.where(a > b, a, b * 0.5), lambda a, b: np.sqrt(a * a + 0.1) + b.mean(),
    lambda a, b: np.concatenate([a[:1], b[1:]]), lambda a, b: np.max(a, axis=1)[:, None] - b, lambda a, b: np.cumsum(a, axis=1) * 0.3 + b,
    lambda a, b: a[[1, 0, 2]] * b, lambda a, b: np.minimum(a, 0.7) + np.abs(b), lambda a, b: np.pad(a, ((1, 0), (0, 0)))[:3] + b,
]  # fmt: skip
SMOOTH: list[Any] = [
    lambda a, b: np.tanh(a) * b, lambda a, b: np.exp(-a * a) + b, lambda a, b: np.sin(a) - np.cos(b),
    lambda a, b: np.log1p(a * a) + np.arctan(b), lambda a, b: wnp.sigmoid(a) * wnp.softplus(b),
]  # fmt: skip


@st.composite
def compositions(draw: Any, table: Any) -> Any:
    steps = draw(
        st.lists(
            st.tuples(st.integers(0, len(table) - 1), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=60
        )
    )

    def f(x: Any, y: Any) -> Any:
        values = [x, y]
        for op, i, j in steps:
            values.append(table[op](values[i % len(values)], values[j % len(values)]))
        return np.sum(values[-1] * 0.5) + np.sum(values[len(values) // 2])

    return f


@settings(max_examples=25, deadline=None)
@given(compositions(OPERATIONS + SMOOTH), st.integers(0, 2**31))
def test_native_code_agrees_with_the_interpreter_on_random_graphs(f: Any, seed: int) -> None:
    x, y = np.random.default_rng(seed).standard_normal((2, 3, 4)) * 0.7
    g = wichi.value_and_grad(f, argnums=(0, 1), allow_unused=True)
    check(g.graph(x, y))
    value, grads = g(x, y)
    with wichi.debug():
        want, want_grads = g(x, y)
    for got, expected in zip((value, *grads), (want, *want_grads), strict=True):
        scale = np.max(np.abs(expected), initial=1.0)
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10 * scale)


@settings(max_examples=10, deadline=None)
@given(compositions([op for k, op in enumerate(OPERATIONS) if k != 7]), st.integers(0, 2**31))
def test_native_code_is_bit_equal_to_the_printed_python_on_random_graphs(f: Any, seed: int) -> None:
    x, y = np.random.default_rng(seed).standard_normal((2, 3, 4))
    g = wichi.value_and_grad(f, argnums=(0, 1), allow_unused=True)
    space: dict[str, Any] = {}
    exec(source(g.graph(x, y)), space)
    value, grads = g(x, y)
    for got, want in zip((value, *grads), space["program"](x, y), strict=True):
        assert np.asarray(got).tobytes() == want.tobytes()


def test_functions_made_by_the_same_call_do_not_share_a_trace():
    """An optimiser's ``update`` is a closure in wichi's own files: its cells count like a user's."""
    p = np.ones(2)
    plain, nesterov = wichi.optim.momentum(0.1, 0.8), wichi.optim.momentum(0.1, 0.8, nesterov=True)
    state = plain.init(p)
    np.testing.assert_allclose(wichi.jit(plain.update)(p, state, p)[0], p - 0.1)
    np.testing.assert_allclose(wichi.jit(nesterov.update)(p, state, p)[0], p - 0.18)


X = np.array([0.5, -1.0, 2.0])


def test_trees_that_differ_between_calls_are_traced_apart():
    f = wichi.grad(lambda p: sum(np.sum(v**2) for v in p.values()))
    for tree in ({"a": X}, {"a": X, "b": 2 * X}, {"b": X[:1]}, {"a": X}):
        found = f(tree)
        assert found.keys() == tree.keys()
        for k, v in tree.items():
            np.testing.assert_array_equal(found[k], 2 * v)


def test_memory_maps_are_plain_arrays(tmp_path):
    x = np.memmap(tmp_path / "x", np.float64, "w+", shape=(3,))
    x[:] = [1.0, 2.0, 3.0]
    for _ in range(3):
        np.testing.assert_array_equal(wichi.grad(lambda x: np.sum(x**2))(x), [2, 4, 6])


class Settings:
    bias = 0.5

    def __init__(self) -> None:
        self.sigma, self.inner, self.traced = 1.0, types.SimpleNamespace(scale=3.0), 0

    @property
    def scale(self) -> Any:
        return self.inner.scale

    def shifted(self, x: Any) -> Any:
        return x + self.offset  # type: ignore[attr-defined]

    def loss(self, x: Any) -> Any:
        self.traced += 1  # set by the function itself: no reason to trace anew
        return np.sum(self.shifted(x) ** 2) / self.sigma * self.scale + self.bias


OPTIONS: dict[str, Any] = {"rate": 2.0, "deep": {"order": 1.0}}
SETTINGS = Settings()


def test_attributes_are_compared_on_each_call() -> None:
    settings = Settings()
    settings.offset = 1.0  # type: ignore[attr-defined]
    x = np.ones(3)
    f = wichi.value_and_grad(settings.loss)

    def agree() -> None:
        for _ in range(3):
            assert f(x)[0] == pytest.approx(settings.loss(x))
            assert wichi.jit(settings.loss)(x) == pytest.approx(settings.loss(x))

    agree()
    for change in (
        lambda: setattr(settings, "sigma", 4.0),
        lambda: setattr(settings.inner, "scale", 7.0),
        lambda: setattr(settings, "inner", types.SimpleNamespace(scale=1.5)),
        lambda: setattr(settings, "offset", np.arange(3.0)),
    ):
        change()
        agree()
    settings.offset[:] = 5.0  # type: ignore[attr-defined]  # an array is read anew
    before = settings.traced
    f(x)
    assert settings.traced == before
    agree()
    assert {"self.sigma", "self.inner.scale", "self.offset"} <= {*f.captured()["compared"]}


def test_objects_that_take_turns_and_change_meanwhile() -> None:
    settings = Settings()
    settings.offset = 0.0  # type: ignore[attr-defined]
    one, two = types.SimpleNamespace(scale=1.0), types.SimpleNamespace(scale=1.0)
    f = wichi.jit(settings.loss)
    for k in range(6):
        settings.inner = (one, two)[k % 2]
        for _ in range(2):
            assert f(np.ones(3)) == pytest.approx(settings.loss(np.ones(3)))
        settings.inner.scale += 1.0
        two.scale = one.scale
    assert f(np.ones(3)) == pytest.approx(settings.loss(np.ones(3)))


def test_attributes_and_entries_of_globals_and_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    local = {"rate": 3.0}
    f = wichi.jit(lambda x: x * OPTIONS["rate"] ** OPTIONS["deep"]["order"] + SETTINGS.inner.scale * local["rate"])
    for _ in range(3):
        assert f(1.0) == 11.0
    assert len(f._direct) == fastcall.available()
    monkeypatch.setitem(OPTIONS, "rate", 5.0)
    assert f(1.0) == 14.0
    monkeypatch.setitem(OPTIONS["deep"], "order", 2.0)
    assert f(1.0) == 34.0
    monkeypatch.setattr(SETTINGS.inner, "scale", 0.0)
    assert f(1.0) == 25.0
    monkeypatch.undo()
    local["rate"] = 1.0
    assert f(1.0) == 5.0


MASK = np.array([True, False, True])


def test_masks_are_compared_by_their_contents() -> None:
    mask = MASK.copy()

    def loss(x: Any) -> Any:
        y = x * 1.0
        y[mask] *= 2
        return np.sum(y[mask] ** 2) + np.sum(x[OPTIONS["mask"]])

    OPTIONS["mask"] = MASK.copy()
    f, outer, x = wichi.value_and_grad(loss), wichi.jit(lambda x: wichi.grad(loss)(x) * 1.0), np.array([1.0, 2.0, 3.0])
    for change in (
        lambda: None,
        lambda: mask.fill(True),
        lambda: OPTIONS["mask"].__setitem__(1, True),
        lambda: mask.fill(0),
    ):
        change()
        for _ in range(3):
            value, slope = f(x)
            assert value == loss(x)
            np.testing.assert_array_equal(slope, 8.0 * x * mask + OPTIONS["mask"])
            np.testing.assert_array_equal(outer(x), slope)
    del OPTIONS["mask"]


def test_masks_made_inside_cost_nothing() -> None:
    f = wichi.jit(lambda x: np.sum(x[np.tril(np.ones((3, 3), bool))]))
    for _ in range(3):
        assert f(np.ones((3, 3))) == 6
    assert len(f._direct) == fastcall.available()


INTEGERS, ONE, SINGLES = np.arange(4), np.ones(1), np.ones((4, 4), np.float32)


def _cast_and_spread(x: Any) -> Any:
    return np.sum(x**2 * INTEGERS) + np.sum(np.sin(x) * ONE) + np.sum((SINGLES @ x) ** 2)


def _in_a_loop(x: Any) -> Any:
    def step(s: Any, _: Any) -> Any:
        return np.sin(s) * 0.9 + np.sum(x**2 * INTEGERS) * 0.01 + np.sum(s * ONE) * 0.1 + SINGLES @ s * 0.1, None

    return np.sum(wichi.scan(step, x, length=3)[0])


WAYS: dict[str, Any] = {
    "jit": wichi.jit,
    "grad": wichi.grad,
    "hessian": wichi.hessian,
    "jacfwd": wichi.jacfwd,
    "nested jit": lambda f: wichi.jit(lambda x: wichi.jit(f)(x) + wichi.grad(f)(x)),
    "grad of grad": lambda f: wichi.grad(lambda x: np.sum(wichi.grad(f)(x) ** 2)),
    "grad of vmap": lambda f: wichi.grad(lambda x: np.sum(wichi.vmap(f)(np.stack([x, 2 * x])))),
    "jvp": lambda f: wichi.jit(lambda x: wichi.jvp(f, (x,), (x,))[1]),
    "vjp": lambda f: wichi.jit(lambda x: wichi.vjp(f, x)[1](2.0)[0]),
    "linearize": lambda f: wichi.jit(lambda x: wichi.linearize(f, x)[1](x)),
    "checkpoint": lambda f: wichi.grad(wichi.checkpoint(f)),
    "cond": lambda f: wichi.grad(lambda x: wichi.cond(x[0] > 0, f, np.sum, x)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("f", [_cast_and_spread, _in_a_loop])
def test_captured_arrays_are_read_anew_in_every_transform(f: Any, way: str) -> None:
    x, before = np.array([0.3, 0.5, 0.7, 0.9]), (INTEGERS.copy(), ONE.copy(), SINGLES.copy())

    def again(x: Any) -> Any:
        return f(x) + 0.0 * x[0]  # other code: traced for itself

    g = WAYS[way](f)
    first = g(x)
    try:
        INTEGERS[:], ONE[:], SINGLES[:] = [5, 6, 7, 8], 3.0, 2.0
        second = g(x)
        np.testing.assert_allclose(second, WAYS[way](again)(x), rtol=1e-12)
        assert not np.allclose(first, second)
    finally:
        INTEGERS[:], ONE[:], SINGLES[:] = before
    np.testing.assert_array_equal(g(x), first)

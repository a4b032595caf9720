"""Every primitive, from the table: a new row is tested the minute it exists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import wichi.transforms  # noqa: F401  (fills the tables and the registry)
from wichi.kernels.program import Executable
from wichi.kernels.source import source
from wichi.trace import batch, forward, reverse
from wichi.trace.evaluate import evaluate
from wichi.trace.ir import Graph, check
from wichi.trace.primitive import Primitive, aval_of
from wichi.trace.tracer import trace

# Tested in test_control.py and test_custom.py: what they do is what the graphs in them do.
_HOLD_GRAPHS = {"host", "call", "cond", "custom", "scan", "while", "while_pullback"}
CASES = [
    (name, number, args, params)
    for name, prim in sorted(Primitive.table.items())
    if name not in _HOLD_GRAPHS
    for number, (args, params) in enumerate(prim.samples(np.random.default_rng(0)))
]
# Only + - * / sqrt, comparisons, minima and maxima are the same bits in Python and in machine code: the others call
# the C library there and NumPy's own routines here.
_LIBRARY = {
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "cbrt", "sin", "cos", "tan", "arcsin", "arccos", "arctan",
    "arctan2", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "sigmoid", "softplus", "erf", "erfc", "pow", "matmul",
    "solve", "solve_triangular", "cholesky", "slogdet", "eigh", "qr", "svd",
}  # fmt: skip


def graph_of(prim: Primitive, args: Any, params: Any) -> Graph:
    def call(*xs: Any) -> list[Any]:
        out = prim(*xs, **params)
        return list(out) if prim.multiple else [out]

    return check(trace(call, [aval_of(a) for a in args]).graph)


def tolerance(dtype: np.dtype[Any]) -> dict[str, float]:
    return {"rtol": 3e-6, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-14}


@pytest.fixture(params=CASES, ids=lambda c: f"{c[0]}-{c[1]}")
def case(request: Any) -> Any:
    name, _, args, params = request.param
    return Primitive.table[name], [np.asarray(a) for a in args], params


def test_native_code_agrees_with_the_interpreter(case: Any) -> None:
    prim, args, params = case
    graph = graph_of(prim, args, params)
    with np.errstate(all="ignore"):
        expected = evaluate(graph, *args)
    for got, want, out in zip(Executable(graph)(args), expected, graph.outs, strict=True):
        want = np.asarray(want)
        assert np.shape(got) == want.shape == out.aval.shape
        assert np.asarray(got).dtype == want.dtype == out.aval.dtype
        np.testing.assert_allclose(got, want, **tolerance(want.dtype))


def test_native_code_is_bit_equal_to_the_printed_python(case: Any) -> None:
    prim, args, params = case
    graph = graph_of(prim, args, params)
    space: dict[str, Any] = {}
    exec(source(graph), space)
    for got, want in zip(Executable(graph)(args), space["program"](*args), strict=True):
        if prim.name in _LIBRARY:
            np.testing.assert_allclose(got, want, **tolerance(want.dtype))
        else:
            assert np.asarray(got).tobytes() == want.tobytes()


def test_strided_and_readonly_inputs_give_the_same(case: Any) -> None:
    prim, args, params = case
    run = Executable(graph_of(prim, args, params))
    wide = [np.repeat(a[..., None], 2, axis=-1)[..., 0] for a in args]
    for a in wide:
        a.flags.writeable = False
    for got, want in zip(run(wide), run(args), strict=True):
        np.testing.assert_array_equal(got, want)


DIFFERENTIABLE = [
    c for c in CASES
    if Primitive.table[c[0]].differentiable and any(np.asarray(a).dtype == np.float64 for a in c[2])
    and c[0] != "stop_gradient"
]  # fmt: skip


def _floats(args: Any) -> list[int]:
    return [i for i, a in enumerate(args) if np.asarray(a).dtype.kind == "f"]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=lambda c: f"{c[0]}-{c[1]}")
def test_derivatives(case: Any) -> None:
    """jvp against differences, vjp against jvp, and both of the gradient itself (second order)."""
    name, _, args, params = case
    prim, args = Primitive.table[name], [np.asarray(a) for a in args]
    graph = graph_of(prim, args, params)
    if graph.outs[0].aval.dtype != np.float64:
        assert name == "cast"  # its result is an integer, or too coarse for differences; nothing else may land here
        return
    rng = np.random.default_rng(1)
    which = _floats(args)
    _check_graph(graph, args, which, rng)
    # Second order: the vjp graph is a graph like any other.
    second = reverse.vjp(graph, which)
    cts = [rng.standard_normal(o.aval.shape) for o in graph.outs if o.aval.dtype.kind == "f"]
    _check_graph(check(second), [*args, *cts], [*which, *range(len(args), len(args) + len(cts))], rng)


def _check_graph(graph: Graph, args: list[Any], which: list[int], rng: np.random.Generator) -> None:
    tangents = [rng.standard_normal(args[i].shape).astype(args[i].dtype) for i in which]
    pushed = check(forward.jvp(graph, which))
    count = len(graph.outs)
    dots = evaluate(pushed, *args, *tangents)[count:]
    step = 1e-6

    def moved(sign: int) -> list[Any]:
        shifted = list(args)
        for i, t in zip(which, tangents, strict=True):
            shifted[i] = args[i] + sign * step * t
        return evaluate(graph, *shifted)

    floats = [k for k, o in enumerate(graph.outs) if o.aval.dtype.kind == "f"]
    for dot, k in zip(dots, floats, strict=True):
        difference = (moved(1)[k] - moved(-1)[k]) / (2 * step)
        np.testing.assert_allclose(dot, difference, rtol=2e-5, atol=2e-5)
    cts = [rng.standard_normal(graph.outs[k].aval.shape) for k in floats]
    bars = evaluate(check(reverse.vjp(graph, which)), *args, *cts)[count:]
    forward_product = sum(np.sum(c * d) for c, d in zip(cts, dots, strict=True))
    reverse_product = sum(np.sum(b * t) for b, t in zip(bars, tangents, strict=True))
    np.testing.assert_allclose(reverse_product, forward_product, rtol=1e-9, atol=1e-9)


def _another(prim: Primitive, a: Any, k: int) -> Any:
    """Entry ``k`` of a batch made of ``a``."""
    return a * (1.0 + k) if prim.name == "cholesky" else np.roll(a, k)  # which must stay positive definite


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}")
@pytest.mark.filterwarnings("ignore:divide by zero")  # NumPy warns of integer division by 0; both sides give 0
def test_batching_equals_the_loop(case: Any) -> None:
    """For every mix of batched and unbatched inputs."""
    name, _, args, params = case
    prim, args = Primitive.table[name], [np.asarray(a) for a in args]
    graph = graph_of(prim, args, params)
    size = 3
    for mix in range(1, 2 ** len(args)):
        batched = [bool(mix >> i & 1) for i in range(len(args))]
        full = [
            np.stack([_another(prim, a, k) for k in range(size)]) if b else a
            for a, b in zip(args, batched, strict=True)
        ]
        got = evaluate(check(batch.vmap(graph, batched, size)), *full)
        for k in range(size):
            want = evaluate(graph, *[a[k] if b else a for a, b in zip(full, batched, strict=True)])
            # A product of one matrix and a batch is one larger product, whose sums run in another order.
            rtol = 3e-6 if want[0].dtype == np.float32 else 1e-12
            np.testing.assert_allclose(got[0][k], want[0], rtol=rtol, atol=1e-14 if rtol < 1e-6 else 1e-6)


def test_every_primitive_has_samples_and_one_derivative() -> None:
    for prim in Primitive.table.values():
        assert (prim.samples is not None) != (prim.name in _HOLD_GRAPHS), prim.name
        rules = [r for r in (prim.partials, prim.transpose, prim.jvp, prim.whole) if r is not None]
        assert len(rules) == prim.differentiable, prim.name

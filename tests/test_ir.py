"""The graph itself: value numbering, folding, exact algebra, dead equations, the checker, and the printed loops."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import wichi
from wichi.errors import GraphError
from wichi.trace.evaluate import evaluate
from wichi.trace.ir import Aval, Builder, Eqn, Graph, Var, check
from wichi.trace.primitive import Primitive

X = np.linspace(-1.0, 2.0, 5)
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -3.25, np.inf, -np.inf, np.nan, 5e-324, 1e308])


def names(graph):
    return [eqn.prim.name for eqn in graph.eqns]


def test_equal_expressions_are_one_equation():
    graph = wichi.make_graph(lambda x: np.sin(x) * 2 + np.sin(x) / np.exp(np.sin(x)))(X)
    assert names(graph).count("sin") == 1


def test_unused_equations_are_dropped():
    assert names(wichi.make_graph(lambda x: (np.exp(x), np.sin(x))[1])(X)) == ["sin"]


def test_constants_fold():
    graph = wichi.make_graph(lambda x: x * (np.float64(2) + 3) + np.sum(np.zeros(5)))(X)
    assert "5.0" in str(graph)
    assert len(graph.eqns) <= 3


ALGEBRA = {
    "x - 0": (lambda x: x - 0.0, []),
    "x + 0 stays for -0": (lambda x: x + 0.0, ["add"]),
    "0 - x stays for -0": (lambda x: 0.0 - x, ["sub"]),
    "x * 1": (lambda x: 1.0 * x, []),
    "x * 0 stays for nan": (lambda x: 0.0 * x, ["mul"]),
    "x * -1": (lambda x: x * -1.0, ["neg"]),
    "-(-x)": (lambda x: -np.negative(x), []),
    "x + (-y)": (lambda x: x + (-np.sin(x)), ["sin", "sub"]),
    "x - (-y)": (lambda x: x - (-np.sin(x)), ["sin", "add"]),
    "x / 1": (lambda x: x / 1.0, []),
    "x * x": (lambda x: x * x, ["square"]),
    "x ** 2": (lambda x: x**2, ["square"]),
    "x ** 1": (lambda x: x**1, []),
    "x ** 0.5": (lambda x: x**0.5, ["sqrt"]),
    "x ** -1": (lambda x: x**-1, ["div"]),
    "where same": (lambda x: np.where(x > 0, x, x), []),
}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("name", ALGEBRA)
def test_algebra_is_exact(name):
    f, expected = ALGEBRA[name]
    graph = wichi.make_graph(f)(SPECIAL)
    assert names(graph) == expected
    (found,) = evaluate(graph, SPECIAL)
    exact = f(SPECIAL)
    np.testing.assert_array_equal(found, exact)
    np.testing.assert_array_equal(np.signbit(found[~np.isnan(exact)]), np.signbit(exact[~np.isnan(exact)]))


def test_graphs_pass_the_checker():
    graph = wichi.value_and_grad(lambda w, x: np.mean(np.tanh(x @ w) ** 2)).graph(np.ones((3, 2)), np.ones((4, 3)))
    assert check(graph) is graph


def broken_graphs():
    sin, add = Primitive.table["sin"], Primitive.table["add"]
    x, y, z = Var(Aval((3,), np.dtype(float))), Var(Aval((3,), np.dtype(float))), Var(Aval((4,), np.dtype(float)))
    yield "not bound before", Graph((x,), (Eqn(sin, (y,), {}, (z,)),), (z,))
    yield "bound already", Graph((x,), (Eqn(sin, (x,), {}, (x,)),), (x,))
    yield "its type rule says", Graph((x,), (Eqn(sin, (x,), {}, (z,)),), (z,))
    yield "bound by nothing", Graph((x,), (), (y,))
    yield "bound twice", Graph((x, x), (), (x,))
    scalar = Var(Aval((), np.dtype(float)))
    yield "mixes shapes", Graph((x, scalar), (Eqn(add, (x, scalar), {}, (y,)),), (y,))


@pytest.mark.parametrize(("fault", "graph"), [*broken_graphs()])
def test_checker_finds(fault, graph):
    with pytest.raises(GraphError, match=fault):
        check(graph)


def test_builder_answers_the_same_atom_for_equal_bits():
    b = Builder()
    assert b.scalar(np.float64(0.0)) is b.scalar(np.float64(0.0))
    assert b.scalar(np.float64(0.0)) is not b.scalar(np.float64(-0.0))
    assert b.scalar(np.float64(1)) is not b.scalar(np.float32(1))


def test_printed_loops_are_a_program():
    def loss(w, x):
        return np.sum(np.maximum(x * w, 0.5) ** 2)

    w, x = np.linspace(0, 1, 37), np.linspace(-2, 3, 37)
    f = wichi.value_and_grad(loss)
    source = f.source(w, x)
    space: dict = {}
    exec(source, space)
    value, gradient = space["program"](w, x)
    expected = f(w, x)
    assert value == expected[0]  # bit for bit: only + * and comparisons occur
    np.testing.assert_array_equal(gradient, expected[1])
    nests = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name.startswith("nest")]
    assert len(nests) == 1, "the value and the gradient are one loop"
    assert source == f.source(w, x)


def test_printed_loops_match_the_golden_text():
    golden = Path(__file__).with_name("golden_source.py.txt")
    space: dict = {"np": np}
    exec(compile("def f(x):\n    return np.sum(np.exp(x) * 3)", "model.py", "exec"), space)
    assert wichi.value_and_grad(space["f"]).source(np.ones(5)) == golden.read_text()

"""The graph as text, as dot and as a picture; the eager graph as draw_dot shows it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import wichi
from wichi import Tensor
from wichi.errors import DrawError
from wichi.utils import draw_dot
from wichi.utils.graphing import draw_dot as same_draw_dot

SCRIPTS = sysconfig.get_path("scripts")
NO_LAYOUT = not (shutil.which("dot") or shutil.which("graphviz-pure") or shutil.which("graphviz-pure", path=SCRIPTS))
needs_layout = pytest.mark.skipif(NO_LAYOUT, reason="needs Graphviz's dot, or: pip install graphviz-pure")


def loss(w, x):
    h = np.tanh(x @ w)
    return np.sum(h * h)


W, X = np.ones((3, 2)), np.ones((4, 3))

GOLDEN = """\
graph(w:f64[3,2], x:f64[4,3])
  a:f64[4,2] = matmul x w
  b:f64[4,2] = tanh a
  c:f64[4,2] = square b
  d:f64[] = sum[axes=(0, 1)] c
  # backward
  e:f64[4,2] = mul 2.0 b
  f:f64[4,2] = sub 1.0 c
  g:f64[4,2] = mul f e
  h:f64[3,4] = transpose[perm=(1, 0)] x
  i:f64[3,2] = matmul h g
  return d, i"""


def test_text_shows_names_types_and_parts():
    assert str(wichi.value_and_grad(loss).graph(W, X)) == GOLDEN


def test_text_is_the_same_each_time():
    graph = wichi.value_and_grad(loss).graph(W, X)
    assert str(graph) == str(graph)
    assert graph.dot() == graph.dot()


def test_dot_shows_each_equation_with_type_line_and_part():
    graph = wichi.value_and_grad(loss).graph(W, X)
    source = graph.dot()
    for i, eqn in enumerate(graph.eqns):
        assert f"eqn{i} [" in source
        assert str(eqn.outs[0].aval) in source
    assert "test_show.py:" in source
    assert "backward of test_show.py:" in source
    assert source.count("fillcolor") == len(graph.ins) + len(graph.eqns) + len(graph.outs)


def test_dot_needs_no_graphviz():
    code = (
        "import sys, numpy as np, wichi\n"
        "wichi.jit(lambda x: np.sin(x)).graph(1.0).dot()\n"
        "assert 'graphviz' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_layout
def test_graph_draws_an_svg(tmp_path):
    graph = wichi.grad(loss).graph(W, X)
    path = graph.draw(str(tmp_path / "graph.svg"))
    picture = Path(path).read_text()
    assert "<svg" in picture
    assert "matmul" in picture
    assert "<svg" in graph._repr_svg_()


def test_missing_layout_program_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda *a, **k: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DrawError, match=r"(?s)W602.*graphviz\.org.*pip install graphviz-pure"):
        wichi.jit(loss).graph(W, X).draw("graph.svg")
    with pytest.raises(DrawError):
        draw_dot(Tensor(1.0) * 2).render()
    assert (tmp_path / "graph.dot").exists()  # the text is there all the same


def founding_example():
    x1, x2 = Tensor(2.0, label="x1"), Tensor(0.0, label="x2")
    w1, w2 = Tensor(-3.0, label="w1"), Tensor(1.0, label="w2")
    b = Tensor(6.8813735870195432, label="b")
    y_hat = (x1 * w1 + x2 * w2 + b).tanh()
    y_hat.label = "y_hat"
    y = Tensor(1.0, label="y")
    loss = (y_hat - y) ** 2
    loss.label = "loss"
    return loss, x1


def test_draw_dot_shows_label_data_and_grad():
    loss, x1 = founding_example()
    before = draw_dot(loss).source
    assert "x1 | data 2 | grad 0" in before
    assert "y_hat | data 0.7071 | grad 0" in before
    loss.backward()
    after = draw_dot(loss).source
    assert f"x1 | data 2 | grad {x1.grad[()]:.4g}" in after
    assert "loss | data 0.08579 | grad 1" in after
    for op in ("*", "+", "tanh", "**2"):
        assert f'label="{op}"' in after
    assert same_draw_dot is draw_dot


def test_draw_dot_shows_large_arrays_by_shape():
    x = Tensor(np.ones((32, 784)), label="X")
    source = draw_dot((x * 2).sum()).source
    assert "X | data float64[32, 784] | grad float64[32, 784]" in source


def test_labels_with_special_characters():
    source = draw_dot(Tensor(1.0, label='a|b{c}"<d>') + 1).source
    assert r"a\|b\{c\}\"\<d\>" in source


@needs_layout
def test_render_writes_into_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    loss, _ = founding_example()
    assert draw_dot(loss).render() == "graph.svg"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph.dot", "graph.svg"]
    picture = (tmp_path / "graph.svg").read_text()
    for word in ("x1", "y_hat", "loss", "grad"):
        assert word in picture
    assert "<svg" in draw_dot(loss)._repr_svg_()

"""The README's code runs as it stands, its picture is what the call shown makes, and what it says of errors is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import wichi
from tests.test_show import needs_layout

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@needs_layout
def test_all_code_runs_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"README block {number}", "exec"), space)
    np.testing.assert_allclose(space["found"].x, [2.0, 0.3, 1.7, 0.5], atol=1e-4)
    assert len(space["L"].graph()) == 10
    assert wichi.nn.accuracy(space["y"], space["mlp"](space["x"])) > 0.9
    assert (tmp_path / "graph.svg").exists()
    printed = capsys.readouterr().out
    assert "[2.  0.3 1.7 0.5]" in printed
    assert "loss: Tensor(" in printed


def test_picture_shows_the_graph_of_the_code_shown():
    space: dict = {"np": np, "wichi": wichi}
    block = next(b for b in BLOCKS if "draw(" in b)
    exec(block.split("gradient.graph")[0].rsplit("print(", 1)[0], space)
    graph = space["gradient"].graph(space["w"], space["x"], space["y"])
    picture = (ROOT / "docs" / "graph.svg").read_text(encoding="utf-8")
    for eqn in graph.eqns:
        assert eqn.prim.name in picture
    assert picture.count('class="node"') == len(graph.ins) + len(graph.eqns) + len(graph.outs)


def test_error_text_shown_is_the_one_raised(tmp_path):
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1]
    path = tmp_path / "model.py"
    path.write_text("import math\n\n\n\n\ndef loss(x):\n    return math.exp(x)\n")
    space: dict = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    with pytest.raises(wichi.errors.PlainFloatError) as caught:
        wichi.grad(space["loss"])(1.0)
    assert str(caught.value).replace(str(path), "model.py").strip() == shown.strip()


def test_files_named_exist():
    for name in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(?:examples/)?(\w+\.py)`", README):
        assert (ROOT / "examples" / name).exists(), name

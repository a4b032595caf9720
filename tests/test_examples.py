"""Every example runs, ends in an assert that holds, and stays short."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
PICTURES = {"digits": ["out/digits.png"], "read_the_graph": ["out/graph.dot"]}


def run(path: Path, folder: Path, **environment: str) -> None:
    variables = {**os.environ, "MPLBACKEND": "Agg", **environment}
    done = subprocess.run([sys.executable, str(path)], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem != "mnist"], ids=lambda p: p.stem)
def test_example_runs(path, tmp_path, monkeypatch):
    monkeypatch.delenv("WICHI_DATA", raising=False)
    run(path, tmp_path)
    for picture in PICTURES.get(path.stem, []):
        assert (tmp_path / picture).stat().st_size > 1000


@pytest.mark.slow
def test_mnist_example_reaches_its_accuracy(mnist, tmp_path):
    run(next(p for p in EXAMPLES if p.stem == "mnist"), tmp_path, WICHI_DATA=str(mnist))


@pytest.mark.slow
def test_torch_parity_on_mnist(mnist, tmp_path):
    run(next(p for p in EXAMPLES if p.stem == "torch_parity"), tmp_path, WICHI_DATA=str(mnist))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_is_short_and_asserts(path):
    text = path.read_text()
    assert len(text.splitlines()) < 80
    assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text)))
    assert ast.get_docstring(ast.parse(text))

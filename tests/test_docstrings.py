"""The examples of the docstrings run and give what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import wichi

# `errors` shows code that fails; tests/test_errors.py runs each of its examples.
LEFT_OUT = {"wichi.errors"}
MODULES = sorted(m.name for m in pkgutil.walk_packages(wichi.__path__, "wichi.") if m.name not in LEFT_OUT)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name, monkeypatch):
    monkeypatch.setattr(wichi.config, "internal_frames", wichi.config.internal_frames)  # an example sets it
    if name == "wichi.pytensor":
        pytest.importorskip(
            "pytensor", reason="needs PyTensor: pip install 'wichi[pymc]' into an environment of its own"
        )
    module = importlib.import_module(name)
    space = {"np": np, "wichi": wichi, **{k: getattr(wichi, k) for k in wichi.__all__}, **vars(module)}
    finder, runner = (
        doctest.DocTestFinder(recurse=True),
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE),
    )
    found = [t for t in finder.find(module, name, globs=space, extraglobs={}) if t.examples]
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0

"""The code of every page under docs/ runs, block after block; and what its links and names lead to exists."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


class Block(NamedTuple):
    """Code of a page. ``needs``: a package without which it cannot run; ``script``: it runs alone, as a file."""

    page: Path
    number: int
    code: str
    needs: str | None
    script: bool

    def run(self, space: dict) -> None:
        exec(compile(self.code, f"{self.page.name} block {self.number}", "exec"), space)


def blocks(page: Path) -> list[Block]:
    found = []
    for number, (info, code) in enumerate(re.findall(r"```python([^\n]*)\n(.*?)```", page.read_text(), re.DOTALL)):
        words = info.split()
        needs = [w.removeprefix("needs=") for w in words if w.startswith("needs=")]
        assert {w.partition("=")[0] for w in words} <= {"needs", "script"}, f"{page.name}: {info}"
        found.append(Block(page, number, code, needs[0] if needs else None, "script" in words))
    return found


SPECIAL = [b for page in PAGES for b in blocks(page) if b.needs or b.script]


def test_pages_and_marks_are_found():
    assert {p.stem for p in PAGES} >= {"fit", "simulate", "sample", "library", "teach"}
    assert {b.needs for b in SPECIAL} >= {"pymc", "nutpie", "emcee"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_code_runs_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    for block in blocks(page):
        if not block.needs and not block.script:
            block.run(space)


@pytest.mark.parametrize("block", SPECIAL, ids=lambda b: f"{b.page.stem}-{b.number}-{b.needs or 'script'}")
def test_code_that_needs_more(block, tmp_path, monkeypatch):
    """After the blocks before it that need nothing; where its package is installed."""
    if block.needs:
        extra = "pymc" if block.needs == "pymc" else "friends"
        pytest.importorskip(block.needs, reason=f"needs {block.needs}: pip install 'wichi[{extra}]'")
    if block.script:
        path = tmp_path / "script.py"
        path.write_text(block.code)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        return
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other package
        for before in blocks(block.page)[: block.number]:
            if not before.needs and not before.script:
                before.run(space)
        block.run(space)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\]\(([\w./]+)\)", text):
        assert (page.parent / name).exists(), name
    for name in re.findall(r"`((?:examples|tests|wichi|docs|benchmarks)/[\w/]+\.\w+)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_names_of_wichi_exist(page):
    """Whatever a page calls ``wichi.something`` is there."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for name in sorted(set(re.findall(r"`(wichi(?:\.\w+)+)", text))):
        found: object = importlib.import_module("wichi")
        for part in name.split(".")[1:]:
            if name.startswith("wichi.pytensor"):
                continue  # an optional module; tests/test_pytensor.py has it
            found = getattr(found, part)


def _functions_page():
    spec = importlib.util.spec_from_file_location("functions_page", ROOT / "tools" / "functions_page.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_page_of_functions_is_what_the_tables_say():
    made = _functions_page()
    written = made.PAGE.read_text(encoding="utf-8")
    if f"NumPy {made.VERSION}." not in written:
        pytest.skip(f"needs the NumPy that docs/functions.md names, not {made.VERSION}: parameters differ between them")
    assert written == made.page(), "make it again: python tools/functions_page.py"

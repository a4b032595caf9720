"""What ``import wichi`` loads and offers, and what the wheel holds."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import wichi

ROOT = Path(__file__).resolve().parents[1]


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_import_loads_nothing_heavy():
    loaded = modules_after("import wichi")
    assert not loaded & {"numba", "llvmlite", "scipy", "graphviz", "matplotlib", "tqdm", "torch", "jax", "pytensor"}


def test_eager_half_never_needs_numba():
    code = "from wichi import Tensor\nx = Tensor([1.0, 2.0])\n(x.tanh() @ x).backward()"
    assert not modules_after(code) & {"numba", "scipy", "graphviz"}


def test_third_party_imports_are_the_declared_ones():
    new = modules_after("import wichi") - modules_after("import numpy")
    named = {name for name in new if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert named <= {"wichi", "optree", "typing_extensions", "sitecustomize"}


def test_menu_is_sorted_and_complete():
    assert list(wichi.__all__) == sorted(wichi.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))
    for name in wichi.__all__:
        assert getattr(wichi, name) is not None


def test_namespace_of_numpy_offers_what_it_names():
    for name in wichi.numpy.__all__:
        assert hasattr(wichi.numpy, name)
    ours = {n for n in wichi.numpy.__all__ if not hasattr(np, n)}
    assert ours == {"erf", "erfc", "logsumexp", "norm", "relu", "sigmoid", "softplus"}


def test_public_objects_have_docstrings():
    for name in wichi.__all__:
        assert getattr(wichi, name).__doc__, name
    for name in wichi.numpy.__all__:
        if callable(getattr(wichi.numpy, name)):
            assert getattr(wichi.numpy, name).__doc__, name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names} == {"wichi", f"wichi-{wichi.__version__}.dist-info"}
    files = {
        str(p.relative_to(ROOT)) for p in (ROOT / "wichi").rglob("*") if p.is_file() and "__pycache__" not in str(p)
    }
    assert {n for n in names if n.startswith("wichi/")} == files
    for needed in ("wichi/py.typed", "wichi/data_files/digits.npz", "wichi/data_files/digits.txt"):
        assert needed in names


def test_version_and_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == wichi.__version__
    needed = {d.split(">")[0] for d in project["dependencies"]}
    assert needed == {"numpy", "numba", "scipy", "optree", "graphviz"}
    documented = (ROOT / "docs" / "dependencies.md").read_text()
    for extra in [project["dependencies"], *project["optional-dependencies"].values()]:
        for dependency in extra:
            assert dependency.split(">")[0].split("=")[0].split("[")[0] in documented

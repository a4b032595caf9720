"""The house: a file imports only from lower floors, and each outside library has its one room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "wichi"
# Floors by module, the longest prefix counts. Within a floor imports are free, as long as they form no circle.
FLOORS = {
    "wichi.errors": 0, "wichi.config": 0, "wichi.pytree": 0,
    "wichi.trace.ir": 1, "wichi.trace.frames": 1, "wichi.trace.show": 1, "wichi.trace.boxed": 1, "wichi.trace.advice": 1, "wichi.trace.dims": 1, "wichi.trace.dtypes": 1,
    "wichi.kernels.layout": 1, "wichi.kernels.loops": 1, "wichi.kernels.numbers": 1, "wichi.kernels.packs": 1, "wichi.kernels.writer": 1,
    "wichi.trace.primitive": 2, "wichi.trace.refusals": 2, "wichi.trace.holders": 2, "wichi.trace.tracer": 2, "wichi.trace.writable": 2, "wichi.trace.free": 2, "wichi.trace.captured": 2, "wichi.trace.sources": 2,
    "wichi.ops": 3,
    "wichi.trace": 4, "wichi.trace.bodies": 5, "wichi.trace.branches": 5, "wichi.trace.callbacks": 5, "wichi.trace.calls": 5, "wichi.trace.scans": 5, "wichi.trace.whiles": 5,
    "wichi.kernels": 6,
    "wichi.numpy": 7, "wichi.batching": 7, "wichi.blackbox": 7, "wichi.recompute": 7, "wichi.cache": 7, "wichi.jacobians": 7, "wichi.njitted": 7, "wichi.freesizes": 7, "wichi.compiled": 7, "wichi.choice": 7, "wichi.control": 7, "wichi.cinterface": 7, "wichi.arguments": 7, "wichi.binding": 7, "wichi.linear": 7, "wichi.traces": 7, "wichi.guards": 7, "wichi.raised": 7, "wichi.randomness": 7, "wichi.implicit": 7, "wichi.static": 7, "wichi.travel": 7, "wichi.testing": 7, "wichi.custom": 7, "wichi.debug": 7, "wichi.transforms": 7, "wichi.tape": 7,
    "wichi.methods": 7, "wichi.tensor": 7, "wichi.value": 7,
    "wichi.nn": 8, "wichi.fit": 8, "wichi.scipy": 8, "wichi.sparse": 8, "wichi.ode": 8, "wichi.optim": 8, "wichi.data": 8, "wichi.utils": 8, "wichi.pytensor": 8,
    "wichi": 9,
}  # fmt: skip
ROOMS = {
    "optree": {"wichi.pytree"},
    "graphviz": {"wichi.trace.show"},
    "numba": {"wichi.kernels.bridge", "wichi.pytensor"},
    "pytensor": {"wichi.pytensor"},
    "llvmlite": {
        "wichi.kernels.bridge",
        "wichi.kernels.slots",
        "wichi.kernels.door_native",
        "wichi.kernels.emit",
        "wichi.kernels.emit_calls",
        "wichi.kernels.emit_parts",
        "wichi.kernels.link",
        "wichi.kernels.native",
        "wichi.kernels.open_blas",
        "wichi.kernels.scalars",
        "wichi.kernels.small_product",
        "wichi.kernels.sorting",
        "wichi.kernels.standalone",
        "wichi.kernels.vecmath",
        "wichi.kernels.vecmath_numbers",
    },
    "scipy": {
        "wichi.kernels.blas",
        "wichi.ops.pointwise",
        "wichi.scipy.optimize",
        "wichi.scipy.integrate",
        "wichi.sparse.plans",
        "wichi.sparse.sets",
        "wichi.scipy.limits",
        "wichi.cinterface",
    },
}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("wichi", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def floor(module: str) -> int:
    while module not in FLOORS:
        module = module.rpartition(".")[0]
    return FLOORS[module]


def imports(path: Path, within_functions: bool = True) -> set[str]:
    """The modules a file imports; names imported from a package count as modules where they are some."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }  # these never run
    for node in ast.walk(tree) if within_functions else tree.body:
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else str(node.module))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_from_lower_floors(module):
    for name in imports(MODULES[module]):
        if name.split(".")[0] == "wichi":
            assert name != "wichi", f"{module} imports from the menu"
            assert floor(name) <= floor(module), f"{module} (floor {floor(module)}) imports {name} ({floor(name)})"


@pytest.mark.parametrize("module", MODULES)
def test_outside_libraries_stay_in_their_rooms(module):
    for name in imports(MODULES[module]):
        rooms = ROOMS.get(name.split(".")[0])
        assert rooms is None or module in rooms, f"{module} imports {name}"


def test_no_circles_when_imported():
    graph = {m: {n for n in imports(p, within_functions=False) if n in MODULES and n != m} for m, p in MODULES.items()}
    order: list[str] = []
    while len(order) < len(graph):
        free = [m for m in graph if m not in order and graph[m] <= {*order}]
        left = sorted(set(graph) - set(order))
        assert free, f"a circle of imports among {left}"
        order += free


def test_every_floor_exists():
    for module in FLOORS:
        assert module in MODULES or any(m.startswith(module + ".") for m in MODULES), module

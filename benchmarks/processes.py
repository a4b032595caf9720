"""What whole processes take: time to a first gradient, and memory of a gradient of 10⁶ numbers.

    make bench ROWS="start memory"

Each is measured in a child process, the contestants taking turns: wichi with an empty kernel cache, wichi with a full
one, JAX, PyTorch, and Python with NumPy alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.compare import duration, pin, processor

# Each contestant's program: imports, and then f(n), which takes a gradient of the MNIST MLP at batch n. In all of them
# the weights are NumPy's and the loss is the workload's.
_BEGIN = """
import functools, sys, time
begun = time.perf_counter()
import numpy as np
numpy_there = time.perf_counter()
{imports}
imported = time.perf_counter()
from benchmarks.workloads import mlp, pointwise
made = time.perf_counter()
"""
_FIRST = """
w = mlp([784, 200, 80, 40, 10], 32, np.float32)
ready = time.perf_counter()
{gradient}
answer = run()
answered = time.perf_counter()
run()
again = time.perf_counter()
import json
print(json.dumps({{"import": imported - numpy_there, "first": answered - ready, "second": again - answered,
                  "numba": "numba" in sys.modules}}))
"""
_GRADIENT = {
    "wichi": """
f = wichi.value_and_grad(functools.partial(w.loss, np))
run = lambda: f(*w.arguments)""",
    "JAX": """
f = jax.jit(jax.value_and_grad(functools.partial(w.loss, jnp)))
arguments = jax.tree.map(jnp.asarray, w.arguments)
run = lambda: jax.block_until_ready(f(*arguments))""",
    "PyTorch": """
from benchmarks.torch_names import Namespace
def leaf(a):
    return torch.tensor(a, requires_grad=True)
first = w.arguments[0]
first = [leaf(a) for a in first] if isinstance(first, list) else leaf(first)
rest = [torch.tensor(a) for a in w.arguments[1:]]
def run():
    value = w.loss(Namespace(), first, *rest)
    return value, torch.autograd.grad(value, first)""",
}
_IMPORTS = {
    "wichi": "import wichi",
    "JAX": "import jax, jax.numpy as jnp; jax.config.update('jax_enable_x64', True)",
    "PyTorch": "import torch; torch.set_num_threads(1)",
}
_MODULES = {"wichi": "wichi", "JAX": "jax", "PyTorch": "torch"}

# The highest resident size since a mark, by the kernel's account. The calls before it compiled, and their answers are
# kept: what is handed out must be new.
_MEMORY = """
import gc, json
w = pointwise(25, np.float64)
{gradient}
before = [run() for _ in range(3)]
gc.collect()
def status(key):
    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith(key)) * 1024
open('/proc/self/clear_refs', 'w').write('5')  # the highest size begins anew from here
size = status('VmRSS')
answer = run()
time.sleep(0.2)  # who gives memory back from another thread has done so
print(json.dumps({{"highest": status('VmHWM') - size, "after": status('VmRSS') - size}}))
"""


def _child(code: str, cache: str | None = None) -> tuple[float, dict[str, float]]:
    """Seconds of the whole process, and what it prints."""
    # glibc gives arrays back at once with a fixed threshold; by itself it raises it and keeps some.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", **({"WICHI_CACHE": cache} if cache else {})}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    whole = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"a child process failed:\n{done.stderr[-2000:]}")
    return whole, json.loads(done.stdout.splitlines()[-1])


def contestants() -> list[str]:
    return [name for name, module in _MODULES.items() if importlib.util.find_spec(module)]


def start(out: Path = Path("out"), rounds: int = 5) -> dict[str, dict[str, float]]:
    """From the start of Python to the first gradient of the MNIST MLP at batch 32, the best of ``rounds``."""
    pin()
    print(f"{processor()}, one core, {time.strftime('%Y-%m-%d')}; MNIST MLP, batch 32, float32, whole processes\n")
    programs = {
        name: (_BEGIN + _FIRST).format(imports=_IMPORTS[name], gradient=_GRADIENT[name]) for name in contestants()
    }
    found: dict[str, dict[str, float]] = {}

    def note(name: str, code: str, cache: str | None = None) -> None:
        whole, parts = _child(code, cache)
        best = found.setdefault(name, {"whole": whole, **parts})
        for key, value in {"whole": whole, **parts}.items():
            best[key] = min(best[key], value)

    with tempfile.TemporaryDirectory() as full:
        _child(programs["wichi"], full)
        for _ in range(rounds):
            note("Python and NumPy", "import numpy; print('{}')")
            with tempfile.TemporaryDirectory() as empty:
                note("wichi, empty cache", programs["wichi"], empty)
            note("wichi, full cache", programs["wichi"], full)
            for name in programs.keys() - {"wichi"}:
                note(name, programs[name])
    print("| process | whole | import beyond NumPy | first gradient | second |\n|---|---|---|---|---|")
    for name, best in found.items():
        parts = [duration(best[key]) if key in best else "–" for key in ("import", "first", "second")]
        also = {0: ", numba not loaded", 1: ", numba loaded"}[int(best["numba"])] if name.startswith("wichi") else ""
        print(f"| {name}{also} | {duration(best['whole'])} | {' | '.join(parts)} |")
    _write(out / "start.json", found)
    return found


def memory(out: Path = Path("out")) -> dict[str, dict[str, float]]:
    """The growth of the resident size by value and gradient of 25 operations on 10⁶ float64: the gradient has 8 MB."""
    print(f"{processor()}, {time.strftime('%Y-%m-%d')}; growth of the resident size by one more call\n")
    if not Path("/proc/self/clear_refs").exists():
        print("needs Linux: the highest size is read from /proc")
        return {}
    print("| 25 operations on 10⁶, float64 | highest | after |\n|---|---|---|")
    found = {}
    for name in contestants():
        code = (_BEGIN + _MEMORY).format(imports=_IMPORTS[name], gradient=_GRADIENT[name])
        _, found[name] = _child(code)
        print(f"| {name} | {found[name]['highest'] / 1e6:.1f} MB | {found[name]['after'] / 1e6:.1f} MB |", flush=True)
    print("\n" + planned())
    _write(out / "memory.json", found)
    return found


def planned() -> str:
    """What wichi says itself, before it runs."""
    import functools

    import numpy as np

    import wichi
    from benchmarks.workloads import pointwise

    w = pointwise(25, np.float64)
    said = wichi.value_and_grad(functools.partial(w.loss, np)).memory(*w.arguments)
    return f"f.memory() says: outputs {said.outputs / 1e6:.1f} MB, working memory {said.working / 1e6:.1f} MB"


def _write(path: Path, found: dict[str, dict[str, float]]) -> None:
    path.parent.mkdir(exist_ok=True)
    content = {"machine": processor(), "date": time.strftime("%Y-%m-%d"), "rows": found}
    path.write_text(json.dumps(content, indent=1))

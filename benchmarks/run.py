"""What wichi costs: importing, compiling, and calling, beside what the same work costs at least.

    make bench        everything
    make bench ROWS="import compile call warm njit"   start: processes to a first gradient, beside JAX and PyTorch
                                                      memory: of a gradient of 10⁶ numbers
                                                      compare: beside limits, JAX, PyTorch and autograd, on one core
                                                      unpinned: the same on all cores
                                                      loops: scans, Hessians, batches of fits
                                                      fits: whole calls of SciPy's solvers
                                                      sparse: sparse Jacobians and Hessians
    make bench-pytensor   PyTensor's column of compare, in an environment of its own

Times are the best of many, taken in alternation within one process (for processes: alternating processes), because
the machine is shared; ratios are what to quote.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import wichi
from wichi import nn, pytree
from wichi.compiled import Transformed


def best(contestants: dict[str, Callable[[], object]], rounds: int = 200, least: float = 0.002) -> dict[str, float]:
    """Seconds of each, the best of ``rounds``, taking turns; short ones are repeated up to ``least`` seconds."""
    repeats = {}
    for name, run in contestants.items():
        run()
        start = time.perf_counter()
        run()
        repeats[name] = max(1, int(least / max(time.perf_counter() - start, 1e-7)))
    found = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            found[name] = min(found[name], (time.perf_counter() - start) / repeats[name])
    return found


def process(code: str) -> float:
    """Seconds of a whole Python process that runs ``code``."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def mnist_mlp(batch: int, dtype: type = np.float32) -> tuple[Transformed, tuple[object, ...]]:
    """Value and gradient of the founding network's loss, and its arguments."""
    rng = np.random.default_rng(0)
    mlp = wichi.MLP(dim=[784, 200, 80, 40, 10], seed=0, dtype=dtype)
    x = rng.standard_normal((batch, 784)).astype(dtype)
    y = np.eye(10, dtype=dtype)[rng.integers(0, 10, batch)]

    def loss(mlp: wichi.MLP, x: np.ndarray, y: np.ndarray) -> object:
        return nn.cross_entropy(y, mlp(x))

    return wichi.value_and_grad(loss), (mlp, x, y)


def row_import() -> None:
    """Whole processes: the import beyond numpy's."""
    times = best(
        {"numpy": lambda: process("import numpy"), "wichi": lambda: process("import wichi")}, rounds=15, least=0
    )
    print(f"import wichi, beyond import numpy: {times['wichi'] - times['numpy']:.3f} s (numpy {times['numpy']:.3f} s)")


def long_chain(operations: int, number: float) -> Transformed:
    """A gradient of as many operations in a row; ``number`` makes it another function."""

    def loss(x: np.ndarray) -> object:
        y = x
        for i in range(operations):
            y = y * number + x if i % 3 else np.maximum(y, x) - 0.5
        return np.sum(y)

    return wichi.value_and_grad(loss)


def row_compile() -> None:
    """The first call of functions in a process that has compiled another before; nothing comes from disk."""
    from wichi.kernels import link, native
    from wichi.kernels.loops import walk
    from wichi.kernels.schedule import plan

    kept, os.environ["WICHI_CACHE"] = os.environ.get("WICHI_CACHE"), "off"
    start = time.perf_counter()
    wichi.grad(lambda x: np.sin(x))(1.0)
    print(f"first compile of a process: {time.perf_counter() - start:.2f} s")
    f, arguments = mnist_mlp(32)
    start = time.perf_counter()
    graph = f.graph(*arguments)
    traced = time.perf_counter()
    f(*arguments)
    print(
        f"MNIST MLP value_and_grad: traced and transformed in {(traced - start) * 1e3:.1f} ms ({len(graph.eqns)} "
        f"equations), compiled and called first in {time.perf_counter() - traced:.3f} s"
    )
    x = np.linspace(0, 1, 50)
    for operations in (92, 720, 2260):
        tracing = []
        for k in range(5):
            f = long_chain(operations, 1 + k * 1e-6)
            start = time.perf_counter()
            graph = f.graph(x)
            tracing.append(time.perf_counter() - start)
        start = time.perf_counter()
        program = plan(graph).program
        link.host().emit_object(link.optimised(native.llvm_ir(program)[1], link.host()))
        compiled = time.perf_counter() - start
        statements = sum(1 for nest in program.nests for _ in walk(nest.body))
        print(
            f"{len(graph.eqns)} equations, {statements} statements: traced and transformed in "
            f"{min(tracing) / len(graph.eqns) * 1e6:.1f} µs an equation, scheduled and compiled in {compiled:.2f} s"
        )
    if kept is None:
        del os.environ["WICHI_CACHE"]
    else:
        os.environ["WICHI_CACHE"] = kept


def row_call() -> None:
    """Calls of the MNIST MLP beside its BLAS calls alone, on one core."""
    from benchmarks.compare import pin
    from benchmarks.limits import blas_alone  # compiles with numba
    from benchmarks.workloads import WORKLOADS

    pin()
    for batch in (32, 512):
        f, arguments = mnist_mlp(batch)
        products = blas_alone(WORKLOADS[f"MNIST MLP batch {batch}"]())
        assert products is not None
        times = best({"wichi": lambda: f(*arguments), "BLAS alone": products})  # noqa: B023
        print(
            f"MNIST MLP value_and_grad, batch {batch}, f32: {times['wichi'] * 1e6:.0f} µs, "
            f"its BLAS calls alone {times['BLAS alone'] * 1e6:.0f} µs, ratio {times['wichi'] / times['BLAS alone']:.2f}"
        )
    tree = {f"p{i}": np.ones(8) for i in range(10)}
    f = wichi.grad(lambda tree: sum(np.sum(p * p) for p in tree.values()))
    times = best({"tree": lambda: f(tree), "rosenbrock": rosenbrock_call()})
    print(f"gradient of a tree of ten arrays of 8: {times['tree'] * 1e6:.2f} µs a call")
    print(f"Rosenbrock n=10 with a captured global and a closed-over number: {times['rosenbrock'] * 1e6:.2f} µs a call")


WEIGHT = 100.0


def rosenbrock_call() -> Callable[[], object]:
    """A call whose globals and closure cells are compared each time."""
    shift, x = 1.0, np.linspace(-1, 1, 10)
    f = wichi.value_and_grad(lambda x: np.sum(WEIGHT * (x[1:] - x[:-1] ** 2) ** 2 + (shift - x[:-1]) ** 2))
    return lambda: f(x)


def row_compare() -> None:
    """Beside limits, JAX, PyTorch and autograd, on one core. A process of its own: it pins itself."""
    subprocess.run([sys.executable, "-m", "benchmarks.compare"], check=True)


def row_unpinned() -> None:
    """The same on all cores."""
    subprocess.run([sys.executable, "-m", "benchmarks.compare", "unpinned"], check=True)


def row_start() -> None:
    """Processes to a first gradient, beside JAX and PyTorch."""
    from benchmarks.processes import start

    start()


def row_memory() -> None:
    """Memory of a gradient of 10⁶ numbers, beside JAX and PyTorch."""
    from benchmarks.processes import memory

    memory()


def row_loops() -> None:
    """Loops, Hessians and batches of small problems, beside JAX, PyTorch and SciPy."""
    from benchmarks.loops import main

    main()


def row_sparse() -> None:
    """Sparse Jacobians and Hessians, beside JAX and a loop by hand."""
    from benchmarks.sparse import main

    main()


def row_fits() -> None:
    """SciPy's solvers with wichi's derivatives, beside the same with their own differences."""
    from benchmarks.fits import main

    main()


def row_warm() -> None:
    """A second process, from its start to the first gradient of the MNIST MLP, with machine code on disk."""
    script = (
        "import sys, time; start = time.perf_counter(); import wichi; imported = time.perf_counter();"
        "from benchmarks.run import mnist_mlp; f, arguments = mnist_mlp(32); begun = time.perf_counter();"
        "f(*arguments); print(time.perf_counter() - begun, 'numba' in sys.modules)"
    )
    best_whole = best_inside = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        inside, numba = done.stdout.split()
        best_whole, best_inside = min(best_whole, time.perf_counter() - start), min(best_inside, float(inside))
    print(
        f"a second process: {best_whole:.2f} s, of which the first gradient {best_inside:.3f} s; numba loaded: {numba}"
    )


def row_njit() -> None:
    """A gradient of three numbers inside numba code, beside its machine code called by address and a loop by hand."""
    import numba

    from wichi.njitted import _callee

    f = wichi.value_and_grad(lambda x: np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))
    x = np.array([0.5, -0.3, 0.8])
    slope, any_length = wichi.njit(f, x), wichi.njit(f, wichi.spec("float64", ("n",)))
    native = _callee(f, "f", *pytree.flatten(((x,), {})))
    arrays = [x, *native.plan.constants, *(np.empty(a.shape) for a in native.plan.outputs), np.empty(1 << 12)]
    table = np.array([a.ctypes.data for a in arrays], np.int64)
    given = table.ctypes.data, native.plan.sizes.ctypes.data, native.plan.scalars.ctypes.data
    by_address = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(native.entry)
    assert native.plan.arena_bytes <= arrays[-1].nbytes - 64
    table[-1] = -(-table[-1] // 64) * 64

    @numba.njit
    def by_hand(x: np.ndarray) -> tuple[float, np.ndarray]:
        g = np.empty(3)
        a, b = x[1] - x[0] * x[0], x[2] - x[1] * x[1]
        g[0] = -400 * a * x[0] - 2 * (1 - x[0])
        g[1] = 200 * a - 400 * b * x[1] - 2 * (1 - x[1])
        g[2] = 200 * b
        return 100 * a * a + (1 - x[0]) ** 2 + 100 * b * b + (1 - x[1]) ** 2, g

    @numba.njit
    def run(function: object, x: np.ndarray, steps: int) -> float:
        total = 0.0
        for _ in range(steps):
            value, g = function(x)
            total += value + g[0]
        return total

    @numba.njit
    def run_native(steps: int) -> int:
        total = 0
        for _ in range(steps):
            total += by_address(*given)
        return total

    steps = 100_000
    times = best({
        "native": lambda: run_native(steps), "njit": lambda: run(slope, x, steps),
        "free": lambda: run(any_length, x, steps), "hand": lambda: run(by_hand, x, steps),
        "Python": lambda: [f(x) for _ in range(1000)],
    })  # fmt: skip
    step = {name: t / (1000 if name == "Python" else steps) * 1e9 for name, t in times.items()}
    print(
        f"value and gradient of three numbers, a step inside @njit: {step['njit']:.0f} ns, of which its machine code "
        f"{step['native']:.0f} ns; of any length {step['free']:.0f} ns; written by hand {step['hand']:.0f} ns; "
        f"a call from Python {step['Python']:.0f} ns"
    )


ROWS = {
    "import": row_import, "compile": row_compile, "call": row_call, "warm": row_warm, "njit": row_njit,
    "start": row_start, "memory": row_memory, "compare": row_compare, "unpinned": row_unpinned,
    "loops": row_loops, "sparse": row_sparse, "fits": row_fits,
}  # fmt: skip

if __name__ == "__main__":
    for name in sys.argv[1:] or ROWS:
        ROWS[name]()

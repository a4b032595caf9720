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

import itertools
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import wichi
from wichi import nn
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


def blas_alone(batch: int, dtype: type = np.float32) -> Callable[[], None]:
    """The matrix products of that network's value and gradient, and nothing else."""
    rng = np.random.default_rng(0)
    dims = [784, 200, 80, 40, 10]
    products = []
    for a, b in itertools.pairwise(dims):
        x, w, g = (rng.standard_normal(s).astype(dtype) for s in ((batch, a), (a, b), (batch, b)))
        products += [(x, w, np.empty((batch, b), dtype)), (x.T, g, np.empty((a, b), dtype))]
        if a != dims[0]:
            products.append((g, w.T, np.empty((batch, a), dtype)))

    def run() -> None:
        for p, q, out in products:
            np.matmul(p, q, out=out)

    return run


def row_import() -> None:
    """Whole processes: the import beyond numpy's."""
    times = best(
        {"numpy": lambda: process("import numpy"), "wichi": lambda: process("import wichi")}, rounds=15, least=0
    )
    print(f"import wichi, beyond import numpy: {times['wichi'] - times['numpy']:.3f} s (numpy {times['numpy']:.3f} s)")


def row_compile() -> None:
    """The first call of a function in a process that has compiled another before."""
    start = time.perf_counter()
    wichi.grad(lambda x: np.sin(x))(1.0)
    first = time.perf_counter() - start
    f, arguments = mnist_mlp(32)
    start = time.perf_counter()
    graph = f.graph(*arguments)
    traced = time.perf_counter()
    f(*arguments)
    print(f"first compile of a process, numba's start-up in it: {first:.2f} s")
    print(
        f"MNIST MLP value_and_grad: traced and transformed in {(traced - start) * 1e3:.1f} ms ({len(graph.eqns)} "
        f"equations), compiled and called first in {time.perf_counter() - traced:.3f} s"
    )


def row_call() -> None:
    """Calls of the MNIST MLP beside its BLAS calls alone."""
    for batch in (32, 512):
        f, arguments = mnist_mlp(batch)
        times = best({"wichi": lambda: f(*arguments), "BLAS alone": blas_alone(batch)})  # noqa: B023
        print(
            f"MNIST MLP value_and_grad, batch {batch}, f32: {times['wichi'] * 1e6:.0f} µs, "
            f"its BLAS calls alone {times['BLAS alone'] * 1e6:.0f} µs, ratio {times['wichi'] / times['BLAS alone']:.2f}"
        )


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
    """A step of gradient descent on three numbers inside numba code, beside the same call from Python."""
    import numba

    f = wichi.value_and_grad(lambda x: np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))
    slope = wichi.njit(f, np.zeros(3))

    @numba.njit
    def descend(x: np.ndarray, steps: int) -> np.ndarray:
        for _ in range(steps):
            x = x - 1e-3 * slope(x)[1]
        return x

    x, steps = np.array([0.5, -0.3, 0.8]), 100_000
    times = best({"njit": lambda: descend(x, steps), "Python": lambda: [f(x) for _ in range(1000)]})
    print(
        f"gradient of three numbers: {times['njit'] / steps * 1e9:.0f} ns a step inside @njit, "
        f"{times['Python'] / 1000 * 1e6:.2f} µs a call from Python"
    )


ROWS = {
    "import": row_import, "compile": row_compile, "call": row_call, "warm": row_warm, "njit": row_njit,
    "start": row_start, "memory": row_memory, "compare": row_compare, "unpinned": row_unpinned,
    "loops": row_loops, "sparse": row_sparse, "fits": row_fits,
}  # fmt: skip

if __name__ == "__main__":
    for name in sys.argv[1:] or ROWS:
        ROWS[name]()

"""Value and gradient of each workload by wichi, JAX, PyTorch and HIPS autograd, in one process, taking turns.

    make bench ROWS=compare

All run on one core (the process pins itself to it). Results are compared before anything is timed. Prints a table and
writes ``out/benchmarks.json`` and ``out/benchmarks.png``.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import wichi
from benchmarks.workloads import WORKLOADS, Workload

Run = Callable[[], Any]


def by_wichi(w: Workload) -> Run:
    f = wichi.value_and_grad(functools.partial(w.loss, np))
    return lambda: f(*w.arguments)


def by_jax(w: Workload) -> Run:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    f = jax.jit(jax.value_and_grad(functools.partial(w.loss, jnp)))
    arguments = jax.tree.map(jnp.asarray, w.arguments)
    return lambda: jax.block_until_ready(f(*arguments))


def by_autograd(w: Workload) -> Run:
    import autograd
    import autograd.numpy as anp

    f = autograd.value_and_grad(functools.partial(w.loss, anp))
    return lambda: f(*w.arguments)


class _TorchNamespace:
    """PyTorch under NumPy's names, as far as the workloads go."""

    def __init__(self) -> None:
        import torch

        self.torch = torch
        for name in ("tanh", "exp", "log", "log1p", "sqrt", "abs", "einsum", "swapaxes", "sum", "mean"):
            setattr(self, name, getattr(torch, name))

    def max(self, x: Any, axis: int) -> Any:
        return self.torch.amax(x, axis)

    def maximum(self, x: Any, y: float) -> Any:
        return self.torch.clamp(x, min=y)


def by_torch(w: Workload) -> Run:
    import torch

    torch.set_num_threads(1)
    namespace = _TorchNamespace()
    first, *rest = [[torch.tensor(p) for p in a] if isinstance(a, list) else torch.tensor(a) for a in w.arguments]
    leaves = first if isinstance(first, list) else [first]
    for leaf in leaves:
        leaf.requires_grad_(True)

    def run() -> Any:
        value = w.loss(namespace, first, *rest)
        gradients = torch.autograd.grad(value, leaves)
        return value.detach().numpy(), [g.numpy() for g in gradients]

    return run


def blas_alone(w: Workload, dtype: Any) -> Run | None:
    """The matrix products of the workload and nothing else."""
    if not w.products:
        return None
    rng = np.random.default_rng(0)
    matrices = [
        (rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype), np.empty((m, n), dtype))
        for m, k, n in w.products
    ]

    def run() -> None:
        for a, b, c in matrices:
            np.matmul(a, b, out=c)

    return run


CONTESTANTS = {"wichi": by_wichi, "JAX": by_jax, "PyTorch": by_torch, "autograd": by_autograd}


def leaves_of(answer: Any) -> list[np.ndarray]:
    value, gradient = answer
    return [np.asarray(value), *(np.asarray(g) for g in (gradient if isinstance(gradient, list) else [gradient]))]


def best_of(runs: dict[str, Run], seconds: float = 1.5) -> dict[str, float]:
    """The best time of each; they take turns for ``seconds`` a contestant."""
    gc.collect()
    gc.freeze()  # what one contestant has imported does not slow down the others' collections
    found = dict.fromkeys(runs, float("inf"))
    repeats = {}
    for name, run in runs.items():
        start = time.perf_counter()
        run()
        repeats[name] = max(1, int(0.01 / max(time.perf_counter() - start, 1e-7)))
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            found[name] = min(found[name], (time.perf_counter() - start) / repeats[name])
    return found


def compare(name: str, w: Workload) -> dict[str, float]:
    """Seconds by contestant. Their answers must agree first."""
    runs = {}
    reference = None
    for contestant, make in CONTESTANTS.items():
        try:
            run = make(w)
            for _ in range(3):
                answer = leaves_of(run())
        except ImportError:
            continue
        reference = reference or answer
        single = reference[1].dtype == np.float32
        for a, b in zip(reference, answer, strict=True):
            scale = np.max(np.abs(a), initial=1e-30)
            np.testing.assert_allclose(
                b / scale, a / scale, atol=2e-4 if single else 1e-9, err_msg=f"{name}: {contestant}"
            )
        runs[contestant] = run
    assert reference is not None
    limit = blas_alone(w, reference[1].dtype)
    if limit is not None:
        runs["BLAS alone"] = limit
    return best_of(runs)


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def pin() -> None:
    """Keep this process, and the threads it starts, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main(out: Path = Path("out")) -> None:
    pin()
    print(f"{processor()}, one core, {time.strftime('%Y-%m-%d')}; value and gradient, best of many, taking turns\n")
    print("| workload | wichi | JAX jit | PyTorch eager | autograd | BLAS alone |\n|---|---|---|---|---|---|")
    rows = {}
    for name, make in WORKLOADS.items():
        times = rows[name] = compare(name, make())
        cells = [duration(times["wichi"])]
        cells += [
            f"{duration(times[other])} ({times[other] / times['wichi']:.2f})" if other in times else "–"
            for other in ("JAX", "PyTorch", "autograd", "BLAS alone")
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    for other in ("JAX", "PyTorch", "autograd"):
        ratios = [t[other] / t["wichi"] for t in rows.values() if other in t]
        if ratios:
            print(
                f"\n{other} / wichi: geometric mean {np.exp(np.mean(np.log(ratios))):.2f}, smallest {min(ratios):.2f}"
            )
    out.mkdir(exist_ok=True)
    (out / "benchmarks.json").write_text(json.dumps({"machine": processor(), "seconds": rows}, indent=1))
    _plot(rows, out / "benchmarks.png")


def _plot(rows: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    names = list(rows)[::-1]
    for offset, other in enumerate(("JAX", "PyTorch", "autograd")):
        ratios = [rows[n].get(other, np.nan) / rows[n]["wichi"] for n in names]
        axes.barh(np.arange(len(names)) + 0.27 * (1 - offset), ratios, height=0.25, label=other)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="time / wichi's time", yticks=range(len(names)), yticklabels=names)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

"""Each workload by wichi, JAX, PyTorch (eager and compiled), HIPS autograd and PyTensor, beside its lower limits.

    make bench ROWS=compare      on one core, BLAS and PyTorch with one thread
    make bench ROWS=unpinned     on all cores, each with the threads it takes by itself; and wichi with as many
    make bench-pytensor          PyTensor, in an environment of its own: it wants an older numba

One process, the contestants taking turns, the best of many. Answers are compared before anything is timed. Prints a
table and writes ``out/benchmarks.json`` and ``out/benchmarks.png`` (or ``out/unpinned.json``). Where a contestant has
no time, its cell says why.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

import wichi
from benchmarks import training
from benchmarks.workloads import WORKLOADS, Workload

Run = Callable[[], Any]
COMPILE_SECONDS = 60  # torch.compile gives up a workload after these


# --- the contestants -------------------------------------------------------------------------------------------------
def by_wichi(w: Workload) -> Run:
    if w.step:
        return training.by_wichi(w)
    f = wichi.value_and_grad(functools.partial(w.loss, np))
    return lambda: f(*w.arguments)


def by_wichi_in_threads(w: Workload) -> Run:
    """``wichi.config.parallel`` is the number of cores while it runs."""
    alone, cores = by_wichi(w), len(os.sched_getaffinity(0))

    def run() -> Any:
        wichi.config.parallel = cores
        try:
            return alone()
        finally:
            wichi.config.parallel = 0

    return run


def by_jax(w: Workload) -> Run:
    if w.step:
        return training.by_jax(w)
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    f = jax.jit(jax.value_and_grad(functools.partial(w.loss, jnp)))
    arguments = jax.tree.map(jnp.asarray, w.arguments)
    return lambda: jax.block_until_ready(f(*arguments))


def by_autograd(w: Workload) -> Run:
    if w.step:
        return training.by_autograd(w)
    import autograd
    import autograd.numpy as anp

    f = autograd.value_and_grad(functools.partial(w.loss, anp))
    return lambda: f(*w.arguments)


def by_torch(w: Workload, compiled: Callable[[Any], Any] = lambda loss: loss) -> Run:
    """``compiled`` is applied to the loss."""
    import torch

    from benchmarks.torch_names import Namespace

    if w.step:
        return training.by_torch(w, Namespace(), compiled)
    loss = compiled(functools.partial(w.loss, Namespace()))
    first, *rest = [[torch.tensor(p) for p in a] if isinstance(a, list) else torch.tensor(a) for a in w.arguments]
    leaves = first if isinstance(first, list) else [first]
    for leaf in leaves:
        leaf.requires_grad_(True)

    def run() -> Any:
        value = loss(first, *rest)
        return value, list(torch.autograd.grad(value, leaves))

    return run


class _TooLong(BaseException):
    """Not an Exception: nobody but us catches it."""


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Unable(Exception):
    """A contestant cannot run this workload; the text goes into its cell."""


def by_torch_compiled(w: Workload) -> Run:
    """Inductor, which compiles by a C++ compiler. Its first call, which compiles, is made here."""
    import torch

    torch._dynamo.reset()
    run = by_torch(w, lambda loss: torch.compile(loss, fullgraph=True))
    try:
        with _at_most(COMPILE_SECONDS):
            run()
    except _TooLong:
        raise Unable(f"over {COMPILE_SECONDS} s to compile") from None
    except Exception as error:  # no compiler, an operation it does not have: what it says is the answer
        raise Unable(f"fails: {type(error).__name__}") from error
    # A step has state, and that call was one: the others have not made theirs.
    return by_torch(w, lambda loss: torch.compile(loss, fullgraph=True)) if w.step else run


def _limit(kind: str, w: Workload) -> Run:
    from benchmarks.limits import LIMITS  # compiles with numba, which tests of the other parts need not

    run = LIMITS[kind](w)
    if run is None:
        raise Unable("–")
    return run


LIMIT = "numba by hand"
LIMITS = {kind: functools.partial(_limit, kind) for kind in (LIMIT, "BLAS", "bytes")}
OTHERS = {
    "JAX jit": by_jax, "PyTorch eager": by_torch, "torch.compile": by_torch_compiled, "autograd": by_autograd,
}  # fmt: skip
PINNED: dict[str, Callable[[Workload], Run]] = {"wichi": by_wichi, **LIMITS, **OTHERS}
UNPINNED: dict[str, Callable[[Workload], Run]] = {
    "wichi": by_wichi, "wichi in threads": by_wichi_in_threads, "BLAS": LIMITS["BLAS"],
    **{name: OTHERS[name] for name in ("JAX jit", "PyTorch eager", "torch.compile")},
}  # fmt: skip


# --- one row ---------------------------------------------------------------------------------------------------------
@dataclass
class Row:
    """Seconds by contestant, and for those without why; ``limit`` names what counts as the tightest limit."""

    dtype: str
    threads: int
    seconds: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    limit: str | None = None


def leaves_of(answer: Any) -> list[np.ndarray]:
    """Value and gradient, or value and state, as copies in NumPy."""
    value, rest = answer
    if callable(rest):
        rest = rest()
    arrays = [value, *(rest if isinstance(rest, list | tuple) else [rest])]
    return [np.array(a.detach().numpy() if hasattr(a, "detach") else a) for a in arrays]


def check(name: str, contestant: str, run: Run, reference: list[np.ndarray] | None, single: bool) -> list[np.ndarray]:
    """The answer of the third call; it must be ``reference``, in units of the largest number of each array."""
    for _ in range(3):
        answer = leaves_of(run())
    for a, b in zip(reference or answer, answer, strict=True):
        scale = np.max(np.abs(a), initial=1e-30)
        np.testing.assert_allclose(b / scale, a / scale, atol=2e-4 if single else 1e-9, err_msg=f"{name}: {contestant}")
    return answer


def contest(name: str, w: Workload, contestants: dict[str, Callable[[Workload], Run]]) -> tuple[dict[str, Run], Row]:
    """The runs of those who can, their answers compared; and the row, still without times."""
    runs, row, reference = {}, Row(w.dtype.name, len(os.sched_getaffinity(0))), None
    for contestant, make in contestants.items():
        try:
            run = make(w)
        except ImportError as error:
            row.missing[contestant] = f"no {error.name}"
            continue
        except Unable as error:
            row.missing[contestant] = str(error)
            continue
        if contestant not in ("BLAS", "bytes"):  # these have no answer
            reference = check(name, contestant, run, reference, w.dtype == np.float32)
        runs[contestant] = run
    return runs, row


def tightest(seconds: dict[str, float]) -> str | None:
    """The limit that counts: the longest of those that nothing refutes. What is done by hand has all bytes and products
    in it, so a longer time of these is not a limit of anything."""
    found = [kind for kind in LIMITS if kind in seconds and seconds[kind] <= seconds.get(LIMIT, np.inf)]
    return max(found, key=seconds.__getitem__, default=None)


def best_of(runs: dict[str, Run], seconds: float = 1.5) -> dict[str, float]:
    """The best time of each; they take turns for ``seconds`` a contestant."""
    gc.collect()
    gc.freeze()  # what one contestant has imported does not slow down the others' collections
    try:
        return _in_turns(runs, seconds)
    finally:
        gc.unfreeze()


def _in_turns(runs: dict[str, Run], seconds: float) -> dict[str, float]:
    found = dict.fromkeys(runs, float("inf"))
    repeats = {}
    for name, run in runs.items():
        start = time.perf_counter()
        run()
        repeats[name] = max(1, int(0.003 / max(time.perf_counter() - start, 1e-7)))  # short: between interruptions
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            found[name] = min(found[name], (time.perf_counter() - start) / repeats[name])
    return found


def compare(name: str, w: Workload, contestants: dict[str, Callable[[Workload], Run]], seconds: float = 1.5) -> Row:
    runs, row = contest(name, w, contestants)
    row.seconds = best_of(runs, seconds)
    row.limit = tightest(row.seconds)
    return row


# --- the machine -----------------------------------------------------------------------------------------------------
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


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in ("numpy", "numba", "jax", "torch", "autograd", "pytensor"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def pin() -> None:
    """Keep this process, and the threads it starts, on one core; BLAS and PyTorch have one thread."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"  # for what is loaded from here on
    threadpoolctl.threadpool_limits(1)  # and for what is loaded already


# --- the table -------------------------------------------------------------------------------------------------------
def heading(columns: list[str]) -> str:
    return f"| workload | dtype | threads | {' | '.join(columns)} |\n{'|---' * (len(columns) + 3)}|"


def line(name: str, row: Row, columns: list[str]) -> str:
    """A limit's ratio is wichi's time over it; another contestant's is its time over wichi's."""
    ours, cells = row.seconds["wichi"], []
    for column in columns:
        if column not in row.seconds:
            cells.append(row.missing.get(column, "–"))
            continue
        t = row.seconds[column]
        ratio = ours / t if column in LIMITS else t / ours
        bold = "**" if column == row.limit else ""
        cells.append(duration(t) if column == "wichi" else f"{duration(t)} ({bold}{ratio:.2f}{bold})")
    return f"| {name} | {row.dtype} | {row.threads} | {' | '.join(cells)} |"


def summary(rows: dict[str, Row], others: list[str]) -> str:
    """Geometric means and extremes of the ratios."""
    lines = []
    for other in others:
        ratios = {n: r.seconds[other] / r.seconds["wichi"] for n, r in rows.items() if other in r.seconds}
        if ratios:
            least = min(ratios, key=ratios.__getitem__)
            mean = np.exp(np.mean(np.log(list(ratios.values()))))
            lines.append(
                f"- {other} / wichi: geometric mean {mean:.2f} of {len(ratios)}, smallest {ratios[least]:.2f} ({least})"
            )
    over = {n: r.seconds["wichi"] / r.seconds[r.limit] for n, r in rows.items() if r.limit}
    if over:
        mean = np.exp(np.mean(np.log(list(over.values()))))
        high = ", ".join(f"{n} {v:.2f}" for n, v in over.items() if v > 1.15)
        lines.append(f"- wichi / limit: geometric mean {mean:.2f}; above 1.15: {high or 'none'}")
    return "\n".join(lines)


def with_pytensor(rows: dict[str, Row], path: Path) -> None:
    """PyTensor's ratios from its own run beside wichi (``make bench-pytensor``), on wichi's times of this one."""
    found = json.loads(path.read_text())["rows"] if path.is_file() else {}
    for name, row in rows.items():
        theirs = found.get(name, {"missing": "not run"})
        if "missing" in theirs:
            row.missing["PyTensor"] = theirs["missing"]
        else:
            row.seconds["PyTensor"] = row.seconds["wichi"] * theirs["PyTensor"] / theirs["wichi"]


def main(pinned: bool = True, out: Path = Path("out"), seconds: float = 1.5) -> None:
    """``seconds`` a contestant and workload."""
    if pinned:
        pin()
    contestants = PINNED if pinned else UNPINNED
    cores = len(os.sched_getaffinity(0))
    print(f"{processor()}, {'one core' if pinned else f'{cores} cores'}, {time.strftime('%Y-%m-%d')}; {versions()}")
    print("In brackets: wichi's time over a limit's (the tightest bold), another's time over wichi's.\n")
    columns = [*contestants, "PyTensor"] if pinned else list(contestants)
    print(heading(columns))
    rows = {}
    for name, make in WORKLOADS.items():
        rows[name] = compare(name, make(), contestants, seconds)
        if pinned:
            with_pytensor({name: rows[name]}, out / "pytensor.json")
        print(line(name, rows[name], columns), flush=True)
    print("\n" + summary(rows, [c for c in columns if c not in LIMITS and c != "wichi"]))
    out.mkdir(exist_ok=True)
    content = {"machine": processor(), "threads": cores, "date": time.strftime("%Y-%m-%d"), "versions": versions(),
               "rows": {name: vars(row) for name, row in rows.items()}}  # fmt: skip
    (out / ("benchmarks.json" if pinned else "unpinned.json")).write_text(json.dumps(content, indent=1))
    if pinned:
        plot(rows, [*OTHERS, "PyTensor"], out / "benchmarks.png")


def plot(rows: dict[str, Row], others: list[str], path: Path) -> None:
    """Ratios to wichi's time, one line a workload: the limit left of 1, the others right of it if all is well."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 0.36 * len(rows) + 1.6), layout="constrained")
    names = list(rows)[::-1]
    for other, marker in zip(("limit", *others), "|os^Dv", strict=True):
        ratios = []
        for name in names:
            row = rows[name]
            t = row.seconds.get(row.limit if other == "limit" and row.limit else other, np.nan)
            ratios.append(t / row.seconds["wichi"])
        style = {"color": "black", "markersize": 13, "markeredgewidth": 2.5} if other == "limit" else {"markersize": 6}
        axes.plot(ratios, range(len(names)), marker, label=other, **style)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="time / wichi's time (wichi is the line at 1)")
    axes.set_yticks(range(len(names)), [f"{n} ({rows[n].dtype})" for n in names])
    axes.grid(axis="both", alpha=0.3)
    figure.legend(ncols=6, loc="outside upper center")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main(pinned="unpinned" not in sys.argv[1:])

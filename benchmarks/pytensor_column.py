"""PyTensor in numba's mode beside wichi, in an environment of its own: it asks for an older numba than the others.

    make bench-pytensor

Writes ``out/pytensor.json``: for each workload the seconds of both, taken in turns in this process, so that their ratio
is of one run; or why PyTensor has no time. ``make bench ROWS=compare`` puts the ratios into its table.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compare import Run, Unable, best_of, by_wichi, check, duration, pin, processor, versions
from benchmarks.workloads import WORKLOADS, Workload


class _Namespace:
    """PyTensor under NumPy's names, as far as the workloads go."""

    def __init__(self) -> None:
        import pytensor.tensor as pt

        self.pt = pt
        for name in ("tanh", "exp", "log", "log1p", "sqrt", "abs", "einsum", "max", "maximum", "sum", "mean"):
            setattr(self, name, getattr(pt, name))

    def swapaxes(self, x: Any, a: int, b: int) -> Any:
        return x.swapaxes(a, b)


def by_pytensor(w: Workload) -> Run:
    import pytensor
    import pytensor.tensor as pt

    if w.step:
        raise Unable("no Adam of its own")

    def variable(a: np.ndarray) -> Any:
        return pt.tensor(dtype=a.dtype.name, shape=a.shape)

    arguments = [[variable(p) for p in a] if isinstance(a, list) else variable(a) for a in w.arguments]
    first, *rest = arguments
    leaves = first if isinstance(first, list) else [first]
    loss = w.loss(_Namespace(), first, *rest)
    f = pytensor.function([*leaves, *rest], [loss, *pytensor.grad(loss, leaves)], mode="NUMBA")
    f.trust_input = True  # arrays of the right dtype and rank are not looked at again
    values = [*w.leaves, *w.arguments[1:]]

    def run() -> Any:
        value, *gradient = f(*values)
        return value, gradient

    return run


def measure(name: str, make: Callable[[], Workload]) -> dict[str, Any]:
    w = make()
    ours = by_wichi(w)
    try:
        theirs = by_pytensor(w)
        reference = check(name, "wichi", ours, None, w.dtype == np.float32)
        check(name, "PyTensor", theirs, reference, w.dtype == np.float32)
    except (Unable, NotImplementedError, TypeError) as error:
        return {"missing": str(error).splitlines()[0][:60]}
    return best_of({"wichi": ours, "PyTensor": theirs})


def main(out: Path = Path("out")) -> None:
    pin()
    print(f"{processor()}, one core, {time.strftime('%Y-%m-%d')}; {versions()}\n")
    print("| workload | wichi | PyTensor, numba mode (ratio to wichi) |\n|---|---|---|")
    rows = {}
    for name, make in WORKLOADS.items():
        found = rows[name] = measure(name, make)
        if "missing" in found:
            print(f"| {name} | – | {found['missing']} |", flush=True)
        else:
            ratio = found["PyTensor"] / found["wichi"]
            print(f"| {name} | {duration(found['wichi'])} | {duration(found['PyTensor'])} ({ratio:.2f}) |", flush=True)
    out.mkdir(exist_ok=True)
    content = {"machine": processor(), "date": time.strftime("%Y-%m-%d"), "versions": versions(), "rows": rows}
    (out / "pytensor.json").write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()

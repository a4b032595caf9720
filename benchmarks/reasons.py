"""Why wichi is far from a limit: the loop by hand with what wichi must do too, and calls that compute next to nothing.

python -m benchmarks.reasons
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import wichi
from benchmarks.compare import best_of, by_wichi, duration, pin
from benchmarks.limits import poisson
from benchmarks.limits_mixture import mixture
from benchmarks.workloads import WORKLOADS, Workload

Run = Callable[[], Any]


def next_to_nothing(w: Workload) -> Run:
    """A value and gradient with the arguments and results of two moons."""
    f = wichi.value_and_grad(lambda params, x, y: sum(np.sum(p) for p in params) + x[0, 0] + np.ravel(y)[0])
    return lambda: f(*w.arguments)


BESIDE: dict[str, dict[str, Callable[[Workload], Run]]] = {
    "Gaussian mixture": {"by hand": mixture, "by hand, whole matrices": lambda w: mixture(w, whole=True)},
    "Poisson": {"by hand": poisson, "by hand, dividing": lambda w: poisson(w, divides=True)},
    "two-moons": {"a call that computes next to nothing": next_to_nothing},
}


def main() -> None:
    pin()
    for name, make in WORKLOADS.items():
        others = next((found for begins, found in BESIDE.items() if name.startswith(begins)), None)
        if others is not None:
            w = make()
            times = best_of({"wichi": by_wichi(w), **{other: run(w) for other, run in others.items()}})
            ours = times.pop("wichi")
            beside = ", ".join(f"{other} {duration(t)} ({ours / t:.2f})" for other, t in times.items())
            print(f"{name}: wichi {duration(ours)}; {beside}")


if __name__ == "__main__":
    main()

"""PyTorch under NumPy's names, as far as the workloads go."""

from __future__ import annotations

from typing import Any

import torch


class Namespace:
    """What a workload calls ``xp``."""

    def __init__(self) -> None:
        for name in ("tanh", "exp", "log", "log1p", "sqrt", "abs", "einsum", "swapaxes", "sum", "mean"):
            setattr(self, name, getattr(torch, name))

    def max(self, x: Any, axis: int) -> Any:
        return torch.amax(x, axis)

    def maximum(self, x: Any, y: float) -> Any:
        return torch.clamp(x, min=y)

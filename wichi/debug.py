"""``wichi.debug()``: run everything op by op in NumPy, where Python's tools and nan checks reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from wichi.config import DebugMode, debug_mode, debugging
from wichi.errors import NonFiniteError
from wichi.trace import frames
from wichi.trace.evaluate import Watch, evaluate
from wichi.trace.ir import Eqn, Graph


@contextmanager
def debug(*, nans: bool = False) -> Iterator[None]:
    """Within this context transformed functions run op by op in NumPy instead of as native code.

    The graph is the same one; only its execution changes. The setting holds for the running thread or task.

    Args:
        nans: stop at the first operation, forward or backward, that makes a nan or an infinity from finite numbers.

    Raises:
        NonFiniteError: with ``nans``: names the operation, its line and its operands.

    >>> import numpy as np, wichi
    >>> with wichi.debug():
    ...     wichi.grad(np.sin)(0.0)
    np.float64(1.0)
    """
    token = debug_mode.set(DebugMode(nans))
    debugging[0] += 1
    try:
        yield
    finally:
        debugging[0] -= 1
        debug_mode.reset(token)


def run_in_numpy(graph: Graph, args: Sequence[Any], mode: DebugMode) -> list[Any]:
    """The outputs of ``graph`` by the interpreter; fresh arrays, as native code gives."""
    watch: Watch | None = _stop_at_nonfinite if mode.nans else None
    with np.errstate(all="ignore"):
        values = [np.asarray(x, v.aval.dtype) for x, v in zip(args, graph.ins, strict=True)]
        results = evaluate(graph, *values, watch=watch)
        return [np.array(r, o.aval.dtype)[()] for r, o in zip(results, graph.outs, strict=True)]


def _stop_at_nonfinite(eqn: Eqn, ins: Sequence[Any], outs: Sequence[Any]) -> None:
    if all(np.all(np.isfinite(x)) for x in outs) or not all(np.all(np.isfinite(x)) for x in ins):
        return
    operands = ", ".join(_range(x) for x in ins)
    raise NonFiniteError(
        f"First non-finite number: {eqn.prim.name} made {_range(outs[0])}.",
        at=frames.describe(eqn.where),
        value=f"operands: {operands}",
        because="its operands are finite, so it starts here",
        fix="keep the operands inside the function's domain, for instance with np.where or np.maximum",
    )


def _range(x: Any) -> str:
    x = np.asarray(x)
    if x.ndim == 0:
        return f"{x[()]}"
    return f"{x.dtype}{list(x.shape)} of min {x.min()}, max {x.max()}" if x.size else f"{x.dtype}{list(x.shape)}"

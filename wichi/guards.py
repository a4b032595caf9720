"""Python control flow on values: which way a function went, and whether a call goes the same way.

While a function is traced on real arguments, ``if x > 0:`` or ``range(int(n))`` asks for a number. It is computed from
these arguments, and what Python was told becomes a guard: a further result of the program. A later call is answered by
this program only if its guards come out the same; else its own way is traced.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from wichi.config import config
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.evaluate import read
from wichi.trace.ir import Atom, Var
from wichi.trace.refusals import needs_value
from wichi.trace.tracer import Trace, Tracer


class Path:
    """The guards of one run of a function, in the order in which Python asked."""

    __slots__ = ("answers", "asked", "atoms", "done", "env", "leaves")

    def __init__(self, leaves: Sequence[Any]) -> None:
        self.leaves = leaves
        self.atoms: list[Atom] = []
        self.answers: list[Any] = []
        self.asked = False  # whether Python asked at all: of an enclosing trace too
        self.env: dict[Var, Any] = {}
        self.done = 0  # equations that have been computed

    def concretise(self, run: Trace, x: Tracer) -> Any:
        """The number behind ``x``: computed from the arguments; values of an enclosing trace are asked there."""
        if not config.guards:
            return needs_value(x, "condition" if x.dtype.kind == "b" else "int")
        self.asked = True
        if not self.env:
            self.env.update(zip(run.ins, self.leaves, strict=True))
        self.env.update((var, value) for value, var in run.captured.values())
        eqns = run.builder.eqns
        with np.errstate(all="ignore"):
            for eqn in eqns[self.done :]:
                result = eqn.prim(*[read(self.env, a) for a in eqn.ins], **eqn.params)
                self.env.update(zip(eqn.outs, result if eqn.prim.multiple else (result,), strict=True))
        self.done = len(eqns)
        value = read(self.env, x.atom)
        if isinstance(value, Tracer):
            return value._concrete("condition" if value.dtype.kind == "b" else "int")
        if isinstance(value, Boxed):
            value = value.array()
        answer = np.asarray(value)[()].item()
        if x.atom not in self.atoms:
            self.atoms.append(x.atom)
            self.answers.append(answer)
        return answer


def warn_of_interpreter(name: str, why: str) -> None:
    """Once a function: it runs in NumPy from now on."""
    where = frames.user_where()
    warnings.warn(
        f"{name} {why}, so this call runs in NumPy, equation by equation ({frames.describe(where)}). "
        "wichi.cond and wichi.while_loop compile all ways at once; wichi.config.guarded_paths and guarded_equations "
        "move the limits.",
        RuntimeWarning,
        stacklevel=4,
    )

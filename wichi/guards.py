"""Python control flow on values: which way a function went, and whether a call goes the same way.

While a function is traced on real arguments, ``if x > 0:`` or ``range(int(n))`` asks for a number. It is computed from
these arguments, and what Python was told becomes a guard: a further result of the program. A later call is answered by
this program only if its guards come out the same; else its own way is traced.
"""

from __future__ import annotations

import linecache
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wichi.errors import IndexRangeError, WichiError
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.evaluate import read
from wichi.trace.ir import Atom, Eqn, Graph, Var, Where, dce, graphs_in
from wichi.trace.tracer import Trace, Tracer


class Path:
    """The guards of one run of a function, in the order in which Python asked."""

    __slots__ = ("answers", "asked", "done", "env", "leaves", "places")

    def __init__(self, leaves: Sequence[Any]) -> None:
        self.leaves = leaves
        self.answers: dict[Atom, Any] = {}  # what Python was told of each value
        self.asked = False  # whether Python asked at all: of an enclosing trace too
        self.places: Counter[Where | None] = Counter()
        self.env: dict[Var, Any] = {}
        self.done = 0  # equations that have been computed

    def concretise(self, run: Trace, x: Tracer) -> Any:
        """The number behind ``x``: computed from the arguments; values of an enclosing trace are asked there."""
        self.asked = True
        self.places[frames.user_where()] += 1
        if not self.env:
            self.env.update(typed(run.ins, self.leaves))
        self.env.update((var, value) for value, var in run.captured.values())
        eqns = run.builder.eqns
        with np.errstate(all="ignore"):
            for eqn in eqns[self.done :]:
                result = _computed(eqn, [read(self.env, a) for a in eqn.ins])
                self.env.update(zip(eqn.outs, result if eqn.prim.multiple else (result,), strict=True))
        self.done = len(eqns)
        value = read(self.env, x.atom)
        if isinstance(value, Tracer):
            return value._concrete("condition" if value.dtype.kind == "b" else "int")
        if isinstance(value, Boxed):
            value = value.array()
        return self.answers.setdefault(x.atom, np.asarray(value)[()].item())

    def place(self) -> Where | None:
        """The line where Python asked most often: that of a loop, if there is one."""
        return self.places.most_common(1)[0][0] if self.places else None


def typed(ins: Sequence[Var], leaves: Sequence[Any]) -> Iterator[tuple[Var, Any]]:
    """The inputs with their values, arguments that are Python numbers as NumPy's."""
    for v, x in zip(ins, leaves, strict=True):
        yield v, x if isinstance(x, Boxed) else np.asarray(x, v.aval.dtype)[()]


def _computed(eqn: Eqn, ins: Sequence[Any]) -> Any:
    try:
        return eqn.prim(*ins, **eqn.params)
    except WichiError:
        raise
    except IndexError as error:
        raise IndexRangeError(f"{error}.", at=frames.describe(eqn.where)) from None


_UNBOUNDED = frozenset({"while", "while_pullback", "host"})


def may_not_end(graph: Graph) -> bool:
    """Whether a graph holds a loop without a known end, or a Python function: neither may run on a wrong way."""
    waiting = [graph]
    while waiting:
        for eqn in waiting.pop().eqns:
            if eqn.prim.name in _UNBOUNDED:
                return True
            waiting += [inner for _, inner in graphs_in(eqn)]
    return False


def stages(graph: Graph, count: int) -> list[tuple[Graph, int]]:
    """Graphs of the guards, which are the last ``count`` outputs of ``graph``, to be computed one after the other.

    Each with how many guards it answers. A loop without a known end belongs to a stage that is reached only when the
    guards before it hold.
    """
    guards = graph.outs[len(graph.outs) - count :]
    if not may_not_end(graph):
        return [(dce(Graph(graph.ins, graph.eqns, guards)), count)]
    found: list[tuple[Graph, int]] = []
    loops = -1
    for k in range(1, count + 1):
        part = dce(Graph(graph.ins, graph.eqns, guards[:k]))
        held = sum(may_not_end(Graph((), (e,), ())) for e in part.eqns)
        if held == loops:
            found.pop()
        found.append((part, k))
        loops = held
    return found


def warn_of_interpreter(name: str, where: Where | None, why: str) -> None:
    """Once a function: it runs in NumPy from now on. The warning belongs to the line that asked for a value."""
    line = linecache.getline(where.file, where.line).strip() if where else ""
    instead = "wichi.cond or wichi.while_loop"
    if line.startswith("if "):
        instead = "wichi.cond"
    elif line.startswith(("while ", "for ")):
        instead = "wichi.while_loop or wichi.fori_loop"
    text = (
        f"{name} {why}, because of a value that Python asks for at {frames.describe(where)}. Such calls run in NumPy,"
        f" equation by equation. {instead} in its place compiles all ways at once; wichi.config.guarded_paths and"
        " guarded_equations move the limits."
    )
    if where is None:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    else:
        warnings.warn_explicit(text, RuntimeWarning, where.file, where.line)

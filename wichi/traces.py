"""A traced signature: the graph, how it runs, and whether it still holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from wichi import guards, pytree
from wichi.config import config, debug_mode
from wichi.debug import run_in_numpy
from wichi.errors import ArgumentError
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.captured import same
from wichi.trace.evaluate import evaluate
from wichi.trace.ir import Const, Graph, Where
from wichi.trace.tracer import Tracer, of_its_own

if TYPE_CHECKING:
    from wichi.kernels.program import Executable


@dataclass(slots=True)
class Runnable:
    """A graph with its machine code, made when it first runs on arrays."""

    graph: Graph
    executable: Executable | None = None
    donated: dict[int, int] = field(default_factory=dict)  # results that are written into inputs

    def __reduce__(self) -> tuple[Any, ...]:
        return Runnable, (self.graph, None, self.donated)  # machine code stays at home

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        """The outputs on arrays, computed natively; on traced values, as traced values."""
        if any(isinstance(x, Tracer) for x in values):
            return [of_its_own(x) for x in evaluate(self.graph, *values)]  # no result is an argument itself
        values = [x.array() if isinstance(x, Boxed) else x for x in values]
        from wichi.kernels.program import Executable, check_donated  # loaded with the first call: imports stay light

        mode = debug_mode.get()
        if mode is not None:
            results = run_in_numpy(self.graph, values, mode)
            check_donated(values, list(self.donated.values()))
            for k, i in self.donated.items():
                values[i][...] = results[k]
                results[k] = values[i]
            return results
        if self.executable is None or self.executable.parallel != bool(config.parallel):
            self.executable = Executable(self.graph, self.donated, bool(config.parallel))
        return self.executable(values)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a rewrite may ask of the function it rewrites: its name, and the trees of arguments and result."""

    name: str
    in_tree: pytree.TreeDef
    out_tree: pytree.TreeDef
    outermost: bool  # not called from within another transform
    guards: int = 0  # how many of the graph's last outputs are guards; they stay the last


class Rewrite(Protocol):
    """A transform of graphs; hashable, so that equal transforms of equal code share their traces."""

    @property
    def name(self) -> str: ...

    @property
    def donate_argnums(self) -> tuple[int, ...]: ...

    def __call__(self, graph: Graph, signature: Signature) -> tuple[Graph, pytree.TreeDef]: ...


@dataclass(slots=True)
class CompiledTrace:
    """One traced signature: how it runs, how its results go back into a tree, and what it depended on."""

    run: Runnable
    out_tree: pytree.TreeDef
    depends_on: tuple[Any, ...]
    captured: tuple[Boxed, ...] = ()
    derived: dict[Any, Any] = field(default_factory=dict)  # what further transforms of this trace made of it
    passing: bool = False  # its way was decided by values of an enclosing trace, which has the guards
    guards: tuple[Any, ...] = ()  # what the last results must be for the others to be right
    asked_at: Where | None = None  # the line that asked for most of them
    contents: tuple[tuple[Any, Any], ...] = ()  # captured arrays that must be what they were, and what that was

    def __call__(self, leaves: Sequence[Any]) -> list[Any]:
        return self.run([*leaves, *self.captured])

    def depends_on_same(self, values: Sequence[Any]) -> bool:
        """Whether globals, cells and the like are what they were when this was traced."""
        return (
            len(self.depends_on) == len(values)
            and all(map(same, self.depends_on, values))
            and all(np.array_equal(now, then) for now, then in self.contents)
        )

    def agrees(self, results: Sequence[Any]) -> bool:
        """Whether the guards among ``results`` came out as when the function was traced."""
        return all(a == b for a, b in zip(results[len(results) - len(self.guards) :], self.guards, strict=True))

    def may_not_end(self) -> bool:
        """Whether the program must not be tried before its guards are known to hold."""
        if "may not end" not in self.derived:
            self.derived["may not end"] = guards.may_not_end(self.run.graph)
        return bool(self.derived["may not end"])

    def guards_hold(self, leaves: Sequence[Any]) -> bool:
        """Whether the guards agree, computed alone and in the order in which they were asked.

        An error among them is not told: the call is then traced anew, and raises it where it belongs.
        """
        if "guards" not in self.derived:
            found = guards.stages(self.run.graph, len(self.guards))
            self.derived["guards"] = [(Runnable(graph), guards.may_not_end(graph), k) for graph, k in found]
        try:
            with np.errstate(all="ignore"):
                for run, natively, count in self.derived["guards"]:
                    values = [x for _, x in guards.typed(run.graph.ins, leaves)]
                    results = run(values) if natively else evaluate(run.graph, *values)
                    if any(a != b for a, b in zip(results, self.guards[:count], strict=True)):
                        return False
        except Exception:
            return False
        return True


def check_captures(who: str, name: str, found: CompiledTrace) -> None:
    """Raise for an array that machine code called from outside cannot read anew on each call.

    Raises:
        ArgumentError: a named array that the function holds is not contiguous.
    """
    for constant in (a for e in found.run.graph.eqns for a in e.ins if type(a) is Const and not a.is_scalar):
        named = any(constant.value is value for value in found.depends_on)
        if named and not (constant.value.flags.c_contiguous and constant.value.flags.aligned):
            raise ArgumentError(
                f"{who}: an array that {name} holds ({constant.aval}) is not contiguous.",
                at=frames.describe(frames.user_where()),
                because="it is read anew on each call, where it lies",
                fix="make it contiguous once: a = np.ascontiguousarray(a)",
            )


class Memory(NamedTuple):
    """The bytes of a call: of its arguments and captured arrays, which are there already; of its fresh results; and of
    its working memory, which is kept between calls."""

    inputs: int
    captured: int
    outputs: int
    working: int

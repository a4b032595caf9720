"""What the walk knows of a value, and what the rules of primitives may ask of the walk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from wichi.sparse.sets import Ints, Sets
from wichi.trace.ir import Atom, Const, Eqn, Graph

Pattern = Ints | None  # the numbers of the elements' sets; None: all are empty


class Known(NamedTuple):
    """A value that is constant while tracing, and the arrays it was made from: their contents may change later."""

    value: Any
    sources: tuple[np.ndarray[Any, Any], ...] = ()


def constant_in(known: dict[Any, Known], atom: Atom) -> Known | None:
    """The constant that an atom is, given those of the variables."""
    if type(atom) is Const:
        return Known(atom.value, () if atom.is_scalar else (atom.value,))
    return known.get(atom)


Watched = dict[int, np.ndarray[Any, Any]]  # arrays whose contents a pattern depends on


def looked_at(known: Known | None, watched: Watched) -> Any:
    """A constant whose contents decide about a pattern from now on; None: it is not constant."""
    if known is None:
        return None
    watched.update((id(array), array) for array in known.sources)
    return known.value


class Value(NamedTuple):
    """What a value depends on, and the value itself where it is constant."""

    ids: Pattern = None
    known: Known | None = None


class Walk(Protocol):
    """What the rules see of the walker."""

    @property
    def sets(self) -> Sets: ...

    def look(self, value: Value) -> Any:
        """The constant, for a pattern that depends on its contents; None: it is not constant."""
        ...

    def goes_anywhere(self, eqn: Eqn) -> None:
        """Note an equation whose indices are not constant."""
        ...

    def walk(self, graph: Graph, ins: Sequence[Value]) -> list[Value]:
        """The outputs of a graph. All patterns that are not kept are void afterwards."""
        ...


class Kept(dict[Any, Ints]):
    """Lists of patterns by name, which stay good while graphs are walked."""

    def put(self, name: Any, patterns: Sequence[Pattern]) -> None:
        for k, ids in enumerate(patterns):
            if ids is None:
                self.pop((name, k), None)
            else:
                self[name, k] = ids

    def of(self, name: Any, count: int) -> list[Pattern]:
        return [self.get((name, k)) for k in range(count)]


@contextlib.contextmanager
def keeping(walk: Walk) -> Iterator[Kept]:
    kept = Kept()
    with walk.sets.keeping(kept):
        yield kept


def joined(walk: Walk, a: Pattern, b: Pattern) -> Pattern:
    """The union of two patterns of one shape, element by element."""
    return b if a is None else a if b is None or a is b else walk.sets.union(a, b)


def everything(walk: Walk, patterns: Sequence[Pattern]) -> int:
    """The number of the union of all these."""
    found = [np.unique(ids) for ids in patterns if ids is not None]
    return walk.sets.everything_in(np.concatenate([np.zeros(0, np.int64), *found]))

"""The graph: frozen records, a builder that value-numbers, and the checker.

The equation list *is* the topological order: tracing appends, passes keep the order, ``check`` asserts it. Nothing
here recurses, so a chain of 100,000 equations is as good as one of ten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wichi.errors import GraphError

if TYPE_CHECKING:
    from wichi.trace.primitive import Primitive

# A size is an int today. Named free sizes (`Dim`) will be a class with int's arithmetic; nothing below asks for more.
Shape = tuple[int, ...]

_SHORT = {"float64": "f64", "float32": "f32", "bool": "bool"}


class Aval(NamedTuple):
    """What is known of a value before it is computed. ``weak``: it came from a Python scalar (NEP 50)."""

    shape: Shape
    dtype: np.dtype[Any]
    weak: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size

    def __str__(self) -> str:
        name = self.dtype.name
        short = _SHORT.get(name) or name.replace("uint", "u").replace("int", "i")
        return f"{short}[{','.join(map(str, self.shape))}]"


class Where(NamedTuple):
    """The user's line an equation came from. ``backward``: a derivative rule made the equation for that line."""

    file: str
    line: int
    function: str
    backward: bool = False

    def __str__(self) -> str:
        place = f"line {self.line} in {self.function}"
        return f"backward of {place}" if self.backward else place


class Var:
    """A value bound once: by the inputs or by one equation. Compared by identity."""

    __slots__ = ("aval",)

    def __init__(self, aval: Aval) -> None:
        self.aval = aval


class Const:
    """A value known while tracing: a NumPy scalar (by value) or an ndarray (by reference, read at each call)."""

    __slots__ = ("aval", "value")

    def __init__(self, value: Any, aval: Aval) -> None:
        self.value, self.aval = value, aval

    @property
    def is_scalar(self) -> bool:
        return not isinstance(self.value, np.ndarray)


Atom = Var | Const


@dataclass(frozen=True, slots=True, eq=False)
class Eqn:
    """``outs = prim(*ins, **params)``."""

    prim: Primitive
    ins: tuple[Atom, ...]
    params: Mapping[str, Any]
    outs: tuple[Var, ...]
    where: Where | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A function as a list of equations: ``ins`` are bound by the caller, ``outs`` are what it returns.

    ``print(graph)`` shows it as text, ``graph.dot()`` as Graphviz source, ``graph.draw()`` as a picture.
    """

    ins: tuple[Var, ...]
    eqns: tuple[Eqn, ...]
    outs: tuple[Atom, ...]
    in_names: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        from wichi.trace import show

        return show.text(self)

    def dot(self) -> str:
        """The graph as Graphviz source. Pure text: needs no program and no package."""
        from wichi.trace import show

        return show.dot(self)

    def draw(self, path: str = "graph.svg") -> str:
        """Write the graph as an SVG picture and return the path written.

        Raises:
            DrawError: no program to lay out the graph was found; the message has both ways to get one.
        """
        from wichi.trace import show

        return show.draw(self, path)

    def _repr_svg_(self) -> str:
        from wichi.trace import show

        return show.svg(show.dot(self))


class Builder:
    """Appends equations; one whose primitive, inputs and parameters were seen before is answered by the first.

    So common subexpressions never exist. ``where`` is the line given to what is appended next; ``scope`` keeps
    recomputed regions apart from their originals.
    """

    __slots__ = ("_numbers", "_scalars", "_spread", "eqns", "numbers", "producer", "scope", "where")

    def __init__(self) -> None:
        self.eqns: list[Eqn] = []
        self.producer: dict[Var, Eqn] = {}
        self.where: Where | None = None
        self.scope: object = None
        self._numbers: dict[Any, tuple[Atom, ...]] = {}
        self._scalars: dict[Any, Const] = {}
        self.numbers: dict[tuple[type, Any], Const] = {}  # the constants of numbers other than 0 met so far
        self._spread: set[Atom] = set()  # what is made by broadcasting

    def adopt(self, eqns: Sequence[Eqn]) -> None:
        """Go on from equations that a builder has made: they are found again as if they had been appended here."""
        self.eqns.extend(eqns)
        constants: dict[Const, None] = {}
        for eqn in eqns:
            for out in eqn.outs:
                self.producer[out] = eqn
            if eqn.prim.name == "broadcast":
                self._spread.add(eqn.outs[0])
            if eqn.prim.numbered:
                self._numbers[(eqn.prim, eqn.ins, self.scope, *eqn.params.items())] = eqn.outs
            constants.update([(a, None) for a in eqn.ins if type(a) is Const])
        for const in constants:
            if const.is_scalar:
                self._scalars.setdefault((const.value.dtype, const.value.tobytes(), const.aval.weak), const)

    def scalar(self, value: Any, weak: bool = False) -> Const:
        """The constant for a NumPy scalar; equal bits give the same constant."""
        key = (value.dtype, value.tobytes(), weak)
        found = self._scalars.get(key)
        if found is None:
            found = self._scalars[key] = Const(value, Aval((), value.dtype, weak))
        return found

    def array(self, value: np.ndarray[Any, Any]) -> Const:
        """The constant for an ndarray, held by reference."""
        found = self._scalars.get(id(value))
        if found is None:  # the Const keeps the array alive, so its id stays its own
            found = self._scalars[id(value)] = Const(value, Aval(value.shape, value.dtype))
        return found

    def emit(self, prim: Primitive, ins: tuple[Atom, ...], params: dict[str, Any]) -> tuple[Atom, ...]:
        """The atoms that hold ``prim(*ins, **params)``: simplified, folded, found again, or appended."""
        if prim.pointwise and not self._spread.isdisjoint(ins):
            if len(ins) > 1:
                ins = self._fills_as_scalars(ins)
            fill = self._fill(prim, ins, params) or self._spread_after(prim, ins, params)
            if fill is not None:
                return (fill,)
        if prim.simplify is not None:
            simpler = prim.simplify(self, ins, params)
            if simpler is not None:
                return (simpler,)
        key = (prim, ins, self.scope, *params.items()) if prim.numbered else None
        if key is not None:
            found = self._numbers.get(key)
            if found is not None:
                return found
        typed = prim.type(*[a.aval for a in ins], **params)
        outs: tuple[Atom, ...]
        if (
            prim.folds
            and all(type(a) is Const and not isinstance(a.value, np.ndarray) for a in ins)
            and not typed.shape
        ):
            with np.errstate(all="ignore"):
                value = np.asarray(prim.impl(*[a.value for a in ins], **params), typed.dtype)[()]  # type: ignore[union-attr]
            outs = (self.scalar(value, typed.weak),)
        else:
            bound = tuple(map(Var, typed)) if prim.multiple else (Var(typed),)
            eqn = Eqn(prim, ins, params, bound, self.where)
            self.eqns.append(eqn)
            for out in bound:
                self.producer[out] = eqn
            if prim.name == "broadcast":
                self._spread.add(bound[0])
            outs = bound
        if key is not None:
            self._numbers[key] = outs
        return outs

    def _fill(self, prim: Primitive, ins: tuple[Atom, ...], params: dict[str, Any]) -> Atom | None:
        """An operation on arrays that are each filled with one constant: its number, spread once."""
        shape = next((a.aval.shape for a in ins if a.aval.shape), ())
        if not shape or not prim.folds:
            return None
        scalars = [self.filled_with(a) for a in ins]
        if any(s is None for s in scalars):
            return None
        (number,) = self.emit(prim, tuple(s for s in scalars if s is not None), params)
        spread = prim.table["broadcast"]
        return self.emit(spread, (number,), {"shape": shape, "axes": tuple(range(len(shape)))})[0]

    def _spread_after(self, prim: Primitive, ins: tuple[Atom, ...], params: dict[str, Any]) -> Atom | None:
        """An operation on arrays that are all spread alike: done before they are spread."""
        spread = prim.table["broadcast"]
        sources, how = [], None
        for a in ins:
            if type(a) is Const and a.is_scalar:
                sources.append(a)
                continue
            eqn = self.made_by(a, "broadcast")
            if eqn is None or how not in (None, (eqn.params, eqn.ins[0].aval.shape)):
                return None
            how = (eqn.params, eqn.ins[0].aval.shape)
            sources.append(eqn.ins[0])
        if how is None:
            return None
        (small,) = self.emit(prim, tuple(sources), params)
        return self.emit(spread, (small,), dict(how[0]))[0]

    def _fills_as_scalars(self, ins: tuple[Atom, ...]) -> tuple[Atom, ...]:
        """Beside a full operand, an array filled with one constant is that constant."""
        scalars = tuple(self.filled_with(a) or a for a in ins)
        return scalars if any(s is a and a.aval.shape for s, a in zip(scalars, ins, strict=True)) else ins

    def filled_with(self, atom: Atom) -> Const | None:
        """The scalar constant that fills ``atom``, if one does."""
        if type(atom) is Var and atom not in self._spread:
            return None
        while (eqn := self.made_by(atom, "broadcast")) is not None:
            atom = eqn.ins[0]
        return atom if type(atom) is Const and atom.is_scalar else None

    def made_by(self, atom: Atom, name: str) -> Eqn | None:
        """The equation that made ``atom`` if its primitive is called ``name``: what algebra rules look through."""
        eqn = self.producer.get(atom) if type(atom) is Var else None
        return eqn if eqn is not None and eqn.prim.name == name else None


def graphs_in(eqn: Eqn) -> Iterator[tuple[str, Graph]]:
    """The graphs that an equation holds, each with the name of its parameter."""
    for name, value in eqn.params.items():
        for graph in value if isinstance(value, tuple) else (value,):
            if isinstance(graph, Graph):
                yield name, graph


def reads(eqn: Eqn) -> Iterator[Var]:
    """The variables an equation reads."""
    return (a for a in eqn.ins if type(a) is Var)


def dce(graph: Graph) -> Graph:
    """Without the equations that no output needs."""
    live = {o for o in graph.outs if type(o) is Var}
    kept = []
    for eqn in reversed(graph.eqns):
        if not live.isdisjoint(eqn.outs) or eqn.prim.effect:
            if eqn.prim.prune is not None and not live.issuperset(eqn.outs):
                eqn = eqn.prim.prune(eqn, live)
            kept.append(eqn)
            live.update([a for a in eqn.ins if type(a) is Var])
    return Graph(graph.ins, tuple(reversed(kept)), graph.outs, graph.in_names)


def expanded(graph: Graph, holds_equations: Callable[[Eqn], bool]) -> Graph:
    """With the body of each equation that ``holds_equations`` (its parameter ``graph``) in the equation's place."""
    while any(map(holds_equations, graph.eqns)):  # once a level of nesting
        eqns: list[Eqn] = []
        atoms: dict[Any, Atom] = {}
        for eqn in graph.eqns:
            ins = tuple(atoms.get(a, a) for a in eqn.ins)
            if not holds_equations(eqn):
                eqns.append(Eqn(eqn.prim, ins, eqn.params, eqn.outs, eqn.where))
                continue
            body = eqn.params["graph"]
            inner: dict[Any, Atom] = dict(zip(body.ins, ins, strict=True))
            for e in body.eqns:  # of fresh variables: a body may stand in several places
                outs = tuple(Var(o.aval) for o in e.outs)
                eqns.append(Eqn(e.prim, tuple(inner.get(a, a) for a in e.ins), e.params, outs, e.where))
                inner.update(zip(e.outs, outs, strict=True))
            atoms.update(zip(eqn.outs, (inner.get(o, o) for o in body.outs), strict=True))
        graph = Graph(graph.ins, tuple(eqns), tuple(atoms.get(o, o) for o in graph.outs), graph.in_names)
    return graph


def check(graph: Graph) -> Graph:
    """Assert the rules of a graph and return it: reads only what is bound, binds once, recomputed types agree.

    Raises:
        GraphError: names the equation, with the program around it.
    """
    bound = set(graph.ins)
    if len(bound) != len(graph.ins):
        raise GraphError("An input of the graph is bound twice.", value=str(graph))
    for number, eqn in enumerate(graph.eqns):
        fault = _fault(eqn, bound)
        if fault:
            nearby = Graph(graph.ins, graph.eqns[max(0, number - 10) : number + 11], ())
            raise GraphError(f"Equation {number} ({eqn.prim.name}) {fault}.", value=str(nearby))
        bound.update(eqn.outs)
    for out in graph.outs:
        if type(out) is Var and out not in bound:
            raise GraphError("An output of the graph is bound by nothing.", value=str(graph))
    return graph


def _fault(eqn: Eqn, bound: set[Var]) -> str | None:
    for var in reads(eqn):
        if var not in bound:
            return "reads a value that is not bound before it"
    if any(out in bound for out in eqn.outs) or len(set(eqn.outs)) != len(eqn.outs):
        return "binds a value that is bound already"
    typed = eqn.prim.type(*[a.aval for a in eqn.ins], **eqn.params)
    wanted = typed if eqn.prim.multiple else (typed,)
    found = tuple(out.aval for out in eqn.outs)
    if [(a.shape, a.dtype) for a in wanted] != [(a.shape, a.dtype) for a in found]:
        return f"binds {', '.join(map(str, found))} but its type rule says {', '.join(map(str, wanted))}"
    if eqn.prim.pointwise:
        for atom in eqn.ins:
            scalar = type(atom) is Const and atom.is_scalar
            if atom.aval.shape != eqn.outs[0].aval.shape and not scalar:
                return f"mixes shapes: only 0-d constants may stand beside {eqn.outs[0].aval.shape}"
    return None

"""Tracing: run a Python function on values that record what is done to them.

There is one ``Tracer`` class and one staging trace, no interpreter stack. ``grad(f)`` called on traced values traces
``f``, transforms the graph, and inlines it. A traced value of an outer trace is a captured constant input of the
inner graph and is never differentiated there, so perturbation confusion cannot happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from wichi.errors import (
    ArgumentError,
    ConditionError,
    DtypeError,
    EscapedValueError,
)
from wichi.trace import frames, refusals
from wichi.trace.boxed import Boxed
from wichi.trace.dtypes import SUPPORTED, refuse_subclass, supported
from wichi.trace.ir import Atom, Aval, Builder, Const, Graph, Var, Where, dce
from wichi.trace.primitive import Primitive, View
from wichi.trace.writable import Writable

_depth: ContextVar[int] = ContextVar("wichi_trace_depth", default=0)
_current: ContextVar[Trace | None] = ContextVar("wichi_trace", default=None)
# What traced values stand for while a rule of the user's runs that closes over them; see `standing_for`.
_meanings: ContextVar[dict[int, Any]] = ContextVar("wichi_meanings", default={})  # noqa: B039  (never changed)


# What answers when Python needs the truth or the integer behind a value: given the trace and the value.
Concretise = Callable[["Trace", "Tracer"], Any]


class Trace:
    """One run of a function on traced values: a builder, its depth, and what it captured from outer traces."""

    __slots__ = ("active", "builder", "captured", "concretise", "depth", "ins", "name", "origin")

    def __init__(self, depth: int, name: str, concretise: Concretise | None = None) -> None:
        self.builder = Builder()
        self.depth, self.name, self.concretise = depth, name, concretise
        self.ins: tuple[Var, ...] = ()
        self.captured: dict[int, tuple[Boxed, Var]] = {}
        self.active = True
        self.origin: Where | None = None  # set while a derivative rule runs: its equations keep the line they came from

    def lift(self, x: Any) -> Atom:
        """The atom that holds ``x`` in this trace."""
        if isinstance(x, Tracer):
            if x.base is not None:
                x.refresh()
            if x.run is self:
                return x.atom
            return self._capture(x)
        if isinstance(x, Boxed):  # an eager Tensor: read by its data
            x = x.array()
        if isinstance(x, np.ndarray):
            refuse_subclass(x)
            if x.dtype not in SUPPORTED:
                supported(x.dtype)
                x = x.astype(x.dtype.newbyteorder("="))
            return self.builder.array(x)
        known = self.builder.numbers.get((type(x), x))
        if known is not None:
            return known
        given, weak = x, type(x) in (int, float)
        if not isinstance(x, np.generic):
            try:
                x = np.asarray(x)[()]
            except OverflowError:
                raise DtypeError(f"The integer {x} fits no dtype.", at=frames.describe(frames.user_where())) from None
        if isinstance(x, np.ndarray):
            return self.lift(x)
        supported(x.dtype)
        const = self.builder.scalar(x, weak)
        if given:  # 0 equals -0
            self.builder.numbers[type(given), given] = const
        return const

    def _capture(self, x: Tracer) -> Atom:
        known = _meanings.get()
        if known and id(x) in known:
            return self.lift(known[id(x)])
        if not x.run.active:
            refusals.escaped(x)
        if type(x.atom) is Const:
            return x.atom
        found = self.captured.get(id(x))
        if found is None:
            found = self.captured[id(x)] = (x, Var(x.aval))
        return found[1]

    def stage(self, prim: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        known = _meanings.get()
        if known and any(id(a) in known for a in args):
            return prim(*[known.get(id(a), a) for a in args], **params)
        if not self.active:
            refusals.escaped(next(a for a in args if isinstance(a, Tracer) and a.run is self))
        builder = self.builder
        builder.where = self.origin or frames.user_where()
        outs = builder.emit(prim, tuple([self.lift(a) for a in args]), params)
        if prim.multiple:
            return tuple(Tracer(self, out) for out in outs)
        out = Tracer(self, outs[0])
        if type(prim.kernel) is View and isinstance(args[0], Tracer):
            out.looks_into(args[0], None)
        return out

    @property
    def is_innermost(self) -> bool:
        """Whether its function is the one that runs now."""
        return self.active and _depth.get() == self.depth

    def line_of(self, atom: Atom) -> Where | None:
        eqn = self.builder.producer.get(atom) if type(atom) is Var else None
        return eqn.where if eqn else None


class Tracer(Writable):
    """A value inside a transform. Messages never say "tracer": to the user it is "a value inside grad/jit"."""

    __slots__ = ()

    @property
    def rank(self) -> int:  # type: ignore[override]
        return self.run.depth

    @property
    def aval(self) -> Aval:
        return self.atom.aval

    def stage(self, prim: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        return self.run.stage(prim, args, params)

    def __repr__(self) -> str:
        return f"<{self.aval} inside {self.run.name}>"

    # What Python needs a number for. The caller of `trace` may give one; by default these are errors.

    def _concrete(self, need: str) -> Any:
        if not self.run.active:
            refusals.escaped(self)
        if type(self.atom) is Const:
            return self.atom.value
        if self.run.concretise is not None:
            return self.run.concretise(self.run, self)
        return refusals.needs_value(self, need)

    def __bool__(self) -> bool:
        if self.aval.size != 1:
            raise ConditionError(
                f"The truth of an array of shape {self.aval.shape} is ambiguous.",
                at=frames.describe(frames.user_where()),
                value=refusals.made(self),
                fix="use .any() or .all()",
            )
        one = Primitive.table["reshape"](self, shape=()) if self.shape else self
        if one.dtype != np.dtype(bool):
            one = Primitive.table["ne"](one, one.dtype.type(0))
        return bool(one._concrete("condition"))

    def __int__(self) -> int:
        if self.aval.size != 1:
            raise TypeError("only size-1 arrays can be converted to Python integers")
        one = Primitive.table["reshape"](self, shape=()) if self.shape else self
        if type(one.atom) is Const:
            return int(one.atom.value)
        number = int(Primitive.table["cast"](one, dtype=np.dtype("i8"))._concrete("int"))
        if one.dtype.kind == "f":
            difference = Primitive.table["sub"](one, one)
            if not Primitive.table["eq"](difference, one.dtype.type(0))._concrete("condition"):
                raise ValueError("cannot convert a float that is nan or infinite to an integer")
        return number

    def __index__(self) -> int:
        if self.aval.dtype.kind not in "iu":
            raise TypeError(f"only integers can be an index, not {self.aval}")
        return int(self._concrete("index"))

    def __float__(self) -> float:
        if type(self.atom) is Const:
            return float(self.atom.value)
        return refusals.needs_plain(self)

    def __complex__(self) -> complex:
        refusals.needs_plain(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        refusals.needs_plain(self, array=True)

    def __dlpack__(self, **options: Any) -> NoReturn:
        refusals.needs_plain(self, array=True)

    def __dlpack_device__(self) -> NoReturn:
        refusals.needs_plain(self, array=True)

    def __reduce__(self) -> NoReturn:
        raise EscapedValueError(
            "A value inside a transform cannot be pickled or copied out.", at=frames.describe(frames.user_where())
        )

    def __format__(self, spec: str) -> str:
        return refusals.needs_text(self, spec) if spec else str(self)

    def item(self, *index: Any) -> Any:
        """An integer or a bool, which may become a guard, as ``int(x)`` does; a float has no number yet."""
        one = self
        if index:
            part = index[0] if len(index) == 1 else index
            one = (
                self[part]
                if isinstance(part, tuple)
                else Primitive.table["reshape"](self, shape=(self.aval.size,))[part]
            )
        elif self.aval.size != 1:
            raise ArgumentError(
                f"x.item() of {self.aval}: only one number is a Python number.",
                at=frames.describe(frames.user_where()),
                fix="x.item(i), or keep the array",
            )
        if one.dtype.kind == "f":
            return float(Primitive.table["reshape"](one, shape=()) if one.shape else one)
        return bool(one) if one.dtype.kind == "b" else int(one)

    def tolist(self) -> Any:
        return refusals.needs_plain(self) if self.shape else self.item()


@dataclass(frozen=True, slots=True)
class Traced:
    """What ``trace`` answers: the graph, what the function returned (of atoms), and values captured from outside."""

    graph: Graph
    captured: tuple[Boxed, ...]
    value: Any


def trace(
    fn: Callable[..., Sequence[Any]],
    avals: Sequence[Aval],
    *,
    name: str = "jit",
    concretise: Concretise | None = None,
    extra: Iterable[Atom] = (),
) -> Traced:
    """Run ``fn`` on one traced value per aval; it returns the flat list of results.

    What stands in ``extra`` when it has run are further outputs of the graph.

    Captured values of outer traces become inputs after the given ones, in order.
    """
    depth = _depth.get() + 1
    run = Trace(depth, name, concretise)
    ins = run.ins = tuple(map(Var, avals))
    token, outer = _depth.set(depth), _current.set(run)
    try:
        results = fn(*[Tracer(run, v) for v in ins])
        outs = (*[run.lift(x) for x in results], *extra)
    finally:
        _depth.reset(token)
        _current.reset(outer)
        run.active = False
    outer = tuple(x for x, _ in run.captured.values())
    graph = Graph(ins + tuple(v for _, v in run.captured.values()), tuple(run.builder.eqns), outs)
    return Traced(dce(graph), outer, results)


def stage_graph(fn: Callable[..., Sequence[Any]], ins: Sequence[Aval], names: tuple[str, ...] = ()) -> Graph:
    """The graph of ``fn``, a walker that runs rules on traced values. It captures nothing."""
    traced = trace(fn, ins)
    if traced.captured:
        x = traced.captured[0]
        raise ArgumentError(
            "A rule of yours uses a value inside a transform that is neither an argument nor in its own closure.",
            at=frames.describe(frames.user_where()),
            value=refusals.made(x) if isinstance(x, Tracer) else str(x.aval),
            fix="make it an argument, or a variable that the rule itself closes over",
        )
    return Graph(traced.graph.ins, traced.graph.eqns, traced.graph.outs, names)


def extended(
    graph: Graph, fn: Callable[[Callable[[Atom], Any], Sequence[Any]], Sequence[Any]], more: Sequence[Aval]
) -> Graph:
    """The graph with what ``fn`` appends to its equations, and further inputs of types ``more``.

    ``fn(value, inputs)`` is given a function that answers the traced value of an atom of the graph, and the further
    inputs; it returns the outputs.
    """
    depth = _depth.get() + 1
    run = Trace(depth, "jit")
    run.builder.adopt(graph.eqns)
    added = tuple(map(Var, more))
    run.ins = (*graph.ins, *added)
    known: dict[Var, Tracer] = {}

    def value(atom: Atom) -> Any:
        if type(atom) is Const:
            return atom.value
        found = known.get(atom)  # type: ignore[arg-type]
        if found is None:
            found = known[atom] = Tracer(run, atom)  # type: ignore[index]
        return found

    token, outer = _depth.set(depth), _current.set(run)
    try:
        outs = tuple([run.lift(x) for x in fn(value, [Tracer(run, v) for v in added])])
    finally:
        _depth.reset(token)
        _current.reset(outer)
        run.active = False
    assert not run.captured
    return dce(Graph(run.ins, tuple(run.builder.eqns), outs))


def is_tracing() -> bool:
    """Whether a function is being traced in this context."""
    return _depth.get() > 0


def staged(x: Any) -> Tracer:
    """A plain value as a value of the innermost trace."""
    run = _current.get()
    assert run is not None
    return Tracer(run, run.lift(x))


def stage(prim: Primitive, **params: Any) -> Tracer:
    """What a primitive without operands answers, in the innermost trace."""
    run = _current.get()
    assert run is not None
    made = run.stage(prim, (), params)
    assert isinstance(made, Tracer)
    return made


def of_its_own(x: Any) -> Any:
    """A traced value under a name of its own, as a copy in NumPy: writes to one are not seen in the other."""
    if not isinstance(x, Tracer):
        return x
    if x.base is not None:
        x.refresh()
    return Tracer(x.run, x.atom)


@contextmanager
def standing_for(closed_over: Sequence[Any], values: Sequence[Any]) -> Iterator[None]:
    """Let traced values that a function closes over stand for ``values``, after their own trace too."""
    token = _meanings.set(_meanings.get() | {id(x): v for x, v in zip(closed_over, values, strict=True)})
    try:
        yield
    finally:
        _meanings.reset(token)


def as_view(x: Any, of: Any) -> Any:
    """``x``, which in NumPy's eyes looks into the memory of ``of``: writes to either are refused afterwards."""
    if isinstance(x, Tracer) and isinstance(of, Tracer) and x is not of:
        x.looks_into(of, None)
    return x


def concrete(x: Any) -> Any | None:
    """The number behind ``x`` if it is known now: a plain scalar or a folded constant; None otherwise."""
    if isinstance(x, Tracer):
        return x.atom.value if type(x.atom) is Const and x.atom.is_scalar else None
    return None if isinstance(x, Boxed | np.ndarray) else x


def constant(value: Any, beside: Any) -> Any:
    """A plain scalar as a value of the trace that ``beside`` belongs to, so that what is made of it is staged.

    Beside plain values it stays plain.
    """
    if isinstance(beside, Tracer):
        return Tracer(beside.run, beside.run.lift(value))
    return value


def at_line(trace_of: Any, where: Where | None, backward: bool) -> None:
    """Let equations staged next keep ``where``: called by the walkers before they run a rule."""
    if isinstance(trace_of, Tracer):
        trace_of.run.origin = where._replace(backward=True) if where is not None and backward else where

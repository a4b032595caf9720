"""A traced, compiled function: how arguments find their trace, and how the trace runs.

A transformed function traces once for each signature (tree structure, shapes and dtypes of its arguments) and then
replays native code. On traced arguments it is inlined into the trace around it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from wichi import pytree, raised, randomness
from wichi.arguments import check_results, donations, explain_leaves, input_names, leaf_aval
from wichi.config import config
from wichi.errors import ArgumentError, WichiError
from wichi.guards import Path, typed, warn_of_interpreter
from wichi.kernels.fastcall import NOT_MINE, direct
from wichi.trace import frames
from wichi.trace.captured import Dependency, contents_kept, dependencies, has_parts, is_followed, shaped_like
from wichi.trace.dims import FreeSizes, free_sizes
from wichi.trace.evaluate import evaluate
from wichi.trace.ir import Aval, Const, Graph
from wichi.trace.sources import python_of
from wichi.trace.tracer import Tracer, is_tracing, trace
from wichi.traces import CompiledTrace, Memory, Rewrite, Runnable, Signature
from wichi.travel import Portable, wraps

P = ParamSpec("P")
R = TypeVar("R")
_MOST_DIRECT = 4  # signatures that are tried natively before they are looked up
_UNKNOWN: tuple[list[Dependency], list[tuple[int, Any]]] = ([], [(0, None)])
_MOST_TRACES = 8  # kept for one signature: functions of equal code may hold different globals and cells in turn


# Traces of functions with the same code object; a lambda written in a loop finds its trace again.
_tables: WeakKeyDictionary[types.CodeType, dict[Rewrite, dict[Any, list[CompiledTrace]]]] = WeakKeyDictionary()


class Transformed(Portable, Generic[P, R]):
    """A function that wichi traces, transforms, compiles and runs. Made by ``jit``, ``grad`` and their like.

    Besides being called it can be looked at: ``f.graph(*args)`` is the IR, ``f.source(*args)`` the loop nests as
    Python, ``f.captured()`` what it holds besides its arguments.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        rewrite: Rewrite,
        made_by: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
    ) -> None:
        if not callable(fn):
            raise ArgumentError(
                f"{rewrite.name} needs a function, not {type(fn).__name__}.",
                at=frames.describe(frames.user_where()),
                fix=f"wichi.{rewrite.name}(f)(x), not wichi.{rewrite.name}(f(x))",
            )
        wraps(fn)(self)
        self.__wrapped__ = fn
        self._made_by = made_by or (Transformed, (fn, rewrite))
        self._rewrite = rewrite
        name = getattr(fn, "__name__", type(fn).__name__)
        self._name = "f" if name == "<lambda>" else name
        self._traces = _table(fn, rewrite)
        # What is compared, and those of its values that it was found by following; replaced as a whole.
        self._dependencies = _UNKNOWN
        # Fast calls of the signatures used last: of arguments, and of the leaves of trees that only optree can take
        # apart. Replaced as a whole, so threads see one tuple or the other. They belong to this function, not to the
        # trace, which functions of equal code share: they look into this function's own cells and globals.
        self._direct: tuple[Callable[[Sequence[Any]], Any], ...] = ()
        self._direct_trees: tuple[tuple[pytree.TreeDef, Callable[[Sequence[Any]], Any]], ...] = ()
        self._warned = False
        self._shortened: tuple[CompiledTrace, ...] = ()  # the traces that have one
        self._called: tuple[CompiledTrace, ...] = ()  # those called before

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        answer: R
        if not kwargs:
            for direct in self._direct:
                answer = direct(args)
                if answer is not NOT_MINE:
                    return answer
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        answer: R
        try:
            leaves, treedef = pytree.flatten((args, kwargs))
            for tree, direct in self._direct_trees:
                if tree == treedef:
                    answer = direct(leaves)
                    if answer is not NOT_MINE:
                        return answer
            found = self.find(leaves, treedef, guarded=config.guards)
            if found.guards:
                return self._guarded(found, args, leaves, treedef)
            answer = pytree.unflatten(found.out_tree, found(leaves))
            self._shorten(found, args, leaves, treedef)
            return answer
        except Exception as error:
            ours = raised.ours(error)
            if ours is None:
                raise
            raise ours.with_traceback(raised.users_part(ours.__traceback__)) from None

    def _guarded(self, found: CompiledTrace, args: tuple[Any, ...], leaves: list[Any], treedef: pytree.TreeDef) -> R:
        """The answer of the trace whose guards hold; ``found`` is one whose guards may."""
        key = (treedef, tuple([leaf_aval(x) for x in leaves]))
        group = self._traces.setdefault(key, [])
        values, made = found.depends_on, found
        answer: R
        mine = [t for t in group if t.guards and t.depends_on_same(values)]
        for candidate in mine:
            if candidate.may_not_end() and not candidate.guards_hold(leaves):
                continue
            try:
                results = candidate(leaves)
            except Exception:
                if candidate.guards_hold(leaves):
                    raise  # else it is an error of a way that this call does not go
                continue
            if candidate.agrees(results):
                answer = pytree.unflatten(candidate.out_tree, results[: len(results) - len(candidate.guards)])
                if not candidate.may_not_end():
                    self._shorten(candidate, args, leaves, treedef)
                return answer
        if any(found is t for t in mine):
            made = self._make(key[1], treedef, leaves, guarded=True)
        length = len(made.run.graph.eqns)
        if length > config.guarded_equations:
            why = f"goes a way of {length} equations, more than guarded_equations={config.guarded_equations}"
            results = self._in_numpy(made, leaves, why)
        elif len(mine) >= config.guarded_paths:
            why = f"goes more ways than guarded_paths={config.guarded_paths}"
            results = self._in_numpy(made, leaves, why)
        else:
            group.insert(0, made)
            del group[config.guarded_paths + _MOST_TRACES :]  # those of other globals and cells go first
            results = made(leaves)
        answer = pytree.unflatten(made.out_tree, results[: len(results) - len(made.guards)])
        return answer

    def _in_numpy(self, made: CompiledTrace, leaves: Sequence[Any], why: str) -> list[Any]:
        if not self._warned:
            self._warned = True
            warn_of_interpreter(self._name, made.asked_at, why)
        with np.errstate(all="ignore"):
            graph = made.run.graph
            return evaluate(graph, *[x for _, x in typed(graph.ins, [*leaves, *made.captured])])

    def _shorten(self, found: CompiledTrace, args: tuple[Any, ...], leaves: list[Any], treedef: pytree.TreeDef) -> None:
        """From the second call of a signature on, try it first and in native code."""
        if all(
            found is not trace for trace in self._called
        ):  # made for one call, as in a loop, it needs no fast way in
            self._called = (found, *self._called)[:_MOST_DIRECT]
            return
        if any(found is trace for trace in self._shortened):
            return  # its fast call has refused this time: a strided array, for instance
        executable = found.run.executable
        if executable is None or found.captured or found.contents:
            return  # not compiled (debugging), or without a fast way in
        known, values = self._current()
        if not found.depends_on_same(values):
            return  # changed meanwhile
        door = executable.door(tuple(zip(known, values, strict=True)))
        if door is None:
            return
        plain = len(leaves) == len(args) and all(map(_is, leaves, args))
        extract = None if plain or treedef.children()[1].num_leaves else pytree.extractor(treedef.children()[0])
        fast = direct(door, executable.plan, pytree.builder(found.out_tree), found.guards)
        self._shortened = (found, *self._shortened)[:_MOST_DIRECT]
        if plain:
            self._direct = (fast, *self._direct)[:_MOST_DIRECT]
        elif extract is not None:
            self._direct = (_from_tree(extract, fast), *self._direct)[:_MOST_DIRECT]
        else:
            self._direct_trees = ((treedef, fast), *self._direct_trees)[:_MOST_DIRECT]

    def __repr__(self) -> str:
        return f"<wichi.{self._rewrite.name} of {self._name}>"

    def _made_of(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._made_by

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def graph(self, *args: P.args, **kwargs: P.kwargs) -> Graph:
        """The IR that a call with these arguments runs; only their shapes and dtypes matter."""
        leaves, treedef = pytree.flatten((args, kwargs))
        return self.find(leaves, treedef).run.graph

    def source(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The loop nests that a call with these arguments runs, as Python that runs as it stands.

        ``exec`` it and call its ``program(*leaves)``: the results are bit-equal to the native ones wherever only
        ``+ - * / sqrt``, comparisons, minima and maxima occur, and within the libraries' rounding elsewhere.
        """
        from wichi.kernels.source import source

        return source(self.graph(*args, **kwargs))

    def captured(self) -> dict[str, list[str]]:
        """What the traces hold besides the arguments, after a first call.

        ``compared``: globals, closure cells, defaults, functions, attributes of the objects among them and entries of
        dicts, by identity on each call (numbers by value).
        ``by reference``: arrays among them; their contents are read anew on each call.
        ``frozen``: arrays that were computed while tracing, or reached in other ways, as in a list; never updated.
        Numbers that were computed (``float(c[0])``, ``len(rows)``) are part of the program and not listed.
        """
        compared = self._dependencies[0]
        named = {id(d.read()): d.name for d in compared}
        arrays = {
            id(a.value): a
            for group in self._traces.values()
            for found in group
            for e in found.run.graph.eqns
            for a in e.ins
            if type(a) is Const and not a.is_scalar
        }
        return {
            "compared": sorted({d.name for d in compared}),
            "by reference": sorted(f"{named[i]}: {a.aval}" for i, a in arrays.items() if i in named),
            "frozen": sorted(f"{a.aval}" for i, a in arrays.items() if i not in named),
        }

    def memory(self, *args: P.args, **kwargs: P.kwargs) -> Memory:
        """The bytes that a call with these arguments takes. Nothing is compiled or run.

        >>> import numpy as np, wichi
        >>> wichi.grad(lambda x: np.sum(np.sin(x) ** 2)).memory(np.ones(1000)).outputs
        8000
        """
        from wichi.kernels.schedule import plan

        leaves, treedef = pytree.flatten((args, kwargs))
        run = self.find(leaves, treedef).run
        found = plan(run.graph, run.donated)
        return Memory(
            sum(a.size * a.dtype.itemsize for a in found.inputs),
            sum(c.nbytes for c in found.constants),
            sum(a.size * a.dtype.itemsize for a in found.outputs),
            found.arena_bytes,
        )

    def find(self, leaves: list[Any], treedef: pytree.TreeDef, guarded: bool = False) -> CompiledTrace:
        """The trace for these arguments, made if it is not there.

        ``guarded``: it may hold for some values of the arguments only; its guards tell.
        """
        try:
            avals = tuple([leaf_aval(x) for x in leaves])
        except WichiError:
            raise
        except Exception:
            avals = explain_leaves(self.__wrapped__, leaves, treedef)
        key = (treedef, avals)
        group = self._traces.get(key) if free_sizes() is None else None  # with free sizes nothing is kept
        if group is not None:
            _, values = self._current()
            for found in group:
                if found.guards and not guarded:
                    continue
                if found.depends_on_same(values):
                    shaped_like(found.contents)
                    return found
        made = self._make(avals, treedef, leaves, guarded)
        # Values of an enclosing trace belong to this call alone; what has guards is kept by `_guarded`.
        if not made.captured and not made.passing and not made.guards and free_sizes() is None:
            group = self._traces.setdefault(key, [])
            group.append(made)
            del group[:-_MOST_TRACES]
        return made

    def trace_free(self, avals: Sequence[Aval], treedef: pytree.TreeDef, free: FreeSizes) -> CompiledTrace:
        """A trace whose last inputs are the free sizes, in the order of their names."""
        return self._make(avals, treedef, (), free=free)

    def _current(self) -> tuple[list[Dependency], tuple[Any, ...]]:
        """What is compared, and its values now."""
        known, followed = self._dependencies
        values = tuple([d.read() for d in known])
        if any(i >= len(values) or values[i] is not value for i, value in followed):
            known = dependencies(self.__wrapped__)  # a function has taken the place of another, and holds others
            values = tuple([d.read() for d in known])
            self._dependencies = known, [(i, v) for i, v in enumerate(values) if is_followed(v) or has_parts(v)]
        return known, values

    def _make(
        self,
        avals: Sequence[Aval],
        treedef: pytree.TreeDef,
        leaves: Sequence[Any],
        guarded: bool = False,
        free: FreeSizes | None = None,
    ) -> CompiledTrace:
        with contents_kept() as contents:
            made = self._trace_anew(avals, treedef, leaves, guarded, free)
        # Arrays that the function made itself are made again by the same code.
        held = {id(x) for x in made.depends_on if x is not None}
        made.contents = tuple((x, then) for x, then in contents if id(x) in held or id(x.base) in held)
        return made

    def _trace_anew(
        self,
        avals: Sequence[Aval],
        treedef: pytree.TreeDef,
        leaves: Sequence[Any],
        guarded: bool,
        free: FreeSizes | None,
    ) -> CompiledTrace:
        self._dependencies = _UNKNOWN
        _, depends_on = self._current()
        out_tree: list[pytree.TreeDef] = []
        function = python_of(self.__wrapped__)

        def flat(*values: Any) -> list[Any]:
            if free is not None:
                count = len(free.lengths)
                free.values.update(zip(free.lengths, values[len(values) - count :], strict=True))
                values = values[: len(values) - count]
            args, kwargs = pytree.unflatten(treedef, values)
            results, tree = pytree.flatten(function(*args, **kwargs))
            out_tree.append(tree)
            check_results(self._name, results, tree)
            return results

        path = Path(leaves)
        drawn = None if is_tracing() else randomness.position()
        sizes = [Aval((), np.dtype("i8"), True) for _ in free.lengths] if free is not None else []
        traced = trace(
            flat,
            [*avals, *sizes],
            name=self._rewrite.name,
            concretise=path.concretise if guarded else None,
            extra=path.answers,
        )
        if drawn is not None:
            randomness.tell_if_moved(drawn, self.__wrapped__, self._name)
        names = (*input_names(self.__wrapped__, treedef), *(free.lengths if free is not None else ()))
        graph = Graph(traced.graph.ins, traced.graph.eqns, traced.graph.outs, names)
        outermost = not traced.captured and not any(isinstance(x, Tracer) for x in leaves)
        graph, tree = self._rewrite(graph, Signature(self._name, treedef, out_tree[0], outermost, len(path.answers)))
        # A program with guards may turn out to be another call's: it must not have written into arguments by then.
        donates = outermost and not path.answers
        donated = donations(graph, treedef, self._rewrite.donate_argnums) if donates else {}
        return CompiledTrace(
            Runnable(graph, donated=donated), tree, depends_on, traced.captured, asked_at=path.place(),
            guards=tuple(path.answers.values()), passing=path.asked and not path.answers,
        )  # fmt: skip


def _from_tree(
    extract: Callable[[Any], list[Any] | None], direct: Callable[[Sequence[Any]], Any]
) -> Callable[[Sequence[Any]], Any]:
    """A fast call that takes the leaves out of its arguments first."""

    def call(args: Sequence[Any]) -> Any:
        leaves = extract(args)
        return NOT_MINE if leaves is None else direct(leaves)

    return call


def _is(a: Any, b: Any) -> bool:
    return a is b


def _table(fn: Callable[..., Any], rewrite: Rewrite) -> dict[Any, list[CompiledTrace]]:
    code = getattr(fn, "__code__", None)
    if code is None:
        return {}
    return _tables.setdefault(code, {}).setdefault(rewrite, {})

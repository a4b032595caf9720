"""The functional half: ``jit``, ``grad``, ``value_and_grad``, ``jvp``, ``vjp`` and ``make_graph``.

Each is a function of functions, made of one graph-to-graph pass. Arguments and results are trees of arrays; ndarrays
go in and ndarrays come out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, ParamSpec, TypeVar

import wichi.numpy  # noqa: F401  (fills the registry through which traced values find their functions)
from wichi import pytree, static
from wichi.compiled import Transformed
from wichi.errors import ArgumentError, DtypeError, NonScalarError, UnusedInputError
from wichi.ops import shaping
from wichi.trace import frames, reverse
from wichi.trace.boxed import Boxed
from wichi.trace.ir import Graph, dce
from wichi.trace.tracer import as_view
from wichi.traces import Signature

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class AsItIs:
    """The rewrite of ``jit``, and of transforms that are complete when they are traced: none."""

    name: str = "jit"
    donate_argnums: tuple[int, ...] = ()

    def __call__(self, graph: Graph, signature: Signature) -> tuple[Graph, pytree.TreeDef]:
        return graph, signature.out_tree


@dataclass(frozen=True, slots=True)
class _Differentiate:
    """The rewrite of ``grad`` and ``value_and_grad``."""

    name: str
    argnums: int | tuple[int, ...]
    has_aux: bool
    allow_unused: bool
    donate_argnums: tuple[int, ...] = ()

    def __call__(self, graph: Graph, signature: Signature) -> tuple[Graph, pytree.TreeDef]:
        aux_tree = _scalar_result(self, graph, signature)
        wrt, grad_tree = _wrt(self, graph, signature)
        if signature.outermost and not self.allow_unused and not reverse.reaches(graph, wrt, [0]):
            _unused(self, signature)
        floats = [i for i, o in enumerate(graph.outs) if o.aval.dtype.kind == "f"]
        seeds = [graph.outs[0].aval.dtype.type(1) if i == 0 else None for i in floats]
        full = reverse.vjp(graph, wrt, seeds)
        count = len(graph.outs) - signature.guards
        value, aux, guards = full.outs[0], full.outs[1:count], full.outs[count : len(graph.outs)]
        bars = full.outs[len(graph.outs) :]
        gradient = pytree.unflatten(grad_tree, bars)
        answer: Any = gradient
        if self.has_aux:
            assert aux_tree is not None
            extras = pytree.unflatten(aux_tree, aux)
            answer = ((value, extras), gradient) if self.name == "value_and_grad" else (gradient, extras)
        elif self.name == "value_and_grad":
            answer = (value, gradient)
        outs, tree = pytree.flatten(answer)  # the atoms stand in the tree that users get, and come out in its order
        return dce(Graph(full.ins, full.eqns, (*outs, *guards), graph.in_names)), tree


def _scalar_result(kind: _Differentiate, graph: Graph, signature: Signature) -> pytree.TreeDef | None:
    """Checks that there is one number to differentiate; the tree of the auxiliary results."""
    name, out_tree = signature.name, signature.out_tree
    children = out_tree.children() if out_tree.type is tuple else []
    at = frames.describe(frames.user_where())
    if kind.has_aux:
        if len(children) != 2 or children[0].num_leaves != 1:
            raise ArgumentError(
                f"{name} must return a pair (value, aux) under has_aux=True.", at=at, fix="return loss, anything_else"
            )
        aux_tree = children[1]
    else:
        if out_tree.num_leaves != 1:
            raise NonScalarError(
                f"{kind.name} needs a scalar; {name} returned a tree of {out_tree.num_leaves} values.",
                at=at,
                fix=f"return one number, or wichi.{kind.name}({name}, has_aux=True) if it returns (value, extras)",
            )
        aux_tree = None
    aval = graph.outs[0].aval
    if aval.shape:
        raise NonScalarError(
            f"{kind.name} needs a scalar; {name} returned {aval}.",
            at=at,
            fix=f"reduce it, for instance with .sum() or .mean(), or use wichi.vjp({name}, ...)",
        )
    if aval.dtype.kind != "f":
        raise DtypeError(
            f"{kind.name} needs a float; {name} returned {aval}.",
            at=at,
            because="integers and bools have no derivative",
            fix="compute the result in floats",
        )
    return aux_tree


def _wrt(kind: _Differentiate, graph: Graph, signature: Signature) -> tuple[list[int], pytree.TreeDef]:
    """Which inputs of the graph are differentiated, and the tree of their gradients."""
    name, arguments = signature.name, signature.in_tree.children()[0].children()
    at = frames.describe(frames.user_where())
    numbers = (kind.argnums,) if isinstance(kind.argnums, int) else kind.argnums
    wrt: list[int] = []
    for number in numbers:
        if not -len(arguments) <= number < len(arguments):
            raise ArgumentError(
                f"argnums={number}, but {name} was called with {len(arguments)} positional argument(s).",
                at=at,
                because="argnums counts positional arguments from 0",
            )
        number %= len(arguments)
        first = sum(a.num_leaves for a in arguments[:number])
        wrt += range(first, first + arguments[number].num_leaves)
    for i in wrt:
        if graph.ins[i].aval.dtype.kind != "f":
            leaf = graph.in_names[i]
            raise DtypeError(
                f"{kind.name} of {name}: the argument {leaf} is {graph.ins[i].aval}; integers have no derivative.",
                at=at,
                fix=f"make it a float ({leaf} = np.asarray({leaf}, float)), or leave it out of argnums",
            )
    trees = [
        pytree.unflatten(arguments[n % len(arguments)], [0] * arguments[n % len(arguments)].num_leaves) for n in numbers
    ]
    return wrt, pytree.flatten(trees[0] if isinstance(kind.argnums, int) else tuple(trees))[1]


def _unused(kind: _Differentiate, signature: Signature) -> NoReturn:
    name = signature.name
    raise UnusedInputError(
        f"The result of {name} does not depend on argument {kind.argnums}; the gradient would be all zeros.",
        at=frames.describe(frames.user_where()),
        because="no operation leads from the argument to the result (was it converted to a plain number on the way?)",
        fix=f"wichi.{kind.name}({name}, allow_unused=True), if zeros are meant",
    )


# --- the public functions --------------------------------------------------------------------------------------------
def jit(
    fn: Callable[P, R],
    static_argnums: int | Sequence[int] = (),
    donate_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
) -> Transformed[P, R]:
    """``fn``, traced once for each signature and run as native code.

    Args:
        fn: a function of trees of arrays (float64, float32, integers, bool; Python numbers are weakly typed 0-d
            values). Python code in it runs while tracing only.
        static_argnums: positional arguments that are plain Python objects, hashable; each value is traced anew.
        donate_argnums: positional arguments whose arrays may be overwritten: each result is written into the first of
            their leaves that has its shape and dtype and is still free, and that array is the result. A training step
            so allocates nothing of the size of its parameters.
        static_argnames: static arguments by their names; either way they may be given by position or by keyword.

    Returns:
        a function with the signature of ``fn``; results are fresh ndarrays.

    Differences to JAX: float64 as NumPy has it, no devices, ndarrays in and out, and a new batch size compiles
    nothing. Closed-over arrays are read at each call, not baked in; what plain NumPy computes from them while ``fn`` is
    traced (``2 * c``, ``c[0]``) is, and ``f.captured()`` lists it where it is an array. Python may branch on values and
    ask for integers (``if x > 0:``, ``while``, ``range(int(n))``): what it was told is tested on each call, and a call
    that goes another way runs ``fn`` again, side effects included, to trace its own; see ``wichi.config``.

    >>> import numpy as np, wichi
    >>> wichi.jit(lambda x: np.sum(x**2))(np.array([3.0, 4.0]))
    np.float64(25.0)
    """
    donated = (donate_argnums,) if isinstance(donate_argnums, int) else tuple(donate_argnums)
    made: Transformed[P, R] = static.transformed(
        fn,
        static_argnums,
        lambda f, moved: Transformed(f, AsItIs("jit", tuple(map(moved, donated)))),
        (jit, (fn, static_argnums, donate_argnums, static_argnames)),
        static_argnames,
    )
    return made


def grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    allow_unused: bool = False,
    static_argnums: int | Sequence[int] = (),
) -> Transformed[..., Any]:
    """The gradient of a scalar function: a tree like the argument, of ndarrays with its shapes and dtypes.

    Args:
        fn: returns one float, or ``(float, aux)`` with ``has_aux``.
        argnums: the positional argument(s) to differentiate; a sequence gives a tuple of gradients.
        has_aux: ``fn`` also returns a tree that is passed on: the answer is ``(gradient, aux)``.
        allow_unused: answer zeros, not an error, where the result does not depend on the argument at all.
        static_argnums: as for ``jit``; ``argnums`` counts them too.

    Raises:
        NonScalarError: ``fn`` returned an array or several values.
        UnusedInputError: the result does not depend on the argument.
        DtypeError: an integer leaf in the differentiated argument.

    >>> import numpy as np, wichi
    >>> wichi.grad(lambda x: np.sum(x**2))(np.array([3.0, 4.0]))
    array([6., 8.])
    """

    def make(f: Callable[..., Any], moved: Callable[[int], int]) -> Transformed[..., Any]:
        numbers = _argnums(argnums)
        new = moved(numbers) if isinstance(numbers, int) else tuple(map(moved, numbers))
        return Transformed(f, _Differentiate("grad", new, has_aux, allow_unused))

    made: Transformed[..., Any] = static.transformed(
        fn, static_argnums, make, (grad, (fn, argnums, has_aux, allow_unused, static_argnums))
    )
    return made


def value_and_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    allow_unused: bool = False,
    static_argnums: int | Sequence[int] = (),
) -> Transformed[..., Any]:
    """As ``grad``, but answers ``(value, gradient)``; with ``has_aux`` ``((value, aux), gradient)``.

    >>> import numpy as np, wichi
    >>> wichi.value_and_grad(lambda x: np.sum(x**2))(np.array([3.0, 4.0]))
    (np.float64(25.0), array([6., 8.]))
    """

    def make(f: Callable[..., Any], moved: Callable[[int], int]) -> Transformed[..., Any]:
        numbers = _argnums(argnums)
        new = moved(numbers) if isinstance(numbers, int) else tuple(map(moved, numbers))
        return Transformed(f, _Differentiate("value_and_grad", new, has_aux, allow_unused))

    made: Transformed[..., Any] = static.transformed(
        fn, static_argnums, make, (value_and_grad, (fn, argnums, has_aux, allow_unused, static_argnums))
    )
    return made


def _argnums(argnums: int | Sequence[int]) -> int | tuple[int, ...]:
    return argnums if isinstance(argnums, int) else tuple(argnums)


def make_graph(fn: Callable[P, Any]) -> Callable[P, Graph]:
    """The IR of ``fn`` (or of a transformed function): ``make_graph(fn)(*args) -> Graph``.

    >>> import numpy as np, wichi
    >>> print(wichi.make_graph(lambda x: np.sum(x * x))(np.ones(3)))
    graph(x:f64[3])
      a:f64[3] = square x
      b:f64[] = sum[axes=(0,)] a
      return b
    """
    transformed = fn if isinstance(fn, Transformed) else jit(fn)
    return transformed.graph


def stop_gradient(x: Any) -> Any:
    """``x``, a tree, as a constant of differentiation: its derivatives are zero.

    >>> import wichi
    >>> wichi.grad(lambda x: x * wichi.stop_gradient(x))(3.0)
    np.float64(3.0)
    """
    return pytree.tree_map(
        lambda leaf: as_view(shaping.stop_gradient(leaf), leaf) if isinstance(leaf, Boxed) else leaf, x
    )

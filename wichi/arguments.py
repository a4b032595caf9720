"""The leaves of arguments and results: their types, their names, and what is wrong with them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from wichi import pytree
from wichi.errors import ArgumentError, DtypeError, IntegerRangeError
from wichi.numpy._masked import MaskedPart
from wichi.ops.shaping import cast
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.dtypes import refuse_subclass, supported
from wichi.trace.ir import Aval, Graph


def donations(graph: Graph, treedef: pytree.TreeDef, argnums: tuple[int, ...]) -> dict[int, int]:
    """Which results go into which inputs: each into the first donated one of its type that is still free."""
    if not argnums:
        return {}
    arguments = treedef.children()[0].children()
    free: list[int] = []
    for number in argnums:
        if not -len(arguments) <= number < len(arguments):
            raise ArgumentError(
                f"donate_argnums={number}, but there are {len(arguments)} positional arguments.",
                at=frames.describe(frames.user_where()),
            )
        first = sum(a.num_leaves for a in arguments[: number % len(arguments)])
        free += range(first, first + arguments[number].num_leaves)
    found: dict[int, int] = {}
    for k, out in enumerate(graph.outs):
        for i in free:
            given = graph.ins[i].aval
            if given.shape and (given.shape, given.dtype) == (out.aval.shape, out.aval.dtype):
                found[k] = i
                free.remove(i)
                break
    return found


def leaf_aval(x: Any) -> Aval:
    if isinstance(x, np.ndarray | np.generic):
        refuse_subclass(x, "An argument")
        return Aval(x.shape, supported(x.dtype, "An argument"))
    if isinstance(x, Boxed):
        return x.aval
    if isinstance(x, bool | int | float):
        if type(x) is int and not -(2**63) <= x < 2**63:
            raise IntegerRangeError(
                f"The Python integer {x} does not fit int64.",
                at=frames.describe(frames.user_where()),
                because="what a function is called with, and what it returns, are arrays and numbers of NumPy's dtypes",
                fix="make it a float, float(n), or close over it",
            )
        return Aval((), np.dtype(type(x)), not isinstance(x, bool))
    raise TypeError(f"{type(x).__name__} is not an array or a number")


def as_typed(x: Any, aval: Aval) -> Any:
    """A leaf as a value of exactly this dtype."""
    if isinstance(x, Boxed):
        return x if x.dtype == aval.dtype else cast(x, dtype=aval.dtype)
    return np.asarray(x, aval.dtype)[()]


def explain_leaves(fn: Any, leaves: Sequence[Any], treedef: pytree.TreeDef) -> NoReturn:
    for name, x in zip(input_names(fn, treedef), leaves, strict=True):
        try:
            leaf_aval(x)
        except Exception:
            refuse_leaf(f"The argument {name}", x)
    raise AssertionError("no leaf is at fault")


def refuse_leaf(what: str, x: Any) -> NoReturn:
    """Raise for a leaf that is no array and no number, with the way from another library's arrays."""
    library = type(x).__module__.partition(".")[0]
    name = type(x).__name__ if library in ("builtins", "wichi", "__main__") else f"{library}.{type(x).__name__}"
    fix = "give it to the function by closure or functools.partial, or make it numbers"
    if hasattr(x, "__dlpack__"):
        fix = "give its numbers, without a copy: np.from_dlpack(x)"
        if getattr(x, "requires_grad", False):
            fix = "give its numbers, without a copy: x.detach().numpy()"
    elif hasattr(x, "__array__"):
        fix = "give its numbers: np.asarray(x)"
    raise (DtypeError if isinstance(x, complex) else ArgumentError)(
        f"{what} is {name}, not an array or a number.",
        at=frames.describe(frames.user_where()),
        because="arguments are trees (dict, list, tuple, dataclass, None) of arrays and numbers",
        fix=fix,
    ) from None


def input_names(fn: Any, treedef: pytree.TreeDef) -> list[str]:
    """``params['w']`` for each leaf of ``(args, kwargs)``."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return pytree.argument_paths(treedef, positional)


def check_results(name: str, results: Sequence[Any], tree: pytree.TreeDef) -> None:
    for path, x in zip(pytree.paths(tree), results, strict=True):
        try:
            leaf_aval(x)
        except TypeError:
            if isinstance(x, MaskedPart):
                x.refuse()
            raise ArgumentError(
                f"{name} returned {type(x).__name__} at result{path}, which is not an array or a number.",
                at=frames.describe(frames.user_where()),
                because="a compiled function can only return trees of arrays",
                fix="return it from outside the function",
            ) from None

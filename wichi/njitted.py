"""``njit``: a compiled value, gradient or Jacobian as a function for the user's own numba code."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wichi import pytree
from wichi.arguments import leaf_aval
from wichi.compiled import Transformed
from wichi.errors import ArgumentError
from wichi.freesizes import Spec, compile_free, names_in
from wichi.trace import frames
from wichi.traces import check_captures
from wichi.transforms import jit
from wichi.travel import Likeness

if TYPE_CHECKING:
    from wichi.kernels.bridge import Callee


# Names of the lines that `wichi.kernels.bridge` writes.
_TAKEN = {
    *("empty", "answer", "uint8", "int64", "contiguous", "run", "find", "word", "absent", "prepare", "table", "room"),
    "arena",
}


def njit(fn: Callable[..., Any], *example_args: Any) -> Any:
    """``fn`` compiled for arguments like these, callable from numba-compiled code and from Python.

    Args:
        fn: a NumPy function, or a transformed one: ``wichi.value_and_grad(f)``, ``wichi.jacobian(f)``, ...
        example_args: arrays, numbers, or flat tuples of them. Their shapes and dtypes hold for all calls; the numbers
            in them do not matter. ``wichi.spec(dtype, shape)`` stands for an array; names in its shape are free sizes,
            whose lengths each call brings along. Python code must then not need their numbers: ``x.shape[0]`` may be
            calculated with, but ``range(x.shape[0])``, ``len(x)`` and comparisons are errors.

    Returns:
        a numba function of the same positional arguments. It answers what ``fn`` does, with results in tuples where
        ``fn`` has tuples. A call touches no Python object and needs no GIL; each has its own working memory, so it
        may run in ``prange``. Arrays that ``fn`` holds are read anew on each call; what else it holds was fixed here.

    Raises:
        ArgumentError: an argument or a result is a tree other than tuples.
        numba.core.errors.TypingError: at a call site, for arguments of another dtype or rank.
        ValueError: at a call, for another shape.
        ConditionError, ShapeError: Python code needs the number of a free size, or a size is no polynomial in them.
        IndexError: at a call, for an index outside its axis.

    Functions that call it may be kept by numba's own disk cache (``cache=True``) if ``fn`` has a name in a module: they
    hold the name of a slot, which is filled when ``wichi.njit`` runs, so they call the function as it is then, also
    when it has changed in another file. Of lambdas and closures numba says that it cannot keep their callers.
    Pickled, alone or with a numba function that calls it, it is made anew where it is unpickled.

    >>> import numba
    >>> gradient = wichi.njit(wichi.grad(lambda x: np.sum(x**2)), np.ones(3))
    >>> @numba.njit
    ... def descend(x):
    ...     for _ in range(100):
    ...         x = x - 0.1 * gradient(x)
    ...     return x
    >>> bool(np.all(np.abs(descend(np.ones(3))) < 1e-9))
    True
    """
    transformed = fn if isinstance(fn, Transformed) else jit(fn)
    name = getattr(transformed, "__name__", "f")
    name = name if name.isidentifier() else "f"
    parameters = _parameters(transformed, len(example_args))
    inputs = [leaf for p, x in zip(parameters, example_args, strict=True) for leaf in _leaves(p, x)]
    leaves, treedef = pytree.flatten((example_args, {}))
    found = _callee(transformed, name, leaves, treedef)
    result = _tuples(pytree.unflatten(found.keep.out_tree, [f"out{i}" for i in range(len(found.plan.outputs))]))
    from wichi.kernels.bridge import numba_function

    abi = [f"{a.dtype}{s}" for a, s in zip(found.plan.inputs, found.inputs, strict=False)]
    abi += [f"{a.dtype}{a.ndim}" for a in found.plan.outputs]
    slot = _slot(transformed, ":".join([*abi, result, str(len(found.plan.constants))]))
    function = numba_function(found, slot, name, parameters, inputs, result)
    # numba pickles a function as its Python code and all that this refers to: here addresses of this process.
    like = pytree.tree_map(lambda x: x if isinstance(x, Spec) else Likeness(leaf_aval(x)), example_args)
    made_from = (fn, like)
    function.__reduce_ex__ = lambda protocol: (_again, made_from)
    function.__deepcopy__ = lambda memo: function
    return function


def _again(fn: Callable[..., Any], like: Any) -> Any:
    return njit(fn, *pytree.tree_map(lambda x: x if isinstance(x, Spec) else x.example(), like))


def _callee(transformed: Transformed[..., Any], name: str, leaves: list[Any], treedef: pytree.TreeDef) -> Callee:
    """The program for arguments like these."""
    from wichi.kernels.bridge import Callee
    from wichi.kernels.program import Executable, native

    if names_in(leaves):
        free = compile_free(transformed, leaves, treedef)
        check_captures("wichi.njit", name, free.trace)
        code = native(free.plan.program)
        return Callee(
            free.plan, code.address, _Kept(free.trace.out_tree, code), free.inputs, free.names, free.least, free.sizes,
            free.scalars, free.arena_bytes, free.outputs,
        )  # fmt: skip
    leaves = [np.zeros(x.fixed(), x.dtype)[()] if isinstance(x, Spec) else x for x in leaves]
    found = transformed.find(leaves, treedef)
    check_captures("wichi.njit", name, found)
    executable = Executable(found.run.graph)
    shapes = tuple(a.shape for a in executable.plan.inputs)
    return Callee(executable.plan, executable.native.address, _Kept(found.out_tree, executable), shapes)


class _Kept(NamedTuple):
    """The tree of results, and what owns the machine code."""

    out_tree: pytree.TreeDef
    code: Any


def _slot(transformed: Transformed[..., Any], abi: str) -> str:
    """A name for the function under these transforms, the same in each process; empty where no name leads to it."""
    path: list[str] = [abi]
    fn: Any = transformed
    while isinstance(fn, Transformed):
        path.append(repr(fn._rewrite))
        fn = fn.__wrapped__
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", "<>")
    stable = isinstance(fn, FunctionType) and "<" not in name and not any(" at 0x" in p for p in path)
    return ":".join([str(module), name, *reversed(path)]) if stable else ""


def _parameters(fn: Any, count: int) -> list[str]:
    try:
        names = [
            p.name
            for p in inspect.signature(fn).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        names = []
    names = [f"{n}_" if n in _TAKEN or n.startswith(("out", "dtype", "size_")) else n for n in names[:count]]
    return names + [f"argument{i}" for i in range(len(names), count)]


def _leaves(name: str, example: Any) -> list[str]:
    if type(example) is tuple and all(not isinstance(x, tuple | list | dict) for x in example):
        return [f"{name}[{i}]" for i in range(len(example))]
    if isinstance(example, np.ndarray | np.generic | int | float | Spec):
        return [name]
    raise ArgumentError(
        f"wichi.njit: the argument {name} is {type(example).__name__}; numba code passes arrays, numbers and tuples.",
        at=frames.describe(frames.user_where()),
        fix="take the parts of a tree as arguments of their own",
    )


def _tuples(result: Any) -> str:
    """The expression for a result of nested tuples."""
    if isinstance(result, str):
        return result
    if isinstance(result, tuple):  # results nest two or three levels
        return f"({''.join(f'{_tuples(x)}, ' for x in result)})"
    raise ArgumentError(
        f"wichi.njit: the result holds {type(result).__name__}; numba code can take arrays, numbers and tuples.",
        at=frames.describe(frames.user_where()),
        fix="return a tuple",
    )

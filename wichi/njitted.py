"""``njit``: a compiled value, gradient or Jacobian as a function for the user's own numba code."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from wichi import pytree
from wichi.compiled import Transformed
from wichi.errors import ArgumentError
from wichi.trace import frames
from wichi.traces import check_captures
from wichi.transforms import jit


def njit(fn: Callable[..., Any], *example_args: Any) -> Any:
    """``fn`` compiled for arguments like these, callable from numba-compiled code and from Python.

    Args:
        fn: a NumPy function, or a transformed one: ``wichi.value_and_grad(f)``, ``wichi.jacobian(f)``, ...
        example_args: arrays, numbers, or flat tuples of them. Their shapes and dtypes hold for all calls; the numbers
            in them do not matter.

    Returns:
        a numba function of the same positional arguments. It answers what ``fn`` does, with results in tuples where
        ``fn`` has tuples. A call touches no Python object and needs no GIL; each has its own working memory, so it
        may run in ``prange``. Arrays that ``fn`` holds are read anew on each call; what else it holds was fixed here.

    Raises:
        ArgumentError: an argument or a result is a tree other than tuples.
        numba.core.errors.TypingError: at a call site, for arguments of another dtype or rank.
        ValueError: at a call, for another shape.
        IndexError: at a call, for an index outside its axis.

    numba does not write functions that call it to its own disk cache (it says so): they hold addresses of this process.

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
    from wichi.kernels.program import Executable

    transformed = fn if isinstance(fn, Transformed) else jit(fn)
    leaves, treedef = pytree.flatten((example_args, {}))
    found = transformed.find(leaves, treedef)
    graph = found.run.graph
    executable = Executable(graph)
    name = getattr(transformed, "__name__", "f")
    name = name if name.isidentifier() else "f"
    parameters = _parameters(transformed, len(example_args))
    inputs = [leaf for p, x in zip(parameters, example_args, strict=True) for leaf in _leaves(p, x)]
    result = _tuples(pytree.unflatten(found.out_tree, [f"out{i}" for i in range(len(graph.outs))]))
    check_captures("wichi.njit", name, found)
    from wichi.kernels.bridge import numba_function

    return numba_function(executable, name, parameters, inputs, result)


def _parameters(fn: Any, count: int) -> list[str]:
    try:
        names = [
            p.name
            for p in inspect.signature(fn).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        names = []
    taken = {"empty", "answer", "uint8", "contiguous", "run"}
    names = [f"{n}_" if n in taken or n.startswith(("out", "dtype")) else n for n in names[:count]]
    return names + [f"argument{i}" for i in range(len(names), count)]


def _leaves(name: str, example: Any) -> list[str]:
    if type(example) is tuple and all(not isinstance(x, tuple | list | dict) for x in example):
        return [f"{name}[{i}]" for i in range(len(example))]
    if isinstance(example, np.ndarray | np.generic | int | float):
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

"""Functions compiled by numba, as the Python they were written in: what is traced in their place.

numba's functions cannot be called with values that stand for arrays. Each has its Python function as ``py_func``; the
functions that it calls are found by the names in its code, as in ``captured``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

from wichi.trace import frames
from wichi.trace.captured import code_of


def is_compiled(x: Any) -> bool:
    """Whether ``x`` is a function that ``numba.njit`` has made; numba need not be there."""
    return type(x).__module__.partition(".")[0] == "numba" and isinstance(getattr(x, "py_func", None), FunctionType)


def python_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with Python functions in place of all that numba has compiled, itself included.

    Itself where there are none. Otherwise functions of the same code, with globals and cells as they are now.
    """
    start = _plain(function)
    if not isinstance(start, FunctionType):
        return function
    callees: dict[FunctionType, list[Any]] = {}
    waiting = [start]
    while waiting:
        f = waiting.pop()
        if f in callees:
            continue
        callees[f] = [v for v in (*_globals(f).values(), *_cells(f).values()) if _is_followed(v)]
        waiting += [_plain(v) for v in callees[f]]
    reaching = {f for f, values in callees.items() if any(map(is_compiled, values))}
    more = reaching
    while more:
        more = {f for f, values in callees.items() if any(_plain(v) in more for v in values)} - reaching
        reaching |= more
    made = {f: FunctionType(f.__code__, dict(f.__globals__), f.__name__, f.__defaults__, _copied(f)) for f in reaching}

    def instead(value: Any) -> Any:
        plain = _plain(value) if _is_followed(value) else value
        return made.get(plain, plain) if isinstance(plain, FunctionType) else plain

    for f, new in made.items():
        new.__kwdefaults__ = f.__kwdefaults__
        new.__globals__.update({name: instead(v) for name, v in _globals(f).items()})
        cells = dict(zip(new.__code__.co_freevars, new.__closure__ or (), strict=True))
        for name, v in _cells(f).items():
            cells[name].cell_contents = instead(v)
    return made.get(start, start if is_compiled(function) else function)  # type: ignore[return-value]


def _plain(x: Any) -> Any:
    return x.py_func if is_compiled(x) else x


def _is_followed(x: Any) -> bool:
    """Functions of the user's, and those of ours that a call has made around them."""
    if not isinstance(x, FunctionType):
        return is_compiled(x)
    return not frames.is_internal(x.__code__.co_filename) or "<locals>" in x.__code__.co_qualname


def _globals(f: FunctionType) -> dict[str, Any]:
    if frames.is_internal(f.__code__.co_filename):
        return {}
    return {name: f.__globals__[name] for name in code_of(f.__code__).names if name in f.__globals__}


def _cells(f: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    return found


def _copied(f: FunctionType) -> tuple[CellType, ...] | None:
    """Cells of the same contents. Those that hold functions get others; the rest stay the function's own."""
    if f.__closure__ is None:
        return None
    held = _cells(f)
    return tuple(
        CellType() if _is_followed(held.get(name)) else cell
        for name, cell in zip(f.__code__.co_freevars, f.__closure__, strict=True)
    )

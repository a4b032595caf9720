"""Which variable of the user's holds a value: for messages about values that are used too late."""

from __future__ import annotations

import gc
import re
import sys
from types import CellType, FrameType, FunctionType, ModuleType
from typing import Any

from wichi.trace import frames

_DEPTH = 4  # containers within containers; that an object keeps its attributes in may be one of them


def holder(value: Any) -> str | None:
    """```cache['h']` (module m)``: a global, a closure or a local variable through which ``value`` is reached.

    Looks through dicts, lists, tuples and attributes, a few levels up; None if nothing of the user's holds it.
    """
    stack = _user_frames()
    local: str | None = None
    level: list[tuple[Any, str]] = [(value, "")]
    seen = {id(value)}
    for _ in range(_DEPTH + 1):
        referrers = gc.get_referrers(*[x for x, _ in level])
        ignored = {id(level), id(stack), *map(id, level)}  # this search itself
        found: list[tuple[Any, str]] = []
        for x, path in level:
            local = local or _local(x, path, stack)
            for r in referrers:
                if id(r) in ignored or isinstance(r, FrameType):
                    continue
                for step in _steps(r, x):
                    if isinstance(r, dict) and (module := _module_of(r)) is not None:
                        return f"`{step[2:-2]}{path}` (module {module})"
                    if isinstance(r, CellType):
                        if name := _variable(r):
                            return f"`{name[0]}{path}` (closed over by {name[1]})"
                    elif id(r) not in seen:
                        seen.add(id(r))
                        found.append((r, step + path))
                if id(r) not in seen and getattr(r, "__dict__", None) is x and not isinstance(r, type | FunctionType):
                    seen.add(id(r))
                    found.append((r, re.sub(r"^\['(\w+)'\]", r".\1", path)))
        del referrers
        level = found
        if not level:
            break
    return local


def _steps(container: Any, x: Any) -> list[str]:
    """How ``x`` is reached from what refers to it: ``['h']``, ``[0]``, ``.h``; none if it is nothing of theirs."""
    if isinstance(container, dict):
        return [f"[{k!r}]" for k, v in container.items() if v is x][:1]
    if isinstance(container, list | tuple):
        return [f"[{i}]" for i, v in enumerate(container) if v is x][:1]
    if isinstance(container, CellType):
        return [""]
    if isinstance(container, FunctionType | ModuleType | type):
        return []
    if frames.is_internal(getattr(sys.modules.get(type(container).__module__), "__file__", None) or ""):
        return []
    attributes = dict(getattr(container, "__dict__", {}))
    for name in getattr(type(container), "__slots__", ()):
        attributes[name] = getattr(container, name, None)
    return [f".{n}" for n, v in attributes.items() if v is x][:1]


def _module_of(namespace: dict[Any, Any]) -> str | None:
    """The user's module whose globals these are."""
    name = namespace.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or vars(module) is not namespace or frames.is_internal(getattr(module, "__file__", None) or ""):
        return None
    return name


def _variable(cell: CellType) -> tuple[str, str] | None:
    """The name under which a function of the user's closes over a cell, and the function's."""
    for closure in gc.get_referrers(cell):
        if not isinstance(closure, tuple):
            continue
        for function in gc.get_referrers(closure):
            if isinstance(function, FunctionType) and function.__closure__ is closure:
                code = function.__code__
                if not frames.is_internal(code.co_filename):
                    return code.co_freevars[[c is cell for c in closure].index(True)], function.__qualname__
    return None


def _user_frames() -> list[FrameType]:
    found, frame = [], frames.user_frame()
    while frame is not None:
        if not frames.is_internal(frame.f_code.co_filename) and frame.f_code.co_name != "<module>":
            found.append(frame)
        frame = frame.f_back
    return found


def _local(x: Any, path: str, stack: list[FrameType]) -> str | None:
    for frame in stack:
        for name, value in frame.f_locals.items():
            if value is x:
                return f"`{name}{path}` (in {frame.f_code.co_qualname})"
    return None

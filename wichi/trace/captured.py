"""What a traced function depends on besides its arguments: globals, closure cells, defaults, and functions it uses.

A trace is used again only while each of these is the same object as when the function was traced. What is reached in
other ways (attributes, dict entries, methods of objects, arrays computed while tracing) is frozen in the trace.
"""

from __future__ import annotations

import functools
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from wichi.trace import frames

MISSING = object()
_STANDARD = sysconfig.get_paths()["stdlib"]


@dataclass(frozen=True, slots=True)
class Dependency:
    """One name whose value is compared by identity on each call: of a namespace, of a cell, or fixed."""

    name: str
    holder: dict[str, Any] | CellType | None  # None: ``key`` is the value itself
    key: Any = None

    def read(self) -> Any:
        """The value now; MISSING where there is none."""
        if type(self.holder) is dict:
            return self.holder.get(self.key, MISSING)
        if self.holder is None:
            return self.key
        try:
            return self.holder.cell_contents  # type: ignore[union-attr]
        except ValueError:  # not bound yet
            return MISSING


def is_followed(value: Any) -> bool:
    """Whether what ``value`` holds is compared too, beside ``value`` itself."""
    return isinstance(value, FunctionType | MethodType | functools.partial) or hasattr(value, "__wrapped__")


def same(a: Any, b: Any) -> bool:
    """Whether a trace made with ``a`` holds with ``b`` in its place, given that what they hold is compared too.

    A function made again by the same line is such a case: a lambda within a call, for instance.
    """
    if a is b:
        return True
    kind = type(a)
    if kind is not type(b):
        return False
    if kind is FunctionType:
        return a.__code__ is b.__code__  # type: ignore[no-any-return]
    if kind is MethodType:
        return a.__func__ is b.__func__  # type: ignore[no-any-return]
    if kind is tuple:
        return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
    if kind is functools.partial:
        return len(a.args) == len(b.args) and list(a.keywords) == list(b.keywords)
    if kind is float:
        return a.hex() == b.hex()  # type: ignore[no-any-return]
    return kind in (int, str, bytes) and a == b


def dependencies(function: Callable[..., Any]) -> list[Dependency]:
    """Everything compared, in an order that depends on code alone: equal lambdas give lists that line up."""
    found: list[Dependency] = []
    seen: set[int] = set()
    waiting: list[Any] = [function]
    while waiting:
        f = waiting.pop()
        if id(f) in seen:
            continue
        seen.add(id(f))
        if isinstance(f, functools.partial):
            found += [Dependency("partial argument", None, v) for v in (*f.args, *f.keywords.values())]
            waiting.append(f.func)
        elif isinstance(f, MethodType):
            found.append(Dependency("self", None, f.__self__))
            waiting.append(f.__func__)
        elif isinstance(f, FunctionType):
            ours = frames.is_internal(f.__code__.co_filename)
            if ours and "<locals>" not in f.__code__.co_qualname:  # not the name that functools.wraps has copied
                continue  # wichi's own functions do not change; those made by a call, as an optimiser's, hold cells
            for dependency in _of_function(f, with_globals=not ours):
                found.append(dependency)
                value = dependency.read()
                if is_followed(value):
                    waiting.append(value)
        elif hasattr(f, "__wrapped__"):
            waiting.append(f.__wrapped__)
        else:
            found.append(Dependency(getattr(f, "__name__", type(f).__name__), None, f))
    return found


def _of_function(f: FunctionType, with_globals: bool) -> list[Dependency]:
    found = [
        Dependency(f"{f.__name__}: default", None, v)
        for v in (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values())
    ]
    for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        found.append(Dependency(name, cell))
    names = _names(f.__code__) if with_globals else []
    scope = f.__globals__
    for name in names:
        if name not in scope:
            continue
        found.append(Dependency(name, scope, name))
        module = scope[name]
        if isinstance(module, ModuleType) and _is_users(module):
            inside = vars(module)
            found += [
                Dependency(f"{name}.{attribute}", inside, attribute)
                for attribute in names
                if isinstance(inside.get(attribute), FunctionType)
            ]
    return found


def _names(code: CodeType) -> list[str]:
    """Names that the code and the functions defined in it look up."""
    names: dict[str, None] = {}
    waiting = [code]
    while waiting:
        c = waiting.pop()
        names.update(dict.fromkeys(c.co_names))
        waiting += [k for k in c.co_consts if isinstance(k, CodeType)]
    return list(names)


def _is_users(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and not frames.is_internal(file) and (not file.startswith(_STANDARD) or "site-packages" in file)

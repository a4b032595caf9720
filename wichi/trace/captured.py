"""What a traced function depends on besides its arguments: globals, closure cells, defaults, and functions it uses.

Attributes of objects that it reaches by these belong to them (``self.sigma``, ``settings.rate``), and entries of dicts
under names that stand in its code (``options["rate"]``). A trace is used again only while each of these is the same
object as when the function was traced. What is reached in other ways (elements of lists, ``getattr`` by a computed
name, numbers and arrays that plain NumPy computes while tracing) is frozen in the trace.
"""

from __future__ import annotations

import dis
import functools
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from wichi.trace import frames
from wichi.trace.boxed import Boxed

MISSING = object()
# Arrays whose contents have shaped what is being traced, each with a copy of what they were; None outside of traces.
_contents: ContextVar[list[tuple[Any, Any]] | None] = ContextVar("wichi_contents", default=None)
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


def shaped_by(array: np.ndarray[Any, Any]) -> None:
    """What is being traced holds only while ``array``, a mask, say, keeps its contents."""
    found = _contents.get()
    if found is not None:
        found.append((array, array.copy()))


def shaped_like(contents: Iterable[tuple[Any, Any]]) -> None:
    """The same of all arrays that another trace, which is used here, was shaped by."""
    found = _contents.get()
    if found is not None:
        found += contents


@contextmanager
def contents_kept() -> Iterator[list[tuple[Any, Any]]]:
    """Collects the arrays that shape what is traced meanwhile."""
    found: list[tuple[Any, Any]] = []
    token = _contents.set(found)
    try:
        yield found
    finally:
        _contents.reset(token)
        shaped_like(found)


def is_followed(value: Any) -> bool:
    """Whether what ``value`` holds is compared too, beside ``value`` itself."""
    return isinstance(value, FunctionType | MethodType | functools.partial) or hasattr(value, "__wrapped__")


def has_parts(value: Any) -> bool:
    """Whether attributes or entries of ``value`` may be compared too."""
    return type(value) is dict or _is_object(value)


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
    seen: set[Any] = set()
    waiting: list[Any] = [function]
    while waiting:
        f = waiting.pop()
        key = (id(f.__self__), id(f.__func__)) if isinstance(f, MethodType) else id(f)
        if key in seen:
            continue
        seen.add(key)
        if isinstance(f, functools.partial):
            found += [Dependency("partial argument", None, v) for v in (*f.args, *f.keywords.values())]
            waiting.append(f.func)
        elif isinstance(f, MethodType):
            found.append(Dependency("self", None, f.__self__))
            waiting.append(f.__func__)
            if isinstance(f.__func__, FunctionType) and not frames.is_internal(f.__func__.__code__.co_filename):
                waiting += _add_parts(found, "self", f.__self__, code_of(f.__func__.__code__))
        elif isinstance(f, FunctionType):
            ours = frames.is_internal(f.__code__.co_filename)
            if ours and "<locals>" not in f.__code__.co_qualname:  # not the name that functools.wraps has copied
                continue  # wichi's own functions do not change; those made by a call, as an optimiser's, hold cells
            code = None if ours else code_of(f.__code__)
            for dependency in _of_function(f, code):
                found.append(dependency)
                value = dependency.read()
                if is_followed(value):
                    waiting.append(value)
                elif code is not None:
                    waiting += _add_parts(found, dependency.name, value, code)
        elif hasattr(f, "__wrapped__"):
            waiting.append(f.__wrapped__)
        else:
            found.append(Dependency(getattr(f, "__name__", type(f).__name__), None, f))
    return found


class _Code:
    """What code looks up, with the functions defined in it: names, texts, and the attributes that it sets itself."""

    def __init__(self, code: CodeType) -> None:
        self.names: dict[str, None] = {}
        self.texts: dict[str, None] = {}
        self.written: set[str] = set()
        waiting = [code]
        while waiting:
            c = waiting.pop()
            self.names.update(dict.fromkeys(c.co_names))
            self.texts.update((k, None) for k in c.co_consts if isinstance(k, str))
            self.written.update(str(i.argval) for i in dis.get_instructions(c) if i.opname == "STORE_ATTR")
            waiting += [k for k in c.co_consts if isinstance(k, CodeType)]


code_of = functools.lru_cache(maxsize=512)(_Code)  # functions made by the same line share it


def _add_parts(found: list[Dependency], name: str, value: Any, code: _Code) -> list[Any]:
    """Add what ``code`` may read of the object ``value``; answers the methods and functions among it."""
    functions: list[Any] = []
    waiting, seen = [(name, value)], set()
    while waiting:
        label, owner = waiting.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        for dependency in _parts(label, owner, code):
            part = dependency.read()
            found.append(dependency)
            if is_followed(part):
                functions.append(part)
            else:
                waiting.append((dependency.name, part))
        functions += _methods(owner, code)
    return functions


def _parts(label: str, owner: Any, code: _Code) -> Iterator[Dependency]:
    if type(owner) is dict:
        for key in code.texts:
            if key in owner:
                yield Dependency(f"{label}[{key!r}]", owner, key)
    elif _is_object(owner):
        inside = owner.__dict__
        for name in code.names:
            if name in inside and name not in code.written:  # what the function sets is its own business
                yield Dependency(f"{label}.{name}", inside, name)


def _methods(owner: Any, code: _Code) -> Iterator[MethodType]:
    """Those of the user's that the code may call on an object, its properties among them."""
    if _is_object(owner):
        for name in code.names:
            part = next((vars(c)[name] for c in type(owner).__mro__ if name in vars(c)), None)
            part = part.fget if isinstance(part, property) else part
            if isinstance(part, FunctionType) and name not in owner.__dict__:
                yield MethodType(part, owner)


def _is_object(x: Any) -> bool:
    """Whether attributes of ``x`` may be looked at: an instance of the user's, say."""
    other = (type, ModuleType, FunctionType, MethodType, functools.partial, Boxed, np.ndarray)
    return type(getattr(x, "__dict__", None)) is dict and not isinstance(x, other) and not is_followed(x)


def _of_function(f: FunctionType, code: _Code | None) -> list[Dependency]:
    """Its defaults and cells, and the globals that ``code`` looks up."""
    found = [
        Dependency(f"{f.__name__}: default", None, v)
        for v in (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values())
    ]
    for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        found.append(Dependency(name, cell))
    scope = f.__globals__
    for name in code.names if code is not None else ():
        if name not in scope:
            continue
        found.append(Dependency(name, scope, name))
        module = scope[name]
        if isinstance(module, ModuleType) and _is_users(module):
            inside = vars(module)
            found += [
                Dependency(f"{name}.{attribute}", inside, attribute)
                for attribute in code.names
                if attribute in inside and not isinstance(inside[attribute], ModuleType)
            ]
    return found


def _is_users(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and not frames.is_internal(file) and (not file.startswith(_STANDARD) or "site-packages" in file)

"""A call in well under a microsecond: a CPython builtin made from the native entry in ``wichi.kernels.door``.

Python makes the output arrays; everything else (are these the arrays that were traced for, are the globals still the
same, where is the data) happens in machine code. Where that cannot work (another Python, no GIL) or does not pass its
self-test, ``available()`` is False and calls go the plain way; ``WICHI_CALL=plain`` asks for that.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import ne
from pathlib import Path
from types import CellType
from typing import TYPE_CHECKING, Any

import numpy as np

from wichi.config import config, debugging
from wichi.kernels import cache, door, results
from wichi.kernels.once import once
from wichi.trace.captured import MISSING, Dependency
from wichi.trace.ir import Aval

if TYPE_CHECKING:
    from wichi.kernels.plans import Plan

_SMALL = 1 << 17  # bytes: programs that touch less keep the GIL
_ON_STACK = 1 << 14  # bytes of a workspace that a call takes from its stack
_METH_FASTCALL = 0x0080


class _MethodDef(ctypes.Structure):
    """CPython's ``PyMethodDef``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("method", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@dataclass(frozen=True, slots=True)
class Door:
    """``enter(*arrays, *outs, workspace) -> bool`` and what must live as long as it does.

    A small workspace lies on the stack of the call, and is no argument.
    """

    enter: Callable[..., bool]
    workspaces: deque[np.ndarray[Any, Any]]  # free ones
    room: int  # bytes of a workspace; 0: on the stack
    small: bool  # little memory is touched
    keep: tuple[Any, ...]

    def run(self, leaves: Sequence[Any], outs: Sequence[Any]) -> bool:
        """Run the program on ``leaves`` into ``outs``; False if they are not what it was made for."""
        if not self.room:
            return self.enter(*leaves, *outs)
        free = self.workspaces
        try:
            own = free.pop()
        except IndexError:
            own = np.empty(self.room, np.uint8)
        answer = self.enter(*leaves, *outs, own)
        free.append(own)
        return answer


def make_door(
    plan: Plan, entry: int, avals: Sequence[Aval], dependencies: Sequence[tuple[Dependency, Any]]
) -> Door | None:
    """A door for ``plan``, whose machine code is at ``entry``.

    None if an argument is of a kind it cannot read; and if a run that writes into arguments may fail, as what is
    refused here is run once more.

    Args:
        avals: of the arguments, as they were traced (a weak float is a Python float).
        dependencies: what must still be the same, each with the value it had.
    """
    if not available() or any(_how(a) is None for a in avals):
        return None
    if plan.donated and (plan.failures or plan.interruptible):
        return None
    cells: list[int] = []
    names: list[int] = []
    for dependency, value in dependencies:
        expected = 0 if value is MISSING else id(value)
        if isinstance(dependency.holder, CellType):
            cells += [id(dependency.holder), expected]
        elif dependency.holder is not None:
            names += [id(dependency.holder), id(dependency.key), expected]
    records: list[int] = []
    into = {i for _, i in plan.donated}
    if any(not avals[i].shape for i in into):
        return None
    for i, aval in enumerate(avals):
        records += _record(door.WRITTEN if i in into else _how(aval), i, aval)
    for array in plan.constants:
        if not array.flags.c_contiguous or not array.flags.aligned or not array.dtype.isnative:
            return None
        records += _record(door.CAPTURED, id(array), Aval(array.shape, array.dtype), array.dtype)
    for i, aval in enumerate(plan.outputs):
        records += _record(door.OWN, len(avals) + i, aval)
    arguments = len(avals) + len(plan.constants) + len(plan.outputs)
    sizes = [(i, a.size * a.dtype.itemsize) for i, a in enumerate(avals) if a.shape]
    sizes += [(len(avals) + i, array.nbytes) for i, array in enumerate(plan.constants)]
    spans = [(slot, size) for slot, size in sizes if size and into]
    writes = [(slot, size) for slot, size in spans if slot in into]
    small = plan.bytes_touched() <= _SMALL
    head = [0] * door.HEAD
    room = 8 * (arguments + 1) + 64 + plan.arena_bytes
    on_stack = room <= _ON_STACK
    head[door.COUNT] = len(avals) + len(plan.outputs) + (not on_stack)
    head[door.STACK] = room if on_stack else 0
    head[door.DEBUGGING] = debugging.ctypes.data
    head[door.ENTRY], head[door.SIZES], head[door.SCALARS] = entry, plan.sizes.ctypes.data, plan.scalars.ctypes.data
    head[door.CELLS], head[door.NAMES], head[door.ARRAYS] = len(cells) // 2, len(names) // 3, arguments
    head[door.WRITES], head[door.SPANS] = len(writes), len(spans)
    head[door.YES], head[door.NO] = id(True), id(False)
    head[door.GET_ITEM], head[door.INCREF] = _symbol("PyDict_GetItem"), _symbol("Py_IncRef")
    if not small or plan.interruptible:
        head[door.SAVE], head[door.RESTORE] = _symbol("PyEval_SaveThread"), _symbol("PyEval_RestoreThread")
    table = np.array([*head, *cells, *names, *records, *sum(writes, ()), *sum(spans, ())], np.int64)
    definition = _MethodDef(b"program", _native_entry()[0], _METH_FASTCALL, None)
    # The definition is not copied by CPython, and the table holds bare addresses: all of it must outlive the builtin.
    keep = (table, definition, plan, tuple(dependencies))
    return Door(_new_builtin(definition, table), deque(maxlen=8), 0 if on_stack else room, small, keep)


NOT_MINE: Any = object()  # what a direct call answers to arguments that it was not made for


def direct(
    found: Door, plan: Plan, build: Callable[[Sequence[Any]], Any] | None, guards: Sequence[Any] = ()
) -> Callable[[Sequence[Any]], Any]:
    """A call of ``found``, a door for ``plan``: leaves in, the answer out.

    Args:
        build: puts results into their tree; None: there is one.
        guards: what the last outputs must be for the others to be right.
    """
    empty, enter, none, outputs, sources = np.empty, found.enter, NOT_MINE, plan.outputs, plan.sources()
    specs = [(a.shape, a.dtype) for a in outputs]
    makers = [results.maker(a) for a in outputs]
    kept = len(outputs) - len(guards)
    scalars = [i for i, a in enumerate(outputs) if not a.shape]

    def one(leaves: Sequence[Any]) -> Any:
        out = empty(shape, dtype)
        if not enter(*leaves, out):
            return none
        return out[()] if scalars else out

    def scalar_and_array(leaves: Sequence[Any]) -> Any:
        value, out = empty((), first), empty(shape, dtype)
        if not enter(*leaves, value, out):
            return none
        return value[()], out

    def several(leaves: Sequence[Any]) -> Any:
        if (config.parallel and not found.small) or (guards and not config.guards):
            return none
        outs: list[Any] = [make() for make in makers]
        if not found.run(leaves, outs):
            return none
        for i in scalars:
            outs[i] = outs[i][()]
        if guards:
            if any(map(ne, guards, outs[kept:])):
                return none
            del outs[kept:]
        if sources is not None:
            outs += leaves
            outs = [outs[i] for i in sources]
        return build(outs) if build is not None else outs[0]

    brief = found.small and not found.room and sources is None
    if brief and len(specs) == 1 and build is None and not guards:
        ((shape, dtype),) = specs
        chosen: Any = one
    elif brief and len(specs) == 2 and build is tuple and scalars == [0] and not guards:
        (_, first), (shape, dtype) = specs
        chosen = scalar_and_array
    else:
        chosen = several
    chosen.door = found  # what the builtin points to lives as long as the call
    return chosen


def _how(aval: Aval) -> int | None:
    """How the entry finds an argument of this type; None if it cannot."""
    if aval.weak:
        return door.NUMBER if aval.dtype == np.float64 else None
    return door.GIVEN if aval.shape else door.NUMBER


def _record(how: int | None, what: int, aval: Aval, dtype: np.dtype[Any] | None = None) -> list[int]:
    if how == door.NUMBER:
        kind = id(float) if aval.weak else id(aval.dtype.type)
        return [how, what, kind, kind]
    return [how or 0, what, id(np.ndarray), id(dtype or _singleton(aval.dtype)), len(aval.shape), *aval.shape]


def _singleton(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The one dtype object that NumPy's own arrays of this type hold."""
    return np.dtype(dtype.char)


@functools.cache
def _symbol(name: str) -> int:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


def _new_builtin(definition: _MethodDef, table: np.ndarray[Any, Any]) -> Callable[..., bool]:
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    builtin: Callable[..., bool] = new(ctypes.addressof(definition), table, None)
    return builtin


@once
def _native_entry() -> tuple[int, Any]:
    """The address of the entry, from disk or compiled."""
    key = cache.key_of("".join((Path(__file__).parent / name).read_text() for name in ("door.py", "door_native.py")))
    from wichi.kernels import link

    stored = cache.load(key)
    linked = link.link(stored) if stored is not None else None
    if linked is None:
        from wichi.kernels.door_native import compile_door

        code = compile_door()
        cache.store(key, code)
        linked = link.link(code)
        assert linked is not None, "the entry calls nothing by name"
    return linked.address, linked


@once
def available() -> bool:
    """Whether the entry may be used here: an allow-list, and a test of every field that it reads."""
    listed = (
        sys.implementation.name == "cpython"
        and (3, 11) <= sys.version_info[:2] <= (3, 14)
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and not sysconfig.get_config_var("Py_TRACE_REFS")
        and struct.calcsize("P") == 8
        and sys.byteorder == "little"
    )
    return listed and os.environ.get("WICHI_CALL") != "plain" and _fields_stand_where_expected()


def _fields_stand_where_expected() -> bool:
    """Objects with known contents, read as the entry reads them."""

    def word(x: object, offset: int, kind: Any = ctypes.c_int64) -> int:
        return kind.from_address(id(x) + offset).value

    array = np.arange(6.0).reshape(2, 3)
    if np.ndarray.__basicsize__ < door.FLAGS + 4 or float.__basicsize__ != 24:
        return False
    dims = (ctypes.c_int64 * 2).from_address(word(array, door.DIMS))
    contents = object()
    scalars = [np.dtype(kind).type(1) for kind in "?bhilqBHILQfd"]
    unwritable = np.arange(2.0)
    unwritable.flags.writeable = False
    cell = CellType(contents)
    flags = word(array, door.FLAGS, ctypes.c_int32)
    return (
        word(array, door.TYPE) == id(np.ndarray)
        and word(array, door.DATA) == array.ctypes.data
        and word(array, door.NDIM, ctypes.c_int32) == 2
        and tuple(dims) == (2, 3)
        and word(array, door.DESCR) == id(_singleton(np.dtype(float)))
        and flags & door.DENSE == door.DENSE
        and word(array.T, door.FLAGS, ctypes.c_int32) & door.DENSE != door.DENSE
        and ctypes.c_double.from_address(id(2.5) + door.DATA).value == 2.5
        and all(ctypes.string_at(id(x) + door.DATA, x.itemsize) == x.tobytes() for x in scalars)
        and word(unwritable, door.FLAGS, ctypes.c_int32) & door.WRITEABLE == 0
        and flags & door.WRITEABLE == door.WRITEABLE
        and word(cell, door.CELL_CONTENTS) == id(contents)
    )

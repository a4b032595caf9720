"""Slots: how numba code that was compiled long ago finds the program that it calls.

What numba compiles around a call holds no address of a program, only the name of a slot: module, qualified name,
transform and types. ``wichi.njit`` fills the slot when it runs; each call loads what is in it. So code that numba keeps
on disk (``cache=True``) calls today's program, also when the function has changed in another file.

Functions that no name leads to (lambdas, closures) have no slot: numba is told of an address, and keeps nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np

FIND = "wichi_find_slot"
# The words of a slot's table.
ENTRY, PREPARE, SIZES, SCALARS, CONSTANTS, ROOM, ARENA, LEAST = range(8)
EXTENTS = 8  # from here on: those of arguments (where they are fixed), then of results

_slots: dict[str, np.ndarray[Any, Any]] = {}  # each holds the address of its table, or 0
_contents: dict[str, Any] = {}  # what each was first filled with
_kept: list[Any] = []  # numba's code may outlive every Python object: tables and programs stay


def claim(name: str, content: Any) -> bool:
    """Whether the slot is, or may be, filled with this: it never changes while a process runs."""
    return bool(_contents.setdefault(name, content) == content)


def fill(name: str, words: Sequence[int], keep: Any) -> int:
    """Let the slot lead to a table of these words, whose address is returned. No name: there is only the table."""
    table = np.array(words, np.int64)
    _kept.append((table, keep))
    if name:
        cell = _slots.setdefault(name, np.zeros(1, np.int64))
        cell[0] = table.ctypes.data
    return table.ctypes.data


def _find(name: bytes) -> int:
    """The address of a slot; asked once by each piece of code that calls it, 0 if nothing has been put there."""
    cell = _slots.get(name.decode())
    return 0 if cell is None else cell.ctypes.data


_callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p)(_find)
llvm.add_symbol(FIND, ctypes.cast(_callback, ctypes.c_void_p).value)

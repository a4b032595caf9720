"""The arrays of results. A large one whose owner has dropped it is used again.

Fresh memory of some megabytes comes from the system page by page, which costs as much as computing a simple gradient
into it. So a function keeps the large results that it has handed out, and hands one out again when nothing else refers
to it: no name, no view, no buffer, no weak reference. To the caller that is a fresh array.
"""

from __future__ import annotations

import sys
import sysconfig
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from wichi.config import config
from wichi.trace.ir import Aval

_SMALLEST = 1 << 17  # bytes: malloc keeps smaller ones itself
_MOST_KEPT = 2  # results of one kind: while one is held, the next is made


def maker(aval: Aval) -> Callable[[], np.ndarray[Any, Any]]:
    """A function that answers an array of this type, whose contents do not matter."""
    shape, dtype, size = aval.shape, aval.dtype, aval.size * aval.dtype.itemsize
    if size < _SMALLEST or sysconfig.get_config_var("Py_GIL_DISABLED"):  # there counts of references say little
        return lambda: np.empty(shape, dtype)
    kept: list[np.ndarray[Any, Any]] = []

    def make() -> np.ndarray[Any, Any]:
        # A thread that looks at an array refers to it, so two threads never both find it unshared.
        for array in kept:
            if _is_ours(array, shape, dtype):
                return array
        array = np.empty(shape, dtype)
        if size <= config.reuse_bytes:
            if len(kept) >= _MOST_KEPT:
                del kept[0]
            kept.append(array)
        return array

    return make


def _is_ours(array: np.ndarray[Any, Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether only we refer to it, and it is as it was made."""
    # The list, the loop's name, this function's name and the argument of getrefcount.
    unshared = sys.getrefcount(array) == _REFERENCES and not weakref.getweakrefcount(array)
    flags = array.flags
    return unshared and array.shape == shape and array.dtype == dtype and flags.c_contiguous and flags.writeable


def _references() -> int:
    """How many references ``_is_ours`` counts on this Python for an array that nobody else has."""
    seen = 0

    def count(array: np.ndarray[Any, Any]) -> None:
        nonlocal seen
        seen = sys.getrefcount(array)

    kept = [np.empty(0)]
    for array in kept:
        count(array)
    return seen


_REFERENCES = _references()

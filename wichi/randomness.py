"""Random numbers drawn while a function is traced are part of its program: the same on every call. Here that is told.

The place of NumPy's global generator is read before and after a trace. ``np.random.get_state()`` takes 30 microseconds,
so the place is read where the generator keeps it, in the memory whose address it publishes for C code; that this is the
place is tested once. Generators of the user's own (``np.random.default_rng``) cannot be seen.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import numpy as np

_KEY_WORDS = 624  # of the Mersenne Twister: its key, and after it the place in the key
_FRESH = _KEY_WORDS - 1  # the place of a generator that has drawn nothing
_told: WeakSet[Any] = WeakSet()
_checked: dict[int, bool] = {}  # by the address of a state, whether the place lies where it is looked for


def position() -> tuple[int, ...] | None:
    """Where NumPy's global generator stands: the place in its key, and a word of that; None: it cannot be told."""
    if "numpy.random" not in sys.modules:
        return ()
    numpys: Any = np.random  # whose types leave the next function out
    generator = numpys.get_bit_generator()
    address = generator.ctypes.state_address
    if address not in _checked:
        known = type(generator) is np.random.MT19937
        _checked[address] = known and _place(address)[0] == generator.state["state"]["pos"]
    return _place(address) if _checked[address] else None


def _place(address: int) -> tuple[int, ...]:
    words = (ctypes.c_uint32 * (_KEY_WORDS + 1)).from_address(address)
    return words[_KEY_WORDS], words[0]


def tell_if_moved(before: tuple[int, ...] | None, function: Callable[..., Any], name: str) -> None:
    """Warn, once for a function, if it drew numbers from NumPy's global generator while it was traced."""
    after = position()
    if before == after or before is None or after is None or (not before and after[0] == _FRESH):
        return
    code = getattr(function, "__code__", None)
    if code is None or code in _told:
        return
    _told.add(code)
    warnings.warn_explicit(
        f"{name} drew from np.random while it was traced: these numbers are part of its program now, the same on every"
        f" call. Draw them outside and give them as an argument: {name}(x, np.random.normal(size=3)). Draws from"
        " generators of your own (np.random.default_rng) are frozen as well, and are not seen.",
        RuntimeWarning,
        code.co_filename,
        code.co_firstlineno,
    )

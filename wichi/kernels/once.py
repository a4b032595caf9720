"""What a process makes once, whatever the number of threads that ask for it first."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


def once(make: Callable[[], R]) -> Callable[[], R]:
    """``functools.cache`` of a function without arguments, for threads that ask at the same time.

    ``functools.cache`` lets each of them make its own, and keeps one. Machine code is freed with the object that owns
    it, so whoever holds an address in one of the others jumps into nothing.
    """
    made: list[R] = []
    making = threading.RLock()

    @functools.wraps(make)
    def get() -> R:
        if not made:
            with making:
                if not made:
                    made.append(make())
        return made[0]

    return get

"""Programs on several threads, where ``wichi.config.parallel`` asks for it.

The bands of such a program are cut into chunks, by sizes alone and not by the number of threads; each chunk adds to sums
of its own, which are joined in order. So the bits of a result are the same for any number of threads. Nothing is started
before the first large program runs, and a child process after ``fork`` starts threads of its own.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from wichi.kernels.loops import Band

FROM_BYTES = 1 << 20  # programs that touch less run on one thread
PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64)


@dataclass(frozen=True, slots=True)
class Parts:
    """The machine code of a program in parts: ``call(arguments, sizes, scalars, tiles, chunk) -> status``."""

    parts: tuple[range | Band, ...]
    calls: tuple[Callable[..., int], ...]
    keep: Any


def run(code: Parts, table: int, sizes: np.ndarray[Any, Any], scalars: int, tile_bytes: int, threads: int) -> int:
    """All parts in turn, the chunks of each band at once. Answers the status of the first that fails, or 0."""
    for part, call in zip(code.parts, code.calls, strict=True):
        if isinstance(part, Band):
            assert part.chunk is not None
            count = max(-(-int(sizes[part.rows.slot]) // int(sizes[part.chunk.slot])), 1)
            status = _chunks(functools.partial(call, table, sizes.ctypes.data, scalars), count, tile_bytes, threads)
        else:
            status = call(table, sizes.ctypes.data, scalars, 0, 0)
        if status:
            return status
    return 0


def _chunks(call: Callable[[int, int], int], count: int, tile_bytes: int, threads: int) -> int:
    """``call(tiles, chunk)`` for each chunk; a thread takes the next one when it has done with its last."""
    numbers = itertools.count()
    statuses = [0] * count

    def work() -> None:
        tiles = np.empty(tile_bytes + 64, np.uint8)
        place = -(-tiles.ctypes.data // 64) * 64
        for number in numbers:
            if number >= count:
                return
            statuses[number] = call(place, number)

    helpers = min(threads, count) - 1
    others = [_pool(os.getpid(), threads).submit(work) for _ in range(helpers)] if helpers > 0 else []
    try:
        work()
    finally:
        for other in others:
            other.result()
    return next((s for s in statuses if s), 0)


@functools.lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process; after a fork the parent's are gone."""
    return ThreadPoolExecutor(max(threads - 1, 1), thread_name_prefix="wichi")


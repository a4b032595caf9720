"""The one configuration of wichi. Everything else is an argument or is derived from arguments.

>>> import wichi
>>> wichi.config.internal_frames = True  # show wichi's own frames in tracebacks
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Config:
    """Settings that hold for the process.

    Attributes:
        internal_frames: keep wichi's own frames in the tracebacks of its errors
            (starts from the environment: ``WICHI_TRACEBACK=full``).
        tape_bytes: the most memory that reverse mode of one ``while_loop`` may take for the states of its rounds.
            Read when a function is traced.
        guards: whether Python may branch on values under ``jit``, ``grad`` and ``value_and_grad``: the branch taken is
            tested on each call, and a call that goes another way is traced anew. False: such use is an error.
        guarded_paths: how many ways through one function are kept for one signature; calls beyond run in NumPy.
        guarded_equations: how long one way may be before it runs in NumPy.
        parallel: the number of threads that large programs run on; 0: one, the caller's, and nothing is prepared for
            more. The bits of results are the same for every number from 1 on.
        reuse_bytes: the largest result array that a function keeps after its owner has dropped it, to hand it out
            again; two of each are kept at most. 0: none.
    """

    internal_frames: bool = False
    tape_bytes: int = 2**30
    guards: bool = True
    guarded_paths: int = 16
    guarded_equations: int = 10_000
    parallel: int = 0
    reuse_bytes: int = 2**25


config = Config(internal_frames=os.environ.get("WICHI_TRACEBACK") == "full")


@dataclass(frozen=True, slots=True)
class DebugMode:
    """What ``wichi.debug()`` asks for in the running context (thread or task); see ``wichi.debug``."""

    nans: bool = False


# A context variable, not a field of Config: a thread that debugs must not slow down the others.
debug_mode: ContextVar[DebugMode | None] = ContextVar("wichi_debug_mode", default=None)

# How many contexts debug now, in any thread. Fast calls look here first; only if it is not 0 do they ask which.
debugging = np.zeros(1, np.int64)

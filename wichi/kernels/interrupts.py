"""How a native loop without end learns that the user pressed Ctrl-C: a C function that asks Python."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

# `PyErr_CheckSignals` runs the handlers of signals that have arrived, in the main thread only. Machine code must not
# leave Python's exception behind: it hands back a status, notes that it happened, and the call raises. A small program
# runs with the GIL; it is offered to other threads here, so that a long loop does not starve them.
_SOURCE = """
declare i32 @PyGILState_Check()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i32 @PyErr_CheckSignals()
declare void @PyErr_Clear()
@wichi_happened = global i64 0
define i64 @wichi_interrupted() {
  %held = call i32 @PyGILState_Check()
  %holds = icmp ne i32 %held, 0
  br i1 %holds, label %yield, label %ask
yield:
  %thread = call ptr @PyEval_SaveThread()
  call void @PyEval_RestoreThread(ptr %thread)
  br label %ask
ask:
  %state = call i32 @PyGILState_Ensure()
  %found = call i32 @PyErr_CheckSignals()
  %raised = icmp ne i32 %found, 0
  br i1 %raised, label %clear, label %done
clear:
  call void @PyErr_Clear()
  store i64 1, ptr @wichi_happened
  br label %done
done:
  call void @PyGILState_Release(i32 %state)
  %answer = zext i1 %raised to i64
  ret i64 %answer
}
"""
_CALLS = (
    "PyGILState_Check", "PyEval_SaveThread", "PyEval_RestoreThread", "PyGILState_Ensure", "PyGILState_Release",
    "PyErr_CheckSignals", "PyErr_Clear",
)  # fmt: skip


@functools.cache
def _compiled() -> Any:
    from wichi.kernels import link  # llvmlite is loaded with the first program that asks

    return link.assemble(_SOURCE, "wichi_interrupted", "wichi_happened", calls=_CALLS)


def address() -> int:
    """The address of ``int64 interrupted()``. It takes the GIL, so any thread may call it."""
    return _compiled().address("wichi_interrupted")  # type: ignore[no-any-return]


@functools.cache
def _happened() -> ctypes.c_int64:
    return ctypes.c_int64.from_address(_compiled().address("wichi_happened"))


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if a program has ended for one since this was last asked."""
    happened = _happened()
    if happened.value:
        happened.value = 0
        raise KeyboardInterrupt

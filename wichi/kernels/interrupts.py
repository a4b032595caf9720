"""How a native loop without end learns that the user pressed Ctrl-C: a C function that asks Python."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from wichi.kernels.once import once

_MOST_STOPPED = 256  # threads

# `PyErr_CheckSignals` runs the handlers of signals that have arrived, in the main thread only. Machine code must not
# leave Python's exception behind: it hands back a status, notes that it happened, and the call raises. A program may
# run with the GIL; it is offered to other threads here, so that a long loop does not starve them.
# Signals say nothing to other threads. Those that work for a call that was interrupted are named in a table.
# Loops ask often; a thread that asked within the last 50 ms is told no at once where the system has a clock that is
# read fast, for threads that all want the GIL wait for each other. Clock 6 is Linux's CLOCK_MONOTONIC_COARSE and
# macOS's CLOCK_MONOTONIC; threads whose numbers share a place in the table of times ask more seldom.
_SOURCE = """
declare i32 @PyGILState_Check()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i32 @PyErr_CheckSignals()
declare void @PyErr_Clear()
declare i64 @PyThread_get_thread_ident()
@wichi_happened = global i64 0
@wichi_stopping = global i64 0
@wichi_stopped = global [256 x i64] zeroinitializer
define i64 @wichi_interrupted() {
  %thread_number = call i64 @PyThread_get_thread_ident()
  br label %begin
begin:
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
  br i1 %raised, label %clear, label %others
clear:
  call void @PyErr_Clear()
  br label %happened
others:
  %count = load i64, ptr @wichi_stopping
  br label %next
next:
  %i = phi i64 [ 0, %others ], [ %following, %compare ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %compare, label %done
compare:
  %place = getelementptr [256 x i64], ptr @wichi_stopped, i64 0, i64 %i
  %named = load i64, ptr %place
  %following = add i64 %i, 1
  %same = icmp eq i64 %named, %thread_number
  br i1 %same, label %happened, label %next
happened:
  store i64 1, ptr @wichi_happened
  br label %done
done:
  %answer = phi i64 [ 0, %next ], [ 1, %happened ]
  call void @PyGILState_Release(i32 %state)
  ret i64 %answer
}
"""
_ASKED = """
declare i32 @clock_gettime(i32, ptr)
@wichi_asked = internal global [256 x i64] zeroinitializer
"""
_UNLESS_ASKED = """
  %time = alloca [2 x i64]
  %pages = lshr i64 %thread_number, 12
  %spread = mul i64 %pages, -7046029254386353131
  %slot = lshr i64 %spread, 56
  %last = getelementptr [256 x i64], ptr @wichi_asked, i64 0, i64 %slot
  %failed = call i32 @clock_gettime(i32 6, ptr %time)
  %seconds = load i64, ptr %time
  %rest = getelementptr [2 x i64], ptr %time, i64 0, i64 1
  %nanoseconds = load i64, ptr %rest
  %whole = mul i64 %seconds, 1000000000
  %now = add i64 %whole, %nanoseconds
  %before = load i64, ptr %last
  %passed = sub i64 %now, %before
  %short = icmp ult i64 %passed, 50000000
  %told = icmp eq i32 %failed, 0
  %recent = and i1 %short, %told
  br i1 %recent, label %quiet, label %later
quiet:
  ret i64 0
later:
  store i64 %now, ptr %last
"""
_CALLS = (
    "PyGILState_Check", "PyEval_SaveThread", "PyEval_RestoreThread", "PyGILState_Ensure", "PyGILState_Release",
    "PyErr_CheckSignals", "PyErr_Clear", "PyThread_get_thread_ident",
)  # fmt: skip


@once
def _compiled() -> Any:
    from wichi.kernels import link  # llvmlite is loaded with the first program that asks

    source, calls = _SOURCE, _CALLS
    if link.process_symbol("clock_gettime") is not None:
        source = _ASKED + source.replace("  br label %begin\n", _UNLESS_ASKED + "  br label %begin\n")
        calls = (*calls, "clock_gettime")
    return link.assemble(source, "wichi_interrupted", "wichi_happened", "wichi_stopping", "wichi_stopped", calls=calls)


def address() -> int:
    """The address of ``int64 interrupted()``. It takes the GIL, so any thread may call it."""
    return _compiled().address("wichi_interrupted")  # type: ignore[no-any-return]


@once
def _happened() -> ctypes.c_int64:
    return ctypes.c_int64.from_address(_compiled().address("wichi_happened"))


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if a program has ended for one since this was last asked."""
    happened = _happened()
    if happened.value:
        happened.value = 0
        raise KeyboardInterrupt


@contextmanager
def stopping(threads: Sequence[int]) -> Iterator[None]:
    """Meanwhile the native loops of these threads end as if they were interrupted, where they ask."""
    count = ctypes.c_int64.from_address(_compiled().address("wichi_stopping"))
    table = (ctypes.c_int64 * _MOST_STOPPED).from_address(_compiled().address("wichi_stopped"))
    chosen = [ctypes.c_int64(t).value for t in threads][:_MOST_STOPPED]
    table[: len(chosen)] = chosen
    count.value = len(chosen)
    try:
        yield
    finally:
        count.value = 0
        _happened().value = 0

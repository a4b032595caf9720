"""How a native loop without end learns that the user pressed Ctrl-C: a C function that asks Python."""

from __future__ import annotations

import functools
from typing import Any

# `PyErr_CheckSignals` runs the handlers of signals that have arrived, in the main thread only. Their exception is
# kept for `raised()`: machine code hands back a status, and the call raises it once it is back in Python.
_SOURCE = """
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i32 @PyErr_CheckSignals()
declare void @PyErr_Clear()
define i64 @wichi_interrupted() {
  %state = call i32 @PyGILState_Ensure()
  %found = call i32 @PyErr_CheckSignals()
  %raised = icmp ne i32 %found, 0
  br i1 %raised, label %clear, label %done
clear:
  call void @PyErr_Clear()
  br label %done
done:
  call void @PyGILState_Release(i32 %state)
  %answer = zext i1 %raised to i64
  ret i64 %answer
}
"""


@functools.cache
def _compiled() -> tuple[int, Any]:
    from wichi.kernels import link  # llvmlite is loaded with the first program that asks

    engine = link.assemble(_SOURCE)
    return engine.get_function_address("wichi_interrupted"), engine


def address() -> int:
    """The address of ``int64 interrupted()``. It takes the GIL, so any thread may call it."""
    return _compiled()[0]

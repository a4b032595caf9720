"""``host``: a Python function of the user's, called from machine code as it is."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.errors import DtypeError, ShapeError
from wichi.trace.ir import Aval
from wichi.trace.primitive import Loops, Primitive, lead

_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)


class HostFunction:
    """A Python function from arrays to a sequence of arrays of known types, and its address for machine code.

    The C function takes an array of pointers, to the operands and then to the results, and answers 0, or 1 where the
    Python function raised; ``error()`` then has the exception. It takes the GIL itself.
    """

    def __init__(self, function: Callable[..., Sequence[Any]], ins: Sequence[Aval], outs: Sequence[Aval]) -> None:
        self.function, self.ins, self.outs = function, tuple(ins), tuple(outs)
        self._raised = threading.local()
        self._pointer = _PROTOTYPE(self._enter)  # lives as long as this does, and so do programs that hold this

    @property
    def address(self) -> int:
        return ctypes.cast(self._pointer, ctypes.c_void_p).value or 0

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        found = [np.asarray(y) for y in self.function(*args)]
        for y, aval in zip(found, self.outs, strict=True):
            if y.shape != aval.shape:
                raise ShapeError(f"A Python function answered shape {y.shape} where {aval} was promised.")
            if not np.can_cast(y.dtype, aval.dtype, "same_kind"):
                raise DtypeError(
                    f"A Python function answered {y.dtype} where {aval} was promised, which cannot hold it."
                )
        return tuple(y.astype(aval.dtype, copy=False)[()] for y, aval in zip(found, self.outs, strict=True))

    def error(self) -> BaseException | None:
        """What the function raised last in this thread."""
        found: BaseException | None = getattr(self._raised, "error", None)
        return found

    def _enter(self, pointers: int) -> int:
        try:
            count = len(self.ins)
            words = (ctypes.c_int64 * (count + len(self.outs))).from_address(pointers)
            args = [_array(word, aval).copy()[()] for word, aval in zip(words, self.ins, strict=False)]
            for word, aval, y in zip(words[count:], self.outs, self(*args), strict=True):
                if word:
                    _array(word, aval)[...] = y
            return 0
        except BaseException as error:  # nothing may pass through machine code; the call raises it again
            self._raised.error = error
            return 1


def _array(address: int, aval: Aval) -> np.ndarray[Any, Any]:
    size = aval.size * aval.dtype.itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), aval.dtype).reshape(aval.shape)


def _batch(prim: Primitive, args: Sequence[Any], batched: Sequence[bool], size: int, function: HostFunction) -> Any:
    """Entry by entry."""

    def every(*rows: Any) -> list[Any]:
        found = [function(*entry) for entry in zip(*rows, strict=True)]
        return [np.stack(column) for column in zip(*found, strict=True)]

    ins, outs = ([a._replace(shape=(size, *a.shape)) for a in avals] for avals in (function.ins, function.outs))
    whole = [x if b else lead(x, size) for x, b in zip(args, batched, strict=True)]
    return prim(*whole, function=HostFunction(every, ins, outs))


def _loops(k: Any, operands: Sequence[Any], results: Sequence[Any], function: HostFunction) -> None:
    dense = []
    for x in operands:
        if not x.is_contiguous:
            copied = k.context.scratch(x.dtype, x.shape)
            k.copy(x, copied)
            x = copied
        dense.append(x)
    outs = [
        k.context.scratch(a.dtype, a.shape) if r is None else r for r, a in zip(results, function.outs, strict=True)
    ]
    k.host_call(function, [*dense, *outs], k.context.fails("host"))


host = Primitive(
    "host",
    type=lambda *ins, function: function.outs,
    impl=lambda *args, function: function(*args),
    batch=_batch,
    kernel=Loops(_loops),
    differentiable=False,
    multiple=True,
    numbered=False,
)

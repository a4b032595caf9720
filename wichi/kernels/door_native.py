"""The native entry of a call: machine code that is handed Python's argument objects, checks them, and runs the program.

It works from a table of words (``door`` names them) that ``fastcall`` writes. It is compiled once and kept on disk.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic

from wichi.kernels.cache import ObjectCode
from wichi.kernels.door import (
    ARRAYS,
    CAPTURED,
    CELL_CONTENTS,
    CELLS,
    COUNT,
    DATA,
    DEBUGGING,
    DENSE,
    DESCR,
    DIMS,
    ENTRY,
    FLAGS,
    FLOAT,
    GET_ITEM,
    HEAD,
    INCREF,
    NAMES,
    NDIM,
    NO,
    OWN,
    RESTORE,
    SAVE,
    SCALARS,
    SIZES,
    TYPE,
    YES,
)  # fmt: skip
from wichi.kernels.native import object_code

_WORD = types.int64
_I64 = ir.IntType(64)


@intrinsic
def _load(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _I64.as_pointer()))

    return _WORD(_WORD), generate


@intrinsic
def _load_int(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sext(builder.load(builder.inttoptr(args[0], ir.IntType(32).as_pointer())), _I64)

    return _WORD(_WORD), generate


@intrinsic
def _store(typing_context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], _I64.as_pointer()))
        return args[1]

    return _WORD(_WORD, _WORD), generate


@intrinsic
def _call(typing_context: Any, address: Any, a: Any, b: Any, c: Any) -> Any:
    """A C function of up to three words; those it does not take are ignored, as the C calling conventions allow."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64] * 3)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return _WORD(_WORD, _WORD, _WORD, _WORD), generate


def _door(self: Any, args: Any, count: Any) -> Any:
    """``METH_FASTCALL``: True if the arguments were the expected ones and the program ran; False, and nothing done."""
    table = _load(self + DATA)
    no = _load(table + 8 * NO)
    good = count == _load(table + 8 * COUNT) and _load(_load(table + 8 * DEBUGGING)) == 0
    at = table + 8 * HEAD
    if good:
        for _ in range(_load(table + 8 * CELLS)):
            if _load(_load(at) + CELL_CONTENTS) != _load(at + 8):
                good = False
            at += 16
        for _ in range(_load(table + 8 * NAMES)):
            if _call(_load(table + 8 * GET_ITEM), _load(at), _load(at + 8), 0) != _load(at + 16):
                good = False
            at += 24
    if good:
        arrays = _load(table + 8 * ARRAYS)
        workspace = _load(args[count - 1] + DATA)
        for i in range(arrays):
            how, what, kind = _load(at), _load(at + 8), _load(at + 16)
            x = what if how == CAPTURED else args[what]
            if how == FLOAT:
                # The number itself lies where an array has its data pointer.
                if _load(x + TYPE) != kind and _load(x + TYPE) != _load(at + 24):
                    good = False
                    break
                _store(workspace + 8 * i, x + DATA)
                at += 32
                continue
            rank = _load(at + 32)
            if how != OWN:
                if (
                    _load(x + TYPE) != kind
                    or _load(x + DESCR) != _load(at + 24)
                    or _load_int(x + NDIM) != rank
                    or _load_int(x + FLAGS) & DENSE != DENSE
                ):
                    good = False
                    break
                dims = _load(x + DIMS)
                for axis in range(rank):
                    if _load(dims + 8 * axis) != _load(at + 40 + 8 * axis):
                        good = False
            _store(workspace + 8 * i, _load(x + DATA))
            at += 40 + 8 * rank
        if good:
            _store(workspace + 8 * arrays, (workspace + 8 * arrays + 8 + 63) & -64)
            save = _load(table + 8 * SAVE)
            thread = _call(save, 0, 0, 0) if save != 0 else 0
            status = _call(_load(table + 8 * ENTRY), workspace, _load(table + 8 * SIZES), _load(table + 8 * SCALARS))
            if save != 0:
                _call(_load(table + 8 * RESTORE), thread, 0, 0)
            if status == 0:
                no = _load(table + 8 * YES)
    _call(_load(table + 8 * INCREF), no, 0, 0)
    return no


def compile_door() -> tuple[int, Any, ObjectCode | None]:
    """The address of the entry, what keeps it alive, and its object code."""
    compiled = cfunc(_WORD(_WORD, types.CPointer(_WORD), _WORD), error_model="numpy")(_door)
    return compiled.address, compiled, object_code(compiled)

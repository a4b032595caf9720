"""Loop IR to machine code, through one numba intrinsic. The one importer of numba.

The text of a program never reaches numba's type inference: one ``@intrinsic`` hands the tree to
``wichi.kernels.emit``, which writes LLVM IR, so compile time is linear in the statements (measured: numba needs 50 ms
for each small kernel given as text, and grows quadratically with its statements).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from numba import cfunc, types
from numba.extending import intrinsic

from wichi.kernels import blas
from wichi.kernels.emit import emit_program
from wichi.kernels.loops import Program

_SIGNATURE = types.int64(*[types.CPointer(types.int64)] * 3)
_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class NativeProgram:
    """Machine code: ``call(arguments, sizes, scalars) -> status``, the addresses of three arrays of 64-bit words."""

    call: Callable[[int, int, int], int]
    keep: Any  # the machine code is freed with the object that owns it


def compile_program(program: Program) -> NativeProgram:
    """Machine code for ``program``. Touches no Python object when called, releases the GIL, never raises."""
    provider = blas.provider()
    for symbol, address in provider.symbols.items():
        llvm.add_symbol(symbol, address)

    @intrinsic
    def body(typing_context: Any, arguments: Any, sizes: Any, scalars: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.call(emit_program(builder.module, program, provider.integer_bits), args)

        return _SIGNATURE, generate

    def entry(arguments: Any, sizes: Any, scalars: Any) -> Any:
        return body(arguments, sizes, scalars)

    compiled = cfunc(_SIGNATURE, error_model="numpy")(entry)
    return NativeProgram(_PROTOTYPE(compiled.address), compiled)

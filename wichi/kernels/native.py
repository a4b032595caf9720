"""Loop IR to machine code, through one numba intrinsic. The one importer of numba.

The text of a program never reaches numba's type inference: one ``@intrinsic`` hands the tree to
``wichi.kernels.emit``, which writes LLVM IR, so compile time is linear in the statements (measured: numba needs 50 ms
for each small kernel given as text, and grows quadratically with its statements).
"""

from __future__ import annotations

from typing import Any

from numba import cfunc, types
from numba.extending import intrinsic

from wichi.kernels import blas
from wichi.kernels.cache import ObjectCode
from wichi.kernels.emit import emit_program
from wichi.kernels.link import NativeProgram, export_blas, native_program
from wichi.kernels.loops import Program

_SIGNATURE = types.int64(*[types.CPointer(types.int64)] * 3)


def compile_program(program: Program) -> tuple[NativeProgram, ObjectCode | None]:
    """Machine code for ``program``, and the same as object code for the disk.

    Called, it touches no Python object, releases the GIL and never raises.
    """
    export_blas()
    integer_bits = blas.provider().integer_bits

    @intrinsic
    def body(typing_context: Any, arguments: Any, sizes: Any, scalars: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.call(emit_program(builder.module, program, integer_bits), args)

        return _SIGNATURE, generate

    def entry(arguments: Any, sizes: Any, scalars: Any) -> Any:
        return body(arguments, sizes, scalars)

    compiled = cfunc(_SIGNATURE, error_model="numpy")(entry)
    return native_program(compiled.address, compiled), object_code(compiled)


def object_code(compiled: Any) -> ObjectCode | None:
    """The object file that numba has just made.

    Less than public: ``CodeLibrary._get_compiled_object`` is what numba's own ``cache=True`` stores. The documented
    way, ``inspect_llvm()``, would mean generating the machine code a second time (0.26 of 0.6 s for an MNIST MLP).
    Where it is missing there is no disk cache. To be removed when numba documents access to object code.
    """
    try:
        return ObjectCode(compiled.native_name, compiled._library._get_compiled_object())
    except (AttributeError, RuntimeError):
        return None

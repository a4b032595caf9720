"""Loop IR to machine code: ``wichi.kernels.emit`` writes LLVM IR, and LLVM does the rest.

LLVM is called through llvmlite, which is numba's own way to it. numba's ``cfunc`` around one intrinsic gave the same
code, but kept to numba's passes and its ways: measured on the value and gradient of an MNIST network, 0.37 s against
0.15 s here, besides 0.47 s of numba's start-up in each process that compiles anything.
"""

from __future__ import annotations

from llvmlite import ir

from wichi.errors import KernelError
from wichi.kernels import blas, link
from wichi.kernels.cache import ObjectCode
from wichi.kernels.emit_parts import emit_parts, emit_program, parts_of
from wichi.kernels.link import NativeProgram
from wichi.kernels.loops import Program
from wichi.kernels.parallel import PROTOTYPE, Parts


def compile_program(program: Program) -> tuple[NativeProgram, ObjectCode]:
    """Machine code for ``program``, in this process and as object code for the disk.

    Called, it touches no Python object, needs no GIL and never raises.
    """
    name, source = llvm_ir(program)
    code = ObjectCode(name, link.object_code(source, link.host()))
    made = link.link(code)
    if made is None:
        loose = link.open_symbols(code.code) or ()
        raise KernelError("The machine code of a program does not link.", value=", ".join(sorted(loose)))
    return made, code


def compile_parts(program: Program) -> tuple[Parts, ObjectCode]:
    """The same in parts, for threads."""
    module = ir.Module("wichi")
    functions = emit_parts(module, program, blas.provider().integer_bits, link.fuses(link.cpu()[1]))
    for function in functions:
        function.linkage = "external"
    code = ObjectCode(",".join(f.name for f in functions), link.object_code(str(module), link.host()))
    made = link_parts(program, code)
    assert made is not None, "the symbols are those of whole programs"
    return made, code


def link_parts(program: Program, code: ObjectCode) -> Parts | None:
    """A program in parts in this process; None as for ``link``."""
    names = code.symbol.split(",")
    parts = tuple(parts_of(program))
    loaded = link.load(code.code, names) if len(names) == len(parts) else None
    if loaded is None:
        return None
    return Parts(parts, tuple(PROTOTYPE(loaded.address(n)) for n in names), loaded)


def llvm_ir(program: Program) -> tuple[str, str]:
    """The name of the entry, and the program in LLVM's language."""
    module = ir.Module("wichi")
    entry = emit_program(module, program, blas.provider().integer_bits, link.fuses(link.cpu()[1]))
    entry.linkage = "external"
    return entry.name, str(module)

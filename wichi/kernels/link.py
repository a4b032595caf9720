"""Object code into this process, by ``llvmlite.binding`` alone: a warm start never imports numba.

Code is linked only if every symbol it leaves open is on a short list. This matters: code that calls one of numba's
own helpers links without complaint in a process without numba, and crashes when it is called.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from wichi.kernels import blas
from wichi.kernels.cache import ObjectCode

# The C library's mathematics, what LLVM itself calls for plain memory work, and BLAS under our own names.
_LIBM = (
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "cbrt", "sin", "cos", "tan", "sinh", "cosh", "tanh",
    "asin", "acos", "atan", "atan2", "asinh", "acosh", "atanh", "erf", "erfc", "pow", "fmod", "floor", "ceil",
    "trunc", "rint",
)  # fmt: skip
_MEMORY = ("memset", "memcpy", "memmove", "realloc", "free")
RESOLVED = frozenset([*_LIBM, *(f"{n}f" for n in _LIBM), *_MEMORY, *(f"wichi_{n}" for n in blas.ROUTINES)])
_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class NativeProgram:
    """Machine code: ``call(arguments, sizes, scalars) -> status``, the addresses of three arrays of 64-bit words."""

    call: Callable[[int, int, int], int]
    address: int
    keep: Any  # the machine code is freed with the object that owns it


def native_program(address: int, keep: Any) -> NativeProgram:
    """The function at ``address``; ctypes releases the GIL around a call."""
    return NativeProgram(_PROTOTYPE(address), address, keep)


@functools.cache
def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple()


def cpu() -> tuple[str, str]:
    """The name and the features of this machine's processor, as LLVM calls them."""
    _machine()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def export_blas() -> None:
    """Let the linker find BLAS under our names for it."""
    for symbol, address in blas.provider().symbols.items():
        llvm.add_symbol(symbol, address)


def link(found: ObjectCode) -> NativeProgram | None:
    """The program in memory; None if the code leaves a symbol open that is not on the list, or has no such entry."""
    export_blas()
    loose = open_symbols(found.code)
    if loose is None or not loose <= RESOLVED or not all(map(_is_here, loose)):
        return None
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine().create_target_machine())
    try:
        engine.add_object_file(llvm.ObjectFileRef.from_data(found.code))
        engine.finalize_object()
        address = engine.get_function_address(found.symbol)
    except RuntimeError:
        return None
    return native_program(address, engine) if address else None


def assemble(source: str) -> Any:
    """Machine code of a few lines of LLVM IR that call functions of this process; kept by the engine returned."""
    module = llvm.parse_assembly(source)
    engine = llvm.create_mcjit_compiler(module, _machine().create_target_machine())
    engine.finalize_object()
    return engine


def _is_here(symbol: str) -> bool:
    """Whether the process has the symbol: LLVM ends a process that links one it cannot find."""
    return bool(llvm.address_of_symbol(symbol)) or hasattr(_loaded(), symbol)


@functools.cache
def _loaded() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def open_symbols(code: bytes) -> frozenset[str] | None:
    """The undefined symbols of an object file; None where its format is not ELF or it is broken.

    ELF-64 symbol table: "System V Application Binary Interface", chapter 4.
    """
    if code[:5] != b"\x7fELF\x02":
        return None
    try:
        file = llvm.ObjectFileRef.from_data(code)
        sections = {s.name(): s.data() for s in file.sections() if s.name() in (b".symtab", b".strtab")}
        names = sections[b".strtab"]
        return frozenset(
            names[name : names.index(b"\0", name)].decode() for name in _undefined(sections[b".symtab"]) if name
        )
    except (KeyError, ValueError, RuntimeError, struct.error):
        return None


def _undefined(table: bytes) -> Iterator[int]:
    for name, _info, _other, section, _value, _size in struct.iter_unpack("<IBBHQQ", table):
        if section == 0:
            yield name

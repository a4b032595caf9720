"""LLVM: its IR to object code, and object code into this process, by ``llvmlite.binding`` alone.

Code is linked only if every symbol it leaves open is on a short list: code that calls what is not there (one of
numba's own helpers, say) links without complaint and crashes when it is called.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
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
_MEMORY = ("memset", "memcpy", "memmove", "realloc", "malloc", "calloc", "free")
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


def fuses(features: str) -> bool:
    """Whether a processor with these features multiplies and adds in one instruction: each of the kinds but x86 does."""
    x86 = llvm.get_default_triple().startswith(("x86", "i386", "i686"))
    return not x86 or "+fma" in features.split(",")


@functools.cache
def host() -> Any:
    """Code for this machine's processor. Position-independent, so that constants are read beside the code."""
    name, features = cpu()
    return _machine().create_target_machine(cpu=name, features=features, opt=2, reloc="pic", codemodel="small")


def optimised(source: str, machine: Any) -> Any:
    """LLVM IR after LLVM's passes. Loops are written as they shall run: LLVM neither widens nor unrolls them."""
    module = llvm.parse_assembly(source)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = options.loop_interleaving = False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return module


def object_code(source: str, machine: Any) -> bytes:
    """An object file of LLVM IR."""
    code: bytes = machine.emit_object(optimised(source, machine))
    return code


def link(found: ObjectCode) -> NativeProgram | None:
    """The program in memory; None if the code leaves a symbol open that is not on the list, or has no such entry."""
    loaded = load(found.code, (found.symbol,))
    return native_program(loaded.address(found.symbol), loaded) if loaded is not None else None


def load(code: bytes, exports: Sequence[str]) -> Loaded | None:
    """Object code in memory; None as for ``link``."""
    loose = open_symbols(code)
    if loose is None or not loose <= RESOLVED:
        return None
    addresses = {s: _address(s) for s in loose}
    if None in addresses.values():
        return None
    try:
        return _load(code, exports, addresses)
    except RuntimeError:
        return None


def assemble(source: str, *exports: str, calls: Sequence[str] = ()) -> Loaded:
    """Machine code of LLVM IR that calls functions of this process."""
    return _load(object_code(source, host()), exports, {name: _address(name) for name in calls})


@dataclass(frozen=True, slots=True)
class Loaded:
    """Machine code in memory. It is freed with this object, before LLVM's linker."""

    linker: Any
    code: Any

    def address(self, symbol: str) -> int:
        return self.code[symbol]  # type: ignore[no-any-return]


def _load(code: bytes, exports: Sequence[str], addresses: Mapping[str, int | None]) -> Loaded:
    """JITLink puts code and its constants into one block, and refuses what it cannot resolve."""
    library = llvm.JITLibraryBuilder().add_object_img(code)
    for name in exports:
        library.export_symbol(name)
    for name, address in addresses.items():
        library.import_symbol(name, address)
    return Loaded(_linker(), library.link(_linker(), f"wichi{next(_numbers)}"))


_numbers = itertools.count()  # names of libraries must differ


@functools.cache
def _linker() -> Any:
    return llvm.create_lljit_compiler(_machine().create_target_machine(reloc="pic", codemodel="small"), use_jit_link=True)


def _address(symbol: str) -> int | None:
    """BLAS under our names for it, or a symbol of this process."""
    found = blas.provider().symbols.get(symbol)
    return found if found is not None else process_symbol(symbol)


def process_symbol(name: str) -> int | None:
    """The address of a C function of this process."""
    try:
        return ctypes.cast(getattr(_loaded(), name), ctypes.c_void_p).value
    except AttributeError:
        return None


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

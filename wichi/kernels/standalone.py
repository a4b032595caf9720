"""Programs as plain C functions: in this process, or as object code that needs neither Python nor numba.

The C functions hold no state. What a call needs to work with lies on its stack, or is allocated and freed by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from wichi.errors import ArgumentError
from wichi.kernels import link, open_blas
from wichi.kernels.emit_parts import emit_program
from wichi.kernels.plans import FAILURES, Plan
from wichi.kernels.program import dense
from wichi.kernels.writer import INTERRUPT_CHECK
from wichi.trace.callbacks import HostFunction
from wichi.trace.ir import Eqn

_I8, _I32, _I64, _F64 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.DoubleType()
_BYTES = _I8.as_pointer()
_ON_STACK = 1 << 14  # bytes of working memory that a call takes from its stack
_NO_MEMORY = -2
STYLES = ("pointers", "scalars", "vector", "filter")


def assemble_call(plan: Plan, entry: int, style: str) -> tuple[Any, Any]:
    """A C function ``f`` in this process around the machine code at ``entry``: engine, and arrays it reads."""
    module = ir.Module("wichi_call")
    kind = ir.FunctionType(_I64, [_I64] * 3)

    def call(b: ir.IRBuilder, table: Any) -> Any:
        target = b.inttoptr(_I64(entry), kind.as_pointer())
        addresses = [_I64(plan.sizes.ctypes.data), _I64(plan.scalars.ctypes.data)]
        return b.call(target, [b.ptrtoint(table, _I64), *addresses])

    held = [dense(x, x.dtype) for x in plan.constants]
    constants = [_I64(x.ctypes.data) for x in held]
    _write(module, "f", plan, style, lambda b: constants, call)
    return link.assemble(str(module), "f", calls=("malloc", "free")), held


def object_code(plan: Plan, name: str, cpu: str, features: str, blas: str) -> tuple[bytes, list[str]]:
    """An object file with the C function ``name`` (style "pointers"), and the names of BLAS and LAPACK it leaves open.

    ``blas``: one of ``open_blas.STYLES``.
    """
    if any(isinstance(x, HostFunction) for x in plan.numbers):
        raise ArgumentError(
            "export: the function calls a Python function (wichi.primitive), which a C program has not.",
            fix="write it with NumPy's functions",
        )
    module = ir.Module(name)
    program = emit_program(module, plan.program, blas_integer_bits=32, fused=link.fuses(features))
    scalars = plan.scalars.copy()
    scalars[[i for i, x in enumerate(plan.numbers) if x is INTERRUPT_CHECK]] = 0  # an address of this process
    sizes, numbers = _words(module, f"{name}.sizes", plan.sizes), _words(module, f"{name}.numbers", scalars)
    held = [_words(module, f"{name}.array{i}", dense(x, x.dtype)) for i, x in enumerate(plan.constants)]

    def call(b: ir.IRBuilder, table: Any) -> Any:
        words = _I64.as_pointer()
        return b.call(program, [table, b.bitcast(sizes, words), b.bitcast(numbers, words)])

    _write(module, name, plan, "pointers", lambda b: [b.ptrtoint(x, _I64) for x in held], call)
    left_open = open_blas.define(module, blas)
    link.cpu()  # initialises LLVM's targets
    parsed = llvm.parse_assembly(str(module))
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="pic", codemodel="default"
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(parsed, builder)
    return machine.emit_object(parsed), left_open


def _words(module: ir.Module, name: str, x: np.ndarray[Any, Any]) -> ir.GlobalVariable:
    """The bytes of an array as a constant, 64-byte aligned."""
    data = bytearray(x.tobytes() or b"\0")
    held = ir.GlobalVariable(module, ir.ArrayType(_I8, len(data)), name)
    held.linkage, held.global_constant, held.align = "internal", True, 64
    held.initializer = ir.Constant(held.value_type, data)
    return held


def _write(
    module: ir.Module,
    name: str,
    plan: Plan,
    style: str,
    constants: Callable[[Any], list[Any]],
    call: Callable[..., Any],
) -> None:
    """The function ``name`` in one of the styles; see ``wichi.cfunc``."""
    inputs, outputs = len(plan.inputs), len(plan.outputs)
    kinds: dict[str, tuple[Any, list[Any]]] = {
        "pointers": (_I32, [_BYTES] * (inputs + outputs)),
        "scalars": (_F64, [_F64] * inputs),
        "vector": (_F64, [_I32, _BYTES]),
        "filter": (_I32, [_BYTES, _I64, _BYTES, _BYTES]),
    }
    result, arguments = kinds[style]
    function = ir.Function(module, ir.FunctionType(result, arguments), name)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    slot = b.alloca(_F64)
    given: list[Any]
    if style == "pointers":
        given = [b.ptrtoint(a, _I64) for a in function.args]
    elif style == "scalars":
        slots = [b.alloca(_F64) for _ in range(inputs)]
        for place, argument in zip(slots, function.args, strict=True):
            b.store(argument, place)
        given = [b.ptrtoint(p, _I64) for p in (*slots, slot)]
    else:
        count, data = function.args[:2] if style == "vector" else function.args[1::-1]
        right = b.icmp_signed("==", b.sext(count, _I64) if style == "vector" else count, _I64(plan.inputs[0].size))
        with b.if_then(b.not_(right), likely=False):
            b.ret(_F64(float("nan")) if style == "vector" else _I32(0))
        out = slot if style == "vector" else function.args[2]
        given = [b.ptrtoint(data, _I64), b.ptrtoint(out, _I64)]
    words = [*given[:inputs], *constants(b), *given[inputs:]]
    table = b.alloca(_I64, len(words) + 1)
    room = plan.arena_bytes + 64
    on_stack = plan.arena_bytes <= _ON_STACK
    if on_stack:
        memory = b.alloca(_I8, room)
    else:
        memory = b.call(ir.Function(module, ir.FunctionType(_BYTES, [_I64]), "malloc"), [_I64(room)])
        with b.if_then(b.icmp_unsigned("==", memory, ir.Constant(_BYTES, None)), likely=False):
            b.ret(_F64(float("nan")) if result == _F64 else _I32(_NO_MEMORY if style == "pointers" else 0))
    words.append(b.and_(b.add(b.ptrtoint(memory, _I64), _I64(63)), _I64(-64)))
    for i, word in enumerate(words):
        b.store(word, b.gep(table, [_I64(i)]))
    status = call(b, table)
    if not on_stack:
        release = module.globals.get("free") or ir.Function(module, ir.FunctionType(ir.VoidType(), [_BYTES]), "free")
        b.call(release, [memory])
    if style == "pointers":
        b.ret(b.trunc(status, _I32))
    elif style == "filter":
        b.ret(b.zext(b.icmp_signed("==", status, _I64(0)), _I32))
    else:
        well = b.icmp_signed("==", status, _I64(0))
        b.ret(b.select(well, b.load(slot), _F64(float("nan"))))


def _of_line(eqn: Eqn) -> str:
    return f", line {eqn.where.line} of {os.path.basename(eqn.where.file)}" if eqn.where is not None else ""


def c_type(dtype: np.dtype[Any]) -> str:
    """The C type of an element."""
    if dtype.kind == "f":
        return "double" if dtype.itemsize == 8 else "float"
    if dtype.kind == "b":
        return "uint8_t"
    return f"{'u' if dtype.kind == 'u' else ''}int{8 * dtype.itemsize}_t"


def header(name: str, plan: Plan, names: Sequence[str], left_open: Sequence[str] = ()) -> str:
    """The C header of an exported function."""
    shapes = [f"{n}: {a}" for n, a in zip(names, (*plan.inputs, *plan.outputs), strict=True)]
    lines = [f"const {c_type(a.dtype)} *{n}" for n, a in zip(names, plan.inputs, strict=False)]
    lines += [f"{c_type(a.dtype)} *{n}" for n, a in zip(names[len(plan.inputs) :], plan.outputs, strict=True)]
    failures = [
        f"   {i}: {FAILURES[what]} ({eqn.prim.name}{_of_line(eqn)})" for i, (what, eqn) in enumerate(plan.failures, 1)
    ]
    text = [
        "/* Written by wichi. Arrays are dense, in C order, of the sizes below; none may overlap a result.",
        "   The function keeps no state and may be called from any thread. It answers",
        "   0: well",
        *failures,
        f"   {_NO_MEMORY}: no memory",
        "   After another answer than 0 the results hold no meaning; nothing beyond them was written.",
        *([f"   Link with what defines {', '.join(left_open)} (32-bit integers), and libm."] if left_open else []),
        *(f"   {s}" for s in shapes),
        "*/",
    ]
    signature = f"int {name}({', '.join(lines)});"
    guard = f"WICHI_{name.upper()}_H"
    return "\n".join(
        [f"#ifndef {guard}", f"#define {guard}", "#include <stdint.h>", *text, "#ifdef __cplusplus",
         'extern "C"', "#endif", signature, "#endif", ""]
    )  # fmt: skip

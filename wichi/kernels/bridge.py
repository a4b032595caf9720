"""A compiled graph as a function for numba: what ``wichi.njit`` answers.

The machine code is already there; what numba compiles is a few lines around one call of it. They are generated for
the number of arguments and results, because numba's functions have fixed signatures. Sizes and addresses come from the
slot's table (``wichi.kernels.slots``), so they may change while the compiled lines stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array  # not documented, but what every extension that reads arrays uses
from numba.np.numpy_support import from_dtype

from wichi.errors import DtypeError
from wichi.kernels import link, slots
from wichi.kernels.plans import FAILURES
from wichi.kernels.program import dense
from wichi.trace import frames
from wichi.trace.dims import Terms
from wichi.trace.ir import Aval

_I64 = ir.IntType(64)
_WORDS = _I64.as_pointer()
_ON_STACK = 4096  # bytes of arena that need no allocation


@dataclass(frozen=True, slots=True)
class Callee:
    """What is called: a program and its arguments."""

    plan: Any
    entry: int
    keep: Any
    inputs: tuple[tuple[int | str, ...], ...]  # shapes of arguments; names are free sizes
    names: tuple[str, ...] = ()
    least: tuple[int, ...] = ()
    sizes: tuple[Terms, ...] = ()
    scalars: tuple[Terms, ...] = ()
    arena_bytes: Terms | None = None
    outputs: tuple[tuple[Terms, ...], ...] = ()


def numba_function(
    callee: Callee, slot: str, name: str, parameters: Sequence[str], names: Sequence[str], result: str
) -> Any:
    """A numba dispatcher that runs a program.

    Args:
        slot: the name of the slot through which it is found; if empty, numba keeps no code that calls it.
        parameters: of the function, as Python writes them.
        names: an expression for each argument of the program, of ``parameters``.
        result: the expression to return, of ``out0``, ``out1``, ...; those of no axes are numbers.
    """
    plan = callee.plan
    if not slots.claim(slot, (plan.program, plan.sizes.tobytes(), plan.scalars.tobytes(), [*map(id, plan.constants)])):
        slot = ""
    table = _fill(callee, slot)
    inputs = [f"contiguous({n})" if s else n for n, s in zip(names, callee.inputs, strict=True)]
    inputs += [f"size_{n}" for n in callee.names]
    arrays = [i for i, a in enumerate(plan.outputs) if a.shape]
    numbers = [i for i, a in enumerate(plan.outputs) if not a.shape]
    word = slots.EXTENTS + len(callee.names)
    lines = [f"def {name}({', '.join(parameters)}):", *(f"    check{i}({n})" for i, n in enumerate(names))]
    lines += ["    table = find()", "    if table == 0:", "        absent()"]
    seen: set[str] = set()
    for n, shape in zip(names, callee.inputs, strict=True):
        for axis, size in enumerate(shape):
            if isinstance(size, str) and size not in seen:
                seen.add(size)
                lines.append(f"    size_{size} = {n}.shape[{axis}]")
                lines += [f"    if size_{size} < word(table, {slots.EXTENTS + callee.names.index(size)}):",
                          f'        raise ValueError("{name}: {n} is too short along axis {axis}")']  # fmt: skip
                continue
            wanted = f"size_{size}" if isinstance(size, str) else f"word(table, {word})"
            word += not isinstance(size, str)
            said = str(shape).replace("'", "")
            said = f"{name}: {n} must have shape {said}, for which wichi.njit compiled it"
            lines += [f"    if {n}.shape[{axis}] != {wanted}:", f'        raise ValueError("{said}")']
    if callee.names:
        lines.append("    room = empty(word(table, 5), int64)")
        lines.append(f"    prepare(table, ({''.join(f'size_{n}, ' for n in callee.names)}), room)")
        extents = iter(f"room[{i}]" for i in range(1, 10_000))
        lines.append("    arena = room[0]")
    else:
        extents = iter(f"word(table, {i})" for i in range(word, 10_000))
        lines.append("    arena = word(table, 6)")
    for i in arrays:
        shape = "".join(f"{next(extents)}, " for _ in plan.outputs[i].shape)
        lines.append(f"    out{i} = empty(({shape}), dtype{i})")
    given = f"({''.join(f'{x}, ' for x in inputs)}), ({''.join(f'out{i}, ' for i in arrays)}), table, "
    given += "room, " if callee.names else "None, "
    kind, what = "IndexError", "an index is outside its axis"
    if any(failure != "index" for failure, _ in plan.failures):
        kind, what = "RuntimeError", "; or ".join(sorted({FAILURES[f] for f, _ in plan.failures}))
    lines += [
        f"    if arena > {_ON_STACK}:",
        f"        answer = run({given}empty(arena + 64, uint8))",
        "    else:",
        f"        answer = run({given}None)",
        "    if answer[0] < 0:",
        '        raise RuntimeError("interrupted")',
        "    if answer[0] != 0:",
        f'        raise {kind}("{name}: {what}")',
        *(f"    out{i} = answer[{k}]" for k, i in enumerate(numbers, 1)),
        f"    return {result}",
    ]
    space: dict[str, Any] = {f"dtype{i}": a.dtype for i, a in enumerate(plan.outputs)}
    space |= {"empty": np.empty, "uint8": np.uint8, "int64": np.int64, "contiguous": np.ascontiguousarray}
    space |= {"word": _word, "find": _finder(slot, table), "absent": _absent(name), "prepare": _prepare}
    space |= {f"check{i}": _checker(name, n, aval) for i, (n, aval) in enumerate(zip(names, plan.inputs, strict=False))}
    space["run"] = _runner(plan)
    exec(compile("\n".join(lines), f"<wichi.njit of {name}>", "exec"), space)
    return njit(space[name])


def _fill(callee: Callee, slot: str) -> int:
    """The address of the slot's table, as the lines above read it."""
    plan = callee.plan
    constants = [dense(x, x.dtype) for x in plan.constants]
    pointers = np.array([x.ctypes.data for x in constants] or [0], np.int64)
    words = [0] * slots.EXTENTS
    words[slots.ENTRY], words[slots.CONSTANTS] = callee.entry, pointers.ctypes.data
    words[slots.SIZES], words[slots.SCALARS] = plan.sizes.ctypes.data, plan.scalars.ctypes.data
    words[slots.ARENA] = plan.arena_bytes
    keep: list[Any] = [callee, constants, pointers]
    if callee.names:
        extents = [terms for shape in callee.outputs for terms in shape]
        polynomials = [callee.arena_bytes or {}, *extents, *callee.sizes, *callee.scalars]
        code = link.assemble(_polynomials(callee.names, polynomials), "prepare")
        words[slots.PREPARE], words[slots.ROOM] = code.address("prepare"), len(polynomials)
        words[slots.SIZES], words[slots.SCALARS] = 1 + len(extents), 1 + len(extents) + len(callee.sizes)
        keep.append(code)
    words += callee.least
    words += [n for shape in callee.inputs for n in shape if not isinstance(n, str)]
    if not callee.names:
        words += [n for a in plan.outputs for n in a.shape]
    return slots.fill(slot, words, keep)


def _polynomials(names: Sequence[str], polynomials: Sequence[Terms]) -> str:
    """``void prepare(i64* lengths, i64* words)``: each word a polynomial in the lengths."""
    module = ir.Module("wichi_prepare")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_WORDS, _WORDS]), "prepare")
    b = ir.IRBuilder(function.append_basic_block())
    lengths = {n: b.load(b.gep(function.args[0], [_I64(i)])) for i, n in enumerate(names)}
    for i, terms in enumerate(polynomials):
        total: Any = _I64(terms.get((), 0))
        for factors, c in terms.items():
            if factors:
                term: Any = _I64(c)
                for name in factors:
                    term = b.mul(term, lengths[name])
                total = b.add(total, term)
        b.store(total, b.gep(function.args[1], [_I64(i)]))
    b.ret_void()
    return str(module)


def _finder(slot: str, table: int) -> Any:
    """``find() -> table``: what the slot leads to now; 0 where ``wichi.njit`` has not run for it."""

    @intrinsic
    def fixed(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            # Told to numba, so that it refuses to write code that holds an address to disk.
            return builder.ptrtoint(context.add_dynamic_addr(builder, table, "wichi"), _I64)

        return types.int64(), generate

    if not slot:
        return fixed

    @intrinsic
    def find(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            module = builder.module
            text = bytearray(slot.encode() + b"\0")
            name = ir.GlobalVariable(
                module, ir.ArrayType(ir.IntType(8), len(text)), module.get_unique_name("wichi.slot")
            )
            name.linkage, name.global_constant = "internal", True
            name.initializer = ir.Constant(name.value_type, text)
            # Where the slot is, once it has been asked for; threads that ask at once get the same answer.
            cell = ir.GlobalVariable(module, _I64, module.get_unique_name("wichi.cell"))
            cell.linkage, cell.initializer = "internal", _I64(0)
            kind = ir.FunctionType(_I64, [ir.IntType(8).as_pointer()])
            ask = module.globals.get(slots.FIND) or ir.Function(module, kind, slots.FIND)
            answer = builder.alloca(_I64)
            builder.store(builder.load(cell), answer)
            with builder.if_then(builder.icmp_unsigned("==", builder.load(answer), _I64(0)), likely=False):
                found = builder.call(ask, [builder.bitcast(name, ir.IntType(8).as_pointer())])
                builder.store(found, cell)
                builder.store(found, answer)
            there = builder.icmp_unsigned("!=", builder.load(answer), _I64(0))
            table = builder.alloca(_I64)
            builder.store(_I64(0), table)
            with builder.if_then(there, likely=True):
                builder.store(builder.load(builder.inttoptr(builder.load(answer), _WORDS)), table)
            return builder.load(table)

        return types.int64(), generate

    return find


def _absent(name: str) -> Any:
    text = f"{name}: the wichi function that this code was compiled to call is not there; compile the caller anew"

    @njit
    def absent() -> None:
        raise RuntimeError(text)

    return absent


@intrinsic
def _word(typing_context: Any, table: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(builder.inttoptr(args[0], _WORDS), [args[1]], inbounds=True)
        return builder.load(place)

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _prepare(typing_context: Any, table: Any, lengths: Any, room: Any) -> Any:
    """Fill ``room`` with what depends on the lengths."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = _table(builder, [builder.extract_value(args[1], i) for i in range(len(lengths))])
        words = builder.inttoptr(args[0], _WORDS)
        address = builder.load(builder.gep(words, [_I64(slots.PREPARE)]))
        kind = ir.FunctionType(ir.VoidType(), [_WORDS, _WORDS]).as_pointer()
        data = make_array(room)(context, builder, args[2]).data
        builder.call(builder.inttoptr(address, kind), [given, builder.bitcast(data, _WORDS)])
        return context.get_dummy_value()

    return types.void(table, lengths, room), generate


def _table(builder: Any, words: Sequence[Any]) -> Any:
    with builder.goto_entry_block():  # else a loop around the call would take new stack in each round
        table = builder.alloca(_I64, max(len(words), 1))
    for i, word in enumerate(words):
        builder.store(word, builder.gep(table, [_I64(i)]))
    return table


def _checker(name: str, what: str, aval: Aval) -> Any:
    """``check(argument)``, which does nothing when it runs: types are looked at when numba compiles a call.

    The error is no error of numba's, which would be one of many lines under "No implementation of function".
    """

    @intrinsic
    def check(typing_context: Any, argument: Any) -> Any:
        if not _fits(argument, aval):
            raise DtypeError(
                f"wichi.njit of {name}: the argument {what} must be {aval}; it is {argument}.",
                at=frames.describe(frames.user_where()),
                because="wichi.njit compiled it for that type",
                fix=f"cast it first, for instance {what}.astype(np.{aval.dtype}), or compile it for that type too",
            )
        return types.void(argument), lambda context, builder, signature, args: context.get_dummy_value()

    return check


def _runner(plan: Any) -> Callable[..., Any]:
    """``run(inputs, outputs, table, room, arena) -> (status, *results of no axes)``.

    numba keeps arguments alive meanwhile. What is small lies on the stack: the results of no axes, and an arena of up
    to ``_ON_STACK`` bytes (None is given). ``room``: what was prepared for the lengths of this call, or None.
    """

    @intrinsic
    def run(typing_context: Any, inputs: Any, outputs: Any, table: Any, room: Any, arena: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def on_stack(kind: Any, count: int = 1) -> Any:
                with builder.goto_entry_block():
                    return builder.alloca(kind, count)

            def word(pointer: Any) -> Any:
                return builder.ptrtoint(pointer, _I64)

            def data(kind: Any, value: Any, aval: Aval) -> Any:
                if isinstance(kind, types.Array):
                    return word(make_array(kind)(context, builder, value).data)
                number = context.cast(builder, value, kind, from_dtype(aval.dtype))
                slot = on_stack(number.type)
                builder.store(number, slot)
                return word(slot)

            head = builder.inttoptr(args[2], _WORDS)

            def of_table(number: int) -> Any:
                return builder.load(builder.gep(head, [_I64(number)]))

            words = [
                data(kind, builder.extract_value(args[0], i), aval)
                for i, (kind, aval) in enumerate(zip(inputs, plan.inputs, strict=True))
            ]
            constants = builder.inttoptr(of_table(slots.CONSTANTS), _WORDS)
            words += [builder.load(builder.gep(constants, [_I64(i)])) for i in range(len(plan.constants))]
            arrays = iter(range(len(outputs)))
            results = []
            for aval in plan.outputs:
                if aval.shape:
                    i = next(arrays)
                    words.append(data(outputs[i], builder.extract_value(args[1], i), aval))
                else:
                    results.append(on_stack(context.get_data_type(from_dtype(aval.dtype))))
                    words.append(word(results[-1]))
            if isinstance(arena, types.NoneType):
                memory = on_stack(ir.IntType(8), _ON_STACK + 64)
            else:
                memory = make_array(arena)(context, builder, args[4]).data
            words.append(builder.and_(builder.add(word(memory), _I64(63)), _I64(-64)))
            sizes, scalars = of_table(slots.SIZES), of_table(slots.SCALARS)
            if not isinstance(room, types.NoneType):  # there they are places in the room
                base = word(make_array(room)(context, builder, args[3]).data)
                sizes, scalars = (builder.add(base, builder.mul(x, _I64(8))) for x in (sizes, scalars))
            kind = ir.FunctionType(_I64, [_I64] * 3)
            entry = builder.inttoptr(of_table(slots.ENTRY), kind.as_pointer())
            status = builder.call(entry, [word(_table(builder, words)), sizes, scalars])
            numbers = [
                context.unpack_value(builder, kind, slot) for kind, slot in zip(answer.types[1:], results, strict=True)
            ]
            return context.make_tuple(builder, answer, [status, *numbers])

        answer = types.Tuple([types.int64, *(from_dtype(a.dtype) for a in plan.outputs if not a.shape)])
        return answer(inputs, outputs, table, room, arena), generate

    return run


def _fits(kind: Any, aval: Aval) -> bool:
    """Whether an argument of this numba type is what was compiled for."""
    if aval.shape:
        return isinstance(kind, types.Array) and kind.ndim == aval.ndim and kind.dtype == from_dtype(aval.dtype)
    numbers = types.Number | types.Boolean
    return isinstance(kind, numbers) and (aval.dtype.kind == "f" or kind == from_dtype(aval.dtype))

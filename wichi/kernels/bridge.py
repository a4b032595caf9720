"""A compiled graph as a function for numba: what ``wichi.njit`` answers.

The machine code is already there; what numba compiles is a few lines around one call of it. They are generated for
the number of arguments and results, because numba's functions have fixed signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array  # not documented, but what every extension that reads arrays uses
from numba.np.numpy_support import from_dtype

from wichi.kernels.program import Executable, dense
from wichi.trace.ir import Aval

_I64 = ir.IntType(64)
_ON_STACK = 4096  # bytes of arena that need no allocation
_kept: list[Any] = []  # numba's code holds bare addresses, and may outlive every Python object


def numba_function(
    executable: Executable, name: str, parameters: Sequence[str], names: Sequence[str], result: str
) -> Any:
    """A numba dispatcher that runs ``executable``.

    Args:
        parameters: of the function, as Python writes them.
        names: an expression for each input of the program, of ``parameters``.
        result: the expression to return, of ``out0``, ``out1``, ...; those of no axes are numbers.
    """
    plan = executable.plan
    inputs = [f"contiguous({n})" if a.shape else n for n, a in zip(names, plan.inputs, strict=True)]
    checks = [
        f"    if {n}.shape != {a.shape}:\n"
        f'        raise ValueError("{name}: {n} must have shape {a.shape}, for which wichi.njit compiled it")'
        for n, a in zip(names, plan.inputs, strict=True)
        if a.shape
    ]
    arrays = [i for i, a in enumerate(plan.outputs) if a.shape]
    numbers = [i for i, a in enumerate(plan.outputs) if not a.shape]
    outs = [f"    out{i} = empty({plan.outputs[i].shape}, dtype{i})" for i in arrays]
    arena = f"empty({plan.arena_bytes + 64}, uint8)" if plan.arena_bytes > _ON_STACK else "None"
    given = f"({''.join(f'{x}, ' for x in inputs)}), ({''.join(f'out{i}, ' for i in arrays)}), {arena}"
    kind, what = "IndexError", "an index is outside its axis"
    if any(failure != "index" for failure, _ in plan.failures):
        kind, what = "RuntimeError", "an equation failed: " + ", ".join(sorted({f for f, _ in plan.failures}))
    text = "\n".join(
        [
            f"def {name}({', '.join(parameters)}):",
            *checks,
            *outs,
            f"    answer = run({given})",
            "    if answer[0] < 0:",
            '        raise RuntimeError("interrupted")',
            "    if answer[0] != 0:",
            f'        raise {kind}("{name}: {what}")',
            *(f"    out{i} = answer[{k}]" for k, i in enumerate(numbers, 1)),
            f"    return {result}",
        ]
    )
    space: dict[str, Any] = {f"dtype{i}": a.dtype for i, a in enumerate(plan.outputs)}
    space |= {"empty": np.empty, "uint8": np.uint8, "contiguous": np.ascontiguousarray}
    space["run"] = _runner(executable, name, names)
    exec(compile(text, f"<wichi.njit of {name}>", "exec"), space)
    return njit(space[name])


def _runner(executable: Executable, name: str, names: Sequence[str]) -> Callable[..., Any]:
    """``run(inputs, outputs, arena) -> (status, *results of no axes)``. numba keeps arguments alive meanwhile.

    What is small lies on the stack: the results of no axes, and an arena of up to ``_ON_STACK`` bytes (None is given).
    """
    plan = executable.plan
    constants = [dense(x, x.dtype) for x in plan.constants]
    _kept.append((executable, constants))

    @intrinsic
    def run(typing_context: Any, inputs: Any, outputs: Any, arena: Any) -> Any:
        for kind, aval, what in zip(inputs, plan.inputs, names, strict=True):
            _check(kind, aval, f"wichi.njit of {name}: the argument {what}")

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def on_stack(kind: Any, count: int = 1) -> Any:
                with builder.goto_entry_block():  # else a loop around the call would take new stack in each round
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

            def constant(address: int) -> Any:
                # Told to numba, so that it refuses to write code that holds it to disk (``cache=True``).
                return word(context.add_dynamic_addr(builder, address, "wichi"))

            words = [
                data(kind, builder.extract_value(args[0], i), aval)
                for i, (kind, aval) in enumerate(zip(inputs, plan.inputs, strict=True))
            ]
            words += [constant(array.ctypes.data) for array in constants]
            arrays = iter(range(len(outputs)))
            slots = []
            for aval in plan.outputs:
                if aval.shape:
                    i = next(arrays)
                    words.append(data(outputs[i], builder.extract_value(args[1], i), aval))
                else:
                    slots.append(on_stack(context.get_data_type(from_dtype(aval.dtype))))
                    words.append(word(slots[-1]))
            small = isinstance(arena, types.NoneType)
            if small:
                room = on_stack(ir.IntType(8), plan.arena_bytes + 64)
            else:
                room = make_array(arena)(context, builder, args[2]).data
            words.append(builder.and_(builder.add(word(room), _I64(63)), _I64(-64)))
            table = on_stack(_I64, len(words))
            for i, x in enumerate(words):
                builder.store(x, builder.gep(table, [_I64(i)]))
            kind = ir.FunctionType(_I64, [_I64] * 3)
            entry = builder.inttoptr(constant(executable.native.address), kind.as_pointer())
            sizes, scalars = constant(plan.sizes.ctypes.data), constant(plan.scalars.ctypes.data)
            status = builder.call(entry, [word(table), sizes, scalars])
            numbers = [
                context.unpack_value(builder, kind, slot) for kind, slot in zip(answer.types[1:], slots, strict=True)
            ]
            return context.make_tuple(builder, answer, [status, *numbers])

        answer = types.Tuple([types.int64, *(from_dtype(a.dtype) for a in plan.outputs if not a.shape)])
        return answer(inputs, outputs, arena), generate

    return run


def _check(kind: Any, aval: Aval, what: str) -> None:
    """The numba type of an argument against what was compiled."""
    if aval.shape:
        fits = isinstance(kind, types.Array) and kind.ndim == aval.ndim and kind.dtype == from_dtype(aval.dtype)
    else:
        fits = isinstance(kind, types.Number | types.Boolean) and (
            aval.dtype.kind == "f" or kind == from_dtype(aval.dtype)
        )
    if not fits:
        raise TypingError(f"{what} must be {aval}; it is {kind}. wichi.njit compiled it for that type: cast it first.")

"""The loop IR as Python that runs as it stands: what a person would write by hand, one function a loop nest.

Bit-equal to the native code wherever only ``+ - * /``, ``sqrt``, comparisons, minima and maxima occur: lanes of
accumulators and the tree that joins them are spelled out here too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.kernels.loops import (
    Accumulate,
    Assign,
    Begin,
    Check,
    Compute,
    Declare,
    End,
    Extent,
    Gemm,
    Index,
    Literal,
    Load,
    Loop,
    Nest,
    Read,
    RuntimeScalar,
    Statement,
    Store,
    neutral,
)  # fmt: skip
from wichi.kernels.schedule import Plan, plan
from wichi.trace.ir import Graph
from wichi.trace.show import Names, equation, text

_PRELUDE = '''import numpy as np


def joined(lanes, combine):
    """The lanes of an accumulator, joined by halves."""
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [combine(lanes[i], lanes[i + half]) for i in range(half)]
    return lanes[0]


def matrix(buffer, offset, rows, columns, lead, transposed):
    """A matrix within a flat buffer, read as it lies."""
    step = buffer.itemsize
    strides = (step, lead * step) if transposed else (lead * step, step)
    return np.lib.stride_tricks.as_strided(buffer[offset:], (rows, columns), strides)


def where(condition, x, y):
    return x if condition else y


def erf(x):
    from scipy.special import erf

    return erf(x)
'''
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "and": "&", "or": "|", "xor": "^",
}  # fmt: skip
_CALLS = {
    "select": "where", "mod": "np.mod", "floordiv": "np.floor_divide", "pow": "np.power", "div": "np.divide",
    "erf": "erf",
}  # fmt: skip
_COMBINE = {
    "add": "np.add", "mul": "np.multiply", "maximum": "np.maximum", "minimum": "np.minimum", "or": "np.logical_or",
    "and": "np.logical_and",
}  # fmt: skip


def source(graph: Graph) -> str:
    """A Python module whose ``program(*inputs)`` answers the outputs of ``graph`` as a list of arrays."""
    name = Names(graph)
    heading = "\n".join(f"# {line}" for line in text(graph, name).splitlines())
    planned = plan(graph)
    nests = []
    for number, (nest, step) in enumerate(zip(planned.program.nests, planned.steps, strict=True)):
        notes = [equation(eqn, name) + (f"    ({eqn.where})" if eqn.where else "") for eqn in step.eqns]
        nests.append(_nest(nest, number, notes))
    return "\n\n".join([heading, _PRELUDE, *nests, _program(planned)]) + "\n"


def _program(p: Plan) -> str:
    inputs = [f"x{i}" for i in range(len(p.inputs))]
    inputs += [f"captured{i}{_default(array)}" for i, array in enumerate(p.constants)]
    lines = [f"def program({', '.join(inputs)}):"]
    lines.append(f"    sizes = {p.sizes.tolist()}")
    lines.append(f"    scalars = np.array({p.scalars.tolist()})")
    arguments = [f"np.ascontiguousarray(x{i}, {_dtype(a.dtype)}).ravel()" for i, a in enumerate(p.inputs)]
    arguments += [f"np.ascontiguousarray(captured{i}).ravel()" for i in range(len(p.constants))]
    for i, aval in enumerate(p.outputs):
        lines.append(f"    out{i} = np.empty({aval.shape}, {_dtype(aval.dtype)})")
        arguments.append(f"out{i}.reshape(-1)")
    lines.append(f"    arena = np.zeros({p.arena_bytes}, np.uint8)")
    for number, buffer in enumerate(p.program.buffers):
        if buffer.offset is None:
            lines.append(f"    b{number} = {arguments[buffer.argument or 0]}")
        else:
            lines.append(f"    b{number} = _typed(arena, sizes[{buffer.offset.slot}], {_dtype(buffer.dtype)})")
    lines.append('    with np.errstate(all="ignore"):')
    for number, nest in enumerate(p.program.nests):
        buffers = "".join(f"b{b}, " for b in nest.buffers)
        lines.append(f"        nest{number}({buffers}sizes, scalars)")
    lines.append(f"    return [{', '.join(f'out{i}' for i in range(len(p.outputs)))}]")
    typed = "def _typed(arena, offset, dtype):\n    tail = arena[offset:]\n" \
            "    return tail[: len(tail) // dtype.itemsize * dtype.itemsize].view(dtype)\n\n\n"  # fmt: skip
    return typed + "\n".join(lines)


def _default(array: np.ndarray[Any, Any]) -> str:
    """Small captured arrays stand in the text; larger ones are for the caller to give."""
    return f"=np.array({array.tolist()}, {_dtype(array.dtype)})" if array.size <= 64 else "=None"


def _nest(nest: Nest, number: int, notes: Sequence[str]) -> str:
    buffers = "".join(f"b{b}, " for b in nest.buffers)
    writer = _PythonWriter()
    for note in notes:
        writer.line(f"# {note}")
    writer.body(nest.body)
    return f"def nest{number}({buffers}sizes, scalars):\n" + "\n".join(writer.lines or ["    pass"])


def _dtype(dtype: np.dtype[Any]) -> str:
    return f"np.dtype({dtype.str[1:]!r})"


class _PythonWriter:
    """One function body, indented."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 1
        self.counters: list[str] = []
        self.accumulators: dict[int, Begin] = {}
        self.dtypes: dict[int, np.dtype[Any]] = {}

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def body(self, body: Sequence[Statement]) -> None:
        for s in body:
            _WRITE[type(s)](self, s)

    def define(self, out: int, text: str, dtype: np.dtype[Any]) -> None:
        self.dtypes[out] = dtype
        self.line(f"v{out} = {text}")

    def literal(self, s: Literal) -> None:
        self.define(s.out, f"np.{s.dtype.name}({_number(s.value)})", s.dtype)

    def runtime_scalar(self, s: RuntimeScalar) -> None:
        self.define(s.out, f"scalars[{s.slot} : {s.slot + 1}].view({_dtype(s.dtype)})[0]", s.dtype)

    def compute(self, s: Compute) -> None:
        args = [f"v{a}" for a in s.args]
        if s.op == "cast":
            value = f"{args[0]} != 0" if s.dtype.kind == "b" else f"np.asarray({args[0]}).astype({_dtype(s.dtype)})[()]"
        elif s.op == "neg":
            value = f"-{args[0]}"
        elif s.op == "not":
            value = f"np.invert({args[0]})"
        elif s.op in _INFIX:
            value = f" {_INFIX[s.op]} ".join(args)
        else:
            value = f"{_CALLS.get(s.op, f'np.{s.op}')}({', '.join(args)})"
        self.define(s.out, value, s.dtype)

    def load(self, s: Load) -> None:
        self.define(s.out, f"b{s.buffer}[{_index(s.index)}]", s.dtype)

    def store(self, s: Store) -> None:
        place = f"b{s.buffer}[{_index(s.index)}]"
        self.line(f"{place} = " + (f"{_COMBINE[s.op]}({place}, v{s.value})" if s.op else f"v{s.value}"))

    def begin(self, s: Begin) -> None:
        self.accumulators[s.out] = s
        start = f"np.{s.dtype.name}({_number(neutral(s.op, s.dtype).item())})"
        self.line(
            f"v{s.out} = [{start}] * {s.lanes}  # lanes of a sum"
            if s.op == "add"
            else f"v{s.out} = [{start}] * {s.lanes}"
        )

    def accumulate(self, s: Accumulate) -> None:
        begun = self.accumulators[s.into]
        lane = f"{self.counters[-1]} % {begun.lanes}" if begun.lanes > 1 else "0"
        self.line(f"v{s.into}[{lane}] = {_COMBINE[begun.op]}(v{s.into}[{lane}], v{s.value})")

    def end(self, s: End) -> None:
        begun = self.accumulators[s.accumulator]
        self.define(s.out, f"joined(v{s.accumulator}, {_COMBINE[begun.op]})", begun.dtype)

    def declare(self, s: Declare) -> None:
        self.define(s.out, f"v{s.value}", s.dtype)

    def assign(self, s: Assign) -> None:
        self.line(f"v{s.variable} = v{s.value}")

    def read(self, s: Read) -> None:
        self.define(s.out, f"v{s.variable}", s.dtype)

    def check(self, s: Check) -> None:
        self.line(f"if not v{s.value}:")
        self.line(f'    raise IndexError("status {s.status}")')

    def loop(self, s: Loop) -> None:
        name = f"v{s.counter}"
        self.line(f"for {name} in range({_extent(s.extent)}):")
        self.counters.append(name)
        self.depth += 1
        self.body(s.body)
        self.depth -= 1
        self.counters.pop()

    def gemm(self, s: Gemm) -> None:
        a = f"matrix(b{s.a}, {_index(s.a_at)}, {_extent(s.m)}, {_extent(s.k)}, {_extent(s.a_lead)}, {s.a_t})"
        b = f"matrix(b{s.b}, {_index(s.b_at)}, {_extent(s.k)}, {_extent(s.n)}, {_extent(s.b_lead)}, {s.b_t})"
        c = f"matrix(b{s.c}, {_index(s.c_at)}, {_extent(s.m)}, {_extent(s.n)}, {_extent(s.n)}, False)"
        self.line(f"{c}[...] = {a} @ {b}")


def _number(value: Any) -> str:
    return repr(value) if np.isfinite(value) else f'float("{value}")'


def _extent(extent: Extent) -> str:
    return str(extent) if isinstance(extent, int) else f"sizes[{extent.slot}]"


def _index(index: Index) -> str:
    terms = [f"v{v}" if stride == 1 else f"v{v} * {_extent(stride)}" for v, stride in index.terms]
    if index.offset != 0 or not terms:
        terms.append(_extent(index.offset))
    return " + ".join(terms)


_WRITE: dict[type, Callable[[_PythonWriter, Any], None]] = {
    Literal: _PythonWriter.literal, RuntimeScalar: _PythonWriter.runtime_scalar, Compute: _PythonWriter.compute,
    Load: _PythonWriter.load, Store: _PythonWriter.store, Begin: _PythonWriter.begin,
    Accumulate: _PythonWriter.accumulate, End: _PythonWriter.end, Declare: _PythonWriter.declare,
    Assign: _PythonWriter.assign, Read: _PythonWriter.read, Check: _PythonWriter.check, Loop: _PythonWriter.loop,
    Gemm: _PythonWriter.gemm,
}  # fmt: skip

"""The loop IR as Python that runs as it stands: what a person would write by hand, one function a loop nest.

Bit-equal to the native code wherever only ``+ - * /``, ``sqrt``, comparisons, minima and maxima occur: lanes of
accumulators and the tree that joins them are spelled out here too.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.kernels.loops import (
    Accumulate,
    Assign,
    Begin,
    Branch,
    Check,
    Compute,
    Count,
    Declare,
    End,
    Extent,
    Free,
    Gemm,
    Grow,
    HostCall,
    Index,
    Library,
    Literal,
    Load,
    LoadInteger,
    Loop,
    Nest,
    Pack,
    Place,
    Poll,
    Read,
    RuntimeScalar,
    Size,
    Statement,
    Store,
    Tape,
    Unpack,
    Value,
    While,
    extents_of,
    neutral,
    walk,
)  # fmt: skip
from wichi.kernels.plans import Plan
from wichi.kernels.schedule import plan
from wichi.kernels.source_helpers import HELPERS
from wichi.trace.ir import Graph
from wichi.trace.show import Names, equation, text

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "and": "&", "or": "|", "xor": "^",
}  # fmt: skip
_CALLS = {
    "select": "where", "mod": "np.mod", "floordiv": "np.floor_divide", "pow": "np.power", "div": "np.divide",
    "erf": "erf", "erfc": "erfc", "softplus": "softplus",
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
    buffers = _identifiers([name(a) if a is not None else f"inner{i}" for i, a in enumerate(planned.homes)])
    nests = []
    for number, (nest, step) in enumerate(zip(planned.program.nests, planned.steps, strict=True)):
        notes = [equation(eqn, name) + (f"    ({eqn.where})" if eqn.where else "") for eqn in step.eqns]
        nests.append(_nest(nest, number, notes, buffers, planned.sizes))
    program = _program(planned, buffers, _identifiers(graph.in_names))
    body = [*nests, program]
    helpers = [code for helper, code in HELPERS.items() if any(f"{helper}(" in part for part in body)]
    if any("matrix(" in code for code in helpers) and HELPERS["matrix"] not in helpers:
        helpers.insert(0, HELPERS["matrix"])
    return heading + "\n\nimport numpy as np\n\n\n" + "\n\n\n".join([*helpers, *body]) + "\n"


def _identifiers(names: Sequence[str]) -> list[str]:
    """Different Python names like ``names``: ``params['w']`` becomes ``params_w``."""
    taken = {"np", "sizes", "scalars", "arena", "program", *HELPERS, *keyword.kwlist}
    found = []
    for name in names:
        plain = re.sub(r"\W+", "_", name).strip("_") or "x"
        plain = f"x{plain}" if plain[0].isdigit() else plain
        while plain in taken or re.fullmatch(r"(v|nest|result|captured)\d+", plain):
            plain += "_"
        taken.add(plain)
        found.append(plain)
    return found


def _program(p: Plan, buffers: Sequence[str], inputs: Sequence[str]) -> str:
    given = list(inputs) if len(inputs) == len(p.inputs) else [f"x{i}" for i in range(len(p.inputs))]
    captured = [f"captured{i}" for i in range(len(p.constants))]
    defaults = [f"{c}{_default(array)}" for c, array in zip(captured, p.constants, strict=True)]
    lines = [f"def program({', '.join([*given, *defaults])}):"]
    lines.append(f"    sizes = {p.sizes.tolist()}")
    lines.append(f"    scalars = [{', '.join(map(_scalar, p.numbers))}]")
    arguments = [f"np.ascontiguousarray({x}, {_dtype(a.dtype)}).ravel()" for x, a in zip(given, p.inputs, strict=True)]
    arguments += [f"np.ascontiguousarray({c}).ravel()" for c in captured]
    for i, aval in enumerate(p.outputs):
        lines.append(f"    result{i} = np.empty({aval.shape}, {_dtype(aval.dtype)})")
        arguments.append(f"result{i}.reshape(-1)")
    if p.arena_bytes:
        lines.append(f"    arena = np.zeros({p.arena_bytes}, np.uint8)")
    for name, buffer in zip(buffers, p.program.buffers, strict=True):
        if buffer.offset is None:
            lines.append(f"    {name} = {arguments[buffer.argument or 0]}")
        else:
            lines.append(f"    {name} = within(arena, sizes[{buffer.offset.slot}], {_dtype(buffer.dtype)})")
    lines.append('    with np.errstate(all="ignore"):')
    bands = {band.start: band for band in p.program.bands}
    indent = "        "
    for number, nest in enumerate(p.program.nests):
        if number in {band.stop for band in p.program.bands}:
            indent = "        "
        if number in bands:
            rows, most = (f"sizes[{size.slot}]" for size in (bands[number].rows, bands[number].block))
            lines.append(f"        for first in range(0, max({rows}, 1), {most}):  # block by block")
            lines.append(f"            rows = min({most}, {rows} - first)")
            indent = "            "
        arguments = "".join(f"{buffers[b]}, " for b in nest.buffers)
        lines.append(f"{indent}nest{number}({arguments}sizes, scalars{', first, rows' if nest.block else ''})")
    lines.append(f"    return [{', '.join(f'result{i}' for i in range(len(p.outputs)))}]")
    return "\n".join(lines)


def _default(array: np.ndarray[Any, Any]) -> str:
    """Small captured arrays stand in the text; larger ones are for the caller to give."""
    return f"=np.array({array.tolist()}, {_dtype(array.dtype)})" if array.size <= 64 else "=None"


def _nest(nest: Nest, number: int, notes: Sequence[str], buffers: Sequence[str], sizes: Sequence[int]) -> str:
    writer = _PythonWriter(nest, buffers, sizes)
    for note in notes:
        writer.line(f"# {note}")
    writer.body(nest.body)
    parameters = "".join(f"{buffers[b]}, " for b in nest.buffers)
    block = ", first, rows" if nest.block else ""
    return f"def nest{number}({parameters}sizes, scalars{block}):\n" + "\n".join(writer.lines or ["    pass"])


def _uses(nest: Nest) -> tuple[Counter[int], set[int]]:
    """How often each value is read, and the buffers that are written."""
    reads: Counter[int] = Counter()
    written: set[int] = set()
    for s in walk(nest.body):
        if isinstance(s, Compute):
            reads.update(s.args)
        elif isinstance(s, Pack):
            reads.update(s.values)
        elif isinstance(s, Unpack):
            reads[s.vector] += 2  # several numbers are taken from it
        elif isinstance(s, Store | Accumulate | Declare | Assign | Check):
            reads[s.value] += 1
        elif isinstance(s, Gemm):
            reads.update(v for at in (s.a_at, s.b_at, s.c_at) for v, _ in at.terms)
            if s.adds is not None:
                reads[s.adds] += 2
        elif isinstance(s, Library):
            reads.update(x.id for x in s.arguments if isinstance(x, Value))
            reads.update(v for x in s.arguments if isinstance(x, Place) for v, _ in x.at.terms)
            written.update(x.buffer for x in s.arguments if isinstance(x, Place))
        elif isinstance(s, LoadInteger):
            reads.update(v for v, _ in s.index.terms)
        elif isinstance(s, While | Branch):
            reads[s.condition] += 2  # more than once, so that it is written before and has a name
        elif isinstance(s, Grow):
            reads[s.row] += 2
        if isinstance(s, Load | Store):
            reads.update(v for v, _ in s.index.terms)
        if isinstance(s, Load) and s.mask is not None:
            reads[s.mask] += 1
        # Twice, so that they are written before and have a name.
        reads.update({e.id: 2 for e in extents_of(s) if isinstance(e, Count)})
        if isinstance(s, Store):
            written.add(s.buffer)
    return reads, written


def _dtype(dtype: np.dtype[Any]) -> str:
    return f"np.dtype({dtype.str[1:]!r})"


class _PythonWriter:
    """One function body, indented. What is read once is written where it is read."""

    def __init__(self, nest: Nest, buffers: Sequence[str], sizes: Sequence[int]) -> None:
        self.lines: list[str] = []
        self.depth = 1
        self.counters: list[int] = []
        self.accumulators: dict[int, Begin] = {}
        self.buffers, self.sizes = buffers, sizes
        self.parameters = {buffers[b] for b in nest.buffers}
        self.tapes: dict[int, str] = {}
        self.reads, self.written = _uses(nest)
        self.names: dict[int, str] = {}
        self.waiting: dict[int, str] = {}  # expressions not written yet
        self.constants: dict[int, str] = dict(
            zip(nest.block or (), ("first", "rows", "0", "0"), strict=False)
        )  # written where read

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def body(self, body: Sequence[Statement]) -> None:
        for s in body:
            _WRITE[type(s)](self, s)

    def name(self, value: int) -> str:
        """The name of a value that is written once and read later."""
        return self.names.setdefault(value, f"v{len(self.names)}")

    def value(self, value: int) -> str:
        """What to write where ``value`` is read."""
        if value in self.constants:
            return self.constants[value]
        return self.waiting.pop(value) if value in self.waiting else self.name(value)

    def define(self, out: int, text: str, waits: bool = False) -> None:
        """``waits``: nothing that runs before the one reader can change what ``text`` means."""
        if waits and self.reads[out] == 1:
            self.waiting[out] = text
        else:
            self.line(f"{self.name(out)} = {_bare(text)}")

    def settle(self) -> None:
        """Before a loop: write what waits, so that it is computed once."""
        waiting, self.waiting = self.waiting, {}
        for out, expression in waiting.items():
            self.line(f"{self.name(out)} = {_bare(expression)}")

    def literal(self, s: Literal) -> None:
        self.constants[s.out] = f"np.{s.dtype.name}({_number(s.value)})"

    def runtime_scalar(self, s: RuntimeScalar) -> None:
        self.constants[s.out] = f"scalars[{s.slot}]"

    def compute(self, s: Compute) -> None:
        args = [self.value(a) for a in s.args]
        if s.op == "cast":
            value = (
                f"({args[0]} != 0)"
                if s.dtype.kind == "b"
                else f"np.asarray({_bare(args[0])}).astype({_dtype(s.dtype)})[()]"
            )
        elif s.op == "neg":
            value = f"(-{args[0]})"
        elif s.op == "not":
            value = f"np.invert({_bare(args[0])})"
        elif s.op in _INFIX:
            value = f"({f' {_INFIX[s.op]} '.join(args)})"
        else:
            value = f"{_CALLS.get(s.op, f'np.{s.op}')}({', '.join(map(_bare, args))})"
        self.define(s.out, value, waits=True)

    def pack(self, s: Pack) -> None:
        values = ", ".join(_bare(self.value(v)) for v in s.values)
        self.define(s.out, f"np.array([{values}], {_dtype(s.dtype)})", waits=True)

    def unpack(self, s: Unpack) -> None:
        self.define(s.out, f"{self.value(s.vector)}[{s.lane}]", waits=True)

    def load(self, s: Load) -> None:
        waits = s.buffer >= 0 and s.buffer not in self.written
        element = f"{self.buffer(s.buffer)}[{self.index(s.index)}]"
        if s.mask is not None:
            element = f"({element} if {_bare(self.value(s.mask))} else np.{s.dtype.name}(0))"
        self.define(s.out, element, waits)

    def store(self, s: Store) -> None:
        place, value = f"{self.buffer(s.buffer)}[{self.index(s.index)}]", _bare(self.value(s.value))
        self.line(f"{place} = " + (f"{_COMBINE[s.op]}({place}, {value})" if s.op else value))

    def begin(self, s: Begin) -> None:
        self.accumulators[s.out] = s
        start = f"np.{s.dtype.name}({_number(neutral(s.op, s.dtype).item())})"
        note = "  # lanes" if s.lanes > 1 else ""
        self.line(f"{self.name(s.out)} = [{start}] * {s.lanes}{note}")

    def accumulate(self, s: Accumulate) -> None:
        begun = self.accumulators[s.into]
        lane = f"{self.name(self.counters[-1])} % {begun.lanes}" if begun.lanes > 1 else "0"
        target = f"{self.name(s.into)}[{lane}]"
        self.line(f"{target} = {_COMBINE[begun.op]}({target}, {_bare(self.value(s.value))})")

    def end(self, s: End) -> None:
        begun = self.accumulators[s.accumulator]
        self.define(s.out, f"joined({self.name(s.accumulator)}, {_COMBINE[begun.op]})", waits=True)

    def declare(self, s: Declare) -> None:
        self.define(s.out, self.value(s.value))

    def assign(self, s: Assign) -> None:
        value = _bare(self.value(s.value))
        self.settle()  # what reads the old value
        self.line(f"{self.name(s.variable)} = {value}")

    def read(self, s: Read) -> None:
        self.define(s.out, self.name(s.variable), waits=True)

    def check(self, s: Check) -> None:
        self.line(f"if not {self.value(s.value)}:")
        self.line(f'    raise IndexError("status {s.status}")')

    def loop(self, s: Loop) -> None:
        self.settle()
        used = {self.names[c] for c in self.counters} | self.parameters
        letters = (f"{letter}{n}" for n in ("", *range(100)) for letter in "ijkpqrst")
        name = self.names[s.counter] = next(letter for letter in letters if letter not in used)
        now = f"  # {self.sizes[s.extent.slot]} here" if isinstance(s.extent, Size) else ""
        self.line(f"for {name} in range({self.extent(s.extent)}):{now}")
        self.counters.append(s.counter)
        self.depth += 1
        self.body(s.body)
        self.settle()
        self.depth -= 1
        self.counters.pop()

    def block(self, body: Sequence[Statement]) -> None:
        self.depth += 1
        before = len(self.lines)
        self.body(body)
        self.settle()
        if len(self.lines) == before:
            self.line("pass")
        self.depth -= 1

    def repeat(self, s: While) -> None:
        self.settle()
        self.line("while True:")
        self.depth += 1
        self.body(s.header)
        self.line(f"if not {self.value(s.condition)}:")
        self.line("    break")
        self.depth -= 1
        self.block(s.body)

    def branch(self, s: Branch) -> None:
        condition = self.value(s.condition)
        self.settle()
        self.line(f"if {_bare(condition)}:")
        self.block(s.then)
        self.line("else:")
        self.block(s.otherwise)

    def poll(self, s: Poll) -> None:
        """Python asks by itself whether it was interrupted."""

    def buffer(self, number: int) -> str:
        return self.tapes[number] if number < 0 else self.buffers[number]

    def tape(self, s: Tape) -> None:
        self.tapes[s.buffer] = f"tape{-s.buffer}"
        self.line(f"{self.tapes[s.buffer]} = np.empty(0, {_dtype(s.dtype)})")

    def grow(self, s: Grow) -> None:
        tape, row = self.tapes[s.buffer], self.value(s.row)
        self.settle()
        self.line(f"if len({tape}) < ({row} + 1) * {self.extent(s.width)}:")
        self.line(f"    {tape} = np.resize({tape}, 2 * ({row} + 1) * {self.extent(s.width)})")
        self.constants[s.out] = "True"

    def free(self, s: Free) -> None:
        self.line(f"del {self.tapes[s.buffer]}")

    def extent(self, extent: Extent) -> str:
        if isinstance(extent, Count):
            return self.value(extent.id)
        return str(extent) if isinstance(extent, int) else f"sizes[{extent.slot}]"

    def gemm(self, s: Gemm) -> None:
        def matrix(buffer: int, at: Index, rows: Extent, columns: Extent, lead: Extent, transposed: bool) -> str:
            sizes = ", ".join(map(self.extent, (rows, columns, lead)))
            return f"matrix({self.buffer(buffer)}, {self.index(at)}, {sizes}, {transposed})"

        a, b = matrix(s.a, s.a_at, s.m, s.k, s.a_lead, s.a_t), matrix(s.b, s.b_at, s.k, s.n, s.b_lead, s.b_t)
        c = matrix(s.c, s.c_at, s.m, s.n, s.c_lead, False)
        if s.adds is None:
            self.line(f"{c}[...] = {a} @ {b}")
        else:
            self.line(f"{c}[...] = {a} @ {b} + ({c} if {self.value(s.adds)} else 0)")

    def library(self, s: Library) -> None:
        args = []
        for x in s.arguments:
            if isinstance(x, str):
                args.append(repr(x))
            elif isinstance(x, Place):
                args.append(f"{self.buffer(x.buffer)}[{self.index(x.at)}:]")
            else:
                args.append(self.value(x.id) if isinstance(x, Value) else self.extent(x))
        self.settle()
        self.line(f"{s.name}({', '.join(args)})")

    def host_call(self, s: HostCall) -> None:
        self.line('raise RuntimeError("a wichi.primitive is called here; fix: call the function itself")')

    def load_integer(self, s: LoadInteger) -> None:
        self.define(s.out, f"{self.buffer(s.buffer)}[{self.index(s.index)}]")

    def index(self, index: Index) -> str:
        terms = [
            self.value(v) if stride == 1 else f"{self.value(v)} * {self.extent(stride)}" for v, stride in index.terms
        ]
        if index.offset != 0 or not terms:
            terms.append(self.extent(index.offset))
        return _bare(" + ".join(terms))


def _bare(text: str) -> str:
    """``text`` without the parentheses around the whole of it."""
    if not text.startswith("(") or not text.endswith(")"):
        return text
    depth = 0
    for position, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0 and position < len(text) - 1:
            return text
    return text[1:-1]


def _number(value: Any) -> str:
    return repr(value) if np.isfinite(value) else f'float("{value}")'


def _scalar(x: Any) -> str:
    return "None" if not isinstance(x, np.generic) else f"np.{x.dtype.name}({_number(x.item())})"


_WRITE: dict[type, Callable[[_PythonWriter, Any], None]] = {
    Literal: _PythonWriter.literal, RuntimeScalar: _PythonWriter.runtime_scalar, Compute: _PythonWriter.compute,
    Pack: _PythonWriter.pack, Unpack: _PythonWriter.unpack, Load: _PythonWriter.load, Store: _PythonWriter.store,
    Begin: _PythonWriter.begin, Accumulate: _PythonWriter.accumulate, End: _PythonWriter.end,
    Declare: _PythonWriter.declare, Assign: _PythonWriter.assign, Read: _PythonWriter.read,
    Check: _PythonWriter.check, Loop: _PythonWriter.loop,
    Gemm: _PythonWriter.gemm, While: _PythonWriter.repeat, Branch: _PythonWriter.branch, Poll: _PythonWriter.poll,
    Tape: _PythonWriter.tape, Grow: _PythonWriter.grow, Free: _PythonWriter.free,
    Library: _PythonWriter.library, LoadInteger: _PythonWriter.load_integer,
    HostCall: _PythonWriter.host_call,
}  # fmt: skip

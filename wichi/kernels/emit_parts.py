"""The functions of a program in LLVM IR: one that calls nest after nest, or one for each part that threads share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from wichi.kernels import scalars
from wichi.kernels.emit import NestEmitter
from wichi.kernels.loops import Band, Check, HostCall, Library, Nest, Poll, Program, Tape, walk

_I64 = ir.IntType(64)
_WORDS = _I64.as_pointer()


def emit_program(module: ir.Module, program: Program, blas_integer_bits: int, fused: bool) -> ir.Function:
    """``i64 program(i64* arguments, i64* sizes, i64* scalars)``: one call a nest, and out at the first bad status.

    ``fused``: the processor has fused multiply-adds, which are used where rounding once is meant.
    """
    function = ir.Function(module, ir.FunctionType(_I64, [_WORDS] * 3), module.get_unique_name("wichi_program"))
    function.linkage = "internal"
    arguments, sizes, numbers = function.args
    builder = ir.IRBuilder(function.append_basic_block())

    calls = _Calls(module, program, builder, (arguments, sizes, numbers), blas_integer_bits, fused)
    bands = {band.start: band for band in program.bands}
    number = 0
    while number < len(program.nests):
        band = bands.get(number)
        if band is None:
            calls.call(program.nests[number])
            number += 1
        else:
            calls.band(band, _I64(0), calls.word(sizes, band.rows.slot), _I64(0))
            number = band.stop
    builder.ret(_I64(0))
    return function


def parts_of(program: Program) -> list[range | Band]:
    """The bands that are cut into chunks, and the nests between them; in turn."""
    found: list[range | Band] = []
    at = 0
    for band in (b for b in program.bands if b.chunk is not None):
        found += [range(at, band.start), band]
        at = band.stop
    return [*found, range(at, len(program.nests))]


def emit_parts(module: ir.Module, program: Program, blas_integer_bits: int, fused: bool) -> list[ir.Function]:
    """A function for each of ``parts_of(program)``: ``i64 part(arguments, sizes, scalars, tiles, chunk)``.

    ``tiles`` is memory of the chunk's own; for nests between bands neither counts.
    """
    functions = []
    for part in parts_of(program):
        kind = ir.FunctionType(_I64, [*[_WORDS] * 3, _I64, _I64])
        function = ir.Function(module, kind, module.get_unique_name("wichi_part"))
        arguments, sizes, numbers, tiles, chunk = function.args
        builder = ir.IRBuilder(function.append_basic_block())
        calls = _Calls(module, program, builder, (arguments, sizes, numbers), blas_integer_bits, fused, tiles)
        if isinstance(part, Band):
            assert part.chunk is not None
            each, rows = calls.word(sizes, part.chunk.slot), calls.word(sizes, part.rows.slot)
            first = builder.mul(chunk, each)
            stop = builder.add(first, each)
            calls.band(part, first, builder.select(builder.icmp_signed("<", stop, rows), stop, rows), chunk)
        else:
            for number in part:
                calls.call(program.nests[number])
        builder.ret(_I64(0))
        functions.append(function)
    return functions


class _Calls:
    """Calls of the nests, from a function that is given the program's arguments."""

    def __init__(
        self,
        module: ir.Module,
        program: Program,
        builder: ir.IRBuilder,
        given: tuple[Any, Any, Any],
        blas_integer_bits: int,
        fused: bool,
        tiles: Any = None,
    ) -> None:
        self.module, self.program, self.b = module, program, builder
        self.integer_bits, self.fused = blas_integer_bits, fused
        arguments, self.sizes, self.numbers = given
        arena = self.word(arguments, program.arguments)
        self.pointers = []
        for buffer in program.buffers:
            if buffer.offset is None:
                address = self.word(arguments, buffer.argument or 0)
            else:
                base = tiles if buffer.tile and tiles is not None else arena
                address = builder.add(base, self.word(self.sizes, buffer.offset.slot))
            self.pointers.append(builder.inttoptr(address, scalars.memory_type(buffer.dtype).as_pointer()))

    def word(self, array: Any, slot: int) -> Any:
        return self.b.load(self.b.gep(array, [_I64(slot)], inbounds=True))

    def call(self, nest: Nest, block: Sequence[Any] = ()) -> None:
        b = self.b
        emitted = NestEmitter(self.module, nest, self.program, self.integer_bits, self.fused).function
        status = b.call(emitted, [*(self.pointers[i] for i in nest.buffers), self.sizes, self.numbers, *block])
        if any(isinstance(s, Check | Poll | Tape | Library | HostCall) for s in walk(nest.body)):
            with b.if_then(b.icmp_signed("!=", status, _I64(0)), likely=False):
                b.ret(status)

    def band(self, band: Band, start: Any, stop: Any, chunk: Any) -> None:
        """The nests of a band for each block of the rows from ``start`` to ``stop``, at least once."""
        b, most = self.b, self.word(self.sizes, band.block.slot)
        before, body, after = b.block, b.append_basic_block("block"), b.append_basic_block("after")
        b.branch(body)
        b.position_at_end(body)
        first = b.phi(_I64)
        first.add_incoming(start, before)
        left = b.sub(stop, first)
        rows = b.select(b.icmp_signed("<", left, most), left, most)
        for nest in self.program.nests[band.start : band.stop]:
            self.call(nest, (first, rows, start, chunk))
        following = b.add(first, most)
        first.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", following, stop), body, after)
        b.position_at_end(after)

"""Loop IR as LLVM IR.

A vector loop becomes explicit vector instructions of 64 bytes, which LLVM splits to what the CPU has. Its last, shorter
block runs under a mask, or element by element where they are stored apart. Nothing depends on LLVM's vectoriser, on
run-time alias checks or on fast-math. A value that does not vary along the loop stays scalar. Functions without a
vector form call the C library lane by lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from wichi.kernels import emit_calls, scalars
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
    Poll,
    Program,
    Read,
    RuntimeScalar,
    Size,
    Statement,
    Store,
    Tape,
    Unpack,
    While,
    extents_of,
    may_be_masked,
    neutral,
    walk,
)  # fmt: skip

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_WORDS = _I64.as_pointer()
# A longer body of a vector loop is written once, for full and last blocks alike, under a mask that costs it little.
_MOST_TWICE = 16


class NestEmitter:
    """One nest as a function ``i64 nest(noalias buffers..., sizes, scalars)``."""

    def __init__(self, module: ir.Module, nest: Nest, program: Program, blas_integer_bits: int, fused: bool) -> None:
        self.module, self.blas_integer, self.fused = module, ir.IntType(blas_integer_bits), fused
        memory = [scalars.memory_type(program.buffers[b].dtype).as_pointer() for b in nest.buffers]
        block = [_I64] * 4 if nest.block is not None else []
        kind = ir.FunctionType(_I64, [*memory, _WORDS, _WORDS, *block])
        self.function = ir.Function(module, kind, module.get_unique_name("wichi_nest"))
        self.function.linkage = "internal"
        self.function.attributes.add("noinline")  # keeps functions, and so compile time, bounded
        for argument in self.function.args[: len(memory) + 2]:
            argument.add_attribute("noalias")
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        arguments = list(self.function.args)
        numbers_of_block = [arguments.pop() for _ in block][::-1]
        *buffers, self.sizes, self.numbers = arguments
        self.buffers = dict(zip(nest.buffers, buffers, strict=True))
        self.status = self.slot(_I64)
        self.builder.store(_I64(0), self.status)
        self.values: dict[int, Any] = {}
        self.dtypes: dict[int, np.dtype[Any]] = {}
        self.accumulators: dict[int, tuple[Any, Begin]] = {}
        self.size_values: dict[int, Any] = {}
        self.tapes: dict[int, Any] = {}  # slots for the address and the capacity in bytes, and the record
        self.lanes = 0  # > 0 inside the blocks of a vector loop
        self.mask: Any = None  # the lanes that count, in the last block
        self.varying: set[int] = set()  # values that are vectors there
        self.counter: tuple[int, Any] | None = None  # the vector loop's counter: its id, and where the block begins
        self.innermost: Any = _I64(0)  # counter of the innermost scalar loop, for lanes of its accumulators
        for value, argument in zip(nest.block or (), numbers_of_block, strict=True):
            self.bind(value, argument, np.dtype("i8"))
        self._load_sizes(nest)
        self._emit(nest.body)
        self.builder.ret(self.builder.load(self.status))

    def _load_sizes(self, nest: Nest) -> None:
        """All sizes at the top, once: they are invariant, and loops stay clean."""
        for s in walk(nest.body):
            for extent in extents_of(s):
                if isinstance(extent, Size) and extent.slot not in self.size_values:
                    place = self.builder.gep(self.sizes, [_I64(extent.slot)], inbounds=True)
                    self.size_values[extent.slot] = self.builder.load(place)

    def slot(self, kind: Any) -> Any:
        """Stack memory, allocated in the entry block so that LLVM keeps it in registers."""
        with self.builder.goto_entry_block():
            return self.builder.alloca(kind)

    def size(self, extent: Extent) -> Any:
        if isinstance(extent, int):
            return _I64(extent)
        return self.values[extent.id] if isinstance(extent, Count) else self.size_values[extent.slot]

    def _emit(self, body: Sequence[Statement]) -> None:
        for s in body:
            _EMIT[type(s)](self, s)

    def bind(self, out: int, value: Any, dtype: np.dtype[Any], varying: bool = False) -> None:
        self.values[out], self.dtypes[out] = value, dtype
        if varying:
            self.varying.add(out)

    # --- numbers ---

    def literal(self, s: Literal) -> None:
        self.bind(s.out, scalars.constant(s.value, s.dtype), s.dtype)

    def runtime_scalar(self, s: RuntimeScalar) -> None:
        place = self.builder.gep(self.numbers, [_I64(s.slot)], inbounds=True)
        pointer = self.builder.bitcast(place, scalars.memory_type(s.dtype).as_pointer())
        self.bind(s.out, scalars.from_memory(self.builder, self.builder.load(pointer), s.dtype), s.dtype)

    def compute(self, s: Compute) -> None:
        varying = any(self._varies(a) for a in s.args)
        args = [self._vector(a) if varying else self.values[a] for a in s.args]
        lanes = self.lanes if varying else 0
        if not varying:  # numbers, or vectors of them from registers
            lanes = max((a.type.count for a in args if isinstance(a.type, ir.VectorType)), default=0)
            if lanes:
                args = [a if isinstance(a.type, ir.VectorType) else scalars.splat(self.builder, a, lanes) for a in args]
        kinds, mask = [self.dtypes[a] for a in s.args], self.mask if varying else None
        value = scalars.compute(self.builder, s.op, args, kinds, s.dtype, lanes, self.fused, mask)
        self.bind(s.out, value, s.dtype, varying)

    def _varies(self, value: int) -> bool:
        """Whether a value differs between the lanes of the block."""
        return value in self.varying or (self.counter is not None and value == self.counter[0])

    def _vector(self, value: int) -> Any:
        """A value as a vector: as it is if it varies, else the same in every lane."""
        if value in self.varying:
            return self.values[value]
        if self.counter is not None and value == self.counter[0]:
            steps = ir.Constant(ir.VectorType(_I64, self.lanes), list(range(self.lanes)))
            return self.builder.add(scalars.splat(self.builder, self.counter[1], self.lanes), steps)
        return scalars.splat(self.builder, self.values[value], self.lanes)

    def pack(self, s: Pack) -> None:
        b, values = self.builder, [self.values[v] for v in s.values]
        kind = ir.VectorType(values[0].type, len(values))
        if all(isinstance(v, ir.Constant) for v in values):
            self.bind(s.out, ir.Constant(kind, values), s.dtype)
            return
        if len(set(s.values)) == 1:
            self.bind(s.out, scalars.splat(b, values[0], len(values)), s.dtype)
            return
        vector: Any = ir.Constant(kind, ir.Undefined)
        for lane, value in enumerate(values):
            vector = b.insert_element(vector, value, _I32(lane))
        self.bind(s.out, vector, s.dtype)

    def unpack(self, s: Unpack) -> None:
        self.bind(s.out, self.builder.extract_element(self.values[s.vector], _I32(s.lane)), s.dtype)

    def declare(self, s: Declare) -> None:
        slot = self.slot(self.values[s.value].type)
        self.builder.store(self.values[s.value], slot)
        self.bind(s.out, slot, s.dtype)

    def assign(self, s: Assign) -> None:
        self.builder.store(self.values[s.value], self.values[s.variable])

    def read(self, s: Read) -> None:
        self.bind(s.out, self.builder.load(self.values[s.variable]), s.dtype)

    def check(self, s: Check) -> None:
        b = self.builder
        status = b.load(self.status)
        failed = b.and_(b.not_(self.values[s.value]), b.icmp_signed("==", status, _I64(0)))
        b.store(b.select(failed, _I64(s.status), status), self.status)

    # --- memory ---

    def place(self, buffer: int, index: Index, lane: int | None = None) -> tuple[Any, Extent]:
        """Pointer to the (lane's, or the block's first) element, and how far lanes are apart."""
        b = self.builder
        total, apart = self.size(index.offset), 0
        for value, stride in index.terms:
            if self.counter is not None and value == self.counter[0]:
                number: Any = self.counter[1]
                apart = stride
            else:
                number = self.values[value]
            if lane is not None and value in self.varying:
                number = b.extract_element(number, _I32(lane))
            elif lane is not None and self.counter is not None and value == self.counter[0]:
                following = b.add(number, _I64(lane))
                if self.mask is not None:  # lanes beyond the end read the first one's element instead
                    following = b.select(b.extract_element(self.mask, _I32(lane)), following, number)
                number = following
            step = number if stride == 1 else b.mul(number, self.size(stride))
            total = (
                step if total is None or (type(total) is ir.Constant and total.constant == 0) else b.add(total, step)
            )
        base = b.load(self.tapes[buffer][0]) if buffer < 0 else self.buffers[buffer]
        return b.gep(base, [total], inbounds=True), apart

    def _access(self, index: Index) -> str:
        """How a vector block touches memory: 'same' for every lane, 'dense', or 'apart'."""
        if any(v in self.varying for v, _ in index.terms):
            return "apart"
        strides = [stride for v, stride in index.terms if self.counter is not None and v == self.counter[0]]
        if not strides:
            return "same"
        return "dense" if strides == [1] else "apart"

    def load(self, s: Load) -> None:
        b = self.builder
        access = self._access(s.index) if self.lanes else "same"
        if s.mask is not None:
            self._guarded_load(s, access)
            return
        if access == "same":
            pointer, _ = self.place(s.buffer, s.index)
            self.bind(s.out, scalars.from_memory(b, b.load(pointer), s.dtype), s.dtype)
            return
        if access == "dense":
            raw = self._load_block(self.place(s.buffer, s.index)[0], s.dtype, self.mask)
        else:
            raw = ir.Constant(ir.VectorType(scalars.memory_type(s.dtype), self.lanes), ir.Undefined)
            for lane in range(self.lanes):
                pointer, _ = self.place(s.buffer, s.index, lane)
                raw = b.insert_element(raw, b.load(pointer), _I32(lane))
        self.bind(s.out, scalars.from_memory(b, raw, s.dtype), s.dtype, varying=True)

    def _guarded_load(self, s: Load, access: str) -> None:
        """Where the mask does not hold, a zero of our own is read instead."""
        b, kind = self.builder, scalars.memory_type(s.dtype)
        assert s.mask is not None
        each = s.mask in self.varying
        if access == "dense":
            mask = self._vector(s.mask) if self.mask is None else b.and_(self._vector(s.mask), self.mask)
            raw = self._load_block(self.place(s.buffer, s.index)[0], s.dtype, mask)
            self.bind(s.out, scalars.from_memory(b, raw, s.dtype), s.dtype, varying=True)
            return
        zero = self.slot(kind)
        b.store(kind(0), zero)
        if access == "same" and not each:
            pointer = b.select(self.values[s.mask], self.place(s.buffer, s.index)[0], zero)
            self.bind(s.out, scalars.from_memory(b, b.load(pointer), s.dtype), s.dtype)
            return
        mask = self._vector(s.mask)
        raw = ir.Constant(ir.VectorType(kind, self.lanes), ir.Undefined)
        for lane in range(self.lanes):
            place = self.place(s.buffer, s.index, lane)[0]
            pointer = b.select(b.extract_element(mask, _I32(lane)), place, zero)
            raw = b.insert_element(raw, b.load(pointer), _I32(lane))
        self.bind(s.out, scalars.from_memory(b, raw, s.dtype), s.dtype, varying=True)

    def _load_block(self, pointer: Any, dtype: np.dtype[Any], mask: Any) -> Any:
        b, kind = self.builder, ir.VectorType(scalars.memory_type(dtype), self.lanes)
        wide = b.bitcast(pointer, kind.as_pointer())
        if mask is None:
            return b.load(wide, align=dtype.itemsize)
        rest = ir.Constant(kind, [kind.element(0)] * self.lanes)
        return scalars.masked_load(b, wide, dtype.itemsize, mask, rest)

    def _store_block(self, value: Any, pointer: Any, dtype: np.dtype[Any]) -> None:
        b = self.builder
        wide = b.bitcast(pointer, value.type.as_pointer())
        if self.mask is None:
            b.store(value, wide, align=dtype.itemsize)
        else:
            scalars.masked_store(b, value, wide, dtype.itemsize, self.mask)

    def store(self, s: Store) -> None:
        b, dtype = self.builder, self.dtypes[s.value]
        access = self._access(s.index) if self.lanes else "same"
        if access == "same":
            pointer, _ = self.place(s.buffer, s.index)
            b.store(scalars.to_memory(b, self._combined(s, b.load(pointer) if s.op else None, 0), dtype), pointer)
        elif access == "dense":
            pointer, _ = self.place(s.buffer, s.index)
            old = self._load_block(pointer, dtype, self.mask) if s.op else None
            self._store_block(scalars.to_memory(b, self._combined(s, old, self.lanes), dtype), pointer, dtype)
        else:
            raw = scalars.to_memory(b, self._vector(s.value), dtype)
            nowhere = self.slot(raw.type.element) if self.mask is not None else None  # what lanes beyond the end write
            for lane in range(self.lanes):
                pointer, _ = self.place(s.buffer, s.index, lane)
                if nowhere is not None:
                    pointer = b.select(b.extract_element(self.mask, _I32(lane)), pointer, nowhere)
                b.store(b.extract_element(raw, _I32(lane)), pointer)

    def _combined(self, s: Store, old: Any, lanes: int) -> Any:
        new = self._vector(s.value) if lanes else self.values[s.value]
        if s.op is None:
            return new
        dtype = self.dtypes[s.value]
        old = scalars.from_memory(self.builder, old, dtype)
        return scalars.compute(self.builder, s.op, [old, new], [dtype, dtype], dtype, lanes)

    # --- loops ---

    def loop(self, s: Loop) -> None:
        b, extent = self.builder, self.size(s.extent)
        if not s.lanes:
            self._counted(s, _I64(0), extent, 1)
            return
        self.lanes, outer = s.lanes, self.varying
        self.varying = set(outer)
        maskable = may_be_masked(s)
        if maskable and s.brief:
            with b.if_else(b.icmp_signed("<=", extent, _I64(s.brief))) as (brief, full):
                with brief:
                    self.lanes = s.brief
                    self._last_block(s, _I64(0), extent)
                with full:
                    self.lanes, self.varying = s.lanes, set(outer)
                    self._counted(s, _I64(0), extent, s.lanes, extent)
            self.lanes, self.varying, self.counter = 0, outer, None
            return
        if maskable and len(s.body) > _MOST_TWICE:
            self._counted(s, _I64(0), extent, s.lanes, extent)
            self.lanes, self.varying, self.counter = 0, outer, None
            return
        blocks = b.and_(extent, _I64(-s.lanes))
        self._counted(s, _I64(0), blocks, s.lanes)
        if maskable:
            self._last_block(s, blocks, extent)
            self.lanes, self.varying, self.counter = 0, outer, None
        else:
            self.lanes, self.varying, self.counter = 0, outer, None
            self._counted(s, blocks, extent, 1)

    def _last_block(self, s: Loop, start: Any, stop: Any) -> None:
        b = self.builder
        with b.if_then(b.icmp_signed("<", start, stop), likely=False):
            self.counter = (s.counter, start)
            self.varying = set()
            self.bind(s.counter, start, np.dtype("i8"))
            self.mask = self._lanes_before(stop, start)
            self._emit(s.body)
            self.mask = None

    def _lanes_before(self, stop: Any, start: Any) -> Any:
        """The lanes of the block from ``start`` on that lie before ``stop``."""
        b = self.builder
        steps = ir.Constant(ir.VectorType(_I64, self.lanes), list(range(self.lanes)))
        return b.icmp_signed("<", steps, scalars.splat(b, b.sub(stop, start), self.lanes))

    def _counted(self, s: Loop, start: Any, stop: Any, step: int, masked_by: Any = None) -> None:
        """``for counter in range(start, stop, step): body``, the test at the bottom so that invariants move out.

        ``masked_by``: each block runs under the mask of its lanes before that.
        """
        b = self.builder
        before = b.block
        body, after = b.append_basic_block("body"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed("<", start, stop), body, after)
        b.position_at_end(body)
        counter = b.phi(_I64)
        counter.add_incoming(start, before)
        outer = self.innermost
        if step > 1:
            self.counter = (s.counter, counter)
        self.innermost = counter
        self.bind(s.counter, counter, np.dtype("i8"))
        self.mask = self._lanes_before(masked_by, counter) if masked_by is not None else None
        self._emit(s.body)
        self.mask = None
        self.innermost = outer
        following = b.add(counter, _I64(step), flags=("nsw", "nuw"))
        counter.add_incoming(following, b.block)
        goes_on = b.icmp_signed("<", following, stop)
        if any(isinstance(x, Poll) for x in walk(s.body)):  # an interrupted round is the last one
            goes_on = b.and_(goes_on, b.icmp_signed("==", b.load(self.status), _I64(0)))
        b.cbranch(goes_on, body, after)
        b.position_at_end(after)

    def repeat(self, s: While) -> None:
        b = self.builder
        header, body, after = (b.append_basic_block(name) for name in ("header", "body", "after"))
        b.branch(header)
        b.position_at_end(header)
        self._emit(s.header)
        well = b.icmp_signed("==", b.load(self.status), _I64(0))
        b.cbranch(b.and_(self.values[s.condition], well), body, after)
        b.position_at_end(body)
        self._emit(s.body)
        b.branch(header)
        b.position_at_end(after)

    def branch(self, s: Branch) -> None:
        with self.builder.if_else(self.values[s.condition]) as (then, otherwise):
            with then:
                self._emit(s.then)
            with otherwise:
                self._emit(s.otherwise)

    # --- reductions ---

    def begin(self, s: Begin) -> None:
        element = scalars.constant(neutral(s.op, s.dtype).item(), s.dtype)
        if s.lanes == 1:
            slot, initial = self.slot(element.type), element
        else:
            kind = ir.VectorType(element.type, s.lanes)
            slot, initial = self.slot(kind), ir.Constant(kind, [element] * s.lanes)
        self.builder.store(initial, slot)
        self.accumulators[s.out] = (slot, s)

    def accumulate(self, s: Accumulate) -> None:
        b = self.builder
        slot, begun = self.accumulators[s.into]
        old, kinds = b.load(slot), [begun.dtype] * 2
        if self.lanes:
            value, mask = self._vector(s.value), self.mask
            if self.lanes < begun.lanes:  # a brief block, the first and only one
                value, mask = self._widened(value, begun.lanes), self._widened(mask, begun.lanes)
            new = scalars.compute(b, begun.op, [old, value], kinds, begun.dtype, begun.lanes)
            if mask is not None:
                new = b.select(mask, new, old)
        elif begun.lanes == 1:
            new = scalars.compute(b, begun.op, [old, self.values[s.value]], kinds, begun.dtype, 0)
        else:
            lane = b.trunc(b.and_(self.innermost, _I64(begun.lanes - 1)), _I32)
            one = scalars.compute(
                b, begun.op, [b.extract_element(old, lane), self.values[s.value]], kinds, begun.dtype, 0
            )
            new = b.insert_element(old, one, lane)
        b.store(new, slot)

    def _widened(self, value: Any, lanes: int) -> Any:
        """A block with lanes of zeros, or of False, behind its own."""
        own = ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes)))
        return self.builder.shuffle_vector(value, ir.Constant(value.type, None), own)

    def end(self, s: End) -> None:
        b = self.builder
        slot, begun = self.accumulators[s.accumulator]
        value, lanes = b.load(slot), begun.lanes
        while lanes > 1:
            lanes //= 2
            undefined = ir.Constant(value.type, ir.Undefined)
            low, high = (
                b.shuffle_vector(
                    value, undefined, ir.Constant(ir.VectorType(_I32, lanes), list(range(first, first + lanes)))
                )
                for first in (0, lanes)
            )
            value = scalars.compute(b, begun.op, [low, high], [begun.dtype] * 2, begun.dtype, lanes)
        if begun.lanes > 1:
            value = b.extract_element(value, _I32(0))
        self.bind(s.out, value, begun.dtype)


_EMIT: dict[type, Callable[[NestEmitter, Any], None]] = {
    Literal: NestEmitter.literal, RuntimeScalar: NestEmitter.runtime_scalar, Compute: NestEmitter.compute,
    Load: NestEmitter.load, Store: NestEmitter.store, Begin: NestEmitter.begin, Accumulate: NestEmitter.accumulate,
    End: NestEmitter.end, Declare: NestEmitter.declare, Assign: NestEmitter.assign, Read: NestEmitter.read,
    Check: NestEmitter.check, Loop: NestEmitter.loop, Gemm: emit_calls.gemm, While: NestEmitter.repeat,
    Pack: NestEmitter.pack, Unpack: NestEmitter.unpack, Branch: NestEmitter.branch, Poll: emit_calls.poll,
    Tape: emit_calls.tape, Grow: emit_calls.grow, Free: emit_calls.free, Library: emit_calls.library,
    LoadInteger: emit_calls.load_integer, HostCall: emit_calls.host_call,
}  # fmt: skip

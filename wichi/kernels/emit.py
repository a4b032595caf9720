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

from wichi.kernels import scalars
from wichi.kernels.loops import (
    INTERRUPTED,
    Accumulate,
    Assign,
    Begin,
    Branch,
    Check,
    Compute,
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
    Place,
    Poll,
    Program,
    Read,
    RuntimeScalar,
    Statement,
    Store,
    Tape,
    Value,
    While,
    neutral,
    walk,
)  # fmt: skip

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_WORDS = _I64.as_pointer()


def emit_program(module: ir.Module, program: Program, blas_integer_bits: int) -> ir.Function:
    """``i64 program(i64* arguments, i64* sizes, i64* scalars)``: one call a nest, and out at the first bad status."""
    function = ir.Function(module, ir.FunctionType(_I64, [_WORDS] * 3), module.get_unique_name("wichi_program"))
    function.linkage = "internal"
    arguments, sizes, numbers = function.args
    builder = ir.IRBuilder(function.append_basic_block())

    def word(array: Any, slot: int) -> Any:
        return builder.load(builder.gep(array, [_I64(slot)], inbounds=True))

    pointers = []
    for buffer in program.buffers:
        if buffer.offset is None:
            address = word(arguments, buffer.argument or 0)
        else:
            address = builder.add(word(arguments, program.arguments), word(sizes, buffer.offset.slot))
        pointers.append(builder.inttoptr(address, scalars.memory_type(buffer.dtype).as_pointer()))
    for nest in program.nests:
        status = builder.call(
            _NestEmitter(module, nest, program, blas_integer_bits).function,
            [*(pointers[b] for b in nest.buffers), sizes, numbers],
        )
        if any(isinstance(s, Check | Poll | Tape | Library | HostCall) for s in walk(nest.body)):
            with builder.if_then(builder.icmp_signed("!=", status, _I64(0)), likely=False):
                builder.ret(status)
    builder.ret(_I64(0))
    return function


class _NestEmitter:
    """One nest as a function ``i64 nest(noalias buffers..., sizes, scalars)``."""

    def __init__(self, module: ir.Module, nest: Nest, program: Program, blas_integer_bits: int) -> None:
        self.module, self.blas_integer = module, ir.IntType(blas_integer_bits)
        memory = [scalars.memory_type(program.buffers[b].dtype).as_pointer() for b in nest.buffers]
        kind = ir.FunctionType(_I64, [*memory, _WORDS, _WORDS])
        self.function = ir.Function(module, kind, module.get_unique_name("wichi_nest"))
        self.function.linkage = "internal"
        self.function.attributes.add("noinline")  # keeps functions, and so compile time, bounded
        for argument in self.function.args:
            argument.add_attribute("noalias")
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        *buffers, self.sizes, self.numbers = self.function.args
        self.buffers = dict(zip(nest.buffers, buffers, strict=True))
        self.status = self._slot(_I64)
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
        self._load_sizes(nest)
        self._emit(nest.body)
        self.builder.ret(self.builder.load(self.status))

    def _load_sizes(self, nest: Nest) -> None:
        """All sizes at the top, once: they are invariant, and loops stay clean."""
        for s in walk(nest.body):
            for extent in _extents(s):
                if not isinstance(extent, int) and extent.slot not in self.size_values:
                    place = self.builder.gep(self.sizes, [_I64(extent.slot)], inbounds=True)
                    self.size_values[extent.slot] = self.builder.load(place)

    def _slot(self, kind: Any) -> Any:
        """Stack memory, allocated in the entry block so that LLVM keeps it in registers."""
        with self.builder.goto_entry_block():
            return self.builder.alloca(kind)

    def _size(self, extent: Extent) -> Any:
        return _I64(extent) if isinstance(extent, int) else self.size_values[extent.slot]

    def _emit(self, body: Sequence[Statement]) -> None:
        for s in body:
            _EMIT[type(s)](self, s)

    def _bind(self, out: int, value: Any, dtype: np.dtype[Any], varying: bool = False) -> None:
        self.values[out], self.dtypes[out] = value, dtype
        if varying:
            self.varying.add(out)

    # --- numbers ---

    def literal(self, s: Literal) -> None:
        self._bind(s.out, scalars.constant(s.value, s.dtype), s.dtype)

    def runtime_scalar(self, s: RuntimeScalar) -> None:
        place = self.builder.gep(self.numbers, [_I64(s.slot)], inbounds=True)
        pointer = self.builder.bitcast(place, scalars.memory_type(s.dtype).as_pointer())
        self._bind(s.out, scalars.from_memory(self.builder, self.builder.load(pointer), s.dtype), s.dtype)

    def compute(self, s: Compute) -> None:
        varying = any(self._varies(a) for a in s.args)
        args = [self._vector(a) if varying else self.values[a] for a in s.args]
        lanes = self.lanes if varying else 0
        value = scalars.compute(self.builder, s.op, args, [self.dtypes[a] for a in s.args], s.dtype, lanes)
        self._bind(s.out, value, s.dtype, varying)

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

    def declare(self, s: Declare) -> None:
        slot = self._slot(self.values[s.value].type)
        self.builder.store(self.values[s.value], slot)
        self._bind(s.out, slot, s.dtype)

    def assign(self, s: Assign) -> None:
        self.builder.store(self.values[s.value], self.values[s.variable])

    def read(self, s: Read) -> None:
        self._bind(s.out, self.builder.load(self.values[s.variable]), s.dtype)

    def check(self, s: Check) -> None:
        b = self.builder
        status = b.load(self.status)
        failed = b.and_(b.not_(self.values[s.value]), b.icmp_signed("==", status, _I64(0)))
        b.store(b.select(failed, _I64(s.status), status), self.status)

    # --- memory ---

    def _place(self, buffer: int, index: Index, lane: int | None = None) -> tuple[Any, Extent]:
        """Pointer to the (lane's, or the block's first) element, and how far lanes are apart."""
        b = self.builder
        total, apart = self._size(index.offset), 0
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
            step = number if stride == 1 else b.mul(number, self._size(stride))
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
        if access == "same":
            pointer, _ = self._place(s.buffer, s.index)
            self._bind(s.out, scalars.from_memory(b, b.load(pointer), s.dtype), s.dtype)
            return
        if access == "dense":
            raw = self._load_block(self._place(s.buffer, s.index)[0], s.dtype)
        else:
            raw = ir.Constant(ir.VectorType(scalars.memory_type(s.dtype), self.lanes), ir.Undefined)
            for lane in range(self.lanes):
                pointer, _ = self._place(s.buffer, s.index, lane)
                raw = b.insert_element(raw, b.load(pointer), _I32(lane))
        self._bind(s.out, scalars.from_memory(b, raw, s.dtype), s.dtype, varying=True)

    def _load_block(self, pointer: Any, dtype: np.dtype[Any]) -> Any:
        b, kind = self.builder, ir.VectorType(scalars.memory_type(dtype), self.lanes)
        wide = b.bitcast(pointer, kind.as_pointer())
        if self.mask is None:
            return b.load(wide, align=dtype.itemsize)
        rest = ir.Constant(kind, [kind.element(0)] * self.lanes)
        return scalars.masked_load(b, wide, dtype.itemsize, self.mask, rest)

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
            pointer, _ = self._place(s.buffer, s.index)
            b.store(scalars.to_memory(b, self._combined(s, b.load(pointer) if s.op else None, 0), dtype), pointer)
        elif access == "dense":
            pointer, _ = self._place(s.buffer, s.index)
            old = self._load_block(pointer, dtype) if s.op else None
            self._store_block(scalars.to_memory(b, self._combined(s, old, self.lanes), dtype), pointer, dtype)
        else:
            raw = scalars.to_memory(b, self._vector(s.value), dtype)
            for lane in range(self.lanes):
                pointer, _ = self._place(s.buffer, s.index, lane)
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
        b, extent = self.builder, self._size(s.extent)
        if not s.lanes:
            self._counted(s, _I64(0), extent, 1)
            return
        blocks = b.and_(extent, _I64(-s.lanes))
        self.lanes, outer = s.lanes, self.varying
        self.varying = set(outer)
        self._counted(s, _I64(0), blocks, s.lanes)
        if _may_be_masked(s):
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
            self._bind(s.counter, start, np.dtype("i8"))
            steps = ir.Constant(ir.VectorType(_I64, s.lanes), list(range(s.lanes)))
            left = scalars.splat(b, b.sub(stop, start), s.lanes)
            self.mask = b.icmp_signed("<", steps, left)
            self._emit(s.body)
            self.mask = None

    def _counted(self, s: Loop, start: Any, stop: Any, step: int) -> None:
        """``for counter in range(start, stop, step): body``, the test at the bottom so that invariants move out."""
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
        self._bind(s.counter, counter, np.dtype("i8"))
        self._emit(s.body)
        self.innermost = outer
        following = b.add(counter, _I64(step), flags=("nsw", "nuw"))
        counter.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", following, stop), body, after)
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

    def poll(self, s: Poll) -> None:
        b = self.builder
        with b.goto_entry_block():
            rounds = b.alloca(_I64)
            b.store(_I64(0), rounds)
        count = b.add(b.load(rounds), _I64(1))
        b.store(count, rounds)
        address = b.load(b.gep(self.numbers, [_I64(s.slot)], inbounds=True))
        due = b.icmp_unsigned("==", b.urem(count, _I64(s.every)), _I64(0))
        with b.if_then(b.and_(due, b.icmp_signed("!=", address, _I64(0))), likely=False):
            ask = b.inttoptr(address, ir.FunctionType(_I64, []).as_pointer())
            with b.if_then(b.icmp_signed("!=", b.call(ask, []), _I64(0)), likely=False):
                b.store(_I64(INTERRUPTED), self.status)

    # --- memory that grows ---

    def tape(self, s: Tape) -> None:
        b, kind = self.builder, scalars.memory_type(s.dtype).as_pointer()
        self.tapes[s.buffer] = (self._slot(kind), self._slot(_I64), s)
        b.store(ir.Constant(kind, None), self.tapes[s.buffer][0])
        b.store(_I64(0), self.tapes[s.buffer][1])

    def grow(self, s: Grow) -> None:
        """Doubles what there is, so that a loop of n rounds copies less than 2 n rows."""
        b = self.builder
        address, capacity, record = self.tapes[s.buffer]
        kind = address.type.pointee
        rows = b.add(self.values[s.row], _I64(1))
        needed = b.mul(b.mul(rows, self._size(s.width)), _I64(record.dtype.itemsize))
        fits = self._slot(ir.IntType(1))
        b.store(ir.IntType(1)(1), fits)
        with b.if_then(b.icmp_signed(">", needed, b.load(capacity)), likely=False):
            twice = b.mul(needed, _I64(2))
            wanted = b.select(b.icmp_signed(">", twice, _I64(4096)), twice, _I64(4096))
            limit = b.load(b.gep(self.numbers, [_I64(record.limit)], inbounds=True))
            byte = _I8.as_pointer()
            reallocate = self._function("realloc", byte, [byte, _I64])
            with b.if_else(b.icmp_signed("<=", needed, limit)) as (within, beyond):
                with within:
                    larger = b.call(reallocate, [b.bitcast(b.load(address), byte), wanted])
                    got = b.icmp_unsigned("!=", larger, ir.Constant(byte, None))
                    with b.if_else(got) as (given, refused):
                        with given:
                            b.store(b.bitcast(larger, kind), address)
                            b.store(wanted, capacity)
                        with refused:
                            b.store(ir.IntType(1)(0), fits)
                with beyond:
                    b.store(ir.IntType(1)(0), fits)
            with b.if_then(b.not_(b.load(fits))):
                b.store(_I64(record.status), self.status)
        self._bind(s.out, b.load(fits), np.dtype("?"))

    def free(self, s: Free) -> None:
        b, byte = self.builder, _I8.as_pointer()
        release = self._function("free", ir.VoidType(), [byte])
        b.call(release, [b.bitcast(b.load(self.tapes[s.buffer][0]), byte)])

    def _function(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        return self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(result, arguments), name)

    # --- reductions ---

    def begin(self, s: Begin) -> None:
        element = scalars.constant(neutral(s.op, s.dtype).item(), s.dtype)
        if s.lanes == 1:
            slot, initial = self._slot(element.type), element
        else:
            kind = ir.VectorType(element.type, s.lanes)
            slot, initial = self._slot(kind), ir.Constant(kind, [element] * s.lanes)
        self.builder.store(initial, slot)
        self.accumulators[s.out] = (slot, s)

    def accumulate(self, s: Accumulate) -> None:
        b = self.builder
        slot, begun = self.accumulators[s.into]
        old, kinds = b.load(slot), [begun.dtype] * 2
        if self.lanes:
            new = scalars.compute(b, begun.op, [old, self._vector(s.value)], kinds, begun.dtype, self.lanes)
            if self.mask is not None:
                new = b.select(self.mask, new, old)
        elif begun.lanes == 1:
            new = scalars.compute(b, begun.op, [old, self.values[s.value]], kinds, begun.dtype, 0)
        else:
            lane = b.trunc(b.and_(self.innermost, _I64(begun.lanes - 1)), _I32)
            one = scalars.compute(
                b, begun.op, [b.extract_element(old, lane), self.values[s.value]], kinds, begun.dtype, 0
            )
            new = b.insert_element(old, one, lane)
        b.store(new, slot)

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
        self._bind(s.out, value, begun.dtype)

    # --- library calls ---

    def gemm(self, s: Gemm) -> None:
        """A product by BLAS; of a matrix and a vector where the text of the program says that one side is one."""
        b = self.builder
        nothing = b.or_(b.icmp_signed("==", self._size(s.m), _I64(0)), b.icmp_signed("==", self._size(s.n), _I64(0)))
        with b.if_then(b.not_(nothing)):
            if s.n != 1 and s.m != 1:
                self._matrix_matrix(s)
                return
            # The sum of no terms is 0: ?gemm says so, ?gemv leaves its result as it was.
            with b.if_else(b.icmp_signed("==", self._size(s.k), _I64(0)), likely=False) as (empty, full):
                with empty:
                    self._matrix_matrix(s)
                with full:
                    self._matrix_vector(s)

    def _matrix_matrix(self, s: Gemm) -> None:
        """Row-major ``C = A B`` is column-major ``C' = B' A'``."""
        real = scalars.memory_type(s.dtype)
        self._blas(
            f"wichi_{'d' if s.dtype.itemsize == 8 else 's'}gemm",
            [
                _flag(s.b_t), _flag(s.a_t), self._size(s.n), self._size(s.m), self._size(s.k), real(1.0),
                self._place(s.b, s.b_at)[0], self._size(s.b_lead), self._place(s.a, s.a_at)[0], self._size(s.a_lead),
                real(0.0), self._place(s.c, s.c_at)[0], self._size(s.n),
            ],
        )  # fmt: skip

    def _matrix_vector(self, s: Gemm) -> None:
        """``y = M x`` or ``M' x``. A vector is a matrix of one column, ``lead`` apart, or of one row, dense."""
        real = scalars.memory_type(s.dtype)
        if s.n == 1:  # C = A b
            matrix, at, lead, transposed = s.a, s.a_at, s.a_lead, s.a_t
            vector, vector_at, apart = s.b, s.b_at, 1 if s.b_t else s.b_lead
            rows, columns = s.m, s.k
        else:  # C' = B' a
            matrix, at, lead, transposed = s.b, s.b_at, s.b_lead, not s.b_t
            vector, vector_at, apart = s.a, s.a_at, s.a_lead if s.a_t else 1
            rows, columns = s.n, s.k
        # In memory the matrix is rows x columns row by row, or with ``transposed`` columns x rows; BLAS reads columns.
        shape = (rows, columns) if transposed else (columns, rows)
        self._blas(
            f"wichi_{'d' if s.dtype.itemsize == 8 else 's'}gemv",
            [
                _flag(not transposed), self._size(shape[0]), self._size(shape[1]), real(1.0),
                self._place(matrix, at)[0], self._size(lead), self._place(vector, vector_at)[0], self._size(apart),
                real(0.0), self._place(s.c, s.c_at)[0], _I64(1),
            ],
        )  # fmt: skip

    def library(self, s: Library) -> None:
        b, args = self.builder, []
        for x in s.arguments:
            if isinstance(x, str):
                args.append(_I8(ord(x)))
            elif isinstance(x, Place):
                args.append(self._place(x.buffer, x.at)[0])
            else:
                args.append(self.values[x.id] if isinstance(x, Value) else self._size(x))
        name = f"wichi_{'d' if s.dtype.itemsize == 8 else 's'}{s.name}"
        if s.name == "trsm":  # of BLAS: it has no `info`
            self._blas(name, args)
            return
        info = self._slot(self.blas_integer)
        b.store(self.blas_integer(0), info)
        self._blas(name, [*args, info])
        if s.status:
            bad = b.icmp_signed("!=", b.load(info), self.blas_integer(0))
            with b.if_then(b.and_(bad, b.icmp_signed("==", b.load(self.status), _I64(0))), likely=False):
                b.store(_I64(s.status), self.status)

    def host_call(self, s: HostCall) -> None:
        b = self.builder
        with b.goto_entry_block():
            table = b.alloca(_I64, len(s.arguments))
        for i, place in enumerate(s.arguments):
            b.store(b.ptrtoint(self._place(place.buffer, place.at)[0], _I64), b.gep(table, [_I64(i)]))
        address = b.load(b.gep(self.numbers, [_I64(s.slot)], inbounds=True))
        function = b.inttoptr(address, ir.FunctionType(_I64, [_WORDS]).as_pointer())
        with b.if_then(b.icmp_signed("==", b.load(self.status), _I64(0))):  # not after a failure
            answer = b.call(function, [table])
            b.store(b.select(b.icmp_signed("!=", answer, _I64(0)), _I64(s.status), _I64(0)), self.status)

    def load_integer(self, s: LoadInteger) -> None:
        b = self.builder
        place = self.values[s.index.terms[0][0]] if s.index.terms else _I64(0)
        base = b.bitcast(self.buffers[s.buffer], self.blas_integer.as_pointer())
        found = b.load(b.gep(base, [place], inbounds=True))
        self._bind(s.out, found if self.blas_integer.width == 64 else b.sext(found, _I64), np.dtype("i8"))

    def _blas(self, name: str, args: Sequence[Any]) -> None:
        """Every argument goes by address, as in Fortran; 64-bit words are integers of BLAS's own width."""
        b, pointer = self.builder, _I8.as_pointer()

        def by_address(value: Any) -> Any:
            if isinstance(value.type, ir.PointerType):
                return b.bitcast(value, pointer)
            if value.type == _I64 and self.blas_integer.width != 64:
                value = b.trunc(value, self.blas_integer)
            slot = self._slot(value.type)
            b.store(value, slot)
            return b.bitcast(slot, pointer)

        function = self._function(name, ir.VoidType(), [pointer] * len(args))
        b.call(function, [by_address(a) for a in args])


def _flag(transposed: bool) -> Any:
    return _I8(ord("T" if transposed else "N"))


def _may_be_masked(loop: Loop) -> bool:
    """Whether the last block can run under a mask: it stores densely, and reads at places known from counters alone."""
    inside = {s.out for s in loop.body if isinstance(s, Load | Compute)}
    for s in loop.body:
        if isinstance(s, Load | Store) and any(v in inside for v, _ in s.index.terms):
            return False
        if isinstance(s, Store) and (loop.counter, 1) not in s.index.terms:
            return False
    return True


def _extents(s: Statement) -> list[Extent]:
    if isinstance(s, Load | Store):
        return [s.index.offset, *(stride for _, stride in s.index.terms)]
    if isinstance(s, Loop):
        return [s.extent]
    if isinstance(s, Grow):
        return [s.width]
    if isinstance(s, HostCall):
        return [e for p in s.arguments for e in (p.at.offset, *(x for _, x in p.at.terms))]
    if isinstance(s, Library):
        at = [e for p in s.arguments if isinstance(p, Place) for e in (p.at.offset, *(x for _, x in p.at.terms))]
        return [*at, *(x for x in s.arguments if not isinstance(x, str | Place | Value))]
    if isinstance(s, Gemm):
        places = [e for at in (s.a_at, s.b_at, s.c_at) for e in (at.offset, *(stride for _, stride in at.terms))]
        return [s.a_lead, s.b_lead, s.m, s.n, s.k, *places]
    return []


_EMIT: dict[type, Callable[[_NestEmitter, Any], None]] = {
    Literal: _NestEmitter.literal, RuntimeScalar: _NestEmitter.runtime_scalar, Compute: _NestEmitter.compute,
    Load: _NestEmitter.load, Store: _NestEmitter.store, Begin: _NestEmitter.begin, Accumulate: _NestEmitter.accumulate,
    End: _NestEmitter.end, Declare: _NestEmitter.declare, Assign: _NestEmitter.assign, Read: _NestEmitter.read,
    Check: _NestEmitter.check, Loop: _NestEmitter.loop, Gemm: _NestEmitter.gemm, While: _NestEmitter.repeat,
    Branch: _NestEmitter.branch, Poll: _NestEmitter.poll, Tape: _NestEmitter.tape, Grow: _NestEmitter.grow,
    Free: _NestEmitter.free, Library: _NestEmitter.library, LoadInteger: _NestEmitter.load_integer,
    HostCall: _NestEmitter.host_call,
}  # fmt: skip

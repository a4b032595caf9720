"""Loop IR that calls others, as LLVM IR: BLAS, LAPACK, Python functions of the user's, the C library's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir

from wichi.kernels import scalars, small_product, sorting
from wichi.kernels.loops import (
    INTERRUPTED,
    Extent,
    Free,
    Gemm,
    Grow,
    HostCall,
    Library,
    LoadInteger,
    Place,
    Poll,
    Tape,
    Value,
)

if TYPE_CHECKING:
    from wichi.kernels.emit import NestEmitter

_I8, _I64 = ir.IntType(8), ir.IntType(64)
_WORDS = _I64.as_pointer()


_FIRST_TAPE = 2048  # bytes on the stack: most loops are short


def tape(e: NestEmitter, s: Tape) -> None:
    b, kind = e.builder, scalars.memory_type(s.dtype).as_pointer()
    with b.goto_entry_block():
        first = b.alloca(_I8, _FIRST_TAPE)
        first.align = 64
    e.tapes[s.buffer] = (e.slot(kind), e.slot(_I64), s, first)
    b.store(b.bitcast(first, kind), e.tapes[s.buffer][0])
    b.store(_I64(_FIRST_TAPE), e.tapes[s.buffer][1])


def grow(e: NestEmitter, s: Grow) -> None:
    """Doubles what there is, so that a loop of n rounds copies less than 2 n rows."""
    b = e.builder
    address, capacity, record, first = e.tapes[s.buffer]
    kind = address.type.pointee
    rows = b.add(e.values[s.row], _I64(1))
    needed = b.mul(b.mul(rows, e.size(s.width)), _I64(record.dtype.itemsize))
    fits = e.slot(ir.IntType(1))
    b.store(ir.IntType(1)(1), fits)
    with b.if_then(b.icmp_signed(">", needed, b.load(capacity)), likely=False):
        twice = b.mul(needed, _I64(2))
        wanted = b.select(b.icmp_signed(">", twice, _I64(4096)), twice, _I64(4096))
        limit = b.load(b.gep(e.numbers, [_I64(record.limit)], inbounds=True))
        byte = _I8.as_pointer()
        reallocate = declared(e, "realloc", byte, [byte, _I64])
        copy = declared(e, "memcpy", byte, [byte, byte, _I64])
        with b.if_else(b.icmp_signed("<=", needed, limit)) as (within, beyond):
            with within:
                old = b.bitcast(b.load(address), byte)
                on_stack = b.icmp_unsigned("==", old, first)
                larger = b.call(reallocate, [b.select(on_stack, ir.Constant(byte, None), old), wanted])
                got = b.icmp_unsigned("!=", larger, ir.Constant(byte, None))
                with b.if_else(got) as (given, refused):
                    with given:
                        with b.if_then(on_stack):
                            b.call(copy, [larger, first, _I64(_FIRST_TAPE)])
                        b.store(b.bitcast(larger, kind), address)
                        b.store(wanted, capacity)
                    with refused:
                        b.store(ir.IntType(1)(0), fits)
            with beyond:
                b.store(ir.IntType(1)(0), fits)
        with b.if_then(b.not_(b.load(fits))):
            b.store(_I64(record.status), e.status)
    e.bind(s.out, b.load(fits), np.dtype("?"))


def free(e: NestEmitter, s: Free) -> None:
    b, byte = e.builder, _I8.as_pointer()
    release = declared(e, "free", ir.VoidType(), [byte])
    address, _, _, first = e.tapes[s.buffer]
    held = b.bitcast(b.load(address), byte)
    with b.if_then(b.icmp_unsigned("!=", held, first)):
        b.call(release, [held])


def declared(e: NestEmitter, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    return e.module.globals.get(name) or ir.Function(e.module, ir.FunctionType(result, arguments), name)


def gemm(e: NestEmitter, s: Gemm) -> None:
    """A product by BLAS, or our own where it is small.

    Of a matrix and a vector where the text of the program says that one side is one.
    """
    b = e.builder
    if s.n != 1 and s.m != 1:
        work = b.mul(b.mul(e.size(s.m), e.size(s.n)), e.size(s.k))
        small = b.and_(
            b.icmp_signed("<=", work, _I64(small_product.MOST)),
            b.icmp_signed("<=", b.mul(e.size(s.n), e.size(s.k)), _I64(small_product.MOST_PACKED)),
        )
        with b.if_else(small) as (ours, theirs):
            with ours:
                _small(e, s)
            with theirs:
                matrix_matrix(e, s)
        return
    nothing = b.or_(b.icmp_signed("==", e.size(s.m), _I64(0)), b.icmp_signed("==", e.size(s.n), _I64(0)))
    # The sum of no terms is 0: ?gemm says so, ?gemv leaves its result as it was.
    none = b.icmp_signed("==", e.size(s.k), _I64(0))
    with b.if_then(b.not_(nothing)), b.if_else(none, likely=False) as (empty, full):
        with empty:
            matrix_matrix(e, s)
        with full:
            matrix_vector(e, s)


def matrix_matrix(e: NestEmitter, s: Gemm) -> None:
    """Row-major ``C = A B`` is column-major ``C' = B' A'``."""
    real = scalars.memory_type(s.dtype)
    blas(e,
        f"wichi_{'d' if s.dtype.itemsize == 8 else 's'}gemm",
        [
            _flag(s.b_t), _flag(s.a_t), e.size(s.n), e.size(s.m), e.size(s.k), real(1.0),
            e.place(s.b, s.b_at)[0], e.size(s.b_lead), e.place(s.a, s.a_at)[0], e.size(s.a_lead),
            _beta(e, s), e.place(s.c, s.c_at)[0], e.size(s.c_lead),
        ],
    )  # fmt: skip


def matrix_vector(e: NestEmitter, s: Gemm) -> None:
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
    blas(e,
        f"wichi_{'d' if s.dtype.itemsize == 8 else 's'}gemv",
        [
            _flag(not transposed), e.size(shape[0]), e.size(shape[1]), real(1.0),
            e.place(matrix, at)[0], e.size(lead), e.place(vector, vector_at)[0], e.size(apart),
            _beta(e, s), e.place(s.c, s.c_at)[0], e.size(s.c_lead if s.n == 1 else 1),
        ],
    )  # fmt: skip


def _small(e: NestEmitter, s: Gemm) -> None:
    b = e.builder
    function = small_product.small_product(e.module, scalars.memory_type(s.dtype), e.fused)
    one = _I64(1)

    def distances(lead: Extent, transposed: bool) -> tuple[Any, Any]:
        return (one, e.size(lead)) if transposed else (e.size(lead), one)

    b.call(
        function,
        [
            e.place(s.a, s.a_at)[0], *distances(s.a_lead, s.a_t), e.place(s.b, s.b_at)[0],
            *distances(s.b_lead, s.b_t), e.place(s.c, s.c_at)[0], e.size(s.c_lead), e.size(s.m), e.size(s.n),
            e.size(s.k), ir.IntType(1)(0) if s.adds is None else e.values[s.adds],
        ],
    )  # fmt: skip


def _beta(e: NestEmitter, s: Gemm) -> Any:
    """What BLAS multiplies the old C by."""
    real = scalars.memory_type(s.dtype)
    return real(0.0) if s.adds is None else e.builder.select(e.values[s.adds], real(1.0), real(0.0))


def library(e: NestEmitter, s: Library) -> None:
    b, args = e.builder, []
    for x in s.arguments:
        if isinstance(x, str):
            args.append(_I8(ord(x)))
        elif isinstance(x, Place):
            args.append(e.place(x.buffer, x.at)[0])
        else:
            args.append(e.values[x.id] if isinstance(x, Value) else e.size(x))
    if s.name == "stable_sort":
        b.call(sorting.stable_sort(e.module, s.dtype, numbered=len(args) > 3), args)
        return
    if s.name == "search":
        b.call(sorting.search(e.module, s.dtype), args)
        return
    name = f"wichi_{'d' if s.dtype.itemsize == 8 else 's'}{s.name}"
    if s.name == "trsm":  # of BLAS: it has no `info`
        blas(e, name, args)
        return
    info = e.slot(e.blas_integer)
    b.store(e.blas_integer(0), info)
    blas(e, name, [*args, info])
    if s.status:
        bad = b.icmp_signed("!=", b.load(info), e.blas_integer(0))
        with b.if_then(b.and_(bad, b.icmp_signed("==", b.load(e.status), _I64(0))), likely=False):
            b.store(_I64(s.status), e.status)


def host_call(e: NestEmitter, s: HostCall) -> None:
    b = e.builder
    with b.goto_entry_block():
        table = b.alloca(_I64, len(s.arguments))
    for i, place in enumerate(s.arguments):
        b.store(b.ptrtoint(e.place(place.buffer, place.at)[0], _I64), b.gep(table, [_I64(i)]))
    address = b.load(b.gep(e.numbers, [_I64(s.slot)], inbounds=True))
    function = b.inttoptr(address, ir.FunctionType(_I64, [_WORDS]).as_pointer())
    with b.if_then(b.icmp_signed("==", b.load(e.status), _I64(0))):  # not after a failure
        answer = b.call(function, [table])
        b.store(b.select(b.icmp_signed("!=", answer, _I64(0)), _I64(s.status), _I64(0)), e.status)


def load_integer(e: NestEmitter, s: LoadInteger) -> None:
    b = e.builder
    place = e.values[s.index.terms[0][0]] if s.index.terms else _I64(0)
    base = b.bitcast(e.buffers[s.buffer], e.blas_integer.as_pointer())
    found = b.load(b.gep(base, [place], inbounds=True))
    e.bind(s.out, found if e.blas_integer.width == 64 else b.sext(found, _I64), np.dtype("i8"))


def blas(e: NestEmitter, name: str, args: Sequence[Any]) -> None:
    """Every argument goes by address, as in Fortran; 64-bit words are integers of BLAS's own width."""
    b, pointer = e.builder, _I8.as_pointer()

    def by_address(value: Any) -> Any:
        if isinstance(value.type, ir.PointerType):
            return b.bitcast(value, pointer)
        if value.type == _I64 and e.blas_integer.width != 64:
            value = b.trunc(value, e.blas_integer)
        slot = e.slot(value.type)
        b.store(value, slot)
        return b.bitcast(slot, pointer)

    function = declared(e, name, ir.VoidType(), [pointer] * len(args))
    b.call(function, [by_address(a) for a in args])


def _flag(transposed: bool) -> Any:
    return _I8(ord("T" if transposed else "N"))


def poll(e: NestEmitter, s: Poll) -> None:
    b = e.builder
    with b.goto_entry_block():
        rounds = b.alloca(_I64)
        b.store(_I64(0), rounds)
    count = b.add(b.load(rounds), _I64(1))
    b.store(count, rounds)
    address = b.load(b.gep(e.numbers, [_I64(s.slot)], inbounds=True))
    due = b.icmp_unsigned("==", b.urem(count, _I64(s.every)), _I64(0))
    with b.if_then(b.and_(due, b.icmp_signed("!=", address, _I64(0))), likely=False):
        ask = b.inttoptr(address, ir.FunctionType(_I64, []).as_pointer())
        with b.if_then(b.icmp_signed("!=", b.call(ask, []), _I64(0)), likely=False):
            b.store(_I64(INTERRUPTED), e.status)

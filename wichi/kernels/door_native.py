"""The native entry of a call: machine code that is handed Python's argument objects, checks them, and runs the program.

It works from a table of words (``door`` names them) that ``fastcall`` writes. It is compiled once and kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from wichi.kernels import link
from wichi.kernels.cache import ObjectCode
from wichi.kernels.door import (
    ARRAYS,
    CAPTURED,
    CELL_CONTENTS,
    CELLS,
    COUNT,
    DATA,
    DEBUGGING,
    DENSE,
    DESCR,
    DIMS,
    ENTRY,
    FLAGS,
    GET_ITEM,
    HEAD,
    INCREF,
    NAMES,
    NDIM,
    NO,
    NUMBER,
    OWN,
    RESTORE,
    SAVE,
    SCALARS,
    SIZES,
    SPANS,
    STACK,
    TYPE,
    WRITEABLE,
    WRITES,
    WRITTEN,
    YES,
)  # fmt: skip

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class _Words:
    """LLVM instructions on 64-bit words, which are numbers and addresses alike."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.b = builder

    def load(self, address: Any, offset: int = 0) -> Any:
        return self.b.load(self._pointer(address, offset, _I64))

    def load_int(self, address: Any, offset: int) -> Any:
        return self.b.sext(self.b.load(self._pointer(address, offset, _I32)), _I64)

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self._pointer(address, 0, _I64))

    def _pointer(self, address: Any, offset: int, kind: Any) -> Any:
        return self.b.inttoptr(self.plus(address, offset), kind.as_pointer())

    def plus(self, a: Any, b: Any) -> Any:
        return a if type(b) is int and b == 0 else self.b.add(a, _I64(b) if type(b) is int else b)

    def times(self, a: Any, b: int) -> Any:
        return self.b.mul(a, _I64(b))

    def equal(self, a: Any, b: Any) -> Any:
        return self.b.icmp_unsigned("==", a, _I64(b) if type(b) is int else b)

    def call(self, address: Any, *args: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64] * len(args))
        return self.b.call(self.b.inttoptr(address, kind.as_pointer()), args)

    def unless(self, condition: Any, target: Any) -> None:
        """Go to the block ``target`` unless the condition holds."""
        well = self.b.append_basic_block()
        self.b.cbranch(condition, well, target)
        self.b.position_at_end(well)

    def repeat(self, count: Any, at: Any, body: Callable[[Any, Any], Any]) -> Any:
        """``for i in range(count): at = body(i, at)``; answers the last ``at``."""
        b = self.b
        before, head = b.block, b.append_basic_block()
        inside, after = b.append_basic_block(), b.append_basic_block()
        b.branch(head)
        b.position_at_end(head)
        i, place = b.phi(_I64), b.phi(_I64)
        i.add_incoming(_I64(0), before)
        place.add_incoming(at, before)
        b.cbranch(b.icmp_signed("<", i, count), inside, after)
        b.position_at_end(inside)
        following = body(i, place)
        i.add_incoming(b.add(i, _I64(1)), b.block)
        place.add_incoming(following, b.block)
        b.branch(head)
        b.position_at_end(after)
        return place


def source() -> str:
    """``door(self, args, count)`` of ``METH_FASTCALL``, as LLVM IR.

    It answers True if the arguments were the expected ones and the program ran; else False, and nothing is done.
    """
    module = ir.Module("wichi_door")
    function = ir.Function(module, ir.FunctionType(_I64, [_I64] * 3), "wichi_door")
    self, args, count = function.args
    b = ir.IRBuilder(function.append_basic_block())
    w = _Words(b)
    refused = function.append_basic_block()
    table = w.load(self, DATA)

    def head(word: int) -> Any:
        return w.load(table, 8 * word)

    def argument(number: Any) -> Any:
        return w.load(w.plus(args, w.times(number, 8)))

    w.unless(w.equal(count, head(COUNT)), refused)
    w.unless(w.equal(w.load(head(DEBUGGING)), 0), refused)

    def cell(i: Any, at: Any) -> Any:
        w.unless(w.equal(w.load(w.load(at), CELL_CONTENTS), w.load(at, 8)), refused)
        return w.plus(at, 16)

    def name(i: Any, at: Any) -> Any:
        w.unless(w.equal(w.call(head(GET_ITEM), w.load(at), w.load(at, 8)), w.load(at, 16)), refused)
        return w.plus(at, 24)

    at = w.repeat(head(CELLS), w.plus(table, 8 * HEAD), cell)
    at = w.repeat(head(NAMES), at, name)
    arrays = head(ARRAYS)
    workspace = _workspace(w, head(STACK), lambda: argument(b.sub(count, _I64(1))))

    def array(i: Any, at: Any) -> Any:
        how, what, kind = w.load(at), w.load(at, 8), w.load(at, 16)
        slot = w.plus(workspace, w.times(i, 8))
        number, checked, own, done = (b.append_basic_block() for _ in range(4))
        blocks = []
        captured = w.equal(how, CAPTURED)
        x = w.load(b.select(captured, w.plus(at, 8), w.plus(args, w.times(b.select(captured, _I64(0), what), 8))))
        choice = b.switch(how, checked)
        choice.add_case(_I64(NUMBER), number)
        choice.add_case(_I64(OWN), own)
        b.position_at_end(number)  # the number itself lies where an array has its data pointer
        found = w.load(x, TYPE)
        w.unless(b.or_(w.equal(found, kind), w.equal(found, w.load(at, 24))), refused)
        w.store(w.plus(x, DATA), slot)
        blocks.append((w.plus(at, 32), b.block))
        b.branch(done)
        b.position_at_end(checked)
        rank = w.load(at, 32)
        w.unless(w.equal(w.load(x, TYPE), kind), refused)
        same = b.and_(w.equal(w.load(x, DESCR), w.load(at, 24)), w.equal(w.load_int(x, NDIM), rank))
        flags = b.select(w.equal(how, WRITTEN), _I64(DENSE | WRITEABLE), _I64(DENSE))
        same = b.and_(same, w.equal(b.and_(w.load_int(x, FLAGS), flags), flags))
        w.unless(same, refused)
        dims = w.load(x, DIMS)

        def axis(k: Any, place: Any) -> Any:
            w.unless(w.equal(w.load(w.plus(dims, w.times(k, 8))), w.load(place)), refused)
            return w.plus(place, 8)

        w.repeat(rank, w.plus(at, 40), axis)
        b.branch(own)
        b.position_at_end(own)
        w.store(w.load(x, DATA), slot)
        blocks.append((w.plus(w.plus(at, 40), w.times(w.load(at, 32), 8)), b.block))
        b.branch(done)
        b.position_at_end(done)
        following = b.phi(_I64)
        for value, block in blocks:
            following.add_incoming(value, block)
        return following

    at = w.repeat(arrays, at, array)
    spans = w.plus(at, w.times(head(WRITES), 16))

    def span(place: Any) -> tuple[Any, Any]:
        start = w.load(w.plus(workspace, w.times(w.load(place), 8)))
        return start, w.plus(start, w.load(place, 8))

    def written(i: Any, at: Any) -> Any:
        start, stop = span(at)

        def other(k: Any, place: Any) -> Any:
            low, high = span(place)
            apart = b.or_(b.icmp_unsigned("<=", high, start), b.icmp_unsigned(">=", low, stop))
            w.unless(b.or_(apart, w.equal(w.load(place), w.load(at))), refused)
            return w.plus(place, 16)

        w.repeat(head(SPANS), spans, other)
        return w.plus(at, 16)

    w.repeat(head(WRITES), at, written)
    end = w.plus(workspace, w.times(arrays, 8))
    w.store(b.and_(w.plus(end, 8 + 63), _I64(-64)), end)
    save = head(SAVE)
    status = b.alloca(_I64)
    with b.if_else(w.equal(save, 0)) as (keeping, releasing):
        with keeping:
            b.store(w.call(head(ENTRY), workspace, head(SIZES), head(SCALARS)), status)
        with releasing:
            thread = w.call(save)
            b.store(w.call(head(ENTRY), workspace, head(SIZES), head(SCALARS)), status)
            w.call(head(RESTORE), thread)
    w.unless(w.equal(b.load(status), 0), refused)
    for word, ending in ((YES, b.block), (NO, refused)):
        b.position_at_end(ending)
        w.call(head(INCREF), head(word))
        b.ret(head(word))
    return str(module)


def _workspace(w: _Words, on_stack: Any, last: Callable[[], Any]) -> Any:
    """Memory for the table of addresses and the arena."""
    b = w.b
    own, given, either = (b.append_basic_block() for _ in range(3))
    b.cbranch(w.equal(on_stack, 0), given, own)
    b.position_at_end(own)
    room = b.ptrtoint(b.alloca(ir.IntType(8), on_stack), _I64)
    b.branch(either)
    b.position_at_end(given)
    data = w.load(last(), DATA)
    b.branch(either)
    b.position_at_end(either)
    found = b.phi(_I64)
    found.add_incoming(room, own)
    found.add_incoming(data, given)
    return found


def compile_door() -> ObjectCode:
    """The entry as object code."""
    return ObjectCode("wichi_door", link.object_code(source(), link.host()))

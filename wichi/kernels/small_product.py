"""Small matrix products as machine code of our own: a library call costs more than the product itself.

One function a program and dtype serves all sizes; ``emit_calls`` asks at run time whether a product is small. Rows of A
are taken four at a time against a block of columns of B, so that each number loaded is used several times. Where rows
of A and columns of B are dense and long, vectors go along them, and their lanes are added up at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from wichi.kernels import scalars

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_ZERO = _I64(0)
MOST = 48 * 48 * 48  # multiplications; measured: from here on OpenBLAS is as fast or faster
MOST_PACKED = 4096  # elements of a transposed B that are copied to the stack
_LONG = 32  # terms of a sum from which on vectors may go along it; measured, as is:
_LONGER = 3  # ... if it has so many times more terms than there are rows: else copying B costs less


def small_product(module: ir.Module, real: Any, fused: bool) -> ir.Function:
    """``C = A B`` or ``C += A B``, in memory of the module's own function.

    Arguments: A, its distances between rows and between columns; B, its distances; C, its distance between rows (its
    columns are dense); m, n, k; whether to add. ``fused``: with fused multiply-adds, where the processor has them.
    """
    name = f"wichi_small_{'d' if isinstance(real, ir.DoubleType) else 's'}gemm"
    found = module.globals.get(name)
    if found is not None:
        return found  # type: ignore[no-any-return]
    pointer = real.as_pointer()
    kind = ir.FunctionType(
        ir.VoidType(), [pointer, _I64, _I64, pointer, _I64, _I64, pointer, _I64, _I64, _I64, _I64, ir.IntType(1)]
    )
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    for argument in function.args:
        if argument.type == pointer:
            argument.add_attribute("noalias")
    _Writer(function, real, fused).write()
    return function


class _Writer:
    def __init__(self, function: ir.Function, real: Any, fused: bool) -> None:
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.real, self.fused = real, fused
        self.lanes = 8 if isinstance(real, ir.DoubleType) else 16
        (self.a, self.a_down, self.a_across, self.given_b, self.b_down, self.b_across, self.c, self.c_down,
         self.m, self.n, self.k, self.adds) = function.args  # fmt: skip

    def write(self) -> None:
        b, one = self.b, _I64(1)
        dense = b.and_(b.icmp_signed("==", self.a_across, one), b.icmp_signed("==", self.b_down, one))
        most_rows = b.icmp_signed(">=", self.k, b.mul(self.m, _I64(_LONGER)))
        long = b.and_(b.icmp_signed(">=", self.k, _I64(_LONG)), most_rows)
        with b.if_else(b.and_(dense, long)) as (along_sums, along_rows):
            with along_sums, self._range(self.m, step=4) as i, self._range(self.n, step=2) as j:
                self._dots(i, j)
            with along_rows:
                self._by_rows()
        b.ret_void()

    def _dots(self, i: Any, j: Any) -> None:
        """Four rows of A with two columns of B. Beyond the last ones come the last ones again."""
        b, kind = self.b, ir.VectorType(self.real, self.lanes)
        last_row, last_column = b.sub(self.m, _I64(1)), b.sub(self.n, _I64(1))
        rows = [self._least(b.add(i, _I64(q)), last_row) for q in range(4)]
        columns = [self._least(b.add(j, _I64(q)), last_column) for q in range(2)]
        zero = ir.Constant(kind, [self.real(0.0)] * self.lanes)
        align = 8 if isinstance(self.real, ir.DoubleType) else 4
        steps = ir.Constant(ir.VectorType(_I64, self.lanes), list(range(self.lanes)))
        whole = b.and_(self.k, _I64(-self.lanes))
        totals = [zero] * 8
        for start, stop, masked in ((_ZERO, whole, False), (whole, self.k, True)):
            with self._range(stop, start=start, step=self.lanes, carried=totals) as (p, sums, following):
                mask = b.icmp_signed("<", steps, scalars.splat(b, b.sub(self.k, p), self.lanes)) if masked else None

                def vector(place: Any, mask: Any = mask) -> Any:
                    wide = self._wide(place, kind)
                    return (
                        b.load(wide, align=align) if mask is None else scalars.masked_load(b, wide, align, mask, zero)
                    )

                left = [vector(self._at(self.a, row, self.a_down, p, _I64(1))) for row in rows]
                right = [vector(self._at(self.given_b, column, self.b_across, p, _I64(1))) for column in columns]
                pairs = [(x, y) for x in left for y in right]
                following += [
                    scalars.multiply_add(b, x, y, total, self.fused) for (x, y), total in zip(pairs, sums, strict=True)
                ]
            totals = self.results
        sums = self._added_up(totals)
        targets = [self._at(self.c, row, self.c_down, column, _I64(1)) for row in rows for column in columns]
        values = [b.extract_element(sums, ir.IntType(32)(lane)) for lane in range(8)]
        with b.if_else(self.adds) as (added, stored):
            with added:  # all are read before one is written: the last ones may be there twice
                more = [b.fadd(b.load(target), value) for target, value in zip(targets, values, strict=True)]
                for target, value in zip(targets, more, strict=True):
                    b.store(value, target)
            with stored:
                for target, value in zip(targets, values, strict=True):
                    b.store(value, target)

    def _added_up(self, vectors: Sequence[Any]) -> Any:
        """Eight sums over lanes at once: lane ``p`` of the answer is the sum of vector ``p``."""
        b, lanes = self.b, self.lanes
        bit = 1
        while len(vectors) > 1:
            low = [p if not p & bit else lanes + p - bit for p in range(lanes)]
            high = [p + bit if not p & bit else lanes + p for p in range(lanes)]
            vectors = [
                b.fadd(self._shuffled(x, y, low), self._shuffled(x, y, high))
                for x, y in zip(vectors[::2], vectors[1::2], strict=True)
            ]
            bit *= 2
        (found,) = vectors
        while lanes > 8:
            lanes //= 2
            first, second = ([*range(lanes)], [*range(lanes, 2 * lanes)])
            found = b.fadd(self._shuffled(found, found, first), self._shuffled(found, found, second))
        return found

    def _shuffled(self, x: Any, y: Any, places: Sequence[int]) -> Any:
        return self.b.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(places)), list(places)))

    def _least(self, x: Any, y: Any) -> Any:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def _by_rows(self) -> None:
        b = self.b
        with b.goto_entry_block():
            packed = b.alloca(self.real, MOST_PACKED)
            packed.align = 64
        dense = b.icmp_signed("==", self.b_across, _I64(1))
        with b.if_then(b.not_(dense)), self._range(self.k) as p, self._range(self.n) as j:
            value = b.load(self._at(self.given_b, p, self.b_down, j, self.b_across))
            b.store(value, self._at(packed, p, self.n, j, _I64(1)))
        self.right = b.select(dense, self.given_b, packed)
        self.right_down = b.select(dense, self.b_down, self.n)
        fours, twos = (b.and_(self.m, _I64(-count)) for count in (4, 2))
        with self._range(fours, step=4) as i:
            self._columns(i, 4)
        with self._range(twos, start=fours, step=2) as i:
            self._columns(i, 2)
        with self._range(self.m, start=twos) as i:
            self._columns(i, 1)

    def _columns(self, i: Any, rows: int) -> None:
        """``rows`` rows of C from ``i`` on: blocks of two vectors of columns, then of one."""
        b = self.b
        wide = 2 * self.lanes
        pairs = b.mul(b.udiv(b.add(self.n, _I64(self.lanes - 1)), _I64(wide)), _I64(wide))
        with self._range(pairs, step=wide) as j:
            self._block(i, rows, j, wide)
        with self._range(self.n, start=pairs, step=self.lanes) as j:
            self._block(i, rows, j, self.lanes)

    def _block(self, i: Any, rows: int, j: Any, lanes: int) -> None:
        b, kind = self.b, ir.VectorType(self.real, lanes)
        steps = ir.Constant(ir.VectorType(_I64, lanes), list(range(lanes)))
        mask = b.icmp_signed("<", steps, scalars.splat(b, b.sub(self.n, j), lanes))
        zero = ir.Constant(kind, [self.real(0.0)] * lanes)
        align = 8 if isinstance(self.real, ir.DoubleType) else 4
        places = [b.add(i, _I64(q)) for q in range(rows)]
        targets = [self._wide(self._at(self.c, row, self.c_down, j, _I64(1)), kind) for row in places]
        # With nothing to add, nothing is read: C may hold anything.
        reading = b.and_(mask, scalars.splat(b, self.adds, lanes))
        first = [scalars.masked_load(b, t, align, reading, zero) for t in targets]
        with self._range(self.k, carried=first) as (p, totals, following):
            right = self._wide(self._at(self.right, p, self.right_down, j, _I64(1)), kind)
            row = scalars.masked_load(b, right, align, mask, zero)
            for total, place in zip(totals, places, strict=True):
                left = scalars.splat(b, b.load(self._at(self.a, place, self.a_down, p, self.a_across)), lanes)
                following.append(scalars.multiply_add(b, left, row, total, self.fused))
        for value, target in zip(self.results, targets, strict=True):
            scalars.masked_store(b, value, target, align, mask)

    def _at(self, base: Any, i: Any, down: Any, j: Any, across: Any) -> Any:
        b = self.b
        return b.gep(base, [b.add(b.mul(i, down), b.mul(j, across))], inbounds=True)

    def _wide(self, pointer: Any, kind: Any) -> Any:
        return self.b.bitcast(pointer, kind.as_pointer())

    def _range(self, stop: Any, start: Any = _ZERO, step: int = 1, carried: Sequence[Any] | None = None) -> Any:
        return _Range(self, start, stop, step, carried)


class _Range:
    """``for i in range(start, stop, step)``, with values carried from round to round where there are any."""

    def __init__(self, writer: _Writer, start: Any, stop: Any, step: int, carried: Sequence[Any] | None) -> None:
        self.writer, self.start, self.stop, self.step, self.carried = writer, start, stop, step, carried

    def __enter__(self) -> Any:
        b = self.writer.b
        before = b.block
        self.head, body, self.after = (b.append_basic_block(name) for name in ("head", "body", "after"))
        b.branch(self.head)
        b.position_at_end(self.head)
        self.counter = b.phi(_I64)
        self.counter.add_incoming(self.start, before)
        self.values = [b.phi(v.type) for v in self.carried or ()]
        for phi, value in zip(self.values, self.carried or (), strict=True):
            phi.add_incoming(value, before)
        b.cbranch(b.icmp_signed("<", self.counter, self.stop), body, self.after)
        b.position_at_end(body)
        self.following: list[Any] = []
        return self.counter if self.carried is None else (self.counter, self.values, self.following)

    def __exit__(self, *error: object) -> None:
        b = self.writer.b
        self.counter.add_incoming(b.add(self.counter, _I64(self.step)), b.block)
        for phi, value in zip(self.values, self.following, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(self.head)
        b.position_at_end(self.after)
        if self.carried is not None:
            self.writer.results = self.values

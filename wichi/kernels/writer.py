"""Writing loop IR: a writer with which kernels read like arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from wichi.config import config
from wichi.kernels.layout import Layout, Rows
from wichi.kernels.loops import (
    BOOL,
    COMPARISONS,
    I8,
    LITERALS,
    LONG,
    Accumulate,
    Begin,
    Branch,
    Check,
    Compute,
    Count,
    Declare,
    End,
    Extent,
    Free,
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
    RuntimeScalar,
    Size,
    Statement,
    Store,
    Tape,
    Value,
    While,
)
from wichi.kernels.numbers import Context, Scalar, Variable
from wichi.kernels.packs import Variables

_DEEP = 3  # functions that wait for each other
_MOST_LITERAL = 64  # offsets below stand in the text of programs that keep values in registers
INTERRUPT_CHECK = object()  # a run-time scalar: the address of the function that a loop without end asks


class Writer:
    """Writes one nest. ``sizes`` and ``scalars`` are the program's run-time arguments, shared by its nests."""

    def __init__(self, sizes: list[int], scalars: list[Any], context: Context, in_band: bool = False) -> None:
        self.sizes, self.scalars, self.context = sizes, scalars, context
        self.blocks: list[list[Statement]] = [[]]
        self.buffers: dict[int, None] = {}
        self._count = 0
        self._slots: dict[Any, Extent] = {}
        self._known: list[dict[Any, Scalar]] = [{}]
        self._loaded: list[dict[int, dict[Any, Scalar]]] = [{}]  # by buffer; one a block
        self._sees = 0  # the first block whose loads still hold
        self._tapes = 0
        self.lane_of: dict[int, tuple[Scalar, int]] = {}  # numbers that were taken out of vectors
        self._opened: dict[int, tuple[list[Statement], int]] = {}  # accumulator -> where its Begin stands
        # In a band: the first row of the block, how many there are, the first row of its chunk, and the chunk's number.
        self.block = tuple(self.fresh(I8) for _ in range(4)) if in_band else None
        self.first, self.rows, self.chunk_first, self.chunk = self.block or (None, None, None, None)

    def nest(self) -> Nest:
        """What was written."""
        (body,) = self.blocks
        block: Any = None if self.block is None else tuple(s.id for s in self.block)
        return Nest(tuple(body), tuple(self.buffers), block)

    # --- numbers ---

    def fresh(self, dtype: np.dtype[Any], lanes: int = 0) -> Scalar:
        self._count += 1
        return Scalar(self, self._count, dtype, lanes)

    def numbered(self, key: Any, dtype: np.dtype[Any], make: Callable[[int], Statement], lanes: int = 0) -> Scalar:
        """The value that was made under ``key``, or a new one."""
        found = self._find(key)
        if found is None:
            found = self._known[-1][key] = self.fresh(dtype, lanes)
            self.put(make(found.id))
        return found

    def put(self, statement: Statement) -> None:
        self.blocks[-1].append(statement)

    def _find(self, key: Any) -> Scalar | None:
        for known in reversed(self._known):
            if key in known:
                return known[key]
        return None

    def constant(self, value: Any, dtype: np.dtype[Any] = I8) -> Scalar:
        """A number that belongs to the program's text."""
        number = dtype.type(value).item()
        return self.numbered(("literal", repr(value), dtype), dtype, lambda out: Literal(out, number, dtype))

    def scalar(self, value: Any) -> Scalar:
        """A NumPy scalar: a literal if it is one of the few that shape code, else a run-time argument."""
        if value.dtype.kind == "b" or (float(value) in LITERALS and not (value == 0 and np.signbit(float(value)))):
            return self.constant(value.item(), value.dtype)
        return self._runtime(value)

    def number(self, value: int) -> Scalar:
        """An integer that is a run-time argument, whatever it is."""
        return self._runtime(np.int64(value))

    def _runtime(self, value: Any) -> Scalar:
        self.scalars.append(value)
        out = self.fresh(value.dtype)
        self.put(RuntimeScalar(out.id, len(self.scalars) - 1, value.dtype))
        return out

    def size(self, value: int, key: Any = None) -> Extent:
        """An extent, stride or offset; equal keys share one slot of the run-time sizes."""
        if isinstance(value, Rows):
            return self._elements(value.multiple)
        if value in (0, 1, -1):
            return value
        found = self._slots.get(key) if key is not None else None
        if found is None:
            self.sizes.append(value)
            found = Size(len(self.sizes) - 1)
            if key is not None:
                self._slots[key] = found
        return found

    def _elements(self, multiple: int) -> Extent:
        """So many elements for each row of the block."""
        assert self.rows is not None
        if multiple == 1:
            return Count(self.rows.id)
        key = ("rows", multiple)
        found = self._find(key)
        if found is None:
            found = self._known[-1][key] = self.rows * self.number(multiple)
        return Count(found.id)

    def compute(self, op: str, *args: Any) -> Scalar:
        """One scalar operation; plain numbers take the dtype of the first scalar beside them."""
        like = next(a.dtype for a in args[1 if op == "select" else 0 :] if isinstance(a, Scalar))
        scalars = [a if isinstance(a, Scalar) else self.constant(a, like) for a in args]
        dtype = BOOL if op in COMPARISONS else like
        return self._compute(op, scalars, dtype)

    def _compute(self, op: str, args: Sequence[Scalar], dtype: np.dtype[Any]) -> Scalar:
        ids = tuple(a.id for a in args)
        lanes = max(a.lanes for a in args)
        return self.numbered((op, dtype, *ids), dtype, lambda out: Compute(out, op, ids, dtype), lanes)

    def __getattr__(self, op: str) -> Any:
        if op.startswith("_"):
            raise AttributeError(op)
        return lambda *args: self.compute(op, *args)

    def cast(self, x: Scalar, dtype: np.dtype[Any]) -> Scalar:
        return x if x.dtype == dtype else self._compute("cast", [x], dtype)

    def variable(self, initial: Scalar) -> Variable:
        out = self.fresh(initial.dtype)
        self.put(Declare(out.id, initial.id, initial.dtype))
        return Variable(self, out.id, initial.dtype, initial.lanes)

    def spread(self, x: Scalar, lanes: int) -> Scalar:
        """A vector of one number."""
        return self.numbered(("spread", x.id, lanes), x.dtype, lambda out: Pack(out, (x.id,) * lanes, x.dtype), lanes)

    # --- loops ---

    @contextmanager
    def loops(
        self, shape: Sequence[int], ordered: bool = False, keys: Sequence[Any] | None = None
    ) -> Iterator[list[Any]]:
        """Nested loops over ``shape``; axes of extent 1 get no loop. Yields the counters.

        Iterations are independent unless ``ordered``; the innermost loop is then a vector loop if its body allows.
        """
        counters: list[Any] = []
        opened: list[tuple[Scalar, Extent]] = []
        for axis, n in enumerate(shape):
            if n == 1:
                counters.append(self.constant(0))
                continue
            counter = self.fresh(I8)
            opened.append((counter, self.size(n, None if keys is None else keys[axis])))
            self._open()
            counters.append(counter)
        yield counters
        innermost = True
        for counter, extent in reversed(opened):
            body = self._close()
            lanes, brief = (0, 0) if ordered or not innermost else lanes_of(body, counter.id)
            self._set_lanes(body, max(lanes, 1))
            self.put(Loop(counter.id, extent, body, lanes, brief))
            innermost = False

    def _open(self) -> None:
        self.blocks.append([])
        self._known.append({})
        self._loaded.append({})

    def _close(self) -> tuple[Statement, ...]:
        self._known.pop()
        self._loaded.pop()
        return tuple(self.blocks.pop())

    @contextmanager
    def rounds(self, length: int, key: Any = None, every: int = 0) -> Iterator[Scalar]:
        """A loop whose rounds follow each other and change memory: nothing loaded before it is known inside.

        Asks every ``every`` rounds whether it was interrupted; 0: never.
        """
        sees, self._sees = self._sees, len(self.blocks)
        counter, extent = self.fresh(I8), self.size(length, key)
        self._open()
        if every:
            self._poll(every)
        yield counter
        self.put(Loop(counter.id, extent, self._close()))
        self._sees = sees

    @contextmanager
    def repeat(self, header: Callable[[], Scalar], every: int) -> Iterator[None]:
        """``while header(): ...``, as ``rounds``. Asks every ``every`` rounds whether it was interrupted."""
        sees, self._sees = self._sees, len(self.blocks)
        self._open()
        condition = header()
        before = self._close()
        self._open()
        self._poll(every)
        yield
        self.put(While(before, condition.id, self._close()))
        self._sees = sees

    def _poll(self, every: int) -> None:
        self.scalars.append(INTERRUPT_CHECK)
        self.put(Poll(len(self.scalars) - 1, every))

    def branch(self, condition: Scalar, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """One of two bodies, each written by a function."""
        bodies = []
        for write in (then, otherwise):
            self._open()
            write()
            bodies.append(self._close())
        self.put(Branch(condition.id, *bodies))

    def _set_lanes(self, body: Sequence[Statement], lanes: int) -> None:
        """An accumulator has the lanes of the loop that feeds it, known when that loop's body is."""
        for s in body:
            if isinstance(s, Accumulate):
                block, place = self._opened[s.into]
                begun = block[place]
                assert isinstance(begun, Begin)
                block[place] = Begin(begun.out, begun.op, begun.dtype, lanes)

    # --- memory ---

    def index(self, layout: Layout, at: Sequence[Scalar]) -> Index:
        """Where the element of ``layout`` at the counters ``at`` lies."""
        if layout.buffer >= 0:
            self.buffers[layout.buffer] = None
        terms = []
        for axis, (i, n, stride) in enumerate(zip(at, layout.shape, layout.strides, strict=True)):
            if n != 1 and stride != 0:
                terms.append((i.id, self.size(stride, (layout, axis))))
        return Index(self.size(layout.offset, (layout, "offset")), (*layout.outer, *terms))

    def load(self, layout: Layout, at: Sequence[Scalar]) -> Scalar:
        if not layout.guards:
            return self._load(layout, self.index(layout, at))
        windows: list[tuple[int, int] | None] = [None] * layout.ndim
        for axis, low, high in layout.guards:
            windows[axis] = (low, high)
        inside = self.within([self.place_of(i, n) for i, n in zip(at, layout.shape, strict=True)], windows)
        return self._load(layout, self.index(layout, at), inside.id)

    def place_of(self, counter: Scalar, n: int) -> Scalar:
        """The place along an axis of extent ``n`` in the whole array, also where the loop runs over a block of it."""
        if not isinstance(n, Rows) or self.first is None:
            return counter
        key = ("first row", n.multiple)
        first = self._find(key)
        if first is None:
            first = self.first if n.multiple == 1 else self.first * self.number(n.multiple)
            self._known[-1][key] = first
        return first + counter

    def within(self, places: Sequence[Scalar], windows: Sequence[tuple[int, int] | None]) -> Scalar:
        """Whether each place lies from the low to before the high end of its window; None: no matter where."""
        tests = []
        for place, window in zip(places, windows, strict=True):
            if window is not None:
                low, high = window
                if low > 0:
                    tests.append(self.ge(place, self._bound(low)))
                tests.append(self.lt(place, self._bound(high)))
        if not tests:
            return self.constant(True, BOOL)
        while len(tests) > 1:
            tests = [tests[0] & tests[1], *tests[2:]]
        return tests[0]

    def _bound(self, value: int) -> Scalar:
        """A run-time integer; the same one for equal values that are asked for within one block."""
        key = ("bound", value)
        found = self._find(key)
        if found is None:
            found = self._known[-1][key] = self.number(value)
        return found

    def _load(self, layout: Layout, index: Index, mask: int | None = None) -> Scalar:
        for loaded in self._loaded[self._sees :]:
            if layout.buffer in loaded and (index, mask) in loaded[layout.buffer]:
                return loaded[layout.buffer][index, mask]
        found = self.fresh(layout.dtype)
        self.put(Load(found.id, layout.buffer, index, layout.dtype, mask))
        self._loaded[-1].setdefault(layout.buffer, {})[index, mask] = found
        return found

    def _store(self, layout: Layout, index: Index, value: Scalar, op: str | None = None) -> None:
        self.put(Store(layout.buffer, index, value.id, op))
        self.forget(layout.buffer)

    def forget(self, buffer: int) -> None:
        """What was loaded from a buffer before it was written is old. Whoever writes without ``store`` says so."""
        for loaded in self._loaded:
            loaded.pop(buffer, None)

    def store(self, layout: Layout, at: Sequence[Scalar], value: Scalar) -> None:
        self._store(layout, self.index(layout, at), value)

    def update(self, layout: Layout, at: Sequence[Scalar], op: str, value: Scalar) -> None:
        self._store(layout, self.index(layout, at), value, op)

    def row(self, layout: Layout, i: Scalar, literal: bool = False) -> Layout:
        """Entry ``i`` along the first axis. ``literal``: its stride belongs to the program's text."""
        stride = layout.strides[0]
        extent = stride if literal else self.size(stride, (layout, 0))
        return Layout(
            layout.buffer, layout.dtype, layout.shape[1:], layout.strides[1:], layout.offset,
            (*layout.outer, (i.id, extent)),
        )  # fmt: skip

    # --- small values in registers: object arrays of scalars ---

    def registers(self, layout: Layout) -> np.ndarray[Any, Any]:
        """The elements of a small value, loaded one by one."""
        out = np.empty(layout.shape, object)
        for place in np.ndindex(*layout.shape):
            out[place] = self._load(layout, self._element(layout, place))
        return out

    def spill(self, values: np.ndarray[Any, Any], layout: Layout) -> None:
        """Small values from registers to memory."""
        for place in np.ndindex(*layout.shape):
            self._store(layout, self._element(layout, place), values[place])

    def _element(self, layout: Layout, place: tuple[int, ...]) -> Index:
        if layout.buffer >= 0:
            self.buffers[layout.buffer] = None
        offset = layout.offset + sum(i * s for i, s in zip(place, layout.strides, strict=True))
        literal = 0 <= offset < _MOST_LITERAL
        return Index(offset if literal else self.size(offset, (layout, place)), layout.outer)

    def zeros(self, aval: Any) -> np.ndarray[Any, Any]:
        """Zeros of the shape and dtype of ``aval``."""
        out = np.empty(aval.shape, object)
        for place in np.ndindex(*aval.shape):
            out[place] = self.constant(0, aval.dtype)
        return out

    def variables(self, values: np.ndarray[Any, Any]) -> Variables:
        """A mutable small array that starts as ``values``."""
        return Variables(self, values)

    # --- memory that grows ---

    def tape(self, dtype: np.dtype[Any], width: int, status: int) -> Layout:
        """A tape of rows of ``width`` elements; see ``wichi.kernels.loops.Tape``."""
        self._tapes -= 1
        self.scalars.append(np.int64(config.tape_bytes))
        self.put(Tape(self._tapes, dtype, len(self.scalars) - 1, status))
        return Layout(self._tapes, dtype, (0, width), (width, 1))

    def grow(self, tape: Layout, row: Scalar) -> Scalar:
        out = self.fresh(BOOL)
        self.put(Grow(out.id, tape.buffer, row.id, self.size(tape.shape[1], (tape, "width"))))
        self.forget(tape.buffer)
        return out

    def shaped_row(self, tape: Layout, row: Scalar, shape: tuple[int, ...], literal: bool) -> Layout:
        """Row number ``row`` of a tape, which holds a value of ``shape``."""
        width = tape.shape[1] if literal else self.size(tape.shape[1], (tape, "width"))
        return replace(Layout.contiguous(tape.buffer, tape.dtype, shape), outer=((row.id, width),))

    def free(self, tape: Layout) -> None:
        self.put(Free(tape.buffer))

    def fill(self, layout: Layout, value: Any) -> None:
        """Every element becomes ``value``."""
        number = self.constant(value, layout.dtype)
        lying = layout.as_it_lies()
        with self.loops(lying.shape) as at:
            self.store(lying, at, number)

    def copy(self, source: Layout, target: Layout) -> None:
        with self.loops(source.shape) as at:
            self.store(target, at, self.load(source, at))

    def index_in(self, i: Scalar, n: int) -> Scalar:
        """``i`` counted from the end where negative; outside an axis of ``n`` the program fails with its status."""
        extent = self.number(n)
        wrapped = self.compute("select", self.compute("lt", i, 0), i + extent, i)
        inside = self.compute("ge", wrapped, 0) & self.compute("lt", wrapped, extent)
        self.put(Check(inside.id, self.context.fails("index")))
        return self.compute("select", inside, wrapped, 0)

    # --- libraries ---

    def library(self, name: str, dtype: np.dtype[Any], arguments: Sequence[Any], status: int) -> None:
        """A routine of LAPACK: flags, sizes, scalars, working memory (a layout), or ``(layout, counters)``."""
        zero = self.constant(0)

        def given(x: Any) -> Any:
            if isinstance(x, Layout):
                return Place(x.buffer, self.index(x, [zero] * len(x.shape)))
            if isinstance(x, tuple):
                return Place(x[0].buffer, self.index(*x))
            return Value(x.id) if isinstance(x, Scalar) else x if isinstance(x, str) else self.size(x)

        self.put(Library(name, dtype, tuple(map(given, arguments)), status))
        for loaded in self._loaded:
            loaded.clear()

    def host_call(self, function: Any, layouts: Sequence[Layout], status: int) -> None:
        """Call a Python function (``wichi.trace.callbacks.HostFunction``) on dense memory."""
        zero = self.constant(0)
        self.scalars.append(function)
        places = tuple(Place(x.buffer, self.index(x, [zero] * len(x.shape))) for x in layouts)
        self.put(HostCall(len(self.scalars) - 1, places, status))
        for loaded in self._loaded:
            loaded.clear()

    def load_integer(self, layout: Layout, i: Scalar) -> Scalar:
        """An integer that LAPACK wrote, in its own width."""
        out = self.fresh(I8)
        self.put(LoadInteger(out.id, layout.buffer, self.index(layout, [i])))
        return out

    # --- reductions ---

    def begin(self, op: str, dtype: np.dtype[Any]) -> Scalar:
        out = self.fresh(dtype)
        self._opened[out.id] = (self.blocks[-1], len(self.blocks[-1]))
        self.put(Begin(out.id, op, dtype, 1))
        return out

    def accumulate(self, into: Scalar, value: Scalar) -> None:
        self.put(Accumulate(into.id, value.id))

    def end(self, accumulator: Scalar) -> Scalar:
        out = self.fresh(accumulator.dtype)
        self.put(End(out.id, accumulator.id))
        return out


def lane_count(widest: int) -> int:
    """Lanes of a vector loop whose widest value has that many bytes: 64 bytes a block."""
    return 32 if widest <= 4 else 16


def lanes_of(body: Sequence[Statement], counter: int) -> tuple[int, int]:
    """How long the blocks of a loop with this body are (0: it must run one iteration at a time), and ``Loop.brief``.

    Where functions of functions of functions wait for each other, twice the lanes give the processor other work.
    """
    widest, waits = 1, {}
    for s in body:
        if not isinstance(s, Literal | RuntimeScalar | Compute | Load | Store | Accumulate):
            return 0, 0
        if isinstance(s, Store) and s.op is not None and (counter, 1) not in s.index.terms:
            return 0, 0
        if isinstance(s, Load | Compute | RuntimeScalar | Literal):
            widest = max(widest, s.dtype.itemsize if s.dtype != I8 or not isinstance(s, Literal) else 1)
        if isinstance(s, Compute):
            waits[s.out] = max((waits.get(x, 0) for x in s.args), default=0) + (s.op in LONG)
    lanes = lane_count(widest)
    return (2 * lanes, lanes) if max(waits.values(), default=0) >= _DEEP else (lanes, 0)

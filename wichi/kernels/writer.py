"""Writing loop IR: where values lie in memory (``Layout``), and a writer with which kernels read like arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from wichi.kernels.loops import (
    BOOL,
    COMPARISONS,
    I8,
    LITERALS,
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
    Size,
    Statement,
    Store,
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the elements of a value lie in a buffer. Strides and offset count elements."""

    buffer: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @classmethod
    def contiguous(cls, buffer: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Layout:
        return cls(buffer, dtype, shape, contiguous_strides(shape))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def is_contiguous(self) -> bool:
        dense = contiguous_strides(self.shape)
        return self.offset == 0 and all(
            a == b or n == 1 for a, b, n in zip(self.strides, dense, self.shape, strict=True)
        )

    def _with(self, shape: tuple[int, ...], strides: Sequence[int], offset: int | None = None) -> Layout:
        return Layout(self.buffer, self.dtype, shape, tuple(strides), self.offset if offset is None else offset)

    def broadcast(self, shape: tuple[int, ...], axes: tuple[int, ...]) -> Layout:
        kept = iter(zip(self.shape, self.strides, strict=True))
        strides = []
        for axis, n in enumerate(shape):
            old, stride = (1, 0) if axis in axes else next(kept)
            strides.append(0 if old == 1 and n != 1 else stride)
        return self._with(shape, strides)

    def transpose(self, perm: Sequence[int]) -> Layout:
        return self._with(tuple(self.shape[p] for p in perm), [self.strides[p] for p in perm])

    def slice(self, start: Sequence[int], step: Sequence[int], size: Sequence[int]) -> Layout:
        offset = self.offset + sum(a * s for a, s in zip(start, self.strides, strict=True)) if all(size) else 0
        return self._with(tuple(size), [s * by for s, by in zip(self.strides, step, strict=True)], offset)

    def reshape(self, shape: tuple[int, ...]) -> Layout | None:
        """The same elements in C order under another shape, or None where that takes a copy.

        Old and new axes are matched in runs of equal product; an old run must lie evenly spaced.
        """
        old = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1]
        strides = [0] * len(shape)
        new = [i for i, n in enumerate(shape) if n != 1]
        if 0 in shape:
            return self._with(shape, contiguous_strides(shape), 0)
        i = j = 0
        while i < len(old) and j < len(new):
            first, begin = i, j
            old_size, new_size = old[i][0], shape[new[j]]
            i, j = i + 1, j + 1
            while old_size != new_size:
                if old_size < new_size:
                    old_size, i = old_size * old[i][0], i + 1
                else:
                    new_size, j = new_size * shape[new[j]], j + 1
            if any(old[k][1] != old[k + 1][0] * old[k + 1][1] for k in range(first, i - 1)):
                return None
            stride = old[i - 1][1]
            for axis in reversed(new[begin:j]):
                strides[axis] = stride
                stride *= shape[axis]
        return self._with(shape, strides)


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """C-order strides, in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


class Scalar:
    """A number inside a loop, with Python's operators."""

    __slots__ = ("dtype", "id", "writer")

    def __init__(self, writer: Writer, id: int, dtype: np.dtype[Any]) -> None:
        self.writer, self.id, self.dtype = writer, id, dtype

    def __add__(self, other: Any) -> Scalar:
        return self.writer.compute("add", self, other)

    def __radd__(self, other: Any) -> Scalar:
        return self.writer.compute("add", other, self)

    def __sub__(self, other: Any) -> Scalar:
        return self.writer.compute("sub", self, other)

    def __rsub__(self, other: Any) -> Scalar:
        return self.writer.compute("sub", other, self)

    def __mul__(self, other: Any) -> Scalar:
        return self.writer.compute("mul", self, other)

    def __rmul__(self, other: Any) -> Scalar:
        return self.writer.compute("mul", other, self)

    def __truediv__(self, other: Any) -> Scalar:
        return self.writer.compute("div", self, other)

    def __rtruediv__(self, other: Any) -> Scalar:
        return self.writer.compute("div", other, self)

    def __neg__(self) -> Scalar:
        return self.writer.compute("neg", self)

    def __and__(self, other: Any) -> Scalar:
        return self.writer.compute("and", self, other)

    def __or__(self, other: Any) -> Scalar:
        return self.writer.compute("or", self, other)


class Variable:
    """A mutable number: ``value`` reads it, ``set`` writes it."""

    __slots__ = ("_dtype", "_id", "_writer")

    def __init__(self, writer: Writer, id: int, dtype: np.dtype[Any]) -> None:
        self._writer, self._id, self._dtype = writer, id, dtype

    @property
    def value(self) -> Scalar:
        out = self._writer.fresh(self._dtype)
        self._writer.put(Read(out.id, self._id, self._dtype))
        return out

    def set(self, value: Scalar) -> None:
        self._writer.put(Assign(self._id, value.id))


class Writer:
    """Writes one nest. ``sizes`` and ``scalars`` are the program's run-time arguments, shared by its nests."""

    def __init__(self, sizes: list[int], scalars: list[Any], status: int = 0) -> None:
        self.sizes, self.scalars, self.status = sizes, scalars, status
        self.blocks: list[list[Statement]] = [[]]
        self.buffers: dict[int, None] = {}
        self._count = 0
        self._slots: dict[Any, Extent] = {}
        self._known: list[dict[Any, Scalar]] = [{}]
        self._opened: dict[int, tuple[list[Statement], int]] = {}  # accumulator -> where its Begin stands

    def nest(self) -> Nest:
        """What was written."""
        (body,) = self.blocks
        return Nest(tuple(body), tuple(self.buffers))

    # --- numbers ---

    def fresh(self, dtype: np.dtype[Any]) -> Scalar:
        self._count += 1
        return Scalar(self, self._count, dtype)

    def put(self, statement: Statement) -> None:
        self.blocks[-1].append(statement)

    def _find(self, key: Any) -> Scalar | None:
        for known in reversed(self._known):
            if key in known:
                return known[key]
        return None

    def constant(self, value: Any, dtype: np.dtype[Any] = I8) -> Scalar:
        """A number that belongs to the program's text."""
        key = ("literal", repr(value), dtype)
        found = self._find(key)
        if found is None:
            found = self._known[-1][key] = self.fresh(dtype)
            self.put(Literal(found.id, dtype.type(value).item(), dtype))
        return found

    def scalar(self, value: Any) -> Scalar:
        """A NumPy scalar: a literal if it is one of the few that shape code, else a run-time argument."""
        if value.dtype.kind == "b" or (float(value) in LITERALS and not (value == 0 and np.signbit(float(value)))):
            return self.constant(value.item(), value.dtype)
        self.scalars.append(value)
        out = self.fresh(value.dtype)
        self.put(RuntimeScalar(out.id, len(self.scalars) - 1, value.dtype))
        return out

    def size(self, value: int, key: Any = None) -> Extent:
        """An extent, stride or offset; equal keys share one slot of the run-time sizes."""
        if value in (0, 1, -1):
            return value
        found = self._slots.get(key) if key is not None else None
        if found is None:
            self.sizes.append(value)
            found = Size(len(self.sizes) - 1)
            if key is not None:
                self._slots[key] = found
        return found

    def compute(self, op: str, *args: Any) -> Scalar:
        """One scalar operation; plain numbers take the dtype of the first scalar beside them."""
        like = next(a.dtype for a in args[1 if op == "select" else 0 :] if isinstance(a, Scalar))
        scalars = [a if isinstance(a, Scalar) else self.constant(a, like) for a in args]
        dtype = BOOL if op in COMPARISONS else like
        return self._compute(op, scalars, dtype)

    def _compute(self, op: str, args: Sequence[Scalar], dtype: np.dtype[Any]) -> Scalar:
        key = (op, dtype, *(a.id for a in args))
        found = self._find(key)
        if found is None:
            found = self._known[-1][key] = self.fresh(dtype)
            self.put(Compute(found.id, op, tuple(a.id for a in args), dtype))
        return found

    def __getattr__(self, op: str) -> Any:
        if op.startswith("_"):
            raise AttributeError(op)
        return lambda *args: self.compute(op, *args)

    def cast(self, x: Scalar, dtype: np.dtype[Any]) -> Scalar:
        return x if x.dtype == dtype else self._compute("cast", [x], dtype)

    def variable(self, initial: Scalar) -> Variable:
        out = self.fresh(initial.dtype)
        self.put(Declare(out.id, initial.id, initial.dtype))
        return Variable(self, out.id, initial.dtype)

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
            self.blocks.append([])
            self._known.append({})
            counters.append(counter)
        yield counters
        innermost = True
        for counter, extent in reversed(opened):
            body = tuple(self.blocks.pop())
            self._known.pop()
            lanes = 0 if ordered or not innermost else lanes_of(body, counter.id)
            self._set_lanes(body, max(lanes, 1))
            self.put(Loop(counter.id, extent, body, lanes))
            innermost = False

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
        self.buffers[layout.buffer] = None
        terms = []
        for axis, (i, n, stride) in enumerate(zip(at, layout.shape, layout.strides, strict=True)):
            if n != 1 and stride != 0:
                terms.append((i.id, self.size(stride, (layout, axis))))
        return Index(self.size(layout.offset, (layout, "offset")), tuple(terms))

    def load(self, layout: Layout, at: Sequence[Scalar]) -> Scalar:
        index = self.index(layout, at)
        key = ("load", layout.buffer, index)
        found = self._find(key)
        if found is None:
            found = self.fresh(layout.dtype)
            self.put(Load(found.id, layout.buffer, index, layout.dtype))
            self._known[-1][key] = found
        return found

    def store(self, layout: Layout, at: Sequence[Scalar], value: Scalar) -> None:
        self.put(Store(layout.buffer, self.index(layout, at), value.id))

    def update(self, layout: Layout, at: Sequence[Scalar], op: str, value: Scalar) -> None:
        self.put(Store(layout.buffer, self.index(layout, at), value.id, op))

    def fill(self, layout: Layout, value: Any) -> None:
        """Every element of a contiguous layout becomes ``value``."""
        flat = Layout.contiguous(layout.buffer, layout.dtype, (int(np.prod(layout.shape, dtype=int)),))
        number = self.constant(value, layout.dtype)
        with self.loops(flat.shape) as at:
            self.store(flat, at, number)

    def copy(self, source: Layout, target: Layout) -> None:
        with self.loops(source.shape) as at:
            self.store(target, at, self.load(source, at))

    def index_in(self, i: Scalar, n: int) -> Scalar:
        """``i`` counted from the end where negative; outside an axis of ``n`` the program fails with its status."""
        extent = self.fresh(I8)
        self.scalars.append(np.int64(n))
        self.put(RuntimeScalar(extent.id, len(self.scalars) - 1, I8))
        wrapped = self.compute("select", self.compute("lt", i, 0), i + extent, i)
        inside = self.compute("ge", wrapped, 0) & self.compute("lt", wrapped, extent)
        self.put(Check(inside.id, self.status))
        return self.compute("select", inside, wrapped, 0)

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
    return 16 if widest <= 4 else 8


def lanes_of(body: Sequence[Statement], counter: int) -> int:
    """How long the blocks of a loop with this body are; 0 where it must run one iteration at a time."""
    widest = 1
    for s in body:
        if isinstance(s, Loop | Gemm | Check | Declare | Assign | Read | Begin | End):
            return 0
        if isinstance(s, Store) and s.op is not None and (counter, 1) not in s.index.terms:
            return 0
        if isinstance(s, Load | Compute | RuntimeScalar | Literal):
            widest = max(widest, s.dtype.itemsize if s.dtype != I8 or not isinstance(s, Literal) else 1)
    return lane_count(widest)

"""The loop IR: what runs, as a small tree of loops, loads, stores and scalar operations.

Two readings exist: ``wichi.kernels.source`` prints it as Python that runs as it stands, ``wichi.kernels.native``
lowers it to machine code. Sizes, strides and scalars are run-time arguments, so one program serves every batch size;
only 0, 1 and -1 are written out, because what they do to a loop is structure.

A vector loop runs its iterations in blocks. Its accumulators spell out their lanes: iteration ``i`` adds to lane
``i % lanes`` and the lanes are joined by a fixed tree, so the result is the same bits in Python, on every CPU and
for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

I8, BOOL = np.dtype("i8"), np.dtype("?")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
# Functions of some twenty instructions, most of which wait for the one before.
LONG = frozenset({
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "softplus", "sigmoid", "sin", "cos", "tan", "arcsin",
    "arccos", "arctan", "arctan2", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "erf", "erfc", "pow",
    "cbrt",
})  # fmt: skip
LITERALS = frozenset({0.0, 1.0, -1.0})  # other scalars are run-time arguments: they may be counts


@dataclass(frozen=True, slots=True)
class Size:
    """A number of the run-time ``sizes`` array: an extent, a stride or an offset."""

    slot: int


@dataclass(frozen=True, slots=True)
class Count:
    """An extent that the nest itself computes: the value of that number."""

    id: int


Extent = int | Size | Count


@dataclass(frozen=True, slots=True)
class Index:
    """``offset + sum(value * stride)``: where in a flat buffer. The values are loop counters or computed integers."""

    offset: Extent
    terms: tuple[tuple[int, Extent], ...]


@dataclass(frozen=True, slots=True)
class Literal:
    out: int
    value: float | int | bool
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class RuntimeScalar:
    """A number of the run-time ``scalars`` array."""

    out: int
    slot: int
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Compute:
    out: int
    op: str
    args: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Pack:
    """Numbers as one vector. What is computed of vectors is computed number by number."""

    out: int
    values: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Unpack:
    """Number ``lane`` of a vector."""

    out: int
    vector: int
    lane: int
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Load:
    """``buffer[index]``; where the value ``mask`` does not hold, 0, and memory is not touched."""

    out: int
    buffer: int
    index: Index
    dtype: np.dtype[Any]
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """``buffer[index] = value``, or with ``op``: ``buffer[index] = op(buffer[index], value)``."""

    buffer: int
    index: Index
    value: int
    op: str | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """Open the accumulator ``out`` of ``lanes`` lanes at the neutral element of ``op``."""

    out: int
    op: str
    dtype: np.dtype[Any]
    lanes: int


@dataclass(frozen=True, slots=True)
class Accumulate:
    """Combine ``value`` into the lane of the innermost loop's counter."""

    into: int
    value: int


@dataclass(frozen=True, slots=True)
class End:
    """Join the lanes of ``accumulator`` by halves."""

    out: int
    accumulator: int


@dataclass(frozen=True, slots=True)
class Declare:
    """A mutable scalar: ``out`` starts as ``value``."""

    out: int
    value: int
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Assign:
    variable: int
    value: int


@dataclass(frozen=True, slots=True)
class Read:
    out: int
    variable: int
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Check:
    """Unless ``value`` holds, the program's status becomes ``status`` (the first failure stays)."""

    value: int
    status: int


@dataclass(frozen=True, slots=True)
class Loop:
    counter: int
    extent: Extent
    body: tuple[Statement, ...]
    lanes: int = 0  # > 0: a vector loop whose blocks are this long
    brief: int = 0  # > 0: where all of it fits a block of so many lanes, it is one


@dataclass(frozen=True, slots=True)
class Gemm:
    """``C = A @ B`` of an ``(m, k)`` and a ``(k, n)`` matrix; ``t`` flags say that a matrix is stored transposed.

    ``lead`` are the distances between stored rows. Where the value ``adds`` holds, the product is added to C.
    """

    a: int
    a_at: Index
    a_lead: Extent
    a_t: bool
    b: int
    b_at: Index
    b_lead: Extent
    b_t: bool
    c: int
    c_at: Index
    c_lead: Extent
    m: Extent
    n: Extent
    k: Extent
    dtype: np.dtype[Any]
    adds: int | None = None


@dataclass(frozen=True, slots=True)
class While:
    """Run ``header``; while its value ``condition`` holds (and nothing has failed), run ``body`` and begin again."""

    header: tuple[Statement, ...]
    condition: int
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """One of two bodies."""

    condition: int
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Poll:
    """In a loop that may not end: every ``every`` rounds ask whether the user has interrupted the program.

    Run-time scalar ``slot`` holds the address of the function to ask, or 0. If it answers other than 0, the program
    fails with the status ``INTERRUPTED``.
    """

    slot: int
    every: int


@dataclass(frozen=True, slots=True)
class Tape:
    """``buffer`` (a negative number) becomes memory of its own that can grow, up to ``scalars[limit]`` bytes.

    Where it needs more, the program fails with ``status``.
    """

    buffer: int
    dtype: np.dtype[Any]
    limit: int
    status: int


@dataclass(frozen=True, slots=True)
class Grow:
    """Make room in a tape for row number ``row``, of ``width`` elements; ``out`` says whether there is."""

    out: int
    buffer: int
    row: int
    width: Extent


@dataclass(frozen=True, slots=True)
class Free:
    """Give the memory of a tape back."""

    buffer: int


@dataclass(frozen=True, slots=True)
class LoadInteger:
    """An integer of the width that BLAS has, from a buffer of 64-bit words."""

    out: int
    buffer: int
    index: Index


@dataclass(frozen=True, slots=True)
class Place:
    """An address: of an element of a buffer."""

    buffer: int
    at: Index


@dataclass(frozen=True, slots=True)
class Library:
    """A routine of BLAS or LAPACK, or one of ours (``wichi.kernels.sorting``).

    Arguments: a flag, an extent, an address, or a scalar of the program (``Value``).

    With ``status``, LAPACK's ``info`` is the last argument, and the program fails with that status where it is not 0;
    LAPACK routines without a status have their ``info`` ignored.
    """

    name: str
    dtype: np.dtype[Any]
    arguments: tuple[str | Extent | Place | Value, ...]
    status: int


@dataclass(frozen=True, slots=True)
class Value:
    id: int


@dataclass(frozen=True, slots=True)
class HostCall:
    """Call the function whose address is run-time scalar ``slot`` with an array of these addresses.

    If it answers other than 0, the program fails with ``status``.
    """

    slot: int
    arguments: tuple[Place, ...]
    status: int


INTERRUPTED = -1

Statement = (
    Literal
    | RuntimeScalar
    | Compute
    | Pack
    | Unpack
    | Load
    | Store
    | Begin
    | Accumulate
    | End
    | Declare
    | Assign
    | Read
    | Check
    | Loop
    | While
    | Branch
    | Poll
    | Tape
    | Grow
    | Free
    | Gemm
    | Library
    | LoadInteger
    | HostCall
)


def blocks_of(s: Statement) -> tuple[tuple[Statement, ...], ...]:
    """The bodies within a statement."""
    if isinstance(s, Loop):
        return (s.body,)
    if isinstance(s, While):
        return (s.header, s.body)
    return (s.then, s.otherwise) if isinstance(s, Branch) else ()


def walk(body: tuple[Statement, ...]) -> Iterator[Statement]:
    """Every statement of a body, those within its loops and branches too."""
    waiting = [*body]
    while waiting:
        s = waiting.pop()
        yield s
        for block in blocks_of(s):
            waiting.extend(block)


@dataclass(frozen=True, slots=True)
class Buffer:
    """A block of memory: the caller's array number ``argument``, or ``offset`` bytes into the arena.

    ``tile``: into the memory that each chunk of a band has for itself, where bands are cut into chunks.
    """

    dtype: np.dtype[Any]
    argument: int | None = None
    offset: Size | None = None
    tile: bool = False


@dataclass(frozen=True, slots=True)
class Nest:
    """One function of the program: a body and the buffers it touches.

    ``block``: the values that hold, in a band, the first row of the block, the number of its rows, the first row of
    the chunk that it belongs to, and the number of the chunk.
    """

    body: tuple[Statement, ...]
    buffers: tuple[int, ...]
    block: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Band:
    """The nests from ``start`` up to ``stop`` run for one block of rows after the other, at least once.

    ``chunk``: rows that are left to one thread; each chunk of them has tiles and partial sums of its own.
    """

    start: int
    stop: int
    rows: Size
    block: Size
    chunk: Size | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """Nests run one after the other. The arena, if any buffer lies in it, is the argument after the last array."""

    nests: tuple[Nest, ...]
    buffers: tuple[Buffer, ...]
    arguments: int
    bands: tuple[Band, ...] = ()


def neutral(op: str, dtype: np.dtype[Any]) -> Any:
    """The neutral element of a reduction."""
    if op in ("add", "or"):
        return dtype.type(0)
    if op in ("mul", "and"):
        return dtype.type(1)
    if dtype.kind == "f":
        return dtype.type(-np.inf if op == "maximum" else np.inf)
    if dtype.kind == "b":
        return dtype.type(op == "minimum")
    return dtype.type(np.iinfo(dtype).min if op == "maximum" else np.iinfo(dtype).max)


def extents_of(s: Statement) -> list[Extent]:
    """The sizes, strides and offsets that a statement names."""
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
        return [s.a_lead, s.b_lead, s.c_lead, s.m, s.n, s.k, *places]
    return []


def may_be_masked(loop: Loop) -> bool:
    """Whether the last block can run under a mask: it reads and stores at places known from counters alone."""
    inside = {s.out for s in loop.body if isinstance(s, Load | Compute)}
    for s in loop.body:
        if isinstance(s, Load | Store) and any(v in inside for v, _ in s.index.terms):
            return False
        if isinstance(s, Store) and all(v != loop.counter for v, _ in s.index.terms):
            return False
    return True

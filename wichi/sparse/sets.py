"""Sets of input elements, each stored once: what every element of every value depends on.

A value's pattern is an integer array of its shape whose entries are numbers of sets. Moving elements about (reshape,
transpose, slices, gathers) moves numbers; many elements that depend on the same inputs share one set, so what a sum
spreads over a whole array costs one set and not a dense matrix.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[Any]]
Frame = MutableMapping[Any, Ints]  # patterns by name, renumbered when sets that nothing holds any more are dropped

MOST_MEMBERS = 1 << 25  # of all sets together; more is no sparse problem
_FEW_MEMBERS = 1 << 20  # below this, nothing is gained by forgetting
_CHUNK = 1 << 24  # members that are made at once


class TooDense(Exception):
    """The sets would hold more members than this, ``MOST_MEMBERS``."""


class Sets:
    """A growing table of sets of numbers below ``columns``. Set 0 is the empty one; equal sets may be stored twice."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._starts: Ints = np.zeros(2, np.int32)  # set k is members[starts[k]:starts[k + 1]]
        self._members: Ints = np.empty(0, np.int32)
        self._frames: list[Frame] = []
        self._crowded = _FEW_MEMBERS

    def __len__(self) -> int:
        return len(self._starts) - 1

    def singles(self) -> Ints:
        """The numbers of ``columns`` new sets of one element each."""
        return self._append(np.arange(self.columns + 1, dtype=np.int64), np.arange(self.columns, dtype=np.int32))

    def rows(self, ids: Ints) -> tuple[Ints, Ints]:
        """The sets of these numbers one after the other: where each starts, and the members, in no order."""
        firsts = self._starts[ids]
        sizes = (self._starts[ids + 1] - firsts).astype(np.int64)
        starts = starts_of(sizes)
        if starts[-1] > MOST_MEMBERS:
            raise TooDense(MOST_MEMBERS)
        return starts, self._members[np.arange(starts[-1]) + np.repeat(firsts - starts[:-1], sizes)]

    # --- unions ------------------------------------------------------------------------------------------------------
    def union(self, a: Ints, b: Ints) -> Ints:
        """Element by element, for two patterns of one shape."""
        x, y = a.ravel(), b.ravel()
        out = np.where(x == 0, y, x)
        both = np.flatnonzero((x != y) & (x != 0) & (y != 0))
        if both.size:
            keys, inverse = np.unique(x[both] * len(self) + y[both], return_inverse=True)
            pairs = np.stack([keys // len(self), keys % len(self)], 1).ravel()
            out[both] = self._unions(np.arange(0, len(pairs) + 1, 2), pairs)[inverse]
        return out.reshape(a.shape)

    def unions(self, starts: Ints, ids: Ints) -> Ints:
        """One number for each group ``ids[starts[g]:starts[g + 1]]``: of the union of its sets."""
        count = len(starts) - 1
        group = np.repeat(np.arange(count), np.diff(starts))
        keys = np.unique((group * len(self) + ids)[ids != 0])
        group, ids = keys // len(self), keys % len(self)
        sizes = np.bincount(group, minlength=count)
        starts = starts_of(sizes)
        out = np.zeros(count, np.int64)
        out[sizes == 1] = ids[starts[:-1][sizes == 1]]
        several = sizes > 1
        if several.any():
            ids, part = ids[several[group]], starts_of(sizes[several])
            first, inverse = distinct_rows(part, ids)
            out[several] = self._unions(*_chosen_rows(part, ids, first))[inverse]
        return out

    def everything_in(self, ids: Ints) -> int:
        """The number of the union of all these."""
        return int(self.unions(np.array([0, ids.size]), ids.ravel())[0])

    def along(self, ids: Ints, axes: tuple[int, ...]) -> Ints:
        """The unions along some axes, which disappear."""
        kept = tuple(i for i in range(ids.ndim) if i not in axes)
        shape = tuple(ids.shape[i] for i in kept)
        count = int(np.prod(shape, dtype=int))
        width = ids.size // count if count else 0
        flat = np.transpose(ids, (*kept, *axes)).reshape(-1)
        return self.unions(np.arange(count + 1) * width, flat).reshape(shape)

    def _unions(self, starts: Ints, ids: Ints) -> Ints:
        """Of groups of at least two different sets, none of them empty; a set that holds the others is the answer."""
        sizes = (self._starts[ids + 1] - self._starts[ids]).astype(np.int64)
        largest = np.maximum.reduceat(sizes, starts[:-1])
        at_largest = np.flatnonzero(sizes == np.repeat(largest, np.diff(starts)))
        out = ids[at_largest[np.searchsorted(at_largest, starts[:-1])]]
        waiting = np.flatnonzero(largest < self.columns)
        ends = np.cumsum(np.add.reduceat(sizes, starts[:-1])[waiting])
        while waiting.size:
            count = max(int(np.searchsorted(ends, _CHUNK, side="right")), 1)
            now, waiting, ends = waiting[:count], waiting[count:], ends[count:] - ends[count - 1]
            self._merge(now, starts, ids, largest, out)
        return out

    def _merge(self, groups: Ints, starts: Ints, ids: Ints, largest: Ints, out: Ints) -> None:
        """Unions of these groups into ``out``, by one product of boolean matrices."""
        from scipy.sparse import csr_array

        chosen_starts, chosen = _chosen_rows(starts, ids, groups)
        used, inverse = np.unique(chosen, return_inverse=True)
        row_starts, members = self.rows(used)
        table = csr_array((np.ones(len(members), bool), members, row_starts), shape=(len(used), self.columns))
        choice = csr_array((np.ones(len(chosen), bool), inverse, chosen_starts), shape=(len(groups), len(used)))
        product = choice @ table  # of bools: sums are "or", so no count can overflow to nothing
        grown = np.diff(product.indptr) > largest[groups]
        if not grown.all():
            product = product[np.flatnonzero(grown)]
        out[groups[grown]] = self._append(product.indptr, product.indices)

    def _append(self, starts: Ints, members: Ints) -> Ints:
        """Numbers of new sets."""
        count, held = len(self), len(self._members)
        if held + len(members) > MOST_MEMBERS:
            raise TooDense(MOST_MEMBERS)
        self._starts = np.concatenate([self._starts, (starts[1:] + held).astype(np.int32)])
        self._members = np.concatenate([self._members, members.astype(np.int32)])
        return np.arange(count, len(self))

    # --- forgetting --------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def keeping(self, frame: Frame) -> Iterator[None]:
        """While this lasts, the patterns in ``frame`` are kept, and renumbered, when others are forgotten."""
        self._frames.append(frame)
        try:
            yield
        finally:
            self._frames.pop()

    def forget(self) -> None:
        """Drop the sets that no frame holds, if that is worth while. All patterns elsewhere become void."""
        if len(self._members) < self._crowded:
            return
        used = np.zeros(len(self), bool)
        used[0] = True
        for frame in self._frames:
            for ids in frame.values():
                used[ids] = True
        starts, members = self.rows(np.flatnonzero(used))
        self._starts, self._members = starts.astype(np.int32), members
        number = np.cumsum(used) - 1
        for frame in self._frames:
            for name, ids in frame.items():
                frame[name] = number[ids]
        self._crowded = max(_FEW_MEMBERS, 2 * len(members))


def starts_of(sizes: Ints) -> Ints:
    """Where rows of these sizes start when they stand one after the other, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _chosen_rows(starts: Ints, members: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Some rows of a list of rows, one after the other."""
    sizes = np.diff(starts)[rows]
    new = starts_of(sizes)
    return new, members[np.arange(new[-1]) + np.repeat(starts[rows] - new[:-1], sizes)]


def distinct_rows(starts: Ints, members: Ints) -> tuple[Ints, Ints]:
    """The first of each kind of equal rows (as sequences), and for every row which of these it is.

    Rows are compared by a hash first; those whose hash is the same are looked at.
    """
    sizes, count = np.diff(starts), len(starts) - 1
    weights = np.random.default_rng(0).integers(1, 1 << 62, int(members.max(initial=0)) + 1, dtype=np.uint64)
    place = (np.arange(len(members)) - np.repeat(starts[:-1], sizes)).astype(np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weights[members] * (2 * place + 1), dtype=np.uint64)])
    hashes = sums[starts[1:]] - sums[starts[:-1]] + sizes.astype(np.uint64)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    model = first[inverse]
    same = sizes[model] == sizes
    looked_at = np.flatnonzero(same & (sizes > 0))
    if looked_at.size:
        part, own = _chosen_rows(starts, members, looked_at)
        others = _chosen_rows(starts, members, model[looked_at])[1]
        same[looked_at] = np.logical_and.reduceat(own == others, part[:-1])
    kept, inverse = np.unique(np.where(same, model, np.arange(count)), return_inverse=True)
    return kept, inverse

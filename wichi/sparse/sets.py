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

MOST_MEMBERS = 1 << 27  # of all sets together; half a gigabyte
_FEW_MEMBERS = 1 << 20  # below this, nothing is gained by looking twice
_CHUNK = 1 << 25  # members that are made at once


class TooDense(Exception):
    """The sets would hold more than ``MOST_MEMBERS``: not a sparse problem."""


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

    def sizes(self, ids: Ints) -> Ints:
        return (self._starts[1:] - self._starts[:-1])[ids]

    def rows(self, ids: Ints) -> tuple[Ints, Ints]:
        """The sets of these numbers one after the other: where each starts, and the members."""
        sizes = self.sizes(ids).astype(np.int64)
        starts = _starts_of(sizes)
        if starts[-1] > MOST_MEMBERS:
            raise TooDense
        places = np.arange(starts[-1]) + np.repeat(self._starts[ids] - starts[:-1], sizes)
        return starts, self._members[places]

    # --- unions ------------------------------------------------------------------------------------------------------
    def union(self, a: Ints, b: Ints) -> Ints:
        """Element by element, for two patterns of one shape."""
        if a is b or np.array_equal(a, b):
            return a
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
        kept = ids != 0
        keys = np.unique(group[kept] * len(self) + ids[kept])
        group, ids = keys // len(self), keys % len(self)
        sizes = np.bincount(group, minlength=count)
        starts = _starts_of(sizes)
        out = np.zeros(count, np.int64)
        out[sizes == 1] = ids[starts[:-1][sizes == 1]]
        several = np.flatnonzero(sizes > 1)
        if several.size:
            part = sizes[several]
            places = np.arange(part.sum()) + np.repeat(starts[several] - _starts_of(part)[:-1], part)
            first, inverse = distinct_rows(_starts_of(part), ids[places])
            part_starts = _starts_of(part)
            some = part[first]
            places = places[np.arange(some.sum()) + np.repeat(part_starts[first] - _starts_of(some)[:-1], some)]
            out[several] = self._unions(_starts_of(some), ids[places])[inverse]
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
        sizes = self.sizes(ids).astype(np.int64)
        group = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        largest = np.maximum.reduceat(sizes, starts[:-1])
        at_largest = np.flatnonzero(sizes == largest[group])
        out = ids[at_largest[np.searchsorted(at_largest, starts[:-1])]]
        total = np.minimum(np.add.reduceat(sizes, starts[:-1]), self.columns)
        open_ = largest < self.columns
        if total[open_].sum() > _FEW_MEMBERS:
            open_ &= ~self._absorbed(group, ids, sizes, out)
        waiting = np.flatnonzero(open_)
        ends = np.cumsum(total[waiting])
        while waiting.size:
            count = max(int(np.searchsorted(ends, _CHUNK, side="right")), 1)
            now, waiting, ends = waiting[:count], waiting[count:], ends[count:] - ends[count - 1]
            self._merge(now, starts, ids, largest, out)
        return out

    def _merge(self, groups: Ints, starts: Ints, ids: Ints, largest: Ints, out: Ints) -> None:
        """Unions of these groups into ``out``, by one product of boolean matrices."""
        from scipy.sparse import csr_array

        sizes = np.diff(starts)[groups]
        new_starts = _starts_of(sizes)
        places = np.arange(new_starts[-1]) + np.repeat(starts[groups] - new_starts[:-1], sizes)
        used, inverse = np.unique(ids[places], return_inverse=True)
        row_starts, members = self.rows(used)
        table = csr_array((np.ones(len(members), bool), members, row_starts), shape=(len(used), self.columns))
        chosen = csr_array((np.ones(len(places), bool), inverse, new_starts), shape=(len(groups), len(used)))
        product = chosen @ table  # of bools: sums are "or", so no count can overflow to nothing
        found = np.diff(product.indptr)
        grown = found > largest[groups]
        count, new = len(self), np.cumsum(grown)
        if not grown.all():
            product = product[np.flatnonzero(grown)]
        self._append(product.indptr, product.indices)
        out[groups[grown]] = count + new[grown] - 1

    def _absorbed(self, group: Ints, ids: Ints, sizes: Ints, largest: Ints) -> Ints:
        """Which groups lie within their largest set. Where a few large sets are spread over much, these are most."""
        count = len(largest)
        used = np.unique(largest)
        others = ids != largest[group]
        pairs = np.unique(np.searchsorted(used, largest[group[others]]) * len(self) + ids[others])
        big, small = pairs // len(self), pairs % len(self)
        work = self.sizes(small).sum(dtype=np.int64) + self.sizes(used).sum(dtype=np.int64)
        if work > _CHUNK or 2 * work > sizes.sum():
            return np.zeros(count, bool)
        starts, members = self.rows(used)
        there = np.sort(np.repeat(np.arange(len(used)), np.diff(starts)) * self.columns + members)
        starts, members = self.rows(small)
        wanted = np.repeat(big, np.diff(starts)) * self.columns + members
        at = np.minimum(np.searchsorted(there, wanted), len(there) - 1)
        inside = np.logical_and.reduceat(there[at] == wanted, starts[:-1])
        of_entry = np.searchsorted(pairs, np.searchsorted(used, largest[group[others]]) * len(self) + ids[others])
        lost = np.zeros(count, bool)
        lost[group[others][~inside[of_entry]]] = True
        return ~lost

    def _append(self, starts: Ints, members: Ints) -> Ints:
        """Numbers of new sets."""
        count, held = len(self), len(self._members)
        if held + len(members) > MOST_MEMBERS:
            raise TooDense
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
        kept = np.flatnonzero(used)
        starts, members = self.rows(kept)
        self._starts, self._members = starts.astype(np.int32), members
        number = np.cumsum(used) - 1
        for frame in self._frames:
            for name, ids in frame.items():
                frame[name] = number[ids]
        self._crowded = max(_FEW_MEMBERS, 2 * len(members))


def distinct_rows(starts: Ints, members: Ints) -> tuple[Ints, Ints]:
    """The first of each kind of equal rows (as sequences), and for every row which of these it is."""
    count, sizes = len(starts) - 1, np.diff(starts)
    weights = np.random.default_rng(0).integers(1, 1 << 62, int(members.max(initial=0)) + 1, dtype=np.uint64)
    mixed = weights[members] * (2 * (np.arange(len(members)) - np.repeat(starts[:-1], sizes)) + 1).astype(np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    hashes = sums[starts[1:]] - sums[starts[:-1]] + sizes.astype(np.uint64)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    model = first[inverse]  # equal hashes are looked at: rows that differ after all stand for themselves
    same = sizes[model] == sizes
    checked = np.flatnonzero(same & (sizes > 0))
    if checked.size:
        part = _starts_of(sizes[checked])
        offsets = np.arange(part[-1]) - np.repeat(part[:-1], sizes[checked])
        own = members[np.repeat(starts[checked], sizes[checked]) + offsets]
        others = members[np.repeat(starts[model[checked]], sizes[checked]) + offsets]
        same[checked] = np.logical_and.reduceat(own == others, part[:-1])
    model = np.where(same, model, np.arange(count))
    kept, inverse = np.unique(model, return_inverse=True)
    return kept, inverse


def _starts_of(sizes: Ints) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])

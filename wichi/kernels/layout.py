"""Where the elements of a value lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wichi.kernels.loops import Extent


class Rows(int):
    """The extent of an axis in a band: ``multiple`` elements for each row of a block, known when it runs.

    As an integer it is some number that such an extent may have, and never 1.
    """

    multiple: int

    def __new__(cls, multiple: int) -> Rows:
        made = super().__new__(cls, 2 * multiple)
        made.multiple = multiple
        return made

    def __mul__(self, other: int) -> Rows:  # type: ignore[override]
        return Rows(self.multiple * other)

    __rmul__ = __mul__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the elements of a value lie in a buffer. Strides and offset count elements.

    ``outer`` are terms of the place that do not depend on the element: (a scalar of the program, its stride), as the
    counter of a loop around the value's own. ``guards``, (axis, low, high): elements outside are zero, not in memory.
    """

    buffer: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    outer: tuple[tuple[int, Extent], ...] = ()
    guards: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def contiguous(
        cls, buffer: int, dtype: np.dtype[Any], shape: tuple[int, ...], outermost: int = 0, innermost: int | None = None
    ) -> Layout:
        """Dense, in C order but for the axis ``outermost``, which comes before the others, or ``innermost``."""
        strides = contiguous_strides(shape)
        if innermost is not None:
            rest = contiguous_strides(shape[:innermost] + shape[innermost + 1 :])
            rest = tuple(s * (shape[innermost] or 1) for s in rest)
            strides = (*rest[:innermost], 1, *rest[innermost:])
        elif outermost:
            rest = contiguous_strides(shape[:outermost] + shape[outermost + 1 :])
            row = rest[0] * (shape[0] or 1)
            strides = (*rest[:outermost], row, *rest[outermost:])
        return cls(buffer, dtype, shape, strides)

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
        return Layout(
            self.buffer, self.dtype, shape, tuple(strides), self.offset if offset is None else offset, self.outer
        )

    def moved(self, base: Layout) -> Layout:
        """This layout of a value's own buffer where that buffer lies at ``base``."""
        offset, outer = self.offset + base.offset, self.outer + base.outer
        return Layout(base.buffer, self.dtype, self.shape, self.strides, offset, outer, self.guards)

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

    def window(self, start: Sequence[int], shape: tuple[int, ...]) -> Layout:
        """An array of ``shape`` that has these elements from ``start`` on, and zeros around them."""
        offset = self.offset - sum(a * s for a, s in zip(start, self.strides, strict=True))
        sizes = enumerate(zip(start, self.shape, shape, strict=True))
        guards = tuple((axis, a, a + n) for axis, (a, n, whole) in sizes if n != whole)
        return replace(self, shape=shape, offset=offset, guards=guards)

    def of_block(self, axis: int, rows: int, block: int) -> Layout:
        """Of a value that has its ``rows`` innermost, along ``axis``: how it lies where there are ``block`` of them."""
        strides = (s if i == axis else s // rows * block for i, s in enumerate(self.strides))
        return replace(self, strides=tuple(strides), offset=self.offset // rows * block)

    def as_it_lies(self) -> Layout:
        """The same elements in the order of their strides; axes that follow each other densely are one."""
        axes = sorted(range(self.ndim), key=lambda i: -abs(self.strides[i]))
        shape: list[int] = []
        strides: list[int] = []
        for i in axes:
            n, stride = self.shape[i], self.strides[i]
            if shape and not isinstance(n, Rows) and strides[-1] == stride * n:
                shape[-1], strides[-1] = shape[-1] * n, stride
            elif n != 1:
                shape.append(n)
                strides.append(stride)
        return self._with(tuple(shape), strides)

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
    """C-order strides, in elements. As in NumPy, none is 0 where the array is empty: that means one for all."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n or 1
    return tuple(reversed(strides))

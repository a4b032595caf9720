"""Which axes of a graph's values belong together: one loop could go along all of them, row by row.

The rows of a batch are such a family: an axis of the data, of what is computed from them, of their gradients. Families
are found by union-find over the equations. A reshape that joins or splits an axis keeps it in its family, with more or
fewer elements a row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from wichi.trace.ir import Atom, Const, Eqn, Graph
from wichi.trace.primitive import Pointwise, Product, Reduction, View

Axis = tuple[Atom, int]
_MOST_TRIED = 6  # families whose reach is counted; others come after them


class Families:
    """Families of axes; each is named by one of its members."""

    def __init__(self, graph: Graph) -> None:
        self._parent: dict[Axis, Axis] = {}
        self._of: dict[tuple[Atom, Axis], int | None] = {}
        for eqn in graph.eqns:
            for one, other in _pairs(eqn):
                self._join(one, other)
        extents: dict[Axis, list[int]] = {}
        for axis in list(self._parent):
            extents.setdefault(self._find(axis), []).append(axis[0].aval.shape[axis[1]])
        self.rows = {family: math.gcd(*found) for family, found in extents.items()}
        counts: Counter[Axis] = Counter()
        for eqn in graph.eqns:
            if not isinstance(eqn.prim.kernel, View):
                counts.update({self._find((a, i)) for a in (*eqn.ins, *eqn.outs) for i, n in enumerate(a.aval.shape) if n > 1})
        usable = [f for f, _ in counts.most_common() if self.rows.get(f, 0) > 1]
        tried = {f: -self._reach(graph, f) for f in usable[:_MOST_TRIED]}
        self.ranked: list[Axis] = [*sorted(tried, key=tried.__getitem__), *usable[_MOST_TRIED:]]

    def _reach(self, graph: Graph, family: Axis) -> int:
        """How many equations run row by row before complete results of others are needed.

        Twice where the rows lie one after the other: blocks along the first axis of arrays are dense.
        """
        late: set[Atom] = set()
        count = 0
        for eqn in graph.eqns:
            if any(a in late for a in eqn.ins):
                late.update(eqn.outs)
                continue
            rows = [self.axis(a, family) for a in (*eqn.ins, *eqn.outs)]
            if all(axis is None for axis in rows):
                continue
            row_wise = self.is_row_wise(family, eqn)
            if row_wise and not isinstance(eqn.prim.kernel, View):
                full = max((*eqn.ins, *eqn.outs), key=lambda a: a.aval.ndim)
                axis = self.axis(full, family)
                dense = axis is not None and all(n == 1 for n in full.aval.shape[:axis])
                count += 2 if dense else 1
            if not row_wise or rows[-1] is None:
                late.update(eqn.outs)
        return count

    def is_row_wise(self, family: Axis, eqn: Eqn) -> bool:
        """Whether rows of the result come from the same rows of the operands, or the result is a sum over rows."""
        kernel: Any = eqn.prim.kernel
        if isinstance(kernel, Product):
            return product_role(self, family, eqn.ins, eqn.outs[0]) is not None
        if isinstance(kernel, Reduction):
            axis = self.axis(eqn.ins[0], family)
            return axis is not None and axis >= 0
        out = self.axis(eqn.outs[0], family)
        if out is None or out < 0:
            return False
        if isinstance(kernel, Pointwise):
            return True
        if kernel.along is None:
            return False
        pairs = kernel.along([a.aval for a in eqn.ins], eqn.outs[0].aval, **eqn.params)
        rows = {i: axis for i, axis, at in pairs if at == out}
        spread = isinstance(kernel, View)  # what has no rows may be spread over them
        return (spread or bool(rows)) and all(self.axis(a, family) == rows.get(i) for i, a in enumerate(eqn.ins))

    def _find(self, axis: Axis) -> Axis:
        parent = self._parent
        root = axis
        while (above := parent.setdefault(root, root)) != root:
            root = above
        while parent[axis] != root:
            parent[axis], axis = root, parent[axis]
        return root

    def _join(self, one: Axis, other: Axis) -> None:
        a, b = self._find(one), self._find(other)
        if a != b:
            self._parent[b] = a

    def axis(self, atom: Atom, family: Axis) -> int | None:
        """The one axis of ``atom`` in ``family``; None if there is none, -1 if there are several."""
        key = (atom, family)
        if key not in self._of:
            found = [i for i, n in enumerate(atom.aval.shape) if n > 1 and self._find((atom, i)) == family]
            self._of[key] = found[0] if len(found) == 1 else -1 if found else None
        return self._of[key]

    def alike(self, atom: Atom, copy: Atom) -> None:
        """``copy``, which the graph does not know, has the axes of ``atom``."""
        for i in range(atom.aval.ndim):
            self._join((atom, i), (copy, i))

    def multiple(self, atom: Atom, axis: int, family: Axis) -> int:
        """How many elements of that axis make one row of the family."""
        return atom.aval.shape[axis] // self.rows[family]


def _pairs(eqn: Eqn) -> Iterable[tuple[Axis, Axis]]:
    """The axes of operands and results that run together in ``eqn``; axes of 1 are in no family."""
    for one, other in _related(eqn):
        if one[0].aval.shape[one[1]] > 1 and other[0].aval.shape[other[1]] > 1:
            yield one, other


def _related(eqn: Eqn) -> Iterable[tuple[Axis, Axis]]:
    kernel: Any = eqn.prim.kernel
    out = eqn.outs[0]
    if isinstance(kernel, Pointwise):
        for atom in eqn.ins:
            if not (type(atom) is Const and atom.is_scalar):
                yield from (((atom, i), (out, i)) for i in range(out.aval.ndim))
    elif isinstance(kernel, Reduction):
        kept = [i for i in range(eqn.ins[0].aval.ndim) if i not in eqn.params["axes"]]
        yield from (((eqn.ins[0], i), (out, j)) for j, i in enumerate(kept))
    elif isinstance(kernel, Product):
        a, b = eqn.ins
        last = out.aval.ndim - 1
        for i in range(last - 1):
            yield (a, i), (out, i)
            yield (b, i), (out, i)
        yield (a, last - 1), (out, last - 1)
        yield (b, last), (out, last)
        yield (a, last), (b, last - 1)
    elif kernel.along is not None:
        for i, axis, out_axis in kernel.along([a.aval for a in eqn.ins], out.aval, **eqn.params):
            yield (eqn.ins[i], axis), (out, out_axis)


def product_role(families: Families, family: Axis, ins: Sequence[Atom], out: Atom) -> str | None:
    """How a matrix product ``(..., m, k) @ (..., k, n)`` has rows of ``family``: 'batch', 'm', 'n' or 'k'."""
    a, b, c = (families.axis(x, family) for x in (*ins, out))
    last = out.aval.ndim - 1
    if c is not None and 0 <= c < last - 1:
        return "batch" if a == b == c else None
    if c == last - 1:
        return "m" if a == c and b is None else None
    if c == last:
        return "n" if b == c and a is None else None
    floats = out.aval.dtype.kind == "f"  # BLAS adds to what is there; the loops for integers do not
    return "k" if floats and c is None and a == last and b == last - 1 else None

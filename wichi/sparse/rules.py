"""How sets go through each primitive on arrays. What has no rule here spreads everything over all its result.

A rule ``(walk, eqn, values)`` answers one pattern an output; None is "depends on nothing".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from wichi.sparse.sets import Ints, starts_of
from wichi.sparse.values import Pattern, Value, Walk, everything, joined
from wichi.trace.ir import Eqn
from wichi.trace.primitive import Primitive

MOVES = ("broadcast", "reshape", "transpose", "slice", "embed", "concatenate", "slice_update")
Rule = Callable[[Walk, Eqn, Sequence[Value]], list[Pattern]]


def rule_of(prim: Primitive) -> Rule:
    """The rule of a primitive that holds no graph."""
    if prim.pointwise:
        return _pointwise
    return _RULES.get(prim.name, _by_rows if not prim.multiple else dense)


def dense(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    """Every element of every result depends on every element of every operand."""
    number = everything(walk, [v.ids for v in values])
    return [np.full(o.aval.shape, number) for o in eqn.outs]


def or_empty(ids: Pattern, shape: tuple[int, ...]) -> Ints:
    """A pattern as an array."""
    return np.zeros(shape, np.int64) if ids is None else ids


def _pointwise(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    total: Pattern = None
    for v in values:
        if v.ids is not None:
            total = joined(walk, total, np.broadcast_to(v.ids, eqn.outs[0].aval.shape))
    return [total]


def _by_rows(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    """What has no rule: where its kernel says that rows of the result come from the same rows of an operand, no others
    are spread over them."""
    out = eqn.outs[0].aval
    along = getattr(eqn.prim.kernel, "along", None)
    avals = [a.aval for a in eqn.ins]
    same = list(along(avals, out, **eqn.params)) if along is not None else []
    total: Pattern = None
    for k, v in enumerate(values):
        if v.ids is None:
            continue
        axes = {i: j for which, i, j in same if which == k and avals[k].shape[i] == out.shape[j]}
        rest = tuple(i for i in range(v.ids.ndim) if i not in axes)
        rows = walk.sets.along(v.ids, rest) if rest else v.ids  # its axes are the kept ones, in order
        rows = np.transpose(rows, np.argsort([axes[i] for i in sorted(axes)], kind="stable"))
        rows = np.expand_dims(rows, tuple(j for j in range(out.ndim) if j not in axes.values()))
        total = joined(walk, total, np.broadcast_to(rows, out.shape))
    return [total]


# --- what moves elements about ---------------------------------------------------------------------------------------
def _moved(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    """The primitive itself, on the numbers of the sets; its zeros are the empty set."""
    ids = [or_empty(v.ids, a.aval.shape) for v, a in zip(values, eqn.ins, strict=True)]
    return [np.asarray(eqn.prim.impl(*ids, **eqn.params))]


def _places(walk: Walk, eqn: Eqn, indices: Sequence[Value], shape: tuple[int, ...]) -> list[Ints | None]:
    """Index arrays over the leading axes of ``shape``, counted from 0; None where they are known only as it runs."""
    found: list[Ints | None] = []
    for v, n in zip(indices, shape, strict=False):
        index = walk.look(v)
        inside = index is not None and bool(np.all((index >= -n) & (index < n)))
        found.append(np.where(index < 0, index + n, index) if inside else None)
    if any(place is None for place in found):
        walk.goes_anywhere(eqn)
    return found


def _gather(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    x, *indices = values
    if x.ids is None or any(i.ids is not None for i in indices):
        return dense(walk, eqn, values)
    places = _places(walk, eqn, indices, x.ids.shape)
    anywhere = tuple(axis for axis, place in enumerate(places) if place is None)
    rows = walk.sets.along(x.ids, anywhere) if anywhere else x.ids
    known = tuple(place for place in places if place is not None)
    return [np.asarray(rows[known]) if known else np.broadcast_to(rows, eqn.outs[0].aval.shape)]


def _landed(walk: Walk, updates: Ints, places: Sequence[Ints | None], shape: tuple[int, ...]) -> Ints:
    """The unions of the updates at each place; one whose place along an axis is not known is everywhere on it."""
    rest = shape[len(places) :]
    known = [(place, shape[axis]) for axis, place in enumerate(places) if place is not None]
    width = int(np.prod(rest, dtype=int))
    row = np.zeros(updates.size // width if width else 0, np.int64)
    for place, n in known:
        row = row * n + np.ravel(place) if width else row
    group = (row[:, None] * width + np.arange(width)).ravel()
    dims = (*(n for _, n in known), *rest)
    order = np.argsort(group, kind="stable")
    starts = starts_of(np.bincount(group, minlength=int(np.prod(dims, dtype=int))))
    found = walk.sets.unions(starts, updates.ravel()[order]).reshape(dims)
    anywhere = tuple(axis for axis, place in enumerate(places) if place is None)
    return np.broadcast_to(np.expand_dims(found, anywhere), shape)


def _scatter_add(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    updates, *indices = values
    if updates.ids is None or any(i.ids is not None for i in indices):
        return dense(walk, eqn, values)
    shape = eqn.outs[0].aval.shape
    return [_landed(walk, updates.ids, _places(walk, eqn, indices, shape), shape)]


def _index_update(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    x, u, *indices = values
    if any(i.ids is not None for i in indices):
        return dense(walk, eqn, values)
    shape = eqn.outs[0].aval.shape
    places = _places(walk, eqn, indices, shape)
    if eqn.params["op"] == "set" and all(place is not None for place in places):
        out = np.array(or_empty(x.ids, shape))
        out[tuple(places)] = or_empty(u.ids, eqn.ins[1].aval.shape)
        return [out]
    return [x.ids if u.ids is None else joined(walk, x.ids, _landed(walk, u.ids, places, shape))]


# --- what combines elements ------------------------------------------------------------------------------------------
def _reduction(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    (x,) = values
    assert x.ids is not None
    return [walk.sets.along(x.ids, eqn.params["axes"])]


def _cumulative(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    """By doubling: after k rounds an element has the sets of the 2**k elements up to it."""
    (x,) = values
    assert x.ids is not None
    axis = eqn.params["axis"]
    ids = np.moveaxis(x.ids, axis, 0)[:: -1 if eqn.params["reverse"] else 1]
    step = 1
    while step < len(ids):
        ids = np.concatenate([ids[:step], walk.sets.union(ids[step:], ids[:-step])])
        step *= 2
    return [np.moveaxis(ids[:: -1 if eqn.params["reverse"] else 1], 0, axis)]


def _matmul(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    """Rows of the left side meet columns of the right one; the zeros of a constant matrix meet nothing."""
    (x, y), shape = values, eqn.outs[0].aval.shape
    left: Pattern = None
    right: Pattern = None
    if x.ids is not None:
        left = _through(walk, np.swapaxes(x.ids, -1, -2), y, transposed=True)
        left = np.broadcast_to(np.swapaxes(left, -1, -2), shape)
    if y.ids is not None:
        right = np.broadcast_to(_through(walk, y.ids, x, transposed=False), shape)
    return [joined(walk, left, right)]


def _through(walk: Walk, ids: Ints, matrix: Value, transposed: bool) -> Ints:
    """The pattern of ``matrix @ x`` (or its transpose's) for ``x`` of this pattern."""
    sparse = ids.ndim == 2 and matrix.known is not None and np.any(matrix.known.value == 0)
    if not sparse:
        return walk.sets.along(ids, (ids.ndim - 2,))[..., None, :]
    constant = walk.look(matrix)
    rows, columns = np.nonzero(constant.T if transposed else constant)
    height, width = constant.shape[1 if transposed else 0], ids.shape[1]
    starts = starts_of(np.bincount(rows, minlength=height))[:-1]  # of the groups that make one column
    starts = np.append((np.arange(width)[:, None] * len(rows) + starts).ravel(), width * len(rows))
    return walk.sets.unions(starts, ids[columns].T.ravel()).reshape(width, height).T


# --- linear algebra: blocks are dense ---------------------------------------------------------------------------------
def _solve(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    """A column of the solution depends on its right side and on the matrix."""
    (a, b), shape = values, eqn.outs[0].aval.shape
    last = (len(shape) - 2, len(shape) - 1)
    of_matrix = None if a.ids is None else np.broadcast_to(walk.sets.along(a.ids, last)[..., None, None], shape)
    of_column = None if b.ids is None else np.broadcast_to(walk.sets.along(b.ids, last[:1])[..., None, :], shape)
    return [joined(walk, of_matrix, of_column)]


def _of_matrix(walk: Walk, eqn: Eqn, values: Sequence[Value]) -> list[Pattern]:
    """What is computed of each matrix as a whole."""
    (a,) = values
    assert a.ids is not None
    whole = walk.sets.along(a.ids, (a.ids.ndim - 2, a.ids.ndim - 1))
    return [
        np.broadcast_to(whole.reshape(*whole.shape, *[1] * (o.aval.ndim - whole.ndim)), o.aval.shape) for o in eqn.outs
    ]


_RULES: dict[str, Rule] = {
    **dict.fromkeys(MOVES, _moved),
    **dict.fromkeys(("sum", "prod", "max", "min", "any", "all"), _reduction),
    "cumsum": _cumulative,
    "matmul": _matmul,
    "gather": _gather,
    "scatter_add": _scatter_add,
    "index_update": _index_update,
    "index_extremum": _index_update,
    "solve": _solve,
    "solve_triangular": _solve,
    "cholesky": _of_matrix,
    "slogdet": _of_matrix,
}

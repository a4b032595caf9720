"""Matrix products. The public functions bring every product (dot, matmul, tensordot, einsum) to this one primitive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from wichi.errors import ShapeError
from wichi.ops.shaping import reshape, transpose
from wichi.trace.ir import Atom, Aval, Builder, Const, Var
from wichi.trace.primitive import Primitive, Product, lead, sample, shape_of
from wichi.trace.tracer import is_tracing, staged


def _type(x: Aval, y: Aval) -> Aval:
    if (
        x.ndim < 2
        or x.ndim != y.ndim
        or x.shape[:-2] != y.shape[:-2]
        or x.shape[-1] != y.shape[-2]
        or x.dtype != y.dtype
    ):
        raise ShapeError(f"matmul of {x} and {y}")
    return Aval((*x.shape[:-1], y.shape[-1]), x.dtype)


def swap(x: Any) -> Any:
    """``x`` with its last two axes swapped."""
    n = len(shape_of(x))
    if isinstance(x, np.ndarray) and is_tracing():
        x = staged(x)  # turned where the graph runs: a view of a captured array would be copied on each call
    return transpose(x, perm=(*range(n - 2), n - 1, n - 2))


def _transpose(ct: Any, i: int, ins: Sequence[Any]) -> Any:
    return matmul(ct, swap(ins[1])) if i == 0 else matmul(swap(ins[0]), ct)


def _batch(prim: Primitive, args: Sequence[Any], batched: Sequence[bool], size: int) -> Any:
    """One matrix for the whole batch: a single larger product, not ``size`` small ones."""
    (x, y), (on_x, on_y) = args, batched
    if not on_y and len(shape_of(y)) == 2:
        _, m, k = shape_of(x)
        rows = prim(reshape(x, shape=(size * m, k)), y)
        return reshape(rows, shape=(size, m, shape_of(y)[1]))
    if not on_x and len(shape_of(x)) == 2:
        _, k, n = shape_of(y)
        columns = reshape(swap(y), shape=(size * n, k))
        return swap(reshape(prim(columns, swap(x)), shape=(size, n, shape_of(x)[0])))
    return prim(*[x if b else lead(x, size) for x, b in zip(args, batched, strict=True)])


_units: WeakValueDictionary[Any, np.ndarray[Any, Any]] = WeakValueDictionary()


def unit_matrix(size: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The unit matrix, which cannot be written: products with it, or with its transpose, are not computed."""
    found = _units.get((size, dtype))
    if found is None:
        found = np.eye(size, dtype=dtype)
        found.flags.writeable = False
        _units[size, dtype] = found
    return found


def _is_unit(b: Builder, atom: Atom) -> bool:
    """Whether ``atom`` is a matrix of ours of ones on the diagonal, brought here by reshaping and transposing it."""
    n, *rest = atom.aval.shape
    if rest != [n]:
        return False
    while type(atom) is Var and atom in b.producer:
        eqn = b.producer[atom]
        if eqn.prim is not reshape and not (
            eqn.prim is transpose and [k for k in atom.aval.shape if k != 1] == [n, n]  # it is symmetric
        ):
            return False
        atom = eqn.ins[0]
    unit = _units.get((n, atom.aval.dtype))
    if unit is None or type(atom) is not Const or atom.is_scalar:
        return False
    value = atom.value
    return value.flags.c_contiguous and value.size == unit.size and value.ctypes.data == unit.ctypes.data


def _without_unit(b: Builder, ins: Sequence[Atom], params: Any) -> Atom | None:
    """``1 @ y -> y`` and ``x @ 1 -> x``: tangents in all directions at once meet a matrix."""
    x, y = ins
    return y if _is_unit(b, x) else x if _is_unit(b, y) else None


# (..., m, k) @ (..., k, n) -> (..., m, n), the leading axes equal.
matmul = Primitive(
    "matmul",
    type=_type,
    impl=np.matmul,
    transpose=_transpose,
    multilinear=True,
    batch=_batch,
    kernel=Product(),
    simplify=_without_unit,
    samples=lambda rng: [
        ([sample(rng, a, kind), sample(rng, b, kind)], {})
        for kind in "fei"
        for a, b in (
            ((3, 4), (4, 5)), ((1, 4), (4, 1)), ((2, 3, 4), (2, 4, 5)), ((3, 0), (0, 2)), ((0, 3), (3, 2)),
            ((20, 30), (30, 7)),
        )
    ],
)  # fmt: skip

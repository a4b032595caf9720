"""Eigenvalues and eigenvectors of symmetric matrices, by LAPACK's ``syevd`` as NumPy's.

Derivatives: M. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation",
2008. Those of eigenvectors divide by the gaps between eigenvalues: where two are equal the vectors have no derivative,
and the answer is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.errors import SingularError
from wichi.ops.linalg import batch_matrices, half, loops_over, square, triangle
from wichi.ops.pointwise import div, mul, where
from wichi.ops.products import matmul, swap
from wichi.ops.reducing import sum_
from wichi.ops.shaping import broadcast
from wichi.trace.ir import Aval
from wichi.trace.primitive import Loops, Primitive, Whole, sample, shape_of

Values = Sequence[Any]
_I8 = np.dtype("i8")
_FLAGS = {True: "L", False: "U"}


# --- A = V diag(w) V', w rising; one triangle of A is looked at -----------------------------------------------------
def _eigh_type(a: Aval, lower: bool) -> tuple[Aval, Aval]:
    square("eigh", a)
    return Aval(a.shape[:-1], a.dtype), Aval(a.shape, a.dtype)


def _eigh_impl(a: Any, lower: bool) -> tuple[Any, Any]:
    try:
        values, vectors = np.linalg.eigh(a, _FLAGS[lower])
    except np.linalg.LinAlgError:
        raise SingularError("eigh: the eigenvalues do not converge.") from None
    return values, vectors


def _eigh_loops(k: Any, operands: Values, results: Values, lower: bool) -> None:
    """The matrix is given column by column, as NumPy gives it: the vectors then have NumPy's signs."""
    (a,), (values, vectors) = operands, results
    n = a.shape[-1]
    columns, found = k.context.scratch(a.dtype, (n, n)), k.context.scratch(a.dtype, (n,))
    floats, integers = (1 + 6 * n + 2 * n * n, 3 + 5 * n) if vectors is not None else (1 + 2 * n, 1)
    work, numbers = k.context.scratch(a.dtype, (floats,)), k.context.scratch(_I8, (integers,))
    with loops_over(k, a) as at:
        with k.loops((n, n)) as (i, j):
            k.store(columns, (j, i), k.load(a, [*at, i, j]))
        flags = ["N" if vectors is None else "V", _FLAGS[lower]]
        arguments = [*flags, n, columns, n, found, work, floats, numbers, integers]
        k.library("syevd", a.dtype, arguments, k.context.fails("converged"))
        if values is not None:
            with k.loops((n,)) as (i,):
                k.store(values, [*at, i], k.load(found, (i,)))
        if vectors is not None:
            with k.loops((n, n)) as (i, j):
                k.store(vectors, [*at, i, j], k.load(columns, (j, i)))


def over_gaps(w: Any) -> Any:
    """1 / (w_j - w_i) for each i and j, and 0 on the diagonal."""
    rank, n = len(shape_of(w)), shape_of(w)[-1]
    shape = (*shape_of(w), n)
    diagonal = np.eye(n, dtype=bool)
    if rank > 1:
        diagonal = broadcast(diagonal, shape=shape, axes=tuple(range(rank - 1)))
    zero, one = (broadcast(w.dtype.type(x), shape=shape, axes=tuple(range(rank + 1))) for x in (0, 1))
    gaps = broadcast(w, shape=shape, axes=(rank - 1,)) - broadcast(w, shape=shape, axes=(rank,))
    return where(diagonal, zero, div(one, where(diagonal, one, gaps)))


def on_diagonal(w: Any) -> Any:
    """``diag(w)``"""
    rank, n = len(shape_of(w)), shape_of(w)[-1]
    eye = np.eye(n).astype(w.dtype)
    shape = (*shape_of(w), n)
    eye = broadcast(eye, shape=shape, axes=tuple(range(rank - 1))) if rank > 1 else eye
    return mul(eye, broadcast(w, shape=shape, axes=(rank,)))


def diagonal_of(x: Any) -> Any:
    """The diagonals of square matrices."""
    rank, n = len(shape_of(x)), shape_of(x)[-1]
    eye = np.eye(n).astype(x.dtype)
    eye = broadcast(eye, shape=shape_of(x), axes=tuple(range(rank - 2))) if rank > 2 else eye
    return sum_(mul(eye, x), axes=(rank - 1,))


def _eigh_jvp(ins: Values, tangents: Values, lower: bool) -> tuple[Values, Values]:
    w, v = eigh(*ins, lower=lower)
    dot = triangle(tangents[0], lower) + swap(triangle(tangents[0], lower, strict=True))
    turned = matmul(swap(v), matmul(dot, v))
    return [w, v], [diagonal_of(turned), matmul(v, mul(over_gaps(w), turned))]


def _eigh_vjp(ins: Values, wanted: Sequence[int], lower: bool) -> tuple[Values, Callable[[Values], Values]]:
    w, v = eigh(*ins, lower=lower)

    def pullback(cts: Values) -> Values:
        middle = None if cts[0] is None else on_diagonal(cts[0])
        if cts[1] is not None:
            turned = mul(over_gaps(w), matmul(swap(v), cts[1]))
            middle = turned if middle is None else middle + turned
        if middle is None:
            return [None]
        bar = matmul(v, matmul(middle, swap(v)))
        read = half(bar + swap(bar))
        return [read if lower else swap(read)]

    return [w, v], pullback


def _symmetric(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    x = sample(rng, shape, "f")
    return x + np.swapaxes(x, -1, -2) + 2.0 * np.diag(np.arange(shape[-1]))  # whose eigenvalues are apart


eigh = Primitive(
    "eigh",
    type=_eigh_type,
    impl=_eigh_impl,
    batch=batch_matrices,
    whole=Whole(_eigh_jvp, _eigh_vjp),
    kernel=Loops(_eigh_loops),
    multiple=True,
    samples=lambda rng: [
        ([_symmetric(rng, (*b, n, n))], {"lower": lower})
        for b, n, lower in (((), 3, True), ((2,), 4, True), ((), 1, True), ((), 3, False))
    ],
)

"""Factors of matrices that need not be square, by LAPACK: ``qr`` and the singular value decomposition.

Derivatives: of QR, M. Seeger et al., "Auto-differentiating linear algebra", arXiv:1710.08717; of singular values and
vectors, J. Townsend, "Differentiating the singular value decomposition", 2016. Those of the vectors divide by the gaps
between singular values: where two are equal, or one is 0 beside a rectangle, the answer is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.errors import ShapeError, SingularError
from wichi.kernels.loops import Check
from wichi.ops.linalg import batch_matrices, loops_over, solve_triangular, triangle
from wichi.ops.pointwise import div, mul
from wichi.ops.products import matmul, swap
from wichi.ops.shaping import broadcast
from wichi.ops.spectral import diagonal_of, on_diagonal, over_gaps
from wichi.trace.ir import Aval
from wichi.trace.primitive import Loops, Primitive, Whole, sample, shape_of

Values = Sequence[Any]
_I8 = np.dtype("i8")
_BLOCK = 32  # columns that LAPACK takes at a time


def _columns(k: Any, source: Any, at: Values, target: Any) -> None:
    """A matrix of a batch into working memory, column by column as LAPACK stores it."""
    n, m = target.shape
    with k.loops((m, n)) as (i, j):
        k.store(target, (j, i), k.load(source, [*at, i, j]))


def _from_columns(k: Any, source: Any, target: Any, at: Values) -> None:
    if target is not None:
        with k.loops(target.shape[-2:]) as (i, j):
            k.store(target, [*at, i, j], k.load(source, (j, i)))


# --- A = Q R for at least as many rows as columns: Q as wide as A, R upper --------------------------------------------
def _qr_type(a: Aval) -> tuple[Aval, Aval]:
    if a.ndim < 2 or a.shape[-2] < a.shape[-1] or a.dtype.kind != "f":
        raise ShapeError(f"qr of {a}: it takes matrices of floats with no more columns than rows")
    return Aval(a.shape, a.dtype), Aval((*a.shape[:-2], a.shape[-1], a.shape[-1]), a.dtype)


def _qr_loops(k: Any, operands: Values, results: Values) -> None:
    (a,), (q, r) = operands, results
    m, n = a.shape[-2:]
    columns, scales = k.context.scratch(a.dtype, (n, m)), k.context.scratch(a.dtype, (n,))
    work = k.context.scratch(a.dtype, (_BLOCK * n,))
    with loops_over(k, a) as at:
        _columns(k, a, at, columns)
        k.library("geqrf", a.dtype, [m, n, columns, m, scales, work, _BLOCK * n], 0)
        if r is not None:
            with k.loops((n, n)) as (i, j):
                k.store(r, [*at, i, j], k.select(k.ge(j, i), k.load(columns, (j, i)), 0.0))
        if q is not None:
            k.library("orgqr", a.dtype, [m, n, n, columns, m, scales, work, _BLOCK * n], 0)
            _from_columns(k, columns, q, at)


def _times_inverse(x: Any, r: Any, transposed: bool) -> Any:
    """``x @ inv(r)`` of an upper ``r``, or of its transpose."""
    return swap(solve_triangular(r, swap(x), lower=False, transposed=not transposed)[0])


def _qr_jvp(ins: Values, tangents: Values) -> tuple[Values, Values]:
    q, r = qr(*ins)
    moved = _times_inverse(tangents[0], r, transposed=False)
    inside = matmul(swap(q), moved)
    below = triangle(inside, lower=True, strict=True)
    upper = inside - (below - swap(below))
    return [q, r], [moved - matmul(q, upper), matmul(upper, r)]


def _qr_vjp(ins: Values, wanted: Sequence[int]) -> tuple[Values, Callable[[Values], Values]]:
    q, r = qr(*ins)

    def pullback(cts: Values) -> Values:
        of_r = None if cts[1] is None else matmul(r, swap(triangle(cts[1], lower=False)))
        of_q = None if cts[0] is None else matmul(swap(cts[0]), q)
        if of_r is None and of_q is None:
            return [None]
        middle = -of_q if of_r is None else of_r if of_q is None else of_r - of_q
        mirrored = triangle(middle, lower=True) + swap(triangle(middle, lower=True, strict=True))
        bar = matmul(q, mirrored)
        return [_times_inverse(bar if cts[0] is None else bar + cts[0], r, transposed=True)]

    return [q, r], pullback


def _tall(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return sample(rng, shape, "f") + 3.0 * np.eye(*shape[-2:]) * np.arange(1, shape[-1] + 1)


qr = Primitive(
    "qr",
    type=_qr_type,
    impl=lambda a: tuple(np.linalg.qr(a)),
    batch=batch_matrices,
    whole=Whole(_qr_jvp, _qr_vjp),
    kernel=Loops(_qr_loops),
    multiple=True,
    samples=lambda rng: [([_tall(rng, shape)], {}) for shape in ((3, 3), (5, 2), (2, 4, 3), (1, 1))],
)


# --- A = U diag(s) V', s falling: of as many columns and rows as the smaller side -------------------------------------
def _svd_type(a: Aval) -> tuple[Aval, Aval, Aval]:
    if a.ndim < 2 or a.dtype.kind != "f":
        raise ShapeError(f"svd of {a}: it takes matrices of floats")
    *batch, m, n = a.shape
    k = min(m, n)
    return Aval((*batch, m, k), a.dtype), Aval((*batch, k), a.dtype), Aval((*batch, k, n), a.dtype)


def _svd_impl(a: Any) -> tuple[Any, Any, Any]:
    try:
        return tuple(np.linalg.svd(a, full_matrices=False))
    except np.linalg.LinAlgError:
        raise SingularError("svd: the singular values do not converge.") from None


def _svd_loops(k: Any, operands: Values, results: Values) -> None:
    (a,), (u, s, vt) = operands, results
    m, n = a.shape[-2:]
    least, most = min(m, n), max(m, n)
    vectors = u is not None or vt is not None
    size = 4 * least * least + 7 * least + most if vectors else 3 * least + max(most, 7 * least)
    columns, found = k.context.scratch(a.dtype, (n, m)), k.context.scratch(a.dtype, (least,))
    left, right = ((least, m), (n, least)) if vectors else ((1, 1), (1, 1))
    left, right = k.context.scratch(a.dtype, left), k.context.scratch(a.dtype, right)
    work, numbers = k.context.scratch(a.dtype, (size,)), k.context.scratch(_I8, (8 * least,))
    with loops_over(k, a) as at:
        _columns(k, a, at, columns)
        arguments = ["S" if vectors else "N", m, n, columns, m, found, left, m, right, least, work, size, numbers]
        k.library("gesdd", a.dtype, arguments, k.context.fails("unfound"))
        if s is not None:
            with k.loops((least,)) as (i,):
                k.store(s, [*at, i], k.load(found, (i,)))
        _from_columns(k, left, u, at)
        _from_columns(k, right, vt, at)


def _scaled(x: Any, s: Any, by_rows: bool = False) -> Any:
    """``x @ diag(s)``, or ``diag(s) @ x``."""
    rank = len(shape_of(x))
    return mul(x, broadcast(s, shape=shape_of(x), axes=(rank - 1 if by_rows else rank - 2,)))


def _inverse(s: Any) -> Any:
    return div(broadcast(s.dtype.type(1), shape=shape_of(s), axes=tuple(range(len(shape_of(s))))), s)


def _rest(u: Any, x: Any) -> Any:
    """What of the columns of ``x`` the columns of ``u`` do not span; None where they span all."""
    if shape_of(u)[-2] == shape_of(u)[-1]:
        return None
    return x - matmul(u, matmul(swap(u), x))


def _svd_jvp(ins: Values, tangents: Values) -> tuple[Values, Values]:
    u, s, vt = svd(*ins)
    v, da = swap(vt), tangents[0]
    inside, gaps = matmul(swap(u), matmul(da, v)), over_gaps(mul(s, s))
    columns, rows = _scaled(inside, s), _scaled(inside, s, by_rows=True)
    du = matmul(u, mul(gaps, columns + swap(columns)))
    dv = matmul(v, mul(gaps, rows + swap(rows)))
    if (rest := _rest(u, matmul(da, v))) is not None:
        du = du + _scaled(rest, _inverse(s))
    if (rest := _rest(v, matmul(swap(da), u))) is not None:
        dv = dv + _scaled(rest, _inverse(s))
    return [u, s, vt], [du, diagonal_of(inside), swap(dv)]


def _svd_vjp(ins: Values, wanted: Sequence[int]) -> tuple[Values, Callable[[Values], Values]]:
    u, s, vt = svd(*ins)

    def pullback(cts: Values) -> Values:
        v = swap(vt)
        parts = [] if cts[1] is None else [matmul(matmul(u, on_diagonal(cts[1])), vt)]
        for w, ct, by_rows in ((u, cts[0], False), (v, None if cts[2] is None else swap(cts[2]), True)):
            if ct is None:
                continue
            turned = matmul(swap(w), ct)
            middle = _scaled(mul(over_gaps(mul(s, s)), turned - swap(turned)), s, by_rows)
            parts.append(matmul(u, matmul(middle, vt)))
            if (rest := _rest(w, ct)) is not None:
                rest = _scaled(rest, _inverse(s))
                parts.append(matmul(u, swap(rest)) if by_rows else matmul(rest, vt))
        bar = None
        for part in parts:
            bar = part if bar is None else bar + part
        return [bar]

    return [u, s, vt], pullback


svd = Primitive(
    "svd",
    type=_svd_type,
    impl=_svd_impl,
    batch=batch_matrices,
    whole=Whole(_svd_jvp, _svd_vjp),
    kernel=Loops(_svd_loops),
    multiple=True,
    samples=lambda rng: [([_tall(rng, shape)], {}) for shape in ((3, 3), (5, 2), (2, 4, 3), (2, 4), (1, 1))],
)


# --- x, where all of `holds` is true; else the program fails ----------------------------------------------------------
def _assured_impl(x: Any, holds: Any) -> Any:
    if not np.all(holds):
        raise SingularError("a matrix has less than full rank.")
    return x


def _assured_loops(k: Any, operands: Values, results: Values) -> None:
    (x, holds), (out,) = operands, results
    with k.loops(x.shape) as at:
        k.put(Check(k.load(holds, at).id, k.context.fails("deficient")))
        k.store(out, at, k.load(x, at))


assured = Primitive(
    "assured",
    type=lambda x, holds: Aval(x.shape, x.dtype),
    impl=_assured_impl,
    transpose=lambda ct, i, ins: ct,
    batch=batch_matrices,
    kernel=Loops(_assured_loops),
    samples=lambda rng: [([sample(rng, shape), np.ones(shape, bool)], {}) for shape in ((), (3,), (2, 3))],
    folds=False,
)

"""Linear algebra on LAPACK: ``solve``, ``solve_triangular``, ``cholesky`` and the parts of a determinant.

Matrices are the last two axes; leading axes are batches and equal. LAPACK stores columns: a row-major matrix is its own
transpose there, and each kernel below says which equation it solves so.

Derivatives: M. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation",
2008; of Cholesky: I. Murray, "Differentiation of the Cholesky decomposition", arXiv:1602.07527.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.errors import ShapeError, SingularError
from wichi.kernels.loops import Check
from wichi.ops.pointwise import mul, where
from wichi.ops.products import matmul, swap
from wichi.ops.reducing import sum_
from wichi.ops.shaping import broadcast
from wichi.trace.ir import Aval
from wichi.trace.primitive import Loops, Primitive, Whole, lead, sample, shape_of

Values = Sequence[Any]


def square(name: str, a: Aval) -> None:
    if a.ndim < 2 or a.shape[-1] != a.shape[-2] or a.dtype.kind != "f":
        raise ShapeError(f"{name} of {a}: it takes square matrices of floats")


def batch_matrices(prim: Primitive, args: Values, batched: Sequence[bool], size: int, **params: Any) -> Any:
    return prim(*[x if b else lead(x, size) for x, b in zip(args, batched, strict=True)], **params)


def loops_over(k: Any, layout: Any) -> Any:
    """Loops over the leading axes."""
    return k.loops(layout.shape[:-2], ordered=True)


def _copied(k: Any, source: Any, at: Values, target: Any) -> None:
    """One matrix of a batch into the working memory ``target``."""
    with k.loops(target.shape) as (i, j):
        k.store(target, (i, j), k.load(source, [*at, i, j]))


def _singular(what: str) -> SingularError:
    return SingularError(f"{what}: the matrix is singular.")


# --- A x = b, for (..., n, n) and (..., n, k) ------------------------------------------------------------------------
def _solve_type(a: Aval, b: Aval) -> tuple[Aval]:
    square("solve", a)
    if b.ndim != a.ndim or b.shape[:-1] != a.shape[:-1] or b.dtype != a.dtype:
        raise ShapeError(f"solve of {a} and {b}")
    return (Aval(b.shape, b.dtype),)


def _solve_impl(a: Any, b: Any) -> tuple[Any]:
    try:
        return (np.linalg.solve(a, b),)
    except np.linalg.LinAlgError:
        raise _singular("solve") from None


def _solve_loops(k: Any, operands: Values, results: Values) -> None:
    """What LAPACK factors is A'; it solves with its transpose. The right sides go in as columns."""
    (a, b), (out,) = operands, results
    n, columns = b.shape[-2:]
    factors, rows = k.context.scratch(a.dtype, (n, n)), k.context.scratch(a.dtype, (columns, n))
    pivots = k.context.scratch(np.dtype("i8"), (max(n, 1),))
    with loops_over(k, a) as at:
        _copied(k, a, at, factors)
        with k.loops((columns, n)) as (j, i):
            k.store(rows, (j, i), k.load(b, [*at, i, j]))
        k.library("getrf", a.dtype, [n, n, factors, n, pivots], k.context.fails("singular"))
        k.library("getrs", a.dtype, ["T", n, columns, factors, n, pivots, rows, n], 0)
        with k.loops((n, columns)) as (i, j):
            k.store(out, [*at, i, j], k.load(rows, (j, i)))


def _solve_jvp(ins: Values, tangents: Values) -> tuple[Values, Values]:
    (a, _), (a_dot, b_dot) = ins, tangents
    (x,) = solve(*ins)
    right = None if a_dot is None else -matmul(a_dot, x)
    if b_dot is not None:
        right = b_dot if right is None else b_dot + right
    return [x], list(solve(a, right))


def _solve_vjp(ins: Values, wanted: Sequence[int]) -> tuple[Values, Callable[[Values], Values]]:
    (x,) = solve(*ins)

    def pullback(cts: Values) -> Values:
        (b_bar,) = solve(swap(ins[0]), cts[0])
        return [b_bar if i == 1 else -matmul(b_bar, swap(x)) for i in wanted]

    return [x], pullback


def _regular(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Any:
    n = shape[-1]
    return (sample(rng, shape, kind) + 3 * n * np.eye(n)).astype(np.float32 if kind == "e" else float)


solve = Primitive(
    "solve",
    type=_solve_type,
    impl=_solve_impl,
    batch=batch_matrices,
    whole=Whole(_solve_jvp, _solve_vjp),
    kernel=Loops(_solve_loops),
    multiple=True,
    samples=lambda rng: [
        ([_regular(rng, (*batch, n, n), kind), sample(rng, (*batch, n, columns), kind)], {})
        for kind in "fe"
        for batch, n, columns in (((), 3, 1), ((), 5, 4), ((2,), 3, 2), ((), 1, 1))
    ],
)


# --- the same for a triangular A: the other triangle is not looked at -------------------------------------------------
def _triangular_impl(a: Any, b: Any, lower: bool, transposed: bool) -> tuple[Any]:
    part = np.tril(a) if lower else np.triu(a)
    if np.any(np.diagonal(a, axis1=-2, axis2=-1) == 0):
        raise _singular("solve_triangular")
    return (np.linalg.solve(np.swapaxes(part, -1, -2) if transposed else part, b),)


def _triangular_loops(k: Any, operands: Values, results: Values, lower: bool, transposed: bool) -> None:
    """A X = B of rows is X' A' = B' of columns: the unknown on the left, the other triangle."""
    (a, b), (out,) = operands, results
    n, columns = b.shape[-2:]
    one, factor = k.constant(1, a.dtype), k.context.scratch(a.dtype, (n, n))
    with loops_over(k, a) as at:
        _copied(k, a, at, factor)
        with k.loops((n,), ordered=True) as (i,):
            k.put(Check(k.ne(k.load(factor, (i, i)), 0).id, k.context.fails("singular")))
        with k.loops((n, columns)) as (i, j):
            k.store(out, [*at, i, j], k.load(b, [*at, i, j]))
        flags = ["R", "U" if lower else "L", "T" if transposed else "N", "N"]
        zero = k.constant(0)
        k.library("trsm", a.dtype, [*flags, columns, n, one, factor, n, (out, [*at, zero, zero]), columns], 0)


def triangle(x: Any, lower: bool, strict: bool = False) -> Any:
    n = shape_of(x)[-1]
    mask = np.tri(n, k=-1 if strict else 0, dtype=bool)
    mask = mask if lower else mask.T
    shape = shape_of(x)
    if len(shape) > 2:
        mask = broadcast(mask, shape=shape, axes=tuple(range(len(shape) - 2)))
    return where(mask, x, broadcast(x.dtype.type(0), shape=shape, axes=tuple(range(len(shape)))))


def _triangular_jvp(ins: Values, tangents: Values, **params: bool) -> tuple[Values, Values]:
    (a, _), (a_dot, b_dot) = ins, tangents
    (x,) = solve_triangular(*ins, **params)
    right = None
    if a_dot is not None:
        part = triangle(a_dot, params["lower"])
        right = -matmul(swap(part) if params["transposed"] else part, x)
    if b_dot is not None:
        right = b_dot if right is None else b_dot + right
    return [x], list(solve_triangular(a, right, **params))


def _triangular_vjp(ins: Values, wanted: Sequence[int], **params: bool) -> tuple[Values, Callable[[Values], Values]]:
    (x,) = solve_triangular(*ins, **params)

    def pullback(cts: Values) -> Values:
        (b_bar,) = solve_triangular(ins[0], cts[0], lower=params["lower"], transposed=not params["transposed"])
        product = matmul(x, swap(b_bar)) if params["transposed"] else matmul(b_bar, swap(x))
        return [b_bar if i == 1 else -triangle(product, params["lower"]) for i in wanted]

    return [x], pullback


solve_triangular = Primitive(
    "solve_triangular",
    type=lambda a, b, lower, transposed: _solve_type(a, b),
    impl=_triangular_impl,
    batch=batch_matrices,
    whole=Whole(_triangular_jvp, _triangular_vjp),
    kernel=Loops(_triangular_loops),
    multiple=True,
    samples=lambda rng: [
        ([_regular(rng, (*batch, 4, 4), "f"), sample(rng, (*batch, 4, 3))], {"lower": lower, "transposed": transposed})
        for batch in ((), (2,))
        for lower in (False, True)
        for transposed in (False, True)
    ],
)


# --- A = L L', L lower; only the lower triangle of A is looked at -----------------------------------------------------
def _cholesky_type(a: Aval) -> tuple[Aval]:
    square("cholesky", a)
    return (Aval(a.shape, a.dtype),)


def _cholesky_impl(a: Any) -> tuple[Any]:
    try:
        return (np.linalg.cholesky(a),)
    except np.linalg.LinAlgError:
        raise SingularError("cholesky: the matrix is not positive definite.") from None


def _cholesky_loops(k: Any, operands: Values, results: Values) -> None:
    """The lower triangle of rows is the upper one of columns: U' U with U = L'."""
    (a,), (out,) = operands, results
    n = a.shape[-1]
    with loops_over(k, a) as at:
        with k.loops((n, n)) as (i, j):
            k.store(out, [*at, i, j], k.select(k.ge(i, j), k.load(a, [*at, i, j]), 0.0))
        zero = k.constant(0)
        k.library("potrf", a.dtype, ["U", n, (out, [*at, zero, zero]), n], k.context.fails("definite"))


def half(x: Any) -> Any:
    """The lower triangle with half the diagonal."""
    n = shape_of(x)[-1]
    weights = np.tri(n) - 0.5 * np.eye(n)
    shape = shape_of(x)
    weights = weights.astype(x.dtype)
    return mul(x, broadcast(weights, shape=shape, axes=tuple(range(len(shape) - 2))))


def _cholesky_jvp(ins: Values, tangents: Values) -> tuple[Values, Values]:
    (factor,) = cholesky(*ins)
    below = triangle(tangents[0], lower=True, strict=True)
    dot = triangle(tangents[0], lower=True) + swap(below)
    (left,) = solve_triangular(factor, dot, lower=True, transposed=False)
    (both,) = solve_triangular(factor, swap(left), lower=True, transposed=False)
    return [factor], [matmul(factor, half(swap(both)))]


def _cholesky_vjp(ins: Values, wanted: Sequence[int]) -> tuple[Values, Callable[[Values], Values]]:
    (factor,) = cholesky(*ins)

    def pullback(cts: Values) -> Values:
        middle = half(matmul(swap(factor), triangle(cts[0], lower=True)))
        (left,) = solve_triangular(factor, middle, lower=True, transposed=True)
        (bar,) = solve_triangular(factor, swap(left), lower=True, transposed=True)
        return [half(bar + swap(bar))]

    return [factor], pullback


def _definite(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Any:
    x = sample(rng, shape, kind)
    return x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1], dtype=x.dtype)


cholesky = Primitive(
    "cholesky",
    type=_cholesky_type,
    impl=_cholesky_impl,
    batch=batch_matrices,
    whole=Whole(_cholesky_jvp, _cholesky_vjp),
    kernel=Loops(_cholesky_loops),
    multiple=True,
    samples=lambda rng: [([_definite(rng, (*b, n, n), "f")], {}) for b, n in (((), 3), ((2,), 4), ((), 1))],
)


# --- sign and log|.| of the determinant -------------------------------------------------------------------------------
def _determinant_type(a: Aval) -> tuple[Aval, Aval]:
    square("slogdet", a)
    aval = Aval(a.shape[:-2], a.dtype)
    return aval, aval


def _determinant_impl(a: Any) -> tuple[Any, Any]:
    sign, value = np.linalg.slogdet(a)
    return sign, value


def _determinant_loops(k: Any, operands: Values, results: Values) -> None:
    (a,), (sign, value) = operands, results
    n = a.shape[-1]
    factors, pivots = k.context.scratch(a.dtype, (n, n)), k.context.scratch(np.dtype("i8"), (max(n, 1),))
    with loops_over(k, a) as at:
        _copied(k, a, at, factors)
        k.library("getrf", a.dtype, [n, n, factors, n, pivots], 0)
        signs, total = k.variable(k.constant(1, a.dtype)), k.variable(k.constant(0, a.dtype))
        with k.rounds(n) as i:
            entry = k.load(factors, (i, i))
            swapped = k.ne(k.load_integer(pivots, i), i + k.constant(1))
            flipped = k.select(swapped, -signs.value, signs.value)
            signs.set(flipped * k.sign(entry))
            total.set(total.value + k.log(k.abs(entry)))
        if sign is not None:
            k.store(sign, at, signs.value)
        if value is not None:
            k.store(value, at, total.value)


def _inverse_transposed(a: Any) -> Any:
    n, shape = shape_of(a)[-1], shape_of(a)
    eye = broadcast(np.eye(n, dtype=a.dtype), shape=shape, axes=tuple(range(len(shape) - 2)))
    return solve(swap(a), eye)[0]


def _determinant_jvp(ins: Values, tangents: Values) -> tuple[Values, Values]:
    rank = len(shape_of(ins[0]))
    change = sum_(mul(_inverse_transposed(ins[0]), tangents[0]), axes=(rank - 2, rank - 1))
    return list(slogdet(*ins)), [None, change]


def _determinant_vjp(ins: Values, wanted: Sequence[int]) -> tuple[Values, Callable[[Values], Values]]:
    shape = shape_of(ins[0])

    def pullback(cts: Values) -> Values:
        if cts[1] is None:
            return [None]
        spread = broadcast(cts[1], shape=shape, axes=(len(shape) - 2, len(shape) - 1))
        return [mul(spread, _inverse_transposed(ins[0]))]

    return list(slogdet(*ins)), pullback


slogdet = Primitive(
    "slogdet",
    type=_determinant_type,
    impl=_determinant_impl,
    batch=batch_matrices,
    whole=Whole(_determinant_jvp, _determinant_vjp),
    kernel=Loops(_determinant_loops),
    multiple=True,
    samples=lambda rng: [([_regular(rng, (*b, n, n), "f")], {}) for b, n in (((), 3), ((2,), 4), ((), 1))],
)

"""``numpy.linalg`` of matrices that need not be square: factors, and least squares."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from wichi.errors import ArgumentError, ShapeError
from wichi.numpy import _pointwise as pw
from wichi.numpy._differences import vander
from wichi.numpy._indexing import index
from wichi.numpy._products import matmul
from wichi.numpy._promote import Array, as_value, broadcast_to, cast_to, public
from wichi.numpy._reducing import all as all_
from wichi.numpy._reducing import sum
from wichi.numpy._shaping import concatenate, expand_dims, swapaxes
from wichi.numpy._solving import inv, solve_triangular
from wichi.ops import factors
from wichi.trace import frames
from wichi.trace.primitive import aval_of, shape_of

_F8 = np.dtype(float)


class QR(NamedTuple):
    """Unpacks as ``Q, R``."""

    Q: Array
    R: Array


class SVD(NamedTuple):
    """Unpacks as ``U, S, Vh``."""

    U: Array
    S: Array
    Vh: Array


def _doubles(a: Array, name: str) -> tuple[Array, np.dtype[Any]]:
    """A matrix in float64, in which NumPy computes float32 too, and the dtype of the results."""
    a = as_value(a)
    dtype = aval_of(a).dtype if aval_of(a).dtype == np.float32 else _F8
    if len(shape_of(a)) < 2:
        raise ShapeError(f"{name} of shape {shape_of(a)}: it takes matrices.", at=frames.describe(frames.user_where()))
    return cast_to(a, _F8), dtype


@public(np.linalg.qr)
def qr(a: Array, mode: str = "reduced") -> Any:
    """As ``numpy.linalg.qr``, in the modes 'reduced' and 'r'. The derivative needs columns that depend on no others."""
    if mode not in ("reduced", "r"):
        raise ArgumentError(
            f"np.linalg.qr of a value inside a transform has no mode {mode!r}.",
            at=frames.describe(frames.user_where()),
            fix="np.linalg.qr(a), or mode='r'",
        )
    a, dtype = _doubles(a, "qr")
    *batch, m, n = shape_of(a)
    if not aval_of(a).size:
        q, r = np.zeros((*batch, m, min(m, n))), np.zeros((*batch, min(m, n), n))
    else:
        q, r = factors.qr(index(a, (..., slice(None, m))) if m < n else a)
        if m < n:
            r = concatenate([r, matmul(swapaxes(q, -1, -2), index(a, (..., slice(m, None))))], -1)
    return cast_to(r, dtype) if mode == "r" else QR(cast_to(q, dtype), cast_to(r, dtype))


@public(np.linalg.svd)
def svd(a: Array, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """As ``numpy.linalg.svd``, with ``full_matrices`` of square matrices only. Where singular values are equal, the
    derivative of the vectors is not finite.

    Raises:
        SingularError: the singular values do not converge (it is a ``numpy.linalg.LinAlgError`` too).
    """
    a, dtype = _doubles(a, "svd")
    *batch, m, n = shape_of(a)
    if hermitian or (compute_uv and full_matrices and m != n):
        raise ArgumentError(
            f"np.linalg.svd of a value inside a transform, of {m} rows and {n} columns, has no"
            f" {'hermitian' if hermitian else 'full_matrices'}.",
            at=frames.describe(frames.user_where()),
            because="the vectors beyond the smaller side are any that fit, and have no derivative",
            fix="np.linalg.eigh(a)" if hermitian else "np.linalg.svd(a, full_matrices=False)",
        )
    if not aval_of(a).size:
        k = min(m, n)
        found = [np.zeros((*batch, m, k)), np.zeros((*batch, k)), np.zeros((*batch, k, n))]
    else:
        found = [*factors.svd(a)]
    found = [cast_to(x, dtype) for x in found]
    return SVD(*found) if compute_uv else found[1]


@public(np.linalg.svdvals)
def svdvals(x: Array, /) -> Array:
    return svd(x, compute_uv=False)


def _solved(a: Array, b: Array, rcond: Array) -> tuple[Array, Array]:
    """The least solution of ``a @ x = b`` for columns ``b``, and the singular values; in float64."""
    *_, m, n = shape_of(a)
    s = factors.svd(a)[1]
    least = pw.multiply(index(s, (..., slice(0, 1))), rcond)
    full = expand_dims(all_(pw.greater(s, least), -1, keepdims=True), -1)  # nan is refused as well
    a = factors.assured(a, broadcast_to(full, shape_of(a)))
    q, r = factors.qr(a if m >= n else swapaxes(a, -1, -2))
    if m >= n:
        return solve_triangular(r, matmul(swapaxes(q, -1, -2), b)), s
    return matmul(q, solve_triangular(r, b, trans=1)), s


@public(np.linalg.lstsq)
def lstsq(a: Array, b: Array, rcond: float | None = None) -> tuple[Array, Array, Any, Array]:
    """As ``numpy.linalg.lstsq``, of matrices of full rank, by QR.

    Raises:
        SingularError: the rank is less (it is a ``numpy.linalg.LinAlgError`` too).
    """
    (a, one), (b, two) = _doubles(a, "lstsq"), (as_value(b), aval_of(as_value(b)).dtype)
    dtype = one if two == np.float32 else _F8
    shape, vector = shape_of(a), len(shape_of(b)) == 1
    b = cast_to(expand_dims(b, 1) if vector else b, _F8)
    if len(shape) != 2 or len(shape_of(b)) != 2 or shape[0] != shape_of(b)[0]:
        raise ShapeError(
            f"lstsq of shapes {shape} and {shape_of(b)}.",
            at=frames.describe(frames.user_where()),
            because="it takes (m, n) and (m,) or (m, k)",
        )
    if not aval_of(a).size:
        raise ShapeError(f"lstsq of shape {shape}: there is nothing to solve.", at=frames.describe(frames.user_where()))
    x, s = _solved(a, b, np.finfo(dtype).eps * max(shape) if rcond is None else rcond)
    left: Array = np.zeros(0)
    if shape[0] > shape[1]:
        left = sum(pw.square(pw.subtract(b, matmul(a, x))), 0)
    x = index(x, (slice(None), 0)) if vector else x
    return cast_to(x, dtype), cast_to(left, dtype), np.int32(min(shape)), cast_to(s, dtype)


@public(np.linalg.pinv)
def pinv(a: Array, rcond: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Array:
    """As ``numpy.linalg.pinv``, of matrices of full rank, by QR.

    Raises:
        SingularError: the rank is less (it is a ``numpy.linalg.LinAlgError`` too).
    """
    a, dtype = _doubles(a, "pinv")
    *batch, m, n = shape_of(a)
    if not aval_of(a).size:
        return np.zeros((*batch, n, m), dtype)
    least = rcond if rcond is not None else rtol if rtol is not None else 1e-15
    return cast_to(_solved(a, broadcast_to(np.eye(m), (*batch, m, m)), least)[0], dtype)


@public(np.polyfit)
def polyfit(
    x: Array, y: Array, deg: int, rcond: float | None = None, full: bool = False, w: Array = None, cov: Any = False
) -> Any:
    """As ``numpy.polyfit``, for a degree that is a number.

    Raises:
        SingularError: there are fewer different points than coefficients, where NumPy warns.
    """
    x, y = pw.add(as_value(x), 0.0), pw.add(as_value(y), 0.0)
    if deg < 0:
        raise ValueError("expected deg >= 0")
    if len(shape_of(x)) != 1 or not shape_of(x)[0] or len(shape_of(y)) not in (1, 2) or shape_of(x) != shape_of(y)[:1]:
        raise ShapeError(
            f"np.polyfit of shapes {shape_of(x)} and {shape_of(y)}.",
            at=frames.describe(frames.user_where()),
            because="it takes as many y as x, at least one",
        )
    count, order = shape_of(x)[0], int(deg) + 1
    rcond = count * np.finfo(aval_of(x).dtype).eps if rcond is None else rcond
    left = vander(x, order)
    if w is not None:
        w = pw.add(as_value(w), 0.0)
        left = pw.multiply(left, expand_dims(w, 1))
        y = pw.multiply(y, w if len(shape_of(y)) == 1 else expand_dims(w, 1))
    scale = pw.sqrt(sum(pw.square(left), 0))
    left = pw.divide(left, scale)
    found, residuals, rank, s = lstsq(left, y, rcond)
    found = pw.divide(found, scale if len(shape_of(y)) == 1 else expand_dims(scale, 1))
    if full:
        return found, residuals, rank, s, rcond
    if not cov:
        return found
    spread = pw.divide(inv(matmul(swapaxes(left, 0, 1), left)), pw.multiply(expand_dims(scale, 1), scale))
    factor: Array = 1
    if cov != "unscaled":
        if count <= order:
            raise ValueError("the number of data points must exceed order to scale the covariance matrix")
        factor = pw.divide(residuals, float(count - order))
    if len(shape_of(y)) == 1:
        return found, pw.multiply(spread, factor)
    return found, pw.multiply(expand_dims(spread, 2), factor)

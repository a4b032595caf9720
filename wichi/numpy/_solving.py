"""``numpy.linalg`` of square matrices: equations, determinants, eigenvalues."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wichi.errors import ShapeError
from wichi.numpy._pointwise import exp, multiply
from wichi.numpy._promote import Array, as_value, broadcast_to, cast_to, public
from wichi.numpy._shaping import swapaxes
from wichi.ops import linalg, shaping, spectral
from wichi.trace import frames
from wichi.trace.primitive import aval_of, shape_of


class Slogdet(NamedTuple):
    """Unpacks as ``sign, logabsdet``."""

    sign: Array
    logabsdet: Array


def _floats(*xs: Array) -> list[Array]:
    values = [as_value(x) for x in xs]
    kinds = {aval_of(v).dtype for v in values}
    dtype = np.dtype("f4") if kinds == {np.dtype("f4")} else np.dtype("f8")
    return [cast_to(v, dtype) for v in values]


def _batched(a: Array, b: Array, name: str) -> tuple[Array, Array, bool]:
    """Both with the same leading axes; whether ``b`` was a vector."""
    a, b = _floats(a, b)
    vector = len(shape_of(b)) == 1
    if len(shape_of(a)) < 2 or not shape_of(b) or shape_of(b)[0 if vector else -2] != shape_of(a)[-1]:
        raise ShapeError(
            f"{name} of shapes {shape_of(a)} and {shape_of(b)}.",
            at=frames.describe(frames.user_where()),
            because="it takes (..., n, n) and (n,) or (..., n, k)",
        )
    if vector:
        b = shaping.reshape(b, shape=(*shape_of(b), 1))
    common = np.broadcast_shapes(shape_of(a)[:-2], shape_of(b)[:-2])
    return (
        broadcast_to(a, (*common, *shape_of(a)[-2:])),
        broadcast_to(b, (*common, *shape_of(b)[-2:])),
        vector,
    )


def _any(x: Array) -> bool:
    """Whether there is anything to compute: LAPACK takes no empty matrices."""
    return aval_of(x).size > 0


def _as_given(x: Array, vector: bool) -> Array:
    return shaping.reshape(x, shape=shape_of(x)[:-1]) if vector else x


@public(np.linalg.solve)
def solve(a: Array, b: Array) -> Array:
    """As ``numpy.linalg.solve``: x with ``a @ x = b``.

    Raises:
        SingularError: a matrix is singular (it is a ``numpy.linalg.LinAlgError`` too).

    >>> import numpy as np, wichi
    >>> wichi.grad(lambda a: np.linalg.solve(a, np.ones(2))[0])(np.array([[2.0, 0.0], [0.0, 1.0]]))
    array([[-0.25, -0.5 ],
           [-0.  , -0.  ]])
    """
    a, b, vector = _batched(a, b, "solve")
    return _as_given(linalg.solve(a, b)[0] if _any(b) else b, vector)


def solve_triangular(a: Array, b: Array, lower: bool = False, trans: int | str = 0) -> Array:
    """As ``scipy.linalg.solve_triangular``, batched: ``a @ x = b``, or ``a.T @ x = b`` with ``trans`` 1 or 'T'.

    Raises:
        SingularError: a number on a diagonal is 0.
    """
    a, b, vector = _batched(a, b, "solve_triangular")
    if not _any(b):
        return _as_given(b, vector)
    return _as_given(linalg.solve_triangular(a, b, lower=bool(lower), transposed=trans in (1, "T"))[0], vector)


@public(np.linalg.cholesky)
def cholesky(a: Array, *, upper: bool = False) -> Array:
    """As ``numpy.linalg.cholesky``. Only the lower triangle of ``a`` is read, so only it has a derivative
    (JAX and PyTorch spread it over both); ``cholesky((a + a.T) / 2)`` gives the same in all three.

    Raises:
        SingularError: a matrix is not positive definite.
    """
    (a,) = _floats(a)
    factor = linalg.cholesky(a)[0] if _any(a) else a
    return swapaxes(factor, -1, -2) if upper else factor


class Eigh(NamedTuple):
    """Unpacks as ``eigenvalues, eigenvectors``."""

    eigenvalues: Array
    eigenvectors: Array


@public(np.linalg.eigh)
def eigh(a: Array, UPLO: str = "L") -> Eigh:
    """As ``numpy.linalg.eigh``. Only one triangle of ``a`` is read, so only it has a derivative; where eigenvalues are
    equal, that of the vectors is not finite.

    Raises:
        SingularError: the eigenvalues do not converge (it is a ``numpy.linalg.LinAlgError`` too).

    >>> import numpy as np, wichi
    >>> wichi.grad(lambda a: np.linalg.eigh(a)[0][1])(np.array([[2.0, 0.0], [1.0, 2.0]]))
    array([[0.5, 0. ],
           [1. , 0.5]])
    """
    if UPLO.upper() not in ("L", "U"):
        raise ValueError("UPLO argument must be 'L' or 'U'")
    (a,) = _floats(a)
    if len(shape_of(a)) < 2 or shape_of(a)[-1] != shape_of(a)[-2]:
        raise ShapeError(
            f"eigh of shape {shape_of(a)}: it takes square matrices.", at=frames.describe(frames.user_where())
        )
    if not _any(a):
        return Eigh(np.zeros(shape_of(a)[:-1], a.dtype), a)
    dtype = aval_of(a).dtype
    found = spectral.eigh(cast_to(a, np.dtype(float)), lower=UPLO.upper() == "L")  # float32 too, as NumPy does
    return Eigh(*[cast_to(x, dtype) for x in found])


@public(np.linalg.eigvalsh)
def eigvalsh(a: Array, UPLO: str = "L") -> Array:
    """As ``numpy.linalg.eigvalsh``: see ``eigh``. Its derivative takes the eigenvectors, and none of their gaps."""
    return eigh(a, UPLO).eigenvalues


@public(np.linalg.inv)
def inv(a: Array) -> Array:
    """As ``numpy.linalg.inv``. To solve equations ``solve`` takes a third of the work and loses fewer digits."""
    (a,) = _floats(a)
    shape = shape_of(a)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ShapeError(f"inv of shape {shape}: it takes square matrices.", at=frames.describe(frames.user_where()))
    return a if not _any(a) else linalg.solve(a, broadcast_to(np.eye(shape[-1], dtype=a.dtype), shape))[0]


@public(np.linalg.slogdet)
def slogdet(a: Array) -> Slogdet:
    """As ``numpy.linalg.slogdet``: the sign and the logarithm of the absolute value of the determinant.

    At a singular matrix these are 0 and -inf, and the derivative is an error.
    """
    (a,) = _floats(a)
    if shape_of(a)[-2:] == (0, 0):  # the empty product
        one = np.ones(shape_of(a)[:-2], a.dtype)
        return Slogdet(one, np.zeros_like(one))
    sign, value = linalg.slogdet(a)
    return Slogdet(sign, value)


@public(np.linalg.det)
def det(a: Array) -> Array:
    """As ``numpy.linalg.det``. At a singular matrix the value is 0; its derivative takes the inverse.

    Raises:
        SingularError: the derivative is asked for at a singular matrix.
    """
    sign, value = slogdet(a)
    return multiply(sign, exp(value))

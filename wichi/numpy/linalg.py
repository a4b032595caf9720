"""``numpy.linalg`` for values inside transforms: batched, on LAPACK by address, differentiable to any order."""

from wichi.numpy._least import lstsq, pinv, qr, svd, svdvals
from wichi.numpy._products import matmul, norm
from wichi.numpy._solving import cholesky, det, eigh, eigvalsh, inv, slogdet, solve, solve_triangular

__all__ = [
    "cholesky", "det", "eigh", "eigvalsh", "inv", "lstsq", "matmul", "norm", "pinv", "qr", "slogdet", "solve",
    "solve_triangular", "svd", "svdvals",
]  # fmt: skip

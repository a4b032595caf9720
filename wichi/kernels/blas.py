"""Where matrix products and factorisations come from: BLAS and LAPACK by address, which costs nothing to compile.

Tried in order, each checked by a small product: the OpenBLAS that NumPy bundles and has loaded already (no second
thread pool, 64-bit integers), then SciPy's ``cython_blas`` (32-bit integers).
"""

from __future__ import annotations

import ctypes
import glob
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wichi.errors import KernelError
from wichi.kernels.once import once

_LAPACK = tuple(
    f"{kind}{name}" for name in ("getrf", "getrs", "potrf", "syevd", "geqrf", "orgqr", "gesdd") for kind in "ds"
)
ROUTINES = tuple(f"{kind}{name}" for name in ("gemm", "gemv", "trsm") for kind in "ds") + _LAPACK


@dataclass(frozen=True, slots=True)
class Provider:
    """Addresses of ``wichi_dgemm``, ``wichi_dgemv`` and the like (Fortran convention), and their integers' width."""

    name: str
    symbols: dict[str, int]
    integer_bits: int


@once
def provider() -> Provider:
    """The BLAS of this process.

    Raises:
        KernelError: none that computes right was found.
    """
    for find in (_from_numpy, _from_scipy):
        found = find()
        if found is not None and _multiplies(found):
            return found
    raise KernelError(
        "No BLAS was found.",
        because="neither NumPy's own library nor scipy.linalg.cython_blas offers one",
        fix="reinstall numpy and scipy from PyPI",
    )


def _from_numpy() -> Provider | None:
    root = os.path.dirname(np.__file__)
    folders = (f"{root}.libs", os.path.join(root, ".dylibs"))
    for path in (p for folder in folders for p in sorted(glob.glob(os.path.join(folder, "*openblas*")))):
        try:
            library = ctypes.CDLL(path)  # loaded already by NumPy: the same handle, nothing is opened twice
            symbols = {
                f"wichi_{name}": ctypes.cast(getattr(library, f"scipy_{name}_64_"), ctypes.c_void_p).value or 0
                for name in ROUTINES
            }
        except (OSError, AttributeError):
            continue
        return Provider("numpy-openblas64", symbols, 64)
    return None


def _from_scipy() -> Provider | None:
    try:
        from scipy.linalg import cython_blas, cython_lapack
    except ImportError:
        return None
    found = {
        f"wichi_{name}": _capsule_address((cython_lapack if name in _LAPACK else cython_blas).__pyx_capi__[name])
        for name in ROUTINES
    }
    return Provider("scipy", found, 32)


def _capsule_address(capsule: object) -> int:
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))


def _multiplies(found: Provider) -> bool:
    """Whether a 2 x 3 by 3 x 2 product comes out right, in both precisions."""
    integer = np.dtype(f"i{found.integer_bits // 8}")
    call: Callable[..., None]
    for kind, dtype in (("d", np.float64), ("s", np.float32)):
        a, b, c = (
            np.arange(6, dtype=dtype).reshape(2, 3),
            np.arange(6, dtype=dtype).reshape(3, 2),
            np.zeros((2, 2), dtype),
        )
        m, n, k = (np.array(v, integer) for v in (2, 2, 3))
        one, zero, no = np.array(1, dtype), np.array(0, dtype), np.frombuffer(b"N", np.uint8)
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)(found.symbols[f"wichi_{kind}gemm"])
        # Row-major C = A B is column-major C' = B' A'.
        call(*(x.ctypes.data for x in (no, no, m, n, k, one, b, m, a, k, zero, c, m)))
        if not np.array_equal(c, a @ b):
            return False
    return True

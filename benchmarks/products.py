"""Matrix products inside compiled code, by the BLAS that NumPy itself carries.

Numba's ``np.dot`` calls SciPy's, another build, which at small sizes is a fifth slower: no limit of anything. Where
NumPy's library has no C interface under the names looked for, ``np.dot`` stands in.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import threadpoolctl
from numba import njit, types
from numba.extending import overload

_ROWS, _PLAIN, _TURNED = 101, 111, 112  # of cblas.h


def _functions() -> dict[str, Any]:
    """cblas_sgemm and cblas_dgemm of NumPy's library, with 64-bit integers, by dtype; empty if they are not there."""
    found = {}
    for library in threadpoolctl.threadpool_info():
        if library["user_api"] == "blas" and "numpy.libs" in library["filepath"]:
            loaded = ctypes.CDLL(library["filepath"])
            for dtype, letter, number in (("float32", "s", ctypes.c_float), ("float64", "d", ctypes.c_double)):
                f = getattr(loaded, f"scipy_cblas_{letter}gemm64_", None)
                if f is not None:
                    size, array = ctypes.c_int64, ctypes.c_void_p
                    f.restype = None
                    f.argtypes = (
                        [ctypes.c_int] * 3 + [size] * 3 + [number, array, size, array, size, number, array, size]
                    )
                    found[dtype] = f
    return found


_FOUND = _functions()


def dot(a: Any, b: Any, out: Any) -> None:
    """Compiled code only: ``out = a @ b``, all contiguous; a and b may be transposes of contiguous ones."""
    raise NotImplementedError


@overload(dot, inline="never")
def _dot(a: Any, b: Any, out: Any) -> Any:
    gemm = _FOUND.get(out.dtype.name)
    if gemm is None:
        return lambda a, b, out: _discard(np.dot(a, b, out))
    turn_a, turn_b = (_TURNED if x.layout == "F" else _PLAIN for x in (a, b))
    axis_a, axis_b = (0 if x.layout == "F" else 1 for x in (a, b))
    one, zero = (1.0, 0.0) if out.dtype == types.float64 else (np.float32(1), np.float32(0))

    def double(a: Any, b: Any, out: Any) -> None:
        m, n = out.shape
        gemm(
            _ROWS, turn_a, turn_b, m, n, a.shape[1], one, a.ctypes, a.shape[axis_a], b.ctypes, b.shape[axis_b], zero,
            out.ctypes, n,
        )  # fmt: skip

    return double


@njit
def _discard(x: Any) -> None:
    return None

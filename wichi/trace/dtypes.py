"""The dtypes and the classes of arrays that wichi computes with."""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.errors import DtypeError
from wichi.trace import frames

SUPPORTED = {np.dtype(c) for c in "?bhilqBHILQfd"}


def supported(dtype: np.dtype[Any], what: str = "This value") -> np.dtype[Any]:
    """The dtype in native byte order, or an error of ours.

    Raises:
        DtypeError: wichi does not compute with this dtype.
    """
    native = dtype.newbyteorder("=")
    if native in SUPPORTED:
        return native
    raise DtypeError(
        f"{what} has dtype {dtype}, which wichi does not compute with.",
        at=frames.describe(frames.user_where()),
        because="values are float64, float32, integers or bool",
        fix="convert it first, for instance np.asarray(x, dtype=float)",
    )


def refuse_subclass(x: Any, what: str = "This value") -> None:
    """Raise for a subclass of ndarray: the operators of ``np.matrix``, masks and units would be lost unnoticed.

    Raises:
        DtypeError: ``x`` is an ndarray of another class than NumPy's own (memory maps are plain enough).
    """
    if isinstance(x, np.ndarray) and type(x) is not np.ndarray and not isinstance(x, np.memmap):
        raise DtypeError(
            f"{what} is a {type(x).__name__}, whose operators may mean something else than an array's.",
            at=frames.describe(frames.user_where()),
            because="wichi computes with plain arrays, and would ignore masks, units and the like",
            fix="np.asarray(x), if the plain numbers are meant; for a masked array x.filled(...)",
        )

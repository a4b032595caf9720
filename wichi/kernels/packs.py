"""Small arrays in registers as vectors: several numbers that are computed alike are computed together.

Between equations a small array is an object array of scalars, which views rearrange for nothing. ``together`` packs its
scalars into a vector, computes, and takes the result apart again; what is only put together as it was taken apart
costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.kernels.loops import Pack, Unpack
from wichi.kernels.numbers import Scalar, Variable, mapped

LEAST = 4  # numbers that are worth a vector


def pack(k: Any, scalars: Sequence[Scalar]) -> Scalar:
    """The scalars as one vector; where they are all the same, that one."""
    if all(s.id == scalars[0].id for s in scalars):
        return scalars[0]
    whole = k.lane_of.get(scalars[0].id)
    if whole is not None and whole[0].lanes == len(scalars):
        if all(k.lane_of.get(s.id) == (whole[0], i) for i, s in enumerate(scalars)):
            return whole[0]  # type: ignore[no-any-return]
    return k.numbered(  # type: ignore[no-any-return]
        ("pack", *(s.id for s in scalars)),
        scalars[0].dtype,
        lambda out: Pack(out, tuple(s.id for s in scalars), scalars[0].dtype),
        len(scalars),
    )


def unpack(k: Any, vector: Scalar, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The numbers of a vector; of a single number, that many of it."""
    out = np.empty(shape, object)
    for i, place in enumerate(np.ndindex(*shape)):
        if not vector.lanes:
            out[place] = vector
            continue
        found = k.numbered(("unpack", vector.id, i), vector.dtype, lambda o: Unpack(o, vector.id, i, vector.dtype))  # noqa: B023
        k.lane_of[found.id] = (vector, i)
        out[place] = found
    return out


def together(k: Any, f: Callable[..., Scalar], *arrays: Any) -> np.ndarray[Any, Any]:
    """``f`` of the elements of object arrays of one shape; those of no axes stand beside each."""
    shape = np.broadcast_shapes(*(np.shape(a) for a in arrays))
    if np.prod(shape, dtype=int) < LEAST:
        return mapped(f, *arrays)
    vectors = [a[()] if a.ndim == 0 else pack(k, list(a.flat)) for a in map(np.asarray, arrays)]
    return unpack(k, f(*vectors), shape)


class Variables:
    """A mutable small array."""

    __slots__ = ("_k", "_shape", "_variables")

    def __init__(self, k: Any, values: np.ndarray[Any, Any]) -> None:
        self._k, self._shape = k, values.shape
        self._variables: list[Variable] = [k.variable(v) for v in self._parts(values)]

    def _parts(self, values: np.ndarray[Any, Any]) -> list[Scalar]:
        scalars = list(values.flat)
        if len(scalars) < LEAST:
            return scalars
        vector = pack(self._k, scalars)
        return [vector if vector.lanes else self._k.spread(vector, len(scalars))]

    @property
    def values(self) -> np.ndarray[Any, Any]:
        read = [v.value for v in self._variables]
        if len(read) == 1 and read[0].lanes:
            return unpack(self._k, read[0], self._shape)
        out = np.empty(self._shape, object)
        for place, value in zip(np.ndindex(*self._shape), read, strict=True):
            out[place] = value
        return out

    def set(self, values: np.ndarray[Any, Any]) -> None:
        for variable, value in zip(self._variables, self._parts(np.asarray(values, object)), strict=True):
            variable.set(value)

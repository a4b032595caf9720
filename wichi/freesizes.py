"""Functions compiled once for all lengths of some axes: traced for several lengths, and what depends on them is found.

A trace for one length shows which sizes its program has; the program's text holds none. So the function is traced and
planned for a number of lengths. If all traces make the same program, each of its sizes is a polynomial in the lengths:
it is found from some of them and must agree with the others. Python code sees the lengths as values inside the
transform (``wichi.trace.free``), so it cannot do different things for lengths that were not tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from wichi import pytree
from wichi.compiled import Transformed
from wichi.errors import ArgumentError, ShapeError
from wichi.kernels.plans import Plan
from wichi.trace import frames
from wichi.trace.dims import FreeSizes, Terms, tracing_with, value_at
from wichi.trace.ir import Aval
from wichi.traces import CompiledTrace

_DEGREE = 3  # of the polynomials that are looked for
_MORE = 4  # lengths beyond those that determine a polynomial
_LENGTHS = (1009, 1010, 1012, 1015, 1021, 1023, 1030, 1034, 1041, 1051, 1063, 1068, 1077, 1090, 1099, 1103, 1117, 1130,
            1139, 1151, 1163, 1178, 1187, 1201)  # fmt: skip


class Spec:
    """The dtype and shape of an argument; a name in the shape is a free size. A leaf of trees."""

    __slots__ = ("dtype", "shape")

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int | str, ...]) -> None:
        self.dtype, self.shape = dtype, shape

    def __reduce__(self) -> tuple[Any, ...]:
        return Spec, (self.dtype, self.shape)

    def fixed(self) -> tuple[int, ...]:
        """The shape, if it has no names."""
        return tuple(n for n in self.shape if isinstance(n, int))

    def __repr__(self) -> str:
        return f"spec({self.dtype.name!r}, {self.shape})"


def spec(dtype: Any, shape: Sequence[int | str] = ()) -> Spec:
    """The type of an array argument, in place of an example: for ``wichi.njit``.

    Args:
        dtype: as NumPy takes it.
        shape: sizes, or names of free sizes: axes of equal names have equal lengths, known at each call only.

    Raises:
        ArgumentError: a size is negative, or a name is no identifier.

    >>> import numpy as np, wichi
    >>> total = wichi.njit(wichi.grad(lambda x: np.mean(x**2)), wichi.spec("float64", ("n",)))
    >>> total(np.array([1.0, 2.0]))
    array([1., 2.])
    """
    at = frames.describe(frames.user_where())
    sizes: tuple[Any, ...] = (shape,) if isinstance(shape, int | str) else tuple(shape)
    for n in sizes:
        if not (n.isidentifier() if isinstance(n, str) else isinstance(n, int | np.integer) and n >= 0):
            raise ArgumentError(
                f"spec: {n!r} is no size.", at=at, fix='a number, or a name: wichi.spec("f8", ("n", 3))'
            )
    return Spec(np.dtype(dtype), tuple(n if isinstance(n, str) else int(n) for n in sizes))


@dataclass(frozen=True, slots=True)
class FreeProgram:
    """A program for all lengths of the free sizes ``names``, and its sizes as polynomials in them."""

    plan: Plan
    trace: CompiledTrace
    names: tuple[str, ...]
    inputs: tuple[tuple[int | str, ...], ...]  # shapes of arguments
    least: tuple[int, ...]  # the shortest lengths
    sizes: tuple[Terms, ...]
    scalars: tuple[Terms, ...]  # as words: those that depend on lengths are integers
    arena_bytes: Terms
    outputs: tuple[tuple[Terms, ...], ...]  # shapes of results


def names_in(leaves: Sequence[Any]) -> tuple[str, ...]:
    """The free sizes of arguments, in the order in which they appear."""
    return tuple(dict.fromkeys(n for x in leaves if isinstance(x, Spec) for n in x.shape if isinstance(n, str)))


def compile_free(transformed: Transformed[..., Any], leaves: Sequence[Any], treedef: pytree.TreeDef) -> FreeProgram:
    """The program for arguments some of which are ``Spec``.

    Raises:
        ArgumentError, ShapeError: what is done depends on the lengths in a way that is no polynomial.
    """
    names = names_in(leaves)
    monomials = [c for k in range(_DEGREE + 1) for c in itertools.combinations_with_replacement(names, k)]
    lengths = [
        {name: _LENGTHS[(i * (j + 1) + 7 * j) % len(_LENGTHS)] for j, name in enumerate(names)}
        for i in range(len(monomials) + _MORE)
    ]
    samples = [_planned(transformed, leaves, treedef, at) for at in lengths]
    who = transformed._name
    first = samples[0][1]
    texts = {repr(plan.program) for _, plan, _ in samples}
    captured = {tuple((c.shape, c.dtype.str) for c in plan.constants) for _, plan, _ in samples}
    if len(texts) > 1 or len(captured) > 1:
        _refuse(who, names, "what it computes depends on the length", "use x.shape[0] in arithmetic only")
    find = _Fit(monomials, lengths)
    scalars = []
    for i, number in enumerate(first.numbers or (None,)):
        words = [int(plan.scalars[i]) for _, plan, _ in samples]
        if len(set(words)) > 1 and not isinstance(number, np.integer):
            what = "a number that was computed from a length is part of it"
            _refuse(who, names, what, "take lengths from x.shape[0], inside the function")
        scalars.append(find(who, names, words))
    sizes = tuple(find(who, names, [plan.sizes[i] for _, plan, _ in samples]) for i in range(len(first.sizes)))
    outputs = tuple(
        tuple(find(who, names, [plan.outputs[i].shape[axis] for _, plan, _ in samples]) for axis in range(aval.ndim))
        for i, aval in enumerate(first.outputs)
    )
    free = samples[0][2]
    return FreeProgram(
        first,
        samples[0][0],
        names,
        tuple(x.shape if isinstance(x, Spec) else np.shape(x) for x in leaves),
        tuple(free.least[n] for n in names),
        sizes,
        tuple(scalars),
        find(who, names, [plan.arena_bytes for _, plan, _ in samples]),
        outputs,
    )


def _planned(
    transformed: Transformed[..., Any], leaves: Sequence[Any], treedef: pytree.TreeDef, lengths: Mapping[str, int]
) -> tuple[CompiledTrace, Plan, FreeSizes]:
    from wichi.kernels.schedule import plan

    free = FreeSizes(lengths)
    avals = []
    for x in leaves:
        if isinstance(x, Spec):
            avals.append(Aval(tuple(free.dim(n) if isinstance(n, str) else n for n in x.shape), x.dtype))
        else:
            avals.append(Aval(np.shape(x), np.asarray(x).dtype, type(x) in (int, float)))
    with tracing_with(free):
        trace = transformed.trace_free(avals, treedef, free)
        found = plan(trace.run.graph, free=True)
    if free.doubts:
        _refuse(transformed._name, tuple(lengths), f"it is not sure of {free.doubts[0]}", "slice from the other end")
    return trace, found, free


def _refuse(who: str, names: Sequence[str], why: str, fix: str) -> None:
    raise ShapeError(
        f"{who} cannot be compiled for every length of {', '.join(names)}: {why}.",
        at=frames.describe(frames.user_where()),
        because="one program must be right for all lengths",
        fix=f"{fix}, or give the size: wichi.spec(dtype, (3,))",
    )


class _Fit:
    """Finds polynomials with integer coefficients from their values, exactly."""

    def __init__(self, monomials: Sequence[tuple[str, ...]], lengths: Sequence[Mapping[str, int]]) -> None:
        self.monomials = monomials
        self.rows = [[Fraction(value_at({m: 1}, at)) for m in monomials] for at in lengths]
        self.inverse = _inverse([row[:] for row in self.rows[: len(monomials)]])

    def __call__(self, who: str, names: Sequence[str], values: Sequence[int]) -> Terms:
        if all(v == values[0] for v in values):
            return {(): int(values[0])} if values[0] else {}
        count = len(self.monomials)
        found = [sum(c * int(v) for c, v in zip(row, values[:count], strict=True)) for row in self.inverse]
        well = all(f.denominator == 1 for f in map(Fraction, found)) and all(
            sum(c * f for c, f in zip(row, found, strict=True)) == int(v)
            for row, v in zip(self.rows, values, strict=True)
        )
        if not well:
            _refuse(who, names, "a size in it is no polynomial in the length", "use whole slices and sums of lengths")
        return {m: int(f) for m, f in zip(self.monomials, found, strict=True) if f}


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """By Gauss and Jordan, with exact fractions."""
    n = len(matrix)
    wide = [row + [Fraction(int(i == j)) for j in range(n)] for i, row in enumerate(matrix)]
    for k in range(n):
        pivot = next(i for i in range(k, n) if wide[i][k])
        wide[k], wide[pivot] = wide[pivot], wide[k]
        scale = wide[k][k]
        wide[k] = [x / scale for x in wide[k]]
        for i in range(n):
            if i != k and wide[i][k]:
                factor = wide[i][k]
                wide[i] = [x - factor * y for x, y in zip(wide[i], wide[k], strict=True)]
    return [row[n:] for row in wide]

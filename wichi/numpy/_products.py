"""Products: dot, matmul with NumPy's full rules, tensordot, einsum. All come down to one matrix product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wichi.errors import ShapeError
from wichi.numpy import _pointwise as pw
from wichi.numpy import _reducing as rd
from wichi.numpy._indexing import index
from wichi.numpy._promote import (
    Array,
    as_value,
    axes_in,
    axis_in,
    broadcast_to,
    cast_to,
    common_shape,
    public,
    resolve,
)
from wichi.numpy._shaping import diagonal, moveaxis, reshape, stack
from wichi.ops import products, shaping
from wichi.trace import frames
from wichi.trace.primitive import aval_of, shape_of
from wichi.trace.tracer import of_its_own


def _operands(x: Array, y: Array) -> tuple[Array, Array]:
    """Both in NumPy's dtype for products."""
    (left, right), _ = resolve(np.multiply, [aval_of(x), aval_of(y)])
    x, y = cast_to(x, left), cast_to(y, right)
    return (x if hasattr(x, "aval") else np.asarray(x)), (y if hasattr(y, "aval") else np.asarray(y))


def _mismatch(what: str, x: Array, y: Array, fix: str | None = None) -> ShapeError:
    return ShapeError(
        f"{what} of shapes {shape_of(x)} and {shape_of(y)}: the inner sizes differ.",
        at=frames.describe(frames.user_where()),
        because="the last axis of the first operand is summed against the second-last (or only) axis of the second",
        fix=fix,
    )


@public(np.matmul, fresh=True)
def matmul(x: Array, y: Array) -> Array:
    """As ``numpy.matmul``: 1-D operands are rows or columns, leading axes broadcast."""
    x, y = _operands(as_value(x), as_value(y))
    a, b = shape_of(x), shape_of(y)
    if not a or not b:
        raise ShapeError(
            "matmul needs arrays of at least one axis.",
            at=frames.describe(frames.user_where()),
            because=f"the shapes are {a} and {b}",
            fix="use x * y",
        )
    if a[-1] != b[-2 if len(b) > 1 else 0]:
        raise _mismatch("matmul", x, y, "x @ y.T" if len(a) > 1 and len(b) > 1 and a[-1] == b[-1] else None)
    row, column = len(a) == 1, len(b) == 1
    x = shaping.reshape(x, shape=(1, *a)) if row else x
    y = shaping.reshape(y, shape=(*b, 1)) if column else y
    out = _batched(x, y)
    shape = shape_of(out)
    if column:
        shape = shape[:-1]
    if row:
        shape = (*shape[: -2 if not column else -1], *shape[len(shape) - (0 if column else 1) :])
    return shaping.reshape(out, shape=shape)


def _batched(x: Array, y: Array) -> Array:
    """``(..., m, k) @ (..., k, n)`` with the leading axes broadcast; one product where only ``x`` has them."""
    *lead_x, m, k = shape_of(x)
    *lead_y, _, n = shape_of(y)
    if lead_x and math.prod(lead_y) == 1 and len(lead_y) <= len(lead_x):
        flat = products.matmul(shaping.reshape(x, shape=(math.prod(lead_x) * m, k)), shaping.reshape(y, shape=(k, n)))
        return shaping.reshape(flat, shape=(*lead_x, m, n))
    lead = common_shape("matmul", [tuple(lead_x), tuple(lead_y)])
    return products.matmul(broadcast_to(x, (*lead, m, k)), broadcast_to(y, (*lead, k, n)))


@public(np.dot, fresh=True)
def dot(a: Array, b: Array) -> Array:
    """As ``numpy.dot``: the last axis of ``a`` against the second-last of ``b``; a product where one is 0-d."""
    a, b = as_value(a), as_value(b)
    if not shape_of(a) or not shape_of(b):
        return pw.multiply(a, b)
    if len(shape_of(b)) == 1:
        if shape_of(a)[-1] != shape_of(b)[0]:
            raise _mismatch("dot", a, b)
        return tensordot(a, b, (-1, 0))
    if shape_of(a)[-1] != shape_of(b)[-2]:
        raise _mismatch("dot", a, b)
    return tensordot(a, b, (-1, -2))


@public(np.vdot)
def vdot(a: Array, b: Array) -> Array:
    return dot(reshape(a, (-1,)), reshape(b, (-1,)))


@public(np.vecdot, fresh=True)
def vecdot(x1: Array, x2: Array, axis: int = -1) -> Array:
    x1, x2 = _operands(moveaxis(as_value(x1), axis, -1), moveaxis(as_value(x2), axis, -1))
    if aval_of(x1).dtype.kind == "b":
        return rd.any(pw.logical_and(x1, x2), -1)
    if shape_of(x1)[-1] != shape_of(x2)[-1]:
        raise _mismatch("vecdot", x1, x2)
    return rd.sum(pw.multiply(x1, x2), -1, dtype=aval_of(x1).dtype)


@public(np.matvec, fresh=True)
def matvec(x1: Array, x2: Array) -> Array:
    """As ``numpy.matvec``: (..., m, n) times (..., n)."""
    return index(matmul(x1, index(as_value(x2), (..., None))), (..., 0))


@public(np.vecmat, fresh=True)
def vecmat(x1: Array, x2: Array) -> Array:
    """As ``numpy.vecmat``: (..., n) times (..., n, m)."""
    return index(matmul(index(as_value(x1), (..., None, slice(None))), x2), (..., 0, slice(None)))


@public(np.inner, fresh=True)
def inner(a: Array, b: Array) -> Array:
    if not shape_of(a) or not shape_of(b):
        return pw.multiply(a, b)
    return tensordot(a, b, (-1, -1))


@public(np.outer, fresh=True)
def outer(a: Array, b: Array) -> Array:
    return pw.multiply(reshape(a, (-1, 1)), reshape(b, (1, -1)))


@public(np.tensordot, fresh=True)
def tensordot(a: Array, b: Array, axes: Any = 2) -> Array:
    a, b = _operands(as_value(a), as_value(b))
    if isinstance(axes, int | np.integer):
        axes = (range(len(shape_of(a)) - int(axes), len(shape_of(a))), range(int(axes)))
    left, right = ([axis_in(x, len(shape_of(v))) for x in (ax if isinstance(ax, Sequence) else [ax])]
                   for v, ax in zip((a, b), axes, strict=True))  # fmt: skip
    if [shape_of(a)[i] for i in left] != [shape_of(b)[i] for i in right]:
        raise _mismatch("tensordot", a, b)
    free_a = [i for i in range(len(shape_of(a))) if i not in left]
    free_b = [i for i in range(len(shape_of(b))) if i not in right]
    rows, columns = [shape_of(a)[i] for i in free_a], [shape_of(b)[i] for i in free_b]
    inner_size = math.prod(shape_of(a)[i] for i in left)
    x = shaping.reshape(shaping.transpose(a, perm=(*free_a, *left)), shape=(math.prod(rows), inner_size))
    y = shaping.reshape(shaping.transpose(b, perm=(*right, *free_b)), shape=(inner_size, math.prod(columns)))
    return shaping.reshape(products.matmul(x, y), shape=(*rows, *columns))


@public(np.kron, fresh=True)
def kron(a: Array, b: Array) -> Array:
    ndim = max(len(shape_of(a)), len(shape_of(b)))
    s, t = ((1,) * (ndim - len(shape_of(v))) + shape_of(v) for v in (a, b))
    x = reshape(a, tuple(n for pair in zip(s, (1,) * ndim, strict=True) for n in pair))
    y = reshape(b, tuple(n for pair in zip((1,) * ndim, t, strict=True) for n in pair))
    return reshape(pw.multiply(x, y), tuple(p * q for p, q in zip(s, t, strict=True)))


@public(np.cross, fresh=True)
def cross(a: Array, b: Array, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Array:
    """As ``numpy.cross`` of 3-vectors."""
    axisa, axisb, axisc = (axisa, axisb, axisc) if axis is None else (axis,) * 3
    a, b = moveaxis(a, axisa, -1), moveaxis(b, axisb, -1)
    if shape_of(a)[-1] != 3 or shape_of(b)[-1] != 3:
        raise ShapeError("cross needs vectors of 3.", at=frames.describe(frames.user_where()))
    (a0, a1, a2), (b0, b1, b2) = ([index(v, (..., i)) for i in range(3)] for v in (a, b))
    parts = [pw.subtract(pw.multiply(p, q), pw.multiply(r, s)) for p, q, r, s in
             ((a1, b2, a2, b1), (a2, b0, a0, b2), (a0, b1, a1, b0))]  # fmt: skip
    return moveaxis(stack(parts, -1), -1, axisc)


# --- einsum ----------------------------------------------------------------------------------------------------------
@public(np.einsum)
def einsum(subscripts: str, *operands: Array, **options: Any) -> Array:
    """As ``numpy.einsum`` with subscripts as a string; pairs are contracted in the order NumPy's planner finds."""
    if not isinstance(subscripts, str):
        raise TypeError("np.einsum of values inside a transform takes its subscripts as a string")
    values = [v if hasattr(v, "aval") else np.asarray(v) for v in map(as_value, operands)]
    terms, result = _parse(subscripts.replace(" ", ""), values)
    dtype = np.result_type(*[aval_of(v).dtype for v in values])
    values = [cast_to(v, dtype) for v in values]
    sizes: dict[str, int] = {}
    for term, v in zip(terms, values, strict=True):
        for letter, n in zip(term, shape_of(v), strict=True):
            if sizes.setdefault(letter, n) not in (n, 1) and n != 1:
                raise ShapeError(
                    f"einsum {subscripts}: {letter!r} stands for {sizes[letter]} and for {n}.",
                    at=frames.describe(frames.user_where()),
                )
            sizes[letter] = max(sizes[letter], n) if n else 0
    pairs = [_single(t, v, sizes) for t, v in zip(terms, values, strict=True)]
    while len(pairs) > 1:
        i, j = _cheapest(pairs, result, sizes)
        second, first = pairs.pop(j), pairs.pop(i)
        needed = set(result).union(*(t for t, _ in pairs))
        pairs.append(_contract(first, second, needed))
    term, out = _summed(*pairs[0], set(result))
    out = shaping.transpose(out, perm=tuple(term.index(letter) for letter in result))
    return out if len(values) == 1 else of_its_own(out)


def _parse(subscripts: str, values: Sequence[Array]) -> tuple[list[str], str]:
    """Subscripts a term, every ellipsis spelled out in letters of its own, and the result's."""
    left, arrow, result = subscripts.partition("->")
    terms = left.split(",")
    if len(terms) != len(values):
        raise ValueError(f"einsum {subscripts}: {len(terms)} terms for {len(values)} operands")
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in subscripts]
    hidden = [len(shape_of(v)) - len(t.replace("...", "")) for t, v in zip(terms, values, strict=True)]
    wide = max([h for h, t in zip(hidden, terms, strict=True) if "..." in t], default=0)
    names = "".join(free[:wide])
    spelled = [t.replace("...", names[wide - h :] if h else "") for t, h in zip(terms, hidden, strict=True)]
    for term, v in zip(spelled, values, strict=True):
        if len(term) != len(shape_of(v)):
            raise ShapeError(
                f"einsum {subscripts}: the term {term!r} does not fit shape {shape_of(v)}.",
                at=frames.describe(frames.user_where()),
            )
    if arrow:
        return spelled, result.replace("...", names)
    letters = "".join(spelled)
    return spelled, names + "".join(sorted(c for c in set(letters) - set(names) if letters.count(c) == 1))


def _single(term: str, value: Array, sizes: dict[str, int]) -> tuple[str, Array]:
    """An operand without repeated letters (their diagonal is taken) and without axes of 1 that others widen."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            i = term.index(letter)
            j = term.index(letter, i + 1)
            value = diagonal(value, 0, i, j)
            term = term[:i] + term[i + 1 : j] + term[j + 1 :] + letter
    return term, broadcast_to(value, tuple(sizes[c] for c in term))


def _summed(term: str, value: Array, needed: set[str]) -> tuple[str, Array]:
    """Letters that nobody needs any more are summed over."""
    axes = tuple(i for i, c in enumerate(term) if c not in needed)
    return "".join(c for c in term if c in needed), rd.sum(
        value, axes_in(axes, len(term)), dtype=aval_of(value).dtype
    ) if axes else value


def _cheapest(pairs: Sequence[tuple[str, Array]], result: str, sizes: dict[str, int]) -> tuple[int, int]:
    """The pair whose product is smallest."""

    def cost(pair: tuple[int, int]) -> int:
        return math.prod(sizes[c] for c in set(pairs[pair[0]][0]) | set(pairs[pair[1]][0]))

    return min(itertools.combinations(range(len(pairs)), 2), key=cost)


def _contract(first: tuple[str, Array], second: tuple[str, Array], needed: set[str]) -> tuple[str, Array]:
    """Two operands as one: batch letters, then a matrix product over what only these two share."""
    (s, x), (t, y) = first, second
    s, x = _summed(s, x, needed | set(t))
    t, y = _summed(t, y, needed | set(s))
    batch = [c for c in s if c in t and c in needed]
    inner_ = [c for c in s if c in t and c not in needed]
    rows, columns = [c for c in s if c not in t], [c for c in t if c not in s]
    sizes = dict(zip(s, shape_of(x), strict=True)) | dict(zip(t, shape_of(y), strict=True))

    def lengths(letters: Sequence[str]) -> tuple[int, ...]:
        return tuple(sizes[c] for c in letters)

    if not inner_:  # nothing to sum: a product element by element
        order = [*batch, *rows, *columns]
        x = shaping.reshape(shaping.transpose(x, perm=tuple(s.index(c) for c in [*batch, *rows])),
                            shape=lengths(batch) + lengths(rows) + (1,) * len(columns))  # fmt: skip
        y = shaping.reshape(shaping.transpose(y, perm=tuple(t.index(c) for c in [*batch, *columns])),
                            shape=lengths(batch) + (1,) * len(rows) + lengths(columns))  # fmt: skip
        return "".join(order), pw.multiply(x, y)
    x = shaping.transpose(x, perm=tuple(s.index(c) for c in [*batch, *rows, *inner_]))
    y = shaping.transpose(y, perm=tuple(t.index(c) for c in [*batch, *inner_, *columns]))
    m, k, n = (math.prod(lengths(letters)) for letters in (rows, inner_, columns))
    x = shaping.reshape(x, shape=(*lengths(batch), m, k))
    y = shaping.reshape(y, shape=(*lengths(batch), k, n))
    out = shaping.reshape(products.matmul(x, y), shape=lengths(batch) + lengths(rows) + lengths(columns))
    return "".join([*batch, *rows, *columns]), out


@public(np.linalg.norm)
def norm(x: Array, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    """As ``numpy.linalg.norm`` for vectors (ord None, 1, 2, inf, -inf, p) and the Frobenius norm of matrices."""
    matrix = (
        ord == "fro"
        or (ord is not None and axis is None and len(shape_of(x)) == 2)
        or (isinstance(axis, tuple) and len(axis) == 2)
    )
    if matrix and ord not in (None, "fro"):
        raise TypeError(f"np.linalg.norm of a matrix inside a transform has no ord={ord!r}; only 'fro'")
    if aval_of(x).dtype.kind in "iub":
        x = cast_to(x, np.dtype(float))  # before anything is squared, as NumPy does
    if ord == 0:
        return rd.sum(cast_to(pw.not_equal(x, 0), aval_of(x).dtype), axis, keepdims=keepdims)
    if ord in (None, 2, "fro"):
        return pw.sqrt(rd.sum(pw.square(x), axis, keepdims=keepdims))
    if ord in (np.inf, -np.inf):
        return (rd.max if ord > 0 else rd.min)(pw.absolute(x), axis, keepdims=keepdims)
    if ord == 1:
        return rd.sum(pw.absolute(x), axis, keepdims=keepdims)
    return pw.power(rd.sum(pw.power(pw.absolute(x), ord), axis, keepdims=keepdims), 1.0 / ord)

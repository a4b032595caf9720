"""Matrix products: BLAS for floats, with transposes folded into its flags; plain loops for integers."""

from __future__ import annotations

from typing import Any

from wichi.kernels.layout import Layout
from wichi.kernels.loops import Gemm
from wichi.kernels.writer import Writer


def write_product(k: Writer, a: Layout, b: Layout, out: Layout, over_blocks: bool = False) -> None:
    """``out = a @ b`` over the last two axes, for each entry of the leading axes.

    ``over_blocks``: in a band, the sum over its blocks.
    """
    if out.dtype.kind != "f":
        assert not over_blocks
        _write_loops(k, a, b, out)
        return
    adds = None
    if over_blocks:
        adds = k.gt(k.first, k.chunk_first).id
    if _stored(out)[1]:  # the columns of the result are dense: C' = B' A'
        a, b, out = (x.transpose((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)) for x in (b, a, out))
    *batch, m, n = out.shape
    a_lead, a_t = _stored(a)
    b_lead, b_t = _stored(b)
    c_lead, _ = _stored(out)
    zero = k.constant(0)
    with k.loops(batch, ordered=True) as at:
        places = [k.index(layout, [*at, zero, zero]) for layout in (a, b, out)]
        k.put(
            Gemm(
                a.buffer,
                places[0],
                k.size(a_lead),
                a_t,
                b.buffer,
                places[1],
                k.size(b_lead),
                b_t,
                out.buffer,
                places[2],
                k.size(c_lead),
                k.size(m),
                k.size(n),
                k.size(a.shape[-1]),
                out.dtype,
                adds,
            )
        )
        k.forget(out.buffer)


def fits_blas(layout: Layout) -> bool:
    """Whether BLAS can read the matrices of this layout as they lie."""
    return layout.dtype.kind != "f" or _lead(layout) is not None


def _stored(layout: Layout) -> tuple[int, bool]:
    found = _lead(layout)
    assert found is not None, "the schedule copies what BLAS cannot read"
    return found


def _lead(layout: Layout) -> tuple[int, bool] | None:
    """The distance between stored rows, and whether the matrix is stored transposed."""
    (rows, columns), (down, across) = layout.shape[-2:], layout.strides[-2:]
    if (across == 1 or columns == 1) and (down >= columns or rows <= 1):
        return max(down, columns, 1), False
    if (down == 1 or rows == 1) and (across >= rows or columns <= 1):
        return max(across, rows, 1), True
    return None


def _write_loops(k: Writer, a: Layout, b: Layout, out: Layout) -> None:
    add, mul = ("or", "and") if out.dtype.kind == "b" else ("add", "mul")
    with k.loops(out.shape) as at:
        *batch, i, j = at
        total = k.variable(k.constant(0, out.dtype))
        with k.loops([a.shape[-1]], ordered=True) as (inner,):
            term: Any = k.compute(mul, k.load(a, [*batch, i, inner]), k.load(b, [*batch, inner, j]))
            total.set(k.compute(add, total.value, term))
        k.store(out, at, total.value)

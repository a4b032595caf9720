"""Small values in registers: a graph whose arrays have a few elements, written as one straight line of scalars.

Views cost nothing: the NumPy interpreter moves the scalars themselves, in object arrays. The extents belong to the
program's text, so another size compiles anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi.kernels.loops import neutral
from wichi.kernels.packs import LEAST, pack, together, unpack
from wichi.kernels.writer import Writer
from wichi.trace.ir import Atom, Const, Eqn, Graph, Var, graphs_in
from wichi.trace.primitive import Loops, Pointwise, Product, Reduction, View

_MOST_COMPUTED = 16  # elements of one value: beyond, vector loops through memory are faster
_MOST_GIVEN = 64  # elements of an input: a small matrix that products read
_MOST_SCALARS = 2000  # of a graph: keeps functions, and so compile time, bounded


def fits_registers(graph: Graph) -> bool:
    """Whether the graph can be written so, with the graphs that its equations hold."""
    cost, waiting = 0, [(graph, 1)]
    while waiting:
        inner, times = waiting.pop()
        if any(v.aval.size > _MOST_GIVEN for v in inner.ins) or any(o.aval.size > _MOST_COMPUTED for o in inner.outs):
            return False
        for eqn in inner.eqns:
            kernel = eqn.prim.kernel
            most = _MOST_GIVEN if isinstance(kernel, View) else _MOST_COMPUTED
            if any(not 0 < o.aval.size <= most for o in eqn.outs):
                return False
            if isinstance(kernel, Loops) and kernel.registers is None:
                return False
            cost += times * _cost(eqn)
            # A scan with rows is unrolled there.
            waiting += [(held, times * max(eqn.params.get("length", 1), 1)) for _, held in graphs_in(eqn)]
    return cost <= _MOST_SCALARS


def _cost(eqn: Eqn) -> int:
    kernel = eqn.prim.kernel
    if isinstance(kernel, Product):
        return 2 * eqn.outs[0].aval.size * eqn.ins[0].aval.shape[-1]
    return 0 if isinstance(kernel, View) else max((a.aval.size for a in (*eqn.ins, *eqn.outs)), default=0)


def write_registers(k: Writer, graph: Graph, ins: Sequence[Any], at: Callable[[Eqn], None]) -> list[Any]:
    """The results of ``graph`` on object arrays of scalars; ``at(eqn)`` is told which equation comes."""
    env: dict[Var, Any] = dict(zip(graph.ins, ins, strict=True))

    def read(atom: Atom) -> Any:
        if type(atom) is not Const:
            return env[atom]  # type: ignore[index]
        whole = np.empty(atom.aval.shape, object)
        for place in np.ndindex(*atom.aval.shape):
            whole[place] = k.scalar(np.asarray(atom.value)[place])
        return whole

    for eqn in graph.eqns:
        at(eqn)
        kernel: Any = eqn.prim.kernel
        operands = [read(a) for a in eqn.ins]
        if isinstance(kernel, Loops):
            assert kernel.registers is not None
            found = kernel.registers(k, *operands, **eqn.params)
            env.update(zip(eqn.outs, found if eqn.prim.multiple else (found,), strict=True))
        else:
            env[eqn.outs[0]] = _one(k, kernel, eqn, operands)
    return [read(o) for o in graph.outs]


def _one(k: Writer, kernel: Any, eqn: Eqn, operands: Sequence[Any]) -> Any:
    if isinstance(kernel, View):
        return np.asarray(eqn.prim.impl(*operands, **eqn.params), object)
    if isinstance(kernel, Pointwise):
        return together(k, lambda *scalars: kernel.scalar(k, *scalars, **eqn.params), *operands)
    if isinstance(kernel, Reduction):
        return _reduced(k, kernel.op, eqn, operands[0])
    return _product(k, eqn, *operands)


def _product(k: Writer, eqn: Eqn, x: Any, y: Any) -> Any:
    """Row by row where rows are long enough for vectors, else column by column, else number by number."""
    aval = eqn.outs[0].aval
    if aval.shape[-1] < LEAST <= aval.shape[-2]:
        x, y = np.swapaxes(y, -1, -2), np.swapaxes(x, -1, -2)
        return np.swapaxes(_rows(k, aval, x, y), -1, -2)
    return _rows(k, aval, x, y)


def _rows(k: Writer, aval: Any, x: Any, y: Any) -> Any:
    add, mul = ("or", "and") if aval.dtype.kind == "b" else ("add", "mul")
    out = np.empty((*x.shape[:-1], y.shape[-1]), object)
    for *batch, i in np.ndindex(*x.shape[:-1]):
        columns = y[tuple(batch)]
        if out.shape[-1] >= LEAST:
            terms = [k.compute(mul, a, pack(k, list(row))) for a, row in zip(x[(*batch, i)], columns, strict=True)]
            out[(*batch, i)] = unpack(k, _joined(k, add, terms, aval.dtype), out.shape[-1:])
            continue
        for j in range(out.shape[-1]):
            terms = [k.compute(mul, a, b) for a, b in zip(x[(*batch, i)], columns[:, j], strict=True)]
            out[(*batch, i, j)] = _joined(k, add, terms, aval.dtype)
    return out


def _reduced(k: Writer, op: str, eqn: Eqn, x: Any) -> Any:
    axes = eqn.params["axes"]
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    shape = eqn.outs[0].aval.shape
    rows = np.transpose(x, (*kept, *axes)).reshape(*shape, -1)
    out = np.empty(shape, object)
    for place in np.ndindex(*shape):
        out[place] = _joined(k, op, list(rows[place]), eqn.outs[0].aval.dtype)
    return out


def _joined(k: Writer, op: str, terms: list[Any], dtype: np.dtype[Any]) -> Any:
    """All terms combined, by halves: short chains of operations."""
    if not terms:
        return k.constant(neutral(op, dtype).item(), dtype)
    while len(terms) > 1:
        pairs = [k.compute(op, a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(pairs) * 2 :]
    return terms[0]

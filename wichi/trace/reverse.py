"""Reverse mode: pull cotangents back through the equations. The same loop serves graphs and the eager Tensor's tape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from wichi.errors import ArgumentError
from wichi.trace import frames
from wichi.trace.boxed import Boxed
from wichi.trace.evaluate import applied, innermost, read, run
from wichi.trace.forward import add, is_float, scale, zeros_like
from wichi.trace.ir import Atom, Aval, Eqn, Graph, Var, dce
from wichi.trace.primitive import ZERO, Primitive, aval_of, partial
from wichi.trace.tracer import at_line, constant, extended, stage_graph, trace


def cotangents(
    prim: Primitive, ins: Sequence[Any], out: Any, params: Any, ct: Any, wanted: Sequence[int]
) -> list[tuple[int, Any]]:
    """``(i, cotangent of input i)`` for the ``wanted`` inputs of ``out = prim(*ins, **params)``; zeros are left out.

    The values may be arrays or traced values: this is the whole of reverse mode for one equation.
    """
    wanted = [i for i in wanted if is_float(ins[i])]
    if not prim.differentiable or not wanted:
        return []
    if prim.partials is not None:
        pairs = [(i, scale(partial(prim, i, out, ins, params), ct)) for i in wanted]
    elif prim.transpose is not None:
        pairs = [(i, prim.transpose(ct, i, ins, **params)) for i in wanted]
    elif prim.pointwise:
        assert prim.jvp is not None
        # Element by element the derivative is a number, and its transpose itself: the rule answers it for each input.
        zeros = [aval_of(x).dtype.type(0) for x in ins]
        pairs = [(i, prim.jvp(out, list(ins), [*zeros[:i], ct, *zeros[i + 1 :]], **params)) for i in wanted]
    else:
        pairs = _transpose_jvp(prim, ins, out, params, ct, wanted)
    return [(i, c) for i, c in pairs if c is not None]


def _transpose_jvp(
    prim: Primitive, ins: Sequence[Any], out: Any, params: Any, ct: Any, wanted: Sequence[int]
) -> list[tuple[int, Any]]:
    """Pull ``ct`` back through the small program, linear in the tangents, that the jvp rule writes."""
    constant_ins = list(ins)

    def rule(*tangents: Any) -> list[Any]:
        assert prim.jvp is not None
        every: list[Any] = [None] * len(ins)
        for i, t in zip(wanted, tangents, strict=True):
            every[i] = t
        dots = [zeros_like(x) if t is None else t for x, t in zip(ins, every, strict=True)]
        return [prim.jvp(out, constant_ins, dots, **params)]

    found = transposed(rule, [aval_of(ins[i])._replace(weak=False) for i in wanted], [ct])
    return list(zip(wanted, found, strict=True))


def transposed(linear: Callable[..., Sequence[Any]], avals: Sequence[Aval], cts: Sequence[Any]) -> list[Any]:
    """The cotangents of the arguments (None: zero) of a function that is linear in them, given those of its results.

    Arrays become constants of the small program that is traced; values of an enclosing trace are captured by it, and
    given back.
    """
    traced = trace(linear, avals)
    graph = traced.graph
    env: dict[Var, Any] = dict(zip(graph.ins[len(avals) :], traced.captured, strict=True))
    tangent_ins = graph.ins[: len(avals)]
    # What does not read a tangent is computed first; the rest is linear and is only transposed.
    late = set(tangent_ins)
    early, linear_eqns = [], []
    for eqn in graph.eqns:
        if any(type(a) is Var and a in late for a in eqn.ins):
            late.update(eqn.outs)
            linear_eqns.append(eqn)
        else:
            early.append(eqn)
    run(early, env)  # no lines are set: the caller has said whose derivative this is
    return pull(linear_eqns, lambda a: _read_or_none(env, a), graph.outs, cts, tangent_ins)


def _read_or_none(env: dict[Var, Any], atom: Atom) -> Any:
    """A value of the linear program: tangents have none, only a type."""
    if type(atom) is Var and atom not in env:
        return _Unknown(atom)
    return read(env, atom)


class _NotLinear(Exception):
    """A rule asks for the value of a tangent."""


class _Unknown(Boxed):
    """Stands where a linear equation's operand is a tangent: rules may ask its shape and dtype, never its value."""

    __slots__ = ("_aval",)

    def __init__(self, var: Var) -> None:
        self._aval = var.aval

    @property
    def aval(self) -> Aval:
        return self._aval

    def stage(self, prim: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        raise _NotLinear


Pullbacks = dict[Var, Callable[[Sequence[Any]], Sequence[Any]]]


def passes_on(prim: Primitive) -> bool:
    """Whether any derivative goes through: not if all partials are zero, as those of ``stop_gradient`` and ``sign``."""
    return prim.differentiable and (prim.partials is None or any(p is not ZERO for p in prim.partials))


def active_from(eqns: Iterable[Eqn], wrt: Iterable[Var]) -> set[Var]:
    """The values through which derivatives of ``wrt`` may flow: not through those that have no elements."""
    active = {v for v in wrt if 0 not in v.aval.shape}
    for eqn in eqns:
        if passes_on(eqn.prim) and any(type(a) is Var and a in active for a in eqn.ins):
            active.update(o for o in eqn.outs if o.aval.dtype.kind == "f" and 0 not in o.aval.shape)
    return active


def run_keeping(eqns: Sequence[Eqn], env: dict[Var, Any], args: Sequence[Any], active: set[Var]) -> Pullbacks:
    """Bind in ``env`` what the equations bind. Those that hold graphs keep what their way back needs.

    Answers their pullbacks, each under the first output of its equation.
    """
    box, pullbacks = innermost(args), {}
    for eqn in eqns:
        ins = [read(env, a) for a in eqn.ins]
        at_line(box, eqn.where, backward=False)
        wanted = [i for i, a in enumerate(eqn.ins) if type(a) is Var and a in active and is_float(ins[i])]
        if eqn.prim.whole is not None and wanted:
            outs, pullbacks[eqn.outs[0]] = eqn.prim.whole.vjp(ins, wanted, **eqn.params)
        else:
            result = applied(eqn, ins, box)
            outs = result if eqn.prim.multiple else (result,)
        env.update(zip(eqn.outs, outs, strict=True))
    at_line(box, None, backward=False)
    return pullbacks


def vjp_values(
    graph: Graph, values: Sequence[Any], wrt: Sequence[int], cotangents_of: Callable[[Sequence[Any]], Sequence[Any]]
) -> tuple[list[Any], list[Any]]:
    """Outputs, and the cotangents of the inputs named by ``wrt`` (None: zero).

    ``cotangents_of(outs)`` gives those of the outputs (None: zero).
    """
    env: dict[Var, Any] = dict(zip(graph.ins, values, strict=True))
    variables = [graph.ins[i] for i in wrt]
    active = active_from(graph.eqns, variables)
    pullbacks = run_keeping(graph.eqns, env, values, active)
    outs = [read(env, o) for o in graph.outs]
    cts = cotangents_of(outs)
    box = innermost([*values, *(c for c in cts if c is not None)])
    return outs, pull(graph.eqns, lambda a: read(env, a), graph.outs, cts, variables, box, pullbacks)


def pull(
    eqns: Iterable[Eqn],
    value: Callable[[Atom], Any],
    outs: Sequence[Atom],
    cts: Sequence[Any],
    wrt: Sequence[Var],
    box: Any = None,
    pullbacks: Pullbacks | None = None,
) -> list[Any]:
    """The cotangents of ``wrt`` (None: zero), given those of ``outs``; ``value(atom)`` reads the forward values."""
    eqns, kept = list(eqns), set(wrt)
    active = active_from(eqns, wrt)
    bars: dict[Var, Any] = {}
    for out, ct in zip(outs, cts, strict=True):
        if type(out) is Var and ct is not None and out in active:
            bars[out] = add(bars.get(out), ct)
    for eqn in reversed(eqns):
        found = [bars.get(o) for o in eqn.outs]
        if all(ct is None for ct in found):
            continue
        for out in eqn.outs:
            if out not in kept:
                bars.pop(out, None)
        wanted = [i for i, a in enumerate(eqn.ins) if type(a) is Var and a in active and a.aval.dtype.kind == "f"]
        at_line(box, eqn.where, backward=True)
        pairs: Iterable[tuple[int, Any]]
        if eqn.prim.whole is not None:
            pairs = zip(wanted, _pulled(eqn, value, found, wanted, pullbacks), strict=True)
        else:
            ins, out = [value(a) for a in eqn.ins], value(eqn.outs[0])
            try:
                pairs = cotangents(eqn.prim, ins, out, eqn.params, found[0], wanted)
            except _NotLinear:
                raise ArgumentError(
                    f"A function that must be linear is not: {eqn.prim.name} is no linear function of its operands.",
                    at=frames.describe(eqn.where),
                    because="a jvp rule is linear in the tangents, and a matvec in its argument; reverse mode turns"
                    " them round",
                    fix="multiply tangents by values of the primals only, and add them",
                ) from None
        for i, c in pairs:
            if c is not None:
                bars[eqn.ins[i]] = add(bars.get(eqn.ins[i]), c)  # type: ignore[index, arg-type]
    at_line(box, None, backward=False)
    return [bars.get(v) for v in wrt]


def _pulled(
    eqn: Eqn, value: Callable[[Atom], Any], cts: Sequence[Any], wanted: Sequence[int], pullbacks: Pullbacks | None
) -> Sequence[Any]:
    """Cotangents through an equation that holds a graph. In a linear program its tangents have no values: 0 will do."""
    assert eqn.prim.whole is not None
    if pullbacks is not None and eqn.outs[0] in pullbacks:
        return pullbacks[eqn.outs[0]](cts)
    ins = [zeros_like(x) if isinstance(x, _Unknown) else x for x in map(value, eqn.ins)]
    found: Sequence[Any] = eqn.prim.whole.vjp(ins, wanted, **eqn.params)[1](cts)
    return found


def vjp(graph: Graph, wrt: Sequence[int], seeds: Sequence[Any] | None = None, count: int | None = None) -> Graph:
    """``ins + cotangents of the float outs -> outs + cotangents of the ins named by wrt``.

    Only the first ``count`` outputs have cotangents (default: all). With ``seeds``, one a float output, the
    cotangents are those constants (None: zero) and are no inputs.
    """
    inputs = len(graph.ins)
    floats = [i for i, o in enumerate(graph.outs[:count]) if o.aval.dtype.kind == "f"]
    more = [graph.outs[i].aval._replace(weak=False) for i in floats] if seeds is None else []
    if not any(e.prim.whole for e in graph.eqns):  # nothing must be kept while the equations run: they stay as they are
        return extended(graph, lambda value, given: _pulled_after(graph, value, given, wrt, floats, seeds), more)

    def walk(*values: Any) -> list[Any]:
        cts: list[Any] = [None] * len(graph.outs)
        for i, ct in zip(floats, values[inputs:] if seeds is None else seeds, strict=True):
            cts[i] = ct if ct is None else constant(ct, values[0])
        outs, found = vjp_values(graph, values[:inputs], wrt, lambda _: cts)
        return outs + [zeros_like(values[i]) if ct is None else ct for i, ct in zip(wrt, found, strict=True)]

    return stage_graph(walk, [*(v.aval for v in graph.ins), *more])


def _pulled_after(
    graph: Graph,
    value: Callable[[Atom], Any],
    given: Sequence[Any],
    wrt: Sequence[int],
    floats: Sequence[int],
    seeds: Sequence[Any] | None,
) -> list[Any]:
    """The outputs, and the cotangents of the inputs ``wrt``; ``given`` or ``seeds`` are those of the floats."""
    box = value(graph.ins[0])
    cts: list[Any] = [None] * len(graph.outs)
    for i, ct in zip(floats, given if seeds is None else seeds, strict=True):
        cts[i] = ct if ct is None else constant(ct, box)
    variables = [graph.ins[i] for i in wrt]
    found = pull(graph.eqns, value, graph.outs, cts, variables, box)
    bars = (zeros_like(value(v)) if ct is None else ct for v, ct in zip(variables, found, strict=True))
    return [*map(value, graph.outs), *bars]


def split(
    graph: Graph, late_from: int, count: int, saveable: Callable[[Eqn], bool] | None = None
) -> tuple[Graph, Graph]:
    """Cut a graph in two where the inputs from ``late_from`` on come in.

    The first half answers the first ``count`` outputs (which must not need late inputs) and the residuals; the second
    takes residuals and late inputs and answers the other outputs. Results of equations that are not ``saveable``
    are computed again in the second half (default: all are kept).
    """
    late_ins = graph.ins[late_from:]
    late = set(late_ins)
    early_eqns, late_eqns = [], []
    for eqn in graph.eqns:
        if any(a in late for a in eqn.ins):
            late.update(eqn.outs)
            late_eqns.append(eqn)
        else:
            early_eqns.append(eqn)
    wanted = [a for eqn in late_eqns for a in eqn.ins] + list(graph.outs[count:])
    residuals = tuple(dict.fromkeys(a for a in wanted if type(a) is Var and a not in late))
    if saveable is not None:
        residuals, again = _recomputed(early_eqns, residuals, saveable)
        late_eqns = again + late_eqns
    first = dce(Graph(graph.ins[:late_from], tuple(early_eqns), graph.outs[:count] + residuals, graph.in_names))
    return first, Graph(residuals + late_ins, tuple(late_eqns), graph.outs[count:])


def _recomputed(
    eqns: Sequence[Eqn], needed: Sequence[Var], saveable: Callable[[Eqn], bool]
) -> tuple[tuple[Var, ...], list[Eqn]]:
    """What must be kept so that ``needed`` can be had, and the equations to run again for the rest."""
    wanted = dict.fromkeys(needed)
    again: list[Eqn] = []
    for eqn in reversed(eqns):
        if any(o in wanted for o in eqn.outs) and not saveable(eqn):
            again.append(eqn)
            for o in eqn.outs:
                wanted.pop(o, None)
            wanted.update(dict.fromkeys(a for a in eqn.ins if type(a) is Var))
    return tuple(wanted), again[::-1]


def reaches(graph: Graph, wrt: Sequence[int], outs: Sequence[int]) -> bool:
    """Whether any of the outputs depends on any of the inputs through values that carry derivatives.

    Where no input has any elements, nothing is missing.
    """
    active = {graph.ins[i] for i in wrt}
    if all(0 in v.aval.shape for v in active):
        return True
    for eqn in graph.eqns:
        if eqn.prim.name != "stop_gradient" and any(type(a) is Var and a in active for a in eqn.ins):
            active.update(eqn.outs)
    return any(graph.outs[i] in active for i in outs)

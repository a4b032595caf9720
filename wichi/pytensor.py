"""NumPy functions as PyTensor operators, for PyMC models and whatever else is written in PyTensor: ``as_op``.

The value, the gradient and all further derivatives are wichi's. In PyTensor's numba mode the machine code is called
from machine code. Import this module by its name; ``import wichi`` does not load it, for PyTensor is optional.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np

from wichi import pytree
from wichi.arguments import input_names
from wichi.compiled import Transformed
from wichi.errors import ArgumentError, ConditionError
from wichi.linear import vjp
from wichi.njitted import njit
from wichi.trace import frames
from wichi.trace.dtypes import supported
from wichi.trace.ir import Aval
from wichi.transforms import jit, value_and_grad

try:
    import numba
    import pytensor.tensor as pt
    from pytensor.gradient import disconnected_type
    from pytensor.graph.basic import Apply
    from pytensor.graph.op import Op
    from pytensor.graph.rewriting.basic import node_rewriter
    from pytensor.link.numba.dispatch.basic import generate_fallback_impl, numba_funcify
    from pytensor.tensor.exceptions import ShapeError as UnknownShape
    from pytensor.tensor.rewriting.basic import register_specialize
    from pytensor.tensor.type import TensorType
except ImportError as missing:
    raise ImportError("wichi.pytensor needs PyTensor.  fix: pip install 'wichi[pymc]'") from missing

Variable: TypeAlias = Any  # of PyTensor, which has no type hints that mypy could read where it is not installed


def as_op(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` as a function of PyTensor variables.

    Args:
        f: a NumPy function that wichi can trace, of arrays, numbers and trees of them; it answers a float (as a log
            density does), an array, or a tree of them.

    Returns:
        a function that takes PyTensor variables (or what becomes one) where ``f`` takes arrays, and answers variables.
        ``pytensor.gradient.grad`` of a float comes from one evaluation together with its value; other derivatives, and
        those of arrays, are vector-Jacobian products by ``wichi.vjp``, to any order. Integers are not differentiated.

    Raises:
        ArgumentError: ``f`` is no function; or, when the graph runs, the result is not what was assumed.
        DtypeError: a variable of a dtype that wichi has not.

    Shapes may be unknown while the graph is built; each shape is then traced when it first occurs, and the result is
    taken to be one number of the widest float dtype among the arguments. Where PyTensor knows all shapes
    (``pt.specify_shape``, or PyMC's ``shape=``), results may have any shape, and numba mode calls the machine code
    directly; otherwise it goes through Python, some microseconds a call, and a warning says so. In numba mode all that
    ``f`` holds besides arrays is fixed when the graph is compiled; otherwise as ``wichi.jit`` has it.

    PyTensor does not keep a compiled graph with such an operator on its disk, only its other parts.

    >>> import pytensor.tensor as pt
    >>> x = pt.vector("x", shape=(3,))
    >>> y = as_op(lambda x: np.sum(x**2))(x)
    >>> pt.grad(y, x).eval({x: [1.0, 2.0, 3.0]}, mode="NUMBA")
    array([2., 4., 6.])
    """
    if not callable(f):
        raise ArgumentError(f"as_op needs a function, not {type(f).__name__}.", at=frames.describe(frames.user_where()))

    @functools.wraps(f)
    def apply(*args: Variable) -> Any:
        given, tree = pytree.flatten(args)
        rule = Value(f, tree)
        node = WichiOp(rule).make_node(*given)
        traced = rule.traced(node.inputs)
        return node.outputs[0] if traced is None else pytree.unflatten(traced.out_tree, node.outputs)

    return apply


# --- what an operator computes ---------------------------------------------------------------------------------------
# Each of these is a function of flat arguments that wichi traces, and answers a tuple. They say what function of the
# user's they call (``__wrapped__``), so that changes of its globals and cells are noticed, and have no code object of
# their own, so that the traces of one operator never push out those of another.
@dataclass(frozen=True, slots=True)
class Value:
    """The leaves of ``f``'s result."""

    f: Callable[..., Any]
    tree: pytree.TreeDef

    def __call__(self, *leaves: Any) -> tuple[Any, ...]:
        return tuple(pytree.leaves(self.f(*pytree.unflatten(self.tree, leaves))))

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.f

    @property
    def __name__(self) -> str:
        return str(getattr(self.f, "__name__", type(self.f).__name__))

    @property
    def __signature__(self) -> inspect.Signature:
        names = [_identifier(n) for n in input_names(self.f, pytree.flatten((self._arguments(), {}))[1])]
        kind = inspect.Parameter.POSITIONAL_ONLY
        if len({*names}) < len(names):
            names = [f"{name}_{i}" for i, name in enumerate(names)]
        return inspect.Signature([inspect.Parameter(n, kind) for n in names])

    def _arguments(self) -> Any:
        return pytree.unflatten(self.tree, range(self.tree.num_leaves))

    def traced(self, inputs: Sequence[Variable]) -> Any:
        """The trace of ``f`` for these variables; None where shapes are unknown, or values decide about it."""
        if any(None in x.type.shape for x in inputs):
            return None
        leaves, tree = pytree.flatten((pytree.unflatten(self.tree, [_example(x.type) for x in inputs]), {}))
        try:
            return jit(self.f).find(leaves, tree)
        except ConditionError:
            return None

    def results(self, inputs: Sequence[Variable]) -> list[Any]:
        found = self.traced(inputs)
        if found is not None:
            return [TensorType(o.aval.dtype, shape=o.aval.shape) for o in found.run.graph.outs]
        floats = [np.dtype(x.type.dtype) for x in inputs if _is_float(x)]
        return [TensorType(np.result_type(*floats) if floats else np.float64, shape=())]


@dataclass(frozen=True, slots=True)
class WithGradient:
    """A float, and its gradients in some of the arguments."""

    of: Value
    wrt: tuple[int, ...]

    def __call__(self, *leaves: Any) -> tuple[Any, ...]:
        def number(*values: Any) -> Any:
            return self.of(*values)[0]

        value, gradients = value_and_grad(number, argnums=self.wrt, allow_unused=True)(*leaves)
        return (value, *gradients)

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.of

    @property
    def __name__(self) -> str:
        return f"gradient_of_{self.of.__name__}"

    def results(self, inputs: Sequence[Variable]) -> list[Any]:
        return [*self.of.results(inputs), *(_like(inputs[i]) for i in self.wrt)]


@dataclass(frozen=True, slots=True)
class Pullback:
    """The products of cotangents of some results with the Jacobian: cotangents of some of the arguments.

    Its arguments are those of the rule it belongs to, and then the cotangents.
    """

    of: Value | WithGradient | Pullback
    count: int  # of the rule's own arguments
    wrt: tuple[int, ...]
    slots: tuple[int, ...]  # which results have a cotangent

    def __call__(self, *leaves: Any) -> tuple[Any, ...]:
        own, cotangents = leaves[: self.count], leaves[self.count :]

        def chosen(*values: Any) -> tuple[Any, ...]:
            new = dict(zip(self.wrt, values, strict=True))
            results = self.of(*[new.get(i, x) for i, x in enumerate(own)])
            return tuple(results[k] for k in self.slots)

        pulled: tuple[Any, ...] = vjp(chosen, *[own[i] for i in self.wrt])[1](tuple(cotangents))
        return pulled

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.of

    @property
    def __name__(self) -> str:
        return f"pullback_of_{self.of.__name__}"

    def results(self, inputs: Sequence[Variable]) -> list[Any]:
        return [_like(inputs[i]) for i in self.wrt]


# --- the operator ----------------------------------------------------------------------------------------------------
class WichiOp(Op):
    """A rule as an operator of PyTensor. ``as_op`` makes them; PyTensor's rewrites and dispatch see them."""

    __props__ = ("rule",)

    def __init__(self, rule: Value | WithGradient | Pullback) -> None:
        self.rule = rule

    @functools.cached_property
    def compiled(self) -> Transformed[..., tuple[Any, ...]]:
        return jit(self.rule)

    def make_node(self, *inputs: Variable) -> Apply:
        variables = [pt.as_tensor_variable(x) for x in inputs]
        for name, x in zip(inspect.signature(self.rule).parameters, variables, strict=False):
            supported(np.dtype(x.type.dtype), f"The argument {name}")
        return Apply(self, variables, [kind() for kind in self.rule.results(variables)])

    def perform(self, node: Apply, inputs: Sequence[Any], output_storage: Sequence[list[Any]]) -> None:
        results = self.compiled(*[x if x.ndim else x[()] for x in inputs])  # numbers take the fast way in
        if len(results) != len(node.outputs):
            self._refuse(node, results)
        for storage, out, result in zip(output_storage, node.outputs, results, strict=True):
            kind = out.type
            if (result.shape != kind.shape or result.dtype != kind.dtype) and not _fits(result, kind):
                self._refuse(node, results)
            storage[0] = np.asarray(result, kind.dtype)

    def _refuse(self, node: Apply, results: Sequence[Any]) -> NoReturn:
        found = ", ".join(str(Aval(x.shape, x.dtype)) for x in results)
        promised = ", ".join(str(Aval(out.type.shape, np.dtype(out.type.dtype))) for out in node.outputs)
        raise ArgumentError(
            f"as_op of {self.rule.__name__}: the result is {found}, where {promised} was assumed.",
            because="not all shapes were known while the graph was built; the result was then taken to be a number",
            fix="tell the shapes: pt.specify_shape(x, (8,)), or shape= where a variable is made",
        )

    # --- derivatives -------------------------------------------------------------------------------------------------
    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Integers and bools are not differentiated, and have no derivative."""
        return [[_is_float(x) and _is_float(out) for out in node.outputs] for x in node.inputs]

    def pullback(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable], cotangents: Sequence[Variable]
    ) -> list[Variable]:
        wrt = tuple(i for i, x in enumerate(inputs) if _is_float(x))
        slots = tuple(
            k for k, (c, out) in enumerate(zip(cotangents, outputs, strict=True))
            if isinstance(c.type, TensorType) and _is_float(out)
        )  # fmt: skip
        bars = [disconnected_type()] * len(inputs)
        if not wrt or not slots:
            return bars
        rule = self.rule
        if isinstance(rule, Value) and len(outputs) == 1 and not outputs[0].type.ndim:
            gradients = WichiOp(WithGradient(rule, wrt)).make_node(*inputs).outputs[1:]
            found = [pt.cast(cotangents[0] * g, inputs[i].type.dtype) for i, g in zip(wrt, gradients, strict=True)]
        else:
            given = [pt.cast(cotangents[k], outputs[k].type.dtype) for k in slots]
            found = WichiOp(Pullback(rule, len(inputs), wrt, slots)).make_node(*inputs, *given).outputs
        for i, bar in zip(wrt, found, strict=True):
            bars[i] = bar
        return bars

    if not hasattr(Op, "pullback"):  # PyTensor 2; in version 3 this name is deprecated
        L_op = pullback

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Sequence[Any]) -> list[Any]:
        wrt = () if isinstance(self.rule, Value) else self.rule.wrt
        first = len(node.outputs) - len(wrt)  # gradients come last
        found = []
        for k, out in enumerate(node.outputs):
            if None not in out.type.shape:
                found.append(tuple(pt.as_tensor(n, dtype="int64") for n in out.type.shape))
            elif k >= first:
                found.append(shapes[wrt[k - first]])
            else:
                raise UnknownShape
        return found

    def __str__(self) -> str:
        return f"WichiOp{{{self.rule.__name__}}}"

    def __getstate__(self) -> dict[str, Any]:
        return {"rule": self.rule}


@register_specialize
@node_rewriter([WichiOp])
def local_one_evaluation(fgraph: Any, node: Apply) -> Any:
    """A value whose gradient is computed too comes from the same run; gradients that nobody asks for are left out."""
    rule = node.op.rule
    if isinstance(rule, Value) and node.inputs:
        for client, _ in fgraph.clients[node.inputs[0]]:
            other = getattr(client.op, "rule", None)
            if isinstance(other, WithGradient) and other.of == rule and client.inputs == node.inputs:
                return [client.outputs[0]]
    if isinstance(rule, WithGradient):
        asked = [k for k in range(len(rule.wrt)) if fgraph.clients.get(node.outputs[1 + k])]
        if not asked:
            return {node.outputs[0]: WichiOp(rule.of).make_node(*node.inputs).outputs[0]}
        if len(asked) < len(rule.wrt):
            fewer = WichiOp(WithGradient(rule.of, tuple(rule.wrt[k] for k in asked))).make_node(*node.inputs)
            kept = [node.outputs[0], *(node.outputs[1 + k] for k in asked)]
            return dict(zip(kept, fewer.outputs, strict=True))
    return False


# --- numba mode ------------------------------------------------------------------------------------------------------
@numba_funcify.register(WichiOp)  # without a key: PyTensor must not write code that holds addresses of this process
def _numba_function(op: WichiOp, node: Apply, **kwargs: Any) -> Any:
    """The operator for numba: machine code where all shapes are known, else a call of Python."""
    why = "the shapes of its arguments are not known"
    if all(None not in x.type.shape for x in node.inputs):
        try:
            return _native(op, node)
        except ConditionError:
            why = "the way through it depends on values"
    warnings.warn(
        f"{op} runs through Python in numba mode, because {why}.  "
        "fix: pt.specify_shape(x, (8,)), or shape= where a variable is made; in PyMC freeze_dims_and_data(model)",
        UserWarning,
        stacklevel=2,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTensor's own words for it
        return generate_fallback_impl(op, node=node)


def _native(op: WichiOp, node: Apply) -> Any:
    """Around ``wichi.njit``: PyTensor's numbers are arrays of no axes, wichi's are numbers."""
    inside = njit(op.compiled, *[_example(x.type) for x in node.inputs])
    names = [f"x{i}" for i in range(len(node.inputs))]
    given = ", ".join(n if x.type.ndim else f"{n}[()]" for n, x in zip(names, node.inputs, strict=True))
    results = [
        f"answer[{k}]" if out.type.ndim else f"full((), answer[{k}], dtype{k})" for k, out in enumerate(node.outputs)
    ]
    text = f"def run({', '.join(names)}):\n    answer = inside({given})\n    return {', '.join(results)}"
    space: dict[str, Any] = {f"dtype{k}": np.dtype(out.type.dtype).type for k, out in enumerate(node.outputs)}
    space |= {"inside": inside, "full": np.full}
    exec(compile(text, f"<{op} in numba mode>", "exec"), space)
    return numba.njit(space["run"])


def _fits(result: Any, kind: Any) -> bool:
    """Whether a result may stand where ``kind`` was promised: no other shape, and no float that loses digits."""
    known = len(kind.shape) == len(result.shape) and all(
        n in (None, m) for n, m in zip(kind.shape, result.shape, strict=True)
    )
    return known and np.can_cast(result.dtype, kind.dtype, "safe" if result.dtype.kind == "f" else "same_kind")


def _example(kind: Any) -> Any:
    return np.broadcast_to(np.zeros((), kind.dtype), kind.shape)[()]


def _like(x: Variable) -> Any:
    return TensorType(x.type.dtype, shape=x.type.shape)


def _is_float(x: Variable) -> bool:
    return isinstance(x.type, TensorType) and np.dtype(x.type.dtype).kind == "f"


def _identifier(name: str) -> str:
    plain = "".join(c if c.isalnum() else "_" for c in name).strip("_")
    return plain if plain.isidentifier() else f"x{plain}"

"""The eager half: a Tensor computes at once and remembers how it was made.

``backward()`` walks that history with the same derivative rules the compiled half uses. Every user-visible operation is
one step of it, however many primitives it took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from wichi.errors import (
    DtypeError,
    InPlaceError,
    NonScalarError,
    PlainFloatError,
    ShapeError,
)
from wichi.methods import Methods
from wichi.tape import (
    Buffer,
    Recorded,
    Recording,
    Step,
    needs_memory_of,
    plain_array,
    pull,
    refuse,
    swapped,
    symbol,
)
from wichi.trace import frames
from wichi.trace.boxed import Boxed, registry
from wichi.trace.dtypes import supported
from wichi.trace.ir import Aval, Where
from wichi.trace.primitive import Primitive

Array = np.ndarray[Any, np.dtype[Any]]


class _History(NamedTuple):
    """How a tensor was made."""

    op: str
    steps: Sequence[Step]  # shared by the results of one operation
    slot: int  # where among their slots this result stands
    operands: tuple[Tensor, ...]
    memory: tuple[tuple[Buffer, int], ...]  # of the operands and of the result, with their versions then


class Tensor(Methods):
    """An array that remembers how it was made; in PyTorch's manner, on NumPy.

    Args:
        data: an array, a number or nested lists of numbers; copied, in its own dtype (Python floats are float64).
        label: a name for pictures and messages; may be set later.

    All tensors of a graph keep their ``.grad``, intermediate ones too; it adds up until ``zero_grad()``. Operators,
    methods and NumPy functions work on tensors and answer tensors. The in-place operators ``+= -= *= /=`` with plain
    numbers or arrays change a leaf without being recorded, which is what a training step wants; on a computed tensor
    they make a new one. NumPy's and PyTorch's spellings of axes both work: ``x.sum(dim=1)`` and ``x.sum(axis=1)``.

    Differs from PyTorch: nothing needs ``requires_grad``; ``max`` and ``min`` answer values only; ``var`` and ``std``
    divide by n, as in NumPy; ``x += y`` on a computed tensor does not change other names of ``x``. A write such as
    ``x.data[0] = 1`` goes unnoticed: do it before the loss is computed or after ``backward()``.

    Raises:
        DtypeError: complex, object or text data.

    >>> x = Tensor([1.0, 2.0], label="x")
    >>> loss = (x**2).sum()
    >>> loss.backward()
    >>> x.grad
    array([2., 4.])
    """

    __slots__ = ("__weakref__", "_buffer", "_data", "_grad", "_history", "_made", "label")

    _data: Array
    _grad: Array | None
    _history: _History | None
    _made: Where | None  # the user's line that computed it; None for a leaf

    def __init__(self, data: ArrayLike, label: str = "") -> None:
        self._leaf(plain_array(data), label)

    def _leaf(self, data: Array, label: str) -> None:
        self._data, self._grad, self._history, self.label = data, None, None, label
        self._buffer, self._made = Buffer(), None

    @classmethod
    def sharing(cls, data: Array, label: str = "") -> Self:
        """A leaf on the memory of ``data`` itself: in-place changes reach the array."""
        tensor = cls.__new__(cls)
        supported(data.dtype, "A Tensor")
        tensor._leaf(data, label)
        return tensor

    # --- data and gradient -------------------------------------------------------------------------------------------
    @property
    def data(self) -> Any:
        """The numbers, an ndarray. Setting it writes into the same memory where shape and dtype fit."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        new = value if value is self._data else plain_array(value)
        if new is not self._data:
            if new.shape == self._data.shape and new.dtype == self._data.dtype:
                self._data[...] = new
            else:
                self._data, self._grad, self._buffer = new, None, Buffer()
                return
        self._buffer.change()

    @property
    def grad(self) -> Any:
        """The derivatives of what ``backward()`` was called on, an ndarray like ``data``; zeros before.

        Raises:
            DtypeError: the tensor holds integers or bools, which have no derivative.
        """
        if self._grad is None:
            self._check_float("grad")
            self._grad = np.zeros(self._data.shape, self._data.dtype)
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        self._check_float("grad")
        new = np.array(value.data if isinstance(value, Tensor) else value, self._data.dtype)
        if new.shape != self._data.shape and new.size != 1:
            raise ShapeError(
                f"A gradient of shape {new.shape} was set on a tensor of shape {self._data.shape}.",
                at=frames.describe(frames.user_where()),
                fix="a gradient has the shape of its tensor",
            )
        self._grad = new if new.shape == self._data.shape else np.full(self._data.shape, new.item(), new.dtype)

    def zero_grad(self) -> None:
        """Forget the gradient gathered so far: ``grad`` is zeros again."""
        self._grad = None

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was given rather than computed."""
        return self._history is None

    @property
    def op(self) -> str:
        """The operation that made the tensor, as pictures show it: ``@``, ``ReLU``, ``**2``; empty for a leaf."""
        return self._history.op if self._history else ""

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """The tensors it was computed from."""
        return self._history.operands if self._history else ()

    def graph(self) -> list[Tensor]:
        """All tensors this one was computed from and itself, each after its operands; the order is always the same."""
        order: list[Tensor] = []
        met = {id(self)}
        waiting: list[tuple[Tensor, Any]] = [(self, iter(self.operands))]
        while waiting:
            tensor, rest = waiting[-1]
            for operand in rest:
                if id(operand) not in met:
                    met.add(id(operand))
                    waiting.append((operand, iter(operand.operands)))
                    break
            else:
                order.append(tensor)
                waiting.pop()
        return order

    def backward(self, gradient: Any = None) -> None:
        """Add the derivatives of this number to the ``grad`` of every tensor it was computed from, and to its own.

        Args:
            gradient: for a tensor of several elements: the weight of each of them, shaped like it.

        Raises:
            NonScalarError: the tensor has several elements and no ``gradient`` was given.
            InPlaceError: a value that a derivative needs was changed in place; no gradient is changed then.
        """
        self._check_float("backward()")
        if gradient is None and self._data.size != 1:
            raise NonScalarError(
                f"backward() of a tensor of shape {self.shape}: there is no single number to differentiate.",
                at=frames.describe(frames.user_where()),
                value=self._described(),
                fix="x.sum().backward(), or x.backward(gradient) with one weight an element",
            )
        seed = np.ones(self.shape, self.dtype) if gradient is None else np.asarray(_data(gradient), self.dtype)
        if seed.shape != self.shape:
            raise ShapeError(f"backward(gradient): {seed.shape} was given for a tensor of shape {self.shape}.",
                             at=frames.describe(frames.user_where()))  # fmt: skip
        cotangents: dict[int, Any] = {id(self): seed}
        found: list[tuple[Tensor, Any]] = []
        with np.errstate(all="ignore"):
            for tensor in reversed(self.graph()):
                ct = cotangents.pop(id(tensor), None)
                if ct is None:
                    continue
                found.append((tensor, ct))
                for operand, more in tensor._pulled(ct):
                    known = cotangents.get(id(operand))
                    cotangents[id(operand)] = more if known is None else known + more
        for tensor, ct in found:
            tensor._gather(ct)

    def _grad_fn(self) -> None:
        """One step of ``backward()`` by hand: add to the ``grad`` of the operands what this tensor's ``grad`` implies.

        >>> x = Tensor(3.0)
        >>> y = x * x
        >>> y.grad = 1
        >>> y._grad_fn()
        >>> x.grad
        array(6.)
        """
        with np.errstate(all="ignore"):
            for operand, ct in self._pulled(self.grad):
                operand._gather(ct)

    def _pulled(self, ct: Any) -> list[tuple[Tensor, Any]]:
        """The cotangents of the operands, given this tensor's."""
        made = self._history
        if made is None:
            return []
        for tensor, (buffer, version) in zip((*made.operands, self), made.memory, strict=True):
            if buffer.version != version and needs_memory_of(tensor._data, made.steps):
                why = "needs its result as it was" if tensor is self else "needs the old value"
                refuse(tensor.label, tensor.aval, tensor._made, buffer, made.op, self._made, why)
        found = pull(made.steps, made.slot, ct, len(made.operands))
        return [(t, c) for t, c in zip(made.operands, found, strict=True) if c is not None]

    def _gather(self, ct: Any) -> None:
        if self._grad is None:
            self._grad = np.array(ct, self._data.dtype)  # a copy: cotangents may be shared between tensors
        else:
            self._grad += ct

    def _check_float(self, what: str) -> None:
        if self._data.dtype.kind != "f":
            raise DtypeError(
                f"{what} of a tensor of {self._data.dtype}: only floats have derivatives.",
                at=frames.describe(frames.user_where()),
                value=self._described(),
                fix="make it of floats: Tensor(2.0), or Tensor(np.asarray(x, dtype=float))",
            )

    def _described(self) -> str:
        return str(self.aval) + (f", made at {frames.describe(self._made)}" if self._made else "")

    # --- computing ---------------------------------------------------------------------------------------------------
    @property
    def aval(self) -> Aval:
        return Aval(self._data.shape, self._data.dtype)

    def array(self) -> Array:
        return self._data

    def stage(self, prim: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        return self._record(prim.name, prim, args, params)

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return self._record(function.__name__, function, args, kwargs)

    def _record(self, name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """``function`` on the arguments, as one step of the history."""
        if name in ("subtract", "negative"):
            return _minus(*args) if name == "subtract" else _times_minus_one(*args)
        if name in ("add", "multiply", "divide"):
            args = [_lifted(type(self), x, beside) for x, beside in zip(args, reversed(args), strict=True)]
        recording = Recording()
        operands: dict[int, tuple[Tensor, Recorded]] = {}

        def swap(x: Any) -> Any:
            if isinstance(x, np.ndarray) and x.dtype.kind == "f":
                x = Tensor(x)  # a copy, so that later changes to the array cannot reach backward
            if not isinstance(x, Tensor):
                return x
            if id(x) not in operands:
                operands[id(x)] = (x, recording.operand(x._data))
            return operands[id(x)][1]

        inside = [swapped(x, swap) for x in args], {k: swapped(x, swap) for k, x in kwargs.items()}
        result = function(*inside[0], **inside[1])
        where = frames.user_where()
        tensors = tuple(tensor for tensor, _ in operands.values())

        def out(x: Any) -> Any:
            if not isinstance(x, Recorded):
                return x
            return self._computed(symbol(name, args, kwargs), x, recording.steps, tensors, where)

        return swapped(result, out)

    def _computed(
        self, op: str, result: Recorded, steps: Sequence[Step], operands: tuple[Tensor, ...], where: Where | None
    ) -> Tensor:
        tensor = type(self).__new__(type(self))
        tensor._data = data = np.asarray(result.data)
        shared = next((t for t in operands if np.may_share_memory(t._data, data)), None)
        tensor._buffer = Buffer() if shared is None else shared._buffer
        memory = tuple([(t._buffer, t._buffer.version) for t in (*operands, tensor)])
        tensor._grad, tensor._made, tensor.label = None, where, ""
        tensor._history = _History(op, steps, result.slot, operands, memory)
        return tensor

    def __getattr__(self, name: str) -> Any:
        found = registry.methods.get(name)
        if found is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        if name in ("T", "mT", "real"):
            return self._record(name, found, (self,), {})
        return lambda *args, **kwargs: self._record(name, found, (self, *args), kwargs)

    def __getitem__(self, index: Any) -> Any:
        return self._record("[...]", registry.methods["__getitem__"], (self, index), {})

    def __round__(self, ndigits: int | None = None) -> Any:
        return self._record("round", registry.methods["__round__"], (self, ndigits), {})

    # --- in place ----------------------------------------------------------------------------------------------------
    def _in_place(self, ufunc: np.ufunc, other: Any) -> Any:
        if not self.is_leaf:
            return NotImplemented  # Python computes a new tensor and gives it the name
        if isinstance(other, Boxed):
            frame = frames.user_frame()
            text = (frames.segment(frame) if frame else None) or "x += y"
            target, operator, operand = [*text.split(" ", 2), "", ""][:3]
            raise InPlaceError(
                f"`{text}` changes a leaf in place by a tensor, and in-place changes are not recorded.",
                at=frames.describe(frames.user_where()),
                because="the gradient through it would be lost",
                fix=f"{target} = {target} {operator[:1]} {operand}; or ({operand}).data, if only numbers are meant",
            )
        ufunc(self._data, other, out=self._data, casting="same_kind")
        self._buffer.change()
        return self

    def __iadd__(self, other: Any) -> Any:
        return self._in_place(np.add, other)

    def __isub__(self, other: Any) -> Any:
        return self._in_place(np.subtract, other)

    def __imul__(self, other: Any) -> Any:
        return self._in_place(np.multiply, other)

    def __itruediv__(self, other: Any) -> Any:
        return self._in_place(np.divide, other)

    def __setitem__(self, index: Any, value: Any) -> None:
        """``x[index] = numbers`` on a leaf; not recorded."""
        if not self.is_leaf or isinstance(value, Boxed):
            raise InPlaceError(
                "Elements can only be set on a leaf, and only to plain numbers.",
                at=frames.describe(frames.user_where()),
                value=self._described(),
                because="the change is not recorded, so a gradient through it would be lost",
                fix="x = np.where(mask, new, x), or x.data[...] = numbers before computing with x",
            )
        self._data[index.data if isinstance(index, Tensor) else index] = value
        self._buffer.change()

    # --- leaving the graph -------------------------------------------------------------------------------------------
    def detach(self) -> Self:
        """The same numbers, in the same memory, without history: no gradient flows through it."""
        tensor = self.sharing(self._data, self.label)
        tensor._buffer = self._buffer
        return tensor

    def numpy(self) -> Any:
        """The numbers, an ndarray that shares the tensor's memory."""
        return self._data

    def item(self) -> Any:
        """The single element as a Python number."""
        return self._data.item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self._data.tolist()

    def numel(self) -> int:
        """The number of elements."""
        return self._data.size

    def dim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._data, dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        """The numbers for ``torch.from_dlpack`` and its like, in the tensor's own memory; see ``numpy.ndarray``.

        What is written there goes unnoticed, as writes into ``x.data`` do.
        """
        return self._data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._data.__dlpack_device__()
        return device

    def __float__(self) -> float:
        frame = frames.user_frame()
        text = (frames.segment(frame) if frame else None) or ""
        if text.startswith("math."):
            function = text.split("(")[0]
            raise PlainFloatError(
                f"`{function}` needs a plain float but got a Tensor; its derivative would be lost.",
                at=frames.describe(frames.user_where()),
                because="a Python float has no history",
                fix=f"np.{function[5:]}(...), or {function}(x.item()) if no derivative is meant",
            )
        return float(self._data)

    def __int__(self) -> int:
        return int(self._data)

    def __index__(self) -> int:
        return self._data.__index__()

    def __bool__(self) -> bool:
        return bool(self._data)

    def __repr__(self) -> str:
        label = f", label={self.label!r}" if self.label else ""
        if not self._data.ndim:
            return f"Tensor({self._data[()]:.6g}{label})" if self.dtype.kind == "f" else f"Tensor({self._data}{label})"
        dtype = "" if self.dtype == np.float64 else f", dtype={self.dtype}"
        return f"Tensor({np.array2string(self._data, separator=', ', prefix='Tensor(')}{dtype}{label})"

    def __format__(self, spec: str) -> str:
        return format(self._data.item(), spec) if spec else repr(self)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.is_leaf:
            raise InPlaceError(
                "A computed Tensor cannot be pickled or copied with its history.",
                at=frames.describe(frames.user_where()),
                fix="x.detach()",
            )
        return type(self), (self._data, self.label)


def _data(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else x


def _lifted(cls: type[Tensor], x: Any, beside: Any) -> Any:
    """A number as a tensor of its own, labelled by it: pictures show it. Its dtype is what it promotes to."""
    if isinstance(x, Boxed | np.ndarray) or not isinstance(x, int | float | np.generic):
        return x
    dtype = np.result_type(x, beside.dtype if isinstance(beside, Boxed) else beside)
    return cls.sharing(np.array(x, dtype), f"{x:g}" if isinstance(x, float) else str(x))


def _minus(x: Any, y: Any) -> Any:
    """``x + (-1 * y)``, as the walk-through explains subtraction; exactly the same number."""
    if type(y) in (int, float):
        return x + (-y)
    if getattr(y, "dtype", None) is None or y.dtype.kind != "f":
        return _plain_operation("-", registry.methods["__sub__"], x, y)
    return x + _times_minus_one(y if isinstance(y, Tensor) else type(x)(y))


def _times_minus_one(x: Any) -> Any:
    if x.dtype.kind != "f":
        return _plain_operation("-", registry.methods["__neg__"], x)
    product = x * -1
    product.label = f"-{x.label}" if x.label else ""
    return product


def _plain_operation(op: str, function: Callable[..., Any], *args: Any) -> Any:
    """An operation recorded under another name, so that it is not rewritten again."""
    tensor = next(a for a in args if isinstance(a, Tensor))
    return tensor._record(op, function, args, {})

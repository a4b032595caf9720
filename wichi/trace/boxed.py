"""What every value that stands for an array shares: Python's operators, NumPy's protocols, array methods and shape.

Traced values (``Tracer``) and eager ones (``Tensor``) are boxed. What an operator or a NumPy function does with them is
looked up in the registry.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from wichi.errors import MissingRuleError, PlainArrayWriteError
from wichi.trace import advice, frames
from wichi.trace.dims import Dim, free_sizes

if TYPE_CHECKING:
    from wichi.trace.ir import Aval
    from wichi.trace.primitive import Primitive

_PROPERTIES = frozenset({"T", "at", "mT", "real"})


class Registry:
    """What a boxed value does for Python's operators, its methods and NumPy's functions.

    The one inverted dependency of the house: ``wichi.numpy`` (a higher floor) writes it once when imported; boxed
    values look names up here. A name is written once.
    """

    def __init__(self) -> None:
        self.methods: dict[str, Callable[..., Any]] = {}
        self.functions: dict[Any, Callable[..., Any]] = {}  # a NumPy function or ufunc -> ours

    def add(self, table: dict[Any, Callable[..., Any]], entries: dict[Any, Callable[..., Any]]) -> None:
        for name, function in entries.items():
            assert table.get(name, function) is function, f"{name} is registered twice"
            table[name] = function

    def find(self, ufunc: np.ufunc, method: str) -> Callable[..., Any] | None:
        """The entry for a ufunc (or its ``reduce``, ``outer``); those of scipy.special are known by name."""
        if method != "__call__":
            return self.functions.get((ufunc, method))
        known = self.functions.get(ufunc)
        special = sys.modules.get("scipy.special")
        if known is None and special is not None and getattr(special, ufunc.__name__, None) is ufunc:
            return self.functions.get(("scipy.special", ufunc.__name__))
        return known


registry = Registry()


class Boxed:
    """A value that stands for an array: traced (``Tracer``) or recorded (``Tensor``). The innermost one computes."""

    __slots__ = ()
    __array_priority__ = 1000  # before np.matrix and other subclasses
    rank: int = 0  # how deep its trace is nested; the deepest argument stages the operation

    @property
    def aval(self) -> Aval:
        raise NotImplementedError

    def stage(self, prim: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        """``prim`` on ``args``, of which this is the innermost box."""
        raise NotImplementedError

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A function of ``wichi.numpy`` on arguments of which this is the innermost box. Tensors record it whole."""
        return function(*args, **kwargs)

    def array(self) -> np.ndarray[Any, Any]:
        """The numbers of an eager value; traced ones have none."""
        raise NotImplementedError

    def overwrite(self, compute: Callable[[], Any]) -> Any:
        """Stand for what ``compute`` answers from now on (``out=``); eager values cannot."""
        _refuse_out()

    # --- what it looks like ------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.aval.shape
        if free_sizes() is not None and frames.is_called_by_user(2):
            return tuple(map(registry.methods["_visible_size"], shape))
        return shape

    @shape.setter
    def shape(self, wanted: Any) -> NoReturn:
        raise PlainArrayWriteError(
            "The shape of a value inside a transform cannot be set.",
            at=frames.describe(frames.user_where()),
            because="other names of the value would change their shape too",
            fix="x = x.reshape(...)",
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.aval.dtype

    @property
    def ndim(self) -> int:
        return len(self.aval.shape)

    @property
    def size(self) -> int:
        size = self.aval.size
        if free_sizes() is not None and frames.is_called_by_user(2):
            return registry.methods["_visible_size"](size)  # type: ignore[no-any-return]
        return size

    def __len__(self) -> int:
        shape = self.aval.shape
        if not shape:
            raise TypeError("len() of a 0-d value")
        if isinstance(shape[0], Dim):
            registry.methods["_needs_number"](shape[0])
        return shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.aval.shape:
            raise TypeError("iteration over a 0-d value")
        return (self[i] for i in range(len(self)))

    def __getattr__(self, name: str) -> Any:
        found = registry.methods.get(name)
        if found is None:
            raise AttributeError(
                f"a value inside a transform has no attribute {name!r}; it offers "
                f"{', '.join(n for n in registry.methods if not n.startswith('_'))}"
            )
        return found(self) if name in _PROPERTIES else found.__get__(self)

    # --- Python's operators ------------------------------------------------------------------------------------------
    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Any:
        return registry.methods["__add__"](self, other)

    def __radd__(self, other: Any) -> Any:
        return registry.methods["__add__"](other, self)

    def __sub__(self, other: Any) -> Any:
        return registry.methods["__sub__"](self, other)

    def __rsub__(self, other: Any) -> Any:
        return registry.methods["__sub__"](other, self)

    def __mul__(self, other: Any) -> Any:
        return registry.methods["__mul__"](self, other)

    def __rmul__(self, other: Any) -> Any:
        return registry.methods["__mul__"](other, self)

    def __truediv__(self, other: Any) -> Any:
        return registry.methods["__truediv__"](self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return registry.methods["__truediv__"](other, self)

    def __floordiv__(self, other: Any) -> Any:
        return registry.methods["__floordiv__"](self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return registry.methods["__floordiv__"](other, self)

    def __mod__(self, other: Any) -> Any:
        return registry.methods["__mod__"](self, other)

    def __rmod__(self, other: Any) -> Any:
        return registry.methods["__mod__"](other, self)

    def __divmod__(self, other: Any) -> Any:
        return registry.methods["__divmod__"](self, other)

    def __rdivmod__(self, other: Any) -> Any:
        return registry.methods["__divmod__"](other, self)

    def __pow__(self, other: Any) -> Any:
        return registry.methods["__pow__"](self, other)

    def __rpow__(self, other: Any) -> Any:
        return registry.methods["__pow__"](other, self)

    def __matmul__(self, other: Any) -> Any:
        return registry.methods["__matmul__"](self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return registry.methods["__matmul__"](other, self)

    def __and__(self, other: Any) -> Any:
        return registry.methods["__and__"](self, other)

    def __rand__(self, other: Any) -> Any:
        return registry.methods["__and__"](other, self)

    def __or__(self, other: Any) -> Any:
        return registry.methods["__or__"](self, other)

    def __ror__(self, other: Any) -> Any:
        return registry.methods["__or__"](other, self)

    def __xor__(self, other: Any) -> Any:
        return registry.methods["__xor__"](self, other)

    def __rxor__(self, other: Any) -> Any:
        return registry.methods["__xor__"](other, self)

    def __lshift__(self, other: Any) -> Any:
        return registry.methods["__lshift__"](self, other)

    def __rlshift__(self, other: Any) -> Any:
        return registry.methods["__lshift__"](other, self)

    def __rshift__(self, other: Any) -> Any:
        return registry.methods["__rshift__"](self, other)

    def __rrshift__(self, other: Any) -> Any:
        return registry.methods["__rshift__"](other, self)

    def __lt__(self, other: Any) -> Any:
        return registry.methods["__lt__"](self, other)

    def __le__(self, other: Any) -> Any:
        return registry.methods["__le__"](self, other)

    def __gt__(self, other: Any) -> Any:
        return registry.methods["__gt__"](self, other)

    def __ge__(self, other: Any) -> Any:
        return registry.methods["__ge__"](self, other)

    def __eq__(self, other: Any) -> Any:
        return registry.methods["__eq__"](self, other)

    def __ne__(self, other: Any) -> Any:
        return registry.methods["__ne__"](self, other)

    def __neg__(self) -> Any:
        return registry.methods["__neg__"](self)

    def __pos__(self) -> Any:
        return registry.methods["__pos__"](self)

    def __abs__(self) -> Any:
        return registry.methods["__abs__"](self)

    def __invert__(self) -> Any:
        return registry.methods["__invert__"](self)

    def __round__(self, ndigits: int | None = None) -> Any:
        return registry.methods["__round__"](self, ndigits)

    def __getitem__(self, index: Any) -> Any:
        return registry.methods["__getitem__"](self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        frame = frames.user_frame()
        target = ((frames.segment(frame) if frame else None) or "x[i]").split("[")[0]
        raise PlainArrayWriteError(
            f"`{target}` is a value inside a transform and cannot be written in place.",
            at=frames.describe(frames.user_where()),
            because="its derivative needs the old value",
            fix=f"{target} = np.where(mask, new, {target})",
        )

    # --- NumPy's protocols (NEP 13 and NEP 18) -----------------------------------------------------------------------
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        entry = registry.find(ufunc, method)
        out = kwargs.pop("out", None)
        if entry is None:
            no_rule(ufunc, method)
        if out is not None and not all(o is None for o in out):
            return _written(out[0] if len(out) == 1 else None, entry, inputs, kwargs)
        return entry(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        entry = registry.functions.get(function)
        if entry is None:
            no_rule(function)
        if kwargs.get("out") is not None:
            return _written(kwargs.pop("out"), entry, args, kwargs)
        return entry(*args, **kwargs)


def no_rule(function: Any, method: str = "__call__") -> NoReturn:
    """Raise W201 for a NumPy function, or a method of a ufunc, without an entry in the registry."""
    name, because = (
        advice.name_of(function),
        "wichi needs a rule for each NumPy function to differentiate and compile it",
    )
    if method != "__call__":
        name, fix = f"{name}.{method}", advice.instead_of_method(function, method)
    else:
        known = name.removeprefix("np.")
        fix = _INSTEAD.get(known, "write it with functions that wichi.numpy has")
        if known in _SHAPED_BY_VALUES:
            because = "the shape of its result depends on values, and shapes must be known while tracing"
    raise MissingRuleError(
        f"{name} cannot be traced by wichi.", at=frames.describe(frames.user_where()), because=because, fix=fix
    )


_SHAPED_BY_VALUES = frozenset({
    "argwhere", "flatnonzero", "histogram_bin_edges", "intersect1d", "nonzero", "setdiff1d", "setxor1d", "trim_zeros",
    "union1d", "unique", "unique_all", "unique_counts", "unique_inverse", "unique_values",
})  # fmt: skip
_INSTEAD = {
    **dict.fromkeys(("argwhere", "flatnonzero", "nonzero", "trim_zeros"), "keep the shape: np.where(mask, x, 0)"),
    **dict.fromkeys(("intersect1d", "setdiff1d"), "keep the shape: np.where(np.isin(x, y), x, 0)"),
    "apply_along_axis": "wichi.vmap(f)(x)",
    "frexp": "n = np.floor(np.log2(np.abs(x))) + 1; x / 2.0**n, n",
}


def _written(out: Any, entry: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """``out=``: a traced array stands for the result from now on."""
    out = out[0] if isinstance(out, tuple) and len(out) == 1 else out
    if not isinstance(out, Boxed):
        _refuse_out()
    return out.overwrite(lambda: entry(*args, **kwargs))


def _refuse_out() -> NoReturn:
    """``a += t`` with a plain array ``a`` reaches NumPy with ``out=(a,)``: refuse, or the gradient would be lost."""
    frame = frames.user_frame()
    text = (frames.segment(frame) if frame else None) or ""
    fix = "make a new array instead, or write into one of wichi.numpy.zeros(...)"
    if frame is not None and frames.is_augmented(frame):
        fix = advice.instead_of_writing(text, frame)
    raise PlainArrayWriteError(
        f"`{text or 'out='}` writes a value inside a transform into a plain ndarray, which would lose its gradient.",
        at=frames.describe(frames.user_where()),
        because="a NumPy array holds numbers, not values still to be computed",
        fix=fix,
    )

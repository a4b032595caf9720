"""The methods of a Tensor: PyTorch's spellings of NumPy's functions."""

from __future__ import annotations

from typing import Any

import wichi.numpy as wnp
from wichi.trace.boxed import Boxed

Dims = int | tuple[int, ...] | None


class Methods(Boxed):
    """Each method is the function of ``wichi.numpy`` of that name; where the two libraries differ, the text says so."""

    __slots__ = ()

    def relu(self) -> Any:
        """``max(x, 0)``; the derivative at 0 is 0."""
        return wnp.relu(self)

    def sigmoid(self) -> Any:
        """``1 / (1 + exp(-x))``."""
        return wnp.sigmoid(self)

    def tanh(self) -> Any:
        """The hyperbolic tangent."""
        return wnp.tanh(self)

    def exp(self) -> Any:
        """e to the power of each element."""
        return wnp.exp(self)

    def log(self) -> Any:
        """The natural logarithm."""
        return wnp.log(self)

    def sqrt(self) -> Any:
        """The square root."""
        return wnp.sqrt(self)

    def abs(self) -> Any:
        """The absolute value; the derivative at 0 is 0."""
        return wnp.abs(self)

    def sin(self) -> Any:
        """The sine of radians."""
        return wnp.sin(self)

    def cos(self) -> Any:
        """The cosine of radians."""
        return wnp.cos(self)

    def pow(self, exponent: Any) -> Any:
        """``x ** exponent``."""
        return self**exponent

    def matmul(self, other: Any) -> Any:
        """``x @ other``."""
        return self @ other

    def sum(self, dim: Dims = None, keepdim: bool = False, **numpy: Any) -> Any:
        """The sum over the axes ``dim`` (all by default). NumPy's ``axis``, ``keepdims`` and ``dtype`` work too."""
        return wnp.sum(self, **_axes(dim, keepdim, numpy))

    def mean(self, dim: Dims = None, keepdim: bool = False, **numpy: Any) -> Any:
        """The mean over the axes ``dim``."""
        return wnp.mean(self, **_axes(dim, keepdim, numpy))

    def prod(self, dim: Dims = None, keepdim: bool = False, **numpy: Any) -> Any:
        """The product over the axes ``dim``."""
        return wnp.prod(self, **_axes(dim, keepdim, numpy))

    def max(self, dim: Dims = None, keepdim: bool = False, **numpy: Any) -> Any:
        """The largest element over the axes ``dim``, its value only; equal ones share the derivative."""
        return wnp.max(self, **_axes(dim, keepdim, numpy))

    def min(self, dim: Dims = None, keepdim: bool = False, **numpy: Any) -> Any:
        """The smallest element over the axes ``dim``, its value only; equal ones share the derivative."""
        return wnp.min(self, **_axes(dim, keepdim, numpy))

    def logsumexp(self, dim: Dims = None, keepdim: bool = False, **numpy: Any) -> Any:
        """``log(sum(exp(x)))`` over the axes ``dim``, without overflow."""
        return wnp.logsumexp(self, **_axes(dim, keepdim, numpy))

    def argmax(self, dim: int | None = None, keepdim: bool = False, **numpy: Any) -> Any:
        """Where the largest element stands; has no derivative."""
        return wnp.argmax(self, **_axes(dim, keepdim, numpy))

    def argmin(self, dim: int | None = None, keepdim: bool = False, **numpy: Any) -> Any:
        """Where the smallest element stands; has no derivative."""
        return wnp.argmin(self, **_axes(dim, keepdim, numpy))

    def view(self, *shape: Any) -> Any:
        """``reshape``, as PyTorch calls it."""
        return self.reshape(*shape)

    def transpose(self, *dims: Any) -> Any:
        """``transpose(a, b)`` swaps two axes, as in PyTorch; without arguments, or with a tuple, as in NumPy."""
        if len(dims) == 2 and self.ndim >= 2:
            return wnp.swapaxes(self, *dims)
        return wnp.transpose(self, dims[0] if len(dims) == 1 else dims or None)

    def t(self) -> Any:
        """The transpose of a matrix."""
        return wnp.transpose(self)

    def permute(self, *dims: Any) -> Any:
        """The axes in the order ``dims``."""
        return wnp.transpose(self, dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims)

    def unsqueeze(self, dim: int) -> Any:
        """A new axis of size 1 at ``dim``."""
        return wnp.expand_dims(self, dim)


def _axes(dim: Any, keepdim: bool, numpy: dict[str, Any]) -> dict[str, Any]:
    """NumPy's ``axis`` and ``keepdims`` from either spelling."""
    axis = numpy.pop("axis", dim)
    return {
        "axis": tuple(axis) if isinstance(axis, list) else axis,
        "keepdims": numpy.pop("keepdims", keepdim),
        **numpy,
    }

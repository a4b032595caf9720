"""The scalar engine, in the manner of Andrej Karpathy's micrograd (https://github.com/karpathy/micrograd)."""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.errors import ArgumentError
from wichi.tensor import Tensor
from wichi.trace import frames


class Value(Tensor):
    """A float that remembers how it was made: a ``Tensor`` of no axes whose ``data`` and ``grad`` are Python floats.

    Args:
        data: a number; integers become floats.
        label: a name for pictures.

    Raises:
        ArgumentError: ``data`` is no single number.

    >>> a, b = Value(2.0), Value(-3.0)
    >>> c = (a * b + b**2).tanh()
    >>> c.backward()
    >>> c.data, a.grad
    (0.9950547536867305, -0.029598111496320634)
    """

    __slots__ = ()

    def __init__(self, data: Any, label: str = "") -> None:
        if isinstance(data, Value) or not isinstance(data, int | float | np.integer | np.floating):
            raise ArgumentError(
                f"A Value is a single number, not {type(data).__name__}.",
                at=frames.describe(frames.user_where()),
                fix="Value(float(x)), or Tensor(x) for arrays",
            )
        super().__init__(float(data), label)

    @property
    def data(self) -> float:
        """The number."""
        return float(self._data)

    @data.setter
    def data(self, value: Any) -> None:
        self._data[...] = float(value)
        self._buffer.change()

    @property
    def grad(self) -> float:
        """The derivative of what ``backward()`` was called on; 0.0 before."""
        return 0.0 if self._grad is None else float(self._grad)

    @grad.setter
    def grad(self, value: Any) -> None:
        self._grad = np.array(float(value))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (float(super().__reduce__()[1][0]), self.label)

    def __repr__(self) -> str:
        label = f", label={self.label!r}" if self.label else ""
        return f"Value(data={self.data:.6g}, grad={self.grad:.6g}{label})"

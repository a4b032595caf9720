"""Activations by name. Each works on arrays, on values inside transforms and on eager Tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import wichi.numpy as wnp
from wichi.errors import ArgumentError

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": wnp.relu,
    "tanh": wnp.tanh,
    "sigmoid": wnp.sigmoid,
    "softplus": wnp.softplus,
    "linear": lambda x: x,
}


def activation(name: str) -> Callable[[Any], Any]:
    """The activation called ``name``.

    Raises:
        ArgumentError: there is none of that name.

    >>> activation("relu")(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    if name not in ACTIVATIONS:
        raise ArgumentError(f"There is no activation {name!r}.", fix=f"one of {', '.join(map(repr, ACTIVATIONS))}")
    return ACTIVATIONS[name]

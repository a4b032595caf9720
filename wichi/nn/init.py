"""Initial weights: ``(rng, fan_in, fan_out, dtype) -> array of shape (fan_in, fan_out)``. Sources at each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Initializer: TypeAlias = "Callable[[np.random.Generator, int, int, DTypeLike], NDArray[Any]]"


def he_normal(rng: np.random.Generator, fan_in: int, fan_out: int, dtype: DTypeLike = float) -> NDArray[Any]:
    """Normal of variance ``2 / fan_in``, which keeps the size of ReLU activations from layer to layer.

    K. He et al., "Delving Deep into Rectifiers", ICCV 2015, equation 10.
    """
    return np.asarray(rng.standard_normal((fan_in, fan_out)) * (2.0 / fan_in) ** 0.5, dtype)


def glorot_uniform(rng: np.random.Generator, fan_in: int, fan_out: int, dtype: DTypeLike = float) -> NDArray[Any]:
    """Uniform in ``±sqrt(6 / (fan_in + fan_out))``, for layers that are near linear at 0 (tanh, sigmoid, none).

    X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010,
    equation 16.
    """
    bound = (6.0 / (fan_in + fan_out)) ** 0.5
    return np.asarray(rng.uniform(-bound, bound, (fan_in, fan_out)), dtype)


def lecun_normal(rng: np.random.Generator, fan_in: int, fan_out: int, dtype: DTypeLike = float) -> NDArray[Any]:
    """Normal of variance ``1 / fan_in``. Y. LeCun et al., "Efficient BackProp", 1998, section 4.6."""
    return np.asarray(rng.standard_normal((fan_in, fan_out)) / fan_in**0.5, dtype)


def zeros(rng: np.random.Generator, fan_in: int, fan_out: int, dtype: DTypeLike = float) -> NDArray[Any]:
    """All zeros: for the last layer where the first prediction should be nothing; useless for hidden layers."""
    return np.zeros((fan_in, fan_out), dtype)


def fitting(activation: str) -> Initializer:
    """The initializer that suits an activation: He for ReLU and softplus, Glorot for the others."""
    return he_normal if activation in ("relu", "softplus") else glorot_uniform

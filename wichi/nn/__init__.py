"""Models as pure trees of arrays, initializers, activations and losses."""

from wichi.nn.activations import ACTIVATIONS, activation
from wichi.nn.init import glorot_uniform, he_normal, lecun_normal, zeros
from wichi.nn.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    MeanSquaredError,
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    mean_squared_error,
)
from wichi.nn.modules import MLP, Layer, Module, Neuron

__all__ = [
    "ACTIVATIONS", "MLP", "BinaryCrossEntropy", "CrossEntropy", "Layer", "MeanSquaredError", "Module", "Neuron",
    "accuracy", "activation", "binary_cross_entropy", "cross_entropy", "glorot_uniform", "he_normal", "lecun_normal",
    "mean_squared_error", "zeros",
]  # fmt: skip

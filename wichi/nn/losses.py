"""Losses: the target first, the prediction second, the mean over the batch as answer.

Each stands as a function and, in PyTorch's manner, as a class whose instances are called.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import wichi.numpy as wnp
from wichi.errors import ShapeError
from wichi.trace.primitive import aval_of


def _same_shape(name: str, y: Any, y_hat: Any) -> None:
    """A target that broadcasts against the prediction is almost always a mistake, and its loss is silently wrong."""
    if np.shape(y) != np.shape(y_hat):
        raise ShapeError(f"{name}: the target has shape {np.shape(y)}, the prediction {np.shape(y_hat)}.",
                         fix="reshape one of them: y.reshape(y_hat.shape)")  # fmt: skip


def mean_squared_error(y: Any, y_hat: Any) -> Any:
    """``mean((y_hat - y)**2)`` over all elements.

    Args:
        y: targets, any shape.
        y_hat: predictions of the same shape.

    Raises:
        ShapeError: the shapes differ.

    >>> mean_squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    np.float64(2.0)
    """
    _same_shape("mean_squared_error", y, y_hat)
    return wnp.mean((y_hat - y) ** 2)


def cross_entropy(y: Any, logits: Any) -> Any:
    """The mean cross entropy of the softmax of ``logits`` against ``y``, without overflow.

    Args:
        y: targets: probabilities (one-hot labels) of shape ``(..., classes)``, or integer labels of shape ``(...)``.
        logits: unnormalised log-probabilities of shape ``(..., classes)``.

    Raises:
        ShapeError: the shapes do not fit.

    Differs from PyTorch in the order of the arguments: the target comes first, as in all losses here.

    >>> cross_entropy(np.array([0]), np.array([[0.0, 0.0]]))
    np.float64(0.6931471805599453)
    """
    if aval_of(y).dtype.kind in "iu":
        if np.shape(y) != np.shape(logits)[:-1]:
            raise ShapeError(f"cross_entropy: the labels have shape {np.shape(y)}, the logits {np.shape(logits)}.")
        chosen = wnp.take_along_axis(logits, wnp.expand_dims(y, -1), -1)[..., 0]
        return wnp.mean(wnp.logsumexp(logits, -1) - chosen)
    _same_shape("cross_entropy", y, logits)
    return wnp.mean(wnp.logsumexp(logits, -1) * wnp.sum(y, -1) - wnp.sum(y * logits, -1))


def binary_cross_entropy(y: Any, logits: Any) -> Any:
    """The mean binary cross entropy of ``sigmoid(logits)`` against ``y`` in [0, 1], without overflow.

    Raises:
        ShapeError: the shapes differ.

    >>> binary_cross_entropy(np.array([1.0]), np.array([0.0]))
    np.float64(0.6931471805599453)
    """
    _same_shape("binary_cross_entropy", y, logits)
    return wnp.mean(wnp.softplus(logits) - y * logits)


def accuracy(y: Any, logits: Any) -> Any:
    """The part of the rows of ``logits`` whose largest entry is where ``y`` (one-hot or labels) says.

    >>> accuracy(np.array([1, 0]), np.array([[0.1, 0.9], [0.2, 0.8]]))
    np.float64(0.5)
    """
    labels = y if aval_of(y).dtype.kind in "iu" else wnp.argmax(y, -1)
    return wnp.mean(wnp.argmax(logits, -1) == labels)


class MeanSquaredError:
    """``MeanSquaredError()(y, y_hat)`` is ``mean_squared_error(y, y_hat)``."""

    def __call__(self, y: Any, y_hat: Any) -> Any:
        return mean_squared_error(y, y_hat)


class CrossEntropy:
    """``CrossEntropy()(y, logits)`` is ``cross_entropy(y, logits)``."""

    def __call__(self, y: Any, logits: Any) -> Any:
        return cross_entropy(y, logits)


class BinaryCrossEntropy:
    """``BinaryCrossEntropy()(y, logits)`` is ``binary_cross_entropy(y, logits)``."""

    def __call__(self, y: Any, logits: Any) -> Any:
        return binary_cross_entropy(y, logits)

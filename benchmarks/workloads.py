"""The workloads: each a loss written once against a namespace ``xp`` (NumPy's, JAX's, autograd's, PyTorch's shim)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Workload:
    """``loss(xp, *arguments)``, differentiated in its first argument, a tree (list) of arrays or one array."""

    loss: Callable[..., Any]
    arguments: tuple[Any, ...]
    products: tuple[tuple[int, int, int], ...] = ()  # (m, k, n) of the matrix products a gradient cannot avoid


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def rosenbrock(n: int) -> Workload:
    def loss(xp: Any, x: Any) -> Any:
        return xp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    return Workload(loss, (_rng().standard_normal(n),))


def chain() -> Workload:
    def loss(xp: Any, x: Any) -> Any:
        for _ in range(20):
            x = xp.tanh(x * 1.1 + 0.1)
        return xp.sum(x)

    return Workload(loss, (_rng().standard_normal(8),))


def mlp(dims: list[int], batch: int, dtype: Any = np.float64) -> Workload:
    rng = _rng()
    params = [
        p.astype(dtype)
        for a, b in zip(dims[:-1], dims[1:], strict=True)  # noqa: RUF007
        for p in (rng.standard_normal((a, b)) * np.sqrt(2 / a), np.zeros(b))
    ]
    x = rng.standard_normal((batch, dims[0])).astype(dtype)
    y = np.eye(dims[-1], dtype=dtype)[rng.integers(0, dims[-1], batch)]

    def loss(xp: Any, params: Any, x: Any, y: Any) -> Any:
        for i in range(0, len(params), 2):
            x = x @ params[i] + params[i + 1]
            if i + 2 < len(params):
                x = xp.maximum(x, 0.0)
        top = xp.max(x, axis=1)[:, None]
        normaliser = xp.log(xp.sum(xp.exp(x - top), axis=1)) + top[:, 0]
        return xp.mean(normaliser - xp.sum(x * y, axis=1))

    products = []
    for i, (a, b) in enumerate(zip(dims[:-1], dims[1:], strict=True)):  # noqa: RUF007
        products += [(batch, a, b), (a, batch, b)] + ([(batch, b, a)] if i else [])
    return Workload(loss, (params, x, y), tuple(products))


def logistic_regression() -> Workload:
    rng = _rng()
    x, y = rng.standard_normal((100_000, 20)), (rng.random(100_000) < 0.5).astype(float)

    def loss(xp: Any, w: Any, x: Any, y: Any) -> Any:
        z = x @ w
        return xp.mean(xp.maximum(z, 0.0) - z * y + xp.log1p(xp.exp(-xp.abs(z))))

    return Workload(loss, (rng.standard_normal(20), x, y), ((100_000, 20, 1), (20, 100_000, 1)))


def gaussian_mixture(n: int, d: int, k: int) -> Workload:
    """ADBench's objective without the constants and the prior; precisions by full lower triangles."""
    rng = _rng()
    lower = np.tril(np.ones((d, d)), -1)

    def loss(xp: Any, params: Any, x: Any, lower: Any) -> Any:
        alphas, means, log_diagonal, rest = params
        eye = xp.exp(log_diagonal)
        difference = x[:, None, :] - means[None, :, :]  # n k d
        moved = eye[None] * difference + xp.einsum("kij,nkj->nki", rest * lower[None], difference)
        inner = alphas + xp.sum(log_diagonal, axis=1) - 0.5 * xp.sum(moved**2, axis=2)
        top = xp.max(inner, axis=1)[:, None]
        return xp.sum(xp.log(xp.sum(xp.exp(inner - top), axis=1)) + top[:, 0])

    params = [rng.standard_normal(k), rng.standard_normal((k, d)), rng.standard_normal((k, d)) * 0.1,
              rng.standard_normal((k, d, d)) * 0.1]  # fmt: skip
    return Workload(loss, (params, rng.standard_normal((n, d)), lower))


def poisson_fit() -> Workload:
    rng = _rng()
    t = np.linspace(0, 1, 100_000)
    counts = rng.poisson(20.0, 100_000).astype(float)

    def loss(xp: Any, p: Any, t: Any, counts: Any) -> Any:
        rate = xp.exp(p[0] + p[1] * t) + p[2] ** 2 * xp.exp(-0.5 * ((t - p[3]) / p[4]) ** 2)
        return xp.sum(rate - counts * xp.log(rate))

    return Workload(loss, (np.array([2.5, 0.5, 1.5, 0.4, 0.1]), t, counts))


def softmax_cross_entropy(batch: int, classes: int) -> Workload:
    rng = _rng()
    y = np.eye(classes)[rng.integers(0, classes, batch)]

    def loss(xp: Any, z: Any, y: Any) -> Any:
        top = xp.max(z, axis=1)[:, None]
        return xp.mean(xp.log(xp.sum(xp.exp(z - top), axis=1)) + top[:, 0] - xp.sum(z * y, axis=1))

    return Workload(loss, (rng.standard_normal((batch, classes)), y))


def pointwise(operations: int, dtype: Any) -> Workload:
    def loss(xp: Any, x: Any) -> Any:
        for i in range(operations // 5):
            x = xp.exp(-x * x) * 0.5 + x * (1.0 + 0.1 * i)
        return xp.sum(x)

    return Workload(loss, (_rng().standard_normal(1_000_000).astype(dtype),))


def attention() -> Workload:
    rng = _rng()
    batch, length, width = 8, 128, 64
    params = [rng.standard_normal((width, width)) / 8 for _ in range(4)] + [np.ones(width), np.zeros(width)]

    def loss(xp: Any, params: Any, x: Any) -> Any:
        wq, wk, wv, wo, gain, bias = params
        centred = x - xp.mean(x, axis=2)[:, :, None]
        normal = centred / xp.sqrt(xp.mean(centred**2, axis=2)[:, :, None] + 1e-5) * gain + bias
        q, k, v = normal @ wq, normal @ wk, normal @ wv
        scores = q @ xp.swapaxes(k, 1, 2) / 8.0
        weights = xp.exp(scores - xp.max(scores, axis=2)[:, :, None])
        weights = weights / xp.sum(weights, axis=2)[:, :, None]
        return xp.mean((x + weights @ v @ wo) ** 2)

    rows = batch * length
    flat = [(rows, width, width), (width, rows, width), (rows, width, width)] * 4
    each = [(length, width, length), (length, length, width)] * 3 * batch
    return Workload(loss, (params, rng.standard_normal((batch, length, width))), tuple(flat + each))


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "Rosenbrock n=10": lambda: rosenbrock(10),
    "Rosenbrock n=1000": lambda: rosenbrock(1000),
    "Rosenbrock n=10^6": lambda: rosenbrock(1_000_000),
    "60-op chain on 8 elements": chain,
    "two-moons MLP 2-16-16-2, batch 100": lambda: mlp([2, 16, 16, 2], 100),
    "MNIST MLP batch 32, f32": lambda: mlp([784, 200, 80, 40, 10], 32, np.float32),
    "MNIST MLP batch 512, f32": lambda: mlp([784, 200, 80, 40, 10], 512, np.float32),
    "logistic regression 10^5 x 20": logistic_regression,
    "Gaussian mixture 1000, 10, 25": lambda: gaussian_mixture(1000, 10, 25),
    "Poisson fit, 5 parameters, 10^5 bins": poisson_fit,
    "softmax cross entropy 1024 x 100": lambda: softmax_cross_entropy(1024, 100),
    "softmax cross entropy 1024 x 1000": lambda: softmax_cross_entropy(1024, 1000),
    "5 operations on 10^6, f64": lambda: pointwise(5, np.float64),
    "25 operations on 10^6, f64": lambda: pointwise(25, np.float64),
    "5 operations on 10^6, f32": lambda: pointwise(5, np.float32),
    "25 operations on 10^6, f32": lambda: pointwise(25, np.float32),
    "layer norm and attention 8 x 128 x 64": attention,
}

"""The workloads: each a loss written once against a namespace ``xp`` (NumPy's, JAX's, autograd's, PyTorch's shim)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# (m, k, n) of a matrix product, and which of its factors are stored transposed: "nn", "tn" or "nt".
Product = tuple[int, int, int, str]


@dataclass(frozen=True)
class Workload:
    """``loss(xp, *arguments)``, differentiated in its first argument, a tree (list) of arrays or one array.

    Attributes:
        family: under this name ``limits`` has value and gradient written by hand.
        products: the matrix products a gradient cannot avoid.
        settings: numbers that the loss is made of, beside its arguments.
        step: what is timed is a whole step of Adam in the first argument, not value and gradient.
    """

    family: str
    loss: Callable[..., Any]
    arguments: tuple[Any, ...]
    products: tuple[Product, ...] = ()
    settings: tuple[int, ...] = ()
    step: bool = False

    @property
    def leaves(self) -> list[np.ndarray]:
        """What is differentiated in."""
        first = self.arguments[0]
        return first if isinstance(first, list) else [first]

    @property
    def dtype(self) -> np.dtype:
        return self.leaves[0].dtype

    @property
    def bytes(self) -> int:
        """What any value and gradient moves at least: each argument read once, each gradient written once."""
        return 2 * sum(a.nbytes for a in self.leaves) + sum(a.nbytes for a in self.arguments[1:])


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def rosenbrock(n: int) -> Workload:
    def loss(xp: Any, x: Any) -> Any:
        return xp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    return Workload("rosenbrock", loss, (_rng().standard_normal(n),))


def chain(steps: int = 20) -> Workload:
    def loss(xp: Any, x: Any) -> Any:
        for _ in range(steps):
            x = xp.tanh(x * 1.1 + 0.1)
        return xp.sum(x)

    return Workload("chain", loss, (_rng().standard_normal(8),), settings=(steps,))


def _parameters(dims: list[int], dtype: Any) -> list[np.ndarray]:
    rng = _rng()
    return [
        p.astype(dtype)
        for a, b in itertools.pairwise(dims)
        for p in (rng.standard_normal((a, b)) * np.sqrt(2 / a), rng.standard_normal(b) * 0.1)
    ]


def _hidden(xp: Any, params: Any, x: Any) -> Any:
    """A perceptron up to its last sums."""
    for i in range(0, len(params), 2):
        x = x @ params[i] + params[i + 1]
        if i + 2 < len(params):
            x = xp.maximum(x, 0.0)
    return x


def _products(dims: list[int], batch: int) -> tuple[Product, ...]:
    found: list[Product] = []
    for i, (a, b) in enumerate(itertools.pairwise(dims)):
        found += [(batch, a, b, "nn"), (a, batch, b, "tn")] + ([(batch, b, a, "nt")] if i else [])
    return tuple(found)


def two_moons(batch: int = 100) -> Workload:
    """A small perceptron with one output and the loss of a logistic regression."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, batch).astype(float)
    angle = np.pi * rng.random(batch)
    moons = np.stack([np.cos(angle) + y, np.sin(angle) * (1 - 2 * y) + 0.5 * y], axis=1)
    x = moons + 0.1 * rng.standard_normal((batch, 2))

    def loss(xp: Any, params: Any, x: Any, y: Any) -> Any:
        z = _hidden(xp, params, x)[:, 0]
        return xp.mean(xp.maximum(z, 0.0) - z * y + xp.log1p(xp.exp(-xp.abs(z))))

    dims = [2, 16, 16, 1]
    return Workload("two moons", loss, (_parameters(dims, np.float64), x, y), _products(dims, batch))


def mlp(dims: list[int], batch: int, dtype: Any = np.float64, step: bool = False) -> Workload:
    """A classifier by softmax, as the founding network's."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch, dims[0])).astype(dtype)
    y = np.eye(dims[-1], dtype=dtype)[rng.integers(0, dims[-1], batch)]

    def loss(xp: Any, params: Any, x: Any, y: Any) -> Any:
        x = _hidden(xp, params, x)
        top = xp.max(x, axis=1)[:, None]
        normaliser = xp.log(xp.sum(xp.exp(x - top), axis=1)) + top[:, 0]
        return xp.mean(normaliser - xp.sum(x * y, axis=1))

    return Workload("mlp", loss, (_parameters(dims, dtype), x, y), _products(dims, batch), step=step)


def logistic_regression(n: int = 100_000) -> Workload:
    rng = _rng()
    x, y = rng.standard_normal((n, 20)), (rng.random(n) < 0.5).astype(float)

    def loss(xp: Any, w: Any, x: Any, y: Any) -> Any:
        z = x @ w
        return xp.mean(xp.maximum(z, 0.0) - z * y + xp.log1p(xp.exp(-xp.abs(z))))

    return Workload("logistic", loss, (rng.standard_normal(20), x, y), ((n, 20, 1, "nn"), (20, n, 1, "tn")))


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
    return Workload("mixture", loss, (params, rng.standard_normal((n, d)), lower))


def poisson_fit(bins: int = 100_000) -> Workload:
    rng = _rng()
    t = np.linspace(0, 1, bins)
    counts = rng.poisson(20.0, bins).astype(float)

    def loss(xp: Any, p: Any, t: Any, counts: Any) -> Any:
        rate = xp.exp(p[0] + p[1] * t) + p[2] ** 2 * xp.exp(-0.5 * ((t - p[3]) / p[4]) ** 2)
        return xp.sum(rate - counts * xp.log(rate))

    return Workload("poisson", loss, (np.array([2.5, 0.5, 1.5, 0.4, 0.1]), t, counts))


def softmax_cross_entropy(batch: int, classes: int) -> Workload:
    rng = _rng()
    y = np.eye(classes)[rng.integers(0, classes, batch)]

    def loss(xp: Any, z: Any, y: Any) -> Any:
        top = xp.max(z, axis=1)[:, None]
        return xp.mean(xp.log(xp.sum(xp.exp(z - top), axis=1)) + top[:, 0] - xp.sum(z * y, axis=1))

    return Workload("softmax", loss, (rng.standard_normal((batch, classes)), y))


def pointwise(operations: int, dtype: Any, n: int = 1_000_000) -> Workload:
    def loss(xp: Any, x: Any) -> Any:
        for i in range(operations // 5):
            x = xp.exp(-x * x) * 0.5 + x * (1.0 + 0.1 * i)
        return xp.sum(x)

    x = _rng().standard_normal(n).astype(dtype)
    return Workload("pointwise", loss, (x,), settings=(operations,))


def attention(batch: int = 8, length: int = 128, width: int = 64) -> Workload:
    rng = _rng()
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
    flat = [(rows, width, width, "nn"), (width, rows, width, "tn"), (rows, width, width, "nt")] * 4
    inward, outward = (length, width, length), (length, length, width)
    each = [(*inward, "nt"), (*outward, "nn"), (*inward, "nt"), (*outward, "tn"), (*outward, "nn"), (*outward, "tn")]
    x = rng.standard_normal((batch, length, width))
    return Workload("attention", loss, (params, x), tuple(flat + each * batch))


_MNIST = [784, 200, 80, 40, 10]
WORKLOADS: dict[str, Callable[[], Workload]] = {
    "Rosenbrock n=10": lambda: rosenbrock(10),
    "Rosenbrock n=1000": lambda: rosenbrock(1000),
    "Rosenbrock n=10^6": lambda: rosenbrock(1_000_000),
    "60-op chain on 8 elements": chain,
    "two-moons MLP 2-16-16-1, batch 100": two_moons,
    "MNIST MLP batch 32": lambda: mlp(_MNIST, 32, np.float32),
    "MNIST MLP batch 512": lambda: mlp(_MNIST, 512, np.float32),
    "Adam step of MNIST MLP, batch 32": lambda: mlp(_MNIST, 32, np.float32, step=True),
    "Adam step of MNIST MLP, batch 512": lambda: mlp(_MNIST, 512, np.float32, step=True),
    "logistic regression 10^5 x 20": logistic_regression,
    "Gaussian mixture 1000, 10, 25": lambda: gaussian_mixture(1000, 10, 25),
    "Gaussian mixture 10^4, 20, 50": lambda: gaussian_mixture(10_000, 20, 50),
    "Poisson fit, 5 parameters, 10^5 bins": poisson_fit,
    "softmax cross entropy 1024 x 100": lambda: softmax_cross_entropy(1024, 100),
    "softmax cross entropy 1024 x 1000": lambda: softmax_cross_entropy(1024, 1000),
    "5 operations on 10^6, f64": lambda: pointwise(5, np.float64),
    "25 operations on 10^6, f64": lambda: pointwise(25, np.float64),
    "5 operations on 10^6, f32": lambda: pointwise(5, np.float32),
    "25 operations on 10^6, f32": lambda: pointwise(25, np.float32),
    "layer norm and attention 8 x 128 x 64": attention,
}

# The same families, small: what the tests run.
SMALL: dict[str, Callable[[], Workload]] = {
    "rosenbrock": lambda: rosenbrock(37),
    "rosenbrock of two": lambda: rosenbrock(2),
    "chain": chain,
    "two moons": lambda: two_moons(21),
    "mlp": lambda: mlp([12, 7, 5, 3], 11, np.float32),
    "step": lambda: mlp([12, 7, 5, 3], 11, np.float32, step=True),
    "logistic": lambda: logistic_regression(301),
    "mixture": lambda: gaussian_mixture(150, 5, 3),
    "poisson": lambda: poisson_fit(333),
    "softmax": lambda: softmax_cross_entropy(9, 13),
    "5 operations": lambda: pointwise(5, np.float64, 101),
    "25 operations, f32": lambda: pointwise(25, np.float32, 101),
    "attention": lambda: attention(2, 5, 6),
}

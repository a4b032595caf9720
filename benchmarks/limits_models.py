"""Value and gradient by hand of the workloads with matrix products: see ``limits``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from benchmarks.products import dot
from benchmarks.training import BETA1, BETA2, EPSILON, RATE, restarting
from benchmarks.vectors import FAST, exp, larger, log, wide
from benchmarks.workloads import Workload

Run = Callable[[], Any]
_compiled = njit(fastmath=FAST, error_model="numpy")


# --- perceptrons -----------------------------------------------------------------------------------------------------
@_compiled
def _activate(x: Any, bias: Any) -> None:
    """Bias and rectifier, in place."""
    wide()
    zero = bias[0] * 0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] = max(x[i, j] + bias[j], zero)


@_compiled
def _gradient_of_sums(g: Any, x: Any, bias: Any) -> None:
    """What the rectifier lets through, in place, and its sum: the gradient of the bias."""
    wide()
    bias[:] = 0
    zero = bias[0]
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            passed = g[i, j] if x[i, j] > zero else zero
            g[i, j] = passed
            bias[j] += passed


@_compiled
def _loss(z: Any, last: Any, y: Any, g: Any, bias: Any) -> Any:
    """Softmax cross entropy of z + last; its gradient and that of the bias."""
    wide()
    n, classes = z.shape
    value = z[0, 0] * 0
    share = 1 / z.dtype.type(n)
    bias[:] = 0
    for i in range(n):
        top = z[i, 0] + last[0]
        hit = total = z[0, 0] * 0
        for j in range(classes):
            z[i, j] += last[j]
            top = larger(top, z[i, j])
        for j in range(classes):
            hit += z[i, j] * y[i, j]
            e = exp(z[i, j] - top)
            total += e
            g[i, j] = e
        value += np.log(total) + top - hit
        inverse = share / total
        for j in range(classes):
            g[i, j] = g[i, j] * inverse - y[i, j] * share
            bias[j] += g[i, j]
    return value * share


@njit
def _mlp(weights: Any, biases: Any, layers: Any, y: Any, slopes: Any, of_weights: Any, of_biases: Any) -> Any:
    """``layers`` begins with the input; ``slopes`` are the gradients of the others."""
    last = len(weights) - 1
    for i in range(last):
        dot(layers[i], weights[i], layers[i + 1])
        _activate(layers[i + 1], biases[i])
    dot(layers[last], weights[last], layers[last + 1])
    value = _loss(layers[last + 1], biases[last], y, slopes[last], of_biases[last])
    for i in range(last, 0, -1):
        dot(layers[i].T, slopes[i], of_weights[i])
        dot(slopes[i], weights[i].T, slopes[i - 1])
        _gradient_of_sums(slopes[i - 1], layers[i], of_biases[i - 1])
    dot(layers[0].T, slopes[0], of_weights[0])
    return value


def _buffers(params: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> tuple[tuple[Any, ...], list[np.ndarray]]:
    """What ``_mlp`` takes after weights and biases, and the gradient in the order of ``params``."""
    slopes = tuple(np.empty((len(x), w.shape[1]), w.dtype) for w in params[::2])
    gradient = [np.empty_like(p) for p in params]
    layers = (x, *(np.empty_like(s) for s in slopes))
    return (layers, y, slopes, tuple(gradient[::2]), tuple(gradient[1::2])), gradient


def mlp(w: Workload) -> Run:
    params, x, y = w.arguments
    rest, gradient = _buffers(params, x, y)
    weights, biases = tuple(params[::2]), tuple(params[1::2])
    return lambda: (_mlp(weights, biases, *rest), gradient)


@_compiled
def _adam(params: Any, m: Any, v: Any, gradient: Any, settings: Any) -> None:
    """All arrays flat, in place; ``settings``: see ``mlp_step``."""
    keep1, new1, keep2, new2, rate, of_v, epsilon = settings
    for k in range(len(params)):
        _adam_of_one(params[k], m[k], v[k], gradient[k], keep1, new1, keep2, new2, rate, of_v, epsilon)


@_compiled
def _adam_of_one(
    p: Any, m: Any, v: Any, g: Any, keep1: Any, new1: Any, keep2: Any, new2: Any, rate: Any, of_v: Any, epsilon: Any
) -> None:
    wide()
    for i in range(len(p)):
        first, second = keep1 * m[i] + new1 * g[i], keep2 * v[i] + new2 * g[i] * g[i]
        m[i], v[i] = first, second
        p[i] -= rate * first / (np.sqrt(second * of_v) + epsilon)


def mlp_step(w: Workload) -> Run:
    start, x, y = w.arguments
    state = [[np.copy(p) for p in start], [np.zeros_like(p) for p in start], [np.zeros_like(p) for p in start]]
    params = state[0]
    rest, gradient = _buffers(params, x, y)
    weights, biases = tuple(params[::2]), tuple(params[1::2])
    flat = [tuple(a.reshape(-1) for a in arrays) for arrays in (*state, gradient)]

    def begin() -> int:
        for p, m, v, before in zip(*state, start, strict=True):
            p[...], m[...], v[...] = before, 0, 0
        return 0

    def step(count: int) -> tuple[Any, int]:
        value = _mlp(weights, biases, *rest)
        rate, of_v = RATE / (1 - BETA1 ** (count + 1)), 1 / (1 - BETA2 ** (count + 1))
        settings = (BETA1, 1 - BETA1, BETA2, 1 - BETA2, rate, of_v, EPSILON)
        _adam(*flat, tuple(w.dtype.type(number) for number in settings))
        return value, count + 1

    return restarting(begin, step, lambda count: [a for arrays in state for a in arrays])


# --- the small perceptron --------------------------------------------------------------------------------------------
_WIDTH = 16  # of both hidden layers: known when it is compiled, so that loops over it lie open


@_compiled
def _two_moons(
    w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any, x: Any, y: Any,
    gw1: Any, gb1: Any, gw2: Any, gb2: Any, gw3: Any, gb3: Any, first: Any, second: Any, back: Any, turned: Any,
) -> Any:  # fmt: skip
    """The batch lies along the vectors; buffers are wider than it by zeros, up to whole vectors."""
    wide()
    n, padded = len(x), turned.shape[1]
    for i in range(n):
        turned[0, i], turned[1, i], turned[2, i] = x[i, 0], x[i, 1], y[i]
    for j in range(_WIDTH):
        for i in range(padded):
            first[j, i] = max(b1[j] + w1[0, j] * turned[0, i] + w1[1, j] * turned[1, i], 0.0)
    for j in range(_WIDTH):
        for i in range(padded):
            total = b2[j]
            for k in range(_WIDTH):
                total += w2[k, j] * first[k, i]
            second[j, i] = max(total, 0.0)
    value = total_slope = 0.0
    slope = back[_WIDTH]
    for i in range(padded):
        z = b3[0]
        for k in range(_WIDTH):
            z += w3[k, 0] * second[k, i]
        e = exp(-abs(z))
        inverse = 1.0 / (1.0 + e)
        real = 1.0 if i < n else 0.0
        value += real * (max(z, 0.0) - z * turned[2, i] + log(1.0 + e))
        s = real * ((inverse if z > 0.0 else e * inverse) - turned[2, i]) / n
        slope[i] = s
        total_slope += s
    gb3[0] = total_slope
    for j in range(_WIDTH):
        product = bias = 0.0
        for i in range(padded):
            product += second[j, i] * slope[i]
            passed = w3[j, 0] * slope[i] if second[j, i] > 0.0 else 0.0
            back[j, i] = passed
            bias += passed
        gw3[j, 0], gb2[j] = product, bias
    for j in range(0, _WIDTH, 4):
        for k in range(0, _WIDTH, 2):
            p00 = p01 = p02 = p03 = p10 = p11 = p12 = p13 = 0.0
            for i in range(padded):
                f0, f1 = first[k, i], first[k + 1, i]
                s0, s1, s2, s3 = back[j, i], back[j + 1, i], back[j + 2, i], back[j + 3, i]
                p00 += f0 * s0
                p01 += f0 * s1
                p02 += f0 * s2
                p03 += f0 * s3
                p10 += f1 * s0
                p11 += f1 * s1
                p12 += f1 * s2
                p13 += f1 * s3
            gw2[k, j], gw2[k, j + 1], gw2[k, j + 2], gw2[k, j + 3] = p00, p01, p02, p03
            gw2[k + 1, j], gw2[k + 1, j + 1], gw2[k + 1, j + 2], gw2[k + 1, j + 3] = p10, p11, p12, p13
    for j in range(_WIDTH):
        bias = left = right = 0.0
        for i in range(padded):
            total = 0.0
            for k in range(_WIDTH):
                total += w2[j, k] * back[k, i]
            passed = total if first[j, i] > 0.0 else 0.0
            bias += passed
            left += passed * turned[0, i]
            right += passed * turned[1, i]
        gb1[j], gw1[0, j], gw1[1, j] = bias, left, right
    return value / n


def two_moons(w: Workload) -> Run:
    params, x, y = w.arguments
    gradient = [np.empty_like(p) for p in params]
    padded = -(-len(x) // 8) * 8
    buffers = [np.zeros((rows, padded)) for rows in (_WIDTH, _WIDTH, _WIDTH + 1, 3)]
    arrays = (*params, x, y, *gradient, *buffers)
    return lambda: (_two_moons(*arrays), gradient)


# --- attention -------------------------------------------------------------------------------------------------------
@_compiled
def _normalise(x: Any, gain: Any, bias: Any, normal: Any, scaled: Any) -> None:
    wide()
    n, width = x.shape
    for i in range(n):
        mean = square = 0.0
        for j in range(width):
            mean += x[i, j]
        mean /= width
        for j in range(width):
            square += (x[i, j] - mean) ** 2
        inverse = 1.0 / np.sqrt(square / width + 1e-5)
        for j in range(width):
            normal[i, j] = (x[i, j] - mean) * inverse
            scaled[i, j] = normal[i, j] * gain[j] + bias[j]


@_compiled
def _weights(scores: Any) -> None:
    """Softmax of each row of scores / 8, in place."""
    wide()
    n, m = scores.shape
    for i in range(n):
        top = scores[i, 0]
        for j in range(m):
            top = larger(top, scores[i, j])
        total = 0.0
        for j in range(m):
            scores[i, j] = exp((scores[i, j] - top) * 0.125)
            total += scores[i, j]
        inverse = 1.0 / total
        for j in range(m):
            scores[i, j] *= inverse


@_compiled
def _slope_of_scores(weights: Any, slope: Any, mixed: Any, of_mixed: Any) -> None:
    """The gradient of the products q k^T, from that of the weights, in place."""
    wide()
    n, m = weights.shape
    for i in range(n):
        total = 0.0
        for j in range(mixed.shape[1]):
            total += mixed[i, j] * of_mixed[i, j]
        for j in range(m):
            slope[i, j] = 0.125 * weights[i, j] * (slope[i, j] - total)


@_compiled
def _residual(x: Any, y: Any) -> Any:
    """The mean of (x + y)**2, and its gradient in place of y."""
    wide()
    value, factor = 0.0, 2.0 / x.size
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            r = x[i, j] + y[i, j]
            value += r * r
            y[i, j] = factor * r
    return value / x.size


@_compiled
def _gain_and_bias(a: Any, b: Any, c: Any, normal: Any, gain: Any, bias: Any) -> None:
    wide()
    gain[:] = 0.0
    bias[:] = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            slope = a[i, j] + b[i, j] + c[i, j]
            gain[j] += slope * normal[i, j]
            bias[j] += slope


@njit
def _attention(params: Any, x: Any, gradient: Any, rows: Any, weights: Any, slope: Any, length: int) -> Any:
    (wq, wk, wv, wo, gain, bias), (gq, gk, gv, go, of_gain, of_bias) = params, gradient
    normal, scaled, q, k, v, mixed, y, dq, dk, dv, of_mixed = rows
    _normalise(x, gain, bias, normal, scaled)
    dot(scaled, wq, q)
    dot(scaled, wk, k)
    dot(scaled, wv, v)
    for b in range(len(weights)):
        part = slice(b * length, (b + 1) * length)
        dot(q[part], k[part].T, weights[b])
        _weights(weights[b])
        dot(weights[b], v[part], mixed[part])
    dot(mixed, wo, y)
    value = _residual(x, y)
    dot(mixed.T, y, go)
    dot(y, wo.T, of_mixed)
    for b in range(len(weights)):
        part = slice(b * length, (b + 1) * length)
        dot(of_mixed[part], v[part].T, slope)
        dot(weights[b].T, of_mixed[part], dv[part])
        _slope_of_scores(weights[b], slope, mixed[part], of_mixed[part])
        dot(slope, k[part], dq[part])
        dot(slope.T, q[part], dk[part])
    dot(scaled.T, dq, gq)
    dot(scaled.T, dk, gk)
    dot(scaled.T, dv, gv)
    dot(dq, wq.T, q)
    dot(dk, wk.T, k)
    dot(dv, wv.T, v)
    _gain_and_bias(q, k, v, normal, of_gain, of_bias)
    return value


def attention(w: Workload) -> Run:
    params, x = w.arguments
    batch, length, width = x.shape
    gradient = [np.empty_like(p) for p in params]
    rows = tuple(np.empty((batch * length, width)) for _ in range(11))
    weights, slope = np.empty((batch, length, length)), np.empty((length, length))
    arguments = (tuple(params), x.reshape(-1, width), tuple(gradient), rows, weights, slope, length)
    return lambda: (_attention(*arguments), gradient)

"""A whole step of Adam: parameters and both averages are the contestants' own state, changed or given away each call.

Every hundred calls all begin anew from the same weights: a network trained for long enough to fit its batch has
gradients so small that what is timed is the arithmetic of subnormal numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import wichi
from benchmarks.workloads import Workload

Run = Callable[[], Any]
RATE, BETA1, BETA2 = 1e-3, 0.9, 0.999
EPSILON = 1e-6  # large enough that the sign of a gradient of pure rounding decides nothing
_CALLS = 100


def restarting(begin: Callable[[], Any], step: Callable[[Any], tuple[Any, Any]], leaves: Callable[[Any], Any]) -> Run:
    """A run that steps from state to state; it answers the loss and a function that lists the state's arrays."""
    state, calls = begin(), 0

    def run() -> Any:
        nonlocal state, calls
        if calls == _CALLS:
            state, calls = begin(), 0
        value, state = step(state)
        calls += 1
        return value, functools.partial(leaves, state)

    return run


def by_wichi(w: Workload) -> Run:
    start, *data = w.arguments
    optimizer = wichi.optim.adam(RATE, BETA1, BETA2, EPSILON)
    slope = wichi.value_and_grad(functools.partial(w.loss, np))

    def whole(params: Any, state: Any, *data: Any) -> Any:
        value, gradient = slope(params, *data)
        return value, optimizer.update(gradient, state, params)

    jitted = wichi.jit(whole, donate_argnums=(0, 1))

    def begin() -> Any:
        params = [p.copy() for p in start]
        return params, optimizer.init(params)

    return restarting(begin, lambda state: jitted(*state, *data), lambda state: [*state[0], *_both(state[1].averages)])


def _both(averages: Any) -> list[Any]:
    return [a for tree in averages for a in tree]


def by_jax(w: Workload) -> Run:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    start, *data = w.arguments
    data = [jnp.asarray(a) for a in data]
    slope = jax.value_and_grad(functools.partial(w.loss, jnp))

    def whole(state: Any, *data: Any) -> Any:
        params, m, v, count = state
        value, gradient = slope(params, *data)
        count = count + 1
        m = [BETA1 * a + (1 - BETA1) * g for a, g in zip(m, gradient, strict=True)]
        v = [BETA2 * a + (1 - BETA2) * g * g for a, g in zip(v, gradient, strict=True)]
        rate, of_v = RATE / (1 - BETA1**count), 1 / (1 - BETA2**count)
        params = [
            p - rate.astype(p.dtype) * a / (jnp.sqrt(b * of_v.astype(p.dtype)) + EPSILON)
            for p, a, b in zip(params, m, v, strict=True)
        ]
        return value, (params, m, v, count)

    jitted = jax.jit(whole, donate_argnums=0)

    def begin() -> Any:
        zeros = [[jnp.zeros(p.shape, p.dtype) for p in start] for _ in range(2)]
        return [jnp.array(p) for p in start], *zeros, jnp.zeros((), np.float64)

    return restarting(
        begin, lambda state: jax.block_until_ready(jitted(state, *data)), lambda state: [*state[0], *_both(state[1:3])]
    )


def by_torch(w: Workload, namespace: Any, compiled: Callable[[Any], Any]) -> Run:
    """Its fused Adam. ``compiled`` is applied to the loss."""
    import torch

    start, *data = w.arguments
    data = [torch.tensor(a) for a in data]
    loss = compiled(functools.partial(w.loss, namespace))

    def begin() -> Any:
        params = [torch.tensor(p, requires_grad=True) for p in start]
        return params, torch.optim.Adam(params, RATE, (BETA1, BETA2), EPSILON, fused=True)

    def step(state: Any) -> Any:
        params, optimizer = state
        optimizer.zero_grad()
        value = loss(params, *data)
        value.backward()
        optimizer.step()
        return value, state

    def leaves(state: Any) -> Any:
        params, optimizer = state
        return [*params, *(optimizer.state[p][k] for k in ("exp_avg", "exp_avg_sq") for p in params)]

    return restarting(begin, step, leaves)


def by_autograd(w: Workload) -> Run:
    """Its gradient; Adam in NumPy, as its own ``autograd.misc.optimizers`` has it, and in place."""
    import autograd
    import autograd.numpy as anp

    start, *data = w.arguments
    slope = autograd.value_and_grad(functools.partial(w.loss, anp))

    def begin() -> Any:
        return [p.copy() for p in start], [np.zeros_like(p) for p in start], [np.zeros_like(p) for p in start], 0

    def step(state: Any) -> Any:
        params, m, v, count = state
        value, gradient = slope(params, *data)
        rate, of_v = RATE / (1 - BETA1 ** (count + 1)), 1 / (1 - BETA2 ** (count + 1))
        for p, a, b, g in zip(params, m, v, gradient, strict=True):
            a += (1 - BETA1) * (g - a)
            b += (1 - BETA2) * (g * g - b)
            p -= rate * a / (np.sqrt(of_v * b) + EPSILON)
        return value, (params, m, v, count + 1)

    return restarting(begin, step, lambda state: [*state[0], *_both(state[1:3])])

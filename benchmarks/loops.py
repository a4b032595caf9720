"""Loops, Hessians and batches of small problems, by wichi and JAX (and SciPy or PyTorch where they say it).

    make bench ROWS=loops

As in ``compare``: one process pinned to one core, taking turns, answers compared before anything is timed. Prints a
table and writes ``out/loops.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import wichi
from benchmarks.compare import best_of, duration, pin, processor

Run = Callable[[], Any]
Row = dict[str, Run]


def _jax() -> tuple[Any, Any]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    return jax, jnp


def lorenz() -> Row:
    """10,000 steps of RK4; the gradient in the initial state and three parameters, and wichi's forward pass alone."""
    jax, jnp = _jax()

    def loss(xp: Any, scan: Any, s: Any, p: Any) -> Any:
        def field(s: Any) -> Any:
            return xp.stack([p[0] * (s[1] - s[0]), s[0] * (p[1] - s[2]) - s[1], s[0] * s[1] - p[2] * s[2]])

        def step(s: Any, _: Any) -> Any:
            h = 0.001
            k1 = field(s)
            k2 = field(s + h / 2 * k1)
            k3 = field(s + h / 2 * k2)
            k4 = field(s + h * k3)
            return s + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), s

        return xp.mean(scan(step, s, None, 10_000)[1] ** 2)

    s, p = np.ones(3), np.array([10.0, 28.0, 8 / 3])
    ours = wichi.value_and_grad(lambda s, p: loss(np, wichi.scan, s, p), argnums=(0, 1))
    forward = wichi.jit(lambda s, p: loss(np, wichi.scan, s, p))
    theirs = jax.jit(jax.value_and_grad(lambda s, p: loss(jnp, jax.lax.scan, s, p), argnums=(0, 1)))
    return {
        "wichi": lambda: ours(s, p),
        "JAX": lambda: jax.block_until_ready(theirs(s, p)),
        "wichi, forward alone": lambda: forward(s, p),
    }


def rnn() -> Row:
    """Batch 1, hidden 8, 1,000 steps."""
    jax, jnp = _jax()
    rng = np.random.default_rng(0)
    arguments = (rng.normal(size=(8, 8)) * 0.4, rng.normal(size=(8, 8)) * 0.4, rng.normal(size=(1000, 1, 8)))

    def loss(xp: Any, scan: Any, w: Any, u: Any, xs: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = xp.tanh(h @ w + x @ u)
            return h, h

        return xp.mean(scan(step, np.zeros((1, 8)), xs)[1] ** 2)

    ours = wichi.value_and_grad(lambda *a: loss(np, wichi.scan, *a), argnums=(0, 1))
    theirs = jax.jit(jax.value_and_grad(lambda *a: loss(jnp, jax.lax.scan, *a), argnums=(0, 1)))
    return {"wichi": lambda: ours(*arguments), "JAX": lambda: jax.block_until_ready(theirs(*arguments))}


def lstm() -> Row:
    """Batch 32, hidden 64, 100 steps, float64; PyTorch runs its cell step by step."""
    jax, jnp = _jax()
    rng = np.random.default_rng(0)
    arguments = (rng.normal(size=(128, 256)) * 0.1, rng.normal(size=256) * 0.1, rng.normal(size=(100, 32, 64)))

    def cell(xp: Any, join: Any, w: Any, b: Any, state: Any, x: Any) -> Any:
        h, c = state
        z = join([x, h], 1) @ w + b
        i, f, g, o = z[:, :64], z[:, 64:128], z[:, 128:192], z[:, 192:]

        def gate(v: Any) -> Any:
            return 1 / (1 + xp.exp(-v))

        c = gate(f) * c + gate(i) * xp.tanh(g)
        return gate(o) * xp.tanh(c), c

    def loss(xp: Any, scan: Any, w: Any, b: Any, xs: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            state = cell(xp, xp.concatenate, w, b, state, x)
            return state, state[0]

        return xp.mean(scan(step, (np.zeros((32, 64)), np.zeros((32, 64))), xs)[1] ** 2)

    ours = wichi.value_and_grad(lambda *a: loss(np, wichi.scan, *a), argnums=(0, 1))
    theirs = jax.jit(jax.value_and_grad(lambda *a: loss(jnp, jax.lax.scan, *a), argnums=(0, 1)))
    row = {"wichi": lambda: ours(*arguments), "JAX": lambda: jax.block_until_ready(theirs(*arguments))}
    try:
        import torch
    except ImportError:
        return row
    torch.set_num_threads(1)
    w, b, xs = (torch.tensor(a) for a in arguments)
    w.requires_grad_(True)
    b.requires_grad_(True)

    def by_torch() -> Any:
        state = (torch.zeros(32, 64, dtype=torch.float64), torch.zeros(32, 64, dtype=torch.float64))
        hs = []
        for x in xs:
            state = cell(torch, torch.cat, w, b, state, x)
            hs.append(state[0])
        value = torch.mean(torch.stack(hs) ** 2)
        return value.detach().numpy(), [g.numpy() for g in torch.autograd.grad(value, (w, b))]

    return {**row, "PyTorch": by_torch}


def newton() -> Row:
    """Newton's method on 3 unknowns to 1e-12; JAX has no reverse mode here and takes its forward mode."""
    jax, jnp = _jax()

    def root(xp: Any, loop: Any, a: Any) -> Any:
        def f(x: Any) -> Any:
            return xp.stack([x[0] ** 2 + x[1] - a[0], x[1] ** 2 + x[2] - a[1], x[2] ** 2 + x[0] - a[2]])

        def det(m: Any) -> Any:
            (p, q, r), (s, t, u), (v, w, z) = m
            return p * (t * z - u * w) - q * (s * z - u * v) + r * (s * w - t * v)

        def step(x: Any) -> Any:
            zero, one, y = 0.0 * x[0], 0.0 * x[0] + 1.0, f(x)
            m = [[2 * x[0], one, zero], [zero, 2 * x[1], one], [one, zero, 2 * x[2]]]
            d = det(m)
            change = [det([[y[i] if j == k else m[i][j] for j in range(3)] for i in range(3)]) / d for k in range(3)]
            return x - xp.stack(change)

        return xp.sum(loop(lambda x: xp.sum(f(x) ** 2) > 1e-24, step, 1.5 + 0.0 * a))

    a = np.array([3.0, 4.0, 5.0])
    ours = wichi.value_and_grad(lambda a: root(np, wichi.while_loop, a))
    value = lambda a: root(jnp, jax.lax.while_loop, a)  # noqa: E731
    theirs = jax.jit(lambda a: (value(a), jax.jacfwd(value)(a)))
    return {"wichi": lambda: ours(a), "JAX": lambda: jax.block_until_ready(theirs(a))}


def logistic_hessian() -> Row:
    """The Hessian of logistic regression, 30 parameters, 10,000 rows."""
    jax, jnp = _jax()
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(10_000, 30)), (rng.random(10_000) > 0.5) * 1.0, rng.normal(size=30) * 0.1
    ours = wichi.hessian(lambda w: np.mean(np.logaddexp(0.0, x @ w) - y * (x @ w)))
    theirs = jax.jit(jax.hessian(lambda w: jnp.mean(jnp.logaddexp(0.0, x @ w) - y * (x @ w))))
    return {"wichi": lambda: ours(w), "JAX": lambda: jax.block_until_ready(theirs(w))}


def gradients_of_fits() -> Row:
    """vmap of the gradient of a 4-parameter fit with 32 points, over 100,000 of them."""
    jax, jnp = _jax()
    rng = np.random.default_rng(0)
    t, p, y = np.linspace(0, 4, 32), np.abs(rng.normal(size=(100_000, 4))) + 0.1, rng.normal(size=(100_000, 32))

    def loss(xp: Any, p: Any, y: Any) -> Any:
        return xp.sum((p[0] * xp.exp(-p[1] * t) + p[2] + p[3] * t - y) ** 2)

    ours = wichi.jit(wichi.vmap(wichi.grad(lambda p, y: loss(np, p, y))))
    theirs = jax.jit(jax.vmap(jax.grad(lambda p, y: loss(jnp, p, y))))
    return {"wichi": lambda: ours(p, y), "JAX": lambda: jax.block_until_ready(theirs(p, y))}


def fits() -> Row:
    """100,000 fits of 4 parameters to 32 points, by Levenberg and Marquardt; SciPy does 200 of them, times 500."""
    import scipy.optimize

    rng = np.random.default_rng(0)
    n, t = 100_000, np.linspace(0, 4, 32)
    truth = np.stack(
        [rng.uniform(1, 3, n), rng.uniform(0.5, 2, n), rng.uniform(-1, 1, n), rng.uniform(-0.2, 0.2, n)], 1
    )
    y = truth[:, :1] * np.exp(-truth[:, 1:2] * t) + truth[:, 2:3] + truth[:, 3:] * t + 0.01 * rng.normal(size=(n, 32))
    start = np.ones((n, 4))

    def residual(p: Any, y: Any) -> Any:
        return p[0] * np.exp(-p[1] * t) + p[2] + p[3] * t - y

    def by_scipy() -> None:
        for i in range(200):
            scipy.optimize.least_squares(residual, start[i], args=(y[i],), method="lm")

    return {
        "wichi": lambda: wichi.fit.least_squares_batch(residual, start, y).cost,
        "SciPy (200 of them)": by_scipy,
    }


def mixture_products() -> Row:
    """A Hessian times a vector, beside the gradient alone: a Gaussian mixture of 25 in 10 dimensions, 1,000 points."""
    import functools

    from benchmarks.workloads import WORKLOADS

    w = next(make() for name, make in WORKLOADS.items() if name.startswith("Gaussian mixture"))
    loss, (first, *rest) = functools.partial(w.loss, np), w.arguments
    gradient = wichi.grad(loss)
    product = wichi.jit(lambda p, t, *r: wichi.hvp(lambda q: loss(q, *r), (p,), (t,)))
    return {"wichi": lambda: product(first, first, *rest), "wichi, gradient alone": lambda: gradient(first, *rest)}


ROWS: dict[str, Callable[[], Row]] = {
    "Lorenz, RK4, 10,000 steps: gradient": lorenz,
    "RNN, batch 1, hidden 8, 1,000 steps": rnn,
    "LSTM, batch 32, hidden 64, 100 steps": lstm,
    "Newton in while_loop, 3 unknowns": newton,
    "Hessian, logistic regression 10⁴ × 30": logistic_hessian,
    "hvp of a Gaussian mixture": mixture_products,
    "vmap(grad(fit)), 10⁵ × 4 parameters": gradients_of_fits,
    "10⁵ fits, 4 parameters, 32 points": fits,
}


def _check(name: str, row: Row) -> None:
    """What answers alike must be alike."""
    answers = {who: _leaves(run()) for who, run in row.items() if who in ("wichi", "JAX", "PyTorch")}
    first = answers["wichi"]
    for who, other in answers.items():
        for a, b in zip(first, other, strict=True):
            scale = np.max(np.abs(a), initial=1e-30)
            np.testing.assert_allclose(b / scale, a / scale, atol=1e-6, err_msg=f"{name}: {who}")


def _leaves(x: Any) -> list[Any]:
    if isinstance(x, tuple | list):
        return [leaf for part in x for leaf in _leaves(part)]
    return [np.asarray(x)]


def main(out: Path = Path("out")) -> None:
    pin()
    print(f"{processor()}, one core, {time.strftime('%Y-%m-%d')}; float64, best of many, taking turns\n")
    print("| workload | wichi | others (ratio to wichi) |\n|---|---|---|")
    rows = {}
    for name, make in ROWS.items():
        row = make()
        _check(name, row)
        times = rows[name] = best_of(row, 2.0)
        others = [f"{who} {duration(t)} ({t / times['wichi']:.2f})" for who, t in times.items() if who != "wichi"]
        print(f"| {name} | {duration(times['wichi'])} | {', '.join(others)} |", flush=True)
    out.mkdir(exist_ok=True)
    (out / "loops.json").write_text(json.dumps({"machine": processor(), "seconds": rows}, indent=1))

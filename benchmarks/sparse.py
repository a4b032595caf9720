"""Sparse Jacobians and Hessians by wichi, by JAX and by hand.

    make bench ROWS=sparse

As in ``loops``: one process pinned to one core, taking turns, answers compared before anything is timed. JAX has no
sparse Jacobians: it is given the structure by hand, as its users do it. What is timed is marked: ``wichi`` answers a
whole ``csr_array``, the others the entries in blocks, and nothing is assembled. Prints a table and writes
``out/sparse.json``.
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
CAMERAS, POINTS, OBSERVATIONS = 49, 7_776, 31_843  # as the smallest "Ladybug" problem of Bundle Adjustment in the Large


def _jax() -> tuple[Any, Any]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    return jax, jnp


def reprojection(xp: Any, camera: Any, point: Any, weight: Any, seen: Any) -> tuple[Any, Any]:
    """ADBench's model: rotation vector, centre, focal length, principal point and two distortion coefficients."""
    rx, ry, rz, cx, cy, cz, focal, x0, y0, k1, k2 = camera
    angle = xp.sqrt(rx * rx + ry * ry + rz * rz)
    cos, sin = xp.cos(angle), xp.sin(angle)
    ux, uy, uz = rx / angle, ry / angle, rz / angle
    dx, dy, dz = point[0] - cx, point[1] - cy, point[2] - cz
    along = (ux * dx + uy * dy + uz * dz) * (1 - cos)
    px = dx * cos + (uy * dz - uz * dy) * sin + ux * along
    py = dy * cos + (uz * dx - ux * dz) * sin + uy * along
    pz = dz * cos + (ux * dy - uy * dx) * sin + uz * along
    qx, qy = px / pz, py / pz
    r2 = qx * qx + qy * qy
    scale = (1 + k1 * r2 + k2 * r2 * r2) * focal
    return (qx * scale + x0 - seen[0]) * weight, (qy * scale + y0 - seen[1]) * weight


def _by_hand() -> Any:
    """The blocks of 2 x 15 by a numba loop, differentiated by hand."""
    import numba

    @numba.njit(fastmath=True, error_model="numpy")
    def blocks(cameras: Any, points: Any, weights: Any, seen: Any, camera: Any, point: Any) -> Any:
        n = len(camera)
        out = np.empty((n, 2, 15))
        slopes = np.empty((3, 3))
        for i in range(n):
            c, p, w = cameras[camera[i]], points[point[i]], weights[i]
            angle = np.sqrt(c[0] * c[0] + c[1] * c[1] + c[2] * c[2])
            cos, sin = np.cos(angle), np.sin(angle)
            ux, uy, uz = c[0] / angle, c[1] / angle, c[2] / angle
            dx, dy, dz = p[0] - c[3], p[1] - c[4], p[2] - c[5]
            dot = ux * dx + uy * dy + uz * dz
            hx, hy, hz = uy * dz - uz * dy, uz * dx - ux * dz, ux * dy - uy * dx
            px = dx * cos + hx * sin + ux * dot * (1 - cos)
            py = dy * cos + hy * sin + uy * dot * (1 - cos)
            pz = dz * cos + hz * sin + uz * dot * (1 - cos)
            ax, ay, az = (
                -dx * sin + hx * cos + ux * dot * sin,
                -dy * sin + hy * cos + uy * dot * sin,
                -dz * sin + hz * cos + uz * dot * sin,
            )
            for k in range(3):  # of the rotation vector's k-th component: the angle changes by u[k], u by e
                u = ux if k == 0 else uy if k == 1 else uz
                ex = ((1.0 if k == 0 else 0.0) - ux * u) / angle
                ey = ((1.0 if k == 1 else 0.0) - uy * u) / angle
                ez = ((1.0 if k == 2 else 0.0) - uz * u) / angle
                turned = ex * dx + ey * dy + ez * dz
                slopes[k, 0] = u * ax + sin * (ey * dz - ez * dy) + (1 - cos) * (ex * dot + ux * turned)
                slopes[k, 1] = u * ay + sin * (ez * dx - ex * dz) + (1 - cos) * (ey * dot + uy * turned)
                slopes[k, 2] = u * az + sin * (ex * dy - ey * dx) + (1 - cos) * (ez * dot + uz * turned)
            qx, qy, focal, k1, k2 = px / pz, py / pz, c[6], c[9], c[10]
            r2 = qx * qx + qy * qy
            scale, change = 1 + k1 * r2 + k2 * r2 * r2, 2 * (k1 + 2 * k2 * r2)
            gxx, gxy, gyy = scale + qx * qx * change, qx * qy * change, scale + qy * qy * change
            by = w * focal / pz
            rotation = (
                (cos + ux * ux * (1 - cos), uy * ux * (1 - cos) + uz * sin, uz * ux * (1 - cos) - uy * sin),
                (ux * uy * (1 - cos) - uz * sin, cos + uy * uy * (1 - cos), uz * uy * (1 - cos) + ux * sin),
                (ux * uz * (1 - cos) + uy * sin, uy * uz * (1 - cos) - ux * sin, cos + uz * uz * (1 - cos)),
            )
            for k in range(3):
                sx, sy = slopes[k, 0] - qx * slopes[k, 2], slopes[k, 1] - qy * slopes[k, 2]
                out[i, 0, k], out[i, 1, k] = by * (gxx * sx + gxy * sy), by * (gxy * sx + gyy * sy)
                rx, ry, rz = rotation[k]
                sx, sy = rx - qx * rz, ry - qy * rz
                moved_x, moved_y = by * (gxx * sx + gxy * sy), by * (gxy * sx + gyy * sy)
                out[i, 0, 3 + k], out[i, 1, 3 + k] = -moved_x, -moved_y
                out[i, 0, 11 + k], out[i, 1, 11 + k] = moved_x, moved_y
            out[i, 0, 6], out[i, 1, 6] = w * qx * scale, w * qy * scale
            out[i, 0, 7], out[i, 1, 7], out[i, 0, 8], out[i, 1, 8] = w, 0.0, 0.0, w
            out[i, 0, 9], out[i, 1, 9] = w * focal * qx * r2, w * focal * qy * r2
            out[i, 0, 10], out[i, 1, 10] = w * focal * qx * r2 * r2, w * focal * qy * r2 * r2
            out[i, 0, 14] = qx * scale * focal + c[7] - seen[0, i]
            out[i, 1, 14] = qy * scale * focal + c[8] - seen[1, i]
        return out

    return blocks


def bundle_adjustment() -> tuple[Row, Callable[[Any], Any]]:
    """49 cameras, 7,776 points, 31,843 observations: two residuals each, in 11 + 3 + 1 parameters."""
    jax, jnp = _jax()
    rng = np.random.default_rng(0)
    camera = rng.integers(0, CAMERAS, OBSERVATIONS)
    point = np.concatenate([np.arange(POINTS), rng.integers(0, POINTS, OBSERVATIONS - POINTS)])
    middle = [0, 0, 0, 0, 0, -5, 1000, 0, 0, 0, 0]
    cameras = rng.normal(middle, [0.2, 0.2, 0.2, 0.3, 0.3, 0.1, 10, 1, 1, 0.1, 0.1], (CAMERAS, 11))
    points, weights = rng.normal(size=(POINTS, 3)), rng.uniform(0.5, 1.5, OBSERVATIONS)
    seen = rng.normal(size=(2, OBSERVATIONS))
    x = np.concatenate([cameras.ravel(), points.ravel(), weights])

    def residuals(x: Any) -> Any:
        c, p, w = np.split(x, [CAMERAS * 11, CAMERAS * 11 + POINTS * 3])
        found = reprojection(np, c.reshape(-1, 11)[camera].T, p.reshape(-1, 3)[point].T, w, seen)
        return np.stack(found, axis=1).ravel()

    ours, hand = wichi.sparse.jacobian(residuals), _by_hand()

    def one(v: Any, seen: Any) -> Any:
        return jnp.stack(reprojection(jnp, v[:11], v[11:14], v[14], seen))

    def blocks(mode: Any) -> Any:
        def of_all(cameras: Any, points: Any, weights: Any) -> Any:
            v = jnp.concatenate([cameras[camera], points[point], weights[:, None]], axis=1)
            return jax.vmap(mode(one))(v, seen.T)

        return jax.jit(of_all)

    backward, forward = blocks(jax.jacrev), blocks(jax.jacfwd)
    row = {
        "wichi": lambda: ours(x),
        "JAX, jacrev of each": lambda: jax.block_until_ready(backward(cameras, points, weights)),
        "JAX, jacfwd of each": lambda: jax.block_until_ready(forward(cameras, points, weights)),
        "numba, by hand": lambda: hand(cameras, points, weights, seen, camera, point),
    }
    stored = [[k for k in range(15) if k != other] for other in (8, 7)]  # the other component's principal point
    print(f"bundle adjustment: {ours.products(x)} products, {ours(x).nnz} entries of {2 * OBSERVATIONS} x {len(x)}")

    def entries(answer: Any) -> Any:
        """In blocks, without the two that are always zero."""
        if hasattr(answer, "indptr"):
            return answer.data.reshape(-1, 2, 14)
        return np.stack([np.asarray(answer)[:, k, kept] for k, kept in enumerate(stored)], axis=1)

    return row, entries


def tridiagonal() -> tuple[Row, Callable[[Any], Any]]:
    """A stencil of three points, n = 10,000; JAX is given three seeds, SciPy the pattern."""
    from scipy.optimize._numdiff import approx_derivative, group_columns

    jax, jnp = _jax()
    n = 10_000

    def f(xp: Any, x: Any) -> Any:
        return xp.concatenate([x[:1], xp.sin(x[:-2]) - 2 * x[1:-1] + x[2:] ** 3, x[-1:]])

    x = np.random.default_rng(0).normal(size=n)
    ours = wichi.sparse.jacobian(lambda x: f(np, x))
    pattern = ours.pattern(x)
    seeds = np.eye(3)[:, np.arange(n) % 3]
    theirs = jax.jit(lambda x: jax.vmap(lambda s: jax.jvp(lambda x: f(jnp, x), (x,), (s,))[1])(seeds))
    value, groups = wichi.jit(lambda x: f(np, x)), group_columns(pattern)
    rows = np.repeat(np.arange(n), np.diff(pattern.indptr))
    print(f"stencil: {ours.products(x)} products, {pattern.nnz} entries")
    row = {
        "wichi": lambda: ours(x),
        "JAX, seeds by hand": lambda: jax.block_until_ready(theirs(x)),
        "SciPy's differences": lambda: approx_derivative(value, x, method="2-point", sparsity=(pattern, groups)),
    }

    def entries(answer: Any) -> Any:
        if isinstance(answer, jax.Array):
            return np.asarray(answer)[pattern.indices % 3, rows]
        return answer.tocsr()[rows, pattern.indices]

    return row, entries


def rosenbrock() -> tuple[Row, Callable[[Any], Any]]:
    """The Hessian of the chained Rosenbrock function, n = 10,000; JAX is given three seeds."""
    jax, jnp = _jax()
    n = 10_000

    def f(xp: Any, x: Any) -> Any:
        return xp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    x = np.random.default_rng(0).normal(size=n)
    ours = wichi.sparse.hessian(lambda x: f(np, x))
    pattern = ours.pattern(x)
    seeds, slope = np.eye(3)[:, np.arange(n) % 3], jax.grad(lambda x: f(jnp, x))
    theirs = jax.jit(lambda x: jax.vmap(lambda s: jax.jvp(slope, (x,), (s,))[1])(seeds))
    rows = np.repeat(np.arange(n), np.diff(pattern.indptr))
    print(f"Rosenbrock: {ours.products(x)} products, {pattern.nnz} entries")
    row = {"wichi": lambda: ours(x), "JAX, seeds by hand": lambda: jax.block_until_ready(theirs(x))}

    def entries(answer: Any) -> Any:
        return answer.data if hasattr(answer, "indptr") else np.asarray(answer)[pattern.indices % 3, rows]

    return row, entries


ROWS: dict[str, Callable[[], tuple[Row, Callable[[Any], Any]]]] = {
    "bundle adjustment, 31,843 observations: Jacobian": bundle_adjustment,
    "three-point stencil, n = 10⁴: Jacobian": tridiagonal,
    "chained Rosenbrock, n = 10⁴: Hessian": rosenbrock,
}


def main(out: Path = Path("out")) -> None:
    pin()
    print(f"{processor()}, one core, {time.strftime('%Y-%m-%d')}; float64, best of many, taking turns\n")
    lines, rows = [], {}
    for name, make in ROWS.items():
        start = time.perf_counter()
        row, entries = make()
        answers = {who: entries(run()) for who, run in row.items()}
        for who, answer in answers.items():
            scale = np.max(np.abs(answers["wichi"]))
            tolerance = 1e-4 if "differences" in who else 1e-9
            np.testing.assert_allclose(
                answer / scale, answers["wichi"] / scale, atol=tolerance, err_msg=f"{name}: {who}"
            )
        print(f"  made and compiled, all of them, in {time.perf_counter() - start:.1f} s", flush=True)
        times = rows[name] = best_of(row, 2.0)
        others = [f"{who} {duration(t)} ({t / times['wichi']:.2f})" for who, t in times.items() if who != "wichi"]
        lines.append(f"| {name} | {duration(times['wichi'])} | {', '.join(others)} |")
    print("\n| workload | wichi | others (ratio to wichi) |\n|---|---|---|", *lines, sep="\n")
    out.mkdir(exist_ok=True)
    (out / "sparse.json").write_text(json.dumps({"machine": processor(), "seconds": rows}, indent=1))

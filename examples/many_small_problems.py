"""``vmap``: the fit of one curve becomes the fit of a thousand, in one native call a step; Hessians give error bars."""

import numpy as np

import wichi

rng = np.random.default_rng(0)
t = np.linspace(0.0, 4.0, 50)
true = np.stack([rng.uniform(1.0, 3.0, 1000), rng.uniform(0.3, 1.5, 1000)], axis=1)
curves = true[:, :1] * np.exp(-true[:, 1:] * t) + 0.01 * rng.standard_normal((1000, 50))


def misfit(p, curve):
    return np.sum((p[0] * np.exp(-p[1] * t) - curve) ** 2)


def residual(p, curve):
    return p[0] * np.exp(-p[1] * t) - curve


@wichi.jit
def gauss_newton(p, curve):
    """One step for one curve; ``vmap`` makes it one for all."""
    r, j = residual(p, curve), wichi.jacobian(residual)(p, curve)
    a, b, c = np.sum(j[:, 0] ** 2), np.sum(j[:, 0] * j[:, 1]), np.sum(j[:, 1] ** 2)
    g = j.T @ r
    return p - np.stack([c * g[0] - b * g[1], a * g[1] - b * g[0]]) / (a * c - b * b)


step = wichi.vmap(gauss_newton)
found = np.tile([2.0, 0.8], (1000, 1))
for _ in range(12):
    found = step(found, curves)

slopes = wichi.vmap(wichi.grad(misfit))(found, curves)
hessians = wichi.vmap(wichi.hessian(misfit))(found, curves)
errors = 0.01 * np.sqrt(np.diagonal(np.linalg.inv(hessians / 2), axis1=1, axis2=2))
print("largest slope left:        ", np.abs(slopes).max())
print("first curve:               ", found[0].round(4), "+-", errors[0].round(4), "true", true[0].round(4))
print("distances in error bars:   ", np.std((found - true) / errors).round(2))
assert np.abs(slopes).max() < 1e-9
assert 0.9 < np.std((found - true) / errors) < 1.1

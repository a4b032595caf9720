"""I maintain a library: gradients behind your own interface, for SciPy, for C, and across processes."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
from scipy import integrate, optimize

import wichi


def potential(x):
    """What your library computes: NumPy, unchanged."""
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


# For any solver that takes callables: value, gradient, Hessian and its products, from one compiled function each.
fun, jac, hess, hessp = wichi.for_scipy(potential, np.zeros(5))
found = optimize.minimize(fun, np.full(5, 0.5), jac=jac, hessp=hessp, method="trust-ncg")
print(f"trust-ncg: {found.x.round(6)} after {found.nit} steps")


# A rule of your own where a formula beats its derivative, checked against differences.
@wichi.custom_jvp
def log_cosh(x):
    return np.abs(x) + np.log1p(np.exp(-2 * np.abs(x))) - np.log(2.0)


@log_cosh.defjvp
def _(primals, tangents):
    return log_cosh(*primals), np.tanh(primals[0]) * tangents[0]


wichi.testing.check_grads(log_cosh, (np.array([-1.0, 0.5]),), order=2)

# Low-level callbacks without Python, and object code without Python at all.
integrand = wichi.cfunc(lambda x: np.exp(-(x**2)), 0.0)
area = integrate.quad(integrand.low_level_callable(), -np.inf, np.inf)[0]
print(f"quad: {area:.9f}; sqrt(pi) is {np.sqrt(np.pi):.9f}")
with tempfile.TemporaryDirectory() as folder:
    files = wichi.export(wichi.value_and_grad(potential), np.zeros(5), path=Path(folder) / "potential")
    print(f"exported {', '.join(f.name for f in files)}: {files[1].read_text().splitlines()[-2]}")

# Compiled functions travel to other processes, and find their machine code on disk there.
again = pickle.loads(pickle.dumps(wichi.grad(potential)))
assert np.array_equal(again(np.ones(5)), wichi.grad(potential)(np.ones(5)))

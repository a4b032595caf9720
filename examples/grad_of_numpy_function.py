"""A plain NumPy function, unchanged, and its exact gradient: fitting a decaying wave with SciPy."""

import numpy as np
from scipy.optimize import minimize

import wichi

t = np.linspace(0.0, 10.0, 400)
true = np.array([2.0, 0.3, 1.7, 0.5])
data = true[0] * np.exp(-true[1] * t) * np.cos(true[2] * t + true[3])


def misfit(p):
    model = p[0] * np.exp(-p[1] * t) * np.cos(p[2] * t + p[3])
    return np.sum((model - data) ** 2)


value_and_gradient = wichi.value_and_grad(misfit)

start = np.array([1.5, 0.2, 1.6, 0.3])
step = 1e-6 * np.eye(4)
differences = [(misfit(start + d) - misfit(start - d)) / 2e-6 for d in step]
print("gradient:    ", value_and_gradient(start)[1])
print("differences: ", np.array(differences))

found = minimize(value_and_gradient, start, jac=True, method="BFGS", options={"gtol": 1e-8})
print("found:       ", found.x, "after", found.nfev, "evaluations")
assert np.allclose(value_and_gradient(start)[1], differences, rtol=1e-5)
assert np.allclose(found.x, true, atol=1e-6)

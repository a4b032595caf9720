"""I fit models: SciPy's solvers with exact derivatives, named parameters, and two thousand fits in one call."""

import numpy as np

import wichi

rng = np.random.default_rng(0)
t = np.linspace(0, 10, 200)


def oscillation(p, t=t):
    """Any NumPy function; its parameters may be a dict."""
    return p["height"] * np.exp(-p["damping"] * t) * np.cos(p["frequency"] * t + p["phase"])


truth = {"height": 2.0, "damping": 0.3, "frequency": 1.7, "phase": 0.5}
measured = oscillation(truth) + 0.05 * rng.normal(size=t.size)
start = {"height": 1.5, "damping": 0.2, "frequency": 1.6, "phase": 0.3}

# One fit. The Jacobian is exact, the covariance comes with the result.
found = wichi.scipy.optimize.least_squares(lambda p: oscillation(p) - measured, start)
for (name, value), error in zip(sorted(found.x.items()), np.sqrt(np.diag(found.cov)), strict=True):
    print(f"{name:>9} = {value:6.3f} ± {error:.3f}   (truth {truth[name]})")

# The same as a likelihood to minimise, with bounds; value and gradient come from one evaluation.
lower = {"damping": 0.0, "frequency": None, "height": None, "phase": -np.pi}
best = wichi.scipy.optimize.minimize(
    lambda p: np.sum((oscillation(p) - measured) ** 2), start, method="L-BFGS-B", bounds=(lower, None)
)
print(f"L-BFGS-B: {best.evaluations} evaluations, {best.nfev} asked for; damping {best.x['damping']:.3f}")

# Two thousand fits at once: one native loop, a status and a covariance for each.
many = {name: np.full(2000, value) for name, value in start.items()}
noisy = oscillation(truth) + 0.05 * rng.normal(size=(2000, t.size))
fits = wichi.fit.least_squares_batch(lambda p, y: oscillation(p) - y, many, noisy)
spread, claimed = fits.x["damping"].std(), np.sqrt(fits.cov[:, 0, 0]).mean()
print(f"{fits.success.sum()} of 2000 fits converged; damping scatters by {spread:.4f}, the errors say {claimed:.4f}")
assert fits.success.all()
assert abs(found.x["damping"] - 0.3) < 0.02

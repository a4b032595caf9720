"""Sparse derivatives where SciPy takes them: optimal control with trust-constr, a survey with least_squares."""

import numpy as np
import scipy.optimize
import scipy.spatial

import wichi

# 1. Swing a pendulum up with the least effort: angle, speed and torque at 101 times are the unknowns, and the equation
# of motion is a constraint from each time to the next (trapezoidal collocation).
STEPS, DURATION = 100, 3.0
h = DURATION / STEPS


def parts(z):
    return z.reshape(3, STEPS + 1)  # angle, speed, torque


def effort(z):
    return h * np.sum(parts(z)[2] ** 2)


def motion(z):
    angle, speed, torque = parts(z)
    push = torque - 9.81 * np.sin(angle) - 0.1 * speed
    turned = angle[1:] - angle[:-1] - h / 2 * (speed[1:] + speed[:-1])
    sped_up = speed[1:] - speed[:-1] - h / 2 * (push[1:] + push[:-1])
    ends = np.stack([angle[0], speed[0], angle[-1] - np.pi, speed[-1]])  # from hanging still to standing still
    return np.concatenate([turned, sped_up, ends])


slopes = wichi.sparse.jacobian(motion)
constraint = scipy.optimize.NonlinearConstraint(
    motion, 0.0, 0.0, jac=slopes, hess=wichi.sparse.hessian(lambda z, multipliers: multipliers @ motion(z))
)
start = np.concatenate([np.linspace(0, np.pi, STEPS + 1), np.full(STEPS + 1, np.pi / DURATION), np.zeros(STEPS + 1)])
swing = scipy.optimize.minimize(
    effort, start, method="trust-constr", jac=wichi.grad(effort), hess=wichi.sparse.hessian(effort),
    constraints=constraint, options={"maxiter": 300},
)  # fmt: skip
print(f"pendulum: {slopes(start).nnz} of {slopes(start).shape} entries, from {slopes.products(start)} product(s)")
print(f"          effort {swing.fun:.3f} after {swing.nit} steps, the motion holds to {swing.constr_violation:.0e}")

# 2. A survey: where 500 stations stand, from noisy distances between neighbours and the places of ten of them.
rng = np.random.default_rng(0)
truth = rng.uniform(0, 1, (500, 2))
a, b = np.array(sorted(scipy.spatial.cKDTree(truth).query_pairs(0.09))).T  # index arrays: closed over, so exact
measured = np.linalg.norm(truth[a] - truth[b], axis=1) + 1e-3 * rng.normal(size=len(a))


def residuals(places):
    p = places.reshape(-1, 2)
    distance = np.sqrt(np.sum((p[a] - p[b]) ** 2, axis=1))
    return np.concatenate([(distance - measured) / 1e-3, ((p[:10] - truth[:10]) / 1e-3).ravel()])


jacobian = wichi.sparse.jacobian(residuals)
guess = (truth + 0.02 * rng.normal(size=truth.shape)).ravel()
survey = scipy.optimize.least_squares(residuals, guess, jac=jacobian)
error = np.median(np.linalg.norm(survey.x.reshape(-1, 2) - truth, axis=1))
print(f"survey: {jacobian(guess).nnz} of {jacobian(guess).shape} entries, from {jacobian.products(guess)} product(s)")
print(f"        {survey.njev} Jacobians; typical error {error:.4f}, at first 0.02")

assert swing.constr_violation < 1e-6
assert swing.optimality < 1e-4
assert error < 2e-3

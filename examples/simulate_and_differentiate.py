"""I simulate: loops that stay native, forward and backward, and a differential equation fitted to data."""

import time

import numpy as np

import wichi


def step(state, force, drag):
    """One step of a driven pendulum with drag: plain NumPy."""
    angle, speed = state[0], state[1]
    speed = speed + 0.01 * (-np.sin(angle) - drag * speed + force)
    return np.stack([angle + 0.01 * speed, speed])


def energy_left(drag, forces):
    def body(state, force):
        return step(state, force, drag), state[0]

    last, angles = wichi.scan(body, np.array([1.0, 0.0]), forces)  # one native loop, in both directions
    return 0.5 * last[1] ** 2 + 1 - np.cos(last[0]) + 0.0 * angles[0]


forces = 0.1 * np.sin(np.linspace(0, 60, 10_000))
gradient = wichi.value_and_grad(energy_left)
for _ in range(3):
    gradient(0.1, forces)
begin = time.perf_counter()
value, slope = gradient(0.1, forces)
print(f"10,000 steps and their gradient: {(time.perf_counter() - begin) * 1e3:.2f} ms; d energy / d drag = {slope:.5f}")


# Python's own loops and conditions work too, at the top level: the branch taken becomes a guard.
def settled(drag):
    state, rounds = np.array([1.0, 0.0]), 0
    while np.abs(state[0]) > 0.9 and rounds < 1000:
        state, rounds = step(state, 0.0, drag), rounds + 1
    return state[1]


print(f"speed when the angle falls below 0.9: {settled(0.1):.4f}, its slope {wichi.grad(settled)(0.1):.4f}")

# A differential equation with an adaptive method, fitted to noisy observations.
times = np.linspace(0, 10, 40)


def prey_and_predators(rates):
    return wichi.odeint(
        lambda y, t: np.stack([rates[0] * y[0] - 0.5 * y[0] * y[1], 0.25 * y[0] * y[1] - rates[1] * y[1]]),
        np.array([2.0, 1.0]), times, rtol=1e-6, atol=1e-8,
    )  # fmt: skip


seen = prey_and_predators(np.array([1.0, 0.6])) + 0.05 * np.random.default_rng(0).normal(size=(40, 2))
found = wichi.scipy.optimize.least_squares(lambda r: prey_and_predators(r) - seen, np.array([0.8, 0.8]))
print(f"rates {found.x.round(3)} (truth 1.0, 0.6), {found.nfev} solutions, {found.njev} Jacobians")
assert np.allclose(found.x, [1.0, 0.6], atol=0.02)

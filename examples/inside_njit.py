"""A sampler written in numba whose gradient wichi compiles: native code calling native code, no Python in the loop."""

import time

import numba
import numpy as np

import wichi

MEAN, SPREAD = np.array([1.0, -2.0]), np.array([0.5, 2.0])


def log_density(x):
    return -0.5 * np.sum(((x - MEAN) / SPREAD) ** 2)


value_and_slope = wichi.njit(wichi.value_and_grad(log_density), np.zeros(2))


@numba.njit
def sample(steps, step, seed):
    """The Metropolis-adjusted Langevin algorithm (G. O. Roberts and R. L. Tweedie, Bernoulli 2, 1996)."""
    np.random.seed(seed)  # noqa: NPY002  (numba's own generator)
    x, kept, accepted = np.zeros(2), np.empty((steps, 2)), 0
    value, slope = value_and_slope(x)
    for i in range(steps):
        y = x + step * slope + np.sqrt(2 * step) * np.random.standard_normal(2)  # noqa: NPY002
        new_value, new_slope = value_and_slope(y)
        there, back = np.sum((y - x - step * slope) ** 2), np.sum((x - y - step * new_slope) ** 2)
        if np.log(np.random.random()) < new_value - value + (there - back) / (4 * step):  # noqa: NPY002
            x, value, slope, accepted = y, new_value, new_slope, accepted + 1
        kept[i] = x
    return kept, accepted / steps


sample(1, 0.1, 0)  # numba compiles the loop
start = time.perf_counter()
kept, accepted = sample(200_000, 0.15, 0)
seconds = time.perf_counter() - start
print(f"{len(kept) / seconds / 1e6:.1f} million steps a second, {accepted:.0%} accepted")
print("mean  ", kept.mean(0).round(2), "of", MEAN)
print("spread", kept.std(0).round(2), "of", SPREAD)
assert np.allclose(kept.mean(0), MEAN, atol=0.1)
assert np.allclose(kept.std(0), SPREAD, rtol=0.05)

"""I sample: Hamiltonian Monte Carlo in your own numba code, around wichi's compiled log density and gradient."""

import numba
import numpy as np

import wichi

# Rubin (1981): effects of coaching in eight schools, and their standard errors.
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def log_density(q):
    """mu ~ N(0, 5), tau ~ half-Cauchy(5), theta = mu + tau * z; q = (mu, log tau, z)."""
    mu, log_tau, z = q[0], q[1], q[2:]
    tau = np.exp(log_tau)
    prior = -0.5 * (mu / 5) ** 2 - np.log1p((tau / 5) ** 2) + log_tau - 0.5 * np.sum(z**2)
    return prior - 0.5 * np.sum(((EFFECTS - mu - tau * z) / ERRORS) ** 2)


logp = wichi.njit(wichi.value_and_grad(log_density), np.zeros(10))


@numba.njit(nogil=True)
def sample(random, draws, steps=12, size=0.3):
    q = 0.1 * random.standard_normal(10)
    value, slope = logp(q)  # native code calling native code
    kept, accepted = np.empty((draws, 10)), 0
    for i in range(-500, draws):
        p = random.standard_normal(10)
        new, new_value, new_slope, momentum = q.copy(), value, slope, p + 0.5 * size * slope
        for k in range(steps):
            new = new + size * momentum
            new_value, new_slope = logp(new)
            momentum = momentum + (size if k < steps - 1 else 0.5 * size) * new_slope
        change = new_value - value + 0.5 * (p @ p) - 0.5 * (momentum @ momentum)
        if np.log(random.random()) < change:
            q, value, slope = new, new_value, new_slope
            accepted += i >= 0
        if i >= 0:
            kept[i] = q
    return kept, accepted / draws


chains = [sample(np.random.default_rng(seed), 20_000) for seed in range(2)]
q = np.concatenate([kept for kept, _ in chains])
mu, tau = q[:, 0], np.exp(q[:, 1])
print(f"accepted {chains[0][1]:.0%}; mu {mu.mean():.2f} ± {mu.std():.2f}, tau {tau.mean():.2f} ± {tau.std():.2f}")
# The posterior is known well from long runs of many samplers: E[mu] = 4.4, E[tau] = 3.6.
assert abs(mu.mean() - 4.4) < 0.3
assert abs(tau.mean() - 3.6) < 0.4

"""D. B. Rubin's eight schools (1981), and the posterior means by quadrature, to measure samplers by."""

from __future__ import annotations

import numpy as np

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def log_density(q):
    """mu ~ N(0, 5), tau ~ half-Cauchy(5), theta = mu + tau * z; q = (mu, log tau, z)."""
    mu, log_tau, z = q[0], q[1], q[2:]
    tau = np.exp(log_tau)
    prior = -0.5 * (mu / 5) ** 2 - np.log1p((tau / 5) ** 2) + log_tau - 0.5 * np.sum(z**2)
    return prior - 0.5 * np.sum(((EFFECTS - mu - tau * z) / ERRORS) ** 2)


def marginal(q):
    """The same of (mu, log tau) alone: each effect is normal around mu."""
    mu, log_tau = q[0], q[1]
    variance = ERRORS**2 + np.exp(2 * log_tau)
    prior = -0.5 * (mu / 5) ** 2 - np.log1p(np.exp(2 * log_tau) / 25) + log_tau
    return prior - 0.5 * np.sum((EFFECTS - mu) ** 2 / variance + np.log(variance))


def exact() -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of mu, tau and theta[0]. Given tau all is normal; tau is integrated on a grid."""
    u = np.linspace(-12.0, 8.0, 40001)  # log tau
    tau = np.exp(u)[:, None]
    precision = 1 / (ERRORS**2 + tau**2)  # of each effect around mu
    of_mu = np.sum(precision, 1) + 1 / 25
    mean = np.sum(precision * EFFECTS, 1) / of_mu
    log_p = 0.5 * np.sum(np.log(precision), 1) - 0.5 * np.log(of_mu)
    log_p += -0.5 * np.sum(precision * EFFECTS**2, 1) + 0.5 * mean**2 * of_mu - np.log1p((tau[:, 0] / 5) ** 2) + u
    weight = np.exp(log_p - log_p.max())
    weight /= weight.sum()
    shrink = ERRORS[0] ** 2 * precision[:, 0]  # how far the first school is drawn to mu
    theta = shrink * mean + (1 - shrink) * EFFECTS[0]
    spread = shrink**2 / of_mu + shrink * tau[:, 0] ** 2
    found = {}
    for name, value, variance in (("mu", mean, 1 / of_mu), ("tau", tau[:, 0], 0 * u), ("theta[0]", theta, spread)):
        average = weight @ value
        found[name] = (float(average), float(np.sqrt(weight @ (variance + value**2) - average**2)))
    return found


def check(draws: dict[str, np.ndarray]) -> None:
    """Asserts that means lie within four standard errors; ``draws[name]`` is (chains, draws)."""
    for name, x in draws.items():
        mean, deviation = exact()[name]
        batches = x.reshape(-1, x.shape[1] // 20 if x.shape[1] >= 200 else x.shape[1]).mean(1)  # of correlated draws
        error = max(batches.std(ddof=1) / np.sqrt(len(batches)), deviation / np.sqrt(x.size))
        assert error < 0.2 * deviation, f"{name}: too few draws"
        assert abs(x.mean() - mean) < 4 * error, f"{name}: {x.mean()} where {mean} is right, error {error}"

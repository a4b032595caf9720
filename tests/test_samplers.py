"""Samplers that others wrote, on wichi's log density and gradient: right within their sampling error."""

from __future__ import annotations

import multiprocessing
import os
import warnings

import numpy as np
import pytest

import wichi
from tests import eight_schools
from tests.eight_schools import log_density


def test_the_answer_is_the_published_one():
    """posteriordb, eight_schools_noncentered: mu 4.4, tau 3.6, theta[1] 6.2."""
    found = eight_schools.exact()
    assert [round(found[k][0], 1) for k in ("mu", "tau", "theta[0]")] == [4.4, 3.6, 6.2]
    x = np.linspace(-1.0, 1.0, 10)
    wichi.testing.check_grads(log_density, (x,), order=2)
    with pytest.raises(AssertionError, match="mu: "):
        eight_schools.check({k: np.full((4, 1000), m + d) for k, (m, d) in found.items()})


def draws_of(q):
    """Of points (chains, draws, 10)."""
    tau = np.exp(q[..., 1])
    return {"mu": q[..., 0], "tau": tau, "theta[0]": q[..., 0] + tau * q[..., 2]}


def test_nutpie():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ArviZ, about its next version
        nutpie = pytest.importorskip("nutpie", reason="needs nutpie: pip install 'wichi[friends]'")

    def make_logp():
        return wichi.value_and_grad(log_density)

    def make_expand(seed, other_seed, chain):
        return lambda q: {"q": q}

    model = nutpie.compiled_pyfunc.from_pyfunc(10, make_logp, make_expand, [np.dtype("f8")], [(10,)], ["q"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = nutpie.sample(model, draws=2000, tune=500, chains=4, cores=2, seed=1, progress_bar=False)
    eight_schools.check(draws_of(trace.posterior["q"].values))
    assert trace.sample_stats["diverging"].values.mean() < 0.01


class TestEmcee:
    @pytest.fixture
    def emcee(self):
        return pytest.importorskip("emcee", reason="needs emcee: pip install 'wichi[friends]'")

    def test_all_walkers_in_one_call(self, emcee):
        begin = np.array([5.0, 1.0]) + np.random.default_rng(0).normal(size=(32, 2))
        sampler = emcee.EnsembleSampler(32, 2, wichi.vmap(eight_schools.marginal), vectorize=True)
        sampler.random_state = np.random.RandomState(0).get_state()
        sampler.run_mcmc(begin, 6_000)
        # Walkers lean on each other: one chain of their averages, not 32 chains.
        mu, log_tau = np.moveaxis(sampler.get_chain(discard=1_000), 2, 0)
        eight_schools.check({"mu": mu.mean(1)[None], "tau": np.exp(log_tau).mean(1)[None]})

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which this system lacks")
    @pytest.mark.parametrize("how", ["fork", "spawn"])
    def test_pools_of_processes(self, emcee, how):
        begin = 0.5 * np.random.default_rng(0).normal(size=(32, 10))

        def run(pool):
            sampler = emcee.EnsembleSampler(32, 10, wichi.jit(log_density), pool=pool)
            sampler.random_state = np.random.RandomState(0).get_state()
            sampler.run_mcmc(begin, 20)
            return sampler.get_chain()

        with multiprocessing.get_context(how).Pool(2) as pool:
            np.testing.assert_array_equal(run(pool), run(None))

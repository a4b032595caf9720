"""A NumPy function as a Potential of a PyMC model: its value, its gradient, and what samplers draw with them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import wichi
from tests import eight_schools
from tests.eight_schools import EFFECTS, ERRORS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of ArviZ, about its next version
    pm = pytest.importorskip("pymc", reason="needs PyMC: pip install 'wichi[pymc]' into an environment of its own")
    import nutpie
import pytensor

from wichi.pytensor import WichiOp, as_op

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def log_likelihood(mu, tau, z):
    return -0.5 * np.sum(((EFFECTS - mu - tau * z) / ERRORS) ** 2)


@pytest.fixture(scope="module")
def model():
    with pm.Model() as made:
        mu, tau, z = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5), pm.Normal("z", shape=8)
        pm.Potential("schools", as_op(log_likelihood)(mu, tau, z))
        pm.Deterministic("theta", mu + tau * z)
    return made


@pytest.mark.parametrize("mode", ["FAST_COMPILE", "NUMBA"])
def test_the_potential_has_its_value_and_gradient(model, mode):
    point = {"mu": np.array(1.5), "tau_log__": np.array(0.3), "z": np.linspace(-1, 1, 8)}
    with pm.Model() as plain:
        mu, tau, z = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5), pm.Normal("z", shape=8)
        pm.Potential("schools", -0.5 * pm.math.sum(((EFFECTS - mu - tau * z) / ERRORS) ** 2))
    for made in ("compile_logp", "compile_dlogp"):
        ours, theirs = (getattr(m, made)(mode=mode)(point) for m in (model, plain))
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    function = model.logp_dlogp_function(mode=mode, ravel_inputs=True)
    ops = [n.op for n in function._pytensor_function.maker.fgraph.toposort() if isinstance(n.op, WichiOp)]
    assert len(ops) == (2 if mode == "FAST_COMPILE" else 1)  # rewritten, value and gradient are one evaluation


def draws_of(trace):
    posterior = trace.posterior
    return {"mu": posterior["mu"].values, "tau": posterior["tau"].values, "theta[0]": posterior["theta"].values[..., 0]}


def test_nutpie_samples_it(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = nutpie.compile_pymc_model(model)
        trace = nutpie.sample(compiled, draws=2000, tune=500, chains=4, cores=2, seed=1, progress_bar=False)
    eight_schools.check(draws_of(trace))


def test_pymc_samples_it(model):
    with model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = pm.sample(
            1000, tune=500, chains=2, cores=1, random_seed=1, progressbar=False, compile_kwargs={"mode": "NUMBA"},
            target_accept=0.9,
        )  # fmt: skip
    eight_schools.check(draws_of(trace))


def test_vectors_of_unknown_length_are_told(model):
    with pm.Model(coords={"school": range(8)}) as made:
        data = pm.Data("effects", EFFECTS)
        z = pm.Normal("z", dims="school")
        pm.Potential("p", as_op(lambda z, d: -0.5 * np.sum((z - d) ** 2))(z, data))
    function = made.compile_logp(mode="FAST_COMPILE")
    want = -0.5 * np.sum(EFFECTS**2) + 8 * -0.5 * np.log(2 * np.pi)
    assert np.isclose(function({"z": np.zeros(8)}), want)
    frozen = pm.model.transform.optimization.freeze_dims_and_data(made)
    assert np.isclose(frozen.compile_logp(mode="NUMBA")({"z": np.zeros(8)}), want)
    assert pytensor.config.floatX == "float64"
    assert wichi.__version__

"""SciPy's solvers with wichi's derivatives: answers, counts of evaluations, trees, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

import wichi
from wichi.errors import ArgumentError, DtypeError, NonScalarError
from wichi.scipy import integrate, optimize


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


X0 = np.array([1.3, 0.7, 0.8, 1.9])


@pytest.mark.parametrize(
    "method", [None, "BFGS", "L-BFGS-B", "CG", "TNC", "SLSQP", "Newton-CG", "trust-ncg", "trust-krylov", "trust-exact",
               "dogleg", "trust-constr", "Nelder-Mead"],
)  # fmt: skip
def test_minimize_in_every_method(method):
    start = np.array([1.01, 1.02, 1.04, 1.08]) if method == "dogleg" else X0  # it wants a positive definite Hessian
    options = {"options": {"maxiter": 3000}} if method != "TNC" else {}
    found = optimize.minimize(rosenbrock, start, method=method, **options)
    np.testing.assert_allclose(found.x, 1.0, atol=1e-3)


def test_one_run_of_the_kernel_gives_value_and_gradient():
    found = optimize.minimize(rosenbrock, X0, method="BFGS")
    assert found.evaluations == found.njev == found.nfev
    plain = scipy.optimize.minimize(rosenbrock, X0, method="BFGS")
    assert found.evaluations * 3 < plain.nfev  # differences take n + 1 evaluations a gradient
    np.testing.assert_allclose(found.fun, 0.0, atol=1e-10)


def test_trees_and_bounds():
    def f(p, scale):
        return np.sum((p["w"] - scale) ** 2) + (p["b"] + 2.0) ** 2

    found = optimize.minimize(
        f, {"w": np.zeros((2, 2)), "b": 1.0}, args=(3.0,), bounds=({"w": None, "b": 0.0}, {"w": 2.5, "b": None})
    )
    np.testing.assert_allclose(found.x["w"], 2.5)
    assert found.x["b"] == 0.0
    assert found.x["w"].shape == (2, 2)
    np.testing.assert_allclose(found.jac["b"], 4.0)


@pytest.mark.parametrize("method", ["SLSQP", "trust-constr"])
def test_constraints(method):
    c = optimize.NonlinearConstraint(lambda p: {"r": p["x"] ** 2 + p["y"] ** 2}, {"r": 1.0}, {"r": 1.0})
    found = optimize.minimize(lambda p: p["x"] + p["y"], {"x": -0.5, "y": -0.9}, method=method, constraints=c)
    np.testing.assert_allclose([found.x["x"], found.x["y"]], -np.sqrt(0.5), atol=1e-5)


def test_least_squares_and_curve_fit():
    t = np.linspace(0, 4, 40)
    y = 2.5 * np.exp(-1.3 * t) + 0.5 + 0.01 * np.random.default_rng(0).normal(size=40)

    def model(t, a, k, c):
        return a * np.exp(-k * t) + c

    best, cov = optimize.curve_fit(model, t, y, (1.0, 1.0, 0.0))
    theirs, their_cov = scipy.optimize.curve_fit(model, t, y, (1.0, 1.0, 0.0))
    np.testing.assert_allclose(best, theirs, rtol=1e-6)
    np.testing.assert_allclose(cov, their_cov, rtol=1e-3)
    found = optimize.least_squares(lambda p: model(t, p["a"], p["k"], p["c"]) - y, {"a": 1.0, "k": 1.0, "c": 0.0})
    np.testing.assert_allclose([found.x["a"], found.x["c"], found.x["k"]], theirs[[0, 2, 1]], rtol=1e-6)
    np.testing.assert_allclose(found.cov, their_cov[np.ix_([0, 2, 1], [0, 2, 1])], rtol=1e-3)
    bounded = optimize.least_squares(lambda p: model(t, *p) - y, (1.0, 1.0, 0.7), bounds=((None, 0.0, 0.6), None))
    assert bounded.x[2] >= 0.6


def test_root_and_stiff_equations():
    found = optimize.root(lambda p: {"f": p["x"] ** 2 - p["y"], "g": p["y"] - 4.0}, {"x": 1.0, "y": 1.0})
    np.testing.assert_allclose([found.x["x"], found.x["y"]], [2.0, 4.0])

    def robertson(t, y):
        a, b = 0.04 * y[0], 1e4 * y[1] * y[2]
        c = 3e7 * y[1] ** 2
        return np.stack([-a + b, a - b - c, c])

    for method in ("Radau", "BDF", "LSODA"):
        found = integrate.solve_ivp(robertson, (0, 100), np.array([1.0, 0.0, 0.0]), method, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found.y[:, -1], [6.172346e-01, 6.153591e-06, 3.827593e-01], rtol=1e-4)


def test_for_scipy_and_other_solvers():
    fun, jac, hess, hessp = wichi.for_scipy(rosenbrock, X0)
    np.testing.assert_allclose(jac(X0), scipy.optimize.rosen_der(X0))
    np.testing.assert_allclose(hess(X0), scipy.optimize.rosen_hess(X0))
    np.testing.assert_allclose(hessp(X0, X0), scipy.optimize.rosen_hess(X0) @ X0)
    assert np.isclose(fun(X0), scipy.optimize.rosen(X0))
    found = scipy.optimize.basinhopping(fun, X0, niter=2, minimizer_kwargs={"jac": jac, "method": "BFGS"})
    np.testing.assert_allclose(found.x, 1.0, atol=1e-4)


class TestBadInput:
    def test_nan_and_inf_are_handed_to_the_solver(self):
        found = optimize.minimize(lambda x: np.sum(np.log(x)) * np.nan, np.ones(2), method="BFGS")
        assert not found.success

    def test_not_a_scalar(self):
        with pytest.raises(NonScalarError):
            optimize.minimize(lambda x: x**2, np.ones(3))

    def test_integer_leaves(self):
        with pytest.raises(DtypeError, match=r"x0\['n'\] is i64"):
            optimize.minimize(lambda p: p["n"] * 1.0, {"n": np.arange(3)})

    def test_bounds_of_another_tree(self):
        with pytest.raises(ArgumentError, match="bounds must be two trees"):
            optimize.minimize(lambda p: p["a"] ** 2, {"a": 1.0}, bounds=({"b": 0.0}, None))

    def test_a_callback_that_raises_leaves_nothing_behind(self):
        def stop(*_):
            raise RuntimeError("enough")

        for _ in range(2):
            with pytest.raises(RuntimeError, match="enough"):
                optimize.minimize(rosenbrock, X0, method="BFGS", callback=stop)
        np.testing.assert_allclose(optimize.minimize(rosenbrock, X0, method="BFGS").x, 1.0, atol=1e-4)

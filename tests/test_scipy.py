"""SciPy's solvers with wichi's derivatives: answers, counts of evaluations, trees, and bad input."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

import wichi
from wichi.errors import ArgumentError, DtypeError, NonScalarError, ShapeError
from wichi.scipy import integrate, optimize
from wichi.scipy.objective import unraveller


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def squares(x):
    return x**2


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


@pytest.mark.parametrize("n", [3, 10, 100])
@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "CG"])
def test_one_run_of_the_kernel_gives_value_and_gradient(method, n):
    start = np.linspace(0.5, 1.4, n)
    found = optimize.minimize(rosenbrock, start, method=method, options={"maxiter": 60})
    assert found.evaluations == found.njev == found.nfev
    plain = scipy.optimize.minimize(scipy.optimize.rosen, start, method=method, options={"maxiter": 60})
    assert plain.nfev > 0.7 * (n + 1) * found.evaluations  # differences take n + 1 evaluations a gradient


@pytest.mark.parametrize(
    "method", ["TNC", "SLSQP", "Newton-CG", "trust-ncg", "trust-krylov", "trust-exact", "trust-constr"]
)
def test_no_method_runs_the_kernel_twice_at_a_point(method):
    found = optimize.minimize(rosenbrock, X0, method=method)
    slopes = found.get("njev", found.nfev)  # TNC asks for both at once, and counts that
    assert slopes <= found.evaluations <= max(found.nfev, slopes)


def test_methods_without_derivatives_compute_none(monkeypatch):
    from wichi.scipy.objective import Objective

    monkeypatch.setattr(Objective, "_at", None)
    for method in ("Nelder-Mead", "Powell", "COBYLA", "COBYQA"):
        found = optimize.minimize(lambda x: np.sum((x - 1.0) ** 2), np.zeros(2), method=method)
        np.testing.assert_allclose(found.x, 1.0, atol=1e-3)
        assert found.evaluations == found.nfev


def test_curvature_by_products_or_as_a_matrix():
    for method, asks in (
        ("Newton-CG", "hessp"),
        ("trust-constr", "hessp"),
        ("trust-exact", "hess"),
        ("dogleg", "hess"),
    ):
        asked = []

        def watch(**given):
            asked.append({name for name in ("jac", "hess", "hessp") if given.get(name) is not None})
            raise StopIteration

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scipy.optimize, "minimize", lambda fun, x0, **given: watch(**given))
            with pytest.raises(StopIteration):
                optimize.minimize(rosenbrock, X0, method=method)
        assert asked == [{"jac", asks}]


def test_a_method_of_the_users_own():
    def newton(fun, x0, args=(), jac=None, hess=None, hessp=None, **options):
        x = x0
        for _ in range(20):
            x = x - np.linalg.solve(hess(x), jac(x))
        np.testing.assert_allclose(hessp(x, x), hess(x) @ x)
        return scipy.optimize.OptimizeResult(x=x, fun=fun(x), success=True)

    start = {"x": np.array([1.01, 1.02, 1.04])}
    found = optimize.minimize(lambda p: rosenbrock(p["x"]), start, method=newton)
    np.testing.assert_allclose(found.x["x"], 1.0, rtol=1e-9)


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


TWO = np.array([0.3, 0.4])


@pytest.mark.parametrize(
    ("x0", "bounds", "lowest", "highest"),
    [
        (TWO, (np.zeros(2), None), [0, 0], [np.inf, np.inf]),
        (TWO, (0.0, 1.0), [0, 0], [1, 1]),
        (TWO, [(0.0, 1.0), (None, 2)], [0, -np.inf], [1, 2]),
        (TWO, [[0.0, 1.0], [0.1, 2]], [0, 0.1], [1, 2]),
        (TWO, np.array([[0.0, 1.0], [0.1, 2]]), [0, 0.1], [1, 2]),
        (TWO, scipy.optimize.Bounds([0, 0.1], [1, 2]), [0, 0.1], [1, 2]),
        ({"a": 0.3, "b": 0.4}, ({"a": 0, "b": None}, 5.0), [0, -np.inf], [5, 5]),
        ({"a": 0.3, "b": 0.4}, [(0, None), (1, 2)], [0, 1], [np.inf, 2]),
        ({"b": TWO}, ({"b": [0, 0.1][0]}, {"b": np.array([1.0, 2.0])}), [0, 0], [1, 2]),
        ((0.3, 0.4, 0.5), [(0, 1), (0, 2), (0, 3)], [0, 0, 0], [1, 2, 3]),
        ((0.3, 0.4), ((0, None), None), [0, -np.inf], [np.inf, np.inf]),
    ],
)  # fmt: skip
def test_forms_of_bounds(x0, bounds, lowest, highest):
    from wichi.scipy.limits import of_minimize

    found = of_minimize(bounds, unraveller(x0))
    np.testing.assert_array_equal(found.lb, lowest)
    np.testing.assert_array_equal(found.ub, highest)
    inside = optimize.minimize(lambda p: sum(np.sum((x - 9.0) ** 2) for x in wichi.pytree.leaves(p)), x0, bounds=bounds)
    np.testing.assert_allclose(np.hstack(wichi.pytree.leaves(inside.x)), np.minimum(highest, 9.0), rtol=1e-5)


@pytest.mark.parametrize("method", ["SLSQP", "trust-constr", "COBYLA", "COBYQA"])
def test_constraints(method):
    f = lambda p: p["x"] + p["y"]  # noqa: E731
    start = {"x": -0.5, "y": -0.9}
    c = optimize.NonlinearConstraint(lambda p: {"r": p["x"] ** 2 + p["y"] ** 2}, {"r": 1.0}, {"r": 1.0})
    found = optimize.minimize(f, start, method=method, constraints=c)
    np.testing.assert_allclose([found.x["x"], found.x["y"]], -np.sqrt(0.5), atol=1e-3)
    inside = {"type": "ineq", "fun": lambda p, r: r - p["x"] ** 2 - p["y"] ** 2, "args": (1.0,)}
    line = scipy.optimize.LinearConstraint([[1.0, 0.0]], -0.6, np.inf)
    found = optimize.minimize(f, start, method=method, constraints=[inside, line])
    np.testing.assert_allclose([found.x["x"], found.x["y"]], [-0.6, -0.8], atol=1e-3)


def test_constraints_have_exact_derivatives():
    from wichi.scipy.limits import constraints_of

    x0 = {"x": np.array([0.5, -0.2]), "y": 0.3}
    c = optimize.NonlinearConstraint(lambda p: (p["x"] ** 3, p["y"] * p["x"][0]), None, (np.array([1.0, 2.0]), 3.0))
    (made,) = constraints_of(c, unraveller(x0), x0, with_hessian=True)
    np.testing.assert_array_equal(made.ub, [1, 2, 3])
    np.testing.assert_array_equal(made.lb, -np.inf)
    v = np.array([0.5, -0.2, 0.3])
    np.testing.assert_allclose(made.jac(v), [[0.75, 0, 0], [0, 0.12, 0], [0.3, 0, 0.5]])
    weights = np.array([2.0, 3.0, 5.0])
    hess = made.hess(v, weights) @ np.eye(3)
    np.testing.assert_allclose(hess, [[2 * 6 * 0.5, 0, 5], [0, 3 * 6 * -0.2, 0], [5, 0, 0]])


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
    assert found.jacobians == found.njev
    assert found.evaluations == found.nfev
    plain = scipy.optimize.least_squares(lambda p: model(t, *p) - y, (1.0, 1.0, 0.0))
    assert found.nfev == plain.nfev  # which does not count those of its differences
    for bounds in (((None, 0.0, 0.6), None), (0.0, (9.0, 9.0, 0.4))):
        start = (1.0, 1.0, 0.7 if bounds[1] is None else 0.3)
        bounded = optimize.least_squares(lambda p: model(t, *p) - y, start, bounds=bounds)
        assert round(bounded.x[2], 3) == (0.6 if bounds[1] is None else 0.4)
    start = np.array([1.0, 1.0, 0.7])
    bounded = optimize.least_squares(
        lambda p: model(t, *p) - y, start, bounds=([0, 0, 0.6], [9, 9, 9]), x_scale=[1, 2, 3]
    )
    np.testing.assert_allclose(bounded.x[2], 0.6, rtol=1e-6)
    scaled = optimize.least_squares(
        lambda p: model(t, p["a"], p["k"], 0.5) - y, {"a": 1.0, "k": 1.0}, x_scale={"a": 2.0, "k": 0.5}, loss="soft_l1"
    )
    assert scaled.success


def test_curve_fit_as_scipy_has_it():
    t = np.linspace(0, 4, 40)
    sigma = np.linspace(0.01, 0.03, 40)
    y = 2.5 * np.exp(-1.3 * t) + sigma * np.random.default_rng(0).normal(size=40)
    model = lambda t, a, k: a * np.exp(-k * t)  # noqa: E731
    for options in (
        {}, {"sigma": sigma}, {"sigma": sigma, "absolute_sigma": True}, {"bounds": (0, [3.0, 2.0])}, {"method": "dogbox"},
        {"sigma": np.diag(sigma**2)},
    ):  # fmt: skip
        ours, cov = optimize.curve_fit(model, t, y, **options)
        theirs, their_cov = scipy.optimize.curve_fit(model, t, y, **options)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        np.testing.assert_allclose(cov, their_cov, rtol=1e-3)
    assert len(optimize.curve_fit(model, list(t), list(y), full_output=True)) == 5
    plane = lambda xy, a, b: a * xy[0] + b * xy[1]  # noqa: E731
    xy = np.random.default_rng(1).normal(size=(2, 30))
    np.testing.assert_allclose(optimize.curve_fit(plane, xy, 2 * xy[0] - xy[1])[0], [2, -1])
    named = lambda d, a, b: a * d["x"] + b * d["y"]  # noqa: E731
    np.testing.assert_allclose(optimize.curve_fit(named, {"x": xy[0], "y": xy[1]}, 2 * xy[0] - xy[1])[0], [2, -1])
    with pytest.raises(ValueError, match="Unable to determine number of fit parameters"):
        optimize.curve_fit(lambda t, *p: p[0] * t, t, y)


def test_curve_fit_with_named_parameters():
    t = np.linspace(-1, 3, 50)

    def model(t, weights, centres, offset=0.0):
        return np.sum(weights * np.exp(-((t[:, None] - centres) ** 2)), 1) + offset

    truth = {"weights": np.array([1.0, 2.0]), "centres": np.array([0.0, 2.0])}
    start = {"weights": np.ones(2), "centres": np.array([-0.5, 2.5])}
    bounds = ({"weights": 0.0, "centres": None}, None)
    for options in ({}, {"bounds": bounds}):
        best, cov = optimize.curve_fit(model, t, model(t, **truth), start, **options)
        np.testing.assert_allclose(best["weights"], [1, 2], rtol=1e-6)
        np.testing.assert_allclose(best["centres"], [0, 2], atol=1e-6)
        assert cov.shape == (4, 4)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_covariances_that_do_not_exist_are_infinite():
    t = np.linspace(0, 1, 10)
    twice = optimize.least_squares(lambda p: (p[0] + p[1]) * t - 2 * t + 0.1 * np.sin(9 * t), np.zeros(2))
    assert np.isinf(twice.cov).all()  # only the sum of the two is known
    exact = optimize.least_squares(lambda p: p - np.arange(3.0), np.ones(3))
    assert np.isinf(exact.cov).all()  # no residual is left to tell the noise


def test_root():
    def f(p):
        return {"f": p["x"] ** 2 - p["y"], "g": p["y"] - 4.0}

    found = optimize.root(f, {"x": 1.0, "y": 1.0})
    np.testing.assert_allclose([found.x["x"], found.x["y"]], [2.0, 4.0])
    assert found.jacobians == found.njev
    for method in ("lm", "krylov", "broyden1", "df-sane"):  # some of them warn of a Jacobian
        seen = []
        options = {"callback": lambda x, f: seen.append(x["y"])} if method in ("krylov", "broyden1") else {}
        found = optimize.root(f, {"x": 1.7, "y": 3.5}, method=method, **options)
        np.testing.assert_allclose([found.x["x"], found.x["y"]], [2.0, 4.0], rtol=1e-4)
        assert bool(seen) == bool(options)


def robertson(t, y):
    a, b = 0.04 * y[0], 1e4 * y[1] * y[2]
    c = 3e7 * y[1] ** 2
    return np.stack([-a + b, a - b - c, c])


@pytest.mark.parametrize("method", ["Radau", "BDF", "LSODA", scipy.integrate.Radau])
@np.errstate(all="ignore")  # SciPy's BDF begins with differences that it has not computed (np.empty)
def test_stiff_equations(method):
    want = [6.172346e-01, 6.153591e-06, 3.827593e-01]
    found = integrate.solve_ivp(robertson, (0, 100), [1.0, 0.0, 0.0], method, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.y[:, -1], want, rtol=1e-4)
    plain = scipy.integrate.solve_ivp(
        lambda t, y: np.asarray(robertson(t, y)), (0, 100), [1.0, 0.0, 0.0], method, rtol=1e-8, atol=1e-10
    )
    assert found.nfev <= plain.nfev


def test_equations_of_trees_with_events():
    def fall(t, state, g):
        return {"v": -g, "x": state["v"]}

    def ground(t, state, g):
        return state["x"]

    ground.terminal, ground.direction = True, -1
    start = {"x": 1.0, "v": 0.0}
    for method in ("Radau", "RK45"):
        found = integrate.solve_ivp(fall, (0, 9), start, method, args=(9.81,), events=ground, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.t_events[0], np.sqrt(2 / 9.81), rtol=1e-7)
        assert found.y["x"].shape == found.t.shape
        np.testing.assert_allclose(found.y["v"], -9.81 * found.t, atol=1e-9)
    field = integrate.solve_ivp(lambda t, u: -u, (0, 1), np.ones((2, 3)), t_eval=[0.0, 1.0], rtol=1e-8)
    np.testing.assert_allclose(field.y[:, :, 1], np.full((2, 3), np.exp(-1)), rtol=1e-5)


class TestForSciPy:
    def test_functions_of_vectors(self):
        fun, jac, hess, hessp = wichi.for_scipy(rosenbrock, X0)
        np.testing.assert_allclose(jac(X0), scipy.optimize.rosen_der(X0))
        np.testing.assert_allclose(hess(X0), scipy.optimize.rosen_hess(X0))
        np.testing.assert_allclose(hessp(X0, X0), scipy.optimize.rosen_hess(X0) @ X0)
        assert np.isclose(fun(X0), scipy.optimize.rosen(X0))
        found = scipy.optimize.basinhopping(fun, X0, niter=2, minimizer_kwargs={"jac": jac, "method": "BFGS"})
        np.testing.assert_allclose(found.x, 1.0, atol=1e-4)

    def test_the_way_to_trees_and_back(self):
        start = {"w": np.arange(4.0).reshape(2, 2), "b": 7, "layers": [(1.0, np.zeros(1))]}
        made = wichi.for_scipy(
            lambda p: np.sum(p["w"] ** 2) + p["b"] * p["layers"][0][0] + np.sum(p["layers"][0][1]), start
        )
        assert made.names == ["b", "layers[0][0]", "layers[0][1][0]", "w[0, 0]", "w[0, 1]", "w[1, 0]", "w[1, 1]"]
        np.testing.assert_array_equal(made.x0, [7, 1, 0, 0, 1, 2, 3])
        again = made.tree(made.x0)
        np.testing.assert_array_equal(again["w"], start["w"])
        assert (again["b"], type(again["layers"])) == (7.0, list)
        assert wichi.for_scipy(rosenbrock, X0).names == ["x[0]", "x[1]", "x[2]", "x[3]"]
        fun, jac, _, _ = made
        assert fun(made.x0) == 14 + 7
        np.testing.assert_array_equal(jac(made.x0), [1, 7, 1, 0, 2, 4, 6])
        assert made.evaluations == 1

    def test_each_point_has_its_own_gradient_in_threads(self):
        made = wichi.for_scipy(rosenbrock, X0)
        points = np.random.default_rng(0).normal(size=(400, 4))
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda x: (made.fun(x), made.jac(x)), points))
        for x, (value, slope) in zip(points, found, strict=True):
            assert np.isclose(value, scipy.optimize.rosen(x))
            np.testing.assert_allclose(slope, scipy.optimize.rosen_der(x), rtol=1e-9, atol=1e-9)

    def test_points_are_told_apart_by_their_bits(self):
        fun, jac, _, _ = wichi.for_scipy(lambda x: np.sum(1 / x), np.ones(1))
        assert [fun(np.array([z])) for z in (0.0, -0.0)] == [np.inf, -np.inf]
        x = np.ones(1)
        value = fun(x)
        x[0] = 2.0  # a solver that writes into its vector
        assert (value, fun(x), jac(x)[0]) == (1.0, 0.5, -0.25)
        jac(x)[0] = 99.0
        assert jac(x)[0] == -0.25

    def test_iminuit(self):
        iminuit = pytest.importorskip("iminuit", reason="needs iminuit: pip install 'wichi[friends]'")
        t = np.linspace(0, 4, 50)
        y = 2.5 * np.exp(-1.3 * t) + 0.02 * np.random.default_rng(0).normal(size=50)

        def chi2(p):
            return np.sum(((p["height"] * np.exp(-p["rate"] * t) - y) / 0.02) ** 2)

        made = wichi.for_scipy(chi2, {"height": 1.0, "rate": 1.0})
        exact = iminuit.Minuit(made.fun, made.x0, grad=made.jac, name=made.names)
        plain = iminuit.Minuit(made.fun, made.x0, name=made.names)
        for m in (exact, plain):
            m.errordef = iminuit.Minuit.LEAST_SQUARES
            m.migrad()
            assert m.valid
        assert exact.ngrad > 0
        assert exact.nfcn < plain.nfcn
        exact.hesse()
        best, cov = optimize.curve_fit(
            lambda t, h, r: h * np.exp(-r * t), t, y, sigma=np.full(50, 0.02), absolute_sigma=True
        )
        np.testing.assert_allclose([exact.values["height"], exact.values["rate"]], best, rtol=1e-5)
        np.testing.assert_allclose(exact.covariance, cov, rtol=0.02)
        assert made.tree(exact.values)["rate"] == exact.values["rate"]

    def test_nlopt(self):
        nlopt = pytest.importorskip("nlopt", reason="needs NLopt: pip install 'wichi[friends]'")
        made = wichi.for_scipy(rosenbrock, X0)

        def objective(x, gradient):
            if gradient.size:
                gradient[:] = made.jac(x)
            return made.fun(x)

        solver = nlopt.opt(nlopt.LD_LBFGS, len(made.x0))
        solver.set_min_objective(objective)
        solver.set_xtol_rel(1e-10)
        np.testing.assert_allclose(solver.optimize(made.x0), 1.0, rtol=1e-6)
        assert made.evaluations == solver.get_numevals()

    def test_lmfit(self):
        lmfit = pytest.importorskip("lmfit", reason="needs lmfit: pip install 'wichi[friends]'")
        t = np.linspace(0, 4, 50)
        y = 2.5 * np.exp(-1.3 * t)
        residual = wichi.jit(lambda p: p["height"] * np.exp(-p["rate"] * t) - y)
        slopes = wichi.jacobian(residual)
        start = lmfit.create_params(height=1.0, rate=1.0)
        found = lmfit.minimize(
            lambda p: residual(p.valuesdict()), start, method="leastsq",
            Dfun=lambda p: np.stack(list(slopes(p.valuesdict()).values()), 1),
        )  # fmt: skip
        np.testing.assert_allclose([found.params["height"].value, found.params["rate"].value], [2.5, 1.3], rtol=1e-6)


class TestBadInput:
    def test_nan_and_inf_are_handed_to_the_solver(self):
        found = optimize.minimize(lambda x: np.sum(np.log(x)) * np.nan, np.ones(2), method="BFGS")
        assert not found.success
        # A wall that a line search steps back from.
        inside = optimize.minimize(
            lambda x: np.sum(x - np.log(2.0 - x)) + np.sum(1 / x), np.full(2, 1.9), method="BFGS"
        )
        assert np.isfinite(inside.fun)
        with pytest.raises(ValueError, match="not finite in the initial point"):
            optimize.least_squares(lambda p: np.log(p), np.array([-1.0]))

    @pytest.mark.parametrize("method", ["BFGS", "Nelder-Mead"])
    def test_not_a_scalar(self, method):
        with pytest.raises(NonScalarError, match=r"squares returned f64\[3\][\s\S]*test_scipy.py"):
            optimize.minimize(squares, np.ones(3), method=method)
        with pytest.raises(NonScalarError, match=r"tree of 2 values|the tree"):
            optimize.minimize(lambda x: (np.sum(x), 1.0), np.ones(3), method=method)

    def test_integer_leaves(self):
        with pytest.raises(DtypeError, match=r"x0\['n'\] is i64"):
            optimize.minimize(lambda p: p["n"] * 1.0, {"n": np.arange(3)})

    def test_bounds_of_another_tree(self):
        f = lambda p: p["a"] ** 2  # noqa: E731
        for bounds in (({"b": 0.0}, None), ({"a": "zero"}, None), (None, None, None), 7.0, ({"a": np.zeros(3)}, None)):
            with pytest.raises(ArgumentError, match="bounds must be two trees"):
                optimize.minimize(f, {"a": 1.0}, bounds=bounds)
            with pytest.raises(ArgumentError, match="bounds must be two trees"):
                optimize.least_squares(f, {"a": 1.0}, bounds=bounds)
        with pytest.raises(ArgumentError, match="can be read as two trees like x0 and as pairs"):
            optimize.minimize(lambda p: p[0] + p[1], (1.0, 1.0), bounds=((0, 2), (1, 3)))
        with pytest.raises(ArgumentError, match="x_scale must be a tree"):
            optimize.least_squares(f, {"a": 1.0}, x_scale={"b": 1.0})

    def test_constraints_that_do_not_fit(self):
        c = optimize.NonlinearConstraint(lambda p: {"r": p["a"]}, {"s": 0.0}, None)
        with pytest.raises(ArgumentError, match="lb and ub of a constraint must be trees like the result"):
            optimize.minimize(lambda p: p["a"] ** 2, {"a": 1.0}, constraints=c)
        with pytest.raises(ArgumentError, match="A constraint has no function"):
            optimize.minimize(lambda p: p["a"] ** 2, {"a": 1.0}, constraints={"type": "eq"})

    def test_a_gradient_that_comes_with_the_value(self):
        with pytest.raises(ArgumentError, match="jac=True means that f answers its gradient too"):
            optimize.minimize(rosenbrock, X0, jac=True)

    def test_another_number_of_values(self):
        fun, jac, hess, hessp = wichi.for_scipy(rosenbrock, X0)
        for call in (fun, jac, hess, lambda v: hessp(v, v)):
            for wrong in (np.ones(3), np.ones(5), np.ones((4, 1)), 1.0):
                with pytest.raises(ShapeError, match="was given where x0 has 4 numbers"):
                    call(wrong)
        with pytest.raises(ArgumentError, match="answers 3 numbers, and x0 has 4"):
            optimize.root(lambda x: x[1:], X0)
        with pytest.raises(ArgumentError, match="answers 3 numbers, and y0 has 4"):
            integrate.solve_ivp(lambda t, y: y[1:], (0, 1), X0)
        with pytest.raises(ArgumentError, match="answers no numbers"):
            optimize.least_squares(lambda p: None, X0)

    def test_results_that_change_their_size_between_calls(self):
        data = np.ones(5)

        def residual(p):
            return p[0] ** 3 * np.arange(float(data.size)) - data

        def change(intermediate_result):
            nonlocal data
            data = np.ones(4)

        with pytest.raises(ShapeError, match="residual answered 5 numbers before, and 4 now"):
            optimize.least_squares(residual, np.array([3.0]), callback=change)

        def value(p):
            return np.sum(p**2) if p[0] > 0.5 else {"value": np.sum(p**2), "more": 1.0}

        with pytest.raises(NonScalarError, match="value returned a tree of 2 values"):
            optimize.minimize(value, np.array([1.0, 1.0]), method="BFGS")

    def test_trees_may_change_between_calls_of_a_function(self):
        slope = wichi.grad(lambda p: sum(np.sum(x**2) for x in p.values()))
        for p in ({"a": 1.0}, {"a": 1.0, "b": np.ones(2)}, {"b": np.ones(3)}, {"a": 2.0}):
            found = slope(p)
            assert list(found) == list(p)
            assert all(np.array_equal(found[k], 2 * np.asarray(p[k])) for k in p)


class TestEndings:
    """Callbacks that raise, stop, or are interrupted: what SciPy would answer, and nothing left behind."""

    def again(self):
        found = optimize.minimize(rosenbrock, X0, method="BFGS")
        np.testing.assert_allclose(found.x, 1.0, atol=1e-4)
        assert found.evaluations == found.njev

    @pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "TNC", "SLSQP", "trust-constr", "Nelder-Mead"])
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_a_callback_that_raises(self, method, error):
        def stop(*_):
            raise error("enough")

        with pytest.raises(error, match="enough"):
            optimize.minimize(rosenbrock, X0, method=method, callback=stop)
        self.again()

    def test_an_objective_that_raises_while_it_is_traced(self):
        def f(p):
            raise ZeroDivisionError("of the user's")

        with pytest.raises(ZeroDivisionError, match="of the user's"):
            optimize.minimize(f, X0)
        box = wichi.primitive(lambda x: 1 / 0, result=lambda x: 0.0)
        box.defvjp(lambda x: (box(x), None), lambda _, ct: (np.zeros(4),))
        with pytest.raises(ZeroDivisionError):
            optimize.minimize(lambda x: box(x), X0)
        self.again()

    @pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "SLSQP", "trust-constr", "Nelder-Mead"])
    def test_a_callback_that_stops_leaves_the_best_so_far(self, method):
        seen = []

        def stop(intermediate_result):
            seen.append(intermediate_result.x["x"])
            if len(seen) == 3:
                raise StopIteration

        found = optimize.minimize(lambda p: rosenbrock(p["x"]), {"x": X0}, method=method, callback=stop)
        assert (found.success, len(seen)) == (False, 3)
        np.testing.assert_array_equal(found.x["x"], seen[-1])
        assert np.isclose(found.fun, rosenbrock(found.x["x"]))

    def test_callbacks_see_trees(self):
        seen = []
        for method in ("BFGS", "trust-constr", "TNC"):
            optimize.minimize(
                lambda p: rosenbrock(p["x"]), {"x": X0}, method=method, callback=lambda x, *rest: seen.append((x, rest))
            )
        assert all(x["x"].shape == (4,) for x, _ in seen)
        assert any(rest and rest[0].x["x"].shape == (4,) for _, rest in seen)
        seen.clear()
        optimize.least_squares(
            lambda p: p["a"] ** 2 - 4.0,
            {"a": 1.0},
            callback=lambda intermediate_result: seen.append(intermediate_result.x),
        )
        assert seen
        assert round(float(seen[-1]["a"]), 6) == 2.0

    def test_ctrl_c_in_a_long_fit(self):
        def slow(x):
            return np.sum(wichi.fori_loop(0, 200_000, lambda i, v: np.sin(v) + x, x))

        def fit_for_ever():
            while True:
                optimize.minimize(slow, X0, method="BFGS", options={"maxiter": 10_000, "gtol": 0.0})

        timer = threading.Timer(0.3, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            fit_for_ever()
        timer.join()
        self.again()

"""Batches of small fits: SciPy's answers item by item, and bad items that harm no other."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

import wichi
from wichi.errors import ArgumentError, ShapeError

T = np.linspace(0, 4, 32)


def model(p, t=T):
    return p[0] * np.exp(-p[1] * t) + p[2] + p[3] * t


def residual(p, y):
    return model(p) - y


def problems(n, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.stack(
        [rng.uniform(1, 3, n), rng.uniform(0.5, 2, n), rng.uniform(-1, 1, n), rng.uniform(-0.2, 0.2, n)], 1
    )
    y = np.stack([model(p) for p in truth]) + 0.01 * rng.normal(size=(n, 32))
    return truth, y


class TestLeastSquares:
    def test_each_item_is_what_scipy_finds(self):
        _, y = problems(30)
        found = wichi.fit.least_squares_batch(residual, np.ones((30, 4)), y)
        assert found.success.all()
        for i in range(30):
            one = scipy.optimize.least_squares(residual, np.ones(4), args=(y[i],), method="lm", xtol=1e-12, ftol=1e-12)
            np.testing.assert_allclose(found.x[i], one.x, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(found.cost[i], one.cost, rtol=1e-8)
            cov = np.linalg.inv(one.jac.T @ one.jac) * 2 * one.cost / 28
            np.testing.assert_allclose(found.cov[i], cov, rtol=1e-3)

    def test_bad_items_have_their_status_and_harm_no_other(self):
        _, y = problems(6)
        p0 = np.ones((6, 4))
        alone = wichi.fit.least_squares_batch(residual, p0, y)
        y[1, 3] = np.nan
        p0[4] = np.inf
        found = wichi.fit.least_squares_batch(residual, p0, y)
        assert found.status[[1, 4]].tolist() == [-1, -1]
        assert np.isnan(found.cov[1]).all()
        good = [0, 2, 3, 5]
        np.testing.assert_array_equal(found.x[good], alone.x[good])
        np.testing.assert_array_equal(found.status[good], alone.status[good])

    def test_a_parameter_without_effect(self):
        found = wichi.fit.least_squares_batch(lambda p, y: p[0] * T - y, np.array([[1.0, 5.0]]), 3.0 * T[None])
        np.testing.assert_allclose(found.x[0], [3.0, 5.0])
        assert np.isnan(found.cov[0]).any()
        assert found.success[0]

    def test_too_few_rounds(self):
        _, y = problems(3)
        found = wichi.fit.least_squares_batch(residual, np.ones((3, 4)), y, max_rounds=2)
        assert found.status.tolist() == [0, 0, 0]
        assert found.rounds.tolist() == [2, 2, 2]

    def test_trees_threads_and_progress(self, capsys):
        _, y = problems(20)
        start = {"a": np.ones(20), "rest": np.ones((20, 3))}

        def of_tree(p, d):
            return residual(np.concatenate([p["a"][None], p["rest"]]), d["y"])

        plain = wichi.fit.least_squares_batch(of_tree, start, {"y": y})
        spread = wichi.fit.least_squares_batch(of_tree, start, {"y": y}, threads=2, progress=True)
        np.testing.assert_array_equal(plain.x["rest"], spread.x["rest"])
        assert plain.x["rest"].shape == (20, 3)
        assert "of_tree" in capsys.readouterr().err

    def test_refusals(self):
        with pytest.raises(ShapeError, match=r"5 items and of shape \(4, 32\)"):
            wichi.fit.least_squares_batch(residual, np.ones((5, 4)), np.ones((4, 32)))
        with pytest.raises(ArgumentError, match="up to 16 parameters"):
            wichi.fit.least_squares_batch(lambda p: p, np.ones((2, 17)))


class TestMinimize:
    def test_each_item_is_what_scipy_finds(self):
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(12, 3))

        def f(p, c):
            return np.sum((p[1:] - p[:-1] ** 2) ** 2) + np.sum((p - c) ** 2) + 0.1 * np.sum(p**4)

        found = wichi.fit.minimize_batch(f, np.zeros((12, 3)), centres)
        assert found.success.all()
        for i in range(12):
            one = scipy.optimize.minimize(f, np.zeros(3), args=(centres[i],), method="BFGS", tol=1e-10)
            np.testing.assert_allclose(found.x[i], one.x, atol=1e-6)

    def test_rosenbrock_and_a_bad_item(self):
        def f(p, scale):
            return scale * np.sum(100.0 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)

        found = wichi.fit.minimize_batch(f, np.full((3, 5), 0.5), np.array([1.0, np.nan, 2.0]))
        np.testing.assert_allclose(found.x[[0, 2]], 1.0, atol=1e-5)
        assert found.status[1] == -1

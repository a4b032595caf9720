"""Batches of small fits: SciPy's answers item by item, and bad items that harm no other."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
import scipy.optimize

import wichi
from wichi.errors import ArgumentError, DtypeError, NonScalarError, ShapeError

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

    def test_each_fault_has_its_status(self):
        """One batch: well, nan in the data, slopes that are not finite, no way out of a corner, too few rounds."""
        kind = np.array([0, 1, 2, 3, 4])
        x0 = np.array([[1.0], [1.0], [0.0], [1.0], [9.0]])

        def r(p, kind, data):
            corner = np.where(p[0] == 1.0, p[0], np.nan)
            ways = [
                p[0] - 3.0,
                p[0] - 3.0,
                np.sqrt(np.abs(p[0])) - 1.0,
                corner - 3.0,
                np.exp(-p[0]) + np.sin(50.0 * p[0]),
            ]
            return np.stack([sum(np.where(kind == k, way, 0.0) for k, way in enumerate(ways)) - data, 1e-3 * p[0]])

        data = np.array([0.0, np.nan, 0.0, 0.0, 0.0])
        found = wichi.fit.least_squares_batch(r, x0, kind, data, max_rounds=60)
        assert found.success[0]
        assert found.status[1:4].tolist() == [-1, -2, -1]
        np.testing.assert_array_equal(found.x[1:4], x0[1:4])
        np.testing.assert_allclose(found.x[0], 3.0, rtol=1e-5)
        assert np.isnan(found.cov[1:4]).all()
        few = wichi.fit.least_squares_batch(r, x0, kind, data, max_rounds=3)
        assert few.status[4] == 0
        assert few.rounds[4] == 3
        np.testing.assert_array_equal(few.status[1], -1)

    def test_a_singular_normal_matrix_is_no_error_of_the_others(self):
        _, y = problems(3)
        both = lambda p, y, flag: np.where(flag, p[0] + p[1] - 2.0 + 0.1 * T, residual(p, y))  # noqa: E731
        flags = np.array([False, True, False])
        found = wichi.fit.least_squares_batch(both, np.ones((3, 4)), y, flags)
        alone = wichi.fit.least_squares_batch(residual, np.ones((3, 4)), y)
        np.testing.assert_allclose(found.x[[0, 2]], alone.x[[0, 2]], rtol=1e-10)
        assert np.isfinite(found.cov[[0, 2]]).all()
        assert np.isnan(found.cov[1]).any()  # only the sum of two parameters is known

    @pytest.mark.parametrize("options", [{}, {"threads": 2}, {"progress": True}])
    def test_ctrl_c_ends_a_batch(self, options):
        def slow(p, y):
            return wichi.fori_loop(0, 20_000, lambda i, v: np.sin(v) + p[0], p[0]) - y

        def fit():
            return wichi.fit.least_squares_batch(slow, np.ones((200_000, 1)), np.ones(200_000), **options)

        small = wichi.fit.least_squares_batch(slow, np.ones((2, 1)), np.ones(2))  # compiled
        timer = threading.Timer(0.3, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            fit()
        timer.join()
        again = wichi.fit.least_squares_batch(slow, np.ones((2, 1)), np.ones(2))
        np.testing.assert_array_equal(again.x, small.x)

    @pytest.mark.parametrize("options", [{}, {"threads": 2}, {"progress": True}])
    def test_empty_and_single_batches(self, options):
        for count in (0, 1):
            found = wichi.fit.least_squares_batch(residual, np.ones((count, 4)), np.zeros((count, 32)), **options)
            assert found.x.shape == (count, 4)
            assert found.cov.shape == (count, 4, 4)
            assert found.success.shape == (count,)

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
        with pytest.raises(DtypeError, match="p0s is i64"):
            wichi.fit.least_squares_batch(lambda p: p * 1.0, np.ones((2, 3), int))
        for threads in (0, -1, 1.5, True):
            with pytest.raises(ArgumentError, match="1 thread or more"):
                wichi.fit.least_squares_batch(residual, np.ones((5, 4)), np.ones((5, 32)), threads=threads)
        with pytest.raises(ShapeError, match="first axis counts items"):
            wichi.fit.least_squares_batch(lambda p: p, 1.0)
        with pytest.raises(NonScalarError):
            wichi.fit.minimize_batch(lambda p: p**2, np.ones((2, 3)))

    def test_an_exception_while_tracing_passes_in_threads_too(self):
        def wrong(p, y):
            raise ZeroDivisionError("of the user's")

        for options in ({}, {"threads": 2}):
            with pytest.raises(ZeroDivisionError, match="of the user's"):
                wichi.fit.least_squares_batch(wrong, np.ones((5, 4)), np.ones((5, 32)), **options)


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

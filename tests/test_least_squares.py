"""Factors of matrices and least squares: NumPy's values, derivatives, and what is refused (those of second order: test_primitives.py)."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError, ShapeError, SingularError

RNG = np.random.default_rng(0)
TALL, WIDE, STACK = RNG.standard_normal((5, 3)), RNG.standard_normal((3, 5)), RNG.standard_normal((2, 3, 4))
RIGHT = RNG.standard_normal((5, 2))
AT = np.linspace(0, 3, 20)
HEIGHTS = np.sin(AT) + 0.1 * RNG.standard_normal(20)
WEIGHTS = RNG.uniform(0.5, 1.5, 20)

FUNCTIONS = {
    "qr": (lambda a: [*np.linalg.qr(a)], True),
    "r": (lambda a: [np.linalg.qr(a, "r")], True),
    "svd": (lambda a: [*np.linalg.svd(a, full_matrices=False)], True),
    "svd values": (lambda a: [np.linalg.svd(a, compute_uv=False)], True),
    "svdvals": (lambda a: [np.linalg.svdvals(a)], True),
    "pinv": (lambda a: [np.linalg.pinv(a)], True),
    "lstsq": (lambda a: [*np.linalg.lstsq(a, np.ones((a.shape[0], 2)))], False),
    "lstsq of a vector": (lambda a: [*np.linalg.lstsq(a, np.arange(1.0, 1.0 + a.shape[0]), 1e-9)], False),
}
FITS = {
    "line": lambda x, y: [np.polyfit(x, y, 1)],
    "mean": lambda x, y: [np.polyfit(x, y, 0)],
    "weights": lambda x, y: [np.polyfit(x, y, 3, w=WEIGHTS)],
    "full": lambda x, y: [*np.polyfit(x, y, 2, full=True)],
    "covariance": lambda x, y: [*np.polyfit(x, y, 2, cov=True)],
    "unscaled": lambda x, y: [*np.polyfit(x, y, 2, cov="unscaled", rcond=1e-9)],
    "two at once": lambda x, y: [*np.polyfit(x, np.stack([y, y**2], 1), 1, cov=True)],
}


def same(function, *args, rtol=1e-10):
    for want, got in zip(function(*args), wichi.jit(function)(*args), strict=True):
        assert np.asarray(got).dtype == np.asarray(want).dtype
        assert np.shape(got) == np.shape(want)
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", ["f8", "f4", "i8"])
def test_values_are_numpys(name, kind):
    function, batched = FUNCTIONS[name]
    shapes = ((5, 3), (3, 5), (40, 30), (9, 70), (1, 4), (2, 3, 5)) if kind == "f8" else ((5, 3), (2, 3, 5))
    for shape in shapes:
        if len(shape) == 2 or batched:
            same(function, (9 * RNG.standard_normal(shape)).astype(kind), rtol=1e-3 if kind == "f4" else 1e-10)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_functions(name):
    function, batched = FUNCTIONS[name]
    floats = lambda a: [x for x in function(a) if x.dtype.kind == "f"]  # noqa: E731
    wichi.testing.check_grads(floats, (TALL,), order=1)
    wichi.testing.check_grads(floats, (STACK if batched else WIDE,), order=1)


def test_derivatives_of_least_squares_in_both():
    wichi.testing.check_grads(lambda a, b: np.linalg.lstsq(a, b)[:2], (TALL, RIGHT), order=1)
    wichi.testing.check_grads(lambda a, b: np.linalg.lstsq(a, b)[0], (WIDE, RIGHT[:3, 0]), order=1)
    orthogonal = np.eye(4)[:, :2]  # whose singular values are equal: no gap is divided by
    assert np.all(np.isfinite(wichi.grad(lambda a: np.sum(np.linalg.lstsq(a, np.arange(4.0))[0] ** 2))(orthogonal)))


def test_batches():
    for function, _ in FUNCTIONS.values():
        got = wichi.vmap(function)(STACK)
        for k, a in enumerate(STACK):
            for all_, one in zip(got, function(a), strict=True):
                np.testing.assert_allclose(all_[k], one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FITS)
def test_polyfit(name):
    function = FITS[name]
    same(function, AT, HEIGHTS, rtol=1e-8)
    if name == "line":  # the others are the same functions after the same casts
        same(function, AT.astype("f4"), HEIGHTS.astype("f4"), rtol=1e-2)
        same(function, np.arange(20), np.arange(20) ** 2 % 7, rtol=1e-8)
    floats = lambda x, y: [v for v in function(x, y) if getattr(v, "aval", np.zeros(0)).dtype.kind == "f"]  # noqa: E731
    wichi.testing.check_grads(floats, (AT, HEIGHTS), order=1)


def test_nothing_to_factor():
    for shape in ((0, 3), (3, 0), (2, 0, 3), (0, 0)):
        for name in ("qr", "r", "svd", "svd values", "pinv"):
            same(FUNCTIONS[name][0], np.zeros(shape))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda a: np.linalg.qr(a, "complete"), ArgumentError, "no mode 'complete'"),
        (lambda a: np.linalg.svd(a), ArgumentError, "full_matrices=False"),
        (lambda a: np.linalg.svd(a, hermitian=True), ArgumentError, "eigh"),
        (lambda a: np.linalg.svd(a[0]), ShapeError, "takes matrices"),
        (lambda a: np.linalg.lstsq(a, a[:2]), ShapeError, "lstsq of shapes"),
        (lambda a: np.linalg.lstsq(a[:0], a[:0]), ShapeError, "nothing to solve"),
        (lambda a: np.linalg.lstsq(0 * a + 1, a), SingularError, r"full rank(.*\n)*.*test_least_squares.py"),
        (lambda a: np.linalg.lstsq(np.nan * a, a), SingularError, "singular values do not converge|full rank"),
        (lambda a: np.linalg.pinv(a * 0), SingularError, "full rank"),
        (lambda a: np.polyfit(a[:, 0] * 0, a, 1), SingularError, "full rank"),
        (lambda a: np.polyfit(a, a, 1), ShapeError, "polyfit of shapes"),
        (lambda a: np.polyfit(a[:, 0], a, -1), ValueError, "deg >= 0"),
        (lambda a: np.polyfit(a[:2, 0], a[:2], 1, cov=True), ValueError, "must exceed"),
    ],
)
def test_refusals(call, error, text):
    with pytest.raises(error, match=text):
        wichi.jit(call)(TALL)
    if error is SingularError:
        with wichi.debug(), pytest.raises(SingularError):
            wichi.jit(call)(TALL)

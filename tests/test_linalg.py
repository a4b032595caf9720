"""Linear algebra: NumPy's values, derivatives to second order, batches, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
from wichi.errors import ShapeError, SingularError

RNG = np.random.default_rng(0)
A = RNG.normal(size=(4, 4)) + 6 * np.eye(4)
S = A @ A.T
B = RNG.normal(size=(4, 3))
W = RNG.normal(size=(4, 4))


def _power(found):
    """The power 1.5 of a matrix, from its eigenvalues and eigenvectors."""
    return found.eigenvectors * found.eigenvalues**1.5 @ found.eigenvectors.T


FUNCTIONS = {
    "solve": (lambda a: np.sum(np.sin(np.linalg.solve(a, B))), A),
    "solve_vector": (lambda a: np.sum(np.linalg.solve(a, B[:, 0]) ** 2), A),
    "solve_right": (lambda b: np.sum(np.linalg.solve(A, b) ** 3), B),
    "cholesky": (lambda a: np.sum(np.linalg.cholesky((a + a.T) / 2) * W), S),
    "inv": (lambda a: np.sum(np.linalg.inv(a) * W), A),
    "det": (lambda a: np.linalg.det(a) / 1e3, A),
    "slogdet": (lambda a: np.linalg.slogdet(a)[1] ** 2, A),
    "eigenvalues": (lambda a: np.sum(np.sin(np.linalg.eigh((a + a.T) / 20)[0]) * W[0]), S),
    "eigvalsh": (lambda a: np.sum(np.linalg.eigvalsh((a + a.T) / 20) ** 2 * W[0]), S),
    "eigenvectors": (lambda a: np.sum(np.linalg.eigh((a + a.T) / 20)[1] ** 2 * W), S),
    "power_of_a_matrix": (lambda a: np.sum(_power(np.linalg.eigh((a + a.T) / 20)) * W), S),
    "negative_det": (lambda a: np.linalg.det(a[::-1]) / 1e3, A),
}


@pytest.mark.parametrize("name", FUNCTIONS)
class TestFunctions:
    def test_value_and_derivatives(self, name):
        f, x = FUNCTIONS[name]
        np.testing.assert_allclose(wichi.jit(f)(x), f(x), rtol=1e-12)
        g = wichi.grad(f)
        for place in np.ndindex(*x.shape):
            e = np.zeros(x.shape)
            e[place] = 1e-6
            assert np.isclose(g(x)[place], (f(x + e) - f(x - e)) / 2e-6, rtol=1e-5, atol=1e-8)
        v = RNG.normal(size=x.shape)
        np.testing.assert_allclose(wichi.jvp(f, (x,), (v,))[1], np.sum(g(x) * v), rtol=1e-9)
        second = (g(x + 1e-6 * v) - g(x - 1e-6 * v)) / 2e-6
        np.testing.assert_allclose(wichi.hvp(f, (x,), (v,)), second, rtol=1e-5, atol=1e-7)
        reverse = wichi.grad(lambda y: np.sum(g(y) * v))(x)
        np.testing.assert_allclose(reverse, second, rtol=1e-5, atol=1e-7)

    def test_batches(self, name):
        f, x = FUNCTIONS[name]
        xs = np.stack([x, 1.1 * x])
        np.testing.assert_allclose(wichi.vmap(f)(xs), [f(v) for v in xs])
        np.testing.assert_allclose(wichi.vmap(wichi.grad(f))(xs), [wichi.grad(f)(v) for v in xs], rtol=1e-10)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("trans", [0, 1])
def test_triangular(lower, trans):
    from scipy.linalg import solve_triangular

    def f(a, b):
        return np.sum(wichi.numpy.linalg.solve_triangular(a, b, lower=lower, trans=trans) * np.sin(b))

    def plain(a, b):
        return np.sum(solve_triangular(a, b, lower=lower, trans=trans) * np.sin(b))

    np.testing.assert_allclose(wichi.jit(f)(A, B), plain(A, B))
    ga, gb = wichi.grad(f, argnums=(0, 1))(A, B)
    for g, x, along in ((ga, A, lambda e: (A + e, B)), (gb, B, lambda e: (A, B + e))):
        for place in np.ndindex(*x.shape):
            e = np.zeros(x.shape)
            e[place] = 1e-6
            assert np.isclose(g[place], (plain(*along(e)) - plain(*along(-e))) / 2e-6, atol=1e-7)


def test_inside_a_loop_and_batched_by_hand():
    stack = np.stack([A, 2 * A])
    np.testing.assert_allclose(wichi.jit(np.linalg.solve)(stack, np.stack([B, B])), np.linalg.solve(stack, B))
    f = lambda b: wichi.fori_loop(0, 3, lambda i, x: np.linalg.solve(A, x), b)  # noqa: E731
    inverse = np.linalg.inv(A)
    np.testing.assert_allclose(wichi.jit(f)(B), inverse @ inverse @ inverse @ B)
    g = wichi.grad(lambda b: np.sum(f(b) * B))(B)
    np.testing.assert_allclose(g, (inverse @ inverse @ inverse).T @ B)


def test_eager_tensors():
    a = wichi.Tensor(A)
    loss = np.sum(np.linalg.solve(a, B) ** 2) + np.linalg.slogdet(a)[1]
    loss.backward()
    g = wichi.grad(lambda a: np.sum(np.linalg.solve(a, B) ** 2) + np.linalg.slogdet(a)[1])(A)
    np.testing.assert_allclose(a.grad, g, rtol=1e-10)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_empty_matrices(batch):
    e, b, none = np.ones((*batch, 0, 0)), np.ones((*batch, 0, 3)), np.ones((*batch, 4, 0))
    assert wichi.jit(np.linalg.solve)(e, b).shape == b.shape
    assert wichi.jit(np.linalg.solve)(np.broadcast_to(A, (*batch, 4, 4)), none).shape == none.shape
    assert wichi.jit(np.linalg.inv)(e).shape == wichi.jit(np.linalg.cholesky)(e).shape == e.shape
    assert wichi.jit(wichi.numpy.linalg.solve_triangular)(e, b).shape == b.shape
    np.testing.assert_array_equal(wichi.jit(np.linalg.det)(e), np.linalg.det(e))
    np.testing.assert_array_equal(wichi.grad(lambda e: np.sum(np.linalg.det(e)))(e), e)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_nothing_is_solved_for_a_gradient_without_elements(shape):
    a = np.zeros(shape)  # a.T @ a is singular where it is not empty
    f = lambda a: np.linalg.det(a.T @ a)  # noqa: E731
    assert wichi.grad(f)(a).shape == shape
    assert wichi.value_and_grad(f)(a)[0] == f(a)
    assert wichi.jvp(f, (a,), (a,))[1] == 0.0
    assert wichi.hessian(f)(a).shape == (*shape, *shape)


@pytest.mark.parametrize("kind", ["f8", "f4"])
@pytest.mark.parametrize("triangle", ["L", "U", "l"])
def test_eigenvectors_have_numpys_signs(kind, triangle):
    a = np.stack([S, W, np.arange(16.0).reshape(4, 4)]).astype(kind)
    for function in (lambda a: [*np.linalg.eigh(a, triangle)], lambda a: [np.linalg.eigvalsh(a, UPLO=triangle)]):
        for want, got in zip(function(a), wichi.jit(function)(a), strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=1e-4 if kind == "f4" else 1e-12, atol=1e-12)
    unread = wichi.grad(lambda a: np.sum(np.linalg.eigh(a, triangle)[0][..., 1] ** 2))(a)
    np.testing.assert_array_equal(unread, np.triu(unread) if triangle == "U" else np.tril(unread))


def test_eigenvectors_of_equal_eigenvalues_have_no_derivative():
    eye = np.eye(3)
    np.testing.assert_allclose(wichi.grad(lambda a: np.sum(np.linalg.eigvalsh(a) ** 2))(eye), 2 * eye)
    assert not np.all(np.isfinite(wichi.grad(lambda a: np.linalg.eigh(a)[1][0, 1])(eye)))


def test_eigenvalues_of_large_matrices_and_of_none():
    a = RNG.normal(size=(60, 60))
    for want, got in zip(np.linalg.eigh(a), wichi.jit(np.linalg.eigh)(a), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-11)
    got = wichi.jit(np.linalg.eigh)(np.ones((2, 0, 0)))
    assert got.eigenvalues.shape == (2, 0)
    assert got.eigenvectors.shape == (2, 0, 0)
    run = wichi.jit(lambda a: wichi.scan(lambda c, _: (c, np.linalg.eigvalsh(c)), a, None, 2)[1])
    np.testing.assert_allclose(run(S), np.stack([np.linalg.eigvalsh(S)] * 2))


def test_float32_stays_float32():
    out = wichi.jit(np.linalg.solve)(A.astype("f4"), B.astype("f4"))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, np.linalg.solve(A, B), rtol=1e-4)


class TestRefusals:
    def test_singular(self):
        for again in range(3):
            with pytest.raises(SingularError, match=r"singular.*\n.*test_linalg.py"):
                wichi.jit(lambda a: np.linalg.solve(a, B))(np.zeros((4, 4)) * again)
        triangular = wichi.jit(lambda a: wichi.numpy.linalg.solve_triangular(a, B, lower=True))
        np.testing.assert_allclose(triangular(np.tril(A)), np.linalg.solve(np.tril(A), B))
        for run in (triangular, wichi.vmap(triangular)):
            a = np.tril(A) - np.diag([0.0, A[1, 1], 0.0, 0.0])
            with pytest.raises(SingularError, match=r"solve_triangular: .* singular.*\n.*test_linalg.py"):
                run(a if run is triangular else np.stack([np.eye(4), a]))
            with wichi.debug(), pytest.raises(SingularError, match="singular"):
                triangular(a)
        singular = np.arange(9.0).reshape(3, 3) * 0 + 1
        assert wichi.jit(np.linalg.det)(singular) == 0.0
        for f in (np.linalg.det, lambda a: np.linalg.slogdet(a)[1]):
            with pytest.raises(SingularError, match=r"singular.*\n.*backward of .*test_linalg.py"):
                wichi.grad(lambda a, f=f: f(a))(singular)
        with pytest.raises(SingularError, match=r"singular.*\n.*scan|singular.*\n.*test_linalg"):
            wichi.scan(lambda c, _: (np.linalg.solve(c, c) * 0.0, None), A, None, 3)
        with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
            wichi.jit(np.linalg.cholesky)(-S)

    def test_shapes(self):
        with pytest.raises(ShapeError, match="solve of shapes"):
            wichi.jit(np.linalg.solve)(A, np.ones(3))
        with pytest.raises(ShapeError, match="eigh of shape"):
            wichi.jit(np.linalg.eigh)(B)
        with pytest.raises(ValueError, match="UPLO"):
            wichi.jit(lambda a: np.linalg.eigh(a, "X"))(A)
        with pytest.raises(ShapeError, match="inv of shape"):
            wichi.jit(np.linalg.inv)(B)

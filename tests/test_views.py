"""What shares memory in NumPy: a write is seen through every name, as NumPy shows it, or refused. Never missed."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
import wichi.numpy as wnp
from wichi.errors import ConditionError, PlainArrayError, PlainArrayWriteError, ShapeError

X = np.arange(1.0, 7.0).reshape(2, 3)


@wichi.custom_vjp
def itself(x):
    return x


itself.defvjp(lambda x: (x, None), lambda _, ct: (ct,))

# What NumPy answers with a view, with a copy, or with the array itself.
MADE = [
    lambda x: x[0], lambda x: x[-1], lambda x: x[np.int64(0)], lambda x: x[:, 1:], lambda x: x[::-1], lambda x: x[None],
    lambda x: x[:, None, 1], lambda x: x[...], lambda x: x[()], lambda x: x[1, None, ::2], lambda x: next(iter(x)),
    lambda x: x[[0, 1]], lambda x: x[:, [0]], lambda x: x[X > 2], lambda x: x.reshape(3, 2), lambda x: x.reshape(2, 3),
    lambda x: x.ravel(), lambda x: x.flatten(), lambda x: x.T, lambda x: x.mT, lambda x: np.transpose(x, (0, 1)),
    lambda x: np.swapaxes(x, 0, 0), lambda x: np.moveaxis(x, 0, 0), lambda x: np.squeeze(x), lambda x: np.expand_dims(x, 0),
    lambda x: np.broadcast_arrays(x, x[0])[0], lambda x: x.copy(), lambda x: np.copy(x), lambda x: wnp.array(x),
    lambda x: wnp.asarray(x), lambda x: x.astype(float), lambda x: x.astype(float, copy=False), lambda x: x.astype(np.float32),
    lambda x: np.concatenate([x]), lambda x: np.stack([x]), lambda x: np.vstack([x]), lambda x: np.hstack([x]),
    lambda x: np.tile(x, 1), lambda x: np.repeat(x, 1, axis=0), lambda x: np.pad(x, 0), lambda x: np.roll(x, 0),
    lambda x: np.roll(x, 0, axis=0), lambda x: np.flip(x), lambda x: np.fliplr(x), lambda x: np.rot90(x, 4),
    lambda x: np.split(x, 1)[0], lambda x: np.hsplit(x, [1])[0], lambda x: np.array_split(x, 3)[0], lambda x: np.atleast_1d(x),
    lambda x: np.atleast_3d(x), lambda x: np.tril(x, 5), lambda x: np.diag(x), lambda x: np.diagonal(x), lambda x: +x,
    lambda x: np.positive(x), lambda x: x + 0.0, lambda x: x * 1, lambda x: x**1, lambda x: np.negative(-x), lambda x: np.abs(x),
    lambda x: np.real(x), lambda x: x.real, lambda x: np.conj(x), lambda x: x.conj(), lambda x: np.round(x), lambda x: np.clip(x, 0, 100),
    lambda x: np.nan_to_num(x), lambda x: np.nan_to_num(x, copy=False), lambda x: np.where(True, x, 0.0), lambda x: np.maximum(x, x),
    lambda x: np.sum(x, axis=()), lambda x: np.mean(x, axis=()), lambda x: np.max(x, axis=()), lambda x: np.prod(x, axis=()),
    lambda x: np.cumsum(x[:1], axis=0), lambda x: np.diff(x, n=0), lambda x: np.take(x, [0, 1], axis=0),
    lambda x: np.einsum("ij->ij", x), lambda x: np.einsum("ij->ji", x), lambda x: np.einsum("ii->i", x[:, :2]),
    lambda x: np.dot(x, 1.0), lambda x: np.meshgrid(x[0], copy=False)[0], lambda x: wnp.relu(x),
    lambda x: np.full_like(x[0], x[0]), lambda x: wichi.stop_gradient(x), lambda x: itself(x), lambda x: wichi.checkpoint(lambda v: v)(x),
    lambda x: wichi.jit(lambda v: v)(x), lambda x: wichi.vmap(lambda v: v)(x), lambda x: wichi.cond(True, lambda v: v, lambda v: v, x),
]  # fmt: skip


def seen_there(make):
    def f(x):
        x = x * 1.0
        y = make(x)
        x[0] = 90.0
        return y * 1.0

    return f


def seen_here(make):
    def f(x):
        x = x * 1.0
        y = make(x)
        y[...] = 70.0
        return x * 1.0

    return f


@pytest.mark.parametrize("write", [seen_there, seen_here])
@pytest.mark.parametrize("number", range(len(MADE)))
def test_writes_are_seen_as_in_numpy_or_refused(number, write):
    f = write(MADE[number])
    with wichi.debug():
        try:
            found = wichi.jit(f)(X)
        except PlainArrayWriteError:
            return
    try:
        expected = f(X)
    except ValueError:  # NumPy made a view that cannot be written
        return
    np.testing.assert_array_equal(found, expected)


def test_views_by_index_are_followed_and_not_merely_refused():
    for make in MADE[:11]:
        for write in (seen_there, seen_here):
            np.testing.assert_array_equal(wichi.jit(write(make))(X), write(make)(X))


@pytest.mark.parametrize("n", [3, 40])
def test_a_row_taken_by_a_traced_integer_is_a_view(n):
    def body(i, a):
        row = a[i]
        row[0] = 5.0
        row += i
        a[i, 1] = row[0] * 2
        return a

    a = np.arange(2.0 * n).reshape(n, 2)
    expected = a.copy()
    for i in range(n):
        body(i, expected)
    np.testing.assert_array_equal(wichi.fori_loop(0, n, body, a), expected)
    wichi.testing.check_grads(lambda a: wichi.fori_loop(0, n, body, a), (a,))


# --- out=, and functions that change an argument -------------------------------------------------------------------
def into_out(x):
    a, b = wnp.empty(3), wnp.zeros((2, 3))
    np.multiply(x[0], 2.0, out=a)
    np.add(b[0], a, out=b[0])
    np.sum(x, axis=0, out=b[1])
    return b


def copied_to(x):
    y = wnp.zeros((2, 3))
    np.copyto(y, x)
    np.copyto(y, -1.0, where=x > 3.5)
    np.copyto(y[0], x[1])
    return y


def put(x):
    np.put(x, [0, 5, -2], [10.0, x[0, 1]])
    return x


def put_mask(x):
    np.putmask(x, x > 2.5, x**2)
    return x


def filled(x):
    x[0].fill(x[1, 1])
    np.fill_diagonal(x, [7.0, 8.0])
    return x


def made_like(x):
    a, b, c = np.zeros_like(x), np.empty_like(x), np.full_like(x, 2.0)
    b[...] = x
    a[1:] = b[:1]
    c[0] *= x[0]
    c[x > 4.5] = 0.5
    return a + b * c


def made_by_wichi(x):
    a, b, c, d = wnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), wnp.full(3, 2.0), wnp.ones((3,)), wnp.ones_like(X)
    a[0], b[1], c[2] = x[0], x[1, 1], x[0, 0]
    d[1] = x[1]
    return a * b + c + d


def made_like_by_numpy(x):
    a = np.zeros((2, 3), like=x) if isinstance(x, wichi.trace.boxed.Boxed) else np.zeros((2, 3))
    a[1] = x[0] * x[1]
    return a


@pytest.mark.parametrize(
    "change", [into_out, copied_to, put, put_mask, filled, made_like, made_by_wichi, made_like_by_numpy]
)
def test_functions_that_write(change):
    def f(x):
        return change(x * 1.0)

    np.testing.assert_allclose(wichi.jit(f)(X), f(X), rtol=1e-14)
    wichi.testing.check_grads(f, (X,), order=2)


def test_functions_that_write_need_an_array_that_can_be_written():
    for write in (
        lambda a, x: np.add.at(a, [0, 1], x),
        lambda a, x: np.copyto(a, x),
        lambda a, x: np.multiply(x, 2.0, out=a),
        lambda a, x: np.put(a, [0, 1], x),
    ):
        with pytest.raises(PlainArrayWriteError, match=r"wichi.numpy.zeros"):
            wichi.jit(lambda x, write=write: (a := np.zeros(2), write(a, x))[0])(np.ones(2))
    with pytest.raises(ShapeError, match=r"out= has shape \(3,\), and the result has shape \(2,\)"):
        wichi.jit(lambda x: np.multiply(x, 2.0, out=wnp.zeros(3)))(np.ones(2))
    with pytest.raises(PlainArrayWriteError, match=r"x = x.reshape"):
        wichi.jit(lambda x: setattr(x, "shape", (1, 2)))(np.ones(2))


# --- parts by a mask of values -----------------------------------------------------------------------------------------
def doubled(x):
    x[x > 1.5] = x[x > 1.5] * 2


def inside_its_domain(x):
    m = x > 1.5
    x[m] = np.log(x[m] - 1.2) + 1 / (x[m] - 1.0)


def of_itself(x):
    m = x > 1.5
    x[m] = -x[m] + np.sin(x[m]) * x[m] ** 2 - 3 / x[m]
    x[~m] += 1.0


def taken_before(x):
    m = x > 1.5
    part = x[m]
    x[1] = 9.0
    x[m] = part


def of_another_array(x):
    m, y = x > 1.5, x * 2
    x[m] = y[m] + x[m]


@pytest.mark.parametrize("change", [doubled, inside_its_domain, of_itself, taken_before, of_another_array])
def test_masked_parts(change):
    def f(x):
        x = x * 1.0
        change(x)
        return x

    x = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(wichi.jit(f)(x), f(x))
    wichi.testing.check_grads(f, (x,), order=2)


def test_parts_of_different_masks_do_not_meet():
    def f(x):
        x[x > 1.5] = x[x < 1.5]
        return x

    with pytest.raises(ConditionError, match="shape does too"):
        wichi.jit(f)(np.array([1.0, 2.0]))
    with pytest.raises(ConditionError, match="shape does too"):
        wichi.jit(lambda x: x[x > 1.5].sum())(np.array([1.0, 2.0]))


# --- what people wrote for HIPS autograd: issues 13, 58, 177, 375, 515, 556, 559 ---------------------------------------
def block(make):
    def f(a):  # 58
        b = make((4, 4))
        b[:2, :2] = a
        return b.sum()

    return f, np.ones((2, 2)), np.ones((2, 2))


def one_by_one(make):
    def f(p):  # 13, 177
        res = make(5)
        for m in range(5):
            res[m] = np.sum(p[m] * p[0])
        return np.sum(res)

    p = np.arange(15.0).reshape(5, 3)
    expected = np.tile(p[0], (5, 1))
    expected[0] = p.sum(0) + p[0]
    return f, p, expected


def vector(make):
    def f(b):  # 375
        c = make(2)
        c[0] = b[0] * b[0]
        c[1] = b[1] * b[0] + b[2]
        return np.sum(c)

    return f, np.array([1.0, 2.0, 2.0]), np.array([4.0, 1.0, 1.0])


def conjugate_gradients(make):
    def solve(a, b, x, tol):
        r = b - a @ x
        p = r + 0.0
        for _ in range(a.shape[0]):
            alpha = np.dot(p, r) / np.dot(p, a @ p)
            x = x + alpha * p
            left = r - alpha * (a @ p)
            if np.linalg.norm(left) < tol:
                return x
            p, r = left + np.dot(left, left) / np.dot(r, r) * p, left
        return x

    def f(b):  # 556
        a = np.array([[4.0, 1.0], [1.0, 3.0]])
        x = make((2, 2))
        for z in range(2):
            x[:, z] = solve(a, b[:, z], np.zeros(2), 1e-12)
        return np.sum(x**2)

    b = np.array([[1.0, 2.0], [2.0, -1.0]])
    m = np.linalg.inv(np.array([[4.0, 1.0], [1.0, 3.0]]))
    return f, b, 2 * m.T @ m @ b


def held_outside(make):
    a = np.ones((7, 7))

    def f(b):  # 559
        held = a if make is np.zeros else wnp.array(a)
        held[2:5, 3:6] = b.flatten().reshape(3, 3)
        return np.sum(held**2)

    return f, 2.0 * np.ones((3, 3)), 4.0 * np.ones((3, 3))


SNIPPETS = [block, one_by_one, vector, conjugate_gradients, held_outside]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_of_users(snippet):
    f, x, expected = snippet(wnp.zeros)
    np.testing.assert_allclose(wichi.grad(f)(x), expected, rtol=1e-9)
    f, x, _ = snippet(np.zeros)
    with pytest.raises(PlainArrayWriteError, match=r"test_views.py:\d+(.*\n)*.*= wichi.numpy.zeros"):
        wichi.grad(f)(x)


def test_snippet_with_a_matrix_of_values():  # 515
    def f(k, make):
        m = make([[k[0], k[1], 0.5], [0.0, k[2], 0.25], [0.0, 0.0, 1.0]])
        return np.sum(np.dot(np.linalg.inv(m), np.append(k[:2], 1.0)))

    k = np.array([1.5, 0.3, 2.0])
    with pytest.raises(PlainArrayError, match=r"fix: wichi.numpy.array\(\[\[k\[0\], k\[1\], 0.5\], "):
        wichi.grad(lambda k: f(k, lambda rows: np.array([[k[0], k[1], 0.5], [0.0, k[2], 0.25], [0.0, 0.0, 1.0]])))(k)
    wichi.testing.check_grads(lambda k: f(k, wnp.array), (k,), order=2)

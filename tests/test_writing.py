"""Writing into values: the numbers NumPy gives, the derivatives of the rest, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import wichi
import wichi.numpy as wnp
from wichi.errors import ConditionError, DtypeError, PlainArrayWriteError

X = np.random.default_rng(0).normal(size=(5, 4))
V = np.random.default_rng(1).normal(size=4)


def set_row(x, v):
    x[1] = v


def set_slice(x, v):
    x[1:4, ::2] = v[:2]


def add_slice(x, v):
    x[:, 1] += v[0]


def set_negative_step(x, v):
    x[::-2, 1:] = v[1:] * 2.0


def set_one(x, v):
    x[2, -1] = v[0] * v[1]


def set_rows_by_array(x, v):
    x[np.array([0, 3])] = v


def set_mixed(x, v):
    x[np.array([0, 3]), 1:3] = v[:2]


def set_with_new_axis(x, v):
    x[None, 2] = v


def mask_plain(x, v):
    x[X > 0.3] = v[0]


def mask_of_values(x, v):
    x[x > 0.3] = v[0]


def mask_changed(x, v):
    x[x > 0.3] *= v[0]
    x[x < 0.0] += 2.0
    x[x > 0.5] **= 2


def through_a_view(x, v):
    y = x[1:4]
    y[0] = v
    y[1:, 2] += v[3]


def view_sees_the_write(x, v):
    y = x[1:]
    x[2] = v
    x[0] = y[1] * y[1]


def whole_array(x, v):
    x += v
    x *= 2.0


def alias(x, v):
    y = x
    y[0] = v
    y -= v


def swap(x, v):
    for i in range(3):
        x[i], x[i + 1] = x[i + 1] * v, x[i] * 1.0


def overlapping(x, v):
    x[1:] = x[:-1]
    x[:, 1:] = x[:, :-1] * 1.0
    x[::2] = x[::-2]


def copies(x, v):
    a, b, c, d = x.copy(), np.copy(x), x.astype(float), x.flatten()
    a[0], b[1], c[2], d[3] = v, v * 2, v * 3, v[0]
    x[3] = a[3] + b[0] + c[1] + d[:4]


CASES = [
    set_row, set_slice, add_slice, set_negative_step, set_one, set_rows_by_array, set_mixed, set_with_new_axis,
    mask_plain, mask_of_values, mask_changed, through_a_view, view_sees_the_write, whole_array, alias, swap, overlapping, copies,
]  # fmt: skip
WEIGHTS = np.random.default_rng(2).normal(size=X.shape)


@pytest.mark.parametrize("change", CASES, ids=lambda f: f.__name__)
class TestWrites:
    @staticmethod
    def applied(change):
        def f(x, v):
            x = x * 1.0
            change(x, v)
            return np.sum(np.sin(x) * WEIGHTS)

        return f

    def test_value(self, change):
        f = self.applied(change)
        assert np.isclose(wichi.jit(f)(X, V), f(X.copy(), V))

    def test_gradient(self, change):
        f = self.applied(change)
        gx, gv = wichi.grad(f, argnums=(0, 1))(X, V)
        for g, x, along in ((gx, X, lambda e: (X + e, V)), (gv, V, lambda e: (X, V + e))):
            for place in np.ndindex(*x.shape):
                e = np.zeros(x.shape)
                e[place] = 1e-6
                assert np.isclose(g[place], (f(*along(e)) - f(*along(-e))) / 2e-6, atol=1e-6), place

    def test_forward_and_vmap(self, change):
        f = self.applied(change)
        gx, gv = wichi.grad(f, argnums=(0, 1))(X, V)
        _, along = wichi.jvp(f, (X, V), (X, V))
        assert np.isclose(along, np.sum(gx * X) + np.sum(gv * V))
        if change not in (mask_of_values, mask_changed):
            both = wichi.vmap(f)(np.stack([X, 2 * X]), np.stack([V, V]))
            assert np.allclose(both, [f(X.copy(), V), f(2 * X, V)])


def test_arrays_made_inside():
    def f(x):
        out = wnp.zeros((3, 2))
        for i in range(3):
            out[i] = x * (i + 1)
        total = wnp.empty(2)
        total[:] = np.sum(out, axis=0)
        return np.sum(total**2)

    x = np.array([1.0, 2.0])
    np.testing.assert_allclose(wichi.grad(f)(x), 2 * 36 * x)
    assert isinstance(wnp.zeros(3), np.ndarray)


def test_array_copies_and_asarray_does_not():
    def f(x):
        x = x * 1.0
        a, b = wnp.array(x), wnp.asarray(x)
        a[0], b[1] = 10.0, 20.0
        return x, a

    x, a = wichi.jit(f)(np.zeros(3))
    assert x.tolist() == [0, 20, 0]
    assert a.tolist() == [10, 0, 0]


def test_argument_of_the_caller_stays_as_it_is():
    def f(x):
        x[0] = 0.0
        return np.sum(x**2)

    x = np.ones(3)
    np.testing.assert_allclose(wichi.grad(f)(x), [0, 2, 2])
    np.testing.assert_allclose(x, 1.0)


def test_last_of_equal_indices_stands_and_alone_has_a_derivative():
    index = np.array([1, 1, 2])

    def f(x, u):
        return np.sum(x.at[index].set(u) * np.arange(1.0, 4.0))

    gx, gu = wichi.grad(f, argnums=(0, 1))(np.ones(3), np.array([5.0, 6.0, 7.0]))
    np.testing.assert_allclose(gx, [1, 0, 0])
    np.testing.assert_allclose(gu, [0, 2, 3])


def test_at():
    x, i = np.arange(5.0), np.array([0, 3])
    jit = wichi.jit
    np.testing.assert_allclose(jit(lambda x: x.at[i].set(9.0))(x), [9, 1, 2, 9, 4])
    np.testing.assert_allclose(jit(lambda x: x.at[np.array([1, 1])].add(1.0))(x), [0, 3, 2, 3, 4])
    np.testing.assert_allclose(jit(lambda x: x.at[i].multiply(2.0))(x), [0, 1, 2, 6, 4])
    np.testing.assert_allclose(jit(lambda x: x.at[1:4].min(2.0))(x), [0, 1, 2, 2, 4])
    np.testing.assert_allclose(jit(lambda x: x.at[::2].max(3.0))(x), [3, 1, 3, 3, 4])
    np.testing.assert_allclose(jit(lambda x: x.at[i].get())(x), [0, 3])
    np.testing.assert_allclose(jit(lambda x, k: x.at[k].set(9.0))(x, 2), [0, 1, 9, 3, 4])


AT = {"set": None, "add": np.add, "multiply": np.multiply, "min": np.minimum, "max": np.maximum}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("indices", [(np.array([1, -2, 2, 1]),), (np.array([0, 1, 0, 1]), np.array([2, 0, 2, 0]))])
@pytest.mark.parametrize("op", AT)
def test_at_indices_that_repeat(op, indices, known):
    """Against ``numpy.ufunc.at``, with indices known while tracing and with indices that are arguments."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4))
    u = rng.normal(size=(4, *x.shape[len(indices) :]))
    u[1] = 0.0  # a product is differentiated at zeros too

    def f(x, u, *i):
        return getattr(x.at[indices if known else i], op)(u)

    expected = x.copy()
    if AT[op] is None:
        expected[indices] = u
    else:
        AT[op].at(expected, indices, u)
    given = () if known else indices
    np.testing.assert_allclose(wichi.jit(f)(x, u, *given), expected, rtol=1e-14)
    wichi.testing.check_grads(lambda x, u: wichi.jit(f)(x, u, *given), (x, u), order=2)
    many = wichi.vmap(f, (0, None, *[0] * len(given)))(np.stack([x, -x]), u, *[np.stack([i, i[::-1]]) for i in given])
    for k in range(2):
        one = [np.stack([i, i[::-1]])[k] for i in given]
        np.testing.assert_allclose(many[k], wichi.jit(f)(x if k == 0 else -x, u, *one), rtol=1e-14)
    if op != "set":
        ufunc_at = wichi.jit(lambda x, u, *i: (x := x * 1.0, AT[op].at(x, indices if known else i, u))[0])
        np.testing.assert_allclose(ufunc_at(x, u, *given), expected, rtol=1e-14)


def test_at_shares_the_derivative_of_ties_and_keeps_nan():
    x, u, i = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 5.0]), np.array([1, 1, 2])
    gx, gu = wichi.grad(lambda x, u: np.sum(x.at[i].max(u)), argnums=(0, 1))(x, u)
    np.testing.assert_allclose(gx, [1.0, 1 / 3, 0.0])
    np.testing.assert_allclose(gu, [1 / 3, 1 / 3, 1.0])
    found = wichi.jit(lambda x, u: x.at[i].min(u))(x, np.array([np.nan, 1.0, 1.0]))
    np.testing.assert_array_equal(found, [1.0, np.nan, 1.0])


@pytest.mark.parametrize("op", AT)
def test_at_outside_is_an_error_with_the_line(op):
    with pytest.raises(IndexError, match=r"test_writing.py:\d+.*getattr\(x.at\[i\], op\)"):
        wichi.jit(lambda x, i: getattr(x.at[i], op)(1.0))(np.ones(3), np.array([0, 3]))


@pytest.mark.parametrize("n", [4, 50])
def test_in_loop_bodies(n):
    def f(x):
        def body(i, a):
            a[i + 1] = np.sin(a[i]) + x[i]
            return a

        return np.sum(wichi.fori_loop(0, n - 1, body, x * 1.0) ** 2)

    def plain(x):
        a = x * 1.0
        for i in range(n - 1):
            a[i + 1] = np.sin(a[i]) + x[i]
        return np.sum(a**2)

    x = np.random.default_rng(0).normal(size=n)
    assert np.isclose(wichi.jit(f)(x), plain(x))
    g = wichi.grad(f)(x)
    for i in range(0, n, 7):
        e = np.zeros(n)
        e[i] = 1e-6
        assert np.isclose(g[i], (plain(x + e) - plain(x - e)) / 2e-6, atol=1e-5)


@pytest.mark.parametrize("n", [6, 40])
def test_overlapping_writes_in_loop_bodies(n):
    def body(i, a):
        a[1:] = a[:-1]
        a[0] = a[n - 1] + i
        a[np.arange(2)] = a[np.arange(2) + 2]
        return a

    a = np.arange(float(n))
    found = wichi.fori_loop(0, 5, body, a)
    for i in range(5):
        a = body(i, a)
    np.testing.assert_array_equal(found, a)


def test_a_write_in_a_loop_costs_what_it_writes():
    """Counted in loops of the program: none of the length of the array runs once a round."""
    f = wichi.jit(lambda x: wichi.fori_loop(0, len(x), lambda i, a: a.at[i].set(a[i] * 2.0), x))
    text = f.source(np.zeros(1000))
    body = text[text.index("for ", text.index("def nest0")) :]
    rounds = [line for line in body.splitlines() if line.strip().startswith("for ")]
    inner = [line for line in rounds if len(line) - len(line.lstrip()) > 4]
    assert len(rounds) > 1, text  # the copy of the argument, and the rounds themselves
    assert not inner, text
    np.testing.assert_allclose(f(np.arange(1000.0)), 2 * np.arange(1000.0))


class TestRefusals:
    def test_index_outside(self):
        with pytest.raises(IndexError):
            wichi.jit(lambda x, i: x.at[i].set(1.0))(np.ones(3), 3)
        with pytest.raises(IndexError):
            wichi.jit(lambda x: x.at[5].set(1.0))(np.ones(3))

    def test_views_of_another_kind(self):
        def written(x):
            y = x.reshape(4, 5)
            y[0] = 1.0
            return np.sum(y)

        def looked_at(x):
            y = x.T
            x[0] = 1.0
            return np.sum(y)

        for f in (written, looked_at):
            with pytest.raises(PlainArrayWriteError, match=r"share memory.*\n(.*\n)*.*\.copy\(\)"):
                wichi.jit(f)(X)

    def test_values_of_a_function_around(self):
        def f(x):
            def body(c, i):
                x[i] = c
                return c, None

            return wichi.scan(body, 1.0, np.arange(3))[0] + np.sum(x)

        with pytest.raises(PlainArrayWriteError, match="belongs to a function around this one"):
            wichi.jit(f)(np.ones(3))

    def test_floats_into_integers(self):
        with pytest.raises(DtypeError, match="cut it off"):
            wichi.jit(lambda x, v: x.at[0].set(v))(np.arange(3), 1.5)

    def test_dtype_or_shape_of_an_in_place_operation(self):
        def f(x, v):
            x += v
            return x

        with pytest.raises(DtypeError, match=r"would turn i64\[3\] into f64\[3\]"):
            wichi.jit(f)(np.arange(3), 1.5)

    def test_a_masked_part_has_no_known_shape(self):
        with pytest.raises(ConditionError, match="shape does too"):
            wichi.jit(lambda x: np.sum(x[x > 0]))(X)

    def test_plain_arrays_say_how(self):
        def f(x):
            a = np.zeros(3)
            a[0] = x
            return np.sum(a)

        with pytest.raises(PlainArrayWriteError, match=r"a = wichi.numpy.zeros"):
            wichi.grad(f)(1.0)


SPRINGS = np.array([0, 1, 1]), np.array([2, 3, 4])


def _forces(u):
    force, a = u[SPRINGS[0]] - u[SPRINGS[1]], np.zeros_like(u)
    np.add.at(a, SPRINGS[0], -force)
    np.add.at(a, SPRINGS[1], force)
    return u + 0.1 * a


def _shifted(u):
    u = u * 1.0
    u[SPRINGS[0]] = u[SPRINGS[1]] * np.sin(u[SPRINGS[0]])
    return u


def _repeated(u):
    u = u * 1.0
    u[[0, 0, 2]] += 0.5 * u[[1, 3, 3]]
    return u


@pytest.mark.parametrize("step", [_forces, _shifted, _repeated, lambda u: u.at[SPRINGS[0]].max(u[SPRINGS[1]] * 0.9)])
@pytest.mark.parametrize("loop", ["scan", "fori", "while"])
def test_bodies_that_read_and_write_at_the_same_places(step, loop):
    def f(u):
        if loop == "scan":
            return np.sum(wichi.scan(lambda u, _: (step(u), np.sum(u)), u, length=3)[0] ** 2)
        if loop == "fori":
            return np.sum(wichi.fori_loop(0, 3, lambda i, u: step(u), u) ** 2)
        return np.sum(wichi.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, step(c[1])), (0, u))[1] ** 2)

    def plain(u):
        for _ in range(3):
            u = wichi.jit(step)(u)
        return np.sum(u**2)

    u = np.array([0.3, 1.2, 2.1, 2.9, 4.2])
    value, slope = wichi.value_and_grad(f)(u)
    assert value == pytest.approx(plain(u))
    differences = [(plain(u + e) - plain(u - e)) / 2e-6 for e in 1e-6 * np.eye(5)]
    np.testing.assert_allclose(slope, differences, rtol=1e-6, atol=1e-8)
    rows = [(wichi.grad(f)(u + e) - wichi.grad(f)(u - e)) / 2e-6 for e in 1e-6 * np.eye(5)]
    np.testing.assert_allclose(wichi.hessian(f)(u), rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(wichi.vmap(wichi.grad(f))(np.stack([u, u * 0.9]))[1], wichi.grad(f)(u * 0.9), rtol=1e-12)


@pytest.mark.parametrize(
    "made",
    [
        lambda q, k: q @ k.T, lambda q, k: np.dot(q, k.T), lambda q, k: np.einsum("ij,kj->ik", q, k),
        lambda q, k: np.tensordot(q, k, ((1,), (1,))), lambda q, k: np.kron(q, k), lambda q, k: np.tile(q, (2, 1)),
        lambda q, k: np.sum(q * k, axis=1, keepdims=True) + 0 * k, lambda q, k: np.mean(q, axis=0, keepdims=True),
        lambda q, k: np.outer(q, k), lambda q, k: np.inner(q, k),
    ],
)  # fmt: skip
def test_results_of_operations_are_fresh_arrays(made):
    def f(q, k):
        s = made(q, k)
        s[0] *= 3.0
        s += 1.0
        return np.sum(s**2) + np.sum(q)

    q, k = np.random.default_rng(0).standard_normal((2, 3, 4))
    assert wichi.jit(f)(q, k) == pytest.approx(f(q, k))
    slope = wichi.grad(f)(q, k)
    e = np.zeros_like(q)
    e[0, 1] = 1e-6
    assert slope[0, 1] == pytest.approx((f(q + e, k) - f(q - e, k)) / 2e-6, rel=1e-6)

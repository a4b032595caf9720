"""Sparse Jacobians and Hessians: patterns hold the truth, values are the dense ones, products are few."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import pickle
import tracemalloc
from unittest import mock

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import wichi
from wichi.errors import ArgumentError, DtypeError, NonScalarError
from wichi.sparse import colouring, hessian, jacobian, plans, sets
from wichi.trace.primitive import Primitive

SPOTS = np.array([3, 0, 7, 3, 5, -1])


def _scan_rows(x, m, i):
    def body(carry, row):
        return carry, np.sin(row) * row[0] + m[0]

    return wichi.scan(body, 0.0, m)[1].ravel()


def _scan_carry(x, m, i):
    def body(carry, row):
        carry = 0.5 * carry + np.roll(carry, 1) * row[0]
        return carry, carry[:2]

    last, ys = wichi.scan(body, m[0], m, reverse=True)
    return np.concatenate([last, ys.ravel()[:4]])


def _scan_counter(x, m, i):
    def body(k, z):
        return wichi.cond(k % 2 == 0, lambda: z * x[k], lambda: z + x[k + 1])

    return wichi.fori_loop(0, 5, body, x)


def _long_scan(x, m, i):
    def body(z, k):
        return np.concatenate([z[:1] * 0.9, z[1:] + 0.1 * np.sin(z[:-1])]), z[k % 3]

    last, ys = wichi.scan(body, x, np.arange(1500))
    return last + ys[:8]


def _while(x, m, i):
    return wichi.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, np.concatenate([s[1][:1], s[1][:-1] * 0.7])), (i, x)
    )[1]


def _while_on_values(x, m, i):
    halved = wichi.while_loop(lambda s: s[0] ** 2 > 0.3, lambda s: (s[0] * 0.5, s[1] * s[1][0]), (x[0], x))
    return halved[1] + halved[0]


STEPS = {
    "sin": lambda x, m, i: np.sin(x),
    "product": lambda x, m, i: x * np.roll(x, 3),
    "difference": lambda x, m, i: np.concatenate([x[1:] - x[:-1], x[:1]]),
    "stride": lambda x, m, i: np.concatenate([x[::2], x[::-2]]),
    "sum": lambda x, m, i: x / (2 + np.sum(m**2, axis=0))[i],
    "mean": lambda x, m, i: (m - np.mean(m, axis=1, keepdims=True)).ravel(),
    "cumsum": lambda x, m, i: np.cumsum(m, axis=0).ravel(),
    "reversed cumsum": lambda x, m, i: np.cumsum(x[::-1])[::-1] * 0.3,
    "prod": lambda x, m, i: x * np.prod(m[:, 1:3], axis=1)[1],
    "max": lambda x, m, i: np.max(m, axis=0)[[0, 1, 2, 3, 3, 2, 1, 0]] + x,
    "matrix": lambda x, m, i: (m @ (np.eye(4) + np.eye(4, k=1))).ravel(),
    "matrix, left": lambda x, m, i: (np.array([[0.0, 2.0], [1.0, 0.0]]) @ m).ravel() + np.arange(8.0),
    "gram": lambda x, m, i: np.concatenate([(m @ m.T).ravel(), x[:4]]),
    "gather": lambda x, m, i: np.concatenate([x[SPOTS], x[:2]]),
    "gather two": lambda x, m, i: np.concatenate([m[[0, 1, 1], [3, 3, 0]], x[3:]]),
    "gather a variable": lambda x, m, i: x * x[i] + m[i % 2, 0],
    "scatter": lambda x, m, i: _added(x),
    "scatter to a variable": lambda x, m, i: _added_at(x, i),
    "write": lambda x, m, i: _written(x, m),
    "where": lambda x, m, i: np.where(x > 0.1, x, np.roll(x, -1)),
    "maximum": lambda x, m, i: np.maximum(x, np.roll(x, 2)),
    "cond": lambda x, m, i: wichi.cond(x[0] > 0.2, lambda z: np.roll(z, 1), lambda z: z**2, x),
    "switch": lambda x, m, i: wichi.switch(i, [lambda z: z[::-1], np.sin, lambda z: z + z[0]], x),
    "stop": lambda x, m, i: x * wichi.stop_gradient(np.roll(x, 1)),
    "checkpoint": lambda x, m, i: wichi.checkpoint(lambda z: np.sin(z) * np.roll(z, 1))(x),
    "solve": lambda x, m, i: np.concatenate([np.linalg.solve(m[:, :2] + 9 * np.eye(2), m[:, 2:]).ravel(), x[4:]]),
    "vmap": lambda x, m, i: wichi.vmap(lambda r: r * r[::-1] + r[0])(m).ravel(),
    "scan over rows": _scan_rows,
    "scan with a carry": _scan_carry,
    "loop with a counter": _scan_counter,
    "long scan": _long_scan,
    "while": _while,
    "while on values": _while_on_values,
}


def _added(x):
    z = x * 0.5
    np.add.at(z, SPOTS, x[:6])
    return z


def _added_at(x, i):
    z = x * 0.5
    z[i] += x[2] * x[3]
    return z


def _written(x, m):
    z = x * 1.0
    z[2:5] = m[0, 1:]
    z[SPOTS] = x[1:7] ** 2
    return z


def program(names):
    def f(x, i):
        for name in names:
            x = np.sin(STEPS[name](x, x.reshape(2, 4), i)) + 0.1
        return x

    return f


NUMBERS = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=8))
PROGRAMS = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4)


def check(f, *args):
    """Values are the dense ones, and nothing lies outside the pattern."""
    dense, found = wichi.jacobian(f)(*args), jacobian(f)
    np.testing.assert_allclose(found(*args).toarray(), dense, rtol=1e-9, atol=1e-12)
    assert not np.any(dense[~found.pattern(*args).toarray()])
    return found


def check_hessian(f, *args):
    dense, found = wichi.hessian(f)(*args), hessian(f)
    np.testing.assert_allclose(found(*args).toarray(), dense, rtol=1e-8, atol=1e-10)
    assert not np.any(dense[~found.pattern(*args).toarray()])
    return found


def _forget_at_once(self):
    self._crowded = 0
    forget(self)


forget = sets.Sets.forget


# --- random programs -------------------------------------------------------------------------------------------------
@settings(max_examples=100, deadline=None, derandomize=True)
@given(PROGRAMS, NUMBERS)
def test_jacobians_of_random_programs(names, x):
    with wichi.debug(), mock.patch.object(sets.Sets, "forget", _forget_at_once):
        check(program(names), x, 2)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(PROGRAMS, NUMBERS)
def test_hessians_of_random_programs(names, x):
    f = program(names)
    with wichi.debug():
        check_hessian(lambda x, i: np.sum(np.sin(f(x, i))), x, 2)


@pytest.mark.parametrize(
    "name", sorted(n for n in STEPS if any(w in n for w in ("scan", "while", "gather", "sc", "cond")))
)
def test_steps_in_machine_code(name):
    x = np.random.default_rng(3).normal(size=8)
    check(program([name]), x, 1)


@pytest.mark.parametrize("name", sorted(n for n, p in Primitive.table.items() if p.samples and p.differentiable))
def test_every_primitive(name):
    prim, rng = Primitive.table[name], np.random.default_rng(0)
    for args, params in prim.samples(rng):
        moving = [i for i, a in enumerate(args) if np.asarray(a).dtype == np.float64 and np.size(a)]
        if not moving or name == "cast":
            continue
        bounds = np.cumsum([0, *(np.size(args[i]) for i in moving)])

        def f(x, args=args, params=params, moving=moving, bounds=bounds):
            values = list(args)
            for i, a, b in zip(moving, bounds, bounds[1:], strict=False):
                values[i] = wichi.numpy.reshape(x[a:b], np.shape(args[i]))
            outs = prim(*values, **params)
            return wichi.numpy.concatenate(
                [wichi.numpy.reshape(o, (-1,)) for o in (outs if prim.multiple else (outs,))]
            )

        with wichi.debug():
            check(f, np.concatenate([np.ravel(args[i]) for i in moving]))


# --- few products, little memory -------------------------------------------------------------------------------------
def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_tridiagonal_takes_few_products_and_memory_of_its_entries():
    n = 10_000
    x = np.random.default_rng(0).normal(size=n)

    def f(x):
        inner = np.sin(x[:-2]) - 2 * x[1:-1] ** 2 + x[2:] * x[1:-1]
        return np.concatenate([x[:1], inner, x[-1:]])

    found = jacobian(f)
    tracemalloc.start()
    matrix = found(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.products(x) <= 3
    assert peak < 64e6  # a dense matrix would take 800 MB
    assert matrix.nnz == 3 * n - 4
    assert matrix.has_canonical_format
    expected = scipy.sparse.diags_array(
        [np.append(np.cos(x[:-2]), 0), np.concatenate([[1], x[2:] - 4 * x[1:-1], [1]]), np.append(0, x[1:-1])],
        offsets=[-1, 0, 1],
    )
    assert abs(matrix - expected).max() < 1e-12


def test_products_by_columns_where_rows_do_not_help():
    def f(x):
        y = np.sin(x)  # more than moved, so the stencil is what it is
        return y[:-2] * y[2:] + y[1:-1]

    x = np.random.default_rng(0).normal(size=10_000)
    found = jacobian(f)
    assert found.products(x) == 3
    check(f, x[:9])


def test_hessian_of_chained_rosenbrock():
    n = 10_000
    x = np.random.default_rng(0).normal(size=n)
    found = hessian(rosenbrock)
    assert found.products(x) <= 3
    tracemalloc.start()
    matrix = found(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6
    diagonal = np.zeros(n)
    diagonal[:-1] = 1200 * x[:-1] ** 2 - 400 * x[1:] + 2
    diagonal[1:] += 200
    beside = -400 * x[:-1]
    assert abs(matrix - scipy.sparse.diags_array([beside, diagonal, beside], offsets=[-1, 0, 1])).max() < 1e-9
    check_hessian(rosenbrock, x[:7])


def test_an_arrow_takes_two_products():
    def f(x):
        return np.sum(x[0] * x[1:] ** 2)

    x = np.random.default_rng(0).normal(size=2_000)
    assert hessian(f).products(x) == 2
    check_hessian(f, x[:9])


def test_observations_share_no_element_of_what_they_gather():
    rng = np.random.default_rng(0)
    camera, point = rng.integers(0, 5, 60), rng.integers(0, 20, 60)

    def residuals(x):
        c, p = x[:15].reshape(5, 3)[camera], x[15:].reshape(20, 3)[point]
        return np.sum(c * p, axis=1) + np.exp(c[:, 0])

    x = rng.normal(size=75)
    found = check(residuals, x)
    assert found.products(x) == 1
    assert found(x).nnz == 60 * 6


def test_elements_that_are_read_twice_are_added_up():
    def f(x):
        return x[[0, 0, 2]] * x + x[::-1] * x[1]

    x = np.array([1.0, 2.0, 3.0])
    assert check(f, x).products(x) == 1


def test_more_products_than_are_computed_at_once(monkeypatch):
    monkeypatch.setattr(plans, "_MOST_AT_ONCE", 50)

    def f(x):
        y = np.sin(x)
        return np.cumsum(y) * y[::-1]

    x = np.random.default_rng(0).normal(size=17)
    assert check(f, x).products(x) == 17
    check_hessian(lambda x: np.sum(np.sin(np.cumsum(x))), x)


def test_dense_functions_are_dense():
    x = np.random.default_rng(0).normal(size=40)
    found = check(lambda x: x / np.sum(np.exp(x)), x)
    assert found(x).nnz == 1600


# --- what is constant, and what is not -------------------------------------------------------------------------------
def test_indices_by_closure_are_exact_and_by_argument_anywhere():
    x, at = np.array([1.0, 2.0, 3.0, 4.0]), np.array([3, 0, 0, 1])
    closed = check(lambda x: x[at] ** 2, x)
    assert closed(x).nnz == 4
    given_later = check(lambda x, at: x[at] ** 2, x, at)
    assert given_later(x, at).nnz == 16
    np.testing.assert_array_equal(given_later(x, at).toarray(), closed(x).toarray())


def test_an_index_array_that_changes_is_noticed():
    at = np.array([0, 1, 2])
    x = np.array([1.0, 2.0, 3.0])

    def f(x):
        return np.exp(x[at])

    found = jacobian(f)
    for indices in ([0, 1, 2], [2, 2, 1], [0, 0, 0], [2, 2, 1]):
        at[:] = indices
        assert found.pattern(x).indices.tolist() == indices
        dense = np.exp(x[at])[:, None] * np.eye(3)[at]
        np.testing.assert_allclose(found(x).toarray(), dense)
        np.testing.assert_allclose(jacobian(f)(x).toarray(), dense)  # shares what has been traced


def test_zeros_of_a_constant_matrix_count_and_are_watched():
    m = np.diag([1.0, 2.0, 3.0]) + np.diag([1.0, 1.0], 1)
    x = np.array([1.0, 2.0, 3.0])

    def f(x):
        return np.sin(m @ x)

    found = jacobian(f)
    assert found(x).nnz == 5
    m[2, 0] = 4.0
    assert found(x).nnz == 6
    np.testing.assert_allclose(found(x).toarray(), np.cos(m @ x)[:, None] * m)


def test_arrays_that_are_closed_over_are_read_at_each_call():
    a, x = np.array([2.0, 3.0]), np.array([1.0, 2.0])
    slopes, curvature = jacobian(lambda x: a**x), hessian(lambda x: np.sum(a * x**2))
    for values in ([2.0, 3.0], [5.0, 6.0]):
        a[:] = values
        np.testing.assert_allclose(slopes(x).toarray(), np.diag(a**x * np.log(a)))
        np.testing.assert_allclose(curvature(x).toarray(), np.diag(2 * a))


def test_variables_that_are_rebound_are_noticed():
    shift = 1

    def f(x):
        return x * np.roll(x, shift)

    x = np.array([1.0, 2.0, 3.0])
    found = jacobian(f)
    first = found(x).toarray()
    shift = 2
    second = found(x).toarray()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, wichi.jacobian(f)(x))


def test_plans_are_made_once_for_a_signature_and_shared():
    calls = []

    def f(x):
        calls.append(1)
        return x[1:] * x[:-1]

    found = jacobian(f)
    for n in (5, 5, 6, 5, 6):
        found(np.ones(n))
        found.pattern(np.ones(n))
    jacobian(f)(np.ones(5))
    assert len(calls) == 2


def test_python_may_branch_on_values():
    def f(x):
        if x[0] > 0:
            return x[1:] * x[:-1]
        return x**2

    x = np.array([1.0, 2.0, 3.0])
    found = jacobian(f)
    for point in (x, -x, x):
        dense = np.array([[x[1], x[0], 0], [0, x[2], x[1]]]) if point[0] > 0 else np.diag(2 * point)
        np.testing.assert_array_equal(found(point).toarray(), dense)
        np.testing.assert_array_equal(found.pattern(point).toarray(), dense != 0)
        assert found.products(point) == 1


def test_both_branches_of_cond_are_in_the_pattern():
    def f(x):
        return wichi.cond(x[0] > 0, lambda x: x[::-1] ** 2, lambda x: x**2, x)

    x = np.array([1.0, 2.0, 3.0])
    found = jacobian(f)
    assert (found(x).toarray() != 0).sum() == 3
    np.testing.assert_array_equal(found.pattern(x).toarray(), np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]]) == 1)
    for point in (x, -x):
        check(f, point)


# --- loops -----------------------------------------------------------------------------------------------------------
def test_rows_of_a_long_scan_stay_apart():
    m = np.random.default_rng(0).normal(size=(3_000, 2))

    def f(x):
        return wichi.scan(lambda c, row: (c + 1.0, np.sin(row[0]) * row[1] * c), 0.0, x.reshape(-1, 2))[1]

    found = jacobian(f)
    assert found.products(m.ravel()) <= 2
    assert found.pattern(m.ravel()).nnz == 6_000
    check(f, m[:6].ravel())


def test_carries_of_a_short_scan_are_followed_round_by_round():
    def f(x):
        return wichi.scan(lambda total, v: (0.5 * total + v, total * v), x[0], x)[1]

    x = np.random.default_rng(0).normal(size=12)
    found = check(f, x)
    np.testing.assert_array_equal(found.pattern(x).toarray(), np.tri(12) == 1)


def test_carries_of_a_long_loop_settle(monkeypatch):
    from wichi.sparse import holders

    monkeypatch.setattr(holders, "_MOST_UNROLLED", 0)

    def f(x):
        last, rows = wichi.scan(lambda z, v: (z * np.array([1.0, 0.5, 0.2]) + v * z, z[:2] * v), x[:3], x)
        return np.concatenate([last, rows.ravel()])

    x = np.random.default_rng(0).normal(size=9)
    check(f, x)

    def shifts(x):  # grows for longer than the rounds that are waited for
        return wichi.fori_loop(0, 30, lambda i, z: np.concatenate([z[:1], 0.5 * z[:-1]]) + 0.1 * z, x)

    check(shifts, np.random.default_rng(0).normal(size=24))


def test_second_derivatives_through_loops_of_elements():
    def f(x):
        roots = wichi.while_loop(lambda s: s[0] < 4, lambda s: (s[0] + 1, 0.5 * (s[1] + x / s[1])), (0, np.ones(6)))[1]
        return np.sum(roots**3)

    x = np.linspace(1.0, 2.0, 6)
    found = check_hessian(f, x)
    assert found.products(x) == 1  # of each element alone


# --- functions with rules of the user's ------------------------------------------------------------------------------
def test_rules_of_the_users():
    @wichi.custom_jvp
    def f(x):
        return np.sin(x)

    f.defjvp(lambda primals, tangents: (np.sin(*primals), np.cos(primals[0]) * tangents[0]))

    @wichi.custom_vjp
    def g(x):
        return x[1:] * x[:-1]

    g.defvjp(lambda x: (x[1:] * x[:-1], x), lambda x, ct: (_pulled(x, ct),))

    def _pulled(x, ct):
        return np.concatenate([ct * x[1:], np.zeros(1)]) + np.concatenate([np.zeros(1), ct * x[:-1]])

    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert check(lambda x: f(x) * 2, x)(x).nnz == 4
    assert check(lambda x: g(np.sin(x)), x)(x).nnz == 6

    def host(x):
        return x * 3.0

    box = wichi.primitive(host)
    box.defjvp(lambda primals, tangents: (box(*primals), box(*tangents)))  # what is not looked into is dense
    assert check(lambda x: box(x), x)(x).nnz == 16


def test_rules_that_only_go_forward_are_taken_by_columns():
    a = np.diag([2.0, 3.0, 4.0, 5.0])

    def f(x):
        y = x[[0, 0, 1, 1]]  # by rows one product would do
        solve = lambda matvec, b: b / np.diag(a)  # noqa: E731
        return wichi.custom_linear_solve(lambda v: a @ v, y, solve)

    x = np.array([1.0, 2.0])
    found = jacobian(f)
    np.testing.assert_allclose(found(x).toarray(), [[1 / 2, 0], [1 / 3, 0], [0, 1 / 4], [0, 1 / 5]])


# --- arguments and results -------------------------------------------------------------------------------------------
def test_trees_are_the_vectors_of_their_elements():
    def f(p, scale):
        return {"u": p["a"] * p["b"] * scale, "v": p["b"] ** 2}

    p, scale = {"a": 2.0, "b": np.array([[1.0, 2.0], [3.0, 4.0]])}, np.float64(3.0)
    matrix = jacobian(f)(p, scale)
    assert matrix.shape == (8, 5)
    dense = wichi.jacobian(f)(p, scale)
    rows = [np.concatenate([dense[k]["a"].reshape(4, 1), dense[k]["b"].reshape(4, 4)], axis=1) for k in "uv"]
    np.testing.assert_allclose(matrix.toarray(), np.concatenate(rows))
    both = jacobian(f, argnums=(1, 0))(p, scale)
    np.testing.assert_allclose(both.toarray()[:, 1:], matrix.toarray())
    np.testing.assert_allclose(both.toarray()[:4, 0], (p["a"] * p["b"]).ravel())

    def g(a, b):
        return np.sum(a**2 * b[:2]) + b[2] ** 3

    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0])
    dense = np.block([list(row) for row in wichi.hessian(g, argnums=(0, 1))(a, b)])
    np.testing.assert_allclose(hessian(g, argnums=(0, 1))(a, b).toarray(), dense)
    np.testing.assert_allclose(hessian(g, argnums=1)(a, b).toarray(), dense[2:, 2:])


def test_dtypes_shapes_and_keywords():
    x = np.array([1.0, 2.0], np.float32)
    assert jacobian(lambda x: x**2)(x).dtype == np.float32
    assert jacobian(lambda x, y: (x, y), argnums=(0, 1))(x, x.astype(float)).dtype == np.float64
    np.testing.assert_array_equal(jacobian(lambda x: x**2)(3.0).toarray(), [[6.0]])
    np.testing.assert_array_equal(jacobian(lambda x, k: x * k)(np.ones(2), k=3.0).toarray(), 3 * np.eye(2))
    np.testing.assert_array_equal(jacobian(lambda x: x)(np.ones(2)).toarray(), np.eye(2))
    assert jacobian(lambda x: x * 2)(np.zeros(0)).shape == (0, 0)
    assert jacobian(lambda x: x[:0])(np.ones(2)).shape == (0, 2)
    assert hessian(lambda x: np.sum(x**2))(np.zeros(0)).shape == (0, 0)


def test_what_depends_on_nothing_needs_no_product():
    x = np.ones(3)
    constant = jacobian(lambda x: np.ones(2))
    assert constant(x).shape == (2, 3)
    assert constant(x).nnz == constant.products(x) == 0
    assert hessian(np.sum)(x).nnz == 0


def test_nan_stays_in_its_row():
    found = jacobian(np.sqrt)(np.array([0.0, 1.0, -1.0])).toarray()
    np.testing.assert_array_equal(found, [[np.inf, 0, 0], [0, 0.5, 0], [0, 0, np.nan]])


def test_results_are_the_callers_own():
    found, x = jacobian(lambda x: x[1:] * x[:-1]), np.array([0.0, 1.0, 2.0])
    first = found(x)
    first.eliminate_zeros()
    first.data[:] = -1
    np.testing.assert_array_equal(found(x).toarray(), [[1, 0, 0], [0, 2, 1]])
    assert found(x).nnz == 4


@jacobian
def decorated(x):
    """Its own text."""
    return x[1:] * x[:-1]


def product(x):
    return x[1:] * x[:-1]


@dataclasses.dataclass
class Model:
    scale: float

    @functools.partial(jacobian, argnums=1)
    def slope(self, x):
        return self.scale * x**2


def test_it_travels_and_decorates():
    x = np.array([1.0, 2.0, 3.0])
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    assert decorated.__doc__ == "Its own text."
    assert repr(decorated) == "<wichi.sparse.jacobian of decorated>"
    for again in (pickle.loads(pickle.dumps(jacobian(product))), copy.deepcopy(jacobian(product))):
        np.testing.assert_array_equal(again(x).toarray(), decorated(x).toarray())
    np.testing.assert_array_equal(Model(2.0).slope(x).toarray(), np.diag(4 * x))
    np.testing.assert_array_equal(jacobian(wichi.jit(product))(x).toarray(), decorated(x).toarray())
    np.testing.assert_array_equal(jacobian(functools.partial(np.multiply, 2.0))(x).toarray(), 2 * np.eye(3))


def test_bad_input_is_named(monkeypatch):
    x = np.ones(3)
    with pytest.raises(DtypeError, match=r"the argument x is i64\[3\]"):
        jacobian(lambda x: x)(np.arange(3))
    with pytest.raises(DtypeError, match=r"a result is bool\[3\]"):
        jacobian(lambda x: x > 0)(x)
    with pytest.raises(NonScalarError, match=r"sparse.hessian needs a scalar; product returned f64\[2\]"):
        hessian(product)(x)
    with pytest.raises(ArgumentError, match="argnums=2"):
        jacobian(product, argnums=2)(x)
    with pytest.raises(ArgumentError, match="needs a function, not float"):
        jacobian(3.0)
    with pytest.raises(ArgumentError, match="the argument has no leaves"):
        jacobian(lambda x: np.ones(2))([])
    with pytest.raises(ArgumentError, match="returns no values"):
        jacobian(lambda x: ())(x)
    with pytest.raises(ArgumentError, match="inside a transform"):
        wichi.jit(lambda x: jacobian(product)(x))(x)
    with pytest.raises(ArgumentError, match="inside a transform"):
        wichi.jit(lambda x: jacobian(lambda y: y * x)(np.ones(3)))(x)
    assert wichi.jit(lambda x: x * jacobian(product)(np.ones(3)).nnz)(2.0) == 8.0  # of plain values it is plain
    monkeypatch.setattr(sets, "MOST_MEMBERS", 1_000)
    with pytest.raises(ArgumentError, match=r"more than 1000 entries(.|\n)*this matrix is not sparse"):
        jacobian(lambda x: x * np.sum(x**2))(np.ones(50))
    with pytest.raises(ArgumentError, match=r"x\[at\](.|\n)*close over the index arrays"):
        jacobian(lambda x, at: x[at] * 2)(np.ones(50), np.arange(50))


# --- colourings ------------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 25), st.integers(1, 25), st.floats(0, 0.6), st.integers(0, 2**32 - 1))
def test_columns_of_a_colour_meet_in_no_row(m, n, density, seed):
    dense = np.random.default_rng(seed).random((m, n)) < density
    pattern = scipy.sparse.csr_array(dense)
    colours = colouring.columns(pattern)
    assert np.array_equal(colours >= 0, dense.any(axis=0))
    assert colouring.count(colours) >= dense.sum(axis=1).max()
    for row in dense:
        assert len(set(colours[row])) == row.sum()
    matrix = np.where(dense, np.random.default_rng(seed).normal(size=(m, n)), 0)
    products = np.array([matrix[:, colours == c].sum(axis=1) for c in range(colouring.count(colours))]).reshape(-1, m)
    np.testing.assert_array_equal(products.ravel()[colouring.places_by_columns(pattern, colours)], matrix[dense])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 25), st.floats(0, 0.6), st.booleans(), st.integers(0, 2**32 - 1))
def test_star_colourings_give_all_entries_back(n, density, diagonal, seed):
    rng = np.random.default_rng(seed)
    dense = rng.random((n, n)) < density
    dense = dense | dense.T | (np.eye(n, dtype=bool) & diagonal)
    matrix = np.where(dense, (lambda a: a + a.T)(rng.normal(size=(n, n))), 0)
    pattern = scipy.sparse.csr_array(dense)
    colours = colouring.star(pattern)
    assert colouring.count(colours) <= n
    products = np.array([matrix[:, colours == c].sum(axis=1) for c in range(colouring.count(colours))]).reshape(-1, n)
    np.testing.assert_array_equal(products.ravel()[colouring.places_in_symmetric(pattern, colours)], matrix[dense])


# --- sets ------------------------------------------------------------------------------------------------------------
def as_sets(table, ids):
    starts, members = table.rows(np.ravel(ids))
    return [set(members[a:b].tolist()) for a, b in itertools.pairwise(starts)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_unions_are_those_of_python_sets(n, seed):
    rng, table = np.random.default_rng(seed), sets.Sets(n)
    pool, truth = np.append(0, table.singles()), [set(), *({i} for i in range(n))]
    for _ in range(4):
        some = rng.integers(0, len(pool), (2, 7))
        found = table.union(pool[some[0]], pool[some[1]])
        truth += [truth[i] | truth[j] for i, j in some.T]
        pool = np.append(pool, found)
        groups = np.sort(rng.integers(0, len(pool), 4))
        order = rng.integers(0, len(pool), len(pool))
        starts = np.concatenate([[0], groups, [len(pool)]])
        truth += [set().union(*(truth[i] for i in order[a:b])) for a, b in itertools.pairwise(starts)]
        pool = np.append(pool, table.unions(starts, pool[order]))
        assert as_sets(table, pool) == truth
        frame = {"pool": pool}
        with table.keeping(frame), mock.patch.object(sets.Sets, "forget", _forget_at_once):
            table.forget()
        pool = frame["pool"]
        assert as_sets(table, pool) == truth
    assert as_sets(table, [table.everything_in(pool)]) == [set().union(*truth)]
    grid = pool[rng.integers(0, len(pool), (2, 3, 4))]
    rows = as_sets(table, table.along(grid, (0, 2)))
    assert rows == [set().union(*as_sets(table, grid[:, k])) for k in range(3)]


def test_rows_with_equal_hashes_are_looked_at():
    starts, members = np.array([0, 2, 4, 6, 8]), np.array([1, 2, 3, 4, 1, 2, 3, 5])
    with mock.patch.object(np.random, "default_rng") as generator:
        generator.return_value.integers.return_value = np.zeros(6, np.uint64)  # all hashes are the same
        first, which = sets.distinct_rows(starts, members)
    assert [members[starts[i] : starts[i + 1]].tolist() for i in first[which]] == [[1, 2], [3, 4], [1, 2], [3, 5]]


# --- SciPy -----------------------------------------------------------------------------------------------------------
def test_trust_constr_takes_hessian_and_jacobian_of_constraints():
    n = 200

    def circles(x):
        return x[:-1] ** 2 + x[1:] ** 2

    constraint = scipy.optimize.NonlinearConstraint(
        circles, -np.inf, 1.5, jac=jacobian(circles), hess=hessian(lambda x, v: v @ circles(x))
    )
    found = scipy.optimize.minimize(
        rosenbrock, np.full(n, 0.3), jac=wichi.grad(rosenbrock), hess=hessian(rosenbrock), method="trust-constr",
        constraints=[constraint], options={"maxiter": 500},
    )  # fmt: skip
    assert found.constr_violation < 1e-8
    assert found.optimality < 1e-6
    assert np.max(circles(found.x)) > 1.5 - 1e-4


def test_least_squares_and_solve_ivp():
    n = 300

    def residual(x):
        return np.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])

    slopes = jacobian(residual)
    found = scipy.optimize.least_squares(residual, np.full(n, 0.8), jac=slopes)
    np.testing.assert_allclose(found.x, 1.0, atol=1e-6)
    other = scipy.optimize.least_squares(residual, np.full(n, 0.8), jac_sparsity=slopes.pattern(found.x))
    np.testing.assert_allclose(other.x, 1.0, atol=1e-5)

    def heat(t, u):
        return np.concatenate([np.zeros(1), (u[:-2] - 2 * u[1:-1] + u[2:]) * n**2, np.zeros(1)])

    u = np.sin(np.pi * np.linspace(0, 1, n))
    along = jacobian(lambda u, t: heat(t, u))
    # SciPy's BDF begins with differences that it has not computed (np.empty): what lies there may overflow.
    with np.errstate(all="ignore"):
        exact = scipy.integrate.solve_ivp(
            heat, (0, 0.05), u, method="BDF", jac=lambda t, u: along(u, t), rtol=1e-6, atol=1e-9
        )
        by_pattern = scipy.integrate.solve_ivp(
            heat, (0, 0.05), u, method="BDF", jac_sparsity=along.pattern(u, 0.0), rtol=1e-6, atol=1e-9
        )
    np.testing.assert_allclose(exact.y[:, -1], by_pattern.y[:, -1], atol=1e-5)
    np.testing.assert_allclose(exact.y[:, -1], u * np.exp(-(np.pi**2) * 0.05), atol=1e-2)

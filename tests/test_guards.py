"""Python's own control flow on values: the right branch for each call, and no error of another."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import wichi
from wichi.errors import ConditionError
from wichi.kernels import program


def piecewise(x):
    if x > 0:
        return np.sin(x) * x
    elif x < -5:
        return x**2
    return -x


@pytest.mark.parametrize("x", [1.0, -1.0, -7.0, 2.0, -1.5, -8.0])
def test_each_call_takes_its_own_branch(x):
    f, g = wichi.jit(piecewise), wichi.value_and_grad(piecewise)
    for v in (0.5, x, -0.5, x, -9.0, x):
        assert np.isclose(f(v), piecewise(v))
        value, slope = g(v)
        assert np.isclose(value, piecewise(v))
        assert np.isclose(slope, (piecewise(v + 1e-6) - piecewise(v - 1e-6)) / 2e-6, atol=1e-6)


def test_newton_with_a_python_while():
    def root(a):
        x, rounds = a, 0
        while np.abs(x * x - a) > 1e-12 and rounds < 50:
            x, rounds = 0.5 * (x + a / x), rounds + 1
        return x

    g = wichi.value_and_grad(root)
    for a in (2.0, 9.0, 1e4, 2.0, 0.3):
        value, slope = g(a)
        assert np.isclose(value, np.sqrt(a))
        assert np.isclose(slope, 0.5 / np.sqrt(a))


def test_integers_for_range_and_index():
    def f(x, n, k):
        total = 0.0
        for i in range(int(n)):
            total = total + x[i] ** (i + 1)
        return total + x[int(k)] * x[k]

    g = wichi.grad(f)
    x = np.array([1.0, 2.0, 3.0])
    for n, k in ((2, 0), (3, 2), (0, 1), (2, 0), (3.0, 1)):
        k = int(k)
        expected = np.zeros(3)
        for i in range(int(n)):
            expected[i] += (i + 1) * x[i] ** i
        expected[k] += 2 * x[k]
        np.testing.assert_allclose(g(x, n, k), expected)


def test_nested_transforms_ask_the_outermost():
    def outer(x):
        slope = wichi.grad(piecewise)(x)
        if slope > 0:
            return slope * 2.0
        return slope * x

    for x in (0.5, -1.0, -7.0, 0.5):
        s = (piecewise(x + 1e-6) - piecewise(x - 1e-6)) / 2e-6
        assert np.isclose(wichi.jit(outer)(x), s * 2 if s > 0 else s * x, atol=1e-6)
    d = wichi.grad(outer)
    assert np.isclose(d(0.5), 2 * (2 * np.cos(0.5) - 0.5 * np.sin(0.5)))


def test_a_known_path_compiles_nothing():
    f = wichi.jit(lambda x: np.exp(x) * 3.25 if x > 0 else np.log1p(-x) * 1.75)
    f(1.0), f(-1.0)
    before = program.compile_count
    for x in (2.0, -2.0, 3.0, -3.0):
        assert np.isclose(f(x), np.exp(x) * 3.25 if x > 0 else np.log1p(-x) * 1.75)
    assert program.compile_count == before


def test_errors_of_a_branch_not_taken_stay_away():
    def f(x, i):
        if i < 3:
            return wichi.numpy.take(x, i) * 2.0
        return np.sum(x)

    g, x = wichi.grad(f), np.ones(3)
    np.testing.assert_allclose(g(x, 1), [0, 2, 0])
    np.testing.assert_allclose(g(x, 7), [1, 1, 1])  # the first path would be out of range here
    np.testing.assert_allclose(g(x, 2), [0, 0, 2])
    with pytest.raises(IndexError):
        g(x, -9)
    np.testing.assert_allclose(g(x, 7), [1, 1, 1])


def test_has_aux_and_trees_keep_their_places():
    def f(p):
        y = p["a"] * p["b"]
        return (y if y > 0 else -2.0 * y), {"y": y}

    (value, aux), g = wichi.value_and_grad(f, has_aux=True)({"a": 2.0, "b": -3.0})
    assert value == 12.0
    assert aux["y"] == -6.0
    assert g == {"a": 6.0, "b": -4.0}


def test_too_many_paths_run_in_numpy_with_one_warning(monkeypatch):
    monkeypatch.setattr(wichi.config, "guarded_paths", 3)

    def f(x, n):
        for _ in range(int(n)):
            x = x * 1.5
        return x

    g = wichi.grad(f)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(8):
            assert np.isclose(g(1.0, n), 1.5**n)
    assert len(caught) == 1
    _is_at(caught[0], f, 1, "for _ in range(int(n)):", "goes more ways than guarded_paths=3", "wichi.fori_loop")


def _is_at(warning, function, line, source, why, instead):
    """The warning belongs to the line of the ``if`` or of the loop, shows it, and says what to use there."""
    text = str(warning.message)
    assert text.startswith(f"{function.__name__} goes ")
    assert why in text
    assert f"test_guards.py:{function.__code__.co_firstlineno + line} in {function.__name__}:  {source}" in text
    assert instead in text
    assert warning.filename.endswith("test_guards.py")
    assert warning.lineno == function.__code__.co_firstlineno + line


def test_too_long_a_path_runs_in_numpy(monkeypatch):
    monkeypatch.setattr(wichi.config, "guarded_equations", 50)

    def f(x, n):
        i = 0
        while i < n and x < 1e9:
            x, i = np.sin(x) + x, i + 1
        return x

    g = wichi.grad(f)
    g(1.0, 3)
    with pytest.warns(RuntimeWarning, match="guarded_equations") as caught:
        slow = g(1.0, 60)
    _is_at(caught[0], f, 2, "while i < n and x < 1e9:", "more than guarded_equations=50", "wichi.while_loop")
    y, slope = 1.0, 1.0
    for _ in range(60):
        slope *= np.cos(y) + 1
        y += np.sin(y)
    assert np.isclose(slow, slope)


def test_a_first_call_that_is_too_long_runs_in_numpy_too(monkeypatch):
    monkeypatch.setattr(wichi.config, "guarded_equations", 20)

    def f(x, n):
        i = 0
        while i < n:
            x, i = np.sin(x) + x, i + 1
        return x

    before = program.compile_count
    with pytest.warns(RuntimeWarning, match="guarded_equations"):
        assert np.isfinite(wichi.jit(f)(1.0, 60))
    assert program.compile_count == before


def test_a_wrong_way_with_a_loop_without_end_is_not_tried():
    def f(x):
        if x > 0:
            y = wichi.while_loop(lambda v: v < 10.0, lambda v: v * 2.0, x)  # never ends from below 0
            if y > 12.0:
                return wichi.while_loop(lambda v: v > 1.0, lambda v: v / 2.0, y)
            return y * 3.0
        return -x

    def slope(x):
        if x <= 0:
            return -1.0
        factor = 1.0
        while x < 10:
            x, factor = x * 2, factor * 2
        if x <= 12:
            return factor * 3
        while x > 1:
            x, factor = x / 2, factor / 2
        return factor

    g = wichi.grad(f)
    for x in (1.0, -1.0, 3.0, -2.0, 5.5, 0.0, 2.9, 7.0, -3.0):
        assert g(x) == slope(x), x


def test_a_wrong_way_calls_no_function_of_the_users():
    calls = []

    def root(x):
        calls.append(x)
        if x < 0:
            raise LookupError("never asked of")
        return np.sqrt(x)

    box = wichi.primitive(root)
    f = wichi.jit(lambda x: box(x) * 2.0 if x > 0 else x)
    assert [f(x) for x in (4.0, -1.0, 9.0, -2.0, 16.0)] == [4.0, -1.0, 6.0, -2.0, 8.0]
    assert calls == [4.0, 9.0, 16.0]


def test_integers_of_floats_as_python_has_them():
    f = wichi.grad(lambda x: x * int(x))
    assert [f(x) for x in (2.7, 2.2, -3.9)] == [2.0, 2.0, -3.0]
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="nan or infinite"):
            f(bad)


def test_python_builtins():
    def f(x):
        assert x[0] > 0, "must be positive"
        return max(x[0], x[1] * 2) + sorted([x[0], x[1], x[2]])[1] + (1.0 if x[2] in (5.0, 7.0) else x[2])

    g = wichi.value_and_grad(f)
    for x in ([1.0, 2.0, 3.0], [5.0, 1.0, 7.0], [1.0, 4.0, 5.0], [1.0, 2.0, 3.0]):
        x = np.array(x)
        value, slope = g(x)
        assert value == f(x)
        for i in range(2):
            e = np.eye(3)[i] * 1e-6
            assert np.isclose(slope[i], (f(x + e) - f(x - e)) / 2e-6)
    with pytest.raises(AssertionError, match="must be positive"):
        g(np.array([-1.0, 2.0, 3.0]))
    assert g(np.array([1.0, 2.0, 3.0]))[0] == 9.0


def test_index_errors_among_the_guards_name_the_line():
    def f(x, i):
        if wichi.numpy.take(x, i) > 0.5:
            return wichi.numpy.take(x, i) * 2
        return x[0]

    g, x = wichi.jit(f), np.arange(3.0)
    assert [g(x, i) for i in (1, 0, 2)] == [2.0, 0.0, 4.0]
    with pytest.raises(
        wichi.errors.IndexRangeError, match=r"out of bounds.*\n.*test_guards.py:\d+ in f: .*take\(x, i\) > 0.5"
    ):
        g(x, 7)


def test_paths_of_other_globals_do_not_count(monkeypatch):
    monkeypatch.setattr(wichi.config, "guarded_paths", 2)

    def make(scale):
        return wichi.jit(lambda x: x * scale if x > 0 else -x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for k in range(12):
            f = make(float(k))
            assert f(2.0) == 2.0 * k
            assert f(-1.0) == 1.0
            assert f(3.0) == 3.0 * k


def test_a_wrong_path_writes_into_no_donated_array():
    f = wichi.jit(lambda a, x: a * 2.0 if x > 0 else a + 1.0, donate_argnums=0)
    for x in (1.0, -1.0, 2.0, -2.0):
        a = np.ones(3)
        np.testing.assert_array_equal(f(a, x), 2.0)
        np.testing.assert_array_equal(f(np.full(3, 5.0), x), 10.0 if x > 0 else 6.0)


class TestRefusals:
    def test_switched_off(self, monkeypatch):
        monkeypatch.setattr(wichi.config, "guards", False)
        with pytest.raises(ConditionError, match=r"(?s)x > 0.*wichi.cond"):
            wichi.grad(lambda x: x if x > 0 else -x)(1.0)
        with pytest.raises(ConditionError, match=r"needs an integer.*\n.*int\(n\)"):
            wichi.jit(lambda x, n: x * int(n))(1.0, 2)

    def test_switched_off_after_a_way_was_found(self, monkeypatch):
        f = wichi.jit(piecewise)
        assert f(-1.0) == f(-1.0) == 1.0
        monkeypatch.setattr(wichi.config, "guards", False)
        with pytest.raises(ConditionError, match="x > 0"):
            f(-1.0)
        monkeypatch.setattr(wichi.config, "guards", True)
        assert f(-1.0) == 1.0

    @pytest.mark.parametrize(
        "use",
        [
            lambda: wichi.vmap(piecewise)(np.ones(3)),
            lambda: wichi.make_graph(piecewise)(1.0),
            lambda: wichi.njit(piecewise, 1.0),
            lambda: wichi.cfunc(piecewise, 1.0),
            lambda: wichi.export(piecewise, 1.0, path="never_written"),
            lambda: wichi.while_loop(lambda c: c < 3, piecewise, 1.0),
            lambda: wichi.fori_loop(0, 3, lambda i, c: piecewise(c), 1.0),
            lambda: wichi.map(piecewise, np.ones(3)),
            lambda: wichi.jit(lambda x: wichi.cond(x > 0, piecewise, np.sin, x))(1.0),
            lambda: wichi.grad(wichi.checkpoint(piecewise))(1.0),
            lambda: wichi.vjp(piecewise, 1.0),
            lambda: wichi.linearize(piecewise, 1.0),
            lambda: wichi.hessian(piecewise)(1.0),
            lambda: wichi.odeint(lambda y, t: piecewise(y), 1.0, [0.0, 1.0]),
            lambda: wichi.scan(lambda c, x: (piecewise(c), None), 1.0, None, 3),
            lambda: wichi.jacfwd(piecewise)(1.0),
            lambda: wichi.jvp(piecewise, (1.0,), (1.0,)),
        ],
    )
    def test_where_one_program_must_serve_all_values(self, use):
        with pytest.raises(ConditionError, match=r"(?s)x > 0.*test_guards.py:\d+.*fix"):
            use()

"""The fast call: the same answers as the plain one, and never for arguments, globals or cells it was not made for."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import wichi
from wichi.kernels import fastcall

pytestmark = pytest.mark.skipif(
    not fastcall.available(), reason="needs CPython with the GIL, 64 bits; calls go the plain way elsewhere"
)
X = np.linspace(-1.0, 1.0, 10)


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def warmed(f, *args):
    for _ in range(3):
        f(*args)
    return f


def fresh(fn):
    """``value_and_grad`` of a function that no other test has traced."""
    space = dict(fn.__globals__)
    copy = type(fn)(
        fn.__code__.replace(co_name=f"{fn.__name__}_again"), space, fn.__name__, fn.__defaults__, fn.__closure__
    )
    return wichi.value_and_grad(copy)


def test_second_call_makes_it_and_answers_are_the_same_bits():
    f = fresh(rosenbrock)
    first = f(X)
    assert not f._direct
    f(X)
    assert len(f._direct) == 1
    for _ in range(3):
        value, gradient = f(X)
        assert value == first[0]
        assert type(value) is np.float64
        np.testing.assert_array_equal(gradient, first[1])


@pytest.mark.parametrize(
    "other",
    [
        X.astype(np.float32), X[::2], np.stack([X, X])[:, :9].T[0], X[::-1], X.astype(">f8"), X.tolist()[0], np.float64(0.5),
        X[None, :], X[:3], np.ma.masked_array(X).view(np.ndarray)[1:],
    ],
)  # fmt: skip
def test_other_arguments_are_not_taken_for_the_first(other):
    f = warmed(wichi.jit(lambda x: np.sum(x * x) + 0 * np.max(x)), X)
    assert len(f._direct) == 1
    expected = np.sum(np.asarray(other) * np.asarray(other))
    for _ in range(3):
        assert f(other) == pytest.approx(expected, rel=1e-6)
        assert f(X) == pytest.approx(np.sum(X * X))


def test_non_contiguous_arrays_of_the_right_shape():
    f = warmed(wichi.jit(lambda x: np.sum(x * np.arange(10.0))), X)
    wide = np.arange(20.0)
    assert f(wide[::2]) == np.sum(wide[::2] * np.arange(10.0))
    raw = np.zeros(81, np.uint8)
    unaligned = raw[1:].view(np.float64)
    unaligned[:] = X
    assert f(unaligned) == f(X)


def test_refusals_do_not_pile_up():
    f = warmed(wichi.jit(lambda x: np.sum(x)), X)
    for _ in range(5):
        f(np.arange(20.0)[::2])
    assert len(f._direct) == 1


def test_wrong_number_of_arguments():
    f = warmed(wichi.jit(lambda x, y: x + y), X, X)
    with pytest.raises(TypeError):
        f(X)
    with pytest.raises(TypeError):
        f(X, X, X)
    np.testing.assert_array_equal(f(X, y=X), 2 * X)


SCALE = 2.0


def scaled(x):
    return np.sum(x * SCALE)


def test_globals_are_compared_on_each_call(monkeypatch):
    f = warmed(wichi.value_and_grad(scaled), X)
    assert f(np.ones(10))[0] == 20
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    for _ in range(4):
        assert f(np.ones(10))[0] == 30
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert f(np.ones(10))[0] == 20
    monkeypatch.delitem(globals(), "SCALE")
    with pytest.raises(NameError):
        f(np.ones(10))


def test_cells_are_compared_on_each_call():
    k = 2.0

    def f(x):
        return np.sum(x * k)

    g = warmed(wichi.jit(f), X)
    assert g(np.ones(10)) == 20
    k = 5.0
    for _ in range(4):
        assert g(np.ones(10)) == 50


def test_functions_of_equal_code_look_into_their_own_cells():
    """They share a trace while their cells hold the same objects; one's change must not reach the other."""

    def make():
        k = 2.0

        def change(value):
            nonlocal k
            k = value

        return wichi.jit(lambda x: np.sum(x * k)), change

    (f, change_f), (g, change_g) = make(), make()
    for _ in range(4):
        assert f(np.ones(3)) == g(np.ones(3)) == 6
    assert f._direct
    assert g._direct
    change_f(5.0)
    for _ in range(4):
        assert (f(np.ones(3)), g(np.ones(3))) == (15, 6)
    change_g(7.0)
    for _ in range(4):
        assert (f(np.ones(3)), g(np.ones(3))) == (15, 21)


def test_captured_arrays_are_read_anew():
    weights = np.ones(10)
    f = warmed(wichi.jit(lambda x: np.sum(x * weights)), X)
    weights *= 2
    assert f(np.ones(10)) == 20


def test_weak_and_strong_scalars():
    f = warmed(wichi.jit(lambda x, lr: x * lr), X.astype(np.float32), 0.5)
    assert f(X.astype(np.float32), 0.5).dtype == np.float32
    assert f(X.astype(np.float32), np.float64(0.5)).dtype == np.float64
    assert f(X.astype(np.float32), 2).dtype == np.float32
    np.testing.assert_array_equal(f(np.float32([1, 2] * 5), 0.25), np.float32([0.25, 0.5] * 5))


@pytest.mark.parametrize("kind", "?bhilqBHILQfd")
def test_scalars_of_every_dtype(kind):
    f = wichi.jit(lambda x, n: (x + n, n))
    number = np.dtype(kind).type
    for k in (1, 0, 1, 1):
        total, again = f(X, number(k))
        np.testing.assert_array_equal(total, X + k)
        assert again == k
        assert again.dtype == kind
    assert len(f._direct) == 1
    np.testing.assert_array_equal(f(X, np.array(1, kind))[0], X + 1)


def test_donated_arguments_go_the_short_way_and_must_lie_apart():
    f = wichi.jit(lambda state, y: ({"p": state["p"] * 0.5 + y, "n": state["n"] + 1}, np.sum(y)), donate_argnums=0)
    p, y = X.copy(), X * 2
    state, want = {"p": p, "n": np.int64(0)}, X
    for k in range(5):
        state, total = f(state, y)
        want = want * 0.5 + y
        assert state["p"] is p
        np.testing.assert_array_equal(p, want)
        assert state["n"] == k + 1
        assert total == pytest.approx(np.sum(y))
    assert len(f._direct) == 1
    memory = np.zeros(15)
    for p, y in ((memory[:10], memory[5:]), (memory[5:], memory[:10]), (memory[:10], memory[:10])):
        with pytest.raises(wichi.errors.ArgumentError, match="shares memory"):
            f({"p": p, "n": np.int64(0)}, y)
    fixed = np.zeros(10)
    fixed.flags.writeable = False
    with pytest.raises(wichi.errors.ArgumentError, match="writable"):
        f({"p": fixed, "n": np.int64(0)}, X)
    assert not memory.any()
    assert not fixed.any()
    np.testing.assert_array_equal(f({"p": memory[:5].copy().repeat(2), "n": np.int64(0)}, memory[5:])[0]["p"], 0)


def test_a_donated_array_is_none_that_the_function_holds():
    held = np.ones(10)
    f = wichi.jit(lambda p: p * 2 + np.sum(p * held), donate_argnums=0)
    for _ in range(4):
        f(np.ones(10))
    for p in (held, held[::1]):
        with pytest.raises(wichi.errors.ArgumentError, match="shares memory"):
            f(p)
    np.testing.assert_array_equal(held, 1)


def test_what_may_fail_is_not_run_twice_on_what_it_has_written():
    f = wichi.jit(lambda p, i: (p * 2, p[i]), donate_argnums=0)
    p = np.ones(10)
    for _ in range(3):
        p, _ = f(p, np.array([1, 2]))
    before = p.copy()
    with pytest.raises(wichi.errors.IndexRangeError):
        f(p, np.array([1, 99]))
    assert np.array_equal(p, before) or np.array_equal(p, before * 2)


def test_trees():
    f = wichi.value_and_grad(lambda p: np.sum(p["a"] ** 2) + np.sum(p["b"][0]) * p["b"][1])
    tree = {"a": np.arange(3.0), "b": [np.ones(2), np.float64(2.0)]}
    first = f(tree)
    for _ in range(3):
        value, gradient = f(tree)
        assert value == first[0]
        np.testing.assert_array_equal(gradient["a"], [0, 2, 4])
        assert gradient["b"][1] == 2
    assert len(f._direct) == 1
    assert f({"a": np.arange(3.0), "b": [np.ones(2), np.float64(3.0)]})[0] == 11


@pytest.mark.parametrize(
    "other",
    [{"a": X}, {"a": X, "c": [X, X]}, {"a": X, "b": [X]}, {"a": X, "b": (X, X)}, [X, X, X], {"a": [X], "b": [X, X]}],
    ids=str,
)
def test_trees_of_another_structure_are_not_taken_for_the_first(other):
    f = wichi.grad(lambda p: sum(np.sum(leaf**2) for leaf in wichi.pytree.leaves(p)))
    tree = {"a": X, "b": [X, 2 * X]}
    for _ in range(4):
        for t in (tree, other):
            want = wichi.pytree.tree_map(lambda x: 2 * x, t)
            found = f(t)
            assert wichi.pytree.flatten(found)[1] == wichi.pytree.flatten(want)[1]
            for a, b in zip(wichi.pytree.leaves(found), wichi.pytree.leaves(want), strict=True):
                np.testing.assert_array_equal(a, b)


class Boxed:
    def __init__(self, value):
        self.value = value


wichi.pytree.register(Boxed, lambda box: ([box.value], None, ["value"]), lambda _, children: Boxed(*children))


@pytest.mark.parametrize("boxed", [False, True])
def test_modules_go_a_short_way_and_nodes_of_other_kinds_through_optree(boxed):
    wrapped = Boxed if boxed else lambda x: x
    f = wichi.value_and_grad(lambda m, x: np.sum((m.value if boxed else m)(x) ** 2))
    first, gradient = f(wrapped(wichi.MLP([3, 4, 2], seed=0)), np.ones((5, 3)))
    for _ in range(3):
        value, again = f(wrapped(wichi.MLP([3, 4, 2], seed=0)), np.ones((5, 3)))
        assert value == first
        for a, b in zip(*map(wichi.pytree.leaves, (gradient, again)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert (len(f._direct_trees), len(f._direct)) == ((1, 0) if boxed else (0, 1))
    assert f(wrapped(wichi.MLP([3, 4, 2], seed=1)), np.ones((5, 3)))[0] != first


def test_outputs_are_fresh_and_live_on():
    f = warmed(wichi.jit(lambda x: (x + 1, x * 2)), X)
    kept = [f(X + i) for i in range(50)]
    for i, (a, b) in enumerate(kept):
        np.testing.assert_array_equal(a, X + i + 1)
        np.testing.assert_array_equal(b, (X + i) * 2)


def test_call_outlives_the_function_it_came_from():
    def build():
        c = np.arange(10.0)
        return warmed(wichi.jit(lambda x: np.sum(x * c)), X)

    functions = [build() for _ in range(5)]
    direct = [f._direct[0] for f in functions]
    del functions
    gc.collect()
    for call in direct:
        assert call((X,)) == np.sum(X * np.arange(10.0))


def test_debugging_goes_through_numpy():
    f = warmed(wichi.value_and_grad(lambda x: np.sum(np.sqrt(x))), np.ones(4))
    f(np.zeros(4))
    with wichi.debug(nans=True), pytest.raises(wichi.errors.NonFiniteError):
        f(np.zeros(4))
    assert f(np.ones(4))[0] == 4


def test_failures_name_the_line():
    f = warmed(wichi.jit(lambda x, i: x[i]), X, np.array([1, 2]))
    with pytest.raises(wichi.errors.IndexRangeError, match="W207"):
        f(X, np.array([1, 99]))
    np.testing.assert_array_equal(f(X, np.array([1, 2])), X[1:3])


def test_inside_transforms_and_tensors():
    f = warmed(wichi.jit(rosenbrock), X)
    assert wichi.grad(f)(X) == pytest.approx(wichi.grad(rosenbrock)(X))
    assert f(wichi.Tensor(X)) == f(X)


@pytest.mark.parametrize("size", [10, 100_000])  # one workspace under the GIL; one a call without it
def test_threads_get_their_own_answers(size):
    f = warmed(fresh(rosenbrock), np.ones(size))
    inputs = [np.full(size, 0.1 * k) for k in range(8)]
    want = [f(x) for x in inputs]
    wrong = []

    def work(k):
        for _ in range(50):
            value, gradient = f(inputs[k])
            if value != want[k][0] or not np.array_equal(gradient, want[k][1]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which this system lacks")
def test_fork_after_use():
    code = (
        "import os, warnings, numpy as np, wichi\n"
        "f = wichi.value_and_grad(lambda x: np.sum(np.tanh(x) @ x))\n"
        "want = [f(np.ones(5))[0] for _ in range(3)][0]\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os._exit(0 if f(np.ones(5))[0] == want and wichi.grad(np.sin)(0.0) == 1 else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_plain_calls_give_the_same(tmp_path):
    code = (
        "import numpy as np, wichi\nfrom wichi.kernels import fastcall\n"
        "f = wichi.value_and_grad(lambda x: np.sum(np.exp(x) * x))\n"
        "for _ in range(4): value, gradient = f(np.linspace(0, 1, 7))\n"
        "print(bool(f._direct), value.hex(), gradient.tobytes().hex())"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "WICHI_CALL": how},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for how in ("plain", "")
    ]
    assert [a[0] for a in answers] == ["False", "True"]
    assert answers[0][1:] == answers[1][1:]


def test_reference_counts_stay():
    f = warmed(wichi.value_and_grad(rosenbrock), X)
    for _ in range(5):
        f(X[:-1][::-1])  # its trace refers to what it likes
    counted = (X, True, False, None, f)
    gc.collect()  # else the garbage of other tests goes in between
    before = [sys.getrefcount(o) for o in counted]
    for _ in range(1000):
        f(X)
        f(X[:-1][::-1])  # refused by the first, found by the second
    after = [sys.getrefcount(o) for o in counted]
    assert all(abs(a - b) < 50 for a, b in zip(after, before, strict=True))


def test_no_second_blas_and_no_threads_of_ours(tmp_path):
    """Matrix products use the BLAS that NumPy has loaded; neither import, compile nor call starts a thread."""
    code = (
        "import sys, threading\nimport numpy as np\nfrom threadpoolctl import threadpool_info\n"
        "np.ones((2, 2)) @ np.ones((2, 2))\nbefore = [p['filepath'] for p in threadpool_info()]\n"
        "import wichi\n"
        "f = wichi.value_and_grad(lambda w: np.sum(np.tanh(w @ w)))\n"
        "for _ in range(3): f(np.ones((64, 64)))\n"
        "assert threading.active_count() == 1\n"
        "print([p['filepath'] for p in threadpool_info()] == before, 'numba' in sys.modules)\n"
    )
    environment = {**os.environ, "WICHI_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", code]
    for _ in range(2):
        done = subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True, text=True)
        assert done.stdout.split() == ["True", "False"]


def test_signatures_that_take_turns_go_the_short_way_too():
    f = wichi.jit(lambda x: np.sum(x * 2.0))
    for _ in range(3):
        for n in (3, 4):
            assert f(np.ones(n)) == 2 * n
    assert len(f._direct) == 2

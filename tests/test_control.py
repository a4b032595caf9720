"""Loops and branches: against plain Python loops, in every mode and nesting, with small and with large carries."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError, ConditionError, LoopError, PlainArrayError

SIZES = [3, 40]  # a carry in registers, and one in memory


def close(a, b, tol=1e-10):
    for x, y in zip(wichi.pytree.leaves(a), wichi.pytree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tol, atol=tol)


def numeric(f, x, step=1e-6):
    """The gradient of a scalar function by central differences."""
    x = np.asarray(x, float)
    out = np.empty(x.shape)
    for place in np.ndindex(*x.shape):
        e = np.zeros(x.shape)
        e[place] = step
        out[place] = (f(x + e) - f(x - e)) / (2 * step)
    return out


# --- programs, each written with wichi's loop and with Python's ------------------------------------------------------
def scanned(w, x, xs):
    def body(c, v):
        new = np.tanh(c * w + v) + 0.1 * c
        return new, np.sum(new * v)

    last, ys = wichi.scan(body, x, xs)
    return np.sum(last**2) + np.sum(ys * np.arange(1.0, 1 + len(xs)))


def scanned_plainly(w, x, xs):
    total, ys = x, []
    for v in xs:
        total = np.tanh(total * w + v) + 0.1 * total
        ys.append(np.sum(total * v))
    return np.sum(total**2) + np.sum(np.array(ys) * np.arange(1.0, 1 + len(xs)))


def repeated(w, x, xs):
    def goes_on(state):
        return (np.sum(state[0] ** 2) < 50.0) & (state[2] < 12)

    def body(state):
        return state[0] * (1.0 + 0.1 * np.sin(w)) + 0.5 * xs[0], state[1] + np.sum(state[0] * w), state[2] + 1

    last, total, _ = wichi.while_loop(goes_on, body, (x, 0.0, 0))
    return np.sum(last * xs[1]) + total


def repeated_plainly(w, x, xs):
    total, rounds = 0.0, 0
    while np.sum(x**2) < 50.0 and rounds < 12:
        rounds += 1
        x, total = x * (1.0 + 0.1 * np.sin(w)) + 0.5 * xs[0], total + np.sum(x * w)
    return np.sum(x * xs[1]) + total


def branched(w, x, xs):
    y = wichi.cond(np.sum(w) > 0, lambda v: np.sum(v * w), lambda v: np.sum(np.exp(v) * x), xs[0])
    return y + wichi.switch(wichi.numpy.asarray(np.sum(w) > 0).astype(int) + 1, [np.sin, np.cos, lambda v: v * y], y)


def branched_plainly(w, x, xs):
    positive = np.sum(w) > 0
    y = np.sum(xs[0] * w) if positive else np.sum(np.exp(xs[0]) * x)
    return y + (y * y if positive else np.cos(y))


def nested(w, x, xs):
    def outer(c, v):
        inner = wichi.fori_loop(0, 3, lambda i, z: np.sin(z) * w + v * (i + 1.0), c)
        grown = wichi.while_loop(lambda z: np.sum(z**2) < 9.0, lambda z: z * 1.5 + 0.1, inner)
        return wichi.cond(np.sum(v) > 0, lambda z: z * 0.5, lambda z: z * w, grown), np.sum(grown)

    last, ys = wichi.scan(outer, x, xs, reverse=True)
    return np.sum(last) + np.sum(ys**2)


def nested_plainly(w, x, xs):
    c, ys = x, []
    for v in xs[::-1]:
        for i in range(3):
            c = np.sin(c) * w + v * (i + 1.0)
        while np.sum(c**2) < 9.0:
            c = c * 1.5 + 0.1
        ys.append(np.sum(c))
        c = c * 0.5 if np.sum(v) > 0 else c * w
    return np.sum(c) + np.sum(np.array(ys) ** 2)


PROGRAMS = {
    "scan": (scanned, scanned_plainly),
    "while": (repeated, repeated_plainly),
    "cond": (branched, branched_plainly),
    "nested": (nested, nested_plainly),
}


def draw(n, rows=5):
    rng = np.random.default_rng(n)
    return rng.uniform(0.2, 0.9, n), rng.uniform(-0.9, 0.9, n), rng.uniform(-0.6, 0.9, (rows, n))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", PROGRAMS)
class TestPrograms:
    def test_value_natively_and_in_numpy(self, name, n):
        f, plain = PROGRAMS[name]
        args = draw(n)
        close(wichi.jit(f)(*args), plain(*args))
        with wichi.debug():
            close(wichi.jit(f)(*args), plain(*args))

    def test_printed_program_runs(self, name, n):
        f, plain = PROGRAMS[name]
        args = draw(n)
        space: dict = {}
        exec(wichi.jit(f).source(*args), space)
        close(space["program"](*args)[0], plain(*args))

    def test_gradient_against_differences(self, name, n):
        f, plain = PROGRAMS[name]
        args = draw(n)
        found = wichi.grad(f, argnums=(0, 1, 2))(*args)
        for i, g in enumerate(found):
            close(g, numeric(lambda v, i=i: plain(*args[:i], v, *args[i + 1 :]), args[i]), 1e-5)

    def test_forward_mode_agrees_with_reverse(self, name, n):
        f, _ = PROGRAMS[name]
        args, dots = draw(n), draw(n + 1)
        dots = tuple(d[..., : a.shape[-1]] for a, d in zip(args, dots, strict=True))
        along = wichi.jvp(f, args, dots)[1]
        back = wichi.grad(f, argnums=(0, 1, 2))(*args)
        close(along, sum(np.sum(g * d) for g, d in zip(back, dots, strict=True)), 1e-9)

    def test_vmap_against_a_loop(self, name, n):
        f, plain = PROGRAMS[name]
        w, x, xs = draw(n)
        ws = np.stack([w, -w, 0.5 * w])
        xss = np.stack([xs, xs[::-1], -xs])
        close(wichi.vmap(f, (0, None, None))(ws, x, xs), np.array([plain(a, x, xs) for a in ws]))
        close(wichi.vmap(f, (None, None, 0))(w, x, xss), np.array([plain(w, x, b) for b in xss]))
        g = wichi.grad(f, argnums=(0, 2))
        found = wichi.vmap(g, (0, None, 0))(ws, x, xss)
        rows = [g(a, x, b) for a, b in zip(ws, xss, strict=True)]
        close(found, [np.stack(column) for column in zip(*rows, strict=True)])

    def test_gradient_of_vmap(self, name, n):
        f, _ = PROGRAMS[name]
        w, x, xs = draw(n)
        ws = np.stack([w, 1.1 * w])
        total = wichi.grad(lambda v: np.sum(wichi.vmap(lambda a: f(a, x, xs))(v)))(ws)
        close(total, np.stack([wichi.grad(f)(a, x, xs) for a in ws]))


@pytest.mark.parametrize("name", PROGRAMS)
def test_second_derivatives_in_all_orders(name):
    f, _plain = PROGRAMS[name]
    w, x, xs = draw(3)
    exact = [wichi.jacfwd(wichi.grad(f)), wichi.jacrev(wichi.grad(f)), wichi.jacrev(wichi.jacfwd(f)), wichi.hessian(f)]
    wanted = np.stack(
        [(wichi.grad(f)(w + 1e-5 * e, x, xs) - wichi.grad(f)(w - 1e-5 * e, x, xs)) / 2e-5 for e in np.eye(3)]
    )
    for h in exact:
        close(h(w, x, xs), wanted, 1e-5)


def test_third_derivative_of_while():
    def f(x):
        return wichi.while_loop(lambda v: v < 20.0, lambda v: v * v + 0.5, x)

    d3 = wichi.grad(wichi.grad(wichi.grad(f)))
    d2 = wichi.grad(wichi.grad(f))
    close(d3(1.3), (d2(1.3 + 1e-5) - d2(1.3 - 1e-5)) / 2e-5, 1e-5)


@pytest.mark.parametrize(("outer", "inner"), [*itertools.product(["grad", "jit", "vmap", "jvp"], repeat=2)])
def test_transforms_compose_around_a_loop(outer, inner):
    def f(x):
        return wichi.scan(lambda c, _: (np.sin(c) * x, c), x, None, 4)[0]

    apply = {
        "grad": lambda g: wichi.grad(lambda x: np.sum(g(x))),
        "jit": wichi.jit,
        "vmap": lambda g: lambda x: wichi.vmap(g)(np.stack([x, x]))[0],
        "jvp": lambda g: lambda x: wichi.jvp(g, (x,), (np.ones_like(x),))[1],
    }
    derivatives = [outer, inner].count("grad") + [outer, inner].count("jvp")
    found = apply[outer](apply[inner](f))(np.float64(0.7))
    d = f
    for _ in range(derivatives):
        d = wichi.grad(d)
    close(found, d(0.7))


def test_loops_inside_a_body_see_values_from_around_it():
    def f(a):
        return wichi.scan(lambda c, _: (c + wichi.scan(lambda d, _: (d * a, None), c, None, 2)[0], None), a, None, 3)[0]

    # c -> c + c a^2, three times, from a
    close(f(0.5), 0.5 * (1 + 0.25) ** 3)
    close(wichi.grad(f)(0.5), (1.25**3) + 0.5 * 3 * 1.25**2 * 2 * 0.5)


def test_trees_in_carry_and_rows():
    def body(carry, row):
        return {"a": carry["a"] + row[0], "b": (carry["b"][0] * row[1],)}, {"both": carry["a"] + carry["b"][0]}

    init = {"a": 0.0, "b": (np.float64(1.0),)}
    rows = (np.arange(4.0), np.arange(1.0, 5.0))
    last, ys = wichi.scan(body, init, rows)
    close(last, {"a": 6.0, "b": (24.0,)})
    close(ys["both"], np.array([1.0, 1.0, 3.0, 9.0]))


def test_another_length_compiles_nothing():
    from wichi.kernels import program

    def f(x, n):
        return wichi.scan(lambda c, _: (np.cos(c) + x, c), x, None, n)[0]

    wichi.grad(lambda x: f(x, 7))(1.0)
    before = program.compile_count
    for n in (3, 20, 1000):
        wichi.grad(lambda x, n=n: f(x, n))(1.0)
    assert program.compile_count == before


def test_products_that_share_memory_are_read_anew():
    """Intermediate values of one shape share memory in a body: none may be taken for another."""
    rng = np.random.default_rng(0)
    rows, g = rng.normal(size=(6, 30)), rng.normal(size=30)

    def body(c, _):
        for k in range(6):
            c = c - 0.1 * (rows[k] @ c) * rows[k]
        return c, rows[0] @ c + (rows[1] @ c) * (rows[2] @ c)

    last, ys = wichi.scan(body, g, None, 4)
    c, expected = g, []
    for _ in range(4):
        c, y = body(c, None)
        expected.append(y)
    close(last, c)
    close(ys, np.array(expected))


def test_graphs_within_a_small_body_that_do_not_fit_registers():
    m = np.array([[2.0, 0.5], [0.1, 3.0]])

    def body(c, x):
        solved = wichi.cond(np.sum(c) > x, lambda v: np.linalg.solve(m, v), lambda v: v * 0.5, c)
        wide = wichi.cond(x > 1.5, lambda v: np.sum(np.sin(np.arange(40.0) * v[0])), lambda v: v[1], c)
        return solved + 0.1 * wide, wide

    c, expected = np.array([1.0, 2.0]), []
    last, ys = wichi.scan(body, c, np.arange(4.0))
    for x in np.arange(4.0):
        c, y = body(c, x)
        expected.append(y)
    close(last, c)
    close(ys, np.array(expected))


def test_no_rounds():
    last, ys = wichi.scan(lambda c, x: (c * x, c), 2.0, np.zeros(0))
    assert last == 2.0
    assert ys.shape == (0,)
    assert wichi.grad(lambda x: wichi.scan(lambda c, _: (c * c, None), x, None, 0)[0])(3.0) == 1.0
    assert wichi.while_loop(lambda x: x < 0, lambda x: x + 1, 5) == 5
    assert wichi.grad(lambda x: wichi.while_loop(lambda v: v < 0.0, lambda v: v * v, x))(3.0) == 1.0


def test_integers_and_bools_are_carried():
    def body(c, x):
        n, seen = c
        return (n + 1, seen | (x > 2)), n

    (n, seen), ys = wichi.scan(body, (0, np.bool_(False)), np.arange(5))
    assert n == 5
    assert seen
    assert ys.tolist() == [0, 1, 2, 3, 4]
    g = wichi.grad(lambda x: wichi.scan(lambda c, _: ((c[0] * x, c[1] + 1), c[1]), (x, 0), None, 3)[0][0])
    close(g(2.0), 4 * 2.0**3)


def test_map_and_associative_scan():
    xs = np.random.default_rng(0).normal(size=(6, 4))
    close(wichi.map(lambda x: np.sum(np.exp(x)), xs), np.exp(xs).sum(1))
    close(wichi.associative_scan(np.add, xs), np.cumsum(xs, 0))
    close(wichi.associative_scan(np.add, xs, axis=1), np.cumsum(xs, 1))
    close(wichi.associative_scan(np.add, xs, reverse=True), np.cumsum(xs[::-1], 0)[::-1])
    weights = np.arange(24.0).reshape(6, 4)
    close(
        wichi.grad(lambda v: np.sum(wichi.associative_scan(np.add, v) * weights))(xs),
        np.cumsum(weights[::-1], 0)[::-1],
    )


def test_eager_tensors_run_plain_loops():
    w = wichi.Tensor(np.array([0.5, 0.8]))
    last, _ = wichi.scan(lambda c, x: (np.sin(c * w) + x, None), w, np.arange(3.0))
    last.sum().backward()
    plain = wichi.grad(lambda v: np.sum(wichi.scan(lambda c, x: (np.sin(c * v) + x, None), v, np.arange(3.0))[0]))
    close(w.grad.data if hasattr(w.grad, "data") else w.grad, plain(np.array([0.5, 0.8])))


def test_lstm_against_the_same_in_python():
    rng = np.random.default_rng(0)
    n, d, b, t = 24, 5, 7, 6
    params = {"w": rng.normal(size=(d + n, 4 * n)) * 0.3, "b": rng.normal(size=4 * n) * 0.1}
    xs = rng.normal(size=(t, b, d))

    def cell(p, state, x):
        h, c = state
        z = np.concatenate([x, h], 1) @ p["w"] + p["b"]
        i, f, g, o = z[:, :n], z[:, n : 2 * n], z[:, 2 * n : 3 * n], z[:, 3 * n :]

        def gate(v):
            return 1 / (1 + np.exp(-v))

        c = gate(f) * c + gate(i) * np.tanh(g)
        return gate(o) * np.tanh(c), c

    def loss(p, xs):
        start = (np.zeros((b, n)), np.zeros((b, n)))
        (h, _), hs = wichi.scan(lambda s, x: ((s := cell(p, s, x)), s[0]), start, xs)
        return np.mean(h**2) + np.mean(hs)

    def plain(p, xs):
        state, hs = (np.zeros((b, n)), np.zeros((b, n))), []
        for k in range(t):
            state = cell(p, state, xs[k])
            hs.append(state[0])
        return np.mean(state[0] ** 2) + np.mean(np.stack(hs))

    close(wichi.value_and_grad(loss)(params, xs), wichi.value_and_grad(plain)(params, xs), 1e-9)


# --- bad input -------------------------------------------------------------------------------------------------------
class TestRefusals:
    def test_carry_of_another_shape_names_the_leaf_and_both_types(self):
        with pytest.raises(LoopError, match=r"carry\['a'\] begins as f64\[2\] and the body returns f64\[3\]"):
            wichi.scan(lambda c, _: ({"a": np.concatenate([c["a"], c["a"][:1]])}, None), {"a": np.ones(2)}, None, 3)

    def test_carry_of_another_dtype(self):
        with pytest.raises(LoopError, match=r"begins as i64\[\] and the body returns f64\[\].*\n(.*\n)*.*fix"):
            wichi.while_loop(lambda c: c < 3, lambda c: c * 0.5, np.int64(1))

    def test_carry_of_another_tree(self):
        with pytest.raises(LoopError, match=r"changes its tree: carry begins as \* and the body returns \(\*, \*\)"):
            wichi.while_loop(lambda x: True, lambda x: (x, 1), 0.0)
        with pytest.raises(LoopError, match=r"carry\['s'\]\[1\] begins as \* and the body returns None"):
            wichi.scan(lambda c, _: ({"s": (c["s"][0], None)}, None), {"s": (1.0, 2.0)}, None, 3)

    @pytest.mark.parametrize("bound", [4, "traced"])
    def test_carry_of_fori_loop_is_called_val(self, bound):
        def f(n):
            n = n if bound == "traced" else bound
            return wichi.fori_loop(0, n, lambda i, v: {"a": np.append(v["a"], 1.0)}, {"a": np.ones(2)})

        with pytest.raises(LoopError, match=r"carry of fori_loop changes: val\['a'\] begins as f64\[2\] .* f64\[3\]"):
            wichi.jit(f)(4)

    def test_scan_body_must_return_a_pair(self):
        with pytest.raises(LoopError, match=r"must return a pair \(carry, y\)"):
            wichi.scan(lambda c, x: c + x, 0.0, np.ones(3))

    def test_unequal_lengths(self):
        with pytest.raises(LoopError, match=r"lengths disagree \(xs\[0\]: 3, xs\[1\]: 4\)"):
            wichi.scan(lambda c, x: (c, x), 0.0, (np.ones(3), np.ones(4)))
        with pytest.raises(LoopError, match="lengths disagree"):
            wichi.scan(lambda c, x: (c, x), 0.0, np.ones(3), length=5)
        with pytest.raises(ArgumentError, match="how many rounds"):
            wichi.scan(lambda c, x: (c, x), 0.0)

    def test_branches_that_disagree(self):
        with pytest.raises(LoopError, match=r"result\['a'\] is i64\[\] in false_fun and f64\[\] in true_fun"):
            wichi.jit(lambda x: wichi.cond(x > 0, lambda v: {"a": v}, lambda v: {"a": np.int64(0)}, x))(1.0)
        with pytest.raises(LoopError, match=r"different trees: result\[1\] is \(\*,\) in branch 0 and \* in branch 1"):
            wichi.jit(lambda i, v: wichi.switch(i, [lambda v: (v, (v,)), lambda v: (v, v)], v))(1, 1.0)

    def test_conditions_must_be_one_bool(self):
        with pytest.raises(LoopError, match=r"must be one bool; it is f64\[\]"):
            wichi.while_loop(lambda x: x, lambda x: x, 1.0)
        with pytest.raises(LoopError, match=r"must be one bool; it is the tree \(\*,\)"):
            wichi.while_loop(lambda x: (x < 3,), lambda x: x, 1.0)
        with pytest.raises(LoopError, match=r"must be one bool; it is bool\[3\]"):
            wichi.jit(lambda x: wichi.cond(x > 0, np.sum, np.sum, x))(np.ones(3))

    def test_python_conditions_in_a_body_are_refused_with_the_line(self):
        def body(c, _):
            if c > 0:
                return c, None
            return -c, None

        with pytest.raises(ConditionError, match="if c > 0"):
            wichi.scan(body, 1.0, None, 3)

    def test_tape_is_bounded(self, monkeypatch):
        monkeypatch.setattr(wichi.config, "tape_bytes", 10_000)
        f = wichi.grad(lambda x: wichi.while_loop(lambda v: v < 1e9, lambda v: v + x, x))
        with pytest.raises(LoopError, match=r"(?s)more memory than 10,000 bytes.*tape_bytes"):
            f(1.0)

    def test_index_errors_in_bodies_name_the_line(self):
        table = np.arange(4.0)

        def body(i):
            return i + 1 + wichi.numpy.take(table, i).astype(int) * 0

        with pytest.raises(IndexError, match=r"(?s)shape \(4,\).*wichi.numpy.take\(table, i\)"):
            wichi.jit(lambda n: wichi.while_loop(lambda i: i < n, body, 0))(9)
        assert wichi.jit(lambda n: wichi.while_loop(lambda i: i < n, body, 0))(4) == 4

    def test_a_plain_array_indexed_by_a_value_says_take(self):
        table = np.arange(4.0)
        with pytest.raises(PlainArrayError, match=r"fix: wichi.numpy.take\(table, i, axis=0\)"):
            wichi.map(lambda i: table[i] * 2.0, np.arange(3))
        assert wichi.jit(lambda i: table[i] * 2.0)(1) == 2.0  # at top level the integer is a guard
        assert wichi.jit(lambda i: wichi.numpy.take(table, i, axis=0) * 2.0)(1) == 2.0


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c_ends_a_loop_that_does_not(n, again):
    f = wichi.jit(lambda x: wichi.while_loop(lambda v: v[0] >= 0.0, lambda v: np.abs(v) + 0.0, x))
    if again:  # through the fast call
        f(-np.ones(n)), f(-np.ones(n))
    sent = []

    def interrupt():
        time.sleep(0.3)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    f(-np.ones(n))  # compiled before the clock starts
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        f(np.ones(n))
    assert sent
    assert time.perf_counter() - sent[0] < 2.0
    close(f(-np.ones(n)), -np.ones(n))


@pytest.mark.parametrize("reverse", [False, True])
def test_weights_used_in_several_ways_in_one_body(reverse):
    """Sums of products over the rounds are one product after the loop; other uses of the same weights are summed."""
    rng = np.random.default_rng(0)
    w, u, xs = rng.normal(size=(5, 5)) * 0.4, rng.normal(size=(5, 5)) * 0.4, rng.normal(size=(6, 2, 5))

    def body(h, x, w, u):
        new = np.tanh(h @ w + x @ w + np.sin(h @ u))
        return new, new * np.sum(u)

    def f(w, u, xs):
        last, ys = wichi.scan(lambda h, x: body(h, x, w, u), np.zeros((2, 5)), xs, reverse=reverse)
        return np.sum(last) + np.sum(ys**2)

    def plain(w, u, xs):
        h, total = np.zeros((2, 5)), 0.0
        for x in xs[::-1] if reverse else xs:
            h, y = body(h, x, w, u)
            total = total + np.sum(y**2)
        return np.sum(h) + total

    for i, x in enumerate((w, u, xs)):
        args = [w, u, xs]
        close(
            wichi.grad(f, argnums=i)(*args),
            numeric(lambda v, i=i, args=args: plain(*args[:i], v, *args[i + 1 :]), x),
            1e-5,
        )
    close(wichi.hvp(f, (w, u, xs), (w, 0 * u, 0 * xs)), numeric_along(lambda v: wichi.grad(f)(v, u, xs), w), 1e-4)
    ws = np.stack([w, 0.5 * w])
    close(wichi.vmap(wichi.grad(f), (0, None, None))(ws, u, xs), np.stack([wichi.grad(f)(v, u, xs) for v in ws]))


@pytest.mark.parametrize("n", SIZES)
def test_threads_in_one_loop_do_not_meet(n):
    """A small program holds the GIL but offers it within long loops: then each call needs memory of its own."""

    def f(x):
        return wichi.while_loop(lambda s: s[1] < 3000, lambda s: (np.sin(s[0]) + x, s[1] + 1), (x, 0))[0]

    g = wichi.jit(f)
    xs = [np.full(n, 0.1 * k) for k in range(8)]
    expected = [g(x) for x in xs]
    g(xs[0])
    wrong = []

    def run(k):
        wrong.extend(k for _ in range(30) if not np.array_equal(g(xs[k]), expected[k]))

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_checkpointed_rounds_keep_the_memory_at_the_square_root():
    def loss(x, wrap):
        block = wrap(lambda c: wichi.scan(lambda c, _: (np.sin(c) * 1.01 + 0.1, None), c, None, 100)[0])
        return np.sum(wichi.scan(lambda c, _: (block(c), None), x, None, 100)[0])

    plain = wichi.grad(lambda x: loss(x, lambda f: f))
    apart = wichi.grad(lambda x: loss(x, wichi.checkpoint))
    x = np.linspace(0.0, 1.0, 100)
    close(apart(x), plain(x))
    assert apart.memory(x).working * 30 < plain.memory(x).working


def numeric_along(g, x, step=1e-5):
    return (g(x + step * x) - g(x - step * x)) / (2 * step)

"""Gradients inside the user's own numba code: optimisers, integrators and samplers, equal to the plain ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numba
import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError, DtypeError

X = np.array([0.5, -0.3, 0.8])


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_value_and_gradient_as_from_python():
    f = wichi.value_and_grad(rosenbrock)
    compiled = wichi.njit(f, X)
    value, gradient = compiled(X)
    assert value == f(X)[0]
    np.testing.assert_array_equal(gradient, f(X)[1])


def test_gradient_descent():
    value_and_grad = wichi.njit(wichi.value_and_grad(rosenbrock), X)

    @numba.njit
    def descend(x, steps):
        for _ in range(steps):
            _, g = value_and_grad(x)
            x = x - 1e-3 * g
        return x

    x = X
    for _ in range(200):
        x = x - 1e-3 * wichi.grad(rosenbrock)(x)
    np.testing.assert_allclose(descend(X, 200), x, rtol=1e-12)
    np.testing.assert_allclose(descend(X, 100_000), 1.0, atol=1e-6)


def lorenz(state, p):
    x, y, z = state[0], state[1], state[2]
    return np.stack([p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z])


def test_adjoint_of_an_integrator():
    """Backward through Euler steps written in numba, with vector-Jacobian products by wichi."""
    p, s0, h = np.array([10.0, 28.0, 8.0 / 3.0]), np.array([1.0, 1.0, 1.0]), 0.01
    slope = wichi.njit(lorenz, s0, p)
    pull = wichi.njit(lambda s, p, ct: wichi.vjp(lorenz, s, p)[1](ct), s0, p, s0)

    @numba.njit
    def gradient(s0, p, steps):
        path = np.empty((steps + 1, 3))
        path[0] = s0
        for i in range(steps):
            path[i + 1] = path[i] + h * slope(path[i], p)
        ct, dp = 2 * path[steps], np.zeros(3)
        for i in range(steps - 1, -1, -1):
            ds, more = pull(path[i], p, h * ct)
            ct, dp = ct + ds, dp + more
        return ct, dp

    def loss(s, p):
        for _ in range(20):
            s = s + h * lorenz(s, p)
        return np.sum(s**2)

    for ours, want in zip(gradient(s0, p, 20), wichi.grad(loss, argnums=(0, 1))(s0, p), strict=True):
        np.testing.assert_allclose(ours, want, rtol=1e-12)


def test_langevin_sampler():
    log_density = lambda x: -0.5 * np.sum((x - 1.0) ** 2 / np.array([1.0, 4.0]))  # noqa: E731
    both = wichi.njit(wichi.value_and_grad(log_density), np.zeros(2))

    @numba.njit
    def sample(steps, seed):
        np.random.seed(seed)  # noqa: NPY002  (numba's own generator)
        x, h, kept = np.zeros(2), 0.9, np.empty((steps, 2))
        value, g = both(x)
        for i in range(steps):
            y = x + h * g + np.sqrt(2 * h) * np.random.standard_normal(2)  # noqa: NPY002
            new, g_new = both(y)
            forth, back = np.sum((y - x - h * g) ** 2), np.sum((x - y - h * g_new) ** 2)
            if np.log(np.random.random()) < new - value + (forth - back) / (4 * h):  # noqa: NPY002
                x, value, g = y, new, g_new
            kept[i] = x
        return kept

    kept = sample(60_000, 0)
    np.testing.assert_allclose(kept.mean(0), 1.0, atol=0.1)
    np.testing.assert_allclose(kept.var(0), [1.0, 4.0], rtol=0.15)


def test_other_transforms_and_results():
    jacobian = wichi.njit(wichi.jacobian(lambda x: np.tanh(x) * x[0]), X)
    np.testing.assert_allclose(jacobian(X), wichi.jacobian(lambda x: np.tanh(x) * x[0])(X), rtol=1e-14)
    hessian = wichi.njit(wichi.hessian(rosenbrock), X)
    np.testing.assert_allclose(hessian(X), wichi.hessian(rosenbrock)(X), rtol=1e-12)
    several = wichi.njit(lambda x, pair: ((x * pair[0], np.sum(x)), pair[1]), X, (2.0, np.ones(2)))
    (scaled, total), second = several(X, (3.0, np.zeros(2)))
    np.testing.assert_allclose(scaled, 3 * X)
    assert total == pytest.approx(X.sum())
    np.testing.assert_array_equal(second, [0, 0])


def test_numbers_strides_and_dtypes():
    f = wichi.njit(lambda x, k, n: np.sum(x) * k + n, X, 2.0, np.int64(3))
    assert f(X, 3, 4) == pytest.approx(3 * X.sum() + 4)
    wide = np.arange(6.0)
    assert f(wide[::2], 1.0, 0) == 6
    single = wichi.njit(lambda x: np.exp(x), X.astype(np.float32))
    assert single(X.astype(np.float32)).dtype == np.float32


def test_captured_arrays_are_read_anew():
    weights = np.ones(3)
    f = wichi.njit(lambda x: np.sum(x * weights), X)
    weights *= 2
    assert f(np.ones(3)) == 6


def test_large_arena_and_parallel_loops():
    gradient = wichi.njit(wichi.grad(lambda x: np.sum(np.tanh(np.outer(x, x)) @ x)), np.ones(60))

    @numba.njit(parallel=True, nogil=True)
    def each(xs):
        out = np.empty_like(xs)
        for i in numba.prange(len(xs)):
            out[i] = gradient(xs[i])
        return out

    xs = np.random.default_rng(0).standard_normal((40, 60))
    want = np.stack([wichi.grad(lambda x: np.sum(np.tanh(np.outer(x, x)) @ x))(x) for x in xs])
    np.testing.assert_allclose(each(xs), want, rtol=1e-12)


def test_wrong_types_shapes_and_indices():
    f = wichi.njit(lambda x, i: x[i], X, np.array([0]))
    for wrong in (X.astype(np.float32), np.ones((2, 2)), 1.0, "x"):

        @numba.njit
        def caller(x, i):
            return f(x, i)

        for call in (f, caller):  # numba says so when it compiles the call: ours from the first word on
            said = r"\[W\d+\] wichi.njit of .*the argument x must be f64\[3\]; it is (.|\n)*at: .*test_njit.py"
            with pytest.raises(DtypeError, match=said):
                call(wrong, np.array([0]))
    with pytest.raises(DtypeError, match="the argument i"):
        f(X, np.array([0.5]))
    any_length = wichi.njit(lambda x: np.sum(x), wichi.spec("float64", ("n",)))
    with pytest.raises(DtypeError, match="the argument x must be f64"):
        any_length(X.astype(np.float32))
    assert any_length(X) == X.sum()
    with pytest.raises(ValueError, match=r"x must have shape \(3,\)"):
        f(np.ones(4), np.array([0]))
    with pytest.raises(IndexError, match="outside its axis"):
        f(X, np.array([7]))
    with pytest.raises(ArgumentError, match="dict"):
        wichi.njit(lambda p: p["a"], {"a": X})
    with pytest.raises(ArgumentError, match="result"):
        wichi.njit(lambda x: {"a": x}, X)


def run(tmp_path, name):
    done = subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_cached_callers_call_the_function_as_it_is_now(tmp_path):
    """numba notices changes in the caller's own file only; the program is found through a slot."""
    (tmp_path / "loss.py").write_text("import numpy as np\ndef f(x):\n    return np.sum(x**3)\n")
    (tmp_path / "caller.py").write_text(
        textwrap.dedent(
            """
            import numba, numpy as np, wichi
            from loss import f
            g = wichi.njit(wichi.grad(f), np.ones(2))
            @numba.njit(cache=True)
            def step(x):
                return g(x) + 1
            """
        )
    )
    (tmp_path / "main.py").write_text(
        "import numpy as np\nfrom caller import step\n"
        "print(step(np.ones(2)).tolist(), sum(step.stats.cache_hits.values()))\n"
    )
    assert run(tmp_path, "main.py") == "[4.0, 4.0] 0"
    assert run(tmp_path, "main.py") == "[4.0, 4.0] 1"
    (tmp_path / "loss.py").write_text("import numpy as np\ndef f(x):\n    return 5 * np.sum(x**2) + np.sin(x[0])\n")
    assert run(tmp_path, "main.py") == f"[{10 + np.cos(1) + 1}, 11.0] 1"


def test_callers_of_lambdas_are_not_written_to_disk(tmp_path):
    """No name leads to a lambda, so they would hold an address of a process that has ended."""
    (tmp_path / "model.py").write_text(
        textwrap.dedent(
            """
            import numba, numpy as np, wichi
            g = wichi.njit(wichi.grad(lambda x: np.sum(x**3)), np.ones(2))
            @numba.njit(cache=True)
            def f(x):
                return g(x) + 1
            assert f(np.ones(2)).tolist() == [4.0, 4.0]
            """
        )
    )
    for _ in range(2):
        run(tmp_path, "model.py")
    assert not list(tmp_path.rglob("*.nbc"))


def test_a_function_whose_globals_have_changed():
    space = {"np": np, "k": 2.0, "__name__": "somewhere"}
    exec("def f(x):\n    return k * np.sum(x**2)", space)
    first = wichi.njit(wichi.grad(space["f"]), X)
    space["k"] = 3.0
    second = wichi.njit(wichi.grad(space["f"]), X)
    np.testing.assert_allclose(first(X), 4 * X)
    np.testing.assert_allclose(second(X), 6 * X)


def test_one_function_for_several_shapes():
    two, three = (wichi.njit(wichi.grad(rosenbrock), np.ones(n)) for n in (2, 3))
    again = wichi.njit(wichi.grad(rosenbrock), np.ones(3))

    @numba.njit
    def both(x):
        return two(x[:2]), three(x), again(x)

    for got, want in zip(both(X), (X[:2], X, X), strict=True):
        np.testing.assert_array_equal(got, wichi.grad(rosenbrock)(want))


def test_functions_of_equal_names_have_slots_of_their_own():
    made = [wichi.njit(wichi.grad(lambda x: np.sum(x**2)), X), wichi.njit(wichi.grad(lambda x: np.sum(x**3)), X)]
    np.testing.assert_allclose(made[0](X), 2 * X)
    np.testing.assert_allclose(made[1](X), 3 * X**2)

    def power(k):
        return lambda x: np.sum(x**k)

    squares, cubes = (wichi.njit(wichi.grad(power(k)), X) for k in (2, 3))
    np.testing.assert_allclose(squares(X), 2 * X)
    np.testing.assert_allclose(cubes(X), 3 * X**2)
    np.testing.assert_allclose(squares(X), 2 * X)


# ---------------------------------------------------------------------------------------------------- free sizes


def mean_square(x):
    return np.sum(x**2) / x.shape[0] + np.mean(x) * x.size


FREE = [
    ("sum", lambda x: np.sum(x**2), [("n",)]),
    ("rosenbrock", rosenbrock, [("n",)]),
    ("shape in arithmetic", mean_square, [("n",)]),
    ("two axes", lambda a, b: np.sum(np.tanh(a @ b)) / (a.shape[0] * b.shape[1]), [("n", 3), (3, "m")]),
    ("one name twice", lambda a, x: x @ a @ x + np.trace(a), [("n", "n"), ("n",)]),
    ("moments", lambda x: np.var(x) + np.std(x, ddof=1) + np.mean(x, 0), [("n",)]),
    (
        "softmax",
        lambda a, w: -np.mean(np.log(np.exp(a @ w) / np.sum(np.exp(a @ w), 1, keepdims=True))),
        [("n", 4), (4, 5)],
    ),
    ("logistic", lambda a, y, w: np.mean(np.logaddexp(0, -y * (a @ w))), [("n", 4), ("n",), (4,)]),
    ("concatenate", lambda x, y: np.sum(np.cumsum(np.concatenate([x, y])) ** 2), [("n",), ("m",)]),
    ("from the end", lambda x: x[-1] * x[-2] + np.sum(np.diff(x) ** 2), [("n",)]),
    ("reshape", lambda x: np.sum(x.reshape(-1, 2)[:, 0] * x.reshape(x.shape[0], 2)[:, 1]), [("n", 2)]),
    ("outer", lambda x: np.sum(np.exp(-((x[:, None] - x[None, :]) ** 2))), [("n",)]),
    ("arange", lambda x: np.sum(x * wichi.numpy.arange(x.shape[0])), [("n",)]),
    ("maximum", lambda x: np.max(x) + np.sum(np.maximum(x, 0.1)), [("n",)]),
]


@pytest.mark.parametrize(("fn", "shapes"), [c[1:] for c in FREE], ids=[c[0] for c in FREE])
@pytest.mark.parametrize("transform", [wichi.jit, wichi.value_and_grad, wichi.grad])
def test_free_sizes(fn, shapes, transform):
    """One program; its answers are bit-equal to those of the program made for the size, whatever the size."""
    specs = [wichi.spec("float64", s) for s in shapes]
    plain = transform(fn, argnums=tuple(range(len(specs)))) if transform is not wichi.jit else wichi.jit(fn)
    f = wichi.njit(plain, *specs)
    rng = np.random.default_rng(0)
    for n, m in ((2, 3), (3, 2), (7, 5), (33, 64), (500, 130)):
        args = [rng.standard_normal([{"n": n, "m": m}.get(k, k) for k in s]) for s in shapes]
        got, want = f(*args), plain(*args)
        for a, b in zip(wichi.pytree.leaves(got), wichi.pytree.leaves(want), strict=True):
            assert np.shape(a) == np.shape(b)
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_free_sizes_in_a_loop_and_in_threads():
    vg = wichi.njit(wichi.value_and_grad(rosenbrock), wichi.spec("float64", ("n",)))

    @numba.njit(parallel=True)
    def each(xs):
        out = np.empty((len(xs), 400))
        for i in numba.prange(len(xs)):
            x = xs[i, : 2 + 3 * i]
            for _ in range(50):
                _, g = vg(x)
                x = x - 1e-4 * g
            out[i, : len(x)] = x
        return out

    xs = np.random.default_rng(0).standard_normal((100, 400))
    got = each(xs)
    for i in (0, 1, 17, 99):
        x = xs[i, : 2 + 3 * i]
        for _ in range(50):
            x = x - 1e-4 * wichi.grad(rosenbrock)(x)
        np.testing.assert_allclose(got[i, : len(x)], x, rtol=1e-12)


@pytest.mark.parametrize(
    ("fn", "error", "words"),
    [
        (lambda x: sum(x[i] for i in range(x.shape[0])), wichi.errors.ConditionError, r"range\(x.shape\[0\]\)"),
        (lambda x: len(x) * x[0], wichi.errors.ConditionError, r"len\(x\)"),
        (lambda x: x[0] if x.shape[0] > 3 else x[1], wichi.errors.ConditionError, r"x.shape\[0\] > 3"),
        (lambda x: x[0] if x.size == 5 else x[1], wichi.errors.ConditionError, r"x.size == 5"),
        (lambda x: x[0] * float(x.size), wichi.errors.PlainFloatError, "float"),
        (lambda x: x[0] * int(x.shape[0]), wichi.errors.WichiError, "int"),
        (lambda x: sum(x), wichi.errors.WichiError, "free size n"),
        (lambda x: np.sum(x[::2]), wichi.errors.ShapeError, "slice"),
        (lambda x: x * np.arange(x.shape[0]), wichi.errors.PlainArrayError, r"fix: wichi.numpy.arange\(x.shape\[0\]\)"),
        (lambda x: x * np.zeros(x.shape), wichi.errors.WichiError, r"fix: wichi.numpy.zeros\(x.shape\)"),
    ],
)
def test_free_sizes_that_python_needs(fn, error, words):
    with pytest.raises(error, match=words) as caught:
        wichi.njit(fn, wichi.spec("float64", ("n",)))
    assert "test_njit.py" in str(caught.value)
    assert "fix:" in str(caught.value)


def test_free_sizes_at_a_call():
    f = wichi.njit(lambda a, x: a @ x, wichi.spec("float64", ("n", "m")), wichi.spec("float64", ("m",)))
    with pytest.raises(ValueError, match=r"x must have shape \(m,\)"):
        f(np.ones((2, 3)), np.ones(2))
    with pytest.raises(DtypeError, match="the argument x must be"):
        f(np.ones((2, 3)), np.ones((3, 3)))
    last = wichi.njit(lambda x: x[3] + x[-2], wichi.spec("float64", ("n",)))
    assert last(np.arange(4.0)) == 5
    with pytest.raises(ValueError, match="x is too short along axis 0"):
        last(np.arange(3.0))
    with pytest.raises(ArgumentError, match="is no size"):
        wichi.spec("float64", (-1,))

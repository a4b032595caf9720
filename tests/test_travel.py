"""Compiled functions pickle, copy, survive ``fork`` and run in workers of every kind; arrays go to and from others."""

from __future__ import annotations

import copy
import functools
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap

import cloudpickle
import numba
import numpy as np
import pytest
import torch

import wichi
from wichi.errors import ArgumentError, PlainArrayError

X, W = np.array([0.1, 0.2, 0.3]), np.arange(3.0)


def loss(x):
    return np.sum(np.sin(x) * W)


def total(x):
    return np.sum(np.sin(x))


def curve(x):
    return np.tanh(x) * x[0]


def power(x, n):
    return np.sum(x) ** n


@wichi.value_and_grad
def decorated(x):
    return np.sum(x**2)


@wichi.custom_jvp
def steep(x):
    return np.sin(x)


@steep.defjvp
def steep_rule(primals, tangents):
    return steep(primals[0]), 7.0 * tangents[0]


@wichi.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, ct: (np.clip(ct, -1.0, 1.0),))


def host_cube(x):
    return np.asarray(x) ** 3


def cube_forward(x):
    return cube(x), x


def cube_backward(x, ct):
    return (3 * x**2 * ct,)


cube = wichi.primitive(host_cube)
cube.defvjp(cube_forward, cube_backward)


def host_square(x):
    return np.asarray(x) ** 2


def square_rule(primals, tangents):
    return primals[0] ** 2, 2.0 * primals[0] * tangents[0]


nameless = wichi.primitive(host_square)
nameless.defjvp(square_rule)


def pair(x, y):
    return x * y, np.sum(x)


def to_power(n, x):
    return x**n


def to_power_rule(n, primals, tangents):
    return primals[0] ** n, n * primals[0] ** (n - 1) * tangents[0]


lifted = wichi.custom_jvp(to_power, nondiff_argnames=["n"])
lifted.defjvp(to_power_rule)


class Model:
    def __init__(self):
        self.w = np.ones(3)

    def loss(self, x):
        return np.sum(self.w * x)


def of_steep(x):
    return np.sum(steep(x) + cube(x))


FUNCTIONS = {
    "jit": (wichi.jit(loss), (X,)),
    "grad": (wichi.grad(loss), (X,)),
    "decorated": (decorated, (X,)),
    "grad of a jit": (wichi.grad(wichi.jit(loss)), (X,)),
    "static": (wichi.value_and_grad(power, static_argnums=1), (X, 3)),
    "static by name": (wichi.jit(power, static_argnames="n"), (X, 3)),
    "vmap": (wichi.vmap(loss), (np.stack([X, X]),)),
    "vmap with axes": (wichi.vmap(np.dot, in_axes=(None, 1)), (X, np.ones((3, 2)))),
    "jacobian": (wichi.jacobian(curve), (X,)),
    "jacfwd": (wichi.jacfwd(curve, chunk=2), (X,)),
    "jacrev": (wichi.jacrev(curve), (X,)),
    "jacobian of several, and more": (wichi.jacobian(pair, argnums=[0, 1], has_aux=True), (X, W)),
    "hessian": (wichi.hessian(loss), (X,)),
    "hessian in parts": (wichi.hessian(loss, chunk=2), (X,)),
    "a stack": (wichi.jit(wichi.vmap(wichi.grad(loss))), (np.stack([X, X]),)),
    "custom_jvp": (wichi.grad(of_steep), (X,)),
    "its own": (steep, (1.0,)),
    "static of a rule": (wichi.grad(functools.partial(lifted, 3)), (2.0,)),
    "primitive": (cube, (X,)),
    "nameless primitive": (nameless, (X,)),
    "its derivative": (wichi.jacobian(nameless), (X,)),
    "checkpoint": (wichi.grad(wichi.checkpoint(loss)), (X,)),
    "checkpoint alone": (wichi.checkpoint(power, wichi.products_saveable, static_argnums=1), (X, 3)),
    "partial": (wichi.grad(functools.partial(power, n=2)), (X,)),
    "method": (wichi.grad(Model().loss), (X,)),
    "pullback": (wichi.vjp(curve, X)[1], (X,)),
    "linear map": (wichi.linearize(curve, X)[1], (X,)),
    "make_graph": (wichi.make_graph(loss), (X,)),
    "sparse jacobian": (wichi.sparse.jacobian(curve), (X,)),
    "sparse hessian": (wichi.sparse.hessian(loss), (X,)),
    "njit of free sizes": (wichi.njit(wichi.grad(total), wichi.spec("f8", ("n",))), (X,)),
    "njit": (wichi.njit(wichi.grad(loss), X), (X,)),
    "for_scipy": (wichi.for_scipy(loss, X).jac, (X,)),
    "adam": (wichi.optim.adam(1e-2).init, (X,)),
    "mlp": (wichi.MLP([3, 4, 1], seed=0), (X,)),
}
WAYS = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "cloudpickle": lambda x: pickle.loads(cloudpickle.dumps(x)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def same(a, b):
    for x, y in zip(wichi.pytree.leaves(a), wichi.pytree.leaves(b), strict=True):
        if isinstance(x, np.ndarray | np.generic | float):
            np.testing.assert_array_equal(x, y)
        else:
            assert str(x) == str(y)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", FUNCTIONS)
def test_functions_travel(what, way):
    f, args = FUNCTIONS[what]
    want = f(*args)
    for _ in range(2):
        f(*args)  # with its fast ways in, which stay at home
    same(WAYS[way](f)(*args), want)


@pytest.mark.parametrize("f", [decorated, steep, clipped], ids=lambda f: f.__name__)
def test_what_a_module_holds_is_pickled_by_name(f):
    assert WAYS["pickle"](f) is f
    assert WAYS["deepcopy"](f) is f


def test_lambdas_and_closures_travel_with_their_code():
    scale = 3.0
    f = wichi.hessian(lambda x: np.sum(x**3) * scale)
    np.testing.assert_allclose(WAYS["cloudpickle"](f)(X), np.diag(18.0 * X), rtol=1e-14)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(f)


def test_rules_of_a_nameless_custom_function_travel():
    f = wichi.custom_jvp(np.sin)
    f.defjvp(steep_rule)
    for way in ("pickle", "cloudpickle", "deepcopy"):
        assert wichi.grad(WAYS[way](f))(1.0) == 7.0


def test_functions_for_c_and_numba_are_made_anew():
    f = wichi.cfunc(wichi.grad(lambda x: x**3), 0.0)
    again = WAYS["cloudpickle"](f)
    assert (again.ctypes(2.0), again.signature) == (12.0, f.signature)
    assert copy.deepcopy(f) is f
    slope = wichi.njit(wichi.grad(lambda x, k: np.sum(x**k)), X, 3)
    assert copy.deepcopy(slope) is slope

    @numba.njit
    def twice(x):
        return slope(x, 3) * 2

    np.testing.assert_allclose(WAYS["cloudpickle"](twice)(X), 6 * X**2)


def test_training_state_travels():
    stepper = wichi.optim.Stepper(wichi.optim.adamw(0.1), [wichi.Tensor([1.0, 2.0], label="w")])
    (stepper.parameters[0] ** 2).sum().backward()
    stepper.step()
    again = WAYS["pickle"](stepper)
    np.testing.assert_array_equal(again.parameters[0].data, stepper.parameters[0].data)
    for s in (stepper, again):
        s.zero_grad()
        (s.parameters[0] ** 3).sum().backward()
        s.step()
    np.testing.assert_array_equal(again.parameters[0].data, stepper.parameters[0].data)


@pytest.mark.parametrize("way", WAYS)
def test_values_travel(way):
    value = WAYS[way](wichi.Value(2.0, label="v"))
    assert (value.data, value.label, type(value)) == (2.0, "v", wichi.Value)
    tensor = WAYS[way](wichi.Tensor([1.0, 2.0], label="t"))
    assert tensor.label == "t"
    same(tensor.data, np.array([1.0, 2.0]))


def test_errors_travel_with_their_message():
    with pytest.raises(wichi.WichiError) as caught:
        wichi.grad(lambda x: x * 2.0)(X)
    again = WAYS["pickle"](caught.value)
    assert str(again) == str(caught.value)
    assert (type(again), again.fix) == (type(caught.value), caught.value.fix)


# --- processes -------------------------------------------------------------------------------------------------------
def compiled_here(job):
    """What a job answers, and how many programs this process compiled for it."""
    from wichi.kernels import program

    f, x = job
    before = program.compile_count
    return f(x), program.compile_count - before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which this system lacks")
def test_pools():
    """Workers that are forked, and fresh ones, which find the machine code on disk."""
    jobs = [(decorated, X), (wichi.hessian(loss), X), (wichi.vmap(wichi.grad(loss)), np.stack([X, X]))]
    want = [f(x) for f, x in jobs]
    for how in ("fork", "spawn"):
        with multiprocessing.get_context(how).Pool(2) as pool:
            found = pool.map(compiled_here, jobs)
        for (answer, compiled), right in zip(found, want, strict=True):
            same(answer, right)
            assert compiled == 0 or not sys.platform.startswith("linux"), how  # elsewhere there is no disk cache


SCRIPT = """
    import sys
    import numpy as np
    import wichi

    SCALE = 2.0

    @wichi.value_and_grad
    def decorated(x):
        return np.sum(np.sin(x) * SCALE)

    @wichi.custom_jvp
    def steep(x):
        return np.sin(x)

    @steep.defjvp
    def rule(primals, tangents):
        return steep(primals[0]), 7.0 * tangents[0]

    @wichi.jit
    @wichi.grad
    def stacked(x):
        return np.sum(x**3)

    def use(x):
        return wichi.grad(lambda x: steep(x))(x)

    def called(job):
        return job[0](job[1])

    x = np.arange(3.0)
    JOBS = [(decorated, x), (stacked, x), (steep, 1.0), (use, 1.0)]
    WANT = [(2 * np.sin(x).sum(), 2 * np.cos(x)), 3 * x**2, np.sin(1.0), 7.0]

    def check(found):
        for a, b in zip(wichi.pytree.leaves(found), wichi.pytree.leaves(WANT), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)

    if __name__ == "__main__":
        if sys.argv[1] == "joblib":
            from joblib import Parallel, delayed
            check(Parallel(n_jobs=2)(delayed(f)(x) for f, x in JOBS))
        else:
            import multiprocessing
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                check(pool.map(called, JOBS))
        print("all right")
"""


@pytest.mark.parametrize("how", ["joblib", "spawn", "joblib, no script"])
def test_functions_of_the_script_itself(tmp_path, how):
    """``__main__`` of a worker may be another: by name where it is the script, by their code where it is not."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(path), how.partition(",")[0]]
    if "no script" in how:  # as in a notebook
        command = [sys.executable, "-c", path.read_text(), "joblib"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "all right", done.stderr[-3000:]


# --- arrays of others ------------------------------------------------------------------------------------------------
def test_tensors_share_their_memory():
    tensor = wichi.Tensor([1.0, 2.0, 3.0])
    theirs = torch.from_dlpack(tensor)
    assert theirs.data_ptr() == tensor.data.ctypes.data
    theirs[0] = 7.0
    assert tensor.tolist() == [7.0, 2.0, 3.0]
    assert np.shares_memory(np.from_dlpack(tensor), tensor.data)
    assert np.shares_memory(np.asarray(tensor), tensor.data)
    assert np.asarray(tensor, np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(tensor), tensor.data)
    assert tensor.__dlpack_device__() == tensor.data.__dlpack_device__()
    assert memoryview(tensor.data).format == "d"
    single = torch.from_dlpack(wichi.Tensor(np.ones((2, 3), np.float32)).T)
    assert (single.dtype, tuple(single.shape), single.stride()) == (torch.float32, (3, 2), (1, 3))


def test_arrays_of_another_library_are_refused_with_the_way():
    f = wichi.grad(lambda x: np.sum(x**2))
    theirs = torch.tensor([1.0, 2.0], dtype=torch.float64)
    with pytest.raises(ArgumentError, match=r"The argument x is torch.Tensor[\s\S]*np.from_dlpack\(x\)"):
        f(theirs)
    with pytest.raises(ArgumentError, match=r"x.detach\(\).numpy\(\)"):
        f(theirs.requires_grad_(True))
    with pytest.raises(ArgumentError, match=r"x0 is torch\.Tensor, not an array"):
        wichi.scipy.optimize.minimize(lambda x: np.sum(x**2), theirs)
    np.testing.assert_array_equal(f(np.from_dlpack(theirs.detach())), [2.0, 4.0])


def test_values_inside_transforms_do_not_leave():
    for f in (lambda x: np.sum(np.from_dlpack(x)), lambda x: torch.from_dlpack(x).sum()):
        with pytest.raises(PlainArrayError, match=r"wichi.primitive\(f\)"):
            wichi.grad(f)(X)


FIRST_CALLS = """
    import gc
    import sys
    import threading
    import numpy as np
    import wichi

    sys.setswitchinterval(1e-6)
    barrier = threading.Barrier(8)
    kept, wrong = [], []

    def work(k):
        f = wichi.value_and_grad(lambda x: wichi.while_loop(lambda v: v[0] < 9.0, lambda v: v * 2.0, x).sum() * k)
        g = wichi.grad(lambda x: np.sum(x**2) * k)
        barrier.wait()
        for _ in range(4):  # compiled, its fast way in made, and taken
            wrong.extend([] if np.array_equal(g(np.ones(3)), 2.0 * k * np.ones(3)) else [k])
            f(np.ones(2))
        kept.append((f, g))

    threads = [threading.Thread(target=work, args=(float(k),)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    gc.collect()
    for f, g in kept:
        f(np.ones(2))
        g(np.ones(3))
    assert not wrong
    print("all right")
"""


def test_first_calls_of_a_process_come_from_many_threads_at_once(tmp_path):
    """Each may make what the process needs once; machine code that others point to must live on."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(FIRST_CALLS))
    for _ in range(2):
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout.strip()) == (0, "all right"), done.stderr[-2000:]

"""Errors are ours, name the user's line, are short, hide our frames, and the fix they print runs."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wichi
from wichi import errors

X = np.array([0.5, 1.5, 2.5])


def condition(x: Any) -> Any:
    return x.sum() if x.sum() > 0 else 0.0


def condition_mended(x: Any) -> Any:
    return np.where(x.sum() > 0, x.sum(), 0.0)


def integer(x: Any) -> Any:
    return x[int(x[0])]


def integer_mended(x: Any) -> Any:
    return x[len(x) - 1]


def math_function(x: Any) -> Any:
    return math.exp(x[0])


def math_function_mended(x: Any) -> Any:
    return np.exp(x[0])


def float_of(x: Any) -> Any:
    return float(x[0]) * 2


def float_of_mended(x: Any) -> Any:
    return x[0] * 2


def store_element(x: Any) -> Any:
    a = np.zeros(2)
    a[0] = x[0]
    return a.sum()


def store_element_mended(x: Any) -> Any:
    a = wichi.numpy.zeros(2)
    a[0] = x[0]
    return a.sum()


def store_slice(x: Any) -> Any:
    a = np.zeros(3)
    a[:] = x
    return a.sum()


def store_slice_mended(x: Any) -> Any:
    return x.sum()


def add_in_place(x: Any) -> Any:
    a = np.zeros(3)
    a += x
    return a.sum()


def add_in_place_mended(x: Any) -> Any:
    a = np.zeros(3)
    a = a + x
    return a.sum()


def list_of(x: Any) -> Any:
    return np.array([x[0], x[1]]).sum()


def list_of_mended(x: Any) -> Any:
    return np.stack([x[0], x[1]]).sum()


def mean_of_list(x: Any) -> Any:
    return np.mean([x[0], x[1]])


def mean_of_list_mended(x: Any) -> Any:
    return np.mean(np.stack([x[0], x[1]]))


def unknown_function(x: Any) -> Any:
    return np.i0(x).sum()


def unused(x: Any) -> Any:
    return np.sum(np.ones(3))


def not_scalar(x: Any) -> Any:
    return x * 2


def not_scalar_mended(x: Any) -> Any:
    return (x * 2).sum()


CASES = [
    (condition, "W101", "wichi.cond(x.sum() > 0, true_fun, false_fun, x)", condition_mended),
    (integer, "W101", "a plain Python argument", integer_mended),
    (math_function, "W102", "np.exp(x[0])", math_function_mended),
    (float_of, "W102", "leave `x[0]` as it is", float_of_mended),
    (store_element, "W103", "a = wichi.numpy.zeros(...)", store_element_mended),
    (store_slice, "W103", "wichi.numpy.stack([...])", store_slice_mended),
    (add_in_place, "W103", "a = a + x", add_in_place_mended),
    (list_of, "W104", "np.stack([x[0], x[1]])", list_of_mended),
    (mean_of_list, "W104", "np.mean(np.stack([x[0], x[1]]))", mean_of_list_mended),
    (unknown_function, "W201", "functions that wichi.numpy has", None),
    (unused, "W202", "allow_unused=True", None),
    (not_scalar, "W203", ".sum()", not_scalar_mended),
]


def belongs_to_a_library(frame: traceback.FrameSummary) -> bool:
    """Of the tracer, NumPy or numba: by their folders, as a checkout may lie below one of such a name."""
    folders = [Path(wichi.__file__).parent / "trace", Path(np.__file__).parent, Path(np.__file__).parents[1] / "numba"]
    return any(Path(frame.filename).is_relative_to(folder) for folder in folders)


@pytest.mark.parametrize(("function", "code", "fix", "mended"), CASES, ids=[c[0].__name__ for c in CASES])
def test_message_and_fix(function: Any, code: str, fix: str, mended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wichi.config, "guards", False)  # else conditions and integers are no errors at the top
    with pytest.raises(wichi.WichiError) as caught:
        wichi.grad(function)(X)
    message = str(caught.value)
    assert message.startswith(f"[{code}]")
    assert fix in caught.value.fix
    assert "test_errors.py:" in caught.value.at
    assert len(message.splitlines()) <= 12
    assert "racer" not in message
    assert "@jit" not in message
    if code not in ("W202", "W203"):  # those two are about the whole call: the line is the caller's
        first = function.__code__.co_firstlineno
        line = int(caught.value.at.split("test_errors.py:")[1].split(" ")[0])
        assert first < line <= first + len(inspect.getsource(function).splitlines())
    assert not any(map(belongs_to_a_library, traceback.extract_tb(caught.value.__traceback__)))
    if mended is not None:
        assert np.all(np.isfinite(wichi.grad(mended)(X)))


TABLE = np.arange(3.0)


def _stored(x: Any) -> Any:
    a = np.zeros((3, 3))
    a[0] -= x
    return a.sum()


def _stored_outside(x: Any) -> Any:
    TABLE[0] += x[0]
    return TABLE.sum()


def _stored_outside_mended(x: Any) -> Any:
    new_TABLE = wichi.numpy.array(TABLE)
    new_TABLE[0] += x[0]
    return new_TABLE.sum()


def _stored_into_an_argument(x: Any, a: Any = TABLE) -> Any:
    a[1:] = x[1:]
    return a.sum()


def _scaled_in_place(x: Any) -> Any:
    a = np.ones(3)
    a *= x - 1.0
    return a.sum()


def _double(v: Any) -> Any:
    return 2.0 * v


_doubles = np.vectorize(_double)


def _by_name(x: Any) -> Any:
    return np.sum(_doubles(x))


def _in_one(x: Any) -> Any:
    return np.sum(np.vectorize(_double)(x))


def _float64_of(x: Any) -> Any:
    return np.float64(x[0])


def _random_about(x: Any) -> Any:
    return np.random.normal(x).sum()  # noqa: NPY002


@pytest.mark.parametrize(
    ("function", "code", "fix", "mended"),
    [
        (_stored, "W103", "a = wichi.numpy.zeros(...) can be written", None),
        (_stored_outside, "W103", "new_TABLE = wichi.numpy.array(TABLE)", _stored_outside_mended),
        (_stored_into_an_argument, "W103", "new_a = wichi.numpy.array(a)", None),
        (_scaled_in_place, "W103", "a = a * (x - 1.0)", lambda x: np.sum(np.ones(3) * (x - 1.0))),
        (_by_name, "W104", "wichi.vmap(f)(x)", lambda x: np.sum(wichi.vmap(_double)(x))),
        (_in_one, "W104", "_double(x) itself", lambda x: np.sum(_double(x))),
        (_float64_of, "W104", "x[0].astype(np.float64)", lambda x: x[0].astype(np.float64)),
        (_random_about, "W104", "draw plain numbers outside", None),
        (lambda x: np.sum(np.frompyfunc(_double, 1, 1)(x)), "W201", "functions that wichi.numpy has", None),
        (lambda x: np.linalg.eigvals(x[:, None] * x), "W201", "functions that wichi.numpy has", None),
        (lambda x: np.subtract.reduce(x), "W201", "functools.reduce(np.subtract, x)", None),
        (lambda x: np.hypot.accumulate(x)[1], "W201", "itertools.accumulate(x, np.hypot)", None),
        (lambda x: np.add.reduceat(x, [0, 1])[0], "W201", "np.add.reduce(x[i:j])", None),
    ],
)
def test_fixes_fit_what_was_written(function: Any, code: str, fix: str, mended: Any) -> None:
    with pytest.raises(wichi.WichiError, match=code) as caught:
        wichi.grad(function)(X)
    assert fix in caught.value.fix
    assert "test_errors.py" in caught.value.at
    if mended is not None:
        assert np.all(np.isfinite(wichi.grad(mended)(X)))


@pytest.mark.parametrize(
    ("function", "fix", "mended"),
    [
        (lambda i: np.arange(3)[i], "take(np.arange(3), i, axis=0)", lambda i: wichi.numpy.take(np.arange(3), i, axis=0)),
        (lambda i: TABLE[i, None], "wichi.numpy.array(TABLE)[i, None]", lambda i: wichi.numpy.array(TABLE)[i, None]),
        (lambda i: TABLE[i < TABLE], "np.where(i < TABLE, TABLE, 0)", lambda i: np.where(i < TABLE, TABLE, 0)),
    ],
)  # fmt: skip
def test_fixes_of_plain_arrays_with_an_index_that_is_traced(function: Any, fix: str, mended: Any) -> None:
    with pytest.raises(errors.PlainArrayError) as caught:
        wichi.vmap(function)(np.arange(3))
    assert fix in caught.value.fix
    assert len(wichi.vmap(mended)(np.arange(3))) == 3


def formatted(x: Any) -> Any:
    print(f"{x[0]:.3f}")
    return x.sum()


def element(x: Any) -> Any:
    return np.sin(x.item(1))


def element_of_a_matrix(x: Any) -> Any:
    return np.sin(x[None].item(0, 1))


@pytest.mark.parametrize(
    ("function", "what", "fix"),
    [
        (formatted, "The format '.3f' needs a plain number", "format it where it is a number"),
        (element, "`x.item` needs a plain float", "leave `x.ravel()[1]` as it is"),
        (element_of_a_matrix, "`x[None].item` needs a plain float", "leave `x[None][0, 1]` as it is"),
    ],
)
def test_numbers_that_are_not_known_yet(function: Any, what: str, fix: str) -> None:
    for transform in (wichi.grad, wichi.jit):
        with pytest.raises(errors.PlainFloatError, match="W102") as caught:
            transform(function)(X)
        assert what in str(caught.value)
        assert fix in caught.value.fix
        assert f"in {function.__name__}" in caught.value.at


def test_items_that_are_integers_become_guards() -> None:
    f = wichi.jit(lambda x, n: x[: n.item(0)].sum() + x[n.item()] * n[()].tolist())
    for n in (1, 2):
        assert f(X, np.int64(n)) == X[:n].sum() + X[n] * n
    assert wichi.jit(lambda x, flags: x if flags.item(0, 1) else -x)(2.0, np.array([[True, False]])) == -2.0
    for call in (lambda x: x.item(), lambda x: x[:, None].item(0, 2)):
        with pytest.raises((ValueError, IndexError)):
            wichi.jit(call)(X)


def test_python_integers_that_fit_no_dtype_are_no_arguments() -> None:
    f = wichi.jit(lambda n: n * 2)
    for _ in range(3):
        assert f(3) == 6
    for call in (lambda: f(2**70), lambda: wichi.grad(np.sin)(-(2**70)), lambda: wichi.jit(lambda x: 2**70)(1.0)):
        with pytest.raises(errors.IntegerRangeError, match="does not fit int64") as caught:
            call()
        assert "test_errors.py" in caught.value.at
        assert "float(n)" in caught.value.fix


def test_unused_may_be_meant() -> None:
    np.testing.assert_array_equal(wichi.grad(unused, allow_unused=True)(X), np.zeros(3))
    assert wichi.grad(lambda p: p["a"])({"a": 1.0, "b": 2.0})["b"] == 0.0  # one unused leaf is no error
    assert wichi.grad(lambda x: wichi.grad(lambda y: x * 1.0)(2.0) + x)(1.0) == 1.0  # nor are inner gradients


MASKED = np.ma.masked_array(X, X > 0)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: wichi.grad(np.sum)(np.ones(3) * 1j), errors.DtypeError, "complex128"),
        (lambda: wichi.grad(np.sum)(np.array(["a"])), errors.DtypeError, "<U1"),
        (lambda: wichi.jit(np.sum)(np.array([None])), errors.DtypeError, "object"),
        (lambda: wichi.jit(np.sin)(np.ones(2, np.float16)), errors.DtypeError, "float16"),
        (lambda: wichi.jit(np.sin)(np.ma.masked_array(X, X > 0)), errors.DtypeError, "MaskedArray"),
        (lambda: wichi.jit(lambda x: x + MASKED)(X), errors.DtypeError, "filled"),
        (lambda: wichi.Tensor(np.ma.masked_array(X, X > 0)), errors.DtypeError, "MaskedArray"),
        (lambda: wichi.jit(np.sin)(np.int8(1)), errors.DtypeError, "float16"),
        (lambda: wichi.jit(lambda x: x.astype(complex))(X), errors.DtypeError, "complex128"),
        (lambda: wichi.jit(lambda x: x * 1j)(X), errors.DtypeError, "complex128"),
        (lambda: wichi.grad(np.sum)(np.arange(3)), errors.DtypeError, "i64[3]"),
        (lambda: wichi.grad(lambda p: np.sum(p["w"][0]))({"w": [X, 3]}), errors.DtypeError, "p['w'][1]"),
        (lambda: wichi.grad(lambda x: np.argmax(x))(X), errors.DtypeError, "no derivative"),
        (lambda: wichi.jit(lambda p: p["a"])({"a": 1.0, "act": "relu"}), errors.ArgumentError, "p['act'] is str"),
        (lambda: wichi.jit(lambda x, f: f(x))(X, np.sin), errors.ArgumentError, "f is ufunc"),
        (lambda: wichi.jit(lambda x: "text")(X), errors.ArgumentError, "returned str"),
        (lambda: wichi.grad(np.sum, argnums=3)(X), errors.ArgumentError, "argnums=3"),
        (lambda: wichi.grad(3.0), errors.ArgumentError, "needs a function"),
        (lambda: wichi.grad(lambda x: (x, x))(1.0), errors.NonScalarError, "tree of 2"),
        (lambda: wichi.grad(lambda x: x, has_aux=True)(1.0), errors.ArgumentError, "pair"),
        (lambda: wichi.jvp(np.sin, (X,), (np.ones(2),)), errors.ArgumentError, "f64[2]"),
        (lambda: wichi.jvp(np.sin, (X,), ()), errors.ArgumentError, "0 tangents"),
        (lambda: wichi.vjp(np.sin, X)[1](np.ones(2)), errors.ArgumentError, "f64[2]"),
        (lambda: wichi.vjp(np.sin, X)[1]((X, X)), errors.ArgumentError, "another structure"),
        (lambda: wichi.jit(lambda x: x @ x[:2])(X), errors.ShapeError, "(3,) and (2,)"),
        (lambda: wichi.pytree.tree_map(lambda a, b: a, [1], [1, 2]), errors.ArgumentError, "different structure"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_escaped_values() -> None:
    kept: list[Any] = []

    def leak(x: Any) -> Any:
        y = x * 2
        kept.append(y)
        return y

    wichi.grad(leak)(1.0)
    for use in (
        lambda: kept[0] + 1,
        lambda: wichi.grad(lambda x: x * kept[0])(1.0),
        lambda: float(kept[0]),
        lambda: bool(kept[0]),
    ):
        with pytest.raises(errors.EscapedValueError) as caught:
            use()
        assert "y = x * 2" in str(caught.value)


CACHE: dict[str, Any] = {}
KEPT: list[Any] = []
HELD: Any = None


class Holder:
    pass


class Slotted:
    __slots__ = ("h",)


HOLDER, SLOTTED = Holder(), Slotted()


def _in_a_global() -> Any:
    def f(x: Any) -> Any:
        global HELD
        HELD = x * 2
        return np.sum(x)

    wichi.grad(f)(X)
    return HELD + 1


def _in_a_nonlocal() -> Any:
    y = None

    def f(x: Any) -> Any:
        nonlocal y
        y = x * 2
        return np.sum(x)

    wichi.grad(f)(X)
    return wichi.vmap(lambda v: v * y[0])(X)


def _in_a_local() -> Any:
    class Here:
        pass

    here = Here()
    wichi.jit(lambda x: setattr(here, "v", {"a": (x * 2, 1)}) or x)(X)
    return np.sin(here.v["a"][0])


def _after(keep: Any, use: Any) -> Any:
    def run() -> Any:
        wichi.grad(lambda x: (keep(x * 2), np.sum(x))[1])(X)
        return use()

    return run


@pytest.mark.parametrize(
    ("run", "holder"),
    [
        (_after(lambda y: CACHE.update(h=y), lambda: CACHE["h"] + 1), "`CACHE['h']` (module tests.test_errors)"),
        (
            _after(lambda y: CACHE.update(deep=[{"k": y}]), lambda: float(CACHE["deep"][0]["k"][0])),
            "`CACHE['deep'][0]['k']` (module",
        ),
        (_after(KEPT.append, lambda: wichi.jit(lambda x: x * KEPT[-1])(X)), "`KEPT[0]` (module tests.test_errors)"),
        (
            _after(lambda y: setattr(HOLDER, "h", y), lambda: bool(HOLDER.h[0] > 0)),
            "`HOLDER.h` (module tests.test_errors)",
        ),
        (
            _after(lambda y: setattr(SLOTTED, "h", y), lambda: np.sum(SLOTTED.h)),
            "`SLOTTED.h` (module tests.test_errors)",
        ),
        (_in_a_global, "`HELD` (module tests.test_errors)"),
        (_in_a_nonlocal, "`y` (closed over by _in_a_nonlocal.<locals>."),
        (_in_a_local, "`here.v['a'][0]` (in _in_a_local)"),
    ],
)
def test_escaped_values_say_who_keeps_them(run: Any, holder: str) -> None:
    with pytest.raises(errors.EscapedValueError) as caught:
        run()
    assert f"; it was kept in {holder}" in caught.value.what
    assert "test_errors.py:" in caught.value.at


def test_escaped_values_that_nobody_keeps_by_name() -> None:
    def make() -> Any:
        kept = []
        wichi.jit(lambda x: kept.append(x * 2) or x)(X)
        return iter(kept)

    with pytest.raises(errors.EscapedValueError, match="is used after it finished"):
        next(make()) + 1


def test_debug_finds_the_first_nonfinite_number() -> None:
    with wichi.debug(nans=True), pytest.raises(errors.NonFiniteError) as caught:
        wichi.grad(lambda x: np.sum(np.sqrt(x)))(np.array([0.0, 1.0]))
    assert "backward of" in str(caught.value)
    assert "np.sqrt" in str(caught.value)
    assert not np.isfinite(wichi.grad(lambda x: np.sum(np.sqrt(x)))(np.array([0.0, 1.0]))[0])  # without it, values flow


def test_internal_frames_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wichi.config, "internal_frames", True)
    with pytest.raises(wichi.WichiError) as caught:
        wichi.vmap(condition)(X[None])
    assert any(map(belongs_to_a_library, traceback.extract_tb(caught.value.__traceback__)))


def test_every_error_class_documents_failing_code_and_its_fix() -> None:
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, wichi.WichiError) and cls is not wichi.WichiError:
            assert cls.__doc__
            assert cls.code.startswith("W")
    codes = [c.code for c in wichi.WichiError.__subclasses__()]
    assert len(codes) == len(set(codes))


def test_code_without_source_still_gives_our_error() -> None:
    script = "import numpy as np, wichi\ntry:\n    wichi.vmap(lambda x: x if x > 0 else -x)(np.ones(2))\nexcept wichi.WichiError as e:\n    print(e.code)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "W101"

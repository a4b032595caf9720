"""Our exp, log, tanh … against mpmath, at the edges of IEEE arithmetic, and as vector instructions.

Each is tested as it is compiled for processors with fused multiply-adds and for those without, as one number and as a
block of them.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest
from llvmlite import ir
from mpmath import mpf

import wichi
import wichi.numpy as wnp
from wichi.kernels import link, scalars, vecmath
from wichi.kernels.native import llvm_ir
from wichi.kernels.schedule import plan

DTYPES = [np.float64, np.float32]
VARIANTS = [pytest.param(True, id="fused"), pytest.param(False, id="plain")]
# On this machine a test of fused multiply-adds needs them: elsewhere they are calls of the C library.
FUSES = link.fuses(link.cpu()[1])


class Case(NamedTuple):
    """``bounds``: the largest error in units in the last place, in float64 and float32; docs/vecmath.md has them too.

    ``low`` and ``high``: where the function is defined.
    """

    exact: Callable[..., Any]
    bounds: tuple[float, float]
    low: float = -np.inf
    high: float = np.inf
    numpy: Any = None  # where it is not NumPy's function of that name
    arity: int = 1


def _special(name: str) -> Any:
    return lambda x: getattr(__import__("scipy.special").special, name)(x)


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


CASES = {
    "exp": Case(mpmath.exp, (1.1, 1.1)),
    "exp2": Case(lambda x: mpf(2) ** x, (1.2, 1.1)),
    "expm1": Case(mpmath.expm1, (1.6, 1.7)),
    "log": Case(mpmath.log, (0.9, 0.9), low=0.0),
    "log2": Case(lambda x: mpmath.log(x, 2), (0.8, 0.8), low=0.0),
    "log10": Case(mpmath.log10, (0.8, 0.8), low=0.0),
    "log1p": Case(mpmath.log1p, (1.1, 1.1), low=-1.0),
    "softplus": Case(lambda x: max(x, mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x))), (1.7, 1.8), numpy=_softplus),
    "tanh": Case(mpmath.tanh, (1.4, 1.5)),
    "sinh": Case(mpmath.sinh, (1.5, 1.5)),
    "cosh": Case(mpmath.cosh, (1.5, 1.5)),
    "arcsinh": Case(mpmath.asinh, (1.2, 1.2)),
    "arccosh": Case(mpmath.acosh, (1.5, 1.5), low=1.0),
    "arctanh": Case(mpmath.atanh, (1.7, 1.7), low=-1.0, high=1.0),
    "sin": Case(mpmath.sin, (1.6, 1.6)),
    "cos": Case(mpmath.cos, (1.6, 1.6)),
    "tan": Case(mpmath.tan, (1.9, 1.9)),
    "arcsin": Case(mpmath.asin, (1.2, 1.2), low=-1.0, high=1.0),
    "arccos": Case(mpmath.acos, (1.2, 1.2), low=-1.0, high=1.0),
    "arctan": Case(mpmath.atan, (1.9, 1.9)),
    "arctan2": Case(mpmath.atan2, (1.9, 1.9), arity=2),
    "erf": Case(mpmath.erf, (1.8, 1.7), numpy=_special("erf")),
    "erfc": Case(lambda x: mpmath.erfc(x) if x < 1000 else mpf(0), (1.7, 1.8), numpy=_special("erfc")),
    "cbrt": Case(lambda x: mpmath.cbrt(x) if x >= 0 else -mpmath.cbrt(-x), (0.6, 0.6)),
    "pow": Case(lambda x, y: x**y, (1.8, 0.6), low=0.0, numpy=np.power, arity=2),
}  # fmt: skip
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 1e22, -1e22, 1.5, -2.5, 3.0, -3.0]
EXTREME = {
    8: [5e-324, -5e-324, 2e-308, 1e308, -1e308, -745.2, 709.79, 27.5, 2.0**53, -(2.0**53), 2.0**52 + 1],
    4: [1e-45, -1e-45, 1e-38, 3e38, -3e38, -103.9, 88.8, 9.3, 2.0**24, -(2.0**24), 2.0**23 + 1],
}


def dimensions(*names: str) -> Any:
    return pytest.mark.parametrize(
        ("name", "dtype"), [pytest.param(n, d, id=f"{n}-{np.dtype(d)}") for n in names or CASES for d in DTYPES]
    )


@functools.cache
def kernel(name: str, dtype: Any, fused: bool, lanes: int) -> Any:
    """``name`` as machine code: a loop over blocks of ``lanes``, or over numbers where that is 0."""
    if fused and not FUSES:
        pytest.skip("this processor has no fused multiply-add; the test runs where it has")
    dtype, arity = np.dtype(dtype), CASES[name].arity
    kind = scalars.register_type(dtype)
    block = ir.VectorType(kind, lanes) if lanes else kind
    i64 = ir.IntType(64)
    function = ir.Function(ir.Module(), ir.FunctionType(i64, [kind.as_pointer()] * (arity + 1) + [i64]), "f")
    *inputs, output, count = function.args
    b = ir.IRBuilder(function.append_basic_block())
    before, body, after = b.block, b.append_basic_block(), b.append_basic_block()
    b.branch(body)
    b.position_at_end(body)
    i = b.phi(i64)
    i.add_incoming(i64(0), before)

    def place(pointer: Any) -> Any:
        return b.bitcast(b.gep(pointer, [i]), block.as_pointer())

    args = [b.load(place(x), align=dtype.itemsize) for x in inputs]
    value = scalars.compute(b, name, args, [dtype] * arity, dtype, lanes, fused)
    b.store(value, place(output), align=dtype.itemsize)
    following = b.add(i, i64(max(lanes, 1)))
    i.add_incoming(following, b.block)
    b.cbranch(b.icmp_signed("<", following, count), body, after)
    b.position_at_end(after)
    b.ret(i64(0))
    loaded = link.load(link.object_code(str(function.module), link.host()), ("f",))
    assert loaded is not None
    call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * (arity + 1), ctypes.c_int64)(loaded.address("f"))

    def run(*xs: Any) -> Any:
        size = len(xs[0])
        padded = [np.resize(np.asarray(x, dtype), size + -size % max(lanes, 1)) for x in xs]
        y = np.empty_like(padded[0])
        call(*(x.ctypes.data for x in (*padded, y)), len(y))
        return y[:size]

    run.loaded = loaded  # type: ignore[attr-defined]
    return run


def block_of(dtype: Any) -> int:
    return 128 // np.dtype(dtype).itemsize


def points(name: str, dtype: Any, rng: np.random.Generator, count: int = 150) -> list[Any]:
    """Arguments over the whole range, and many where the function is not nearly constant."""
    case, dtype = CASES[name], np.dtype(dtype)
    low = -300 if dtype.itemsize == 8 else -37
    sign = rng.choice([-1.0, 1.0], count)
    if case.arity == 1:
        found = [
            rng.uniform(-1, 1, count), rng.uniform(-4, 4, count), rng.uniform(-30, 30, count),
            rng.uniform(-750, 712, count), rng.uniform(0.5, 2, count), sign * 10.0 ** rng.uniform(low, 0, count),
            sign * 10.0 ** rng.uniform(-10, 12, count), 10.0 ** rng.uniform(low - 14, -low, count),
            np.arange(-40, 40) * np.pi / 2, np.arange(1, 40) * 30_000 * np.pi,
        ]  # fmt: skip
        columns = [np.concatenate(found)]
    elif name == "pow":
        x = [rng.uniform(0.1, 5, count), rng.uniform(0.5, 1.5, count), 10.0 ** rng.uniform(low, -low, count),
             1 + rng.uniform(-1e-3, 1e-3, count), rng.uniform(0, 30, count)]  # fmt: skip
        y = [rng.uniform(-3, 3, count), rng.uniform(-1000, 1000, count) * -low / 300, rng.uniform(-1.1, 1.1, count),
             rng.uniform(-7e5, 7e5, count) * -low / 300, rng.integers(-5, 30, count)]  # fmt: skip
        columns = [np.concatenate(x), np.concatenate(y)]
    else:
        x = [rng.uniform(-3, 3, count), sign * 10.0 ** rng.uniform(low, -low, count), rng.uniform(-1e-3, 1e-3, count)]
        columns = [np.concatenate(x), rng.permuted(np.concatenate(x))]
    with np.errstate(over="ignore"):
        columns = [c.astype(dtype) for c in columns]
    inside = np.all([np.isfinite(c) for c in columns], axis=0) & (columns[0] > case.low) & (columns[0] < case.high)
    return [c[inside & (columns[0] != 0)] for c in columns]


def errors(exact: list[Any], y: Any) -> Any:
    """How far results are from exact ones, in units in the last place of these; where those overflow, inf is right."""
    limits = np.finfo(y.dtype)
    found = np.zeros(len(y))
    for i, (want, got) in enumerate(zip(exact, y.tolist(), strict=True)):
        if abs(want) >= float(limits.max) * (1 + float(limits.eps) / 4):
            found[i] = 0.0 if got == (np.inf if want > 0 else -np.inf) else np.inf
            continue
        _, exponent = mpmath.frexp(want)
        unit = mpf(2) ** (max(int(exponent) - 1, limits.minexp) - limits.nmant)
        found[i] = float(abs(mpf(got) - want) / unit) if np.isfinite(got) else np.inf
    return found


@functools.cache
def exact_values(name: str, dtype: Any) -> tuple[list[Any], list[Any]]:
    xs = points(name, dtype, np.random.default_rng(0))
    with mpmath.workprec(120):
        return xs, [CASES[name].exact(*map(mpf, row)) for row in zip(*(x.tolist() for x in xs), strict=True)]


def test_there_is_a_case_for_each_function():
    assert set(CASES) == set(vecmath.FUNCTIONS)


@pytest.mark.parametrize("fused", VARIANTS)
@dimensions()
def test_error_in_units_in_the_last_place(name, dtype, fused):
    xs, exact = exact_values(name, dtype)
    assert len(exact) > 300
    y = kernel(name, dtype, fused, block_of(dtype))(*xs)
    with mpmath.workprec(120):
        found = errors(exact, y)
    worst = int(np.argmax(found))
    bound = CASES[name].bounds[dtype == np.float32]
    assert found[worst] <= bound, [x[worst] for x in xs]


@pytest.mark.parametrize("fused", VARIANTS)
@dimensions()
def test_one_number_gives_the_bits_it_gives_in_a_block(name, dtype, fused):
    xs, _ = exact_values(name, dtype)
    rng = np.random.default_rng(1)
    # Numbers that need mending stand beside numbers that do not.
    special = [rng.choice(np.array(SPECIAL + EXTREME[np.dtype(dtype).itemsize], dtype), len(xs[0])) for _ in xs]
    mixed = [np.where(rng.uniform(size=len(x)) < 0.05, s, x) for x, s in zip(xs, special, strict=True)]
    vectors, numbers = (kernel(name, dtype, fused, lanes)(*mixed) for lanes in (block_of(dtype), 0))
    np.testing.assert_array_equal(vectors, numbers)
    same = ~np.isnan(vectors)
    np.testing.assert_array_equal(np.signbit(vectors[same]), np.signbit(numbers[same]))


@pytest.mark.parametrize("fused", VARIANTS)
@dimensions()
def test_edges_are_numpys(name, dtype, fused):
    case = CASES[name]
    ends = np.array(SPECIAL + EXTREME[np.dtype(dtype).itemsize], dtype)
    xs = [ends] if case.arity == 1 else [x.ravel() for x in np.meshgrid(ends, ends)]
    with np.errstate(all="ignore"):
        want = (case.numpy or getattr(np, name))(*xs)
    got = kernel(name, dtype, fused, block_of(dtype))(*xs)
    limits = np.finfo(dtype)
    np.testing.assert_allclose(got, want, rtol=2 * limits.eps, atol=2 * float(limits.smallest_subnormal))
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


def test_cosines_and_sines_stay_within_one():
    x = np.concatenate([np.linspace(-1e-3, 1e-3, 999), np.arange(-500, 500) * np.pi / 2, np.linspace(-4, 4, 5000)])
    for dtype in DTYPES:
        for fused in (FUSES, False):
            for name in ("sin", "cos", "erf", "tanh"):
                assert np.abs(kernel(name, dtype, fused, block_of(dtype))(x)).max() <= 1.0
            assert kernel("cos", dtype, fused, 0)(np.array([0.0, -0.0, 1e-30])).tolist() == [1.0] * 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_composed_of_others(dtype):
    """sigmoid and 1 / sqrt(x) as they come from traces."""
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.uniform(-40, 40, 300), rng.uniform(-1, 1, 100)]).astype(dtype)
    with mpmath.workprec(120):
        exact = [1 / (1 + mpmath.exp(-mpf(a))) for a in x.tolist()]
        assert errors(exact, wichi.jit(lambda x: wnp.sigmoid(x))(x)).max() < 2.0
        exact = [1 / mpmath.sqrt(abs(mpf(a))) for a in x.tolist()]
        assert errors(exact, wichi.jit(lambda x: 1 / np.sqrt(x))(np.abs(x))).max() < 1.6
    edges = np.array([-np.inf, np.inf, np.nan, -800.0, 800.0, 0.0], dtype)
    np.testing.assert_array_equal(wichi.jit(lambda x: wnp.sigmoid(x))(edges), [0.0, 1.0, np.nan, 0.0, 1.0, 0.5])


@dimensions("exp", "log", "sin", "tanh", "pow", "erfc")
def test_arrays_of_any_length_give_the_bits_of_their_numbers(name, dtype):
    """Through traces, plans and masks of last blocks; what lies beyond the end is not mended."""
    case = CASES[name]
    function = case.numpy or getattr(np, name)
    function = {"erfc": wnp.erfc}.get(name, function)
    f = wichi.jit(lambda *xs: function(*xs))
    rng = np.random.default_rng(3)
    for length in (1, 2, 7, 15, 16, 17, 31, 33, 70):
        xs = [rng.uniform(0.01, 3, length).astype(dtype) for _ in range(case.arity)]
        xs[0][rng.integers(length)] = -1e9 if name != "pow" else 0.0
        got = f(*xs)
        np.testing.assert_array_equal(got, kernel(name, dtype, FUSES, 0)(*xs))
        np.testing.assert_array_equal(got, [f(*row) for row in zip(*xs, strict=True)])


# Arithmetic on whole vectors: of x86, and of ARM.
PACKED = re.compile(
    r"\s(v?(fn?madd|fn?msub)\w*p[ds]|v?(mul|add|sub|div)p[ds]|f(mla|mls|mul|add|sub|div)\s+v\d+\.\d+[sd])\b"
)


@dimensions()
def test_loops_are_vector_instructions_and_call_no_library(name, dtype):
    case = CASES[name]
    function = {"erf": wnp.erf, "erfc": wnp.erfc, "softplus": wnp.softplus}.get(
        name, case.numpy or getattr(np, name, None)
    )
    graph = wichi.jit(lambda *xs: function(*xs)).graph(*[np.ones(64, dtype)] * case.arity)
    assembly = link.host().emit_assembly(link.optimised(llvm_ir(plan(graph).program)[1], link.host()))
    bodies = re.split(r"^([\w.$]+):", assembly, flags=re.MULTILINE)
    functions: dict[str, str] = {}
    current = ""
    for label, text in zip(bodies[1::2], bodies[2::2], strict=True):
        current = label if label.startswith("wichi_") else current  # other labels are places within a function
        functions[current] = functions.get(current, "") + text
    nests = [text for label, text in functions.items() if label.startswith("wichi_nest")]
    assert len(nests) == 1
    assert len(PACKED.findall(nests[0])) >= 20
    calls = {label: set(re.findall(r"\s(?:callq?|bl)\s+([\w@]+)", text)) for label, text in functions.items()}
    mending = {label for label in functions if label.startswith("wichi_mend_")}
    assert all(called <= mending for label, called in calls.items() if label.startswith("wichi_nest"))
    # A mending function calls the C library for nothing but huge angles.
    called = {c.removesuffix("@PLT") for label in mending for c in calls[label]}
    single = "f" if dtype == np.float32 else ""
    assert called == ({name + single} if name in ("sin", "cos", "tan") else set())

"""Arrays as they come: given twice, overlapping what was answered before, freed, unaligned, huge, nearly zero."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import wichi

rng = np.random.default_rng(5)


def loss(x, y):
    return np.sum(np.tanh(x) * y + y * y)


def test_the_same_array_twice():
    f = wichi.value_and_grad(loss, argnums=(0, 1))
    x = rng.standard_normal(1000)
    f(x, x.copy())
    for _ in range(3):  # by way of tracing, then by the short way
        for got, want in zip(f(x, x)[1], f(x, x.copy())[1], strict=True):
            np.testing.assert_array_equal(got, want)


def test_inputs_that_overlap_each_other():
    f = wichi.value_and_grad(loss, argnums=(0, 1))
    memory = rng.standard_normal(1010)
    x, y = memory[:1000], memory[10:]
    before = memory.copy()
    for _ in range(3):
        for got, want in zip(f(x, y)[1], f(x.copy(), y.copy())[1], strict=True):
            np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(memory, before)


def test_inputs_that_overlap_results_of_earlier_calls():
    step = wichi.jit(lambda x, y: (x * 0.5 + y, x - y))
    x, y = rng.standard_normal((2, 1000))
    want_x, want_y = x, y
    for _ in range(6):
        both = step(x, y)
        want_x, want_y = want_x * 0.5 + want_y, want_x - want_y
        x, y = both[0][::-1][::-1], both[1].reshape(10, 100).reshape(-1)  # views: only they keep the results alive
        del both
        np.testing.assert_allclose(x, want_x, rtol=1e-12)
        np.testing.assert_allclose(y, want_y, rtol=1e-12)


def test_an_array_given_twice_to_a_function_that_writes_into_it_is_refused():
    step = wichi.jit(lambda p, q: p + q, donate_argnums=0)
    p = np.ones(100)
    with pytest.raises(wichi.errors.ArgumentError):
        step(p, p)
    np.testing.assert_array_equal(p, 1.0)


def test_captured_arrays_outlive_their_names():
    def made():
        c = rng.standard_normal(50_000)
        return wichi.grad(lambda x: np.sum(x * x * c)), c.copy()

    f, c = made()
    x = np.ones(50_000)
    for _ in range(5):
        gc.collect()
        rubbish = [np.full(50_000, np.nan) for _ in range(4)]  # takes the memory that was freed, if any was
        np.testing.assert_allclose(f(x), 2 * c)
        del rubbish


@pytest.mark.parametrize("offset", [1, 2, 4, 7])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_unaligned_arrays_and_matrices(dtype, offset):
    size = np.dtype(dtype).itemsize
    raw = np.zeros(48 * size + 8, np.uint8)
    x = raw[offset : offset + 48 * size].view(dtype).reshape(6, 8)
    x[...] = rng.standard_normal((6, 8))
    f = wichi.value_and_grad(lambda x: np.sum(np.exp(x @ x.T) * 0.1))
    for _ in range(3):
        (value, slope), (want, exact) = f(x), f(x.copy())
        assert value == want
        np.testing.assert_array_equal(slope, exact)


def huge(shape, dtype):
    """Zeros whose memory the system gives when it is written to: reading a few of them takes none."""
    try:
        return np.zeros(shape, dtype)
    except MemoryError:
        pytest.skip("the system promises no memory that it does not have; the test runs where it does")


def test_more_elements_than_int32_counts():
    count = 2**31 + 100
    x = huge(count, np.int8)
    x[[2**31 - 1, 2**31, -1]] = 1, 2, 3
    places = np.array([0, 2**31 - 1, 2**31, count - 1, -1])
    f = wichi.jit(lambda x, i: (x[i], x[2**31 - 2 : 2**31 + 3] * 2, x[-1] + x[i[2]]))
    picked, part, total = f(x, places)
    assert picked.tolist() == [0, 1, 2, 3, 3]
    assert part.tolist() == [0, 2, 4, 0, 0]
    assert total == 5
    with pytest.raises(wichi.errors.IndexRangeError):
        f(x, places + 2**31)


def test_more_bytes_than_uint32_counts():
    x = huge((2**15 + 1, 2**15 + 1), np.float32)
    x[2**15, 2**15], x[2**15, 7] = 5, 6
    rows, columns = np.array([2**15, 2**15, 0]), np.array([2**15, 7, 2**15])
    f = wichi.value_and_grad(lambda s, x: np.sum(s * x[rows, columns]) + np.sum(s * x.T[7:9, 2**15]) + s * x[-1, -1])
    value, slope = f(np.float32(2.0), x)
    assert (value, slope) == (2 * (11 + 6 + 5), 11 + 6 + 5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(), (5,), (3, 100)])
def test_subnormal_numbers_are_not_flushed(dtype, shape):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.full(shape, 4 * tiny, dtype)
    f = wichi.jit(lambda x: (x * dtype(0.5), x + x, x - x * dtype(0.75), np.sum(x), np.abs(-x), np.sqrt(x) ** 2 > 0))
    half, twice, rest, total, size, positive = f(x)
    assert np.all(half == 2 * tiny)
    assert np.all(twice == 8 * tiny)
    assert np.all(rest == tiny)
    assert total == 4 * tiny * x.size
    assert np.all(size == x)
    assert np.all(positive)
    np.testing.assert_array_equal(wichi.grad(lambda x: np.sum(x) * tiny)(x), np.full(shape, tiny, dtype))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_loops_of_no_rounds(shape):
    x = np.zeros(shape)

    def f(x):
        return np.sum(np.exp(x) * 2) + np.sum(np.sum(x, axis=0) ** 2) + np.sum(np.tanh(x).reshape(-1))

    value, slope = wichi.value_and_grad(f)(x)
    assert value == 0
    assert slope.shape == shape
    assert wichi.jit(lambda x: x @ np.ones((x.shape[-1], 2)))(x).shape == (*shape[:-1], 2)
    with pytest.raises(ValueError):
        wichi.jit(lambda x: np.max(x.reshape(-1)))(x)


def test_integer_division_never_traps():
    for dtype in (np.int8, np.int16, np.int32, np.int64):
        low = np.iinfo(dtype).min
        x, y = np.array([1, -7, low, 5], dtype), np.array([0, 0, -1, -2], dtype)
        with np.errstate(all="ignore"):
            want = x // y, x % y, np.divmod(x, y), np.fmod(x, y)
        for got, exact in zip(
            wichi.jit(lambda x, y: (x // y, x % y, *np.divmod(x, y), np.fmod(x, y)))(x, y),
            (*want[:2], *want[2], want[3]),
            strict=True,
        ):
            np.testing.assert_array_equal(got, exact)
            assert got.dtype == dtype

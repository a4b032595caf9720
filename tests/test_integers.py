"""Integers and bools: Python numbers that their dtypes do not hold, NumPy's dtypes of results, single bools as an index."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import wichi
from wichi.errors import IntegerRangeError

SMALL = np.array([1, 2, 250], np.uint8)
SIGNED = np.array([1, 2, -100], np.int8)
WIDE = np.array([1, 2**63, 2**64 - 1], np.uint64)
BOOLS = np.array([True, False])
M = np.arange(12.0).reshape(3, 4)
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]


def agree(function, *args):
    want, got = function(*args), wichi.jit(function)(*args)
    assert np.asarray(got).dtype == np.asarray(want).dtype
    assert np.shape(got) == np.shape(want)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize("x", [SMALL, SIGNED, WIDE, np.arange(3), BOOLS], ids=lambda x: x.dtype.name)
@pytest.mark.parametrize("number", [-(2**70), -300, -1, 1, 2, 250, 300, 2**63, 2**70])
def test_comparisons_with_python_integers_go_by_value(compare, x, number):
    if x.dtype == bool and abs(number) >= 2**63:
        with pytest.raises(IntegerRangeError):  # as in NumPy
            wichi.jit(lambda x: compare(x, number))(x)
        return
    agree(lambda x: compare(x, number), x)
    agree(lambda x: compare(number, x), x)
    if abs(number) < 2**63:  # the same number as an argument
        np.testing.assert_array_equal(wichi.jit(compare)(x, number), compare(x, number))
        np.testing.assert_array_equal(wichi.jit(compare)(number, x), compare(number, x))


@pytest.mark.parametrize("compare", COMPARISONS)
def test_comparisons_of_mixed_signs_go_by_value(compare):
    signed = np.array([-1, -(2**63), 2**63 - 1])
    for a, b in ((WIDE, signed), (signed, WIDE), (WIDE, SIGNED), (SMALL, SIGNED), (SIGNED, SMALL)):
        agree(compare, a, b)


def test_limits_that_the_dtype_does_not_hold_clip_nothing():
    for low, high in ((0, 300), (-5, 100), (None, 2**70), (-1, None)):
        if low is None or low >= 0:
            agree(lambda x, low=low, high=high: np.clip(x, low, high), SMALL)
        agree(lambda x, low=low, high=high: np.clip(x, low, high), SIGNED)
    agree(lambda x: np.clip(x, -300, 5), SIGNED)


@pytest.mark.parametrize(
    ("function", "x", "fix"),
    [
        (lambda x: x + 300, SMALL, "x.astype(np.int64)"),
        (lambda x: x * -1, SMALL, "x.astype(np.int64)"),
        (lambda x: np.maximum(x, 300), SMALL, "x.astype(np.int64)"),
        (lambda x: np.clip(x, 0, -1), SMALL, "x.astype(np.int64)"),
        (lambda x: np.where(x > 2, x, 300), SMALL, "x.astype(np.int64)"),
        (lambda x: x**300, SMALL, "x.astype(np.int64)"),
        (lambda x: x + 2**63, SIGNED, "x.astype(np.uint64)"),
        (lambda x: x + 2**70, np.arange(3), "as a float: 1.18"),
        (lambda x: x + 10**400, np.arange(3.0), "its logarithm"),
        (lambda n: n + 2**70, 3, "as a float: 1.18"),
    ],
)
def test_other_operations_refuse_them(function, x, fix):
    with pytest.raises(OverflowError) as caught:
        wichi.jit(function)(x)
    assert isinstance(caught.value, IntegerRangeError)
    assert fix in caught.value.fix
    assert "test_integers.py" in caught.value.at


def test_large_python_integers_beside_floats():
    agree(lambda x: (x + 2**70) * (x < 2**70), np.arange(3.0))


@pytest.mark.parametrize("code", "?bhilqBHILQfd")
def test_vecdot_has_the_dtype_of_its_operands(code):
    x = np.array([[1, 0, 3], [100, 100, 1]]).astype(code)
    agree(lambda x: np.vecdot(x, x), x)
    agree(lambda x: np.vecdot(x, x[0], axis=-1), x)
    agree(lambda x: np.vecdot(x, x, axis=0), x)


def test_reciprocals_of_integers_are_cut_off():
    for x in (np.array([-1, -2, -3, 1, 2]), np.array([-1, -128, 1, 7], np.int8), SMALL):
        agree(np.reciprocal, x)
    np.testing.assert_array_equal(wichi.jit(np.reciprocal)(np.array([True])), np.ones(1, np.int8))


def test_powers_and_signs_of_bools():
    for n in (0, 1, 2, 3, 2.0, 0.5):
        agree(lambda x, n=n: x**n, BOOLS)
    agree(lambda x: np.power(x, 2), BOOLS)
    agree(np.abs, BOOLS)
    agree(abs, BOOLS)


FLAGS = [
    True, False, np.True_, np.array(False), (True, 0), (0, True), (slice(None), True), ([0, 1], True), (None, True),
    (True, ..., [0, 1]), (..., False), (True, True), (0, slice(None), True), (True, np.array([True, False, True])),
    (slice(1, None), False, [0]), (True, None, slice(0, 2)),
]  # fmt: skip


@pytest.mark.parametrize("item", FLAGS, ids=str)
def test_single_bools_index_a_new_axis(item):
    agree(lambda x: x[item], M)

    def filled(x):
        y = x * 1
        y[item] = 7.0
        return y

    agree(filled, M)
    part = M[item]
    weights = np.cos(np.arange(part.size)).reshape(part.shape)
    want = np.zeros(M.shape)
    np.add.at(want, item, weights)
    np.testing.assert_array_equal(wichi.grad(lambda x: np.sum(x[item] * weights))(M), want)


def test_single_bools_index_a_number_and_make_a_copy():
    agree(lambda x: x[True], np.array(2.0))

    def written(x):
        y = x * 1
        part = y[True]
        part[0, 0] = 5.0
        return y

    agree(written, M)


def test_searches_and_closeness_go_by_value_too():
    agree(lambda x: np.searchsorted(x, 300), SMALL)
    agree(lambda x: np.searchsorted(x, -1), SMALL)
    agree(lambda x: np.searchsorted(x, 0.1), np.array([0.1], np.float32))
    agree(lambda x: np.isclose(x, 300), SMALL)
    agree(lambda x: np.isclose(x, np.array([2, 1, 250], np.uint8), atol=2), SMALL)
    agree(lambda x: np.isclose(300, x), SMALL)

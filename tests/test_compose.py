"""All pairs and triples of transforms, checkpoints and bodies of loops and branches, against plain arithmetic.

The reference is NumPy on object arrays of numbers with infinitesimals, each derivative with one of its own, so that no
rule of wichi's takes part in it.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError, EscapedValueError

FRESH = itertools.count()


class Number:
    """``sum of c * product of infinitesimals``, the square of each of which is 0.

    J. M. Siskind, B. A. Pearlmutter, "Perturbation confusion and referential transparency", IFL 2005: what belongs to
    one derivative must never be taken for what belongs to another; here each has a number of its own.
    """

    def __init__(self, terms):
        self.terms = terms

    @staticmethod
    def of(x):
        return x if isinstance(x, Number) else Number({frozenset(): float(x)})

    def __add__(self, other):
        terms = dict(self.terms)
        for e, c in Number.of(other).terms.items():
            terms[e] = terms.get(e, 0.0) + c
        return Number(terms)

    def __mul__(self, other):
        terms = {}
        for (d, a), (e, b) in itertools.product(self.terms.items(), Number.of(other).terms.items()):
            if not d & e:
                terms[d | e] = terms.get(d | e, 0.0) + a * b
        return Number(terms)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + Number.of(other) * -1.0

    def __rsub__(self, other):
        return Number.of(other) - self

    def __pow__(self, n):
        return math.prod([self] * n)

    def _series(self, derivatives):
        """f(a + h) by Taylor's series, which ends: h is nilpotent."""
        a = self.terms.get(frozenset(), 0.0)
        h = Number({e: c for e, c in self.terms.items() if e})
        total, power = Number.of(0.0), Number.of(1.0)
        for k in range(len({i for e in self.terms for i in e}) + 1):
            total = total + power * (derivatives(a, k) / math.factorial(k))
            power = power * h
        return total

    def sin(self):
        return self._series(lambda a, k: math.sin(a + k * math.pi / 2))

    def cos(self):
        return self._series(lambda a, k: math.cos(a + k * math.pi / 2))

    def exp(self):
        return self._series(lambda a, k: math.exp(a))

    def __gt__(self, other):
        return self.terms.get(frozenset(), 0.0) > other


def along(f, x, direction):
    """The derivative of ``f`` at ``x`` along a direction."""
    e = next(FRESH)
    out = f(x + np.asarray(direction, object) * Number({frozenset({e}): 1.0}))
    whole = np.frompyfunc(lambda y: Number({d - {e}: c for d, c in Number.of(y).terms.items() if e in d}), 1, 1)
    return whole(out)


def each(f, x):
    """The derivatives along all unit vectors, on the last axis."""
    return np.stack([along(f, x, unit) for unit in np.eye(len(x))], -1)


# --- the levels: a function of a vector to a number becomes another one ------------------------------------------------
def wide(f):
    """A vector out of a number, so that Jacobians are matrices."""
    return lambda x: f(x) * np.sin(x) + x[::-1]


W = np.array([[0.3, -0.7], [1.1, 0.4]])
ROWS = np.array([0.8, -0.6])


def scanned(f):
    def body(c, r):
        y = f(c)
        return c * 0.9 + 0.1 * y, y * r

    return body


def scanned_plainly(f):
    def g(x):
        total = 0.0
        for r in ROWS:
            x, y = scanned(f)(x, r)
            total = total + y
        return total + np.sum(x)

    return g


def by_scan(f):
    def g(x):
        last, ys = wichi.scan(scanned(f), x, ROWS)
        return np.sum(ys) + np.sum(last)

    return g


def by_while(f):
    def g(x):
        state = wichi.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] * 0.8 + 0.1 * f(s[1])), (0, x))
        return np.sum(state[1] ** 2)

    return g


def whiled_plainly(f):
    def g(x):
        for _ in range(2):
            x = x * 0.8 + 0.1 * f(x)
        return np.sum(x**2)

    return g


LEVELS = {
    "jit": (lambda f: wichi.jit(f), lambda f: f),
    "grad": (lambda f: lambda x: np.sum(wichi.grad(f)(x) ** 2), lambda f: lambda x: np.sum(each(f, x) ** 2)),
    "jvp": (lambda f: lambda x: wichi.jvp(f, (x,), (np.cos(x),))[1], lambda f: lambda x: along(f, x, np.cos(x))),
    "vjp": (
        lambda f: lambda x: np.sum(wichi.vjp(f, x)[1](0.7)[0] * x),
        lambda f: lambda x: np.sum(each(f, x) * 0.7 * x),
    ),
    "vmap": (
        lambda f: lambda x: np.sum(wichi.vmap(f)(np.stack([x, 0.5 * x])) * ROWS),
        lambda f: lambda x: f(x) * ROWS[0] + f(0.5 * x) * ROWS[1],
    ),
    "jacfwd": (
        lambda f: lambda x: np.sum(wichi.jacfwd(wide(f))(x) * W),
        lambda f: lambda x: np.sum(each(wide(f), x) * W),
    ),
    "jacrev": (
        lambda f: lambda x: np.sum(wichi.jacrev(wide(f))(x) * W.T),
        lambda f: lambda x: np.sum(each(wide(f), x) * W.T),
    ),
    "checkpoint": (lambda f: wichi.checkpoint(f), lambda f: f),
    "cond": (
        lambda f: lambda x: wichi.cond(x[0] > 0, lambda v: f(v) * 0.5, lambda v: v[0], x),
        lambda f: lambda x: f(x) * 0.5 if x[0] > 0 else x[0],
    ),
    "scan": (by_scan, scanned_plainly),
    "while": (by_while, whiled_plainly),
}
X = np.array([0.6, -0.9])


def base(x):
    return np.sum(np.sin(x) * np.exp(x * x * -0.1)) + x[0] * x[1]


def value(f):
    """Of a plain version, at X."""
    return Number.of(f(np.array([Number.of(v) for v in X], object))).terms[frozenset()]


def composed(names):
    ours, plain = base, base
    for name in names:
        ours, plain = LEVELS[name][0](ours), LEVELS[name][1](plain)
    return ours, plain


@pytest.mark.parametrize("first", LEVELS)
@pytest.mark.parametrize("second", LEVELS)
def test_pairs_natively(first, second):
    ours, plain = composed((first, second))
    assert float(wichi.jit(ours)(X)) == pytest.approx(value(plain), rel=1e-9, abs=1e-12)
    assert float(ours(X)) == pytest.approx(value(plain), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("first", LEVELS)
@pytest.mark.parametrize("second", LEVELS)
def test_triples(first, second):
    for third in LEVELS:
        ours, plain = composed((first, second, third))
        with wichi.debug():
            found = float(wichi.jit(ours)(X))
        assert found == pytest.approx(value(plain), rel=1e-8, abs=1e-11), third


@pytest.mark.parametrize("number", range(0, len(LEVELS) ** 3, 53))
def test_a_sample_of_triples_natively(number):
    names = [*itertools.product(LEVELS, repeat=3)][number]
    ours, plain = composed(names)
    assert float(wichi.jit(ours)(X)) == pytest.approx(value(plain), rel=1e-8, abs=1e-11), names

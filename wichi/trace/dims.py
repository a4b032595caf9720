"""Free sizes: an axis of a length that only a call knows, for compiled functions that cannot be traced again.

While such a function is traced the axis has an ordinary length, a ``Dim``, which knows how it depends on the names of
the free sizes. What the user sees of it, ``x.shape[0]``, is a value like any other (``wichi.trace.tracer.FreeSize``),
so that nothing written in Python can depend on the length that was used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Terms = Mapping[tuple[str, ...], int]  # monomials (names in order, repeated) and their coefficients


class Dim(int):
    """An extent that is a polynomial in free sizes; as an integer, its value for the lengths that are traced with."""

    terms: Terms

    def __new__(cls, value: int, terms: Terms) -> Dim:
        made = super().__new__(cls, value)
        made.terms = terms
        return made

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        terms = dict(self.terms)
        for names, c in terms_of(other).items():
            terms[names] = terms.get(names, 0) + c
        return _made(int(self) + int(other), terms)

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        terms: dict[tuple[str, ...], int] = {}
        for a, c in self.terms.items():
            for b, d in terms_of(other).items():
                names = tuple(sorted(a + b))
                terms[names] = terms.get(names, 0) + c * d
        return _made(int(self) * int(other), terms)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return self + -other if isinstance(other, int) else NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __floordiv__(self, other: Any) -> Any:
        """Exactly, where each coefficient is divisible; or by a polynomial that this one is a multiple of."""
        if isinstance(other, Dim):
            for names, c in self.terms.items():
                for b, d in other.terms.items():
                    rest = _without(names, b)
                    if rest is not None and d and c % d == 0:
                        quotient = _made(int(self) // int(other), {rest: c // d})
                        if terms_of(quotient * other) == dict(self.terms):
                            return quotient
            return int(self) // int(other)
        if isinstance(other, int) and other and all(c % other == 0 for c in self.terms.values()):
            return _made(int(self) // other, {names: c // other for names, c in self.terms.items()})
        return int(self) // other if isinstance(other, int) else NotImplemented

    def __mod__(self, other: Any) -> Any:
        quotient = self // other
        exact = terms_of(quotient * other) == dict(self.terms) if isinstance(quotient, Dim) or quotient else False
        return 0 if exact else int(self) % other

    def __str__(self) -> str:
        parts = ["*".join(([] if c == 1 and names else [str(c)]) + list(names)) for names, c in self.terms.items()]
        return " + ".join(parts)

    __repr__ = __str__
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return int(self) == other

    def __reduce__(self) -> Any:
        return Dim, (int(self), dict(self.terms))


def _without(names: tuple[str, ...], part: tuple[str, ...]) -> tuple[str, ...] | None:
    left = list(names)
    for name in part:
        if name not in left:
            return None
        left.remove(name)
    return tuple(left)


def _made(value: int, terms: Terms) -> int:
    """A Dim, or the number itself where no free size is left."""
    kept = {names: c for names, c in terms.items() if c}
    return Dim(value, kept) if any(kept) else value


def terms_of(n: int) -> dict[tuple[str, ...], int]:
    """The monomials of an extent and their coefficients."""
    if isinstance(n, Dim):
        return dict(n.terms)
    return {(): int(n)} if n else {}


def value_at(terms: Terms, sizes: Mapping[str, int]) -> int:
    """A polynomial where the free sizes have these values."""
    total = 0
    for names, c in terms.items():
        for name in names:
            c *= sizes[name]
        total += c
    return total


class FreeSizes:
    """The free sizes of the function that is being traced: their lengths here, and what must hold for all lengths."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self.lengths = dict(lengths)
        self.values: dict[str, Any] = {}  # each as a traced value
        self.least: dict[str, int] = dict.fromkeys(lengths, 0)
        self.doubts: list[str] = []  # what was found that does not hold for all lengths

    def dim(self, name: str) -> Dim:
        return Dim(self.lengths[name], {(name,): 1})

    def require(self, n: int, what: str) -> None:
        """``n`` is not negative: from what length of a free size on, or never sure."""
        terms = terms_of(n)
        free = [names for names in terms if names]
        if not free:
            if n < 0:
                self.doubts.append(what)
            return
        names = free[0]
        constant = terms.get((), 0)
        if len(free) == 1 and len(names) == 1 and terms[names] > 0:
            self.least[names[0]] = max(self.least[names[0]], -(constant // terms[names]) if constant < 0 else 0)
        elif constant < 0 or any(c < 0 for c in terms.values()):
            self.doubts.append(what)


_current: ContextVar[FreeSizes | None] = ContextVar("wichi_free_sizes", default=None)


def free_sizes() -> FreeSizes | None:
    """Those of the function that is being traced, if it has any."""
    return _current.get()


@contextmanager
def tracing_with(sizes: FreeSizes) -> Iterator[None]:
    token = _current.set(sizes)
    try:
        yield
    finally:
        _current.reset(token)

"""Numbers in two parts, as the sum of a float and of what its rounding lost: twice the bits.

T. J. Dekker, "A floating-point technique for extending the available precision", Numerische Mathematik 18 (1971).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from wichi.kernels.vecmath_numbers import Real


class Pair(NamedTuple):
    """``high + low``."""

    high: Real
    low: Real

    @staticmethod
    def product(x: Real, y: Any) -> Pair:
        """``x * y``."""
        product = x * y
        return Pair(product, x.error_of_product(product.like(y) if not isinstance(y, Real) else y, product))

    def rounded(self) -> Real:
        return self.high + self.low

    def __mul__(self, other: Any) -> Pair:
        """By another pair, or a float; the product of the low parts is left out."""
        if not isinstance(other, Pair):
            product, error = Pair.product(self.high, other)
            return Pair(product, self.low.mul_add(other, error))
        product, error = Pair.product(self.high, other.high)
        return Pair(product, self.low.mul_add(other.high, self.high.mul_add(other.low, error)))

    def where(self, condition: Any, other: Pair) -> Pair:
        """This where ``condition`` holds, else ``other``."""
        return Pair(self.high.where(condition, other.high), self.low.where(condition, other.low))

    def __truediv__(self, other: Pair) -> Pair:
        """One division; the quotient is right to nearly all bits of both parts."""
        inverse = 1.0 / other.high
        first = self.high * inverse
        rest = self.high.less_product(first, other.high) + (self.low - first * other.low)
        return Pair(first, rest * inverse)


def added(large: Any, small: Real, low: Real | None = None) -> Pair:
    """``large + small + low``; ``small`` must not be the larger one, and ``low`` is little beside both."""
    total = small + large
    lost = small - (total - large)
    return Pair(total, lost if low is None else lost + low)

"""Every exception wichi raises. Each class docstring shows code that fails and the line that mends it.

A message has up to five parts, always in this order: what happened in the user's words; where (file, line and
source text); the value (dtype, shape, and the line that made it); why, in one sentence; and the fix, as code.
"""

from __future__ import annotations

from numpy.linalg import LinAlgError


class WichiError(Exception):
    """The base of every error raised by wichi. ``code`` names the kind, e.g. ``W101``."""

    code = "W000"

    def __init__(
        self,
        what: str,
        *,
        at: str | None = None,
        value: str | None = None,
        because: str | None = None,
        fix: str | None = None,
    ) -> None:
        # A finished message comes back where the exception is made again from it: unpickled, or by a framework.
        what = what.removeprefix(f"[{self.code}] ")
        self.what, self.at, self.value, self.because, self.fix = what, at, value, because, fix
        parts = [f"[{self.code}] {what}"]
        parts += [f"  {name}: {text}" for name, text in
                  (("at", at), ("value", value), ("because", because), ("fix", fix)) if text]  # fmt: skip
        super().__init__("\n".join(parts))


class ConditionError(WichiError, TypeError):
    """Python needs the truth or the integer behind a value that is being traced.

    >>> def f(x):
    ...     return x if x > 0 else -x  # fails: one graph cannot hold both branches
    >>> def f(x):
    ...     return np.where(x > 0, x, -x)  # works
    """

    code = "W101"


class PlainFloatError(WichiError, TypeError):
    """A plain float is wanted where a traced value stands; its derivative would be lost.

    >>> def f(x):
    ...     return math.exp(x)  # fails
    >>> def f(x):
    ...     return np.exp(x)  # works
    """

    code = "W102"


class PlainArrayWriteError(WichiError, TypeError):
    """A traced value is written into a plain ndarray, which cannot hold it.

    >>> def f(x):
    ...     a = np.zeros(2)
    ...     a[0] = x  # fails
    >>> def f(x):
    ...     a = wichi.numpy.stack([x, 0.0])  # works
    """

    code = "W103"


class PlainArrayError(WichiError, TypeError):
    """``np.array`` and ``np.asarray`` cannot keep the gradients of traced values.

    >>> def f(x):
    ...     return np.array([x[0], x[1]])  # fails
    >>> def f(x):
    ...     return np.stack([x[0], x[1]])  # works; so does wichi.numpy.array([...])
    """

    code = "W104"


class MissingRuleError(WichiError, TypeError, NotImplementedError):
    """A NumPy function that wichi does not know was called on a traced value.

    >>> def f(x):
    ...     return np.nonzero(x)  # fails, and says what to write: np.where(mask, x, 0) keeps the shape
    """

    code = "W201"


class UnusedInputError(WichiError, ValueError):
    """The result of a differentiated function does not depend on the differentiated argument.

    >>> def f(x):
    ...     return np.sum(np.ones(3))  # fails under grad: the gradient would be all zeros
    >>> wichi.grad(f, allow_unused=True)  # works, if zeros are meant
    """

    code = "W202"


class NonScalarError(WichiError, TypeError):
    """``grad`` needs one number to differentiate; the function returned something else.

    >>> wichi.grad(lambda x: x**2)(np.ones(5))  # fails
    >>> wichi.grad(lambda x: np.sum(x**2))(np.ones(5))  # works
    """

    code = "W203"


class DtypeError(WichiError, TypeError):
    """A value of a dtype that wichi does not compute with (complex, object, str, float16 ...).

    >>> wichi.grad(f)(np.array([1, 2]))  # fails: integers have no derivative
    >>> wichi.grad(f)(np.array([1.0, 2.0]))  # works
    """

    code = "W204"


class ShapeError(WichiError, ValueError):
    """Shapes that do not fit together.

    >>> np.ones((2, 3)) @ np.ones((2, 3))  # fails
    >>> np.ones((2, 3)) @ np.ones((2, 3)).T  # works
    """

    code = "W205"


class ArgumentError(WichiError, ValueError, TypeError):
    """An argument that the function cannot take: argnums out of range, leaves that are no arrays, trees that differ.

    >>> wichi.grad(lambda x: x**2, argnums=1)(2.0)  # fails: there is one argument
    >>> wichi.grad(lambda x: x**2, argnums=0)(2.0)  # works
    """

    code = "W206"


class IndexRangeError(WichiError, IndexError):
    """An index outside its axis; found before or inside native code, never clamped.

    >>> x[np.array([7])]  # fails where x has 5 rows
    >>> x[np.array([4])]  # works
    """

    code = "W207"


class IntegerRangeError(WichiError, OverflowError):
    """A Python integer that the dtype it takes does not hold.

    >>> np.ones(3, np.uint8) + 300  # fails
    >>> np.ones(3, np.uint8).astype(int) + 300  # works
    """

    code = "W209"


class InPlaceError(WichiError, RuntimeError):
    """An eager value that ``backward`` still needs was changed in place.

    >>> h = x.tanh(); loss = h.sum(); h += 1; loss.backward()  # fails
    >>> h = x.tanh(); loss = h.sum(); h = h + 1; loss.backward()  # works
    """

    code = "W301"


class EscapedValueError(WichiError, RuntimeError):
    """A value made inside a transform is used after the transform has finished.

    >>> kept = []
    >>> wichi.grad(lambda x: kept.append(x) or x**2)(1.0); kept[0] + 1  # fails
    >>> wichi.value_and_grad(lambda x: (x**2, x), has_aux=True)(1.0)  # works: return it
    """

    code = "W302"


class LoopError(WichiError, MemoryError, ValueError):
    """A loop or a branch whose parts do not fit together, or whose way back needs more memory than is allowed.

    >>> wichi.while_loop(lambda x: x < 10, lambda x: (x, 1), 0.0)  # fails: the carry changes from one value to two
    >>> wichi.while_loop(lambda x: x < 10, lambda x: x + 1, 0.0)  # works
    """

    code = "W303"


class SingularError(WichiError, LinAlgError):
    """A matrix that is singular, or not positive definite where it must be, or whose eigenvalues are not found.

    >>> np.linalg.solve(np.zeros((2, 2)), np.ones(2))  # fails
    >>> np.linalg.solve(np.eye(2), np.ones(2))  # works
    """

    code = "W208"


class GradientError(WichiError, AssertionError):
    """``wichi.testing.check_grads`` found a derivative that differs from what differences of the function give.

    >>> f = wichi.custom_jvp(np.sin); f.defjvp(lambda p, t: (np.sin(*p), t[0]))
    >>> wichi.testing.check_grads(f, (1.0,))  # fails: the derivative of sin is not 1
    >>> wichi.testing.check_grads(np.sin, (1.0,))  # works
    """

    code = "W402"


class NonFiniteError(WichiError, FloatingPointError):
    """The first nan or infinity met under ``wichi.debug(nans=True)``.

    >>> with wichi.debug(nans=True):
    ...     wichi.grad(np.sqrt)(0.0)  # fails: the derivative of sqrt at 0 is infinite
    """

    code = "W401"


class KernelError(WichiError, RuntimeError):
    """A native program could not be built or reported a status that it should not have."""

    code = "W501"


class DataError(WichiError, ValueError):
    """A data set that is missing, broken, or cannot be fetched."""

    code = "W601"


class DrawError(WichiError, RuntimeError):
    """A picture was asked for and no program that lays out graphs is at hand.

    >>> f.graph(x).draw()  # fails without Graphviz
    >>> f.graph(x).dot()  # works: the text needs no program
    """

    code = "W602"


class GraphError(WichiError, AssertionError):
    """A graph that breaks its own rules (``check``): a fault of wichi or of a hand-written rule, not of the user."""

    code = "W901"

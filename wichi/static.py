"""Arguments that are plain Python objects: each of their values has its own trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wichi.compiled import Transformed
from wichi.errors import ArgumentError
from wichi.trace import frames
from wichi.travel import Portable, wraps

_MOST_VALUES = 1000  # kept for one function; the oldest go first


def transformed(
    fn: Callable[..., Any],
    static_argnums: int | Sequence[int],
    make: Callable[[Callable[..., Any], Callable[[int], int]], Transformed[..., Any]],
    made_by: tuple[Callable[..., Any], tuple[Any, ...]],
) -> Any:
    """``make`` of ``fn`` with its static arguments given.

    ``make(function, moved)`` transforms a function of the other arguments; ``moved`` answers where an argument of
    ``fn`` stands among them. ``made_by``: the public function and its arguments, of which this is the answer.
    """
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
    if not numbers:
        return make(fn, lambda i: i)
    return _Static(fn, numbers, make, made_by)


class _Static(Portable):
    """A transformed function some of whose arguments choose the trace."""

    def __init__(self, fn: Callable[..., Any], numbers: tuple[int, ...], make: Any, made_by: Any) -> None:
        wraps(fn)(self)
        self._fn, self._numbers, self._make, self._made_by = fn, numbers, make, made_by
        self._made: dict[Any, Transformed[..., Any]] = {}

    def _made_of(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        made: tuple[Callable[..., Any], tuple[Any, ...]] = self._made_by
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found, rest = self._of(args)
        return found(*rest, **kwargs)

    def graph(self, *args: Any, **kwargs: Any) -> Any:
        """The IR for these arguments; see ``jit``."""
        found, rest = self._of(args)
        return found.graph(*rest, **kwargs)

    def source(self, *args: Any, **kwargs: Any) -> str:
        """The loop nests for these arguments; see ``jit``."""
        found, rest = self._of(args)
        return found.source(*rest, **kwargs)

    def memory(self, *args: Any, **kwargs: Any) -> Any:
        """The bytes that a call with these arguments takes; see ``jit``."""
        found, rest = self._of(args)
        return found.memory(*rest, **kwargs)

    def _of(self, args: tuple[Any, ...]) -> tuple[Transformed[..., Any], list[Any]]:
        at = frames.describe(frames.user_where())
        count = len(args)
        numbers = [i + count if i < 0 else i for i in self._numbers]
        if any(not 0 <= i < count for i in numbers):
            raise ArgumentError(f"static_argnums={self._numbers}, but there are {count} positional arguments.", at=at)
        values = tuple((type(args[i]), args[i]) for i in numbers)  # 1, 1.0 and True are different
        try:
            found = self._made.get((count, values))
        except TypeError:
            raise ArgumentError(
                f"A static argument is {', '.join(type(args[i]).__name__ for i in numbers)}, which cannot be hashed.",
                at=at,
                because="each value of a static argument has its own trace, found by its hash",
                fix="give a tuple in place of a list; arrays are ordinary arguments",
            ) from None
        if found is None:
            fn, given = self._fn, {i: args[i] for i in numbers}

            @wraps(fn)
            def bound(*rest: Any, **kwargs: Any) -> Any:
                others = iter(rest)
                return fn(*[given[i] if i in given else next(others) for i in range(count)], **kwargs)

            bound.__dict__.pop("__wrapped__")  # its signature is another
            others = [i for i in range(count) if i not in given]

            def moved(i: int) -> int:
                i = i + count if i < 0 else i
                if i in given:
                    raise ArgumentError(f"Argument {i} is both static and differentiated.", at=at)
                return others.index(i)

            found = self._made[count, values] = self._make(bound, moved)
            if len(self._made) > _MOST_VALUES:
                del self._made[next(iter(self._made))]
        return found, [x for i, x in enumerate(args) if i not in numbers]

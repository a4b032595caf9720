"""Arguments that are plain Python objects: each of their values has its own trace."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from wichi.compiled import Transformed
from wichi.errors import ArgumentError
from wichi.trace import frames

_MOST_VALUES = 1000  # kept for one function; the oldest go first


def transformed(
    fn: Callable[..., Any],
    static_argnums: int | Sequence[int],
    make: Callable[[Callable[..., Any], Callable[[int], int]], Transformed[..., Any]],
    static_argnames: str | Sequence[str] = (),
) -> Any:
    """``make`` of ``fn`` with its static arguments given, by position or by name.

    ``make(function, moved)`` transforms a function of the other arguments; ``moved`` answers where an argument of
    ``fn`` stands among them.
    """
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
    names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
    if not numbers and not names:
        return make(fn, lambda i: i)
    return _Static(fn, numbers, names, make)


def _parameters(fn: Callable[..., Any]) -> tuple[list[str], bool, set[str]]:
    """The names of positional parameters, whether there may be more keywords, and all names."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return [], True, set()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return positional, any(p.kind is p.VAR_KEYWORD for p in parameters), {p.name for p in parameters}


class _Static:
    """A transformed function some of whose arguments choose the trace."""

    def __init__(self, fn: Callable[..., Any], numbers: tuple[int, ...], names: tuple[str, ...], make: Any) -> None:
        functools.update_wrapper(self, fn)
        self._fn, self._numbers, self._make = fn, numbers, make
        positional, open_ended, known = _parameters(fn)
        for name in names:
            if name not in known and not open_ended:
                raise ArgumentError(
                    f"static_argnames={name!r}, but {getattr(fn, '__name__', 'the function')} has no such parameter.",
                    at=frames.describe(frames.user_where()),
                )
        # An argument may be given by position or by name, however it was declared static.
        self._of_names = {positional.index(n) for n in names if n in positional}
        self._names = {*names, *(positional[i] for i in numbers if -len(positional) <= i < len(positional))}
        self._made: dict[Any, Transformed[..., Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found, rest, named = self._of(args, kwargs)
        return found(*rest, **named)

    def graph(self, *args: Any, **kwargs: Any) -> Any:
        """The IR for these arguments; see ``jit``."""
        found, rest, named = self._of(args, kwargs)
        return found.graph(*rest, **named)

    def source(self, *args: Any, **kwargs: Any) -> str:
        """The loop nests for these arguments; see ``jit``."""
        found, rest, named = self._of(args, kwargs)
        return found.source(*rest, **named)

    def memory(self, *args: Any, **kwargs: Any) -> Any:
        """The bytes that a call with these arguments takes; see ``jit``."""
        found, rest, named = self._of(args, kwargs)
        return found.memory(*rest, **named)

    def _of(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Transformed[..., Any], list[Any], dict[str, Any]]:
        at = frames.describe(frames.user_where())
        count = len(args)
        by_name = {n: kwargs[n] for n in sorted(self._names & kwargs.keys())}
        numbers = [i + count if i < 0 else i for i in self._numbers]
        if any(not 0 <= i < count for i in numbers) and not by_name:
            raise ArgumentError(f"static_argnums={self._numbers}, but there are {count} positional arguments.", at=at)
        numbers = sorted({i for i in (*numbers, *self._of_names) if 0 <= i < count})
        given = [*[args[i] for i in numbers], *by_name.values()]
        values = tuple((type(x), x) for x in given)  # 1, 1.0 and True are different
        key = (count, tuple(numbers), tuple(by_name), values)
        try:
            found = self._made.get(key)
        except TypeError:
            raise ArgumentError(
                f"A static argument is {', '.join(type(x).__name__ for x in given)}, which cannot be hashed.",
                at=at,
                because="each value of a static argument has its own trace, found by its hash",
                fix="give a tuple in place of a list; arrays are ordinary arguments",
            ) from None
        if found is None:
            fn, fixed = self._fn, {i: args[i] for i in numbers}

            @functools.wraps(fn)
            def bound(*rest: Any, **kwargs: Any) -> Any:
                others = iter(rest)
                return fn(*[fixed[i] if i in fixed else next(others) for i in range(count)], **by_name, **kwargs)

            del bound.__wrapped__  # its signature is another
            others = [i for i in range(count) if i not in fixed]

            def moved(i: int) -> int:
                i = i + count if i < 0 else i
                if i in fixed:
                    raise ArgumentError(f"Argument {i} is both static and differentiated.", at=at)
                return others.index(i)

            found = self._made[key] = self._make(bound, moved)
            if len(self._made) > _MOST_VALUES:
                del self._made[next(iter(self._made))]
        rest = [x for i, x in enumerate(args) if i not in numbers]
        return found, rest, {n: x for n, x in kwargs.items() if n not in by_name}

"""How compiled functions are pickled and copied: by name where a module holds them, else as what made them.

Machine code never travels: whoever receives a function traces it again, and finds the code in the cache on disk.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from wichi import pytree
from wichi.arguments import leaf_aval
from wichi.trace.ir import Aval

F = TypeVar("F", bound=Callable[..., Any])


class Portable:
    """The base of functions that pickle; ``_made_of`` says how an equal one is made."""

    __module__: str
    __qualname__: str

    def _made_of(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A function that makes an equal one, and its arguments."""
        raise NotImplementedError

    def _contents(self) -> Any:
        """What is set after that, for it may refer to the function itself; None: nothing."""
        return None

    def _take(self, contents: Any) -> None:
        """Take what ``_contents`` answered."""

    def __reduce__(self) -> str | tuple[Any, ...]:
        if not self._is_held():
            make, args = self._made_of()
            contents = self._contents()
            return (make, args) if contents is None else (make, args, contents)
        if self.__module__ != "__main__":
            return self.__qualname__
        return (_called, (self._maker,)) if self._contents() is None else (_called, (self._maker,), self._filler)

    def __setstate__(self, contents: Any) -> None:
        self._take(contents() if callable(contents) else contents)

    def _is_held(self) -> bool:
        """Whether its module has it under its name, as a decorator puts it there."""
        found: Any = sys.modules.get(getattr(self, "__module__", ""))
        for part in getattr(self, "__qualname__", "").split("."):
            found = getattr(found, part, None)
        return found is self

    # A function of the script that is run cannot be found by name in a worker that was not started from the script
    # (joblib's, a notebook's). Picklers of functions, such as cloudpickle, know that of plain functions and send their
    # code; the standard one sends names. So what stands for such a function is a plain function that is found by name,
    # as an attribute of it, and that makes an equal one when its code is sent.
    @functools.cached_property
    def _maker(self) -> Any:
        make, args = self._made_of()
        return self._named("_maker", lambda: make(*args))

    @functools.cached_property
    def _filler(self) -> Any:
        contents = self._contents()
        return self._named("_filler", lambda: contents)

    def _named(self, attribute: str, function: Any) -> Any:
        function.__module__, function.__name__ = self.__module__, attribute
        function.__qualname__ = f"{self.__qualname__}.{attribute}"
        return function


def wraps(fn: Any) -> Callable[[F], F]:
    """``functools.wraps``, but of our own functions only what they say of themselves, not what they hold."""

    def dress(function: F) -> F:
        functools.update_wrapper(function, fn, updated=() if isinstance(fn, Portable) else ("__dict__",))
        return function

    return dress


class Likeness:
    """The type of a leaf in place of its numbers, in what is pickled of example arguments."""

    __slots__ = ("aval",)

    def __init__(self, aval: Aval) -> None:
        self.aval = aval

    def example(self) -> Any:
        shape, dtype, weak = self.aval
        return dtype.type(0).item() if weak else np.broadcast_to(np.zeros((), dtype), shape)[()]

    def __reduce__(self) -> tuple[Any, ...]:
        return Likeness, (self.aval,)


def likeness(tree: Any) -> Any:
    """The tree with a ``Likeness`` at each leaf."""
    return pytree.tree_map(lambda x: Likeness(leaf_aval(x)), tree)


def examples(tree: Any) -> Any:
    """The tree with zeros of those types at its leaves."""
    return pytree.tree_map(Likeness.example, tree)


def _called(maker: Callable[[], Any]) -> Any:
    return maker()

"""``primitive``: a Python function that wichi does not look into, with a rule of the user's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from wichi import pytree
from wichi.arguments import as_typed, leaf_aval
from wichi.custom import _Custom, custom_jvp, custom_vjp
from wichi.errors import ArgumentError, MissingRuleError
from wichi.trace import callbacks, frames
from wichi.trace.tracer import is_tracing


class BlackBox(_Custom):
    """What ``primitive`` answers: called like the function; ``defvjp`` or ``defjvp`` give its rule."""

    kind = "primitive"
    _with_rule: _Custom | None = None

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """The rule in reverse mode; see ``custom_vjp``. Forward mode transposes it."""
        made = custom_vjp(self.fun)
        made.defvjp(forward, backward)
        self._with_rule, self.rules = made, made.rules

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """The rule in forward mode; see ``custom_jvp``. Reverse mode transposes it."""
        made = custom_jvp(self.fun)
        made.defjvp(rule)
        self._with_rule, self.rules = made, made.rules
        return rule

    def _check(self, args: Any) -> None:
        """Without a rule it can be computed, only not be differentiated."""

    def _rule(self, *args: Any) -> dict[str, Any]:
        if self._with_rule is not None:
            self._with_rule.__name__ = self.__name__
            rule: dict[str, Any] = self._with_rule._rule(*args)
            return rule
        return {"push": self._refuse, "back": None}

    def _refuse(self, *args: Any) -> NoReturn:
        raise MissingRuleError(
            f"{self.__name__} has no derivative: wichi does not look into it.",
            at=frames.describe(frames.user_where()),
            because="it was made by wichi.primitive and has no rule yet",
            fix=f"{self.__name__}.defvjp(lambda *args: (result, residuals), lambda residuals, ct: (bar, ...))",
        )


def primitive(fun: Callable[..., Any], result: Callable[..., Any] | None = None) -> BlackBox:
    """A Python function that wichi does not look into, with a rule of yours.

    Args:
        fun: takes and answers trees of plain arrays; it is called as it is, also from compiled code (which takes the
            GIL for it). It must be pure: how often it is called is not said.
        result: ``result(*args)`` on arrays of zeros answers a tree of the shapes and dtypes of what ``fun`` answers;
            by default that is like the first argument.

    Returns:
        a function to which ``defvjp`` (as ``custom_vjp`` has it) or ``defjvp`` (as ``custom_jvp`` has it) gives a
        rule; rules may call other primitives. Works under ``jit``, ``grad`` and ``vmap`` (entry by entry), and
        ``hessian`` where the rule can be differentiated. Without a rule it can be computed only.

    Raises:
        ShapeError: ``fun`` answers another shape than was promised.
        DtypeError: it answers a dtype that the promised one cannot hold.
        MissingRuleError: a derivative is wanted and there is no rule. What ``fun`` raises passes through.

    >>> import numpy as np, wichi
    >>> cube = wichi.primitive(lambda x: np.asarray([v**3 for v in x]))
    >>> cube.defvjp(lambda x: (cube(x), x), lambda x, ct: (3 * x**2 * ct,))
    >>> wichi.grad(lambda x: np.sum(cube(x)))(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """
    name = getattr(fun, "__name__", type(fun).__name__)

    @functools.wraps(fun)
    def boxed(*args: Any) -> Any:
        leaves, tree = pytree.flatten(args)
        if not is_tracing():
            return fun(*args)
        avals = [leaf_aval(x)._replace(weak=False) for x in leaves]
        zeros = pytree.unflatten(tree, [np.zeros(a.shape, a.dtype)[()] for a in avals])
        if result is None and not zeros:
            raise ArgumentError(
                f"{name} has no arguments to tell what it answers.",
                at=frames.describe(frames.user_where()),
                fix="wichi.primitive(f, result=lambda: np.zeros(shape))",
            )
        models, out_tree = pytree.flatten(zeros[0] if result is None else result(*zeros))

        def flat(*values: Any) -> list[Any]:
            found, found_tree = pytree.flatten(fun(*pytree.unflatten(tree, values)))
            if found_tree != out_tree:
                path, has, wanted = pytree.difference(found_tree, out_tree, "result")
                raise ArgumentError(f"{name} answered another tree: {path} is {has} where {wanted} was promised.")
            return found

        function = callbacks.HostFunction(flat, avals, [leaf_aval(x)._replace(weak=False) for x in models])
        operands = [as_typed(x, a) for x, a in zip(leaves, avals, strict=True)]
        return pytree.unflatten(out_tree, callbacks.host(*operands, function=function))

    return BlackBox(boxed)

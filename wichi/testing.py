"""Checks for derivatives, wichi's own and yours: ``check_grads``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi import pytree
from wichi.arguments import input_names, leaf_aval
from wichi.errors import ArgumentError, GradientError
from wichi.linear import jvp, vjp
from wichi.trace import frames

_MODES = ("fwd", "rev")
_BECAUSE = "a custom rule that leads there is wrong, or the function is not smooth at this point"


def check_grads(
    fn: Callable[..., Any],
    args: Sequence[Any],
    order: int = 1,
    modes: str | Sequence[str] = _MODES,
    atol: float | None = None,
    rtol: float | None = None,
    eps: float = 1e-6,
    seed: int = 0,
) -> None:
    """Compare the derivatives of ``fn`` at ``args`` with central differences, input by input along random directions.

    Args:
        fn: a function of trees; float leaves are differentiated.
        args: where: a tuple of arguments.
        order: 2 also checks the derivatives of the derivative.
        modes: "fwd" (``jvp``) and "rev" (``vjp``), one or both.
        atol, rtol: tolerances; by default 1e-4 for float64 and 1e-2 for float32, of the size of the derivative.
        eps: the step of the differences.
        seed: of the directions.

    Raises:
        GradientError: names the input, the mode, the order and both numbers; or the result, where a rule answers
            another value than the function.
        ArgumentError: ``args`` is no tuple or list, no leaf is a float, or a mode is unknown.

    Differs from JAX: it says which input is wrong.

    >>> import numpy as np, wichi
    >>> wichi.testing.check_grads(np.sin, (np.array([0.5, 1.0]),), order=2)
    """
    at = frames.describe(frames.user_where())
    if not isinstance(args, tuple | list):
        raise ArgumentError("check_grads: args must be a tuple of arguments.", at=at, fix="check_grads(f, (x,))")
    chosen = (modes,) if isinstance(modes, str) else tuple(modes)
    for mode in chosen:
        if mode not in _MODES:
            raise ArgumentError(f"check_grads: there is no mode {mode!r}.", at=at, fix='modes=("fwd", "rev")')
    args = tuple(args)
    leaves = pytree.leaves(args)
    floats = [i for i, x in enumerate(leaves) if leaf_aval(x).dtype.kind == "f"]
    if not floats:
        raise ArgumentError("check_grads: no argument holds floats, so there is nothing to check.", at=at)
    single = any(leaf_aval(leaves[i]).dtype == np.float32 for i in floats)
    tolerance = 1e-2 if single else 1e-4
    allowed = (tolerance if atol is None else atol, tolerance if rtol is None else rtol)
    names = input_names(fn, pytree.flatten((args, {}))[1])
    with np.errstate(all="ignore"):
        for number in range(1, order + 1):
            rng = np.random.default_rng(seed + number - 1)
            _check_order(fn, args, floats, names, number, chosen, allowed, max(eps, 1e-3) if single else eps, rng)
            fn = _derivative(fn, floats)


def _derivative(fn: Callable[..., Any], floats: Sequence[int]) -> Callable[..., Any]:
    """The gradient of the sum of all results in the float leaves."""

    def derivative(*args: Any) -> Any:
        result, pullback = vjp(fn, *args)
        ones = pytree.tree_map(lambda y: np.ones(leaf_aval(y).shape, leaf_aval(y).dtype), result)
        bars = pytree.leaves(pullback(ones))
        return [bars[i] for i in floats]

    return derivative


def _check_order(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    floats: Sequence[int],
    names: Sequence[str],
    order: int,
    modes: Sequence[str],
    allowed: tuple[float, float],
    step: float,
    rng: np.random.Generator,
) -> None:
    leaves, treedef = pytree.flatten(args)
    which = "derivative" if order == 1 else f"derivative of order {order}"
    value, out_tree = pytree.flatten(fn(*args))
    out_names = ["result" + path for path in pytree.paths(out_tree)]
    for i in floats:
        directions = [
            np.asarray(rng.standard_normal(a.shape) if j == i else np.zeros(a.shape), a.dtype)
            for j, a in enumerate(map(leaf_aval, leaves))
        ]

        def moved(sign: float, i: int = i, along: Any = directions[i]) -> list[Any]:
            changed = [np.asarray(x) + sign * step * along if j == i else x for j, x in enumerate(leaves)]
            return [np.asarray(y, float) for y in pytree.leaves(fn(*pytree.unflatten(treedef, changed)))]

        numeric = [(a - b) / (2 * step) for a, b in zip(moved(1.0), moved(-1.0), strict=True)]
        weights = [rng.standard_normal(d.shape) for d in numeric]
        expected = sum(float(np.sum(w * d)) for w, d in zip(weights, numeric, strict=True))
        size = 1.0 + sum(float(np.sum(np.abs(w * d))) for w, d in zip(weights, numeric, strict=True))
        for mode in modes:
            tangents = pytree.unflatten(treedef, directions)
            if mode == "fwd":
                result, pushed = jvp(fn, args, tangents)
                found = sum(float(np.sum(w * p)) for w, p in zip(weights, pytree.leaves(pushed), strict=True))
            else:
                result, pullback = vjp(fn, *args)
                cts = [np.asarray(w, leaf_aval(y).dtype) for w, y in zip(weights, pytree.leaves(result), strict=True)]
                bars = pytree.leaves(pullback(pytree.unflatten(out_tree, cts)))
                found = float(np.sum(bars[i] * directions[i]))
            _check_value(out_names, value, pytree.leaves(result), mode, allowed)
            if not abs(found - expected) <= allowed[0] + allowed[1] * size:
                raise GradientError(
                    f"The {which} in {names[i]} is wrong ({mode}): {found:.8g} where differences give {expected:.8g}.",
                    because=_BECAUSE,
                )


def _check_value(
    names: Sequence[str], value: Sequence[Any], found: Sequence[Any], mode: str, allowed: tuple[float, float]
) -> None:
    """The value that comes with the derivative, which a custom rule may compute on its own."""
    for name, x, y in zip(names, value, found, strict=True):
        if not np.allclose(y, x, rtol=allowed[1], atol=allowed[0], equal_nan=True):
            worst = np.unravel_index(np.argmax(np.abs(np.asarray(y) - np.asarray(x))), np.shape(x))
            raise GradientError(
                f"The value that comes with the derivative ({mode}) is wrong: {name}{[*map(int, worst)] or ''} is"
                f" {np.asarray(y)[worst]:.8g} where the function answers {np.asarray(x)[worst]:.8g}.",
                because="the rule of a custom function answers another value than the function itself",
            )

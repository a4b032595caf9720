"""Checks for derivatives, wichi's own and yours: ``check_grads``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wichi import pytree
from wichi.arguments import input_names, leaf_aval
from wichi.errors import GradientError
from wichi.linear import jvp, vjp


def check_grads(
    fn: Callable[..., Any],
    args: Sequence[Any],
    order: int = 1,
    modes: Sequence[str] = ("fwd", "rev"),
    atol: float | None = None,
    rtol: float | None = None,
    eps: float = 1e-6,
    seed: int = 0,
) -> None:
    """Compare the derivatives of ``fn`` at ``args`` with central differences, input by input along random directions.

    Args:
        fn: a function of trees; float leaves are differentiated.
        args: where.
        order: 2 also checks the derivatives of the derivative.
        modes: "fwd" (``jvp``) and "rev" (``vjp``).
        atol, rtol: tolerances; by default 1e-4 for float64 and 1e-2 for float32, of the size of the derivative.
        eps: the step of the differences.
        seed: of the directions.

    Raises:
        GradientError: names the input, the mode and both numbers.

    Differs from JAX: it says which input is wrong.

    >>> import numpy as np, wichi
    >>> wichi.testing.check_grads(np.sin, (np.array([0.5, 1.0]),), order=2)
    """
    args = tuple(args)
    leaves, treedef = pytree.flatten(args)
    names = input_names(fn, pytree.flatten((args, {}))[1])
    rng = np.random.default_rng(seed)
    floats = [i for i, x in enumerate(leaves) if leaf_aval(x).dtype.kind == "f"]
    single = any(leaf_aval(leaves[i]).dtype == np.float32 for i in floats)
    tolerance = 1e-2 if single else 1e-4
    step = max(eps, 1e-3) if single else eps

    def draw(x: Any) -> Any:
        aval = leaf_aval(x)
        return np.asarray(rng.standard_normal(aval.shape), aval.dtype)

    for i in floats:
        directions = [
            draw(x) if j == i else np.zeros(leaf_aval(x).shape, leaf_aval(x).dtype) for j, x in enumerate(leaves)
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
                pushed = pytree.leaves(jvp(fn, args, tangents)[1])
                found = sum(float(np.sum(w * p)) for w, p in zip(weights, pushed, strict=True))
            else:
                result, pullback = vjp(fn, *args)
                outs, out_tree = pytree.flatten(result)
                cts = [np.asarray(w, leaf_aval(y).dtype) for w, y in zip(weights, outs, strict=True)]
                bars = pytree.leaves(pullback(pytree.unflatten(out_tree, cts)))
                found = float(np.sum(bars[i] * directions[i]))
            allowed = (tolerance if atol is None else atol) + (tolerance if rtol is None else rtol) * size
            if not abs(found - expected) <= allowed:
                raise GradientError(
                    f"The derivative in {names[i]} is wrong ({mode}): {found:.8g} where differences give"
                    f" {expected:.8g}.",
                    because="a custom rule that leads there is wrong, or the function is not smooth at this point",
                )
    if order > 1:

        def derivative(*xs: Any) -> Any:
            result, pullback = vjp(fn, *xs)
            ones = pytree.tree_map(lambda y: np.ones(leaf_aval(y).shape, leaf_aval(y).dtype), result)
            bars = pytree.leaves(pullback(ones))
            return [bars[i] for i in floats]

        check_grads(derivative, args, order - 1, modes, atol, rtol, eps, seed + 1)

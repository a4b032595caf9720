"""``vmap``: a function of one example becomes a function of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import wichi.numpy as wnp
from wichi import pytree
from wichi.arguments import input_names, leaf_aval
from wichi.compiled import Transformed
from wichi.errors import ArgumentError, ShapeError
from wichi.trace import frames
from wichi.trace.batch import vmap_values
from wichi.trace.primitive import lead
from wichi.trace.tracer import trace
from wichi.transforms import AsItIs
from wichi.travel import wraps

Axes = Any  # an int, None, or a tree of these above the arguments


def vmap(
    fn: Callable[..., Any], in_axes: Axes = 0, out_axes: Axes = 0, axis_size: int | None = None
) -> Transformed[..., Any]:
    """``fn`` over a batch: one axis of each argument counts examples, and so does one axis of each result.

    Args:
        fn: a function of one example, of positional arguments.
        in_axes: which axis of the arguments counts examples: an int for all, or a tuple with one entry an argument:
            an int, None (the same for all examples), or a tree of these above the argument's tree.
        out_axes: where the new axis goes in the results: an int, or a tree of ints above the result's tree.
        axis_size: the number of examples, where no argument tells it.

    Returns:
        a function of the same arguments with the batch axis. The whole batch is one graph and one native call, with
        no loop in Python. Keyword arguments are batched along axis 0.

    Raises:
        ArgumentError: the axes do not fit the arguments, or nothing is batched.
        ShapeError: the arguments disagree on the number of examples.

    Differs from JAX only in that ndarrays come out.

    >>> import numpy as np, wichi
    >>> wichi.vmap(np.dot)(np.ones((5, 3)), np.ones((5, 3)))
    array([3., 3., 3., 3., 3.])
    >>> wichi.vmap(wichi.grad(lambda w, x: np.sin(w * x)), in_axes=(None, 0))(0.0, np.arange(3.0))
    array([0., 1., 2.])
    """

    @wraps(fn)
    def batched(*args: Any, **kwargs: Any) -> Any:
        leaves, treedef = pytree.flatten((args, kwargs))
        names = input_names(fn, treedef)
        axes = _axes_of_leaves(in_axes, args, kwargs, names)
        size = _size(leaves, axes, names, axis_size)
        rows = [x if axis is None else wnp.moveaxis(x, axis, 0) for x, axis in zip(leaves, axes, strict=True)]
        example = [leaf_aval(x) for x in rows]
        example = [a if axis is None else a._replace(shape=a.shape[1:]) for a, axis in zip(example, axes, strict=True)]
        out_tree: list[pytree.TreeDef] = []

        def one(*values: Any) -> list[Any]:
            given, named = pytree.unflatten(treedef, values)
            results, tree = pytree.flatten(fn(*given, **named))
            out_tree.append(tree)
            return results

        traced = trace(one, example, name="vmap")
        is_batched = [axis is not None for axis in axes] + [False] * len(traced.captured)
        results = vmap_values(traced.graph, [*rows, *traced.captured], is_batched, size)
        whole = [value if has_axis else lead(value, size) for value, has_axis in results]
        moved = [
            value if axis == 0 else wnp.moveaxis(value, 0, axis)
            for value, axis in zip(whole, _axes_of_results(out_axes, out_tree[0]), strict=True)
        ]
        return pytree.unflatten(out_tree[0], moved)

    return Transformed(batched, AsItIs("vmap"), (vmap, (fn, in_axes, out_axes, axis_size)))


def _axes_of_leaves(in_axes: Axes, args: Sequence[Any], kwargs: dict[str, Any], names: Sequence[str]) -> list[Any]:
    """One axis or None a leaf."""
    per_argument = tuple(in_axes) if isinstance(in_axes, tuple | list) else (in_axes,) * len(args)
    at = frames.describe(frames.user_where())
    if len(per_argument) != len(args):
        raise ArgumentError(
            f"vmap: in_axes has {len(per_argument)} entries for {len(args)} positional argument(s).",
            at=at,
            fix="give one int, or a tuple with one entry an argument",
        )
    try:
        axes = [axis for a, x in zip(per_argument, args, strict=True) for axis in pytree.spread_prefix(a, x)]
    except ValueError:
        raise ArgumentError(
            f"vmap: in_axes={in_axes} does not fit the arguments.",
            at=at,
            because="an entry is an int, None, or a tree above its argument's tree",
        ) from None
    axes += [0] * (len(names) - len(axes))  # keyword arguments
    for axis, name in zip(axes, names, strict=True):
        if axis is not None and not isinstance(axis, int):
            raise ArgumentError(f"vmap: the axis of {name} is {axis!r}, not an int or None.", at=at)
    return axes


def _size(leaves: Sequence[Any], axes: Sequence[int | None], names: Sequence[str], asked: int | None) -> int:
    """The number of examples."""
    at = frames.describe(frames.user_where())
    sizes: dict[str, int] = {} if asked is None else {"axis_size": asked}
    for x, axis, name in zip(leaves, axes, names, strict=True):
        if axis is None:
            continue
        shape = leaf_aval(x).shape
        if not -len(shape) <= axis < len(shape):
            raise ArgumentError(
                f"vmap: {name} has shape {shape}, so there is no axis {axis} to go along.",
                at=at,
                fix="give None in in_axes for arguments that are the same for all examples",
            )
        sizes[name] = shape[axis]
    if not sizes:
        raise ArgumentError("vmap: no argument has a batch axis.", at=at, fix="give an axis in in_axes, or axis_size")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise ShapeError(f"vmap: the arguments disagree on the number of examples ({listed}).", at=at)
    return next(iter(sizes.values()))


def _axes_of_results(out_axes: Axes, out_tree: pytree.TreeDef) -> list[int]:
    template = pytree.unflatten(out_tree, [0] * out_tree.num_leaves)
    try:
        axes = pytree.spread_prefix(out_axes, template)
    except ValueError:
        axes = [None]
    if any(not isinstance(axis, int) for axis in axes):
        raise ArgumentError(
            f"vmap: out_axes={out_axes} does not fit the result, a tree of {out_tree.num_leaves} leaves.",
            at=frames.describe(frames.user_where()),
            fix="an int, or a tree of ints above the result's tree",
        )
    return axes

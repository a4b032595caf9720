"""``vmap``: a function of one example becomes a function of a batch."""

from __future__ import annotations

import functools
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
from wichi.trace.tracer import of_its_own, trace
from wichi.transforms import AsItIs

Axes = Any  # an int, None, or a tree of these above the arguments


def vmap(
    fn: Callable[..., Any],
    in_axes: Axes = 0,
    out_axes: Axes = 0,
    axis_name: Any = None,
    axis_size: int | None = None,
) -> Transformed[..., Any]:
    """``fn`` over a batch: one axis of each argument counts examples, and so does one axis of each result.

    Args:
        fn: a function of one example, of positional arguments.
        in_axes: which axis of the arguments counts examples: an int for all, or a tuple with one entry an argument:
            an int, None (the same for all examples), or a tree of these above the argument's tree.
        out_axes: where the new axis goes in the results: an int, None (no axis, for a result that is the same for all
            examples), or a tree of these above the result's tree.
        axis_name: must be None; there are no collective operations. Sum over the batch outside.
        axis_size: the number of examples, where no argument tells it.

    Returns:
        a function of the same arguments with the batch axis. The whole batch is one graph and one native call, with
        no loop in Python. Keyword arguments are batched along axis 0.

    Raises:
        ArgumentError: the axes do not fit the arguments or the results (it names the leaf), or nothing is batched.
        ShapeError: the arguments disagree on the number of examples.

    Differs from JAX only in that ndarrays come out.

    >>> import numpy as np, wichi
    >>> wichi.vmap(np.dot)(np.ones((5, 3)), np.ones((5, 3)))
    array([3., 3., 3., 3., 3.])
    >>> wichi.vmap(wichi.grad(lambda w, x: np.sin(w * x)), in_axes=(None, 0))(0.0, np.arange(3.0))
    array([0., 1., 2.])
    """

    if axis_name is not None:
        raise ArgumentError(
            "vmap has no named axes: axis_name must be None.",
            at=frames.describe(frames.user_where()),
            because="there are no collective operations such as psum",
            fix="reduce over the batch axis of what vmap answers",
        )

    @functools.wraps(fn)
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
        axes_out = _axes_of_results(out_axes, out_tree[0])
        names_out = ["result" + path for path in pytree.paths(out_tree[0])]
        placed = [
            _placed(value, has_axis, axis, size, name)
            for (value, has_axis), axis, name in zip(results, axes_out, names_out, strict=True)
        ]
        return pytree.unflatten(out_tree[0], placed)

    return Transformed(batched, AsItIs("vmap"))


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
    axes: list[Any] = []
    for number, (prefix, argument) in enumerate(zip(per_argument, args, strict=True)):
        wrong = pytree.misfit(prefix, argument)
        if wrong is not None:
            path, has, wanted = wrong
            name = names[len(axes)].partition("[")[0].partition(".")[0] if len(names) > len(axes) else "the argument"
            place = f"in_axes[{number}]" if isinstance(in_axes, tuple | list) else "in_axes"
            raise ArgumentError(
                f"vmap: {place}{path} does not fit the argument: it is {has} where {name}{path} is {wanted}.",
                at=at,
                because="an entry is an int, None, or a tree above its argument's tree",
            )
        axes += pytree.spread_prefix(prefix, argument)
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


def _axes_of_results(out_axes: Axes, out_tree: pytree.TreeDef) -> list[int | None]:
    template = pytree.unflatten(out_tree, [0] * out_tree.num_leaves)
    wrong = pytree.misfit(out_axes, template)
    axes = [] if wrong else pytree.spread_prefix(out_axes, template)
    bad = [axis for axis in axes if axis is not None and not isinstance(axis, int)]
    if wrong or bad:
        path, has, wanted = wrong or ("", repr(bad[0]), "an int or None")
        raise ArgumentError(
            f"vmap: out_axes{path} does not fit the result: it is {has} where result{path} is {wanted}."
            if wrong
            else f"vmap: out_axes has the axis {has}, not {wanted}.",
            at=frames.describe(frames.user_where()),
            fix="an int, None, or a tree of these above the result's tree",
        )
    return axes


def _placed(value: Any, has_axis: bool, axis: int | None, size: int, name: str) -> Any:
    """A result with its batch axis where ``out_axes`` wants it."""
    at = frames.describe(frames.user_where())
    if axis is None:
        if has_axis:
            raise ArgumentError(
                f"vmap: out_axes is None for {name}, which is not the same for all examples.",
                at=at,
                fix="give the axis where the examples shall stand, for instance 0",
            )
        return of_its_own(value)
    value = value if has_axis else lead(value, size)
    ndim = len(leaf_aval(value).shape)
    if not -ndim <= axis < ndim:
        raise ArgumentError(
            f"vmap: out_axes puts the batch of {name} at axis {axis}, but it has {ndim} axes with the batch's.", at=at
        )
    return of_its_own(value) if axis % ndim == 0 else wnp.moveaxis(value, 0, axis)

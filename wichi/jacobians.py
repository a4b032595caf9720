"""Whole matrices of derivatives, and products with them: ``jacfwd``, ``jacrev``, ``jacobian``, ``hessian``, ``hvp``.

All are ``vmap`` of ``jvp`` or ``vjp`` over the unit vectors, traced into one graph.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import wichi.numpy as wnp
from wichi import control, pytree
from wichi.arguments import leaf_aval
from wichi.batching import vmap
from wichi.compiled import Transformed
from wichi.errors import ArgumentError, DtypeError
from wichi.linear import jvp, vjp
from wichi.ops.products import unit_matrix
from wichi.trace import frames
from wichi.transforms import AsItIs, grad
from wichi.travel import wraps


def jacfwd(
    fn: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False, *, chunk: int | None = None
) -> Transformed[..., Any]:
    """The Jacobian by forward mode: one pass along each input element, all at once. Best for few inputs.

    Args:
        fn: a function of trees of arrays, with float results.
        argnums: the positional argument(s) to differentiate.
        has_aux: ``fn`` answers ``(result, aux)``, and so does the Jacobian: ``(jacobian, aux)``.
        chunk: how many columns to compute at once; None: all. Bounds the memory, not the answer.

    Returns:
        a function whose answer is a tree like the result of ``fn`` with, at each leaf, a tree like the argument (a
        tuple of such for several); its leaves have the shape of the result's leaf followed by that of the argument's.

    Raises:
        DtypeError: an integer leaf in the argument.

    >>> import numpy as np, wichi
    >>> wichi.jacfwd(lambda x: x**2)(np.array([1.0, 3.0]))
    array([[2., 0.],
           [0., 6.]])
    """

    numbers = _numbers(argnums)

    @wraps(fn)
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        of_one, leaves, treedef = _in_arguments(fn, args, kwargs, numbers, has_aux, "jacfwd")
        columns = []
        for i, x in enumerate(leaves):
            aval = leaf_aval(x)

            def along(tangent: Any, i: int = i) -> Any:
                tangents = [tangent if j == i else wnp.zeros_like(y) for j, y in enumerate(leaves)]
                return jvp(of_one, tuple(leaves), tuple(tangents))[1]

            pushed = _over_units(along, aval.shape, aval.dtype, chunk)
            columns.append(pytree.tree_map(functools.partial(_unflattened, aval.shape, -1), pushed))
        if not columns:
            raise ArgumentError("jacfwd: the argument has no leaves.", at=frames.describe(frames.user_where()))
        out_tree = pytree.flatten(columns[0])[1]
        rows = [[pytree.flatten(c)[0][k] for c in columns] for k in range(out_tree.num_leaves)]
        found = pytree.unflatten(out_tree, [pytree.unflatten(treedef, row) for row in rows])
        return (found, fn(*args, **kwargs)[1]) if has_aux else found

    return Transformed(jacobian_of, AsItIs("jacfwd"), (functools.partial(jacfwd, chunk=chunk), (fn, numbers, has_aux)))


def jacrev(fn: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Transformed[..., Any]:
    """The Jacobian by reverse mode: one pass back from each output element, all at once. Best for few outputs.

    As ``jacfwd`` in all else.

    >>> import numpy as np, wichi
    >>> wichi.jacrev(lambda x: np.sum(x**2))(np.array([1.0, 3.0]))
    array([2., 6.])
    """

    numbers = _numbers(argnums)

    @wraps(fn)
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        of_one, leaves, treedef = _in_arguments(fn, args, kwargs, numbers, has_aux, "jacrev")
        out, pullback = vjp(of_one, *leaves)
        results, out_tree = pytree.flatten(out)
        rows = []
        for k, y in enumerate(results):
            aval = leaf_aval(y)
            if aval.dtype.kind != "f":
                raise DtypeError(
                    f"jacrev: a result is {aval}; integers have no derivative.", at=frames.describe(frames.user_where())
                )

            def back(cotangent: Any, k: int = k) -> Any:
                cotangents = [cotangent if j == k else wnp.zeros_like(z) for j, z in enumerate(results)]
                return pullback(pytree.unflatten(out_tree, cotangents))

            pulled = vmap(back)(_unit_vectors(aval.shape, aval.dtype))
            rows.append(pytree.unflatten(treedef, [_unflattened(aval.shape, 0, p) for p in pulled]))
        found = pytree.unflatten(out_tree, rows)
        return (found, fn(*args, **kwargs)[1]) if has_aux else found

    return Transformed(jacobian_of, AsItIs("jacrev"), (jacrev, (fn, numbers, has_aux)))


def jacobian(fn: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Transformed[..., Any]:
    """The Jacobian, by whichever mode takes fewer passes: forward unless there are more inputs than outputs.

    As ``jacfwd`` in all else.

    >>> import numpy as np, wichi
    >>> wichi.jacobian(np.cumsum)(np.ones(3))
    array([[1., 0., 0.],
           [1., 1., 0.],
           [1., 1., 1.]])
    """

    numbers = _numbers(argnums)

    @wraps(fn)
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        of_one, leaves, _ = _in_arguments(fn, args, kwargs, numbers, has_aux, "jacobian")
        outs = pytree.leaves(of_one(*leaves))  # traced for its shapes; nothing of it is computed twice
        inputs, outputs = (sum(leaf_aval(x).size for x in side) for side in (leaves, outs))
        chosen = jacfwd if inputs <= outputs else jacrev
        return chosen(fn, numbers, has_aux)(*args, **kwargs)

    return Transformed(jacobian_of, AsItIs("jacobian"), (jacobian, (fn, numbers, has_aux)))


def hessian(
    fn: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False, *, chunk: int | None = None
) -> Transformed[..., Any]:
    """The matrix of second derivatives of a scalar function, forward over reverse.

    Args:
        fn: a scalar function.
        argnums: the positional argument(s).
        has_aux: ``fn`` answers ``(value, aux)``, and its Hessian ``(hessian, aux)``.
        chunk: how many columns to compute at once; None: all. Bounds the memory, not the answer.

    Returns:
        a function whose answer is a tree of trees like the argument (a tuple of tuples for several); leaves have the
        shapes of both leaves in a row.

    >>> import numpy as np, wichi
    >>> wichi.hessian(lambda x: x[0] ** 2 * x[1])(np.array([1.0, 3.0]))
    array([[6., 2.],
           [2., 0.]])
    """
    numbers = _numbers(argnums)
    return jacfwd(grad(fn, numbers, has_aux, allow_unused=True), numbers, has_aux, chunk=chunk)


def hvp(fn: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """The Hessian of ``fn(*primals)`` in its first argument times ``tangents[0]``, at the cost of a few gradients.

    Args:
        fn: a scalar function.
        primals, tangents: sequences of trees of the same structure; tangents of further arguments change the point
            along with them, as in ``jvp``.

    B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994.

    >>> import numpy as np, wichi
    >>> wichi.hvp(lambda x: np.sum(x**3), (np.array([1.0, 2.0]),), (np.array([1.0, 1.0]),))
    array([ 6., 12.])
    """
    return jvp(grad(fn, allow_unused=True), primals, tangents)[1]


def _numbers(argnums: int | Sequence[int]) -> int | tuple[int, ...]:
    return argnums if isinstance(argnums, int) else tuple(argnums)


def _in_arguments(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    argnums: int | tuple[int, ...],
    has_aux: bool,
    name: str,
) -> tuple[Callable[..., Any], list[Any], pytree.TreeDef]:
    """``fn`` as a function of the leaves of some arguments; these, and the tree of these arguments."""
    at = frames.describe(frames.user_where())
    numbers = []
    for number in (argnums,) if isinstance(argnums, int) else argnums:
        if not -len(args) <= number < len(args):
            raise ArgumentError(f"{name}: argnums={number}, but there are {len(args)} positional arguments.", at=at)
        numbers.append(number % len(args))
    given = tuple(args[n] for n in numbers)
    leaves, treedef = pytree.flatten(given[0] if isinstance(argnums, int) else given)
    for x in leaves:
        if leaf_aval(x).dtype.kind != "f":
            raise DtypeError(
                f"{name}: a leaf of argument {argnums} is {leaf_aval(x)}; integers have no derivative.",
                at=at,
                fix="make it a float: np.asarray(x, float)",
            )

    def of_some(*values: Any) -> Any:
        tree = pytree.unflatten(treedef, values)
        moved = dict(zip(numbers, (tree,) if isinstance(argnums, int) else tree, strict=True))
        answer = fn(*[moved.get(i, x) for i, x in enumerate(args)], **kwargs)
        if not has_aux:
            return answer
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise ArgumentError(
                f"{name}: the function must return a pair (result, aux) under has_aux=True.",
                at=at,
                fix="return result, anything_else",
            )
        return answer[0]

    return of_some, leaves, treedef


def _over_units(along: Callable[[Any], Any], shape: tuple[int, ...], dtype: np.dtype[Any], chunk: int | None) -> Any:
    """``along`` of every unit vector, stacked on the last axis."""
    units = _unit_vectors(shape, dtype)
    if chunk is None or chunk >= len(units):
        return vmap(along, out_axes=-1)(units)
    if chunk < 1:
        raise ArgumentError(
            f"chunk={chunk}, but at least one column is computed at once.", at=frames.describe(frames.user_where())
        )
    rounds = -(-len(units) // chunk)
    padded = np.concatenate([units, np.zeros((rounds * chunk - len(units), *shape), dtype)])
    rows = control.map(vmap(along), padded.reshape(rounds, chunk, *shape))

    def joined(x: Any) -> Any:
        return wnp.moveaxis(wnp.reshape(x, (rounds * chunk, *leaf_aval(x).shape[2:]))[: len(units)], 0, -1)

    return pytree.tree_map(joined, rows)


def _unit_vectors(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    size = math.prod(shape)
    return unit_matrix(size, dtype).reshape(size, *shape)


def _unflattened(shape: tuple[int, ...], axis: int, x: Any) -> Any:
    """The axis over unit vectors as the axes of what they were unit vectors of."""
    old = leaf_aval(x).shape
    return wnp.reshape(x, (*shape, *old[1:]) if axis == 0 else (*old[:-1], *shape))

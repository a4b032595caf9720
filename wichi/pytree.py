"""Trees of arrays: dict, list, tuple, NamedTuple, dataclass, ``None`` and registered classes (through optree).

``None`` is an empty subtree, dicts keep the order of their sorted keys, and the fields of a dataclass are children
unless marked ``static()``, as optree and JAX have it.
"""

from __future__ import annotations

import dataclasses
import functools
import keyword
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import optree

from wichi.errors import ArgumentError

_NAMESPACE = "wichi"
TreeDef = optree.PyTreeSpec
T = TypeVar("T")


def static(**field_options: Any) -> Any:
    """A dataclass field that is no child of the tree: part of its structure, compared and hashed.

    >>> @dataclasses.dataclass
    ... class Layer:
    ...     w: np.ndarray
    ...     activation: str = static(default="relu")
    """
    return dataclasses.field(metadata={"static": True}, **field_options)


def register(
    cls: type[T],
    flatten: Callable[[T], tuple[Sequence[Any], Hashable, Sequence[str]]],
    unflatten: Callable[[Hashable, Sequence[Any]], T],
) -> type[T]:
    """Make ``cls`` an inner node of trees.

    ``flatten(x)`` answers its children, a hashable static part and the children's names; ``unflatten`` takes the static
    part and new children.
    """
    node_class: Any = cls  # optree's hints ask for collections; any class will do
    node_flatten: Any = flatten
    node_unflatten: Any = unflatten
    optree.register_pytree_node(
        node_class, node_flatten, node_unflatten, path_entry_type=optree.GetAttrEntry, namespace=_NAMESPACE
    )
    return cls


def register_attributes(cls: type[T], children: Sequence[str], fixed: Sequence[str]) -> type[T]:
    """Make ``cls`` an inner node whose children are attributes; those named ``fixed`` are its static part."""

    def flatten(node: T) -> tuple[Sequence[Any], Hashable, Sequence[str]]:
        return [getattr(node, n) for n in children], tuple(getattr(node, n) for n in fixed), children

    def unflatten(values: Any, kids: Sequence[Any]) -> T:
        # Not the constructor: its checks may refuse the traced values, specs or indices that trees also hold.
        node = object.__new__(cls)
        for name, value in (*zip(fixed, values, strict=True), *zip(children, kids, strict=True)):
            object.__setattr__(node, name, value)
        return node

    register(cls, flatten, unflatten)
    if all(name.isidentifier() and not keyword.iskeyword(name) for name in (*children, *fixed)):
        _ATTRIBUTES[cls] = (tuple(children), tuple(fixed))
    return cls


# Children and static part of such classes, where code can name them.
_ATTRIBUTES: dict[type, tuple[tuple[str, ...], tuple[str, ...]]] = {}


def register_dataclass(cls: type[T]) -> type[T]:
    """Make the dataclass ``cls`` an inner node. Done by itself when one is first met in a tree."""
    fields = [f for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    children = tuple(f.name for f in fields if not f.metadata.get("static"))
    return register_attributes(cls, children, tuple(f.name for f in fields if f.metadata.get("static")))


def flatten(tree: Any) -> tuple[list[Any], TreeDef]:
    """Leaves of ``tree`` from left to right, and its structure."""
    leaves, treedef = optree.tree_flatten(tree, namespace=_NAMESPACE)
    new = {
        type(x)
        for x in leaves
        if type(x) is not np.ndarray
        and dataclasses.is_dataclass(x)
        and not isinstance(x, type)
        and not hasattr(x, "__array_ufunc__")
    }
    if not new:
        return leaves, treedef
    for cls in new:
        register_dataclass(cls)
    return flatten(tree)


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> Any:
    """The tree of structure ``treedef`` that holds ``leaves``."""
    return optree.tree_unflatten(treedef, leaves)


def builder(treedef: TreeDef) -> Callable[[Sequence[Any]], Any] | None:
    """What makes the tree from a list of its leaves; None if the tree is the one leaf.

    Nodes that are attributes of objects are made by generated code, a line each: optree would call Python functions.
    """
    if treedef.is_leaf():
        return None
    if treedef.type is tuple and treedef.num_nodes == treedef.num_leaves + 1:
        return tuple
    root = unflatten(treedef, range(treedef.num_leaves))
    nodes = [root]
    for node in nodes:  # grows while it is walked
        children = _children(node)
        if children is None:
            return functools.partial(optree.tree_unflatten, treedef)
        nodes += [child for _, child in children]
    if not any(type(node) in _ATTRIBUTES for node in nodes):
        return functools.partial(optree.tree_unflatten, treedef)
    known = _Known()
    new, put = known(object.__new__), known(object.__setattr__)
    taken = "".join(f"leaf_{i}, " for i in range(treedef.num_leaves))
    lines = [f"{taken}= leaves"] if taken else []
    name = {id(node): f"leaf_{node}" if type(node) is int else "None" for node in nodes}
    for number, node in enumerate(reversed([n for n in nodes if type(n) is not int and n is not None])):
        made = name[id(node)] = f"node_{number}"
        parts = [(key, name[id(child)]) for key, child in _children(node) or ()]
        if type(node) in _ATTRIBUTES:
            lines.append(f"{made} = {new}({known(type(node))})")
            parts += [(fixed, known(getattr(node, fixed))) for fixed in _ATTRIBUTES[type(node)][1]]
            plain = getattr(type(node), "__setattr__", None) is object.__setattr__
            lines += [f"{made}.{key} = {x}" if plain else f"{put}({made}, {key!r}, {x})" for key, x in parts]
        elif type(node) is dict:
            lines.append(f"{made} = {{{', '.join(f'{known(key)}: {x}' for key, x in parts)}}}")
        else:
            opens, closes = "[]" if type(node) is list else "()"
            lines.append(f"{made} = {opens}{''.join(x + ', ' for _, x in parts)}{closes}")
    return _compiled("build", "leaves", [*lines, f"return {name[id(root)]}"], known)


class _Known(dict[str, Any]):
    """The values that generated code knows by name; called with one, it answers the name."""

    def __call__(self, value: Any) -> str:
        name = f"known_{len(self)}"
        self[name] = value
        return name


def _children(node: Any) -> list[tuple[Any, Any]] | None:
    """The children of a node by key, index or attribute, none of a leaf (here: an int); None: of another kind."""
    kind = type(node)
    if kind is int or node is None:
        return []
    if kind is dict:
        return [*node.items()]
    if kind in (list, tuple):
        return [*enumerate(node)]
    if kind in _ATTRIBUTES:
        return [(name, getattr(node, name)) for name in _ATTRIBUTES[kind][0]]
    return None


def _compiled(name: str, argument: str, lines: Sequence[str], known: _Known) -> Callable[[Any], Any]:
    body = "\n    ".join(lines)
    space = {**known}  # Python looks names up faster in a plain dict
    exec(compile(f"def {name}({argument}):\n    {body}\n", "<leaves of a tree>", "exec"), space)
    made: Callable[[Any], Any] = space[name]
    return made


def extractor(treedef: TreeDef) -> Callable[[Any], list[Any] | None] | None:
    """What takes the leaves out of trees of this one structure, several times faster than ``flatten``.

    It answers None for a tree of another structure. There is none (None) for trees that hold more than dicts, lists,
    tuples (named ones too), objects whose children are attributes, and ``None``. The code is generated: a straight
    line of lookups, one a node.
    """
    lines: list[str] = []
    known = _Known()
    waiting: list[tuple[str, Any]] = [("tree", unflatten(treedef, range(treedef.num_leaves)))]
    order: dict[int, str] = {}

    for name, node in waiting:  # grows while it is walked
        if type(node) is int:
            order[node] = name
            continue
        if node is None:
            lines.append(f"if {name} is not None: return None")
            continue
        children = [*enumerate(node)] if optree.is_namedtuple_instance(node) else _children(node)
        if children is None:
            return None
        lines.append(f"if type({name}) is not {known(type(node))}: return None")
        attributes = _ATTRIBUTES.get(type(node))
        if attributes is None:
            lines.append(f"if len({name}) != {len(node)}: return None")
        parts = [(fixed, known(getattr(node, fixed))) for fixed in (attributes[1] if attributes else ())]
        lines += [f"if not {name}.{fixed} == {value}: return None" for fixed, value in parts]
        for number, (key, child) in enumerate(children):
            lines.append(f"{name}_{number} = {name}" + (f".{key}" if attributes else f"[{known(key)}]"))
            waiting.append((f"{name}_{number}", child))
    leaf_names = [order[i] for i in range(len(order))]
    guarded = [f"    {line}" for line in [*lines, f"return [{', '.join(leaf_names)}]"]]
    return _compiled(
        "extract", "tree", ["try:", *guarded, "except (KeyError, AttributeError):", "    return None"], known
    )


def spread_prefix(prefix: Any, tree: Any) -> list[Any]:
    """For each leaf of ``tree`` the leaf of ``prefix`` above it; None is a leaf of ``prefix``.

    Raises:
        ValueError: ``prefix`` is no tree above ``tree``.
    """
    flatten(tree)  # registers dataclasses that are met for the first time
    spread = optree.broadcast_prefix(prefix, tree, none_is_leaf=True, namespace=_NAMESPACE)
    everything = optree.tree_leaves(tree, none_is_leaf=True, namespace=_NAMESPACE)
    return [p for p, leaf in zip(spread, everything, strict=True) if leaf is not None]


def misfit(prefix: Any, tree: Any) -> tuple[str, str, str] | None:
    """Where ``prefix`` is no tree above ``tree``: the path, and what stands there in each; None if it is one."""
    flatten(tree)  # registers dataclasses that are met for the first time
    above, below = (optree.tree_structure(t, none_is_leaf=True, namespace=_NAMESPACE) for t in (prefix, tree))
    waiting = [("", above, below)]
    while waiting:
        path, above, below = waiting.pop()
        level = above.one_level()  # None of a leaf
        if level is None:
            continue
        if below.is_leaf() or level != below.one_level():
            return path, shown(above), shown(below)
        steps = paths(level)
        waiting += [(path + s, x, y) for s, x, y in zip(steps, above.children(), below.children(), strict=True)][::-1]
    return None


def leaves(tree: Any) -> list[Any]:
    """The leaves of ``tree`` from left to right."""
    return flatten(tree)[0]


def paths(treedef: TreeDef, root: str = "") -> list[str]:
    """One readable path a leaf, as Python would write it: ``params['layers'][1].w``."""
    return [
        accessor.codify(root) if root else accessor.codify("*")[1:] for accessor in optree.treespec_accessors(treedef)
    ]


def shown(treedef: TreeDef) -> str:
    """A structure as Python would write it, with ``*`` for each leaf."""
    text = str(treedef).removeprefix("PyTreeSpec(")
    for option in (", NoneIsLeaf", ", namespace="):
        text = text.rpartition(option)[0] or text
    return text.removesuffix(")") if text.count("(") < text.count(")") else text


def difference(a: TreeDef, b: TreeDef, root: str = "") -> tuple[str, str, str]:
    """Where two structures first differ: the path from the root, and what stands there in each."""
    waiting = [(root, a, b)]
    while waiting:
        path, a, b = waiting.pop()
        if a == b:
            continue
        level = a.one_level()  # None of a leaf
        if level is None or b.is_leaf() or level != b.one_level():
            return path, shown(a), shown(b)
        steps = paths(level)
        waiting += [(path + step, x, y) for step, x, y in zip(steps, a.children(), b.children(), strict=True)][::-1]
    return root, shown(a), shown(b)


def argument_paths(treedef: TreeDef, positional: Sequence[str]) -> list[str]:
    """For a tree of ``(args, kwargs)`` one path a leaf, from the parameter's name: ``params['w']``, ``x``."""
    names = []
    for accessor in optree.treespec_accessors(treedef):
        which, first = accessor[0].entry, accessor[1].entry  # 0: positional, 1: by keyword
        root = str(first) if which == 1 else positional[first] if first < len(positional) else f"args{first}"
        names.append(accessor[2:].codify(root))
    return names


def tree_map(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """``f`` applied leaf by leaf to ``tree`` and to ``rest``, trees of the same structure.

    Raises:
        ArgumentError: a tree of ``rest`` has another structure.

    >>> tree_map(lambda p, g: p - 0.1 * g, {"w": 1.0}, {"w": 5.0})
    {'w': 0.5}
    """
    first, treedef = flatten(tree)
    others = []
    for other in rest:
        more, other_def = flatten(other)
        if other_def != treedef:
            raise ArgumentError("tree_map was given trees of different structure.", value=f"{treedef} and {other_def}")
        others.append(more)
    return unflatten(treedef, map(f, first, *others))

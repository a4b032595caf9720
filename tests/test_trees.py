"""Leaves out of trees and trees out of leaves by generated code, beside what optree does with the same trees."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest

import wichi
from wichi import nn, pytree


class Pair(NamedTuple):
    a: object
    b: object


@dataclasses.dataclass(frozen=True)
class Frozen:
    w: object
    name: str = pytree.static(default="f")
    rest: object = None


@dataclasses.dataclass
class Slotted:
    __slots__ = ("x", "y")
    x: object
    y: object


class Careful(nn.Module):
    """A module that looks at what is assigned to it."""

    children = ("w", "others")
    static = ("factor",)

    def __init__(self, w, others, factor):
        self.w, self.others, self.factor = w, others, factor

    def __setattr__(self, name, value):
        assert name in ("w", "others", "factor", "_lifted")
        object.__setattr__(self, name, value)

    def forward(self, x):
        return x * self.w * self.factor + sum(self.others.values())


class Awkward(nn.Module):
    """Names that generated code has uses of its own for."""

    children = ("leaf", "new", "known")
    static = ("node", "put", "keys")

    def __init__(self, *values):
        self.leaf, self.new, self.known, self.node, self.put, self.keys = values


class NoNames:
    pass


pytree.register_attributes(NoNames, ["a child", "class"], [])


def no_names(a, b):
    made = NoNames()
    made.__dict__.update({"a child": a, "class": b})
    return made


TREES = {
    "awkward": [Awkward(1.0, {"k": 2.0}, 3.0, "n", "p", "k"), Awkward(4.0, 5.0, (6.0,), "m", "q", "l")],
    "one": 1.0,
    "list": [1.0, 2.0],
    "tuple of one": (1.0,),
    "nested": {"b": [1.0, (2.0, None)], "a": {}, "c": ()},
    "keys of two kinds": {1: 1.0, 2: [2.0]},
    "frozen": [Frozen(1.0), Frozen({"k": 2.0}, "g", (3.0, 4.0))],
    "slotted": Slotted(1.0, [2.0, ()]),
    "module": Careful(1.0, {"z": 2.0, "y": 3.0}, 4),
    "modules": {"first": nn.Layer(2, 3, seed=0), "second": [nn.MLP([2, 3, 1], seed=1), None]},
    "named": (Pair(1.0, Frozen(2.0)), 3.0),
    "ordered": OrderedDict(b=1.0, a=Frozen(2.0)),
    "empty": Frozen(None),
    "same twice": [Frozen(()), ((), ()), None, None],
}


def alike(a, b):
    (one, first), (two, second) = pytree.flatten(a), pytree.flatten(b)
    return first == second and all(x is y for x, y in zip(one, two, strict=True))


@pytest.mark.parametrize("name", TREES)
def test_built_as_optree_builds(name):
    leaves, treedef = pytree.flatten(TREES[name])
    build = pytree.builder(treedef)
    fresh = [object() for _ in leaves]
    if build is None:
        assert treedef.is_leaf()
    else:
        made = build(fresh)
        assert type(made) is type(TREES[name])
        assert alike(made, pytree.unflatten(treedef, fresh))
        assert build(fresh) is not made


@pytest.mark.parametrize("name", TREES)
def test_taken_apart_as_optree_does(name):
    leaves, treedef = pytree.flatten(TREES[name])
    extract = pytree.extractor(treedef)
    if name == "ordered":
        assert extract is None
        return
    assert extract is not None
    found = extract(TREES[name])
    assert found is not None
    assert all(x is y for x, y in zip(found, leaves, strict=True))
    for other, tree in TREES.items():
        if other != name and pytree.flatten(tree)[1] != treedef:
            taken = extract(tree)  # what is no array is refused where arrays are looked at
            assert taken is None or not all(isinstance(x, float) for x in taken)


def test_static_parts_are_set_whatever_their_names():
    leaves, treedef = pytree.flatten(TREES["awkward"])
    first, second = pytree.builder(treedef)(leaves)
    assert (first.node, first.put, first.keys) == ("n", "p", "k")
    assert (second.node, second.put, second.keys) == ("m", "q", "l")


def test_attributes_that_code_cannot_name_go_through_optree():
    leaves, treedef = pytree.flatten([no_names(1.0, 2.0)])
    assert pytree.extractor(treedef) is None
    (made,) = pytree.builder(treedef)(leaves)
    assert made.__dict__ == {"a child": 1.0, "class": 2.0}


def test_static_parts_and_missing_attributes_are_told_apart():
    _, treedef = pytree.flatten(Frozen(1.0, "f"))
    extract = pytree.extractor(treedef)
    assert extract(Frozen(1.0, "f")) is not None
    assert extract(Frozen(1.0, "g")) is None
    bare = object.__new__(Frozen)
    assert extract(bare) is None


def test_gradients_of_modules_are_modules_of_the_same_kind():
    f = wichi.grad(lambda m, x: np.sum(m(x)))
    x = np.arange(3.0)
    for factor in (2, 3, 2):
        g = [f(Careful(np.float64(1.5), {"z": x, "y": x}, factor), x) for _ in range(4)][-1]
        assert type(g) is Careful
        assert g.factor == factor
        assert g.w == factor * 3.0
        np.testing.assert_array_equal(g.others["z"], np.ones(3))

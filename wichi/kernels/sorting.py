"""Sorting and searching as machine code of our own.

The sort is stable: runs of a few numbers by insertion, then runs merged bottom-up between the array and its spare. A
merge chooses without jumping, for which of two numbers is smaller cannot be foretold; two runs that are in order
already are copied, so an array that is nearly sorted costs little. Nan comes last, and -0.0 and 0.0 are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir

from wichi.kernels import scalars

_I1, _I64 = ir.IntType(1), ir.IntType(64)
_ZERO, _ONE = _I64(0), _I64(1)
_RUN = 8  # numbers that are sorted by insertion; measured: 4 to 16 are within a few percent, 32 is a tenth slower


def stable_sort(module: ir.Module, dtype: np.dtype[Any], numbered: bool) -> ir.Function:
    """``sort(count, keys, spare)``, or ``sort(count, keys, spare, numbers, spare_numbers)`` that moves both alike."""
    name = f"wichi_sort_{dtype.str[1:]}{'_numbered' if numbered else ''}"
    key, number = scalars.memory_type(dtype).as_pointer(), _I64.as_pointer()
    function = _declared(module, name, ir.VoidType(), [_I64, key, key, *([number, number] if numbered else [])])
    if not function.blocks:
        _Sort(function, dtype).write()
    return function


def search(module: ir.Module, dtype: np.dtype[Any]) -> ir.Function:
    """``search(count, keys, apart, value, place, right)``: where in sorted keys a number belongs, by halving.

    ``apart``: the distance between keys. Before all equal keys, or with ``right`` behind them.
    """
    key = scalars.memory_type(dtype).as_pointer()
    arguments = [_I64, key, _I64, key, _I64.as_pointer(), _I64]
    function = _declared(module, f"wichi_search_{dtype.str[1:]}", ir.VoidType(), arguments)
    if not function.blocks:
        _write_search(function, dtype)
    return function


def _declared(module: ir.Module, name: str, result: Any, arguments: Sequence[Any]) -> ir.Function:
    found = module.globals.get(name)
    if found is not None:
        return found
    function = ir.Function(module, ir.FunctionType(result, arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    for argument in function.args:
        if isinstance(argument.type, ir.PointerType):
            argument.add_attribute("noalias")
    return function


def _before(b: ir.IRBuilder, x: Any, y: Any, dtype: np.dtype[Any]) -> Any:
    """Whether ``x`` must stand before ``y``: it is smaller, or a number beside nan."""
    if dtype.kind == "f":
        return b.and_(b.fcmp_unordered("<", x, y), b.fcmp_ordered("ord", x, x))
    return b.icmp_signed("<", x, y) if dtype.kind == "i" else b.icmp_unsigned("<", x, y)


class _Loops:
    """Loops whose state lies on the stack; LLVM keeps it in registers."""

    def __init__(self, function: ir.Function, dtype: np.dtype[Any]) -> None:
        self.b, self.dtype = ir.IRBuilder(function.append_basic_block("entry")), dtype

    def variable(self, value: Any) -> Any:
        with self.b.goto_entry_block():
            slot = self.b.alloca(value.type)
        self.b.store(value, slot)
        return slot

    @contextmanager
    def repeat(self, condition: Callable[[], Any]) -> Iterator[None]:
        b = self.b
        head, body, after = (b.append_basic_block(name) for name in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        b.cbranch(condition(), body, after)
        b.position_at_end(body)
        yield
        b.branch(head)
        b.position_at_end(after)

    @contextmanager
    def steps(self, start: Any, stop: Any, step: Any = _ONE) -> Iterator[Any]:
        b, counter = self.b, self.variable(start)
        with self.repeat(lambda: b.icmp_signed("<", b.load(counter), stop)):
            i = b.load(counter)
            yield i
            b.store(b.add(i, step), counter)

    def at(self, base: Any, i: Any) -> Any:
        return self.b.gep(base, [i], inbounds=True)

    def smaller(self, x: Any, y: Any) -> Any:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)


class _Sort(_Loops):
    """Keys, and perhaps numbers that move with them."""

    def __init__(self, function: ir.Function, dtype: np.dtype[Any]) -> None:
        super().__init__(function, dtype)
        self.count, keys, spare, *rest = function.args
        # What is moved alike: the keys and, if they are numbered, their numbers.
        self.given, self.spare = [keys, *rest[:1]], [spare, *rest[1:]]

    def before(self, x: Any, y: Any) -> Any:
        """Whether ``x`` is smaller; nan is gone."""
        if self.dtype.kind == "f":
            return self.b.fcmp_ordered("<", x, y)
        return _before(self.b, x, y, self.dtype)

    def write(self) -> None:
        b = self.b
        if self.dtype.kind == "f":
            self.count = self._nans_last()
        run = _I64(_RUN)
        with self.steps(_ZERO, self.count, run) as first:
            self._insertion(first, self.smaller(b.add(first, run), self.count))
        here, there = ([self.variable(p) for p in pointers] for pointers in (self.given, self.spare))
        width, moved = self.variable(run), self.variable(_I1(0))
        with self.repeat(lambda: b.icmp_signed("<", b.load(width), self.count)):
            sources, targets = ([b.load(p) for p in slots] for slots in (here, there))
            wide = b.load(width)
            twice = b.add(wide, wide)
            with self.steps(_ZERO, self.count, twice) as low:
                middle = self.smaller(b.add(low, wide), self.count)
                self._merge(sources, targets, low, middle, self.smaller(b.add(low, twice), self.count))
            for slot, value in zip([*here, *there], [*targets, *sources], strict=True):
                b.store(value, slot)
            b.store(twice, width)
            b.store(b.not_(b.load(moved)), moved)
        with b.if_then(b.load(moved)):
            self._copy(self.spare, self.given, _ZERO, _ZERO, self.count)
        b.ret_void()

    def either(self, condition: Any, x: Any, y: Any) -> Any:
        """A choice that nobody can foretell: LLVM must make no jump of it. Measured: a sort takes half the time so."""
        chosen = self.b.select(condition, x, y)
        chosen.set_metadata("unpredictable", self.b.module.add_metadata([]))
        return chosen

    def _nans_last(self) -> Any:
        """Moves nan to the end, all in turn; how many numbers there are."""
        b = self.b
        numbers, others = self.variable(_ZERO), self.variable(_ZERO)
        with self.steps(_ZERO, self.count) as i:
            is_nan = b.fcmp_unordered("uno", b.load(self.at(self.given[0], i)), b.load(self.at(self.given[0], i)))
            with b.if_else(is_nan, likely=False) as (nan, number):
                with nan:
                    self._move(self.given, i, self.spare, b.load(others))
                    b.store(b.add(b.load(others), _ONE), others)
                with number:
                    self._move(self.given, i, self.given, b.load(numbers))
                    b.store(b.add(b.load(numbers), _ONE), numbers)
        self._copy(self.spare, self.given, _ZERO, b.load(numbers), b.load(others))
        return b.load(numbers)

    def _move(self, sources: Sequence[Any], i: Any, targets: Sequence[Any], j: Any) -> None:
        for source, target in zip(sources, targets, strict=True):
            self.b.store(self.b.load(self.at(source, i)), self.at(target, j))

    def _insertion(self, first: Any, stop: Any) -> None:
        b, keys = self.b, self.given[0]
        with self.steps(b.add(first, _ONE), stop) as i:
            held = [b.load(self.at(p, i)) for p in self.given]
            hole, moving = self.variable(i), self.variable(_I1(1))
            with self.repeat(lambda: b.and_(b.load(moving), b.icmp_signed(">", b.load(hole), first))):
                place = b.load(hole)
                left = b.sub(place, _ONE)
                shifts = self.before(held[0], b.load(self.at(keys, left)))
                with b.if_else(shifts) as (larger, found):
                    with larger:
                        self._move(self.given, left, self.given, place)
                        b.store(left, hole)
                    with found:
                        b.store(_I1(0), moving)
            for p, value in zip(self.given, held, strict=True):
                b.store(value, self.at(p, b.load(hole)))

    def _merge(self, sources: Sequence[Any], targets: Sequence[Any], low: Any, middle: Any, high: Any) -> None:
        b, keys = self.b, sources[0]
        left, right, place = (self.variable(v) for v in (low, middle, low))
        two = b.icmp_signed("<", middle, high)
        # The last of the left run; read where there is no right one too, which `low` makes harmless.
        last = b.load(self.at(keys, b.sub(middle, _ONE)))
        first = b.load(self.at(keys, b.select(two, middle, low)))
        mixed = b.and_(two, self.before(first, last))
        equal = b.icmp_signed("==", b.sub(middle, low), b.sub(high, middle))
        with b.if_then(b.and_(mixed, equal)):
            self._merge_equal(sources, targets, low, middle, high)
            b.store(middle, left)
            b.store(high, right)
        with b.if_then(b.and_(mixed, b.not_(equal))):

            def both() -> Any:
                return b.and_(b.icmp_signed("<", b.load(left), middle), b.icmp_signed("<", b.load(right), high))

            with self.repeat(both):
                i, j, k = b.load(left), b.load(right), b.load(place)
                takes = self.before(b.load(self.at(keys, j)), b.load(self.at(keys, i)))
                self._move(sources, self.either(takes, j, i), targets, k)
                self._step(takes, right, left)
                b.store(b.add(k, _ONE), place)
        # What is left of the one or the other run, or both runs where they are in order.
        rest = b.sub(middle, b.load(left))
        self._copy(sources, targets, b.load(left), b.load(place), rest)
        self._copy(sources, targets, b.load(right), b.add(b.load(place), rest), b.sub(high, b.load(right)))

    def _merge_equal(self, sources: Sequence[Any], targets: Sequence[Any], low: Any, middle: Any, high: Any) -> None:
        """Two runs of one length from both ends: the smaller half and the larger one, of which neither run has more.

        So nothing is to be tested but the keys, and the processor works on both ends at once.
        """
        b, keys, minus = self.b, sources[0], _I64(-1)
        left, right = self.variable(low), self.variable(middle)
        left_end, right_end = self.variable(b.sub(middle, _ONE)), self.variable(b.sub(high, _ONE))
        with self.steps(_ZERO, b.sub(middle, low)) as k:
            i, j = b.load(left), b.load(right)
            takes = self.before(b.load(self.at(keys, j)), b.load(self.at(keys, i)))
            self._move(sources, self.either(takes, j, i), targets, b.add(low, k))
            self._step(takes, right, left)
            i, j = b.load(left_end), b.load(right_end)
            takes = self.before(b.load(self.at(keys, j)), b.load(self.at(keys, i)))
            self._move(sources, self.either(takes, i, j), targets, b.sub(b.sub(high, _ONE), k))
            self._step(takes, left_end, right_end, minus)

    def _step(self, takes: Any, one: Any, other: Any, by: Any = _ONE) -> None:
        """``one`` goes on where it is taken from, else the ``other``."""
        b = self.b
        b.store(b.add(b.load(one), self.either(takes, by, _ZERO)), one)
        b.store(b.add(b.load(other), self.either(takes, _ZERO, by)), other)

    def _copy(self, sources: Sequence[Any], targets: Sequence[Any], start: Any, to: Any, count: Any) -> None:
        with self.steps(_ZERO, count) as i:
            self._move(sources, self.b.add(start, i), targets, self.b.add(to, i))


def _write_search(function: ir.Function, dtype: np.dtype[Any]) -> None:
    count, keys, apart, value, place, right = function.args
    loops = _Loops(function, dtype)
    b = loops.b
    wanted, behind = b.load(value), b.icmp_signed("!=", right, _ZERO)
    low, high = loops.variable(_ZERO), loops.variable(count)
    with loops.repeat(lambda: b.icmp_signed("<", b.load(low), b.load(high))):
        start, stop = b.load(low), b.load(high)
        middle = b.lshr(b.add(start, stop), _ONE)
        found = b.load(loops.at(keys, b.mul(middle, apart)))
        # Beyond `middle`: keys before the number, and with `right` those that it is not before.
        beyond = b.select(behind, b.not_(_before(b, wanted, found, dtype)), _before(b, found, wanted, dtype))
        b.store(b.select(beyond, b.add(middle, _ONE), start), low)
        b.store(b.select(beyond, stop, middle), high)
    b.store(b.load(low), place)
    b.ret_void()

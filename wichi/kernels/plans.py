"""What the schedule answers: the nests of a program, and the run-time arguments that make it a graph's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wichi.kernels.loops import Program
from wichi.kernels.writer import INTERRUPT_CHECK
from wichi.trace.callbacks import HostFunction
from wichi.trace.ir import Atom, Aval, Eqn

# What may fail while a program runs, in words for C and for functions inside @njit, which know no exceptions of ours.
FAILURES = {
    "index": "an index is outside its axis",
    "singular": "a matrix is singular",
    "nans": "all numbers of a line are nan",
    "definite": "a matrix is not positive definite",
    "converged": "eigenvalues do not converge",
    "deficient": "a matrix has less than full rank",
    "unfound": "singular values do not converge",
    "host": "a Python function raised an exception",
    "tape": "the way back through a loop needs more memory than there is, or than wichi.config.tape_bytes",
}


@dataclass(slots=True)
class Step:
    """Equations that run as one nest. ``shape`` is the loop space of a fused step, None for the others.

    ``begins``: reductions whose results are set to their neutral elements, before a band adds to them.
    """

    eqns: list[Eqn]
    shape: tuple[int, ...] | None = None
    begins: tuple[Eqn, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A program and the run-time arguments that make it this graph's."""

    program: Program
    sizes: np.ndarray[Any, Any]
    scalars: np.ndarray[Any, Any]
    inputs: tuple[Aval, ...]
    constants: tuple[np.ndarray[Any, Any], ...]  # read by reference at each call
    outputs: tuple[Aval, ...]  # those that are arrays of their own
    arena_bytes: int
    failures: tuple[tuple[str, Eqn], ...]  # status k + 1: what failed, and in which equation
    steps: tuple[Step, ...]  # the equations of each nest, for people
    numbers: tuple[Any, ...]  # the run-time scalars before they became words, for people
    donated: tuple[tuple[int, int], ...]  # results written into inputs: (the result's place, the input's)
    homes: tuple[Atom | None, ...]  # the value that each buffer was made for, for people; None: within a loop
    tile_bytes: int = 0  # of the memory that each chunk of a band has for itself

    @property
    def interruptible(self) -> bool:
        """Whether there is a loop that may not end, or a Python function that may take its time."""
        return any(x is INTERRUPT_CHECK or isinstance(x, HostFunction) for x in self.numbers)

    def sources(self) -> list[int] | None:
        """Where each result is: a place in the outputs and then the inputs. None: the results are the outputs."""
        if not self.donated:
            return None
        own, count = dict(self.donated), len(self.outputs)
        rest = iter(range(count))
        return [count + own[k] if k in own else next(rest) for k in range(count + len(own))]

    def bytes_touched(self) -> int:
        """The memory of inputs, captured arrays, outputs and the arena."""
        avals = (*self.inputs, *self.outputs)
        return self.arena_bytes + sum(a.size * a.dtype.itemsize for a in avals) + sum(c.nbytes for c in self.constants)

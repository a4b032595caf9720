"""A graph ready to be called: its program, its machine code, and the call itself.

Programs are kept by the text of their loop IR, so graphs that run alike share machine code: another batch size,
another learning rate and another function of the same structure compile nothing.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from wichi.config import config
from wichi.errors import ArgumentError, IndexRangeError, KernelError, LoopError, SingularError
from wichi.kernels import cache, interrupts, results
from wichi.kernels.fastcall import Door, make_door
from wichi.kernels.loops import INTERRUPTED, Program
from wichi.kernels.parallel import FROM_BYTES, Parts
from wichi.kernels.parallel import run as run_parts
from wichi.kernels.plans import Plan
from wichi.kernels.schedule import plan
from wichi.trace import frames
from wichi.trace.captured import Dependency
from wichi.trace.ir import Eqn, Graph

if TYPE_CHECKING:
    from wichi.kernels.link import NativeProgram

_programs: dict[str, NativeProgram | Parts] = {}
_compiling = threading.Lock()  # one compile a program, whatever the number of threads that ask
compile_count = 0  # programs compiled in this process; those found on disk do not count


def native(program: Program) -> Any:
    """The machine code of ``program``: kept by this process, found on disk, or compiled."""
    text = repr(program)
    digest = hashlib.sha256(text.encode()).hexdigest()
    found = _programs.get(digest)
    if found is None:
        with _compiling:
            found = _programs.get(digest)
            if found is None:
                found = _programs[digest] = _from_disk_or_compiled(program, text)
    return found


def _from_disk_or_compiled(program: Program, text: str) -> NativeProgram | Parts:
    global compile_count
    from wichi.kernels import link  # llvmlite is loaded with the first program

    cut = any(band.chunk is not None for band in program.bands)
    key = cache.key_of(text)
    stored = cache.load(key)
    if stored is not None:
        linked = _parts(program, stored) if cut else link.link(stored)
        if linked is not None:
            return linked
        cache.reject(key, "holds code that does not link here")
    from wichi.kernels.native import compile_parts, compile_program  # as link

    made, code = compile_parts(program) if cut else compile_program(program)
    compile_count += 1
    cache.store(key, code)
    return made


def _parts(program: Program, stored: cache.ObjectCode) -> Parts | None:
    from wichi.kernels.native import link_parts

    return link_parts(program, stored)


class Executable:
    """A compiled graph. Called with arrays of the graph's shapes and dtypes, it answers fresh arrays.

    Inputs that are not C-contiguous, aligned and of native byte order are copied at the door; none is written.
    """

    __slots__ = ("_arenas", "_called", "_door", "_makers", "_sources", "native", "parallel", "plan")

    def __init__(self, graph: Graph, donated: Mapping[int, int] | None = None, parallel: bool = False) -> None:
        """``parallel``: large programs are cut into chunks for threads; see ``wichi.kernels.parallel``."""
        self.plan: Plan = plan(graph, donated)
        self.parallel = parallel
        if parallel and self.plan.bytes_touched() >= FROM_BYTES:
            self.plan = plan(graph, donated, chunked=True)
        self.native = native(self.plan.program)
        self._arenas: deque[np.ndarray[Any, Any]] = deque(maxlen=8)  # free ones; a running call owns its own
        self._makers = [results.maker(aval) for aval in self.plan.outputs]
        self._sources = self.plan.sources()
        self._door: Door | None = None
        self._called = False

    def __call__(self, args: Sequence[Any]) -> list[Any]:
        if self.plan.interruptible:
            interrupts.raise_if_interrupted()  # a fast call has ended for it, and left the rest to us
        outs: list[Any] = [make() for make in self._makers]
        if self._door is None or not self._door.run(args, outs):
            if self.plan.interruptible:
                interrupts.raise_if_interrupted()
            if self.plan.donated:
                check_donated([*args, *self.plan.constants], [i for _, i in self.plan.donated])
            self._run(args, outs)
            if not self._called:
                self._called = True
            elif self._door is None:
                self._door = self.door(())  # worth making from the second call on
        found = [x if x.ndim else x[()] for x in outs]
        if self._sources is not None:
            found += args
            found = [found[i] for i in self._sources]
        return found

    def door(self, dependencies: Sequence[tuple[Dependency, Any]]) -> Door | None:
        """The fast way in, open while ``dependencies`` have the values given with them; None where there is none."""
        if isinstance(self.native, Parts):
            return None
        return make_door(self.plan, self.native.address, self.plan.inputs, dependencies)

    def _run(self, args: Sequence[Any], outs: Sequence[np.ndarray[Any, Any]]) -> None:
        p = self.plan
        arrays = [dense(x, aval.dtype) for x, aval in zip(args, p.inputs, strict=True)]
        arrays += [dense(x, x.dtype) for x in p.constants]
        words = [x.ctypes.data for x in (*arrays, *outs)]
        arena = None
        if p.arena_bytes:
            arena = self._arena()
            words.append(-(-arena.ctypes.data // 64) * 64)
        pointers = (ctypes.c_int64 * max(len(words), 1))(*words)
        table, scalars = ctypes.addressof(pointers), p.scalars.ctypes.data
        if isinstance(self.native, Parts):
            status = run_parts(self.native, table, p.sizes, scalars, p.tile_bytes, config.parallel)
        else:
            status = self.native.call(table, p.sizes.ctypes.data, scalars)
        if arena is not None:
            self._arenas.append(arena)
        if status:
            if status == INTERRUPTED:
                interrupts.raise_if_interrupted()
                raise KeyboardInterrupt
            _failed(*p.failures[status - 1])

    def _arena(self) -> np.ndarray[Any, Any]:
        try:
            return self._arenas.pop()
        except IndexError:
            return np.empty(self.plan.arena_bytes + 64, np.uint8)


def check_donated(args: Sequence[Any], donated: Sequence[int]) -> None:
    """Raise where an array cannot be written, or is given twice.

    Raises:
        ArgumentError: a donated argument is no plain, contiguous, writable array, or shares memory with another.
    """
    for i in donated:
        x = args[i]
        if type(x) is not np.ndarray or not (x.flags.c_contiguous and x.flags.aligned and x.flags.writeable):
            raise ArgumentError(
                f"A donated argument is {type(x).__name__}, or not contiguous and writable.",
                at=frames.describe(frames.user_where()),
                because="the result is written into its memory",
                fix="np.ascontiguousarray(x), or leave it out of donate_argnums",
            )
    arrays = [(*byte_bounds(x), i) for i, x in enumerate(args) if isinstance(x, np.ndarray) and x.size]
    own, end, own_end = set(donated), 0, 0  # the highest ends so far, of all and of those donated
    for low, high, i in sorted(arrays):
        if low < (end if i in own else own_end):
            raise ArgumentError(
                "A donated array shares memory with another argument.",
                at=frames.describe(frames.user_where()),
                because="a result is written into it while the other may still be read",
                fix="copy one of them: x.copy()",
            )
        end, own_end = max(end, high), max(own_end, high) if i in own else own_end


def dense(x: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """``x`` as kernels read it: C-contiguous, aligned, native; itself if it is so already."""
    if type(x) is np.ndarray and x.dtype == dtype and x.flags.c_contiguous and x.flags.aligned:
        return x
    return np.require(x, dtype, ["C", "A"])


_FAULTS = {
    "singular": "a matrix is singular",
    "definite": "a matrix is not positive definite",
    "converged": "the eigenvalues do not converge",
    "unfound": "the singular values do not converge",
}


def _failed(what: str, eqn: Eqn) -> None:
    where = frames.describe(eqn.where)
    if what == "index":
        shape = eqn.params.get("shape", eqn.ins[0].aval.shape)
        raise IndexRangeError(
            f"An index is outside its axis: the array has shape {shape}.",
            at=where,
            because="an index i of an axis of n must satisfy -n <= i < n",
            fix="clip it first, for instance np.clip(i, 0, n - 1)",
        )
    if what == "host":
        error = eqn.params["function"].error()
        if error is not None:
            raise error
    if what == "deficient":
        raise SingularError(
            "least squares: a matrix has less than full rank.",
            at=where,
            because="many solutions are equally good, and they have no derivative",
            fix="leave out columns that others make up, or add rows: 1e-6 * np.eye(n), against zeros",
        )
    if what in _FAULTS:
        raise SingularError(f"{eqn.prim.name}: {_FAULTS[what]}.", at=where)
    if what == "nans":
        raise ArgumentError(
            f"np.{eqn.prim.name}: all numbers of a line are nan.",
            at=where,
            because="none of them is the largest or the smallest",
            fix="put a number in their place first: np.argmax(np.nan_to_num(x, nan=-np.inf))",
        )
    if what == "tape":
        raise LoopError(
            f"The way back through this {eqn.prim.name.split('_')[0]} loop needs more memory than"
            f" {config.tape_bytes:,} bytes.",
            at=where,
            because="reverse mode keeps the state of every round",
            fix="wichi.config.tape_bytes = ..., or fewer rounds",
        )
    raise KernelError(f"{eqn.prim.name} reported a failure.", at=where)

"""Compiled functions for C, Fortran, ctypes, cffi and SciPy's low-level callbacks: ``cfunc`` and ``export``."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wichi import pytree
from wichi.arguments import input_names
from wichi.compiled import Transformed
from wichi.errors import ArgumentError, KernelError
from wichi.trace import frames
from wichi.traces import check_captures
from wichi.transforms import jit
from wichi.travel import examples, likeness

if TYPE_CHECKING:
    from wichi.kernels.plans import Plan

# Of C and C++: headers are for both.
_C_KEYWORDS = frozenset([
    "alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break", "case", "catch", "char",
    "class", "compl", "concept", "const", "const_cast", "constexpr", "continue", "decltype", "default", "delete",
    "do", "double", "dynamic_cast", "else", "enum", "explicit", "export", "extern", "false", "float", "for", "friend",
    "goto", "if", "inline", "int", "long", "main", "mutable", "namespace", "new", "noexcept", "not", "not_eq",
    "nullptr", "operator", "or", "or_eq", "private", "protected", "public", "register", "reinterpret_cast",
    "requires", "restrict", "return", "short", "signed", "sizeof", "static", "static_assert", "static_cast", "struct",
    "switch", "template", "this", "thread_local", "throw", "true", "try", "typedef", "typeid", "typename", "union",
    "unsigned", "using", "virtual", "void", "volatile", "wchar_t", "while", "xor", "xor_eq",
])  # fmt: skip
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "vector": (ctypes.c_double, [ctypes.c_int, ctypes.POINTER(ctypes.c_double)]),
    "filter": (
        ctypes.c_int,
        [ctypes.POINTER(ctypes.c_double), ctypes.c_ssize_t, ctypes.POINTER(ctypes.c_double), ctypes.c_void_p],
    ),
}


@dataclass(frozen=True)
class CFunction:
    """A compiled function at an address, for as long as this object, or its ctypes function, lives.

    Attributes:
        address: of the machine code.
        ctypes: the same as a ctypes function; it releases the GIL.
        signature: as C writes it.
    """

    address: int
    ctypes: Any
    signature: str
    _keep: Any = field(repr=False)
    _made_from: tuple[Callable[..., Any], Any, str] = field(repr=False)

    def low_level_callable(self) -> Any:
        """As ``scipy.LowLevelCallable``, for ``quad``, ``nquad``, ``ndimage.generic_filter`` and their like."""
        from scipy import LowLevelCallable

        return LowLevelCallable(self.ctypes)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, self._made_from  # made anew where it is unpickled, at another address

    def __deepcopy__(self, memo: Any) -> CFunction:
        return self


def _again(fn: Callable[..., Any], like: Any, style: str) -> CFunction:
    return cfunc(fn, *examples(like), style=style)


def cfunc(fn: Callable[..., Any], *example_args: Any, style: str | None = None) -> CFunction:
    """``fn`` compiled for arguments like these, as a C function in this process.

    Args:
        fn: a NumPy function or a transformed one.
        example_args: arrays and numbers; their shapes and dtypes hold for all calls.
        style: how C calls it; None takes "scalars" where all arguments and the one result are numbers, else "pointers".

            - "pointers": ``int f(const double *in0, ..., double *out0, ...)``, dense arrays; 0 means well.
            - "scalars": ``double f(double, ...)``; nan where it fails.
            - "vector": ``double f(int n, double *x)``, for ``scipy.integrate.nquad``; nan where n is another.
            - "filter": ``int f(double *buffer, intptr_t n, double *result, void *)``, for ``ndimage.generic_filter``.

    Raises:
        ArgumentError: the style does not fit the function.

    No Python object is touched by a call, and it may come from any thread. Arrays that ``fn`` holds are read anew on
    each call.

    >>> import numpy as np, scipy.integrate, wichi
    >>> f = wichi.cfunc(lambda x: np.exp(-(x**2)), 0.0)
    >>> round(scipy.integrate.quad(f.low_level_callable(), -np.inf, np.inf)[0] ** 2, 9)
    3.141592654
    """
    from wichi.kernels import standalone  # llvmlite is loaded with the first program

    executable, _, _ = _compiled(fn, example_args)
    found = executable.plan
    plain = _all_doubles(found) and all(not a.shape for a in found.inputs) and _one_number(found)
    style = style or ("scalars" if plain else "pointers")
    _check_style(style, found, plain)
    engine, held = standalone.assemble_call(found, executable.native.address, style)
    address = engine.address("f")
    result, arguments = _signature(style, found)
    names = [f"in{i}" for i in range(len(found.inputs))] + [f"out{i}" for i in range(len(found.outputs))]
    text = {
        "pointers": standalone.header("f", found, names).split("\n")[-3],
        "scalars": f"double f({', '.join(['double'] * len(found.inputs))});",
        "vector": "double f(int n, double *x);",
        "filter": "int f(double *buffer, intptr_t n, double *result, void *unused);",
    }[style]
    kind = ctypes.CFUNCTYPE(result, *arguments)
    function: Any = kind(address)
    keep = engine, held, executable
    function.keep = keep  # it may outlive the record, also within a LowLevelCallable
    return CFunction(address, function, text, keep, (fn, likeness(example_args), style))


def export(
    fn: Callable[..., Any],
    *example_args: Any,
    path: str | os.PathLike[str],
    shared: bool = False,
    native: bool = False,
    blas: str = "cblas",
    link: Sequence[str] = (),
) -> list[Path]:
    """Write ``fn``, compiled for arguments like these, as ``path.o`` and ``path.h``: plain C, no Python.

    Args:
        fn: a NumPy function or a transformed one, of arrays, numbers and trees of them; each leaf is an argument.
        example_args: what it is compiled for; shapes and dtypes hold for all calls.
        path: where; its last part is the name of the C function.
        shared: also write ``path.so`` with the system's C compiler.
        native: use every instruction of this machine; else those that all machines of its kind have.
        blas: how BLAS is called: "cblas" (``cblas_dgemm``), or "fortran" (``dgemm_``); LAPACK is always Fortran's.
        link: of ``shared``: what the library is linked with, as the compiler takes it: ``["-lopenblas"]``.

    Returns:
        the files written.

    Raises:
        ArgumentError: the name is no C identifier, ``blas`` is none of these, ``fn`` calls Python
            (``wichi.primitive``), or there is no C compiler for ``shared``.
        KernelError: the C compiler could not link the library; its words are in the message.

    Arrays that ``fn`` holds are written into the file. Larger matrix products and factorisations are open symbols of
    BLAS and LAPACK with 32-bit integers: link with any. The header names them, and says what each status means.
    The C function allocates no memory of its own up to 16 KiB of working memory; beyond that it calls ``malloc``.
    """
    from wichi.kernels import link as machine
    from wichi.kernels import open_blas, standalone

    target = Path(path)
    name = target.name
    at = frames.describe(frames.user_where())
    if not (name.isidentifier() and name.isascii()) or name in _C_KEYWORDS:
        raise ArgumentError(f"export: {name!r} is no name for a C function.", at=at)
    if blas not in open_blas.STYLES:
        raise ArgumentError(f"export: there is no blas={blas!r}; there are {', '.join(open_blas.STYLES)}.", at=at)
    _, found, names = _compiled(fn, example_args, native=False)
    cpu, features = machine.cpu() if native else ("", "")
    files = [target.with_suffix(".o"), target.with_suffix(".h")]
    code, left_open = standalone.object_code(found, name, cpu, features, blas)
    files[0].write_bytes(code)
    files[1].write_text(standalone.header(name, found, names, left_open), encoding="utf-8")
    if shared:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise ArgumentError("export: there is no C compiler to link a shared library with.", fix="install gcc")
        files.append(target.with_suffix(".so"))
        command = [compiler, "-shared", "-o", str(files[-1]), str(files[0]), *link, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise KernelError(f"{' '.join(command)} failed.", value=done.stderr.strip()[-500:])
    return files


def _compiled(fn: Callable[..., Any], args: tuple[Any, ...], native: bool = True) -> tuple[Any, Plan, list[str]]:
    from wichi.kernels.program import Executable
    from wichi.kernels.schedule import plan

    transformed = fn if isinstance(fn, Transformed) else jit(fn)
    leaves, treedef = pytree.flatten((args, {}))
    trace = transformed.find(leaves, treedef)
    graph = trace.run.graph
    if native:
        check_captures("wichi.cfunc", getattr(transformed, "__name__", "f"), trace)
    executable = Executable(graph) if native else None
    found = executable.plan if executable is not None else plan(graph)
    names = [_identifier(n) for n in input_names(transformed, treedef)]
    names += [f"out{i}" for i in range(len(found.outputs))]
    return executable, found, [n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names)]


def _identifier(name: str) -> str:
    plain = "".join(c if c.isalnum() else "_" for c in name).strip("_") or "x"
    plain = plain if plain.isascii() else "x"
    return f"x{plain}" if plain[0].isdigit() or plain in _C_KEYWORDS else plain


def _all_doubles(found: Plan) -> bool:
    return all(a.dtype == np.float64 for a in (*found.inputs, *found.outputs))


def _one_number(found: Plan) -> bool:
    return len(found.outputs) == 1 and not found.outputs[0].shape


def _check_style(style: str, found: Plan, plain: bool) -> None:
    from wichi.kernels.standalone import STYLES

    at = frames.describe(frames.user_where())
    if style not in STYLES:
        raise ArgumentError(f"cfunc: there is no style {style!r}; there are {', '.join(STYLES)}.", at=at)
    if style == "scalars" and not plain:
        raise ArgumentError("cfunc: style 'scalars' is for float64 numbers and one result.", at=at)
    one = len(found.inputs) == 1 and found.inputs[0].ndim == 1
    if style in ("vector", "filter") and not (_all_doubles(found) and one and _one_number(found)):
        raise ArgumentError(f"cfunc: style {style!r} is for one vector of float64 and one result.", at=at)


def _signature(style: str, found: Plan) -> tuple[Any, list[Any]]:
    if style == "pointers":
        return ctypes.c_int, [ctypes.c_void_p] * (len(found.inputs) + len(found.outputs))
    if style == "scalars":
        return ctypes.c_double, [ctypes.c_double] * len(found.inputs)
    return _SIGNATURES[style]

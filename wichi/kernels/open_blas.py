"""BLAS and LAPACK of exported programs: our names for them become calls of what the user links with.

Programs call BLAS as Fortran does, each argument by address, under names of our own. Here each such name that a module
uses gets a body, which LLVM inlines: a call of CBLAS, or of Fortran's routine. Compilers of Fortran pass the lengths of
flags behind all arguments; a routine that expects them may write there, so they are passed.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

STYLES = ("cblas", "fortran")
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
# Arguments by kind. t, s, u, d: the flags of transposing, side, triangle and diagonal; i: an integer; n: a number;
# a: an array. CBLAS takes all but arrays by value, and the order of storage in front.
_BLAS = {"gemm": "ttiiinaiainai", "gemv": "tiinaiainai", "trsm": "sutdiinaiai"}
_LAPACK = {"getrf": 0, "getrs": 1, "potrf": 1, "syevd": 2, "geqrf": 0, "orgqr": 0, "gesdd": 1}  # how many flags
_COLUMN_MAJOR = 102
_FLAGS = {"t": ("N", 111, 112), "s": ("L", 141, 142), "u": ("U", 121, 122), "d": ("N", 131, 132)}  # of cblas.h


def define(module: ir.Module, style: str) -> list[str]:
    """Give bodies to the routines that ``module`` declares; answers the names that stay open."""
    left_open = []
    for letter, real in (("d", ir.DoubleType()), ("s", ir.FloatType())):
        for routine in (*_BLAS, *_LAPACK):
            function = module.globals.get(f"wichi_{letter}{routine}")
            if function is None:
                continue
            function.linkage = "internal"
            function.attributes.add("alwaysinline")
            b = ir.IRBuilder(function.append_basic_block())
            if routine in _BLAS and style == "cblas":
                left_open.append(f"cblas_{letter}{routine}")
                _call_cblas(b, left_open[-1], _BLAS[routine], real)
            else:
                left_open.append(f"{letter}{routine}_")
                flags = _LAPACK[routine] if routine in _LAPACK else sum(k in _FLAGS for k in _BLAS[routine])
                given = [*function.args, *[_I64(1)] * flags]
                kind = ir.FunctionType(ir.VoidType(), [a.type for a in given])
                b.call(ir.Function(module, kind, left_open[-1]), given)
            b.ret_void()
    return left_open


def _call_cblas(b: ir.IRBuilder, name: str, kinds: str, real: Any) -> None:
    given: list[Any] = [_I32(_COLUMN_MAJOR)]
    for argument, kind in zip(b.function.args, kinds, strict=True):
        if kind in _FLAGS:
            letter, yes, no = _FLAGS[kind]
            given.append(b.select(b.icmp_unsigned("==", b.load(argument), _I8(ord(letter))), _I32(yes), _I32(no)))
        elif kind == "a":
            given.append(b.bitcast(argument, real.as_pointer()))
        else:
            given.append(b.load(b.bitcast(argument, (_I32 if kind == "i" else real).as_pointer())))
    kind = ir.FunctionType(ir.VoidType(), [x.type for x in given])
    b.call(ir.Function(b.module, kind, name), given)

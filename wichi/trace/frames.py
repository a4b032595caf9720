"""The user's line: which frame called us, and what it was doing. For messages and for the graph's side table."""

from __future__ import annotations

import contextlib
import dis
import functools
import linecache
import os
import sys
from types import CodeType, FrameType

import numpy as np

from wichi.trace.ir import Where

_OURS = tuple(
    os.path.dirname(os.path.abspath(path)) + os.sep for path in (os.path.dirname(__file__), np.__file__)
)  # wichi/ and numpy/
_BETWEEN = frozenset({functools.__file__, contextlib.__file__})  # files that stand between a call and its function
_SOLVERS = ("scipy", "numba")  # packages that do
_internal: dict[str, bool] = {}
_passed: dict[str, bool] = {}  # internal, or between us and the user


def is_internal(file: str) -> bool:
    """Whether a file belongs to wichi or NumPy rather than to the user."""
    known = _internal.get(file)
    if known is None:
        known = file in _BETWEEN or file.startswith((*_OURS, "<frozen", _folder_of("optree")))
        _internal[file] = known
    return known


def _is_passed(file: str) -> bool:
    """Internal, or of those that call the user's function for us."""
    known = _passed.get(file)
    if known is None:
        known = _passed[file] = is_internal(file) or any(file.startswith(_folder_of(p)) for p in _SOLVERS)
    return known


def _folder_of(package: str) -> str:
    """Where a package lies; nowhere if it has not been imported, so that no frame is its."""
    file = getattr(sys.modules.get(package), "__file__", None)
    return os.path.dirname(file) + os.sep if file else "<not imported>"


def user_frame() -> FrameType | None:
    """The innermost frame outside wichi and NumPy, SciPy's solvers that call us, and numba."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        known = _passed.get(file)  # every frame of every equation asks
        if not (_is_passed(file) if known is None else known):
            break
        frame = frame.f_back
    return frame


def is_called_by_user(depth: int) -> bool:
    """Whether the function ``depth`` calls up, counted from here, is the user's."""
    return not is_internal(sys._getframe(depth).f_code.co_filename)


def user_where() -> Where | None:
    """The user's line that is running now."""
    frame = user_frame()
    if frame is None:
        return None
    code = frame.f_code
    return Where(code.co_filename, frame.f_lineno, code.co_name)


def where_raised(error: BaseException) -> Where | None:
    """The user's line that an error came through last."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not _is_passed(code.co_filename):
            found = Where(code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next
    return found


def describe(where: Where | None) -> str | None:
    """``file:line in function:  source`` for messages."""
    if where is None:
        return None
    source = linecache.getline(where.file, where.line).strip()
    text = f"{where.file}:{where.line} in {where.function}" + (f":  {source}" if source else "")
    return f"backward of {text}" if where.backward else text


def segment(frame: FrameType) -> str | None:
    """The source text of the expression that ``frame`` is evaluating, where Python recorded its columns."""
    positions = _position(frame.f_code, frame.f_lasti)
    if positions is None:
        return None
    first, last, start, stop = positions
    lines = [linecache.getline(frame.f_code.co_filename, n) for n in range(first, last + 1)]
    if not all(lines):
        return None
    raw = [line.encode() for line in lines]  # columns count UTF-8 bytes
    raw[-1] = raw[-1][:stop]
    raw[0] = raw[0][start:]
    return " ".join(part.decode(errors="replace").strip() for part in raw)


def _position(code: CodeType, lasti: int) -> tuple[int, int, int, int] | None:
    for number, position in enumerate(code.co_positions()):
        if number == lasti // 2:
            return position if None not in position else None  # type: ignore[return-value]
    return None


def is_augmented(frame: FrameType) -> bool:
    """Whether ``frame`` is in the middle of ``a += value``, ``a -= value`` and their like."""
    return any(
        step.offset == frame.f_lasti and step.opname == "BINARY_OP" and step.argrepr.endswith("=")
        for step in dis.get_instructions(frame.f_code)
    )


def passes_through(code: CodeType) -> bool:
    """Whether a function of NumPy's stands between the user's line and here."""
    last, frame = user_frame(), sys._getframe(1)
    while frame is not None and frame is not last:
        if frame.f_code is code:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def is_storing(frame: FrameType) -> bool:
    """Whether ``frame`` is in the middle of ``a[i] = value``."""
    return any(
        step.offset == frame.f_lasti and step.opname.startswith("STORE_S")
        for step in dis.get_instructions(frame.f_code)
    )

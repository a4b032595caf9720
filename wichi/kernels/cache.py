"""Machine code on disk: one file a program, named by what it was made from. ``docs/cache.md`` has the threat model.

A file is written under another name and moved into place, so readers see all of it or nothing. Its digest is checked
before it is used; a damaged one is removed, warned of once, and compiled anew. Nothing here ever raises: a folder that
cannot be read or written is no cache.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import stat
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 256 * 2**20
_MAGIC = b"wichi object code 1\n"
_OFF = ("0", "off", "no", "false")
_ABANDONED = 3600.0  # seconds after which a half-written file is nobody's


class ObjectCode(NamedTuple):
    """Relocatable machine code, and the symbol to call in it."""

    symbol: str
    code: bytes


class Info(NamedTuple):
    """What the disk cache holds. ``folder`` is None where it is turned off or unusable."""

    folder: str | None
    programs: int
    bytes: int


def folder() -> Path | None:
    """``$WICHI_CACHE``, or the user's cache folder; None if turned off or not safe to use."""
    asked = os.environ.get("WICHI_CACHE", "").strip()
    if asked.lower() in _OFF:
        return None
    return _usable(Path(asked) if asked else _default_folder())


def _default_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "wichi" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "wichi"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wichi"


@functools.cache
def _usable(path: Path) -> Path | None:
    """The folder, made if need be; None if others could write into it: its code would run as this user."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError:
        return None
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022):
        warnings.warn(
            f"The kernel cache {path} is not used: it belongs to another user, or others may write into it. "
            f"fix: chmod 700 {path}, or set WICHI_CACHE to a folder of your own",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return path


@functools.cache
def _surroundings() -> str:
    """All that machine code depends on besides the program's text."""
    from importlib import metadata  # both of these are loaded with the first program, not by `import wichi`

    from wichi.kernels import blas, link

    kernels = Path(__file__).parent
    sources = hashlib.sha256(b"".join((kernels / name).read_bytes() for name in _GENERATORS)).hexdigest()
    version = metadata.version("llvmlite")  # an LLVM comes with it
    return repr((sources, version, link.cpu(), blas.provider().integer_bits, sys.platform, sys.maxsize))


_GENERATORS = (
    "emit.py", "emit_calls.py", "emit_parts.py", "link.py", "loops.py", "native.py", "parallel.py", "scalars.py",
    "small_product.py", "sorting.py", "vecmath.py", "vecmath_arc.py", "vecmath_circular.py", "vecmath_error.py",
    "vecmath_exponential.py", "vecmath_hyperbolic.py", "vecmath_logarithm.py", "vecmath_numbers.py",
    "vecmath_pairs.py", "vecmath_power.py",
)  # fmt: skip


def key_of(text: str) -> str:
    """The name of a program on this machine with these versions."""
    return hashlib.sha256(f"{_surroundings()}\n{text}".encode()).hexdigest()


def load(key: str) -> ObjectCode | None:
    """The object code stored under ``key``."""
    place = folder()
    if place is None:
        return None
    path = place / f"{key}.o"
    try:
        content = path.read_bytes()
    except OSError:
        return None
    found = _unpacked(content)
    if found is None:
        reject(key, "is damaged")
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # used now: not the oldest
    return found


def reject(key: str, why: str) -> None:
    """Remove a stored program and say so."""
    place = folder()
    if place is None:
        return
    with contextlib.suppress(OSError):
        (place / f"{key}.o").unlink()
    warnings.warn(
        f"A file of the kernel cache {place} {why}; it was removed and is compiled anew.",
        RuntimeWarning,
        stacklevel=2,
    )


def store(key: str, code: ObjectCode) -> None:
    """Keep ``code`` under ``key``, unless it needs symbols that another process might not have."""
    from wichi.kernels import link

    place = folder()
    loose = link.open_symbols(code.code)
    if place is None or loose is None or not loose <= link.RESOLVED:
        return
    draft = place / f".{key[:16]}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        draft.write_bytes(_packed(code))
        os.replace(draft, place / f"{key}.o")
        _keep_within(place, MOST_BYTES)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _packed(code: ObjectCode) -> bytes:
    body = code.symbol.encode() + b"\n" + code.code
    return _MAGIC + hashlib.sha256(body).digest() + body


def _unpacked(content: bytes) -> ObjectCode | None:
    start = len(_MAGIC)
    digest, body = content[start : start + 32], content[start + 32 :]
    if not content.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
        return None
    symbol, _, code = body.partition(b"\n")
    return ObjectCode(symbol.decode(), code)


def _files(place: Path) -> Iterator[tuple[float, int, Path]]:
    """When used last, bytes, path."""
    with os.scandir(place) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(".o"):
                    yield status.st_mtime, status.st_size, Path(entry.path)
                elif entry.name.startswith(".") and time.time() - status.st_mtime > _ABANDONED:
                    os.unlink(entry.path)


def _keep_within(place: Path, most: int) -> None:
    """Remove the programs that were not used for longest until the rest fits."""
    files = sorted(_files(place))
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= most:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size


def info() -> Info:
    """What the disk cache holds now.

    >>> wichi.cache.info()  # doctest: +SKIP
    Info(folder='/home/me/.cache/wichi', programs=12, bytes=401238)
    """
    place = folder()
    if place is None:
        return Info(None, 0, 0)
    try:
        files = list(_files(place))
    except OSError:
        return Info(None, 0, 0)
    return Info(str(place), len(files), sum(size for _, size, _ in files))


def clear() -> int:
    """Remove all stored programs and answer how many there were; running code is not touched."""
    place, removed = folder(), 0
    if place is not None:
        for _, _, path in list(_files(place)):
            with contextlib.suppress(OSError):
                path.unlink()
                removed += 1
    return removed

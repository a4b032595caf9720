"""The disk cache: hits without numba, survives everything that happens to files, and is never trusted blindly."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import wichi
from wichi.kernels import cache, link

ELF = sys.platform.startswith("linux")
pytestmark = pytest.mark.skipif(not ELF, reason="object code is kept where its format is ELF: Linux")

GRADIENT = """
    import sys
    import numpy as np
    import wichi
    def loss(w, x):
        return np.sum(np.tanh(x @ w) ** 2) + np.sum(np.exp(-w))
    w, x = np.linspace(-1, 1, 6).reshape(3, 2), np.linspace(0, 1, 12).reshape(4, 3)
    value, gradient = wichi.value_and_grad(loss)(w, x)
    want = np.sum(np.tanh(x @ w) ** 2) + np.sum(np.exp(-w))
    assert abs(value - want) < 1e-12
    assert abs(gradient.sum() + 3.6837943) < 9, gradient.sum()
    from wichi.kernels import program
    assert "numba" not in sys.modules
    print(program.compile_count, repr(value), gradient.tobytes().hex())
"""


def python(code: str, folder: Path | str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WICHI_CACHE": str(folder)}
    command = [sys.executable, *options, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def answer(folder: Path | str, *options: str) -> list[str]:
    done = python(GRADIENT, folder, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_second_process_compiles_nothing(tmp_path):
    cold = answer(tmp_path)
    warm = answer(tmp_path, "-W", "error")
    assert (cold[0], warm[0]) == ("1", "0"), "programs compiled"
    assert cold[1:] == warm[1:], "the same bits"
    assert len(list(tmp_path.glob("*.o"))) == 1
    assert stat.S_IMODE(next(tmp_path.glob("*.o")).stat().st_mode) & 0o022 == 0


def test_off_means_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert answer("off") == answer("off")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("WICHI_CACHE", "off")
    assert wichi.cache.info() == (None, 0, 0)
    assert wichi.cache.clear() == 0


def damaged(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        path.write_bytes(b"MZ" + bytes(1000))
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "foreign", "flipped"])
def test_damaged_file_is_one_warning_and_the_right_answer(tmp_path, how):
    want = answer(tmp_path)
    damaged(next(tmp_path.glob("*.o")), how)
    done = python(GRADIENT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == want[1:]
    assert done.stderr.count("RuntimeWarning") == 1
    assert answer(tmp_path, "-W", "error")[0] == "0", "it was written anew"


def test_code_that_needs_numba_is_neither_kept_nor_linked(tmp_path, monkeypatch):
    monkeypatch.setenv("WICHI_CACHE", str(tmp_path))
    code = _object(
        "declare i64 @numba_unpickle()\ndefine i64 @entry() {\n %x = call i64 @numba_unpickle()\n ret i64 %x\n}"
    )
    assert link.open_symbols(code) == {"numba_unpickle"}
    cache.store("a" * 64, cache.ObjectCode("entry", code))
    assert not list(tmp_path.iterdir())
    assert link.link(cache.ObjectCode("entry", code)) is None


def test_missing_entry_does_not_link():
    code = _object("define i64 @entry() {\n ret i64 0\n}")
    assert link.link(cache.ObjectCode("another", code)) is None
    assert link.link(cache.ObjectCode("entry", code)) is not None


def _object(text: str) -> bytes:
    import llvmlite.binding as llvm

    link.cpu()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return machine.emit_object(llvm.parse_assembly(text))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere: run as a user")
def test_read_only_folder_is_no_cache(tmp_path):
    tmp_path.chmod(0o500)
    assert answer(tmp_path)[0] == "1"


def test_path_that_is_no_folder_is_no_cache(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert answer(file)[0] == "1"
    assert file.read_text() == ""


def test_full_disk_is_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WICHI_CACHE", str(tmp_path))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache.store("b" * 64, cache.ObjectCode("entry", _object("define i64 @entry() {\n ret i64 0\n}")))
    assert not list(tmp_path.iterdir())


def test_folder_that_others_may_write_is_refused(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    done = python(GRADIENT, shared)
    assert done.returncode == 0
    assert "others may write" in done.stderr
    assert not list(shared.iterdir())


def test_size_is_bounded_and_the_oldest_go_first(tmp_path, monkeypatch):
    monkeypatch.setenv("WICHI_CACHE", str(tmp_path))
    code = cache.ObjectCode("entry", _object("define i64 @entry() {\n ret i64 0\n}"))
    monkeypatch.setattr(cache, "MOST_BYTES", 3 * (len(code.code) + 100))
    for i in range(6):
        cache.store(f"{i:064x}", code)
        os.utime(tmp_path / f"{i:064x}.o", (i, i))
    left = sorted(p.name[:64] for p in tmp_path.glob("*.o"))
    assert left == [f"{i:064x}" for i in (3, 4, 5)]
    assert wichi.cache.info()[1:] == (3, sum(p.stat().st_size for p in tmp_path.iterdir()))
    abandoned = tmp_path / ".draft"
    abandoned.write_bytes(b"half")
    os.utime(abandoned, (0, 0))
    assert wichi.cache.clear() == 3
    assert not list(tmp_path.iterdir())


def test_key_depends_on_machine_and_versions(monkeypatch):
    key = cache.key_of("program")
    assert key != cache.key_of("another")
    cache._surroundings.cache_clear()
    monkeypatch.setattr(link, "cpu", lambda: ("another-cpu", ""))
    assert cache.key_of("program") != key
    cache._surroundings.cache_clear()


def test_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("WICHI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "wichi"
    assert stat.S_IMODE((tmp_path / "wichi").stat().st_mode) == 0o700


EVERY_PRIMITIVE = """
    import sys
    if {warm}:
        sys.modules["numba"] = None  # any import of numba is an error now
    import numpy as np
    import wichi
    from wichi.kernels.program import Executable
    from wichi.trace.primitive import Primitive
    from wichi.trace.tracer import stage_graph
    from wichi.trace.primitive import aval_of
    for name, prim in sorted(Primitive.table.items()):
        for args, params in prim.samples(np.random.default_rng(0))[:2] if prim.samples else []:
            graph = stage_graph(
                lambda *xs: prim(*xs, **params) if prim.multiple else [prim(*xs, **params)], [aval_of(a) for a in args]
            )
            with np.errstate(all="ignore"):
                want = prim.impl(*args, **params)
            for g, w in zip(Executable(graph)(args), want if prim.multiple else (want,)):
                np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6, err_msg=name)
    def loops(x):  # what holds graphs
        y = wichi.scan(lambda c, _: (np.sin(c) * x, None), x, None, 3)[0]
        z = wichi.while_loop(lambda v: np.sum(v) < 50.0, lambda v: v * 1.5 + 1.0, y)
        return np.sum(wichi.cond(np.sum(z) > 0, wichi.checkpoint(np.exp), np.cos, z / 100.0))
    for n in (3, 40):
        x = np.linspace(0.1, 0.9, n)
        native = wichi.grad(loops)(x)
        with wichi.debug():
            np.testing.assert_allclose(native, wichi.grad(loops)(x), rtol=1e-9)
    print("all right")
"""


def test_every_primitive_runs_from_a_warm_cache_without_numba(tmp_path):
    for warm in (False, True):
        done = python(EVERY_PRIMITIVE.format(warm=warm), tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.strip() == "all right"


@pytest.mark.slow
def test_chaos(tmp_path):
    """16 cold processes on one folder, some killed, while files are truncated and flipped: every answer is right."""
    rng = random.Random(0)
    want = answer("off")[1:]
    environment = {**os.environ, "WICHI_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(GRADIENT)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(16)
    ]
    killed = set(rng.sample(range(16), 4))
    for number, process in enumerate(running):
        if number in killed:
            process.send_signal(signal.SIGKILL)
        for path in tmp_path.glob("*.o"):
            if rng.random() < 0.3:
                try:
                    damaged(path, rng.choice(["truncated", "flipped", "empty"]))
                except FileNotFoundError:
                    continue
        out, errors = process.communicate(timeout=120)
        if number not in killed:
            assert process.returncode == 0, errors
            assert out.split()[1:] == want
    assert answer(tmp_path)[1:] == want
    np.testing.assert_equal(sum(p.name.endswith(".o") for p in tmp_path.iterdir()), 1)


def test_the_key_covers_every_file_that_writes_machine_code():
    """What ``native`` reaches within ``wichi.kernels``, but for finding, keeping and linking code."""
    from tests.test_floors import MODULES, imports
    from wichi.kernels.cache import _GENERATORS

    reached, waiting = set(), ["wichi.kernels.native"]
    while waiting:
        module = waiting.pop()
        if module not in reached and module.startswith("wichi.kernels."):
            reached.add(module)
            waiting += imports(MODULES[module])
    code = {m.rpartition(".")[2] + ".py" for m in reached} - {"cache.py", "blas.py"}
    assert code == set(_GENERATORS)

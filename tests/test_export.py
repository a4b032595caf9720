"""Exported functions: C programs around them, what they write and what not, their status codes, BLAS, cffi."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError, KernelError

COMPILER = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="install a C compiler to run this")
BLAS = Path(__file__).parent / "reference_blas.c"
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
RANDOM = np.random.default_rng(0)
FOLD = np.linspace(0.0, 1.0, 37)


def smooth(p, x):
    h = np.tanh(x @ p["w"] + p["b"])
    return np.mean(np.log1p(np.exp(-h)) * FOLD[: x.shape[0], None]) + 0.1 * np.sum(p["w"] ** 2)


def loops(x):
    x = wichi.while_loop(lambda v: np.sum(v**2) < 50.0, lambda v: v * 1.01 + 0.001, x)
    return np.sum(wichi.scan(lambda c, f: (np.sin(c) * f + x[0], c[:2] * 3.0), x, FOLD)[1])


def moved(x, i, keep):
    picked = np.take(x, i, axis=0)
    return np.where(keep, picked[::-1].T, -1.0), np.cumsum(x, 1), np.concatenate([x.T, x.T[1:]]), np.argmax(x, 0)


def whole_numbers(i, j, b):
    return i // j, (i % j).astype(np.int16), b & (i > 3), np.sum(i, dtype=np.int64), i.astype(np.uint8)


def algebra(a, b, v):
    square = a @ a.T + np.eye(a.shape[0], dtype=a.dtype) * 100
    return a @ b, a.T @ v, np.linalg.solve(square, a @ b), np.linalg.cholesky(square), b.T @ a.T @ v


def triangle(a, b):
    lower = np.tril(a) + 5 * np.eye(a.shape[0])
    return wichi.numpy.linalg.solve_triangular(lower, b, lower=True), np.linalg.slogdet(a)[1]


def ordered(x, k):
    return np.sort(x, 0), np.argsort(x), np.median(x, 1), np.searchsorted(k, x), np.sum(np.sort(k * 2)[:9])


def normal(*shape, dtype=float):
    return RANDOM.normal(size=shape).astype(dtype)


# Odd sizes: the last elements do not fill a vector.
EXPORTED = {
    "smooth_slope": (wichi.value_and_grad(smooth), ({"w": normal(5, 3), "b": normal(3)}, normal(7, 5))),
    "curvature": (wichi.hessian(lambda x: np.sum(np.exp(np.sin(x)) * x[0])), (normal(5),)),
    "loops_slope": (wichi.value_and_grad(loops), (normal(3),)),
    "moved": (moved, (normal(9, 5), np.array([3, -1, 0, 8, 8]), RANDOM.random((5, 5)) < 0.5)),
    "single": (wichi.grad(lambda x: np.sum(np.sqrt(np.abs(x)) * np.float32(3))), (normal(133, dtype=np.float32),)),
    "whole_numbers": (whole_numbers, (np.arange(17), np.arange(1, 18), np.arange(17) % 2 == 0)),
    "large": (lambda x: np.cumsum(np.cumsum(x * 2.0)[::-1]) + x, (normal(4097),)),  # its working memory is malloc's
    "number": (wichi.grad(lambda x: x**3), (2.0,)),
    "algebra": (algebra, (normal(61, 67), normal(67, 53), normal(61))),
    "algebra_single": (algebra, (normal(61, 67, dtype="f4"), normal(67, 53, dtype="f4"), normal(61, dtype="f4"))),
    "ordered": (ordered, (normal(7, 33), np.arange(40) // 3 * 0.2 - 1)),
    "triangle": (triangle, (normal(13, 13), normal(13, 3))),
}  # fmt: skip

MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* What lies beyond a result must stay as it is. Without a margin the allocation is exact, for valgrind to see. */
#ifndef MARGIN
#define MARGIN 0
#endif
static void *room(size_t bytes) {
    unsigned char *p = malloc(bytes + MARGIN);
    if (p == NULL) abort();
    memset(p, 0xA5, bytes + MARGIN);
    return p;
}
static void *given(FILE *file, size_t bytes) {
    void *p = room(bytes);
    if (fread(p, 1, bytes, file) != bytes) abort();
    return p;
}
static void told(FILE *file, void *p, size_t bytes) {
    unsigned char *beyond = (unsigned char *)p + bytes;
    for (int i = 0; i < MARGIN; i++) if (beyond[i] != 0xA5) { printf("WRITTEN BEYOND\\n"); exit(3); }
    if (file && fwrite(p, 1, bytes, file) != bytes) abort();
    free(p);
}
"""


def parameters(header: Path) -> list[tuple[str, bool, int]]:
    """The C type, whether it is an input, and the bytes of each parameter that a header declares."""
    text = header.read_text()
    sizes = dict(re.findall(r"^   (\w+): (\w+\[[\d,]*\])$", text, re.MULTILINE))
    found = []
    for kind, name in re.findall(r"((?:const )?\w+) \*(\w+)", re.search(r"^int \w+\((.*)\);", text, re.MULTILINE)[1]):
        letter, bits, shape = re.match(r"([a-z]+)(\d*)\[([\d,]*)\]", sizes[name]).groups()
        count = int(np.prod([int(n) for n in shape.split(",") if n]))
        found.append((kind, kind.startswith("const"), count * (int(bits) // 8 if bits else 1)))
        assert letter in ("f", "i", "u", "bool")
    return found


def call_in_c(name: str, header: Path) -> str:
    lines, arguments = [], []
    for i, (kind, is_input, size) in enumerate(parameters(header)):
        made = f"given(in, {size})" if is_input else f"room({size})"
        lines.append(f"{kind} *p{i} = {made};")
        arguments.append((f"p{i}", is_input, size))
    lines.append(f'printf("{name} %d\\n", {name}({", ".join(a for a, _, _ in arguments)}));')
    lines += [f"told({'NULL' if is_input else 'out'}, (void *){a}, {size});" for a, is_input, size in arguments]
    return "{ " + "\n  ".join(lines) + " }"


def compiled(folder: Path, text: str, files: list[Path], *flags: str) -> Path:
    (folder / "main.c").write_text(text)
    command = [COMPILER, "-std=c11", "-D_DEFAULT_SOURCE", "-O1", *WARNINGS, *flags, "-o", folder / "main"]
    subprocess.run([*command, folder / "main.c", *files, "-lm"], check=True)
    return folder / "main"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """All functions above as object files, what to give them and what they must answer."""
    folder = tmp_path_factory.mktemp("exported")
    rows, calls, objects = {}, [], []
    with open(folder / "in.bin", "wb") as file:
        for name, (fn, args) in EXPORTED.items():
            object_file, header = wichi.export(fn, *args, path=folder / name)
            objects.append(object_file)
            calls.append((header, call_in_c(name, header)))
            for x in wichi.pytree.leaves(args):
                file.write(np.ascontiguousarray(x).tobytes())
            rows[name] = [
                np.asarray(x) for x in wichi.pytree.leaves((fn if hasattr(fn, "graph") else wichi.jit(fn))(*args))
            ]
    includes = "\n".join(f'#include "{header.name}"' for header, _ in calls)
    body = "\n".join(text for _, text in calls)
    end = '    printf("%d calls of BLAS\\n", blas_calls);\n    fclose(in); fclose(out);\n    return 0;\n}\n'
    begin = 'int main(void) {\n    FILE *in = fopen("in.bin", "rb"), *out = fopen("out.bin", "wb");\n'
    text = f"{MAIN}\n{includes}\nextern int blas_calls;\n{begin}{body}\n{end}"
    return folder, text, [*objects, BLAS], rows


def check(folder: Path, printed: str, rows: dict) -> None:
    assert "BEYOND" not in printed
    assert [line.split() for line in printed.splitlines()[:-1]] == [[name, "0"] for name in rows]
    data = (folder / "out.bin").read_bytes()
    for name, results in rows.items():
        for want in results:
            found = np.frombuffer(data[: want.nbytes], want.dtype).reshape(want.shape)
            data = data[want.nbytes :]
            tolerance = 1e-12 if want.dtype == np.float64 else 1e-4
            np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance, err_msg=name)
    assert not data


@needs_compiler
def test_a_c_program_of_many_functions_that_write_their_results_and_nothing_else(exported):
    folder, text, files, rows = exported
    program = compiled(folder, text, files, "-DMARGIN=256")
    done = subprocess.run([program], cwd=folder, capture_output=True, text=True, check=True)
    check(folder, done.stdout, rows)
    assert int(re.search(r"(\d+) calls of BLAS", done.stdout)[1]) >= 10


@needs_compiler
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="install valgrind to run this")
def test_valgrind_sees_no_access_outside_a_buffer_and_no_leak(exported):
    folder, text, files, rows = exported
    program = compiled(folder, text, files, "-g")
    command = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=all", str(program)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    check(folder, done.stdout, rows)


THREADS = """
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "parallel.h"
static double given[4][800], value[4], slope[4][800];
static int wrong[4];
static void *run(void *number) {
    int t = *(int *)number;
    for (int round = 0; round < 200; round++) {
        double v, g[800];
        int status = parallel(given[t], &v, g);
        if (round == 0) { value[t] = v; memcpy(slope[t], g, sizeof g); }
        wrong[t] += status || v != value[t] || memcmp(g, slope[t], sizeof g);
    }
    return NULL;
}
int main(void) {
    pthread_t threads[4];
    int numbers[4] = {0, 1, 2, 3};
    for (int t = 0; t < 4; t++) for (int i = 0; i < 800; i++) given[t][i] = 0.001 * (i + 1) * (t + 1);
    for (int t = 0; t < 4; t++) if (pthread_create(&threads[t], NULL, run, &numbers[t])) return 1;
    for (int t = 0; t < 4; t++) pthread_join(threads[t], NULL);
    for (int t = 0; t < 4; t++) printf("%d %.17g %.17g\\n", wrong[t], value[t], slope[t][799]);
    return 0;
}
"""


@needs_compiler
def test_threads_of_a_c_program(tmp_path):
    def f(x):  # working memory on the heap, and a tape that grows
        x = wichi.while_loop(lambda v: v[0] < 1.0, lambda v: v * 1.5, x)
        return np.sum(np.cumsum(np.sin(x))[::-1] * np.cumsum(x))

    files = wichi.export(wichi.value_and_grad(f), np.zeros(800), path=tmp_path / "parallel")
    program = compiled(tmp_path, THREADS, [files[0]], "-pthread")
    found = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    for t in range(4):
        value, slope = wichi.value_and_grad(f)(0.001 * np.arange(1, 801) * (t + 1))
        assert found[3 * t] == "0"
        np.testing.assert_allclose([float(x) for x in found[3 * t + 1 : 3 * t + 3]], [value, slope[-1]], rtol=1e-12)


# --- status codes ----------------------------------------------------------------------------------------------------
def library(path: Path) -> ctypes.CDLL:
    """A shared library, linked with the plain BLAS."""
    return ctypes.CDLL(str(path.with_suffix(".so")))


def codes(header: Path) -> dict[int, str]:
    return {int(code): what for code, what in re.findall(r"^   (-?\d+): (.*)$", header.read_text(), re.MULTILINE)}


def pointer(x: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.ctypes.data)


@needs_compiler
def test_an_index_outside_is_a_status_and_writes_nothing_beyond(tmp_path):
    def pick(table, i):
        return np.take(table, i, axis=0) * 2.0

    _, header, _ = wichi.export(pick, normal(5, 3), np.arange(4), path=tmp_path / "pick", shared=True)
    found = codes(header)
    assert found[0] == "well"
    (status,) = [
        code for code, what in found.items() if re.match(r"an index is outside its axis \(.*test_export", what)
    ]
    table, run = normal(5, 3), library(tmp_path / "pick").pick
    for index, want in (
        ([0, 1, -5, 4], 0),
        ([0, 1, 5, 4], status),
        ([-6, 0, 0, 0], status),
        ([2**62, 0, 0, 0], status),
    ):
        around = np.full(16 + 12 + 16, 7.0)
        assert run(pointer(table), pointer(np.array(index)), ctypes.c_void_p(around[16:].ctypes.data)) == want
        assert (around[:16] == 7.0).all()
        assert (around[28:] == 7.0).all()
        if not want:
            np.testing.assert_array_equal(around[16:28].reshape(4, 3), 2 * table[index])


@needs_compiler
def test_each_failure_has_its_status(tmp_path, monkeypatch):
    def f(a, b):
        return np.linalg.solve(a, b), np.linalg.cholesky(b)

    flags = {"shared": True, "link": ["-fPIC", str(BLAS)]}
    _, header, _ = wichi.export(f, np.eye(4), np.eye(4), path=tmp_path / "factors", **flags)
    found = codes(header)
    (singular,) = [code for code, what in found.items() if what.startswith("a matrix is singular (solve, line")]
    (definite,) = [c for c, what in found.items() if what.startswith("a matrix is not positive definite (cholesky,")]
    run, outs = library(tmp_path / "factors").factors, [np.empty((4, 4)), np.empty((4, 4))]
    eye = np.eye(4)
    for a, b, want in ((2 * eye, eye, 0), (0 * eye, eye, singular), (eye, -eye, definite)):
        assert run(*map(pointer, (a, b, *outs))) == want
    monkeypatch.setattr(wichi.config, "tape_bytes", 1 << 14)
    slope = wichi.grad(lambda x: wichi.while_loop(lambda v: v < 100.0, lambda v: v * 1.0001, x))
    _, header, _ = wichi.export(slope, 1.0, path=tmp_path / "taped", shared=True)
    (full,) = [
        code for code, what in codes(header).items() if what.startswith("the way back through a loop needs more")
    ]
    out = np.empty(())
    run = library(tmp_path / "taped").taped
    assert run(pointer(np.array(1.0)), pointer(out)) == full
    assert run(pointer(np.array(99.9)), pointer(out)) == 0


@needs_compiler
@pytest.mark.skipif(platform.system() != "Linux", reason="needs Linux, where a process can limit its own memory")
def test_no_memory_is_a_status(tmp_path):
    files = wichi.export(
        lambda x: np.sum(np.cumsum(np.cumsum(x * 2.0)[::-1])), np.zeros(40_000_000), path=tmp_path / "greedy"
    )
    assert codes(files[1])[-2] == "no memory"
    text = """
        #include <stdio.h>
        #include <sys/resource.h>
        #include "greedy.h"
        int main(void) {
            struct rlimit limit = {1 << 28, 1 << 28};
            double out = 5.0;
            if (setrlimit(RLIMIT_AS, &limit)) return 1;
            printf("%d", greedy(&out, &out));  /* it looks at nothing before it has its memory */
            printf(" %g", out);
            return 0;
        }
    """
    program = compiled(tmp_path, text, [files[0]])
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "-2 5"


# --- libraries -------------------------------------------------------------------------------------------------------
@needs_compiler
def test_cffi_loads_a_library(tmp_path):
    cffi = pytest.importorskip("cffi", reason="needs cffi: pip install cffi")
    fn = wichi.value_and_grad(lambda p, x: np.mean((np.tanh(x @ p) - 0.5) ** 2))
    p, x = normal(5), normal(20, 5)
    _, header, path = wichi.export(fn, p, x, path=tmp_path / "loss", shared=True, link=["-fPIC", str(BLAS)])
    ffi = cffi.FFI()
    ffi.cdef(re.search(r"^int .*;$", header.read_text(), re.MULTILINE)[0])
    value, slope = np.empty(1), np.empty(5)
    buffers = [ffi.from_buffer("double[]", a) for a in (p, x, value, slope)]
    assert ffi.dlopen(str(path)).loss(*buffers) == 0
    want, of_p = fn(p, x)
    np.testing.assert_allclose(value[0], want, rtol=1e-13)
    np.testing.assert_allclose(slope, of_p, rtol=1e-13)


@needs_compiler
@pytest.mark.parametrize(
    ("blas", "names"),
    [("cblas", {"cblas_dgemm", "cblas_dgemv", "dgetrf_", "dgetrs_", "dpotrf_"}),
     ("fortran", {"dgemm_", "dgemv_", "dgetrf_", "dgetrs_", "dpotrf_"})],
)  # fmt: skip
def test_blas_is_open_by_name(tmp_path, blas, names):
    a, b, v = EXPORTED["algebra"][1]
    files = wichi.export(algebra, a, b, v, path=tmp_path / "product", blas=blas)
    symbols = subprocess.run(["nm", "-u", files[0]], capture_output=True, text=True, check=True).stdout
    found = set(re.findall(r"U (\w+)", symbols))
    assert names <= found
    assert found - names <= {"malloc", "free", "memcpy", "memset", "memmove"}
    (told,) = re.findall(r"Link with what defines (.*) \(32-bit integers\)", files[1].read_text())
    assert set(told.split(", ")) == names


@needs_compiler
@pytest.mark.parametrize("language", ["c", "c++"])
def test_headers_are_c_and_cpp(tmp_path, language):
    if language == "c++" and shutil.which("g++") is None:
        pytest.skip("install a C++ compiler to run this")

    def f(double, new, größe, out0):  # names that C, C++ or the results have taken
        return double * new + größe, out0

    files = wichi.export(f, 1.0, np.ones(2), 3.0, 4.0, path=tmp_path / "names")
    (tmp_path / "use.c").write_text('#include "names.h"\nint use(double *x) { return names(x, x, x, x, x, x); }\n')
    command = [COMPILER if language == "c" else "g++", "-x", language, "-pedantic", *WARNINGS, "-c", "use.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert "int names(const double *xdouble, const double *xnew," in files[1].read_text()
    for name in ("int", "größe", "not-a-name"):
        with pytest.raises(ArgumentError, match=f"{name!r} is no name for a C function"):
            wichi.export(f, 1.0, np.ones(2), 3.0, 4.0, path=tmp_path / name)


class TestBadInput:
    def test_arguments(self, tmp_path):
        with pytest.raises(ArgumentError, match=r"no blas='mkl'; there are cblas, fortran"):
            wichi.export(np.sum, np.ones(3), path=tmp_path / "f", blas="mkl")
        with pytest.raises(ArgumentError, match="calls a Python function"):
            wichi.export(wichi.jit(wichi.primitive(lambda x: x)), np.ones(3), path=tmp_path / "f")
        assert list(tmp_path.iterdir()) == []  # nothing half-made is left

    @needs_compiler
    def test_what_does_not_link(self, tmp_path):
        with pytest.raises(KernelError, match="no_such_library"):
            wichi.export(lambda x: x * 2.0, np.ones(3), path=tmp_path / "f", shared=True, link=["-lno_such_library"])

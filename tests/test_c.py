"""Compiled functions called from C: by address, through SciPy's callbacks, and as object code without Python."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import threading

import numpy as np
import pytest

import wichi
from wichi.errors import ArgumentError

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="install a C compiler to run this")


def test_quad_and_nquad():
    from scipy import integrate

    f = wichi.cfunc(lambda x: np.exp(-x) * np.sin(x), 0.0)
    assert f.signature == "double f(double);"
    assert np.isclose(integrate.quad(f.low_level_callable(), 0, np.inf)[0], 0.5)
    g = wichi.cfunc(lambda x: x[0] * np.exp(x[1]), np.ones(2), style="vector")
    assert np.isclose(integrate.nquad(g.low_level_callable(), [[0, 1], [0, 1]])[0], 0.5 * (np.e - 1))
    slope = wichi.cfunc(wichi.grad(lambda x: x**3), 0.0)
    assert np.isclose(integrate.quad(slope.low_level_callable(), 0, 2)[0], 8.0)


def test_generic_filter():
    from scipy import ndimage

    image = np.random.default_rng(0).normal(size=(20, 30))
    f = wichi.cfunc(lambda w: np.max(w) - np.mean(w), np.zeros(9), style="filter")
    found = ndimage.generic_filter(image, f.low_level_callable(), size=3)
    np.testing.assert_allclose(found, ndimage.generic_filter(image, lambda w: w.max() - w.mean(), size=3))


def test_pointers_from_threads():
    def f(w, x):
        return np.sum(np.tanh(x @ w) ** 2)

    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(30, 40)), rng.normal(size=(50, 30))
    compiled = wichi.cfunc(wichi.value_and_grad(f), w, x)
    assert compiled.signature == "int f(const double *in0, const double *in1, double *out0, double *out1);"
    value, g = wichi.value_and_grad(f)(w, x)
    wrong = []

    def run():
        for _ in range(20):
            v, out = np.empty(()), np.empty((30, 40))
            status = compiled.ctypes(w.ctypes.data, x.ctypes.data, v.ctypes.data, out.ctypes.data)
            if status or v != value or not np.array_equal(out, g):
                wrong.append(status)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_failures_are_status_codes():
    table = np.arange(4.0)
    f = wichi.cfunc(lambda i: wichi.numpy.take(table, i) * 2.0, 0)
    out, index = np.full((), -1.0), np.array(9)
    assert f.ctypes(index.ctypes.data, out.ctypes.data) == 1
    index[()] = 3
    assert f.ctypes(index.ctypes.data, out.ctypes.data) == 0
    assert out == 6.0
    g = wichi.cfunc(lambda x: np.sum(x), np.ones(3), style="vector")
    assert np.isnan(g.ctypes(2, (ctypes.c_double * 2)(1.0, 2.0)))


def test_arrays_that_a_function_holds():
    table = np.arange(6.0)
    f = wichi.cfunc(lambda x: np.sum(table * x), 1.0)
    assert f.ctypes(2.0) == 30.0
    table[0] = 100.0
    assert f.ctypes(2.0) == 230.0  # read anew
    wide = np.arange(12.0)[::2]
    with pytest.raises(ArgumentError, match=r"wichi.cfunc: an array .* is not contiguous"):
        wichi.cfunc(lambda x: np.sum(wide * x), 1.0)
    # Reached as an element of a list: a copy of its own, which must live on. (Entries of dicts are read anew too now.)
    frozen = [np.arange(2000.0)[::2]]
    g = wichi.cfunc(lambda x: np.sum(frozen[0] * x), 1.0)
    _ = [np.zeros(1000) for _ in range(50)]
    assert g.ctypes(1.0) == np.arange(2000.0)[::2].sum()


def test_parts_of_a_function_outlive_it():
    from scipy import integrate

    cube = wichi.cfunc(lambda x: x * x * x, 1.0).ctypes
    bell = wichi.cfunc(lambda x: np.exp(-x * x), 1.0).low_level_callable()
    for k in range(5):
        wichi.cfunc(lambda x: x + k, 1.0)
    gc.collect()
    _ = [bytearray(5000) for _ in range(2000)]
    assert cube(2.0) == 8.0
    assert integrate.quad(bell, -np.inf, np.inf)[0] ** 2 == pytest.approx(np.pi)


def test_styles_that_do_not_fit():
    with pytest.raises(ArgumentError, match="for float64 numbers"):
        wichi.cfunc(np.sum, np.ones(3), style="scalars")
    with pytest.raises(ArgumentError, match="one vector of float64"):
        wichi.cfunc(lambda x: x, np.ones(3), style="vector")
    with pytest.raises(ArgumentError, match="there is no style"):
        wichi.cfunc(lambda x: x, 1.0, style="fortran")


PROGRAM = """
#include <stdio.h>
#include "model.h"
int main(void) {
    double p[5] = {0.1, -0.2, 0.3, 0.7, -1.5}, value, slope[5];
    int status = model(p, &value, slope);
    printf("%d %.17g", status, value);
    for (int i = 0; i < 5; i++) printf(" %.17g", slope[i]);
    return 0;
}
"""


def model(p):
    data = np.linspace(0.0, 1.0, 40)
    p = wichi.while_loop(lambda q: np.sum(q**2) < 4.0, lambda q: q * 1.0001, p)  # asks no interpreter whether to go on
    last = wichi.scan(lambda c, x: (np.sin(c) * x + p[0], None), p[1], data)[0]
    return np.sum(np.exp(p) * np.arange(5.0)) * last


@needs_compiler
def test_a_c_program(tmp_path):
    files = wichi.export(wichi.value_and_grad(model), np.zeros(5), path=tmp_path / "model")
    assert [f.name for f in files] == ["model.o", "model.h"]
    (tmp_path / "main.c").write_text(PROGRAM)
    subprocess.run(
        ["cc", "-Wall", "-Werror", "-o", tmp_path / "main", tmp_path / "main.c", files[0], "-lm"], check=True
    )
    found = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.split()
    value, slope = wichi.value_and_grad(model)(np.array([0.1, -0.2, 0.3, 0.7, -1.5]))
    assert found[0] == "0"
    np.testing.assert_allclose(np.array(found[1:], float), [value, *slope], rtol=1e-14)


@needs_compiler
@pytest.mark.parametrize("native", [False, True])
def test_a_shared_library(tmp_path, native):
    files = wichi.export(lambda p: p * 2.0, np.zeros(40), path=tmp_path / "twice", shared=True, native=native)
    library = ctypes.CDLL(str(files[-1]))
    x, out = np.arange(40.0), np.empty(40)
    assert library.twice(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(out.ctypes.data)) == 0
    np.testing.assert_array_equal(out, 2 * x)
    with pytest.raises(ArgumentError, match="no name for a C function"):
        wichi.export(lambda p: p, 1.0, path=tmp_path / "not-a-name")

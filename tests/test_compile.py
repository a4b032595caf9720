"""What compiling costs, by counts that do not depend on the machine: statements, functions, programs, bytes."""

from __future__ import annotations

import gc
import re
import tracemalloc

import numpy as np
import pytest

import wichi
from wichi.kernels import memory, native, program
from wichi.kernels.loops import walk
from wichi.kernels.schedule import plan
from wichi.kernels.shared import Arena


def chain(length):
    def f(x):
        y = x
        for i in range(length):
            y = y * 1.000001 + x if i % 3 else np.maximum(y, x) - 0.5
        return np.sum(y)

    return f


def test_code_grows_as_the_graph_does():
    """Ten times the equations make ten times the statements and LLVM instructions, in functions of bounded size."""
    x, found = np.linspace(0, 1, 50), {}
    for length in (100, 1000):
        made = plan(wichi.value_and_grad(chain(length)).graph(x)).program
        statements = sum(1 for nest in made.nests for _ in walk(nest.body))
        _, text = native.llvm_ir(made)
        largest = max(len(body.splitlines()) for body in re.findall(r"^define .*?^}", text, re.MULTILINE | re.DOTALL))
        found[length] = statements, len(text.splitlines()), largest
    (few, short, _), (many, long, largest) = found.values()
    assert many <= 12 * few
    assert long <= 12 * short
    assert largest < 6000


def test_equal_lambdas_share_one_trace_and_one_program():
    x = np.linspace(0, 1, 30)

    def made():
        return wichi.value_and_grad(lambda x: np.sum(np.tanh(x) * np.sin(x)))

    made()(x)
    before = program.compile_count
    for _ in range(50):
        made()(x)
    gc.collect()
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        made()(x)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert program.compile_count == before
    assert grown < 200_000


def mlp(p, x):
    for w, b in p:
        x = np.tanh(x @ w + b)
    return np.mean(x**2)


def gaussian_mixture(p, x):
    scores = -0.5 * np.sum((x[:, None, :] - p[None]) ** 2, -1)
    return np.mean(np.log(np.sum(np.exp(scores), 1)))


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (mlp, ([(np.ones((64, 64)) / 64, np.ones(64))] * 4, np.ones((300, 64)))),
        (gaussian_mixture, (np.ones((5, 4)), np.ones((500, 4)))),
        (lambda x: np.sum(np.cumsum(np.sin(x))[::-1] * np.cos(x)), (np.ones(10_000),)),
        (lambda a: np.sum(np.linalg.solve(a @ a.T + 50 * np.eye(50), a)), (np.ones((50, 50)),)),
    ],
)
def test_working_memory_is_at_most_twice_what_lives_at_once(f, args, monkeypatch):
    peaks = []

    class Watched(Arena):
        def __init__(self, free=False):
            super().__init__(free)
            self.sizes, self.live = {}, 0
            peaks.append(0)
            self.number = len(peaks) - 1

        def take(self, size):
            offset = super().take(size)
            self.sizes[offset] = size
            self.live += size
            peaks[self.number] = max(peaks[self.number], self.live)
            return offset

        def give_back(self, offset):
            super().give_back(offset)
            self.live -= self.sizes.pop(offset)

    monkeypatch.setattr(memory, "Arena", Watched)
    found = plan(wichi.value_and_grad(f).graph(*args))
    assert found.arena_bytes <= 2 * max(peaks) + 4096

"""The benchmarks: their answers, at small sizes, and what their tables promise. Nothing is timed for its time."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import time

import numpy as np
import pytest

import wichi
from benchmarks import compare, limits, processes, reasons, run
from benchmarks.compare import LIMITS, OTHERS, PINNED, UNPINNED, Row, Unable, check, contest, leaves_of
from benchmarks.training import restarting
from benchmarks.workloads import SMALL, WORKLOADS
from wichi.trace.evaluate import evaluate


def _close(found, expected, single):
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=1e-4 if single else 1e-9, atol=1e-6 if single else 1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_by_hand_is_the_same_as_wichi(name):
    w = SMALL[name]()
    single = w.dtype == np.float32
    reference = check(name, "wichi", compare.by_wichi(w), None, single)
    _close(check(name, "by hand", limits.by_hand(w), reference, single), reference, single)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("mixture", reasons.BESIDE["Gaussian mixture"]["by hand, whole matrices"]),
        ("poisson", reasons.BESIDE["Poisson"]["by hand, dividing"]),
    ],
)
def test_by_hand_with_what_wichi_must_do_is_the_same(name, by_hand):
    w = SMALL[name]()
    reference = check(name, "wichi", compare.by_wichi(w), None, single=False)
    _close(check(name, "by hand", by_hand(w), reference, single=False), reference, single=False)


@pytest.mark.parametrize("name", [n for n in SMALL if n != "step"])
def test_wichi_is_the_same_as_its_graph_in_numpy(name):
    w = SMALL[name]()
    graph = wichi.value_and_grad(functools.partial(w.loss, np)).graph(*w.arguments)
    expected = [np.asarray(a) for a in evaluate(graph, *w.leaves, *w.arguments[1:])]
    _close(leaves_of(compare.by_wichi(w)()), expected, w.dtype == np.float32)


@pytest.mark.parametrize("name", SMALL)
def test_pytorch_is_the_same_as_wichi(name):
    pytest.importorskip("torch", reason="parity needs torch: pip install 'wichi[test]' has it")
    w = SMALL[name]()
    single = w.dtype == np.float32
    check(name, "PyTorch", compare.by_torch(w), check(name, "wichi", compare.by_wichi(w), None, single), single)


@pytest.mark.parametrize("contestant", ["JAX jit", "autograd"])
@pytest.mark.parametrize("name", SMALL)
def test_others_are_the_same_where_they_are_installed(name, contestant):
    module = contestant.split()[0].lower()
    pytest.importorskip(module, reason=f"{module} is the bench extra's: pip install 'wichi[bench]'")
    w = SMALL[name]()
    single = w.dtype == np.float32
    check(name, contestant, OTHERS[contestant](w), check(name, "wichi", compare.by_wichi(w), None, single), single)


def test_threads_give_the_same_and_leave_the_setting():
    w = SMALL["mixture"]()
    _close(leaves_of(compare.by_wichi_in_threads(w)()), leaves_of(compare.by_wichi(w)()), False)
    assert wichi.config.parallel == 0


def test_every_workload_has_a_limit_and_a_small_sister():
    families = {make().family for make in SMALL.values()}
    assert families == set(limits.BY_HAND)
    assert {make().family for make in WORKLOADS.values()} == families


def test_the_rows_are_those_promised():
    text = "\n".join(WORKLOADS)
    for promised in (
        "Rosenbrock n=10\n", "Rosenbrock n=1000", r"Rosenbrock n=10\^6", "60-op chain on 8", "two-moons MLP 2-16-16-1",
        "MNIST MLP batch 32", "MNIST MLP batch 512", "Adam step of MNIST MLP, batch 32", "Adam step of MNIST MLP, batch 512",
        r"logistic regression 10\^5 x 20", "Gaussian mixture 1000, 10, 25", r"Gaussian mixture 10\^4, 20, 50",
        "Poisson fit, 5 parameters", "cross entropy 1024 x 100\n", "cross entropy 1024 x 1000", r"5 operations on 10\^6, f64",
        r"25 operations on 10\^6, f64", r"5 operations on 10\^6, f32", r"25 operations on 10\^6, f32", "attention 8 x 128 x 64",
    ):  # fmt: skip
        assert re.search(promised, text), promised


def test_the_bytes_of_a_workload():
    w = SMALL["softmax"]()
    assert w.bytes == 3 * 9 * 13 * 8  # logits and labels read, the gradient written


def test_every_contestant_runs_or_says_why():
    some = {name: make for name, make in PINNED.items() if name != "torch.compile"}
    some["without"] = functools.partial(_raise, ModuleNotFoundError("No module", name="absent"))
    some["unable"] = functools.partial(_raise, Unable("over 60 s to compile"))
    for name in ("chain", "step"):
        runs, row = contest(name, SMALL[name](), some)
        assert set(runs) | set(row.missing) == set(some)
        assert {"wichi", "numba by hand"} <= set(runs)
        assert row.missing["without"] == "no absent"
        assert row.missing["unable"] == "over 60 s to compile"
        assert row.threads == len(os.sched_getaffinity(0))


def _raise(error, w):
    raise error


def test_a_wrong_answer_is_not_timed():
    def wrong(w):
        return lambda: (np.sum(w.arguments[0]), w.arguments[0])

    with pytest.raises(AssertionError, match="chain: wrong"):
        contest("chain", SMALL["chain"](), {"wichi": compare.by_wichi, "wrong": wrong})


def test_steps_begin_anew_after_a_hundred():
    seen = []
    step = restarting(lambda: 0, lambda state: (seen.append(state), state + 1), lambda state: [state])
    for _ in range(101):
        step()
    assert seen == [*range(100), 0]


@pytest.mark.parametrize(
    ("seconds", "limit"),
    [
        ({"numba by hand": 2.0, "BLAS": 1.0, "bytes": 0.5}, "numba by hand"),
        ({"numba by hand": 2.0, "BLAS": 3.0}, "numba by hand"),  # by hand has the products too: BLAS is refuted
        ({"BLAS": 1.0, "bytes": 1.5}, "bytes"),
        ({"wichi": 1.0}, None),
    ],
)
def test_the_tightest_limit(seconds, limit):
    assert compare.tightest(seconds) == limit


def test_a_line_has_a_cell_for_each_column():
    columns = ["wichi", *LIMITS, "JAX jit", "torch.compile"]
    seconds = {"wichi": 2e-6, "numba by hand": 1e-6, "JAX jit": 8e-6}
    row = Row("float32", 1, seconds, {"BLAS": "–", "torch.compile": "no torch"}, "numba by hand")
    assert compare.line("a row", row, columns) == (
        "| a row | float32 | 1 | 2 µs | 1 µs (**2.00**) | – | – | 8 µs (4.00) | no torch |"
    )
    assert {text.count("|") for text in compare.heading(columns).splitlines()} == {len(columns) + 4}
    said = compare.summary({"a row": row}, ["JAX jit", "torch.compile"])
    assert said.splitlines() == [
        "- JAX jit / wichi: geometric mean 4.00 of 1, smallest 4.00 (a row)",
        "- wichi / limit: geometric mean 2.00; above 1.15: a row 2.00",
    ]


def test_pytensor_comes_by_its_ratio(tmp_path):
    rows = {name: Row("float64", 1, {"wichi": 2.0}) for name in ("a", "b", "c")}
    (tmp_path / "pytensor.json").write_text(
        json.dumps({"rows": {"a": {"wichi": 1.0, "PyTensor": 3.0}, "b": {"missing": "why"}}})
    )
    compare.with_pytensor(rows, tmp_path / "pytensor.json")
    assert rows["a"].seconds["PyTensor"] == 6.0
    assert rows["b"].missing == {"PyTensor": "why"}
    assert rows["c"].missing == {"PyTensor": "not run"}


def test_pytensor_is_the_same_as_wichi():
    pytest.importorskip("pytensor", reason="make bench-pytensor has it, in an environment of its own")
    from benchmarks.pytensor_column import by_pytensor

    w = SMALL["mixture"]()
    check("mixture", "PyTensor", by_pytensor(w), check("mixture", "wichi", compare.by_wichi(w), None, False), False)


def test_a_run_writes_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        compare, "UNPINNED", {"wichi": compare.by_wichi, "none": functools.partial(_raise, Unable("x"))}
    )
    monkeypatch.setattr(compare, "WORKLOADS", {"small chain": SMALL["chain"]})
    compare.main(pinned=False, out=tmp_path, seconds=0.01)
    written = json.loads((tmp_path / "unpinned.json").read_text())
    row = written["rows"]["small chain"]
    assert row["dtype"] == "float64"
    assert row["missing"] == {"none": "x"}
    assert row["seconds"]["wichi"] > 0
    assert written["threads"] == row["threads"]
    assert f"| small chain | float64 | {row['threads']} |" in capsys.readouterr().out


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs it: pip install 'wichi[examples]' has it")
    rows = {
        "one": Row("float64", 1, {"wichi": 2.0, "BLAS": 1.0, "JAX jit": 3.0}, {}, "BLAS"),
        "without a limit": Row("float64", 1, {"wichi": 2.0}),
    }
    compare.plot(rows, [*OTHERS, "PyTensor"], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_compiling_for_too_long_is_given_up(monkeypatch):
    torch = pytest.importorskip("torch", reason="torch.compile needs torch: pip install 'wichi[test]' has it")
    monkeypatch.setattr(compare, "COMPILE_SECONDS", 1)
    monkeypatch.setattr(torch, "compile", lambda loss, **_: lambda *a: time.sleep(30))
    with pytest.raises(Unable, match="over 1 s"):
        compare.by_torch_compiled(SMALL["chain"]())
    monkeypatch.setattr(torch, "compile", lambda loss, **_: functools.partial(_raise, RuntimeError("no compiler")))
    with pytest.raises(Unable, match="fails: "):
        compare.by_torch_compiled(SMALL["chain"]())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the highest size is read from /proc: Linux has it")
def test_memory_of_a_gradient_is_its_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "contestants", lambda: ["wichi"])
    found = processes.memory(tmp_path)
    assert 8e6 * 0.9 < found["wichi"]["highest"] < 8e6 * 1.2
    assert "working memory 0.0 MB" in capsys.readouterr().out
    assert json.loads((tmp_path / "memory.json").read_text())["rows"] == found


def test_the_rows_of_run_are_those_in_its_text():
    assert {"import", "compile", "call", "warm", "njit", "start", "memory", "compare", "unpinned"} <= set(run.ROWS)
    for name in run.ROWS:
        assert re.search(rf"\b{name}\b", run.__doc__)
    assert set(UNPINNED) == {"wichi", "wichi in threads", "BLAS", "JAX jit", "PyTorch eager", "torch.compile"}

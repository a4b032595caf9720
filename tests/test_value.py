"""The scalar engine against PyTorch, on micrograd's own examples."""

from __future__ import annotations

import numpy as np
import pytest

from wichi import Value
from wichi.errors import ArgumentError

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'wichi[test]' has it")


def micrograd_sanity(x):
    z = 2 * x + 2 + x
    q = z.relu() + z * x
    h = (z * z).relu()
    return h + q + q * x


def micrograd_more(a, b):
    c = a + b
    d = a * b + b**3
    c = c + (c + 1)
    c = c + (1 + c + (-a))
    d = d + (d * 2 + (b + a).relu())
    d = d + (3 * d + (b - a).relu())
    e = c - d
    f = e**2
    g = f / 2.0
    return g + 10.0 / f


def test_micrograd_sanity_check():
    ours, theirs = Value(-4.0), torch.tensor(-4.0, dtype=torch.float64, requires_grad=True)
    y, expected = micrograd_sanity(ours), micrograd_sanity(theirs)
    y.backward()
    expected.backward()
    assert y.data == expected.item()
    assert ours.grad == theirs.grad.item()


def test_micrograd_more_operations():
    a, b = Value(-4.0), Value(2.0)
    ta, tb = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (-4.0, 2.0))
    y, expected = micrograd_more(a, b), micrograd_more(ta, tb)
    y.backward()
    expected.backward()
    assert y.data == pytest.approx(expected.item(), rel=1e-14)
    assert a.grad == pytest.approx(ta.grad.item(), rel=1e-14)
    assert b.grad == pytest.approx(tb.grad.item(), rel=1e-14)


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b, lambda a, b: a**2.5,
        lambda a, b: a.tanh() * b.exp(), lambda a, b: (a - b).relu(), lambda a, b: 2**a, lambda a, b: 1 / a - 3,
        lambda a, b: -a + 1 - b, lambda a, b: a**b, lambda a, b: a.sqrt() + b.log() + a.sin(),
    ],
)  # fmt: skip
def test_operations_as_in_torch(f):
    a, b = Value(0.7, label="a"), Value(1.9)
    ta, tb = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, 1.9))
    y, expected = f(a, b), f(ta, tb)
    y.backward()
    expected.backward()
    assert type(y) is Value
    assert y.data == pytest.approx(expected.item(), rel=1e-14)
    for ours, theirs in ((a, ta), (b, tb)):
        assert ours.grad == pytest.approx(0.0 if theirs.grad is None else theirs.grad.item(), rel=1e-13)


def test_floats_in_and_out():
    a = Value(2)
    assert (type(a.data), a.data, type(a.grad), a.grad) == (float, 2.0, float, 0.0)
    b = a * 3
    b.backward()
    assert (b.data, a.grad, b.grad) == (6.0, 3.0, 1.0)
    a.data -= 0.1 * a.grad
    assert a.data == pytest.approx(1.7)
    a.grad = 0
    assert a.grad == 0.0
    assert repr(Value(0.5, label="w")) == "Value(data=0.5, grad=0, label='w')"
    assert f"{Value(1 / 3):.3f}" == "0.333"


def test_a_neuron_learns():
    rng = np.random.default_rng(0)
    w = [Value(v) for v in rng.standard_normal(3)]
    xs = rng.standard_normal((20, 2))
    ys = np.sign(xs @ [1.0, -2.0])
    for _ in range(60):
        loss = Value(0.0)
        for x, y in zip(xs, ys, strict=True):
            loss = loss + ((w[0] * x[0] + w[1] * x[1] + w[2]).tanh() - y) ** 2
        for p in w:
            p.zero_grad()
        loss.backward()
        for p in w:
            p.data -= 0.05 * p.grad
    assert loss.data < 2


@pytest.mark.parametrize("data", ["2", None, [1.0], np.ones(1), 1j, Value(1.0)])
def test_only_single_numbers(data):
    with pytest.raises(ArgumentError, match="single number"):
        Value(data)

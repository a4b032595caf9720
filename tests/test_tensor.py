"""The eager Tensor: the founding README's examples, its known defects, parity with PyTorch, and changes in place."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

import wichi
import wichi.numpy as wnp
from wichi import Tensor
from wichi.errors import (
    ArgumentError,
    DtypeError,
    InPlaceError,
    NonScalarError,
    PlainArrayError,
    PlainFloatError,
    ShapeError,
)

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'wichi[test]' has it")
RNG = np.random.default_rng(0)


def readme_example():
    X = Tensor(RNG.standard_normal((32, 784)))
    Y = Tensor(RNG.standard_normal((32, 1)))
    W = Tensor(RNG.standard_normal((784, 1)))
    dot_product = X @ W
    Z = dot_product.relu()
    losses = Z - Y
    losses_sqr = losses**2
    L = losses_sqr.sum()
    return X, Y, W, dot_product, Z, losses, losses_sqr, L


def test_readme_graph_has_ten_tensors_and_six_ops():
    *named, L = readme_example()
    graph = L.graph()
    assert len(graph) == 10
    assert [t.op for t in graph if t.op] == ["@", "ReLU", "*", "+", "**2", ".sum(dim=all)"]
    assert {id(t) for t in named} < {id(t) for t in graph}
    (minus_one,) = [t for t in graph if t.label == "-1"]
    assert minus_one.data == -1
    assert minus_one.is_leaf


def test_readme_gradients_match_torch_for_every_tensor():
    X, Y, W, dot_product, Z, losses, losses_sqr, L = readme_example()
    L.backward()
    x, y, w = (torch.tensor(t.data, requires_grad=True) for t in (X, Y, W))
    d = x @ w
    z = d.relu()
    e = z - y
    q = e**2
    loss = q.sum()
    for t in (d, z, e, q, loss):
        t.retain_grad()
    loss.backward()
    pairs = zip((X, Y, W, dot_product, Z, losses, losses_sqr, L), (x, y, w, d, z, e, q, loss), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_walk_through_by_hand_gives_the_same_numbers():
    *_, L = tensors = readme_example()
    L.backward()
    expected = [t.grad.copy() for t in tensors]
    for t in L.graph():
        t.zero_grad()
    L.grad = 1
    for t in reversed(L.graph()):
        t._grad_fn()
    for t, grad in zip(tensors, expected, strict=True):
        np.testing.assert_array_equal(t.grad, grad)
    W = tensors[2]
    before = W.data.copy()
    W.data -= 0.1 * W.grad
    np.testing.assert_array_equal(W.data, before - 0.1 * W.grad)


def test_tensors_of_the_readme_train():
    X, Y = RNG.standard_normal((32, 8)), RNG.standard_normal((32, 1))
    W = Tensor(RNG.standard_normal((8, 1)))
    losses = []
    for _ in range(50):
        loss = ((Tensor(X) @ W - Tensor(Y)) ** 2).mean()
        W.zero_grad()
        loss.backward()
        W -= 0.1 * W.grad
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# --- the founding version's known defects ---------------------------------------------------------------------------
def test_sum_of_one_axis_backward():
    x = Tensor([1.0, 2.0, 3.0])
    x.sum().backward()
    np.testing.assert_array_equal(x.grad, np.ones(3))


def test_sum_along_dim():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    rows = x.sum(dim=1)
    assert rows.shape == (2,)
    assert rows.op == ".sum(dim=1)"
    (rows * np.array([1.0, 10.0])).sum().backward()
    np.testing.assert_array_equal(x.grad, [[1, 1, 1], [10, 10, 10]])
    assert x.sum(dim=0, keepdim=True).shape == x.sum(axis=0, keepdims=True).shape == (1, 3)


def test_broadcast_sums_the_gradient():
    a, b = Tensor(np.ones((3, 2))), Tensor(np.ones((1, 2)))
    (a + b).sum().backward()
    assert b.grad.shape == (1, 2)
    np.testing.assert_array_equal(b.grad, [[3, 3]])


def test_reshape_adds_to_the_gradient():
    x = Tensor(np.ones(4))
    (x.reshape(2, 2).sum() + x.sum()).backward()
    np.testing.assert_array_equal(x.grad, 2 * np.ones(4))


def test_chain_of_100_000_operations():
    x = Tensor(1.0)
    y = x
    for _ in range(50_000):
        y = y * 1.0 + 0.0
    y.backward()
    assert x.grad == 1
    del y  # freeing must not recurse either
    gc.collect()


def test_large_arguments_do_not_overflow():
    x = Tensor(np.array([400.0, -400.0]))
    y = x.tanh()
    y.sum().backward()
    np.testing.assert_array_equal(y.data, [1, -1])
    np.testing.assert_array_equal(x.grad, [0, 0])


def test_order_does_not_vary_by_run():
    code = (
        "from wichi import Tensor\na, b = Tensor(1.0, 'a'), Tensor(2.0, 'b')\n"
        "print([t.label + t.op for t in ((a + b) * a - b.tanh()).graph()])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_dtype_is_kept(dtype):
    x = Tensor(np.ones(3, dtype))
    y = ((2.0 * x - 1) / 3 + 1).mean()
    y.backward()
    assert x.dtype == y.dtype == x.grad.dtype == dtype


# --- gradients as in torch ------------------------------------------------------------------------------------------
A, B = RNG.standard_normal((3, 4)), RNG.standard_normal((4,))
SAME = {
    "add": lambda a, b: a + b, "radd": lambda a, b: 2 + a + b, "sub": lambda a, b: a - b, "rsub": lambda a, b: 1 - a,
    "mul": lambda a, b: a * b, "div": lambda a, b: a / (b * b + 1), "rdiv": lambda a, b: 1 / (a * a + 1),
    "pow": lambda a, b: (a * a + 1) ** 1.5, "neg": lambda a, b: -a, "matmul": lambda a, b: a @ b,
    "relu": lambda a, b: a.relu(), "tanh": lambda a, b: a.tanh(), "sigmoid": lambda a, b: a.sigmoid(),
    "exp": lambda a, b: a.exp(), "log": lambda a, b: (a * a + 1).log(), "sqrt": lambda a, b: (a * a + 1).sqrt(),
    "abs": lambda a, b: a.abs(), "sin": lambda a, b: a.sin() + b.cos(), "reshape": lambda a, b: a.reshape(2, 6) * 2,
    "view": lambda a, b: a.view(4, 3).exp(), "transpose": lambda a, b: a.transpose(0, 1).exp(), "T": lambda a, b: a.T @ a,
    "permute": lambda a, b: a.permute(1, 0).tanh(), "index": lambda a, b: a[1:, ::2] * a[0, 1], "row": lambda a, b: a[1].exp(),
    "gather": lambda a, b: a[[0, 2, 0]] ** 2, "sum": lambda a, b: a.sum(dim=1), "sumall": lambda a, b: a.sum() * a,
    "mean": lambda a, b: a.mean(dim=0, keepdim=True) * a, "unsqueeze": lambda a, b: a.unsqueeze(1).exp() * b,
    "squeeze": lambda a, b: a.unsqueeze(0).squeeze(0).exp(), "pow_int": lambda a, b: a**3, "max": lambda a, b: a.max() * b,
    "prod": lambda a, b: a.prod(dim=1), "same twice": lambda a, b: a * a + a, "logsumexp": lambda a, b: a.logsumexp(dim=1),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_gradient_as_in_torch(name):
    f = SAME[name]
    a, b = Tensor(A), Tensor(B)
    ta, tb = torch.tensor(A, requires_grad=True), torch.tensor(B, requires_grad=True)
    ours, theirs = f(a, b), f(ta, tb)
    np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-12)
    weights = np.cos(np.arange(ours.data.size)).reshape(ours.shape)
    (ours * weights).sum().backward()
    (theirs * torch.tensor(weights)).sum().backward()
    for t, other in ((a, ta), (b, tb)):
        expected = np.zeros(t.shape) if other.grad is None else other.grad.numpy()
        np.testing.assert_allclose(t.grad, expected, rtol=1e-11, atol=1e-13)


NUMPY = {
    "np.sin": lambda a: np.sin(a), "np.sum": lambda a: np.sum(a, axis=0), "np.where": lambda a: np.where(a > 0, a, 2 * a),
    "np.concatenate": lambda a: np.concatenate([a, 2 * a]), "np.stack": lambda a: np.stack([a[0], a[1]]),
    "np.maximum": lambda a: np.maximum(a, 0.1), "wnp.matmul": lambda a: wnp.matmul(a, a.T), "ndarray @": lambda a: A.T @ a,
    "ndarray -": lambda a: A - a, "np.einsum": lambda a: np.einsum("ij,kj->ik", a, a), "np.split": lambda a: np.split(a, 2, 1)[1],
    "wnp.array": lambda a: wnp.array([a[0, 0], 2.0, a[1, 1]]), "np.linalg.norm": lambda a: np.linalg.norm(a),
    "a.clip": lambda a: a.clip(-0.5, 0.5), "a.cumsum": lambda a: a.cumsum(), "a.var": lambda a: a.var(axis=0),
    "wnp.softplus": lambda a: wnp.softplus(a), "wnp.erf": lambda a: wnp.erf(a), "a.ravel": lambda a: a.ravel(),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMPY)
def test_numpy_functions_record_one_step_and_match_the_compiled_gradient(name):
    f = NUMPY[name]
    x = Tensor(A)
    y = f(x)
    assert isinstance(y, Tensor)
    weights = np.cos(np.arange(y.data.size)).reshape(y.shape)
    (y * weights).sum().backward()
    np.testing.assert_allclose(x.grad, wichi.grad(lambda x: wnp.sum(f(x) * weights))(A), rtol=1e-12, atol=1e-14)


def test_composite_function_is_one_node():
    x = Tensor(A)
    for y in (x.mean(dim=0), np.linalg.norm(x), wnp.logsumexp(x, 1), x[1:, [0, 1]], x.clip(0, 1)):
        assert y.operands == (x,)


# --- grad, labels, printing -----------------------------------------------------------------------------------------
def test_grad_is_zero_before_and_adds_up():
    x = Tensor([1.0, 2.0], label="x")
    np.testing.assert_array_equal(x.grad, [0, 0])
    loss = (x**2).sum()
    loss.backward()
    loss.backward()
    np.testing.assert_array_equal(x.grad, [4, 8])
    assert loss.grad == 2
    x.zero_grad()
    np.testing.assert_array_equal(x.grad, [0, 0])


def test_gradients_do_not_share_memory():
    a, b = Tensor([1.0]), Tensor([2.0])
    (a + b).sum().backward()
    a.grad *= 0
    assert b.grad == 1


def test_backward_with_weights_as_in_torch():
    x = Tensor([1.0, 2.0])
    (x**2).backward([1.0, 10.0])
    np.testing.assert_array_equal(x.grad, [2, 40])
    with pytest.raises(ShapeError, match="backward"):
        (x**2).backward([1.0, 2.0, 3.0])
    with pytest.raises(NonScalarError, match=r"(?s)W203.*sum\(\)\.backward"):
        (x**2).backward()


def test_printing_is_short_for_scalars():
    loss = Tensor([3.0, 4.0]).sum()
    assert f"loss: {loss}" == "loss: Tensor(7)"
    assert f"{loss:.2f}" == "7.00"
    loss.label = "loss"
    assert str(loss) == "Tensor(7, label='loss')"
    assert repr(Tensor([1.0, 2.5])) == "Tensor([1. , 2.5])"
    assert repr(Tensor([1, 2])) == "Tensor([1, 2], dtype=int64)"


def test_plain_values():
    x = Tensor([[1.0, 2.0]])
    assert (x.numel(), x.dim(), x.tolist(), x.sum().item()) == (2, 2, [[1.0, 2.0]], 3.0)
    assert float(x.sum()) == 3.0
    assert bool(x.sum() > 2)
    assert len(x) == 1
    np.testing.assert_array_equal(np.asarray(x), x.data)
    assert x.numpy() is x.data
    assert int(Tensor(3)) == 3
    assert [10, 20][Tensor(1)] == 20


def test_detach_stops_the_gradient():
    x = Tensor(3.0)
    (x * x.detach()).backward()
    assert x.grad == 3


def test_comparison_and_integers_have_no_gradient():
    x = Tensor([1.0, -2.0])
    assert (x > 0).dtype == bool
    np.testing.assert_array_equal((x == 1).data, [True, False])
    with pytest.raises(DtypeError, match=r"(?s)W204.*Tensor\(2\.0\)"):
        _ = Tensor([1, 2]).grad
    with pytest.raises(DtypeError, match="backward"):
        Tensor([1, 2]).sum().backward()


def test_leaf_copies_its_data():
    array = np.ones(2)
    x = Tensor(array)
    x += 1
    np.testing.assert_array_equal(array, 1)
    loss = (x * array).sum()
    array[:] = 7  # neither can an operand change under backward
    loss.backward()
    np.testing.assert_array_equal(x.grad, [1, 1])


def test_pickle_and_copy():
    x = Tensor([1.0, 2.0], label="x")
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        np.testing.assert_array_equal(y.data, x.data)
        assert y.label == "x"
    with pytest.raises(InPlaceError, match="detach"):
        pickle.dumps(x * 2)


def test_tensor_given_to_a_transform_is_read_by_its_data():
    x = Tensor([1.0, 2.0])
    gradient = wichi.grad(lambda v: np.sum(v**2))(x)
    assert type(gradient) is np.ndarray
    np.testing.assert_array_equal(gradient, [2, 4])


# --- in place -------------------------------------------------------------------------------------------------------
def test_leaves_change_in_place_unrecorded():
    p = Tensor([1.0, 2.0])
    memory = p.data
    q = p
    p -= 0.5
    p *= 2
    p /= 4
    p += np.array([1.0, 1.0])
    assert q is p
    assert p.data is memory
    assert p.is_leaf
    np.testing.assert_array_equal(p.data, [1.25, 1.75])
    p[0] = 9
    assert p.data[0] == 9


def test_computed_tensors_are_not_changed_in_place():
    x = Tensor([1.0, 2.0])
    h = x * 2
    old = h
    h += 1
    np.testing.assert_array_equal(old.data, [2, 4])
    h.sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 2])


def test_change_that_backward_needs_is_refused_and_names_both_lines():
    w = Tensor([1.0, 2.0], label="w")
    loss = (w**2).sum()
    w -= 0.5
    with pytest.raises(InPlaceError) as caught:
        loss.backward()
    text = str(caught.value)
    assert "W301" in text
    assert "w -= 0.5" in text
    assert "loss = (w**2).sum()" in text
    assert loss.grad == 0  # nothing was changed


def test_data_set_anew_is_noticed():
    w = Tensor([1.0, 2.0])
    loss = w.exp().sum() + (w * w).sum()
    w.data = w.data * 3
    with pytest.raises(InPlaceError):
        loss.backward()


def test_change_that_backward_does_not_need_is_fine():
    w = Tensor([1.0, 2.0])
    loss = (w + 1).sum()
    w -= 0.5
    loss.backward()
    np.testing.assert_array_equal(w.grad, [1, 1])


def test_views_share_changes():
    w = Tensor(np.ones(4))
    rows = w.reshape(2, 2)
    loss = (rows**2).sum()
    w -= 1
    with pytest.raises(InPlaceError):
        loss.backward()


def test_leaf_changed_by_a_tensor_is_refused():
    total = Tensor(0.0)
    with pytest.raises(InPlaceError, match=r"(?s)total \+= .*fix: total = total \+"):
        total += Tensor(1.0) * 2
    with pytest.raises(InPlaceError, match="be set on a leaf"):
        (total * 2)[()] = 1.0


# --- bad input ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("data", [1j, np.array([1j]), "text", ["a"], object(), [None], np.ones(2, np.float16)])
def test_unsupported_dtypes(data):
    with pytest.raises(DtypeError, match="W204"):
        Tensor(data)


def test_history_cannot_get_lost_unnoticed():
    x = Tensor(1.0)
    with pytest.raises(ArgumentError, match="detach"):
        Tensor(x)
    with pytest.raises(PlainArrayError, match=r"np\.stack"):
        Tensor([x, x * 2])
    with pytest.raises(PlainFloatError, match=r"np\.exp"):
        math.exp(x)


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"(?s)W205.*\(2,\) and \(3,\)"):
        Tensor(np.ones(2)) + Tensor(np.ones(3))
    with pytest.raises(ShapeError, match="W205"):
        Tensor(np.ones((2, 3))) @ Tensor(np.ones((2, 3)))
    with pytest.raises(ShapeError, match="W205"):
        Tensor(np.ones(4)).reshape(3)
    with pytest.raises(ShapeError, match="no array"):
        Tensor([[1.0], [1.0, 2.0]])
    x = Tensor(np.ones(2))
    with pytest.raises(ShapeError, match="gradient"):
        x.grad = np.ones(3)


def test_empty_and_nan_flow_as_in_numpy():
    x = Tensor(np.ones((0, 3)))
    x.sum().backward()
    assert x.grad.shape == (0, 3)
    y = Tensor([np.nan, np.inf])
    (y * 2).sum().backward()
    np.testing.assert_array_equal(y.grad, [2, 2])

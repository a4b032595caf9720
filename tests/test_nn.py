"""Models as trees: the founding README's eager use, the functional use, losses and initialisers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.special

import wichi
from wichi import MLP, DataModule, Tensor, nn, pytree
from wichi.errors import ArgumentError, ShapeError
from wichi.nn import Layer, MeanSquaredError, Neuron

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'wichi[test]' has it")
RNG = np.random.default_rng(0)


def test_founding_readme_training_loop():
    mlp = MLP(dim=[64, 80, 20, 10], seed=0)
    criterion, data = MeanSquaredError(), DataModule("digits", batch_size=32, seed=0)
    losses = []
    for x, y in data.next_training_batch():
        loss = criterion(y, mlp(x))
        mlp.zero_grad()
        loss.backward()
        for p in mlp.parameters():
            p -= 0.05 * p.grad
        losses.append(loss.item())
    assert f"loss: {loss}".startswith("loss: Tensor(0.")
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_shapes_of_neuron_layer_and_mlp():
    x = Tensor(RNG.standard_normal((5, 3)))
    assert Neuron(3)(x).shape == (5, 1)
    assert Layer(3, 4)(x).shape == (5, 4)
    mlp = MLP(dim=[3, 8, 2])
    assert mlp(x).shape == (5, 2)
    assert mlp(x.data[0]).shape == (2,)
    assert [p.shape for p in mlp.parameters()] == [(8,), (3, 8), (2,), (8, 2)] or [
        p.shape for p in mlp.parameters()
    ] == [(3, 8), (8,), (8, 2), (2,)]


def test_parameters_share_the_memory_of_the_model():
    mlp = MLP(dim=[3, 2], seed=0)
    before = mlp.layers[0].w.copy()
    w = next(p for p in mlp.parameters() if p.shape == (3, 2))
    w -= 1.0
    np.testing.assert_array_equal(mlp.layers[0].w, before - 1)
    assert w.label == "layers[0].w"
    assert all(a is b for a, b in zip(mlp.parameters(), mlp.parameters(), strict=True))


def test_both_halves_give_the_same_gradient():
    mlp = MLP(dim=[6, 5, 3], activation="tanh", seed=1)
    x, y = RNG.standard_normal((7, 6)), RNG.standard_normal((7, 3))

    def loss(mlp, x, y):
        return nn.mean_squared_error(y, mlp(x))

    gradient = wichi.grad(loss)(mlp, x, y)
    assert type(gradient) is MLP
    value = loss(mlp, Tensor(x), Tensor(y))
    value.backward()
    assert value.item() == pytest.approx(wichi.jit(loss)(mlp, x, y), rel=1e-14)
    for p, g in zip(mlp.parameters(), pytree.leaves(gradient), strict=True):
        np.testing.assert_allclose(p.grad, g, rtol=1e-12, atol=1e-15)


def test_gradient_tree_reads_like_the_model():
    mlp = MLP(dim=[3, 2], seed=0)
    g = wichi.grad(lambda m: np.sum(m.layers[0].w ** 2) + np.sum(m.layers[0].b))(mlp)
    np.testing.assert_allclose(g.layers[0].w, 2 * mlp.layers[0].w)
    np.testing.assert_array_equal(g.layers[0].b, np.ones(2))


def test_seed_makes_weights_reproducible():
    a, b, c = MLP([3, 4, 2], seed=5), MLP([3, 4, 2], seed=5), MLP([3, 4, 2], seed=6)
    assert all(np.array_equal(x, y) for x, y in zip(pytree.leaves(a), pytree.leaves(b), strict=True))
    assert not np.array_equal(a.layers[0].w, c.layers[0].w)


def test_float32_stays_float32():
    mlp = MLP([3, 4, 2], seed=0, dtype=np.float32)
    x = RNG.standard_normal((5, 3)).astype(np.float32)
    g = wichi.grad(lambda m: np.mean(m(x) ** 2))(mlp)
    assert {leaf.dtype for leaf in pytree.leaves(g)} == {np.dtype(np.float32)}


def test_modules_pickle_without_their_tensors():
    mlp = MLP([3, 2], seed=0)
    mlp.parameters()
    again = pickle.loads(pickle.dumps(mlp))
    np.testing.assert_array_equal(again.layers[0].w, mlp.layers[0].w)
    assert "_lifted" not in again.__dict__
    assert "Layer(3, 2, 'linear')" in repr(again)


def test_own_module():
    class Scale(nn.Module):
        children = ("factor",)

        def __init__(self):
            self.factor = np.array(2.0)

        def forward(self, x):
            return self.factor * x

    scale = Scale()
    g = wichi.grad(lambda s, x: np.sum(s(x)))(scale, np.ones(3))
    assert isinstance(g, Scale)
    assert g.factor == 3
    scale(Tensor(np.ones(3))).sum().backward()
    assert scale.parameters()[0].grad == 3


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: MLP(dim=[3]), ArgumentError),
        (lambda: Layer(0, 3), ArgumentError),
        (lambda: Layer(2, 3, "swish"), ArgumentError),
        (lambda: Layer(3, 2)(np.ones((5, 4))), ShapeError),
        (lambda: Layer(3, 2)(Tensor(np.ones((5, 4)))), ShapeError),
        (lambda: nn.mean_squared_error(np.ones(3), np.ones((3, 1))), ShapeError),
        (lambda: nn.cross_entropy(np.array([0, 1]), np.ones((3, 2))), ShapeError),
    ],
)
def test_bad_input(make, error):
    with pytest.raises(error):
        make()


# --- losses against torch -------------------------------------------------------------------------------------------
LOGITS = RNG.standard_normal((6, 4)) * 3
LABELS = np.array([0, 3, 1, 2, 2, 0])
ONE_HOT = np.eye(4)[LABELS]
BITS = RNG.integers(0, 2, (6, 4)).astype(float)
F = torch.nn.functional
LOSSES = {
    "mean_squared_error": (nn.mean_squared_error, ONE_HOT, lambda z: F.mse_loss(z, torch.tensor(ONE_HOT))),
    "cross_entropy": (nn.cross_entropy, ONE_HOT, lambda z: F.cross_entropy(z, torch.tensor(ONE_HOT))),
    "cross_entropy of labels": (nn.cross_entropy, LABELS, lambda z: F.cross_entropy(z, torch.tensor(LABELS))),
    "binary_cross_entropy": (
        nn.binary_cross_entropy, BITS, lambda z: F.binary_cross_entropy_with_logits(z, torch.tensor(BITS)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_losses_as_in_torch(name, scale):
    ours, target, theirs = LOSSES[name]
    z = torch.tensor(LOGITS * scale, requires_grad=True)
    expected = theirs(z)
    expected.backward()
    value, gradient = wichi.value_and_grad(ours, argnums=1)(target, LOGITS * scale)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-11, atol=1e-15)
    t = Tensor(LOGITS * scale)
    ours(target, t).backward()
    np.testing.assert_allclose(t.grad, z.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_losses_as_classes():
    assert MeanSquaredError()(np.zeros(2), np.array([1.0, 3.0])) == 5
    assert nn.CrossEntropy()(LABELS, LOGITS) == nn.cross_entropy(LABELS, LOGITS)
    assert nn.BinaryCrossEntropy()(BITS, LOGITS) == nn.binary_cross_entropy(BITS, LOGITS)


def test_accuracy_of_labels_and_one_hot():
    best = LOGITS.argmax(1)
    assert nn.accuracy(best, LOGITS) == 1
    assert nn.accuracy(np.eye(4)[(best + 1) % 4], LOGITS) == 0


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", lambda x: np.maximum(x, 0)),
        ("tanh", np.tanh),
        ("sigmoid", scipy.special.expit),
        ("softplus", lambda x: np.logaddexp(x, 0)),
        ("linear", lambda x: x),
    ],
)
def test_activations(name, function):
    x = np.linspace(-4, 4, 9)
    np.testing.assert_allclose(nn.activation(name)(x), function(x), rtol=1e-14)


@pytest.mark.parametrize(
    ("init", "variance"),
    [(nn.he_normal, 2 / 400), (nn.glorot_uniform, 2 / 700), (nn.lecun_normal, 1 / 400), (nn.zeros, 0.0)],
)
def test_initialisers_have_their_variance(init, variance):
    w = init(np.random.default_rng(0), 400, 300, float)
    assert w.shape == (400, 300)
    assert w.var() == pytest.approx(variance, rel=0.03)
    assert abs(w.mean()) < 1e-3

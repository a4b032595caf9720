"""wichi, eager and compiled, and PyTorch train one network side by side: losses and weights equal to 1e-9."""

import itertools
import os

import numpy as np
import torch

import wichi
from wichi import nn, pytree

STEPS, RATE, TOLERANCE = 200, 0.05, 1e-9


def loss(mlp, x, y):
    return nn.mean_squared_error(y, mlp(x))


def torch_model(mlp):
    layers = []
    for layer in mlp.layers:
        linear = torch.nn.Linear(*layer.w.shape, dtype=torch.float64)
        linear.weight.data = torch.tensor(layer.w.T.copy())
        linear.bias.data = torch.tensor(layer.b.copy())
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def torch_weights(model):
    linears = [m for m in model if isinstance(m, torch.nn.Linear)]
    return [w.detach().numpy().T for m in linears for w in (m.weight, m.bias)]


def distance(a, b):
    a, b = (np.concatenate([np.ravel(x) for x in values]) for values in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def compare(source, dims):
    data = wichi.DataModule(source, batch_size=32, seed=0)
    compiled, eager = wichi.MLP(dim=dims, seed=0), wichi.MLP(dim=dims, seed=0)
    model = torch_model(compiled)
    step = wichi.jit(lambda p, g: pytree.tree_map(lambda a, b: a - RATE * b, p, g))
    gradient = wichi.value_and_grad(loss)
    batches = (batch for _ in itertools.count() for batch in data.next_training_batch(arrays=True))
    losses = []
    for x, y in itertools.islice(batches, STEPS):
        value, g = gradient(compiled, x, y)
        compiled = step(compiled, g)

        eager_loss = loss(eager, wichi.Tensor(x), wichi.Tensor(y))
        eager.zero_grad()
        eager_loss.backward()
        for p in eager.parameters():
            p -= RATE * p.grad

        torch_loss = torch.nn.functional.mse_loss(model(torch.tensor(x)), torch.tensor(y))
        gradients = torch.autograd.grad(torch_loss, model.parameters())
        for p, g in zip(model.parameters(), gradients, strict=True):
            p.data -= RATE * g
        losses.append((value, eager_loss.item(), torch_loss.item()))

    theirs = torch_weights(model)
    a, b, c = np.array(losses).T
    errors = {
        "compiled losses": distance([a], [c]), "eager losses": distance([b], [c]),
        "compiled weights": distance(pytree.leaves(compiled), theirs),
        "eager weights": distance([p.data for p in eager.parameters()], theirs),
    }  # fmt: skip
    print(f"{source}: " + ", ".join(f"{k} {v:.1e}" for k, v in errors.items()))
    assert max(errors.values()) < TOLERANCE


if __name__ == "__main__":
    compare("digits", [64, 40, 20, 10])
    if os.environ.get("WICHI_DATA"):
        compare("mnist", [784, 200, 80, 40, 10])

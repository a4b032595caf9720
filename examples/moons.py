"""Two interleaved half moons told apart by a small network; momentum in plain sight."""

import numpy as np

import wichi
from wichi import nn, optim


def moons(rng, count):
    angle = rng.uniform(0, np.pi, count)
    upper = rng.integers(0, 2, count).astype(float)
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([x, y], 1) + rng.normal(0, 0.1, (count, 2)), upper[:, None]


def loss(mlp, x, y):
    return nn.binary_cross_entropy(y, mlp(x))


optimizer = optim.momentum(0.1)


@wichi.jit
def train_step(mlp, state, x, y):
    value, gradient = wichi.value_and_grad(loss)(mlp, x, y)
    return *optimizer.update(gradient, state, mlp), value


rng = np.random.default_rng(0)
x, y = moons(rng, 500)
mlp = wichi.MLP(dim=[2, 16, 16, 1], activation="tanh", seed=0)
state = optimizer.init(mlp)
for _ in range(1500):
    mlp, state, value = train_step(mlp, state, x, y)

x, y = moons(rng, 1000)
accuracy = np.mean((mlp(x) > 0) == y)
print(f"loss {value:.4f}, accuracy on new points {accuracy:.1%}")
assert accuracy > 0.98

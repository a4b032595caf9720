"""The eager half: a Tensor remembers how it was made, and `backward()` walks that history."""

import numpy as np

from wichi import Tensor

rng = np.random.default_rng(0)
X = Tensor(rng.standard_normal((32, 784)), label="X")
Y = Tensor(rng.standard_normal((32, 1)), label="Y")
W = Tensor(rng.standard_normal((784, 1)) * 0.01, label="W")

losses = []
for _ in range(100):
    L = (((X @ W).relu() - Y) ** 2).mean()
    W.zero_grad()
    L.backward()
    W -= 0.01 * W.grad  # a leaf changes in place and is not recorded
    losses.append(L.item())

print(f"loss: {losses[0]:.4f} -> {losses[-1]:.4f}; now {L}")
assert losses[-1] < 0.8 * losses[0]

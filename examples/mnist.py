"""The founding network, 784-200-80-40-10, on MNIST; at least 97.5 % of the 10,000 test images right.

MNIST is looked for in $WICHI_DATA, then in wichi's cache, then downloaded.
"""

import numpy as np
from tqdm import trange

import wichi
from wichi import nn, optim

EPOCHS, BATCH = 12, 128


def loss(mlp, x, y):
    return nn.cross_entropy(y, mlp(x))


adam = optim.adam(lambda count: 1e-3 * 0.9995 ** (count * 0.5))


@wichi.jit
def train_step(mlp, state, x, y):
    value, gradient = wichi.value_and_grad(loss)(mlp, x, y)
    mlp, state = adam.update(gradient, state, mlp)
    return mlp, state, value


def main():
    data = wichi.DataModule("mnist", batch_size=BATCH, seed=0)
    mlp = wichi.MLP(dim=[784, 200, 80, 40, 10], seed=0, dtype=np.float32)
    state = adam.init(mlp)
    progress = trange(EPOCHS, desc="mnist", unit="epoch")
    for _ in progress:
        for x, y in data.next_training_batch(arrays=True):
            mlp, state, value = train_step(mlp, state, x.astype(np.float32), y.astype(np.float32))
        x, y = data.validation(arrays=True)
        progress.set_postfix(loss=f"{value:.4f}", validation=f"{nn.accuracy(y, mlp(x.astype(np.float32))):.2%}")
    x, y = data.test(arrays=True)
    accuracy = nn.accuracy(y, mlp(x.astype(np.float32)))
    print(f"test accuracy: {accuracy:.2%}")
    assert accuracy >= 0.975


if __name__ == "__main__":
    main()

"""Learn handwritten digits: an MLP, its gradient traced and compiled by wichi, trained in one native step a batch."""

from pathlib import Path

import matplotlib
import numpy as np
from tqdm import trange

import wichi
from wichi import nn, optim

matplotlib.use("Agg")
import matplotlib.pyplot as plt

EPOCHS = 30
OUT = Path("out")


def loss(mlp, x, y):
    return nn.cross_entropy(y, mlp(x))


adam = optim.adam(2e-3)


@wichi.jit
def train_step(mlp, state, x, y):
    value, gradient = wichi.value_and_grad(loss)(mlp, x, y)
    mlp, state = adam.update(gradient, state, mlp)
    return mlp, state, value


def main():
    OUT.mkdir(exist_ok=True)
    data = wichi.DataModule("digits", batch_size=32, seed=0)
    mlp = wichi.MLP(dim=[64, 128, 64, 10], seed=0)
    state = adam.init(mlp)
    losses, accuracies = [], []
    progress = trange(EPOCHS, desc="digits", unit="epoch")
    for _ in progress:
        for x, y in data.next_training_batch(arrays=True):
            mlp, state, value = train_step(mlp, state, x, y)
            losses.append(value)
        x, y = data.validation(arrays=True)
        accuracies.append(nn.accuracy(y, mlp(x)))
        progress.set_postfix(loss=f"{losses[-1]:.4f}", validation=f"{accuracies[-1]:.1%}")

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.semilogy(losses, linewidth=0.7)
    left.set(title="training loss", xlabel="step", ylabel="cross entropy")
    right.plot(np.arange(1, EPOCHS + 1), accuracies)
    right.set(title="validation accuracy", xlabel="epoch", ylim=(0.8, 1))
    figure.savefig(OUT / "digits.png", dpi=120)

    graph = wichi.value_and_grad(loss).graph(mlp, *next(iter(data.next_training_batch(arrays=True))))
    try:
        print("the traced graph:", graph.draw(str(OUT / "digits.svg")))
    except wichi.errors.DrawError as missing:
        (OUT / "digits.dot").write_text(graph.dot())
        print(missing)

    x, y = data.test(arrays=True)
    accuracy = nn.accuracy(y, mlp(x))
    print(f"test accuracy: {accuracy:.2%} on {len(x)} digits never seen; curves: {OUT / 'digits.png'}")
    assert accuracy >= 0.97


if __name__ == "__main__":
    main()

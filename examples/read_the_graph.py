"""What wichi makes of a function: the traced graph, the graph of its gradient, and the loops that run."""

from pathlib import Path

import numpy as np

import wichi


def loss(w, x, y):
    return np.mean((np.tanh(x @ w) - y) ** 2)


rng = np.random.default_rng(0)
w, x, y = rng.standard_normal((4, 3)), rng.standard_normal((10, 4)), rng.standard_normal((10, 3))

print(wichi.make_graph(loss)(w, x, y), end="\n\n")
gradient = wichi.value_and_grad(loss)
graph = gradient.graph(w, x, y)
print(graph, end="\n\n")

source = gradient.source(w, x, y)
print(source[source.index("def nest") :])

# The printed program is Python that runs as it stands, and gives what the native code gives.
space: dict = {}
exec(source, space)
value, gradient_by_python = space["program"](w, x, y)
assert np.allclose(gradient_by_python, gradient(w, x, y)[1], rtol=1e-14)

Path("out").mkdir(exist_ok=True)
Path("out/graph.dot").write_text(graph.dot())
assert "backward" in str(graph)

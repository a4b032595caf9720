"""Give wichi a NumPy function; it gives back the compiled value and gradient."""

from wichi import cache, errors, nn, numpy, optim, pytree, utils
from wichi.config import config
from wichi.data import DataModule
from wichi.debug import debug
from wichi.errors import WichiError
from wichi.nn import MLP
from wichi.tensor import Tensor
from wichi.trace.ir import Graph
from wichi.transforms import grad, jit, jvp, make_graph, value_and_grad, vjp
from wichi.value import Value

__version__ = "0.1.0"
__all__ = [
    "MLP", "DataModule", "Graph", "Tensor", "Value", "WichiError", "cache", "config", "debug", "errors", "grad", "jit",
    "jvp", "make_graph", "nn", "numpy", "optim", "pytree", "utils", "value_and_grad", "vjp",
]  # fmt: skip

"""Give wichi a NumPy function; it gives back the compiled value and gradient."""

from wichi import cache, errors, nn, numpy, optim, pytree, utils
from wichi.batching import vmap
from wichi.config import config
from wichi.data import DataModule
from wichi.debug import debug
from wichi.errors import WichiError
from wichi.jacobians import hessian, hvp, jacfwd, jacobian, jacrev
from wichi.njitted import njit
from wichi.nn import MLP
from wichi.tensor import Tensor
from wichi.trace.ir import Graph
from wichi.transforms import grad, jit, jvp, make_graph, stop_gradient, value_and_grad, vjp
from wichi.value import Value

__version__ = "0.1.0"
__all__ = [
    "MLP", "DataModule", "Graph", "Tensor", "Value", "WichiError", "cache", "config", "debug", "errors", "grad",
    "hessian", "hvp", "jacfwd", "jacobian", "jacrev", "jit", "jvp", "make_graph", "njit", "nn", "numpy", "optim",
    "pytree", "stop_gradient", "utils", "value_and_grad", "vjp", "vmap",
]  # fmt: skip

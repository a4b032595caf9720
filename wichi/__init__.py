"""Give wichi a NumPy function; it gives back the compiled value and gradient."""

from wichi import errors, numpy, pytree
from wichi.config import config
from wichi.debug import debug
from wichi.errors import WichiError
from wichi.trace.ir import Graph
from wichi.transforms import grad, jit, jvp, make_graph, value_and_grad, vjp

__version__ = "0.1.0"
__all__ = [
    "Graph", "WichiError", "config", "debug", "errors", "grad", "jit", "jvp", "make_graph", "numpy", "pytree",
    "value_and_grad", "vjp",
]  # fmt: skip

"""Give wichi a NumPy function; it gives back the compiled value and gradient."""

from wichi import cache, errors, fit, nn, numpy, optim, pytree, scipy, testing, utils
from wichi.batching import vmap
from wichi.blackbox import primitive
from wichi.choice import cond, switch
from wichi.cinterface import cfunc, export
from wichi.config import config
from wichi.control import associative_scan, fori_loop, map, scan, while_loop
from wichi.custom import custom_jvp, custom_vjp
from wichi.data import DataModule
from wichi.debug import debug
from wichi.errors import WichiError
from wichi.implicit import custom_linear_solve, custom_root
from wichi.jacobians import hessian, hvp, jacfwd, jacobian, jacrev
from wichi.linear import jvp, linearize, vjp
from wichi.njitted import njit
from wichi.nn import MLP
from wichi.ode import odeint
from wichi.recompute import checkpoint, products_saveable
from wichi.scipy import for_scipy
from wichi.tensor import Tensor
from wichi.trace.ir import Graph
from wichi.transforms import grad, jit, make_graph, stop_gradient, value_and_grad
from wichi.value import Value

__version__ = "0.1.0"
__all__ = [
    "MLP",
    "DataModule",
    "Graph",
    "Tensor",
    "Value",
    "WichiError",
    "associative_scan",
    "cache",
    "cond",
    "config",
    "debug",
    "errors",
    "fori_loop",
    "grad",
    "hessian",
    "hvp",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jit",
    "jvp",
    "make_graph",
    "map",
    "njit",
    "nn",
    "numpy",
    "optim",
    "pytree",
    "scan",
    "stop_gradient",
    "switch",
    "utils",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]  # fmt: skip

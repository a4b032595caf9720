"""SciPy's solvers with exact derivatives, and trees where SciPy has vectors: ``optimize``, ``integrate``."""

from wichi.scipy import integrate, optimize
from wichi.scipy.objective import for_scipy

__all__ = ["for_scipy", "integrate", "optimize"]

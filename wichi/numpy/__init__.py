"""NumPy's functions for values inside transforms; on plain arrays they are NumPy's own.

Plain ``np.`` calls trace as well. What only this namespace can do: ``array`` and ``asarray`` of lists that hold traced
values, ``logsumexp``, ``relu``, ``sigmoid``, ``softplus`` and ``erf``.
"""

from numpy import e, euler_gamma, float32, float64, inf, int32, int64, nan, newaxis, pi

from wichi.numpy import _register
from wichi.numpy._creation import *
from wichi.numpy._indexing import take, take_along_axis
from wichi.numpy._pointwise import *
from wichi.numpy._products import cross, dot, einsum, inner, kron, matmul, norm, outer, tensordot, vdot, vecdot
from wichi.numpy._reducing import *
from wichi.numpy._shaping import *

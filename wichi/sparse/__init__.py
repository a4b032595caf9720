"""Sparse Jacobians and Hessians: ``wichi.sparse.jacobian(f)``, ``wichi.sparse.hessian(f)``."""

from wichi.sparse.matrices import hessian, jacobian

__all__ = ["hessian", "jacobian"]

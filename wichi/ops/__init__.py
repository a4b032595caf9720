"""The tables of primitives. Importing the package fills ``Primitive.table``; every family is one file."""

from wichi.ops import indexing, linalg, pointwise, products, reducing, shaping, sorting, writing

__all__ = ["indexing", "linalg", "pointwise", "products", "reducing", "shaping", "sorting", "writing"]

"""The tables of primitives. Importing the package fills ``Primitive.table``; every family is one file."""

from wichi.ops import indexing, pointwise, products, reducing, shaping

__all__ = ["indexing", "pointwise", "products", "reducing", "shaping"]

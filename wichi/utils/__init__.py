"""Pictures of eager graphs."""

from wichi.utils.graphing import draw_dot

__all__ = ["draw_dot"]

"""The disk cache of machine code. ``$WICHI_CACHE`` names its folder, or turns it off (``off``)."""

from wichi.kernels.cache import Info, clear, info

__all__ = ["Info", "clear", "info"]

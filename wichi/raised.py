"""Errors as the user sees them: ours, wherever they were wrapped, and without our own frames."""

from __future__ import annotations

import types

from wichi.config import config
from wichi.errors import MissingRuleError, WichiError
from wichi.trace import frames


def ours(error: BaseException | None) -> WichiError | None:
    """The error of ours that this is, or that NumPy wrapped: ``a[0] = t`` ends in a ValueError caused by ours."""
    original = error
    while error is not None and not isinstance(error, WichiError):
        error = error.__cause__
    return error if error is not None or original is None else _of_numba(original)


def _of_numba(error: BaseException) -> WichiError | None:
    """What numba says of our values, in our words."""
    if type(error).__module__.partition(".")[0] != "numba" or "wichi.trace" not in str(error):
        return None
    return MissingRuleError(
        "A function that numba has compiled was called with a value inside a transform.",
        at=frames.describe(frames.where_raised(error)),
        because="it takes numbers and arrays, not values that are still to be computed",
        fix="call the Python function that it was made from: function.py_func(x)",
    )


def users_part(traceback: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback without wichi's and NumPy's own frames, unless the configuration keeps them."""
    if config.internal_frames:
        return traceback
    kept, rest = [], traceback
    while rest is not None:
        if not frames.is_internal(rest.tb_frame.f_code.co_filename):
            kept.append(rest)
        rest = rest.tb_next
    short: types.TracebackType | None = None
    for part in reversed(kept):
        short = types.TracebackType(short, part.tb_frame, part.tb_lasti, part.tb_lineno)
    return short

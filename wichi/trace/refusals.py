"""What cannot be done with a value that is being traced, said with the user's line and a way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from wichi.errors import (
    ConditionError,
    EscapedValueError,
    PlainArrayError,
    PlainArrayWriteError,
    PlainFloatError,
)
from wichi.trace import advice, frames
from wichi.trace.holders import holder

if TYPE_CHECKING:
    from wichi.trace.tracer import Tracer
    from wichi.trace.writable import Writable


def made(x: Writable) -> str:
    line = x.run.line_of(x.atom)
    return f"{x.aval}" + (f", made at {frames.describe(line)}" if line else ", an argument")


def escaped(x: Writable) -> NoReturn:
    kept = holder(x)
    raise EscapedValueError(
        f"A value made inside {x.run.name} is used after it finished" + (f"; it was kept in {kept}." if kept else "."),
        at=frames.describe(frames.user_where()),
        value=made(x),
        because="it stood for a number only while the function was traced",
        fix="return it from the function (value_and_grad(..., has_aux=True) carries extra results)",
    )


def needs_value(x: Tracer, need: str) -> NoReturn:
    frame = frames.user_frame()
    text = (frames.segment(frame) if frame else None) or ("a condition" if need == "condition" else "an integer")
    if need == "condition":
        what = f"The condition `{text}` depends on input values, so one compiled graph cannot contain both branches."
        fix = (
            f"choose between values with np.where({text}, if_true, if_false), or between computations with"
            f" wichi.cond({text}, true_fun, false_fun, x); loop with wichi.while_loop"
        )
    else:
        what = f"`{text}` needs an integer, but it depends on input values."
        fix = (
            "take the integer from a shape or a plain Python argument (bind it with functools.partial or a closure);"
            " loop with wichi.fori_loop, index with wichi.numpy.take"
        )
    raise ConditionError(
        what,
        at=frames.describe(frames.user_where()),
        value=made(x),
        because=f"inside {x.run.name} the value is not known yet when Python asks for it",
        fix=fix,
    )


def stale(view: Writable) -> NoReturn:
    raise PlainArrayWriteError(
        f"A value of {view.aval} and what it was made from share memory in NumPy, and one of them was written.",
        at=frames.describe(frames.user_where()),
        value=made(view),
        because="wichi follows views made by x[...] only, not by reshape, transpose and their like",
        fix="copy it where it is made (.copy()), or write before it is made",
    )


def written_outside(x: Writable) -> NoReturn:
    if not x.run.active:
        escaped(x)
    frame = frames.user_frame()
    name = ((frames.segment(frame) if frame else None) or "x").split("[")[0].split("+=")[0].strip()
    raise PlainArrayWriteError(
        f"`{name}` belongs to a function around this one and cannot be written from within.",
        at=frames.describe(frames.user_where()),
        value=made(x),
        because="the body of a loop or of a transform changes nothing outside itself",
        fix=f"carry it: take {name} as an argument and return it",
    )


def needs_plain(x: Tracer, array: bool = False) -> NoReturn:
    if not x.run.active:
        escaped(x)
    frame = frames.user_frame()
    at, value = frames.describe(frames.user_where()), made(x)
    text = (frames.segment(frame) if frame else None) or ""
    if frame is not None and frames.is_storing(frame):
        raise PlainArrayWriteError(
            f"`{advice.written_target(text)}` is a plain ndarray; storing a value inside {x.run.name} would lose its"
            " gradient.",
            at=at,
            value=value,
            because="a NumPy array holds numbers, not values still to be computed",
            fix=advice.instead_of_writing(text, frame),
        )
    if array:
        raise PlainArrayError(
            f"`{text or 'np.array'}` cannot keep the gradients of values inside {x.run.name}.",
            at=at,
            value=value,
            because="NumPy would turn them into plain numbers",
            fix=advice.instead_of_array(text, frame, x.dtype.kind == "b"),
        )
    function, inside = advice.called(text, "x")
    if function.endswith((".item", ".tolist")):
        inside = _element(function.rpartition(".")[0], text.removeprefix(function).strip("()"))
    fix = f"leave `{inside}` as it is: 0-d values work like floats"
    if function.startswith("math."):
        fix = f"np.{_FROM_MATH.get(function[5:], function[5:])}({inside})"
    elif function.endswith(".tolist") and x.aval.shape:
        fix = f"leave `{inside}` as it is, or take list({inside}), its rows"
    raise PlainFloatError(
        f"`{function}` needs a plain float but got a value inside {x.run.name}; its derivative would be lost.",
        at=at,
        value=value,
        because="a Python float is a number, not a value still to be computed",
        fix=fix,
    )


def _element(array: str, place: str) -> str:
    """What ``array.item(place)`` reads: several numbers are an index, one counts along all axes."""
    if not place:
        return array
    return f"{array}[{place}]" if "," in place else f"{array}.ravel()[{place}]"


def needs_text(x: Tracer, spec: str) -> NoReturn:
    """``f"{x:.3f}"``: there is no number to write yet."""
    if not x.run.active:
        escaped(x)
    raise PlainFloatError(
        f"The format {spec!r} needs a plain number but got a value inside {x.run.name}.",
        at=frames.describe(frames.user_where()),
        value=made(x),
        because="while a function is traced there is no number yet",
        fix="return the value and format it where it is a number; f'{x}' tells its shape and dtype",
    )


_FROM_MATH = {
    "acos": "arccos", "asin": "arcsin", "atan": "arctan", "atan2": "arctan2", "fabs": "abs", "pow": "power",
    "acosh": "arccosh", "asinh": "arcsinh", "atanh": "arctanh", "fsum": "sum", "ceil": "ceil",
}  # fmt: skip

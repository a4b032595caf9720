"""docs/functions.md, from the tables: what works on values inside transforms, and where it differs from NumPy.

python tools/functions_page.py             writes the page
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import wichi.numpy as wnp
from wichi.numpy import _register
from wichi.trace.advice import name_of
from wichi.trace.boxed import _PROPERTIES, registry
from wichi.trace.tracer import Tracer

VERSION = ".".join(np.__version__.split(".")[:2])  # the signatures of NumPy's functions differ between versions
PAGE = Path(__file__).resolve().parents[1] / "docs" / "functions.md"
_HEADINGS = {
    "_shaping": "Shapes", "_arranging": "Arrangements, choices and counts", "_indexing": "Indexing",
    "_reducing": "Reductions", "_nan": "Without nans", "_cumulative": "Sums and products so far",
    "_histogram": "Sorting, searching, quantiles", "_sorting": "Sorting, searching, quantiles",
    "_products": "Products", "_solving": "Linear algebra",
    "_least": "Linear algebra",
    "_composed": "Interpolation, convolution, covariances", "_differences": "Differences and polynomials",
    "_numbers": "Parts of numbers", "_creation": "Making arrays", "_inplace": "Writing into an argument",
    "_questions": "Questions", "_pointwise": "Elementwise, no ufuncs", "_register": "Questions",
    "primitive": "Questions",
}  # fmt: skip
_OPERATORS = {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow", "@": "matmul",
    "divmod()": "divmod", "<<": "lshift", ">>": "rshift", "&": "and", "|": "or", "^": "xor", "~": "invert", "<": "lt",
    "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne", "abs()": "abs", "round()": "round", "x[...]": "getitem",
    "x[...] = v": "setitem", "len()": "len", "iteration": "iter",
}  # fmt: skip
_ABOUT = """\
# What traces

All of this works on values inside `jit`, `grad` and the other transforms: as plain `np.` calls, as `wichi.numpy.` ones
(but for the methods of ufuncs), and on `Tensor`. Values, shapes and dtypes are NumPy's; where something differs it is
said. A function that is not here is an error that says what to write instead; one of another library takes a rule by
`wichi.primitive`. The page is made from the tables by `tools/functions_page.py`, beside NumPy {version}.

- `out=` takes a value inside a transform, never a plain array. `order`, `subok`, `casting` and `like` have no use here.
- Ufuncs take neither `where=` nor `dtype=`, and those of matrices no `axes=`.
- What decides a shape must be plain: masks and counts that depend on values are errors, but for `x[mask] = v` and
  `x[mask] += v`.
- A Python integer that the other operand's dtype does not hold is an `OverflowError`, in `np.where` too, where NumPy
  wraps it around; comparisons go by its value. As an argument of the traced function it is an int64 of which only the
  dtype is known while tracing: comparisons go by its value too, other operations wrap it around.
- Random numbers are drawn while tracing, once: give them as an argument. A warning tells of draws from `np.random`;
  those of a generator (`np.random.default_rng`) cannot be seen."""
_CHANGES = ["+=", "-=", "*=", "/=", "//=", "%=", "**=", "x[...] = v", "x[...] += v"]
_PLACES = ["get()", "set()", "add()", "multiply()", "min()", "max()"]
_EVERYWHERE = {
    "out",
    "subok",
    "order",
    "like",
    "casting",
    "overwrite_input",
    "copy",
    "device",
    "ndmax",
}  # the page says so once


# --- notes ------------------------------------------------------------------------------------------------------------
def _ours(function: Callable[..., Any]) -> Callable[..., Any]:
    return getattr(function, "__wrapped__", function)


def note(theirs: Any, function: Callable[..., Any]) -> str:
    """Where ours differs: what its docstring says beside "as NumPy", and what it does not take."""
    ours = _ours(function)
    text = inspect.cleandoc(ours.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    text = re.sub(r"^As ``numpy[.\w]*``[.,;: ]*", "", text).replace("``", "`").strip()
    if text and text in (theirs.__doc__ or ""):
        text = ""
    missing = [] if isinstance(theirs, np.ufunc) else sorted(n for n in _missing(theirs, ours) if f"`{n}`" not in text)
    if missing:
        text = f"{text.removesuffix('.')}{'; ' * bool(text)}without {', '.join(f'`{n}`' for n in missing)}."
    return text


def _missing(theirs: Any, ours: Callable[..., Any]) -> set[str]:
    """Parameters of NumPy's function that ours has not, or refuses."""
    try:
        wanted, given = (inspect.signature(f).parameters for f in (theirs, ours))
    except (TypeError, ValueError):  # one written in C
        return set()
    named = {n for n, p in wanted.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    optional = {n for n in named if wanted[n].default is not inspect.Parameter.empty}
    refused = _refused(ours)
    passed_on = [p for n, p in given.items() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and n not in refused]
    if any(p.kind == p.VAR_KEYWORD or not any(w.kind == w.VAR_POSITIONAL for w in wanted.values()) for p in passed_on):
        optional = set()
    return (optional - set(given) | refused & named) - _EVERYWHERE


def _refused(ours: Callable[..., Any]) -> set[str]:
    """What the function hands to ``_plain_options``, which takes None alone."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(ours)))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func).endswith("_plain_options")]
    return {k.arg or ast.unparse(k.value) for call in calls for k in call.keywords}


# --- the page ---------------------------------------------------------------------------------------------------------
def _wrapped(names: Iterable[str]) -> str:
    return textwrap.fill(", ".join(f"`{n}`" for n in names), 118, break_long_words=False, break_on_hyphens=False)


def _item(text: str) -> str:
    return textwrap.fill(f"- {text}", 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _names(function: Any) -> list[str]:
    """A function under each name that NumPy has for it."""
    return [f"np.{n}" for n, f in vars(np).items() if f is function] or [name_of(function)]


def _section(heading: str, entries: dict[str, str]) -> str:
    """Names without a note together, then those with one."""
    plain = [n for n in sorted(entries) if not entries[n]]
    noted = [_item(f"`{n}`: {entries[n]}") for n in sorted(entries) if entries[n]]
    return "\n\n".join([f"## {heading}", *([_wrapped(plain)] if plain else []), *(["\n".join(noted)] if noted else [])])


def _families() -> dict[str, dict[str, str]]:
    families: dict[str, dict[str, str]] = {heading: {} for heading in _HEADINGS.values()}
    for theirs, function in registry.functions.items():
        if isinstance(theirs, np.ufunc | tuple):
            continue
        made_here = theirs.__name__ in _register._CREATING
        heading = "Making arrays" if made_here else _HEADINGS[_ours(function).__module__.rpartition(".")[2]]
        families[heading].update(dict.fromkeys(_names(theirs), note(theirs, function)))
    return {heading: entries for heading, entries in families.items() if entries}


def _ufuncs() -> dict[str, str]:
    return {n: note(u, f) for u, f in registry.functions.items() if isinstance(u, np.ufunc) for n in _names(u)}


def _methods_of_ufuncs() -> str:
    found: dict[str, list[str]] = {}
    for key in registry.functions:
        if isinstance(key, tuple) and isinstance(key[0], np.ufunc):
            found.setdefault(key[1], []).append(key[0].__name__)
    return "\n".join(
        _item(f"`{method}` of {', '.join(f'`{n}`' for n in sorted(names))}") for method, names in sorted(found.items())
    )


def _special() -> str:
    return _wrapped(
        sorted(f"scipy.special.{k[1]}" for k in registry.functions if isinstance(k, tuple) and k[0] == "scipy.special")
    )


def _attributes() -> tuple[list[str], list[str]]:
    """Methods, and attributes that are read without brackets."""
    own = {n for n in dir(np.ndarray) if not n.startswith("_") and hasattr(Tracer, n)}
    read = {n for n in own if isinstance(inspect.getattr_static(Tracer, n), property)} | (_PROPERTIES - {"at"})
    there = {n for n in registry.methods if not n.startswith("_") and hasattr(np.ndarray, n)} | (own - {"base"})
    return sorted(there - read), sorted(read)


def _only_ours() -> list[str]:
    theirs = {*dir(np), *dir(np.linalg)}
    return sorted(
        n for n in [*wnp.__all__, *(f"linalg.{n}" for n in wnp.linalg.__all__)] if n.rpartition(".")[2] not in theirs
    )


def _operators() -> str:
    for name in _OPERATORS.values():
        assert hasattr(Tracer, f"__{name}__"), name
    found = _wrapped(n for n in _OPERATORS if n != "x[...] = v")
    return f"## Operators\n\n{found}\n\nand in place, for arrays: {_wrapped(_CHANGES)}."


def _members() -> str:
    methods, attributes = _attributes()
    return "\n\n".join(
        [
            "## Methods and attributes",
            _wrapped(f"x.{n}()" for n in methods),
            _wrapped(f"x.{n}" for n in attributes),
            f"and JAX's `x.at[i]` with {_wrapped(_PLACES)}.",
        ]
    )


def page() -> str:
    """The text of docs/functions.md."""
    return "\n\n".join(
        [
            _ABOUT.format(version=VERSION),
            _operators(),
            _members(),
            _section("Ufuncs", _ufuncs()),
            f"and their methods:\n\n{_methods_of_ufuncs()}",
            *[_section(heading, entries) for heading, entries in _families().items()],
            f"## SciPy\n\n{_special()}",
            "Others have functions of their own: `wichi.scipy.optimize`, `wichi.odeint`, `wichi.fit`.",
            f"## Only in `wichi.numpy`\n\n{_wrapped(_only_ours())}\n",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

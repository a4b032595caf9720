"""Fixes in the user's own words: what to write instead of the expression that cannot be traced."""

from __future__ import annotations

import ast
import re
import sys
from types import FrameType
from typing import Any

import numpy as np

from wichi.trace import frames

_AUGMENTED = re.compile(r"^(?P<target>[^=]+?)\s*(?P<operator>\*\*|//|<<|>>|[-+*/%@&|^])=\s*(?P<value>.+)$", re.DOTALL)
_BY_VECTORIZE = np.vectorize.__call__.__code__


def parsed(text: str) -> ast.expr | None:
    """The expression; None for a part of a longer line, or a statement."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return None


def called(text: str, otherwise: str) -> tuple[str, str]:
    """The function that an expression calls, and its first argument, as text."""
    node = parsed(text)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func), ast.unparse(node.args[0]) if node.args else otherwise
    return text.split("(")[0] or "float", text[text.find("(") + 1 : text.rfind(")")] if "(" in text else otherwise


def of_numpy(text: str) -> str:
    """A call of a NumPy function that makes arrays, as one of ours, which takes traced values; else empty."""
    found = re.fullmatch(r"(?:np|numpy)\.((?:arange|zeros|ones|full|empty|linspace)\(.*\))", text)
    return f"wichi.numpy.{found[1]}" if found else ""


# --- writing into plain arrays ----------------------------------------------------------------------------------------
def written_target(text: str) -> str:
    """The array that ``a[i] = v`` or ``a[i] += v`` writes into."""
    found = _AUGMENTED.match(text)
    return (found["target"] if found else text).split("[")[0].strip() or "the array"


def instead_of_writing(text: str, frame: FrameType | None) -> str:
    """For a statement that writes a traced value into a plain array."""
    found = _AUGMENTED.match(text)
    if found and "[" not in found["target"]:
        return f"{found['target']} = {found['target']} {found['operator']} {_in_brackets(found['value'])}"
    target = written_target(text)
    if frame is not None and target.isidentifier() and _comes_from_outside(target, frame.f_code):
        return (f"write into a copy, and return it: new_{target} = wichi.numpy.array({target}) can be written and keeps"
                " the gradient")  # fmt: skip
    return f"make it with wichi: {target} = wichi.numpy.zeros(...) can be written; or wichi.numpy.stack([...])"


def _in_brackets(value: str) -> str:
    return value if isinstance(parsed(value), ast.Name | ast.Constant | ast.Call | ast.Subscript) else f"({value})"


def _comes_from_outside(name: str, code: Any) -> bool:
    """Whether a name in a function is an argument of it, closed over, or global."""
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return name in arguments or name not in code.co_varnames + code.co_cellvars


# --- plain arrays of traced values ------------------------------------------------------------------------------------
def instead_of_array(text: str, frame: FrameType | None, is_mask: bool) -> str:
    """For an expression in which NumPy would make a plain array of a traced value; ``is_mask``: of bools."""
    if ours := of_numpy(text):
        return ours
    node = parsed(text)
    if isinstance(node, ast.Subscript):
        return _instead_of_indexing(node, is_mask)
    if frame is not None and frames.passes_through(_BY_VECTORIZE):
        return _instead_of_vectorize(node)
    maker, inside = called(text, "[...]")
    if "dlpack" in maker:
        return "write it with NumPy's functions, or give another library's function a rule: wichi.primitive(f)"
    if "random." in maker:
        return f"draw plain numbers outside, give them as an argument, and compute with them and {inside}"
    if maker.endswith(("array", "asanyarray")):
        if not inside.startswith("["):
            return f"use {inside} itself: it is an array already"
        nested = "[" in inside.lstrip("[") and inside[1] in "[("
        return f"wichi.numpy.array({inside})" if nested else f"np.stack({inside})"
    if re.fullmatch(r"(np|numpy)\.(float|int|uint)\d+", maker):
        return f"{inside}.astype({maker})"
    name = re.fullmatch(r"(?:np|numpy)\.(\w+)", maker)
    if name and not inside.startswith("[") and hasattr(sys.modules.get("wichi.numpy"), name[1]):
        return f"wichi.{text if text.startswith('numpy') else text.replace('np', 'numpy', 1)}"  # looks at all arguments
    if _is_array(inside, frame):
        return f"write it with functions that wichi.numpy has, or give it a rule: wichi.primitive({maker})"
    return f"{maker or 'f'}(np.stack({inside}))"


def _instead_of_indexing(node: ast.Subscript, is_mask: bool) -> str:
    """For ``table[i]`` of a plain table and a traced i."""
    table, item = ast.unparse(node.value), ast.unparse(node.slice)
    if is_mask:
        return f"keep the shape: np.where({item}, {table}, 0)"
    if isinstance(node.slice, ast.Tuple | ast.Slice):
        return f"wichi.numpy.array({table})[{item.strip('()') if isinstance(node.slice, ast.Tuple) else item}]"
    return f"wichi.numpy.take({table}, {item}, axis=0)"


def _instead_of_vectorize(node: ast.expr | None) -> str:
    function, inside = "f", "x"
    if isinstance(node, ast.Call):
        inside = ast.unparse(node.args[0]) if node.args else "x"
        if isinstance(node.func, ast.Call) and node.func.args:  # np.vectorize(f)(x)
            function = ast.unparse(node.func.args[0])
            function = function if function.isidentifier() else f"({function})"
    return (f"{function}({inside}) itself, if all that it does works on whole arrays; else"
            f" wichi.vmap({function.strip('()')})({inside}), for each row")  # fmt: skip


def _is_array(text: str, frame: FrameType | None) -> bool:
    """Whether the argument of a function is a traced value itself, not a list that holds some."""
    if frame is None or text.startswith(("[", "(")):
        return False
    node = parsed(text)
    while isinstance(node, ast.Attribute):
        node = node.value
    if isinstance(node, ast.Subscript):
        return True
    value = frame.f_locals.get(node.id, frame.f_globals.get(node.id)) if isinstance(node, ast.Name) else None
    return hasattr(value, "__array_ufunc__")


# --- NumPy's functions without a rule ---------------------------------------------------------------------------------
def name_of(function: Any) -> str:
    """A NumPy function, or a ufunc of whatever library, as the user would write it."""
    name = getattr(function, "__name__", str(function))
    if getattr(np, name, None) is function:
        return f"np.{name}"
    module = getattr(function, "__module__", None)
    if module is None:  # a ufunc
        return name.removesuffix(" (vectorized)")
    return f"{module.replace('numpy', 'np', 1)}.{name}"


def instead_of_method(ufunc: np.ufunc, method: str) -> str:
    """For ``np.subtract.reduce(x)`` and the other methods of ufuncs that have no rule."""
    name = name_of(ufunc)
    return {
        "reduce": f"functools.reduce({name}, x), for short axes; else wichi.scan",
        "accumulate": f"np.stack([*itertools.accumulate(x, {name})]), for short axes; else wichi.scan",
        "reduceat": f"{name}.reduce(x[i:j]) for each part, and np.stack of these",
        "outer": f"{name}(x[:, None], y), for vectors",
        "at": f"x[i] = {name}(x[i], v), where no index occurs twice",
    }.get(method, "write it with functions that wichi.numpy has")

"""A graph as text, as Graphviz source and as a picture. The same names and words in all three.

The one importer of graphviz, inside the function that needs it: ``print(graph)`` and ``graph.dot()`` need no program.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from typing import Any

import numpy as np

from wichi.errors import DrawError
from wichi.trace.ir import Atom, Const, Eqn, Graph, Where, graphs_in

_FORWARD, _BACKWARD, _INPUT, _OUTPUT = "#dbe9f6", "#fbe3d4", "#e6e6e6", "#d9f2d9"


def letters() -> Iterator[str]:
    """a, b, ... z, aa, ab, ..."""
    for length in itertools.count(1):
        for letter in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=length):
            yield "".join(letter)


class Names:
    """Stable names by first use; inputs keep the names their function gives them."""

    def __init__(self, graph: Graph) -> None:
        self._of: dict[Atom, str] = dict(zip(graph.ins, graph.in_names, strict=False))
        taken = set(self._of.values())
        self._fresh = (name for name in letters() if name not in taken)

    def __call__(self, atom: Atom) -> str:
        if type(atom) is Const and atom.is_scalar:
            return f"{atom.value.item()!r}"
        name = self._of.get(atom)
        if name is None:
            name = self._of[atom] = next(self._fresh)
        return name


def equation(eqn: Eqn, name: Names) -> str:
    """``c:f64[3] = mul a b``"""
    ins = " ".join(map(name, eqn.ins))
    outs = ", ".join(f"{name(o)}:{o.aval}" for o in eqn.outs)
    return f"{outs} = {operation(eqn)} {ins}".rstrip()


def operation(eqn: Eqn) -> str:
    """``sum[axes=(0,)]``"""
    held = {name for name, _ in graphs_in(eqn)}  # shown below; functions have no stable text
    params = " ".join(f"{k}={v}" for k, v in eqn.params.items() if k not in held and not callable(v) and v is not None)
    return f"{eqn.prim.name}[{params}]" if params else eqn.prim.name


def text(graph: Graph, name: Names | None = None) -> str:
    """The printed form; equations made by derivative rules stand below a line that says so.

    Graphs that an equation holds stand below it, further in, with names of their own.
    """
    name = name or Names(graph)
    lines = [f"graph({', '.join(f'{name(v)}:{v.aval}' for v in graph.ins)})"]
    constants = dict.fromkeys(a for e in graph.eqns for a in e.ins if type(a) is Const and not a.is_scalar)
    lines += [f"  {name(c)}:{c.aval} = captured array" for c in constants]
    backward = False
    for eqn in graph.eqns:
        turns = _is_backward(eqn)
        if turns != backward:
            lines.append("  # backward" if turns else "  # forward")
            backward = turns
        lines.append(f"  {equation(eqn, name)}")
        for key, inner in graphs_in(eqn):  # bodies nest as deep as the user's loops do
            lines += [f"    {key} {text(inner)}".replace("\n", "\n    ")]
    lines.append(f"  return {', '.join(map(name, graph.outs))}")
    return "\n".join(lines)


def _is_backward(eqn: Eqn) -> bool:
    return eqn.where is not None and eqn.where.backward


def _line(where: Where | None) -> str:
    return f"{os.path.basename(where.file)}:{where.line}" if where else ""


def quote(label: str) -> str:
    """A string of Graphviz's language."""
    return '"' + label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def dot(graph: Graph) -> str:
    """Graphviz source: a node an equation, with its type and the user's line; the backward part in its own colour."""
    name = Names(graph)
    lines = [
        "digraph wichi {",
        "  rankdir=TB;",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=10];',
        '  edge [fontname="Helvetica", fontsize=8];',
    ]
    made_by: dict[Any, str] = {}
    for i, var in enumerate(graph.ins):
        made_by[var] = f"in{i}"
        label = quote(f"{name(var)}\n{var.aval}")
        lines.append(f"  in{i} [label={label}, fillcolor={quote(_INPUT)}];")
    for i, eqn in enumerate(graph.eqns):
        for atom in eqn.ins:
            if type(atom) is Const and not atom.is_scalar and atom not in made_by:
                made_by[atom] = f"const{i}"
                label = quote(f"{name(atom)}\n{atom.aval}\ncaptured array")
                lines.append(f"  const{i} [label={label}, fillcolor={quote(_INPUT)}, shape=note];")
        scalars = [name(a) for a in eqn.ins if type(a) is Const and a.is_scalar]
        head = f"{', '.join(map(name, eqn.outs))} = {operation(eqn)}" + (f"  ({', '.join(scalars)})" if scalars else "")
        part = "backward of " if _is_backward(eqn) else ""
        label = "\n".join(x for x in (head, str(eqn.outs[0].aval), part + _line(eqn.where)) if x)
        colour = _BACKWARD if _is_backward(eqn) else _FORWARD
        lines.append(f"  eqn{i} [label={quote(label)}, fillcolor={quote(colour)}];")
        lines += [f"  {made_by[atom]} -> eqn{i};" for atom in eqn.ins if atom in made_by]
        made_by.update((out, f"eqn{i}") for out in eqn.outs)
    for i, atom in enumerate(graph.outs):
        label = quote(f"result {i}\n{atom.aval}" if atom in made_by else f"result {i}\n{name(atom)}")
        lines.append(f"  out{i} [label={label}, fillcolor={quote(_OUTPUT)}, shape=ellipse];")
        if atom in made_by:
            lines.append(f"  {made_by[atom]} -> out{i};")
    return "\n".join([*lines, "}"])


def draw(graph: Graph, path: str) -> str:
    """Write ``graph`` as SVG to ``path``."""
    picture = svg(dot(graph))
    with open(path, "w", encoding="utf-8") as file:
        file.write(picture)
    return path


def svg(source: str) -> str:
    """Graphviz source laid out as SVG, by ``dot`` on the PATH or by the ``graphviz-pure`` package.

    Raises:
        DrawError: neither is there.
    """
    if shutil.which("dot"):
        import graphviz

        return graphviz.Source(source).pipe(format="svg", encoding="utf-8")
    program = shutil.which("graphviz-pure") or shutil.which("graphviz-pure", path=sysconfig.get_path("scripts"))
    if program is None:
        raise DrawError(
            "No program that lays out graphs was found.",
            because="neither `dot` nor `graphviz-pure` is on the PATH",
            fix="install Graphviz (https://graphviz.org/download), or: pip install graphviz-pure "
            "(the text needs neither: graph.dot())",
        )
    done = subprocess.run(
        [program, "-Tsvg"], input=source, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise DrawError(f"graphviz-pure failed: {done.stderr.strip()[:400]}")
    return done.stdout


def summary(value: Any) -> str:
    """A scalar as its number, up to four elements as they are, more as dtype and shape."""
    array = np.asarray(value)
    if not array.ndim:
        return f"{array[()]:.4g}"
    if array.size <= 4:
        return np.array2string(array, precision=4, separator=", ").replace("\n", "")
    return f"{array.dtype}{list(array.shape)}"

"""``draw_dot(loss).render()``: a picture of the tensors that a result was computed from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wichi.tensor import Tensor
from wichi.trace.show import quote, summary, svg


@dataclass(frozen=True)
class Drawing:
    """Graphviz source that can be written and laid out."""

    source: str

    def render(self, filename: str = "graph", directory: str | Path = ".") -> str:
        """Write ``filename.dot`` and ``filename.svg`` into ``directory`` and answer the picture's path.

        The dot file is written first, and is there even if no program is found that lays it out.

        Raises:
            DrawError: neither Graphviz's ``dot`` nor ``graphviz-pure`` is installed.
        """
        path = Path(directory) / filename
        dot_file, picture = path.with_name(path.name + ".dot"), path.with_name(path.name + ".svg")
        dot_file.write_text(self.source, encoding="utf-8")
        picture.write_text(svg(self.source), encoding="utf-8")
        return str(picture)

    def _repr_svg_(self) -> str:
        return svg(self.source)


def draw_dot(root: Tensor) -> Drawing:
    """The graph that ``root`` was computed by: each tensor with its label, data and grad, and the operations between.

    Scalars show their numbers, small vectors their elements, larger arrays dtype and shape. Gradients are zeros before
    ``backward()``.

    >>> x = Tensor(2.0, label="x")
    >>> draw_dot(x * x).render("square")  # doctest: +SKIP
    'square.svg'
    """
    lines = [
        "digraph wichi {",
        "  rankdir=LR;",
        '  node [fontname="Helvetica", fontsize=10];',
    ]
    names: dict[int, str] = {}
    for i, tensor in enumerate(root.graph()):
        name = names[id(tensor)] = f"t{i}"
        fields = [tensor.label] if tensor.label else []
        fields.append(f"data {summary(tensor.data)}")
        if tensor.dtype.kind == "f":
            fields.append(f"grad {summary(tensor.grad)}")
        colour = "#e6e6e6" if tensor.is_leaf else "#dbe9f6"
        label = " | ".join(_escaped(f) for f in fields)
        lines.append(f'  {name} [shape=record, style=filled, fillcolor="{colour}", label="{{ {label} }}"];')
        if not tensor.is_leaf:
            lines.append(f"  {name}op [label={quote(tensor.op)}];")
            lines.append(f"  {name}op -> {name};")
            lines += [f"  {names[id(operand)]} -> {name}op;" for operand in tensor.operands]
    return Drawing("\n".join([*lines, "}"]) + "\n")


def _escaped(text: str) -> str:
    """Text inside a record label, where braces, bars and angle brackets have a meaning."""
    return "".join("\\" + c if c in '\\"{}|<>' else c for c in text)

"""Values that take the memory of an operand that dies where they are computed.

A fused step may write a result over an operand if it reads the operand at the same element only, reads it before it
writes, and nothing reads the operand afterwards. Both are then one buffer, so that there is one pointer to it. In a
band an intermediate value can so lie in the rows of a result, which saves the nearest cache a block of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from wichi.kernels.layout import Layout
from wichi.kernels.placing import Placing
from wichi.kernels.plans import Step
from wichi.trace.ir import Var
from wichi.trace.primitive import Pointwise


def share(
    p: Placing, outs: Sequence[Var], kept: Collection[int], taken: Collection[int], bands: Sequence[range]
) -> dict[int, int]:
    """Let values lie where a dying operand lies.

    Answers for each buffer that others moved into the first step that writes it.

    Args:
        kept: buffers that callers see.
        taken: buffers whose memory holds something else before their own value.
    """
    needed, last_use = p.needed(outs)
    moved: dict[int, int] = {}
    for number, step in enumerate(p.steps):
        band = next((b for b in bands if number in b), range(len(p.steps)))
        used: set[int] = {*taken, *moved}
        for out in _stored(p, step, number, needed):
            into = p.layouts[out].buffer
            for buffer in _dying(p, step, number, out, last_use) if into not in taken else ():
                home = p.home[buffer]
                ours = type(home) is Var and home not in p.graph.ins and buffer not in kept
                # What a band finds in memory it may read in other blocks too.
                if ours and p.ready[home] in band and buffer not in used:
                    used.add(buffer)
                    moved[buffer] = into
                    break
    born: dict[int, int] = {}
    for buffer in sorted(moved, key=lambda b: p.ready[p.home[b]]):
        into = buffer
        while into in moved:
            into = moved[into]
        born[into] = min(born.get(into, len(p.steps)), p.ready[p.home[buffer]])
        moved[buffer] = into
    if moved:
        p.layouts = {a: _elsewhere(v, moved) for a, v in p.layouts.items()}
    return born


def _elsewhere(layout: Layout, moved: Mapping[int, int]) -> Layout:
    return replace(layout, buffer=moved[layout.buffer]) if layout.buffer in moved else layout


def _stored(p: Placing, step: Step, number: int, needed: Collection[int]) -> list[Var]:
    """What a fused step computes element by element and stores."""
    if step.shape is None:
        return []
    values = (e.outs[0] for e in step.eqns if isinstance(e.prim.kernel, Pointwise))
    return [v for v in values if p.layouts[v].buffer in needed and p.home[p.layouts[v].buffer] is v]


def _dying(p: Placing, step: Step, number: int, out: Var, last_use: Mapping[int, int]) -> list[int]:
    """Buffers that ``out`` may take: of its type, lying as it does, read last and in no other way in this step."""
    target = p.layouts[out]
    found: dict[int, Any] = {}
    refused: set[int] = set()
    written = False
    for eqn in step.eqns:
        for atom in eqn.ins:
            layout = p.layouts.get(atom)
            if layout is None or p.read_inside(atom, number, step):
                continue
            buffer = layout.buffer
            whole = p.home[buffer].aval.size == out.aval.size and atom.aval.shape == step.shape
            alike = replace(layout, buffer=target.buffer) == target
            if not (whole and alike) or (written and buffer not in found) or last_use.get(buffer) != number:
                refused.add(buffer)
            found[buffer] = None
        written = written or eqn.outs[0] is out
    return [b for b in found if b not in refused]

"""Random programs with loops: machine code against the interpreter, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest

import wichi


def random_body(rng, names):
    """A body over a carry of several arrays, as source text: a straight line of random operations."""
    shapes = {"a": (20,), "b": (5, 4), "c": (), "d": (4,)}
    lines = []
    pool = dict(shapes)
    for number in range(rng.integers(6, 16)):
        out = f"v{number}"
        kind = rng.integers(0, 9)
        vectors = [n for n, s in pool.items() if s == (20,)]
        fours = [n for n, s in pool.items() if s == (4,)]
        matrices = [n for n, s in pool.items() if s == (5, 4)]
        numbers = [n for n, s in pool.items() if s == ()]
        pick = lambda xs: xs[rng.integers(len(xs))]  # noqa: E731
        if kind == 0:
            x = pick(list(pool))
            lines.append(f"{out} = np.sin({x}) * 0.7")
            pool[out] = pool[x]
        elif kind == 1:
            lines.append(f"{out} = {pick(vectors)} @ {pick(vectors)} * 0.02")
            pool[out] = ()
        elif kind == 2:
            lines.append(f"{out} = {pick(matrices)} @ {pick(fours)}")
            lines.append(f"{out} = np.tanh({out})[:4]")
            pool[out] = (4,)
        elif kind == 3:
            x = pick([vectors, fours, matrices][rng.integers(3)])
            lines.append(f"{out} = {x} * {pick(numbers)} + 0.1")
            pool[out] = pool[x]
        elif kind == 4:
            lines.append(f"{out} = np.mean({pick(matrices)}, axis=0) + {pick(fours)}")
            pool[out] = (4,)
        elif kind == 5:
            lines.append(f"{out} = np.concatenate([{pick(vectors)}[7:], {pick(vectors)}[:7][::-1]])")
            pool[out] = (20,)
        elif kind == 6:
            x = pick(vectors)
            lines.append(f"{out} = {x}.reshape(5, 4) * 0.5 + {pick(matrices)}")
            pool[out] = (5, 4)
        elif kind == 7:
            x = pick(vectors + matrices)
            lines.append(f"{out} = {x} * 1.0")
            lines.append(f"{out}[i % 4] = {pick(numbers)}")
            lines.append(f"{out}[1:3] += 0.25")
            pool[out] = pool[x]
        else:
            x = pick(fours)
            lines.append(f"{out} = wichi.cond(np.sum({x}) > i * 0.1, np.cos, lambda z: z * 0.3, {pick(vectors)})")
            pool[out] = (20,)
    last = {s: [n for n, t in pool.items() if t == s][-1] for s in set(shapes.values())}
    lines.append("a, b, c, d = " + ", ".join(f"0.5 * {last[shapes[n]]} + 0.4 * {n}" for n in "abcd"))
    if rng.integers(2):
        lines.append("a[i % 5] = c")
    lines.append("return (a, b, c, d), c + np.sum(d)")
    return "def body(carry, i):\n    a, b, c, d = carry\n" + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize("seed", range(25))
def test_random_bodies(seed):
    rng = np.random.default_rng(seed)
    text = random_body(rng, "abcd")
    space = {"np": np, "wichi": wichi}
    exec(text, space)
    start = (rng.normal(size=20), rng.normal(size=(5, 4)), np.float64(0.3), rng.normal(size=4))

    def loss(carry):
        last, ys = wichi.scan(space["body"], carry, np.arange(4))
        return sum(np.sum(np.sin(x)) for x in last) + np.sum(ys)

    native = wichi.value_and_grad(loss)(start)
    with wichi.debug():
        expected = wichi.value_and_grad(loss)(start)
    for x, y in zip(wichi.pytree.leaves(native), wichi.pytree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11, err_msg=text)
    carry, total = start, 0.0
    for i in range(4):  # the same in plain NumPy
        carry, y = space["body"](tuple(np.array(x)[()] for x in carry), i)
        total += y
    total += sum(np.sum(np.sin(x)) for x in carry)
    np.testing.assert_allclose(native[0], total, rtol=1e-9, err_msg=text)

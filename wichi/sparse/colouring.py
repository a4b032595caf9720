"""Which columns of a sparse matrix can be computed by one product, and where the entries are found in the products.

Columns that meet in no row share a product (A. R. Curtis, M. J. D. Powell, J. K. Reid, "On the estimation of sparse
Jacobian matrices", 1974); of a symmetric matrix, where an entry can be read from its column or from its row, a star
colouring of its graph is enough. Survey: A. H. Gebremedhin, F. Manne, A. Pothen, "What color is your Jacobian? Graph
coloring for computing derivatives", SIAM Review 47, 2005; the bookkeeping of stars follows their and A. Tarafdar's
"New acyclic and star coloring algorithms", SIAM J. Sci. Comput. 29, 2007.

Sets of colours are Python integers: bit c stands for colour c.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wichi.sparse.sets import Ints

_NONE = -1  # the colour of a column without entries: no product has it


def columns(pattern: Any) -> Ints:
    """A colour for each column of a pattern (``csr_array``) so that no row meets a colour twice.

    Greedy, in the order of the columns and, where that is not the least there can be, with the fullest columns first.
    """
    by_column = pattern.tocsc()
    sizes = np.diff(by_column.indptr)
    least = int(np.diff(pattern.indptr).max(initial=0))
    if least == np.count_nonzero(sizes):  # some row meets them all
        return np.where(sizes > 0, np.cumsum(sizes > 0) - 1, _NONE)
    colours = _greedy(by_column, np.arange(len(sizes)))
    if count(colours) > least:
        other = _greedy(by_column, np.argsort(-sizes, kind="stable"))
        colours = min(colours, other, key=count)
    return colours


def _greedy(by_column: Any, order: Ints) -> Ints:
    starts, rows = by_column.indptr.tolist(), by_column.indices.tolist()
    met = [0] * by_column.shape[0]  # of each row, the colours that it has met
    colours = np.full(by_column.shape[1], _NONE)
    for column in order.tolist():
        its_rows = rows[starts[column] : starts[column + 1]]
        if not its_rows:
            continue
        taken = 0
        for row in its_rows:
            taken |= met[row]
        bit = ~taken & (taken + 1)  # the lowest that is free
        for row in its_rows:
            met[row] |= bit
        colours[column] = bit.bit_length() - 1
    return colours


def star(pattern: Any) -> Ints:
    """A colour for each column of a symmetric pattern: neighbours differ, and so do three on a path of four.

    Greedy, the fullest columns first. For a vertex v to be coloured, a colour is taken if one of its neighbours w has
    it; or if it would close a path of four in two colours with v at its end (v, w, x, y: kept in ``closed[w]``), or
    with v within (x, w, v, y: where v has two neighbours of one colour, all colours around these).
    """
    sizes = np.diff(pattern.indptr)
    starts, neighbours = pattern.indptr.tolist(), pattern.indices.tolist()
    n = pattern.shape[0]
    if len(neighbours) == n * n:
        return np.arange(n)
    bits, once, twice, closed = [0] * n, [0] * n, [0] * n, [0] * n  # once, twice: colours met around a vertex
    for v in np.argsort(-sizes, kind="stable").tolist():
        around = [w for w in neighbours[starts[v] : starts[v + 1]] if w != v]
        if starts[v] == starts[v + 1]:
            continue
        taken = 0
        for w in around:
            taken |= bits[w] | closed[w]
            if bits[w] & twice[v]:
                taken |= once[w]
        bit = bits[v] = ~taken & (taken + 1)
        for w in around:
            if not once[w] & bit:
                once[w] |= bit
            elif not twice[w] & bit:  # v and another one: a path v, w, that one is in two colours
                twice[w] |= bit
                for u in neighbours[starts[w] : starts[w + 1]]:
                    if bits[u] == bit and u != w:
                        closed[u] |= bits[w]
            else:
                closed[v] |= bits[w]
            if bits[w] & twice[v]:
                closed[w] |= bit
    return np.array([b.bit_length() - 1 for b in bits], np.int64).reshape(n)


def count(colours: Ints) -> int:
    """How many colours there are."""
    return int(colours.max(initial=_NONE)) + 1


def places_by_columns(pattern: Any, colours: Ints) -> Ints:
    """For each entry of a pattern its place in the products by columns, an array of (colours, rows) in C order."""
    places: Ints = colours[pattern.indices] * pattern.shape[0] + _rows(pattern)
    return places


def places_by_rows(pattern: Any, colours: Ints) -> Ints:
    """The same in products by rows, of (colours, columns), for colours of the rows."""
    places: Ints = colours[_rows(pattern)] * pattern.shape[1] + pattern.indices
    return places


def places_in_symmetric(pattern: Any, colours: Ints) -> Ints:
    """The same for a symmetric pattern and a star colouring: read where no other entry has been added to it.

    Entry (i, j) stands in product colours[j] at i, alone unless row i has more columns of that colour; then it is read
    as (j, i).
    """
    places = places_by_columns(pattern, colours)
    _, inverse, found = np.unique(places, return_inverse=True, return_counts=True)
    return np.where(found[inverse] == 1, places, places_by_rows(pattern, colours))


def _rows(pattern: Any) -> Ints:
    """The row of each entry."""
    return np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))

"""Functions that a printed program calls, as text; each is printed where it is used."""

HELPERS = {
    "joined": '''def joined(lanes, combine):
    """The lanes of an accumulator, joined by halves."""
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [combine(lanes[i], lanes[i + half]) for i in range(half)]
    return lanes[0]''',
    "matrix": '''def matrix(buffer, offset, rows, columns, lead, transposed):
    """A matrix within a flat buffer, read as it lies."""
    step = buffer.itemsize
    strides = (step, lead * step) if transposed else (lead * step, step)
    return np.lib.stride_tricks.as_strided(buffer[offset:], (rows, columns), strides)''',
    "getrf": '''def getrf(m, n, a, lead, pivots):
    """LAPACK's: factors in the place of the matrix (columns; pivots count from 1)."""
    from scipy.linalg import lapack

    kind = lapack.dgetrf if a.dtype == np.float64 else lapack.sgetrf
    factors, found, info = kind(matrix(a, 0, m, n, lead, True))
    matrix(a, 0, m, n, lead, True)[...] = factors
    pivots[:n] = found + 1''',
    "getrs": """def getrs(trans, n, columns, a, lead, pivots, b, b_lead):
    from scipy.linalg import lapack

    kind = lapack.dgetrs if a.dtype == np.float64 else lapack.sgetrs
    right = matrix(b, 0, n, columns, b_lead, True)
    right[...] = kind(matrix(a, 0, n, n, lead, True), pivots[:n] - 1, right, trans=trans == "T")[0]""",
    "potrf": '''def potrf(triangle, n, a, lead):
    """The lower triangle of rows."""
    lower = matrix(a, 0, n, n, lead, False)
    lower[...] = np.linalg.cholesky(lower)''',
    "syevd": '''def syevd(job, triangle, n, a, lead, values, work, work_size, numbers, numbers_size):
    """Eigenvalues, and with job V the vectors in the place of the matrix, as columns."""
    columns = matrix(a, 0, n, n, lead, True)
    values[:n], vectors = np.linalg.eigh(columns, triangle)
    if job == "V":
        columns[...] = vectors''',
    "geqrf": '''def geqrf(m, n, a, lead, scales, work, work_size):
    """The factors of Q and R in the place of the matrix (columns)."""
    h, scales[:n] = np.linalg.qr(matrix(a, 0, m, n, lead, True), "raw")
    matrix(a, 0, m, n, lead, True)[...] = h.T''',
    "orgqr": '''def orgqr(m, n, count, a, lead, scales, work, work_size):
    """Q from its factors, in their place."""
    from scipy.linalg import lapack

    kind = lapack.dorgqr if a.dtype == np.float64 else lapack.sorgqr
    columns = matrix(a, 0, m, n, lead, True)
    columns[...] = kind(columns, scales[:count])[0]''',
    "gesdd": '''def gesdd(job, m, n, a, lead, s, u, u_lead, vt, vt_lead, work, work_size, numbers):
    """Singular values, and with job S the vectors that belong to them (columns)."""
    count = min(m, n)
    left, s[:count], right = np.linalg.svd(matrix(a, 0, m, n, lead, True), full_matrices=False)
    if job == "S":
        matrix(u, 0, m, count, u_lead, True)[...] = left
        matrix(vt, 0, count, n, vt_lead, True)[...] = right''',
    "trsm": '''def trsm(side, triangle, trans, diagonal, m, n, scale, a, lead, b, b_lead):
    """X A = B of columns, which is A X = B of rows with the other triangle."""
    rows = matrix(a, 0, n, n, lead, False)
    part = np.tril(rows) if triangle == "U" else np.triu(rows)
    right = matrix(b, 0, n, m, b_lead, False)
    right[...] = np.linalg.solve(part.T if trans == "T" else part, right)''',
    "stable_sort": '''def stable_sort(count, keys, spare, numbers=None, spare_numbers=None):
    """In place; numbers, where there are any, move as the keys do."""
    order = np.argsort(keys[:count], kind="stable")
    for moved in (keys, numbers):
        if moved is not None:
            moved[:count] = moved[:count][order]''',
    "search": '''def search(count, keys, apart, value, place, right):
    """Where in sorted keys a number belongs."""
    lying = np.lib.stride_tricks.as_strided(keys, (count,), (apart * keys.itemsize,))
    place[0] = np.searchsorted(lying, value[0], "right" if right else "left")''',
    "where": """def where(condition, x, y):
    return np.where(condition, x, y)[()]""",
    "erf": """def erf(x):
    from scipy.special import erf

    return erf(x)""",
    "erfc": """def erfc(x):
    from scipy.special import erfc

    return erfc(x)""",
    "softplus": """def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))""",
    "within": '''def within(arena, offset, dtype):
    """The memory of an intermediate array, from a byte of the arena on."""
    tail = arena[offset:]
    return tail[: len(tail) // dtype.itemsize * dtype.itemsize].view(dtype)''',
}

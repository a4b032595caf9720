"""What the native entry of a call reads, and the table that tells it what to expect.

Fields stand as in NumPy's public ``PyArrayObject_fields`` (``ndarraytypes.h``, part of its stable ABI) and CPython's
``PyFloatObject`` and ``PyCellObject``; ``fastcall`` tests each of them before use.
"""

# Where fields stand, in bytes from the start of the object, on 64-bit CPython with the GIL.
TYPE, DATA, NDIM, DIMS, DESCR, FLAGS = 8, 16, 24, 32, 56, 64
CELL_CONTENTS = 16
DENSE = 0x1 | 0x100  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED
WRITEABLE = 0x400  # NPY_ARRAY_WRITEABLE

# The table's head: what each of its first words holds.
(
    COUNT, DEBUGGING, ENTRY, SIZES, SCALARS, CELLS, NAMES, ARRAYS, WRITES, SPANS, YES, NO, GET_ITEM, INCREF, SAVE,
    RESTORE, STACK, HEAD,
) = range(18)  # fmt: skip
# STACK: bytes of the workspace that the entry takes from its stack; 0: its last argument is the workspace.
# WRITES: how many arguments are written into; they must lie apart from the SPANS arrays that are read.
# How a program argument is found: an array checked, one that is written too, one of our own, a captured array, or a
# Python float or NumPy scalar, whose number lies where an array has its data pointer.
GIVEN, WRITTEN, OWN, CAPTURED, NUMBER = range(5)

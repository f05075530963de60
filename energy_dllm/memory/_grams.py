"""Which lines share pieces of three tokens with a cue: a sieve before the exact sum over alignments."""

import numpy as np
from jaxtyping import Int, Integer, UInt32


WORDS = 32
"""Words of 32 bits a line: 1,024 bits, of which a line of 64 characters sets some 60."""


def signatures(columns: Integer[np.ndarray, "L M"], size: int) -> UInt32[np.ndarray, "W M"]:
    """One bit for each piece of three tokens that a line has, `(W, M)`; tokens are below `size`."""
    columns = columns.astype(np.int64)
    marks = np.zeros((WORDS, columns.shape[1]), np.uint32)
    for a, b, c in zip(columns, columns[1:], columns[2:], strict=False):
        here = np.flatnonzero(c < size)  # so are then the two before
        code = ((a[here] * size + b[here]) * size + c[here]).astype(np.uint32)
        bit = (code * np.uint32(2654435761)) >> np.uint32(22)
        marks[bit >> np.uint32(5), here] |= np.uint32(1) << (bit & np.uint32(31))
    return marks


def shared(marks: UInt32[np.ndarray, "W M"], cue: UInt32[np.ndarray, " W"]) -> Int[np.ndarray, " M"]:
    """How many of the cue's bits each line has `(M,)`."""
    counts = np.zeros(marks.shape[1], np.uint16)
    for word in np.flatnonzero(cue):
        counts += np.bitwise_count(marks[word] & cue[word])
    return counts.astype(np.int64)

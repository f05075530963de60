"""What a pattern is about: text, of which an automaton reads one symbol at a time, a character or a byte of UTF-8."""

import functools
import sys
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Integer

from ._byte_pairs import BytePairs
from ._tokenizer import AbstractTokenizer, Bytes, Characters


END = -1
Shape = list[list[tuple[frozenset[int], int]]]
"""The symbols of one character: from node 0, arrows by sets of symbols to further nodes or to the `END`."""


class Symbols:
    """The characters a tokenizer can write, as numbers: one each, or the bytes of their UTF-8.

    - `points`: code points of all characters that can be written, increasing.
    - `size`: number of symbols; `spelling`: those of each token, empty for one that is no text by itself.
    """

    def __init__(self, tokenizer: AbstractTokenizer):
        self.bytes = isinstance(tokenizer, Bytes | BytePairs)
        if self.bytes:
            self.points, self.size = _everything(), 256
            spelling = tokenizer.spelling if isinstance(tokenizer, BytePairs) else [[n] for n in range(256)]
            self.spelling = [list(token) for token in spelling]
            return
        texts = [tokenizer.decode(np.array([n])) for n in range(tokenizer.size)]
        if not isinstance(tokenizer, Characters):  # whose tokens are whole characters
            texts = ["" if "\N{REPLACEMENT CHARACTER}" in text else text for text in texts]
        self.points = np.unique([ord(c) for text in texts for c in text]) if any(texts) else np.zeros(0, np.int64)
        self.size = len(self.points)
        number = {chr(point): n for n, point in enumerate(self.points.tolist())}
        self.spelling = [[number[c] for c in text] for text in texts]

    def some(self, test: Callable[[str], bool]) -> Bool[np.ndarray, " points"]:
        """Of which characters something is true."""
        if self.bytes:
            return _tested(test)
        return np.array([test(chr(point)) for point in self.points.tolist()], bool)

    def between(self, first: str, last: str) -> Bool[np.ndarray, " points"]:
        """Which characters lie in a range."""
        chosen = np.zeros(len(self.points), bool)
        chosen[slice(*np.searchsorted(self.points, [ord(first), ord(last) + 1]))] = True
        return chosen

    def shape(self, chosen: Bool[np.ndarray, " points"]) -> Shape:
        """How any of the chosen characters is written in symbols."""
        if not self.bytes:
            return [[(frozenset(np.flatnonzero(chosen).tolist()), END)]]
        points = self.points[chosen]
        if len(points) == 1:
            code = chr(points[0]).encode()
            return [[(frozenset([byte]), n + 1 if n + 1 < len(code) else END)] for n, byte in enumerate(code)]
        return _encoded(points)


@functools.cache
def _everything() -> Integer[np.ndarray, " points"]:
    """All code points but the surrogates, which no text has."""
    points = np.arange(sys.maxunicode + 1)
    return points[(points < 0xD800) | (points > 0xDFFF)]


@functools.cache
def _tested(test: Callable[[str], bool]) -> Bool[np.ndarray, " points"]:
    """Asked once of a million characters."""
    return np.fromiter(map(test, map(chr, _everything().tolist())), bool)


def _encoded(points: Integer[np.ndarray, " n"]) -> Shape:
    """The bytes of these characters in UTF-8, as nodes that are shared where what follows is the same."""
    nodes: dict[tuple[tuple[int, ...], int], int] = {}  # its children in order, and the byte of the first of them
    rows: Shape = [[]]

    def node(children: Integer[np.ndarray, " n"], first: int) -> int:
        key = (tuple(children.tolist()), first)
        if key not in nodes:
            arrows = [
                (frozenset((first + np.flatnonzero(children == child)).tolist()), int(child))
                for child in np.unique(children[children != 0])
            ]
            rows.append(arrows)
            nodes[key] = len(rows) - 1
        return nodes[key]

    def level(children: Integer[np.ndarray, "n 64"]) -> Integer[np.ndarray, " n"]:
        """A node for every 64 continuation bytes; 0 where none of them leads anywhere."""
        kinds, which = np.unique(children, axis=0, return_inverse=True)
        return np.array([node(kind, 0x80) if kind.any() else 0 for kind in kinds])[which.ravel()]

    here = np.zeros(1 << 21, bool)
    here[points] = True
    # the last bytes, 64 at a time as one number: most of them are alike
    sets, which = np.unique(np.packbits(here).view(np.uint64), return_inverse=True)
    last = level(END * np.unpackbits(sets.view(np.uint8)).astype(np.int64).reshape(-1, 64))[which]
    start = np.zeros(256, np.int64)
    start[:0x80] = END * here[:0x80]
    start[0xC2:0xE0] = last[2:32]
    start[0xE0:0xF0] = level(np.where(np.arange(1024) < 32, 0, last[:1024]).reshape(-1, 64))
    start[0xF0:0xF8] = level(level(np.where(np.arange(1 << 15) < 1024, 0, last).reshape(-1, 64)).reshape(-1, 64))
    rows[0] = [
        (frozenset(np.flatnonzero(start == child).tolist()), int(child)) for child in np.unique(start[start != 0])
    ]
    return rows

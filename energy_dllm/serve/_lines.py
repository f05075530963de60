"""Passages that are written together from left to right, any of which may come or leave between two pieces."""

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .._checks import on_device
from ._passage import AHEAD, FIRST, Line, Moment, Page, Rows, ahead, beginning, put
from ._task import ORDER, Passage, Shown, page_of


class Programs:
    """Those of one energy, whose arrays are looked up once: a piece is soon computed, and a call should be as short."""

    def __init__(self, energy: Any):
        self.energy = energy
        arrays, rest = eqx.partition(energy, eqx.is_array)
        self.leaves, tree = jax.tree.flatten(arrays)
        whole: Any = lambda leaves: eqx.combine(jax.tree.unflatten(tree, leaves), rest)
        self._beginning = jax.jit(lambda leaves, page, state: beginning(whole(leaves), page, state))
        written: Any = lambda leaves, rows, count: ahead(whole(leaves), rows, count)
        self._ahead = jax.jit(written, donate_argnums=1, static_argnums=2)
        self.put = jax.jit(put, donate_argnums=0)

    @functools.cached_property
    def prior(self) -> np.ndarray:
        """Log-probabilities `(V,)` of a token of which nothing is known."""
        nothing = np.zeros((1, self.energy.size), self.energy.vocabulary.codes.dtype)
        read = jax.jit(lambda b: jax.nn.log_softmax(self.energy.logits(self.energy.neutral(1), b)))
        return np.asarray(read(on_device(nothing)))[0]

    def beginning(self, page: Page, state: np.ndarray) -> Line:
        """As the function."""
        return self._beginning(self.leaves, page, state)

    def ahead(self, rows: Rows, count: int) -> tuple[Rows, dict[str, jax.Array]]:
        """As the function; `rows` is used up."""
        return self._ahead(self.leaves, rows, count)


class Lines:
    """Batches on the device, row by row; a row that is free is written too, and not looked at.

    A row is read from its own page and place alone, so that its text does not depend on the others.
    """

    def __init__(self, programs: Programs):
        self.programs = programs
        self.rows: list[Row | None] = []
        self.batches: dict[int, Rows] = {}  # by size; what is in those that are not in use is not looked at

    def hold(self, passages: Sequence[Passage], size: int) -> None:
        """These passages and no others, in so many rows: what is new is read up to its first unknown token."""
        self.rows = [row if row is not None and row.passage in passages else None for row in self.rows]
        there = [row.passage for row in self.rows if row is not None]
        for passage in passages:
            if passage not in there:
                assert passage.pattern is not None
                page, state = page_of(passage), np.array(passage.state, np.int32)
                made = page, self.programs.beginning(page, state), passage.pattern
                self._resize(size, made)
                n = self.rows.index(None)
                self.rows[n] = Row(passage)
                self.batches[size] = self.programs.put(self.batches[size], made, np.int32(n))
        self._resize(size, None)

    def piece(self) -> list[tuple[Passage, Shown | None, int]]:
        """The next tokens of every passage: what is shown, if it is looked at, and how many they are. Fewer, if one is
        looked at for the first time."""
        rows, size = [row for row in self.rows if row is not None], len(self.rows)
        begins = any(row.passage.watched and not row.pieces for row in rows)
        self.batches[size], found = self.programs.ahead(self.batches[size], FIRST if begins else AHEAD)
        found = jax.tree.map(np.asarray, found)
        of = lambda n: {name: each[n] for name, each in found.items()}
        return [(row.passage, *row.take(of(n))) for n, row in enumerate(self.rows) if row is not None]

    def _resize(self, size: int, like: Rows | None) -> None:
        """By way of the host, so that nothing is compiled; `like` is a row, where there is none yet."""
        if len(self.rows) == size:
            return
        kept = [n for n, row in enumerate(self.rows) if row is not None]
        if kept:
            copies = [*kept, *[0] * (size - len(kept))]
            some = lambda leaf: on_device(np.asarray(leaf)[copies])
            self.batches[size] = jax.tree.map(some, self.batches[len(self.rows)])
        elif size not in self.batches:
            self.batches[size] = jax.tree.map(lambda leaf: on_device(np.stack([np.asarray(leaf)] * size)), like)
        self.rows = [*(self.rows[n] for n in kept), *[None] * (size - len(kept))]


class Row:
    """A passage, from its first unknown token on, and what is written of it."""

    def __init__(self, passage: Passage):
        self.passage, self.begin = passage, int(np.argmin(passage.known))
        self.stands, self.pieces = self.begin, []

    def take(self, piece: dict[str, np.ndarray]) -> tuple[Shown | None, int]:
        """What is shown of it, and how many tokens are new."""
        passage, begin = self.passage, self.stands
        self.pieces.append(piece)
        self.stands = min(begin + len(piece["ids"]), passage.size)
        shown = self._shown() if passage.watched or self.stands == passage.size else None
        return shown, self.stands - begin

    def _shown(self) -> Shown:
        passage, found, here = self.passage, {}, slice(self.begin, self.stands)
        for name, first in self.pieces[0].items():
            found[name] = np.zeros((len(passage.ids), *first.shape[1:]), first.dtype)
            found[name][here] = np.concatenate([piece[name] for piece in self.pieces])[: self.stands - self.begin]
        free = -np.sum(found["log_p"], where=~passage.known)
        moment = Moment(**found, free_energy=free, sigma=np.zeros_like(free))
        return Shown(moment, self.stands - self.begin, passage.size - self.begin, self.stands, ORDER)

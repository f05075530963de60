"""Passages that are written together from left to right, any of which may come or leave between two pieces."""

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .._checks import on_device
from ._passage import AHEAD, Line, Moment, Page, Rows, ahead, beginning, put
from ._task import ORDER, Passage, Shown, page_of


class Programs:
    """Those of one energy, whose arrays are looked up once: a piece is soon computed, and a call should be as short."""

    def __init__(self, energy: Any):
        self.energy = energy
        arrays, rest = eqx.partition(energy, eqx.is_array)
        self.leaves, tree = jax.tree.flatten(arrays)
        whole: Any = lambda leaves: eqx.combine(jax.tree.unflatten(tree, leaves), rest)
        self._beginning = jax.jit(lambda leaves, page, state: beginning(whole(leaves), page, state))
        self._ahead = jax.jit(lambda leaves, rows: ahead(whole(leaves), rows), donate_argnums=1)
        self.put = jax.jit(put, donate_argnums=0)

    @functools.cached_property
    def prior(self) -> np.ndarray:
        """Log-probabilities `(V,)` of a token of which nothing is known."""
        nothing = np.zeros((1, self.energy.size), self.energy.vocabulary.codes.dtype)
        read = jax.jit(lambda b: jax.nn.log_softmax(self.energy.logits(self.energy.neutral(1), b)))
        return np.asarray(read(on_device(nothing)))[0]

    def beginning(self, page: Page, state: jax.Array) -> Line:
        """As the function."""
        return self._beginning(self.leaves, page, state)

    def ahead(self, rows: Rows) -> tuple[Rows, dict[str, jax.Array]]:
        """As the function; `rows` is used up."""
        return self._ahead(self.leaves, rows)


class Lines:
    """A batch on the device, row by row; one that is free is written too, and not looked at.

    A row is read from its own page and place alone, so that its text does not depend on the others.
    """

    def __init__(self, programs: Programs):
        self.programs = programs
        self.rows: list[Row | None] = []
        self.arrays: Rows | None = None

    def hold(self, passages: Sequence[Passage], size: int) -> None:
        """These passages and no others, in so many rows: what is new is read up to its first unknown token."""
        self.rows = [row if row is not None and row.passage in passages else None for row in self.rows]
        there = [row.passage for row in self.rows if row is not None]
        for passage in passages:
            if passage not in there:
                assert passage.pattern is not None
                page, pattern = jax.tree.map(on_device, (page_of(passage), passage.pattern))
                made = page, self.programs.beginning(page, on_device(np.array(passage.state, np.int32))), pattern
                self._resize(size, made)
                n = self.rows.index(None)
                self.rows[n], self.arrays = Row(passage), self.programs.put(self.arrays, made, np.int32(n))
        self._resize(size, None)

    def piece(self) -> list[tuple[Passage, Shown | None, int]]:
        """The next tokens of every passage: what is shown, if it is looked at, and how many they are."""
        assert self.arrays is not None
        self.arrays, found = self.programs.ahead(self.arrays)
        found = jax.tree.map(np.asarray, found)
        of = lambda n: {name: rows[n] for name, rows in found.items()}
        return [(row.passage, *row.take(of(n))) for n, row in enumerate(self.rows) if row is not None]

    def _resize(self, size: int, like: Rows | None) -> None:
        """By way of the host, so that nothing is compiled; `like` is a row, where there is none yet."""
        if len(self.rows) == size:
            return
        kept = [n for n, row in enumerate(self.rows) if row is not None]
        copies = [*kept, *[0] * (size - len(kept))]
        one = lambda leaf: on_device(np.stack([leaf] * size))
        some = lambda leaf: on_device(np.asarray(leaf)[copies])
        self.arrays = jax.tree.map(one, like) if self.arrays is None else jax.tree.map(some, self.arrays)
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
        self.stands = min(begin + AHEAD, passage.size)
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

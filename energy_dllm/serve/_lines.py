"""Passages that are written together from left to right, any of which may come or leave between two pieces."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .._checks import on_device
from ..energy import FreeEnergy
from ._passage import AHEAD, Line, Moment, Page, ahead, beginning, put
from ._task import ORDER, Passage, Shown, page_of


class Programs:
    """Those of one energy, whose arrays are looked up once: a piece is soon computed, and a call should be as short."""

    def __init__(self, energy: FreeEnergy):
        arrays, rest = eqx.partition(energy, eqx.is_array)
        self.leaves, tree = jax.tree.flatten(arrays)
        whole: Any = lambda leaves: eqx.combine(jax.tree.unflatten(tree, leaves), rest)
        self._beginning = jax.jit(lambda leaves, page: beginning(whole(leaves), page))
        self._ahead = jax.jit(lambda leaves, rows: ahead(whole(leaves), rows), donate_argnums=1)
        self.put = jax.jit(put, donate_argnums=0)

    def beginning(self, page: Page) -> Line:
        """As the function."""
        return self._beginning(self.leaves, page)

    def ahead(self, rows: tuple[Page, Line]) -> tuple[tuple[Page, Line], dict[str, jax.Array]]:
        """As the function; `rows` is used up."""
        return self._ahead(self.leaves, rows)


class Lines:
    """A batch on the device, row by row; one that is free is written too, and not looked at.

    A row is read from its own page and place alone, so that its text does not depend on the others.
    """

    def __init__(self, programs: Programs):
        self.programs = programs
        self.rows: list[Row | None] = []
        self.arrays: tuple[Page, Line] | None = None

    def hold(self, passages: Sequence[Passage], size: int) -> None:
        """These passages and no others, in so many rows: what is new is read up to its first unknown token."""
        self.rows = [row if row is not None and row.passage in passages else None for row in self.rows]
        there = [row.passage for row in self.rows if row is not None]
        for passage in passages:
            if passage not in there:
                page = jax.tree.map(on_device, page_of(passage))
                made = page, self.programs.beginning(page)
                self._resize(size, made)
                n = self.rows.index(None)
                self.rows[n], self.arrays = Row(passage), self.programs.put(self.arrays, made, np.int32(n))
        self._resize(size, None)

    def piece(self) -> list[tuple[Passage, Shown, int]]:
        """The next tokens of every passage, and how many they are."""
        assert self.arrays is not None
        self.arrays, found = self.programs.ahead(self.arrays)
        found = jax.tree.map(np.asarray, found)
        of = lambda n: {name: rows[n] for name, rows in found.items()}
        return [(row.passage, *row.take(of(n))) for n, row in enumerate(self.rows) if row is not None]

    def _resize(self, size: int, like: tuple[Page, Line] | None) -> None:
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
        self.stands, self.found = self.begin, {}

    def take(self, piece: dict[str, np.ndarray]) -> tuple[Shown, int]:
        """What stands now, and how many tokens are new."""
        passage, begin = self.passage, self.stands
        self.stands = min(begin + AHEAD, passage.size)
        for name, rows in piece.items():
            empty = np.zeros((len(passage.ids), *rows.shape[1:]), rows.dtype)
            self.found[name] = self.found.get(name, empty).copy()  # what was shown before is not touched
            self.found[name][begin : self.stands] = rows[: self.stands - begin]
        free = -np.sum(self.found["log_p"], where=~passage.known)
        moment = Moment(**self.found, free_energy=free, sigma=np.zeros_like(free))
        done, count = self.stands - self.begin, passage.size - self.begin
        return Shown(moment, done, count, self.stands, ORDER), self.stands - begin

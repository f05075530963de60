"""What the engine computes: passages, and calls of anything else."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer

from ..flow import FORBIDDEN
from ._automaton import Strict
from ._passage import Moment


class Shown(NamedTuple):
    """A moment of one passage: how many pieces of how many are done, and how many tokens from the left stand."""

    moment: Moment
    piece: int
    pieces: int
    stands: int


@dataclasses.dataclass(eq=False)
class Passage:
    """A passage that is to be written, at one of the engine's lengths `L`.

    - `model`: its name.
    - `ids (L,)`, `known (L,)`: given tokens. `b (L, V)`: other evidence.
    - `size`: its tokens; what is behind them is free, and cut away.
    - `temperature`, `key`: of the noise: the same key gives the same passage.
    - `steps`: of the descent, a multiple of `PIECE`.
    - `commit`: whether tokens become given as soon as they are shown: after each piece as large a share of them, from
      the left, as of the descent is done.
    - `strict`: an automaton that it has to match.
    - `deliver`: called by the thread that writes: with `Shown` moments, with `None` at the end, or with an error.
    - `cancelled`: set when nobody waits for it any more.
    """

    model: str
    ids: Integer[np.ndarray, " L"]
    known: Bool[np.ndarray, " L"]
    b: Float[np.ndarray, "L V"]
    size: int
    temperature: float
    key: jax.Array
    steps: int
    commit: bool
    strict: Strict | None
    deliver: Callable[[Any], object]
    cancelled: bool = False

    def __post_init__(self):
        self.holes = int(np.count_nonzero(~self.known[: self.size]))
        self.stands, self.state, self.written = 0, 0, 0
        self.restrict()

    @property
    def shape(self) -> tuple[str, int, int]:
        """What has to be alike for passages to be written together."""
        return self.model, len(self.ids), self.steps

    @property
    def open(self) -> Bool[np.ndarray, "L V"]:
        """Which tokens evidence about single places leaves open."""
        only = np.arange(self.b.shape[1]) == self.ids[:, None]
        return np.where(self.known[:, None], only, self.b > FORBIDDEN / 2)

    def restrict(self) -> None:
        """Exclude what no accepted text has."""
        if self.strict is not None:
            open = self.strict.open(self.open, self.state, self.stands)
            self.b = np.where(open, self.b, FORBIDDEN).astype(self.b.dtype)

    def commit_to(self, ids: Integer[np.ndarray, " L"], share: float) -> None:
        """Tokens from the left become given, up to a share of all that are written."""
        due, before = int(np.ceil(share * self.holes)) - self.written, self.stands
        while self.stands < self.size and (self.known[self.stands] or due > 0):
            place, token = self.stands, int(ids[self.stands])
            if self.strict is not None:
                after = self.strict.follow(self.state, token, place)
                if after is None:  # no accepted text goes on like this; another token may come to stand here
                    break
                self.state = after
            if not self.known[place]:
                self.ids[place], self.known[place] = token, True
                self.written, due = self.written + 1, due - 1
            self.stands += 1
        if self.stands > before:
            self.restrict()


@dataclasses.dataclass(eq=False)
class Call:
    """Anything else: a function of no arguments, whose value is delivered."""

    function: Callable[[], Any]
    deliver: Callable[[Any], object]
    cancelled: bool = False

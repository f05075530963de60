"""What the engine computes: passages, and calls of anything else."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt32

from .._checks import on_device
from ..energy import DFA
from ..flow import FORBIDDEN
from ._automaton import Strict
from ._passage import PIECE, Moment, Page, Pattern


ORDER = "left to right"
"""How a passage is written that stands from its beginning."""


SETTLED = -1
"""The `way` of a descent whose hidden state is taken from neutral anew at every evaluation, as of a picture."""


Way = int | tuple[int, int]
"""How a passage is written. From left to right: the states of its `pattern`, 1 without one. As a whole: 0, `SETTLED`,
or the states and kinds of tokens of its `dfa`."""


def in_order(way: Way) -> bool:
    """Whether it is from left to right."""
    return isinstance(way, int) and way > 0


class Shown(NamedTuple):
    """A moment of one passage: force evaluations that are made, of all; and how many tokens from the left stand.
    `motion` is `descent`, `redraw`, or `ORDER`."""

    moment: Moment
    evaluations: int
    budget: int
    stands: int
    motion: str

    @property
    def final(self) -> bool:
        """Whether it is the last one."""
        return self.evaluations == self.budget

    @property
    def in_order(self) -> bool:
        """Whether what stands is all there is."""
        return self.motion == ORDER


class Budget(NamedTuple):
    """Force evaluations as `sampling.descent` divides them: steps of the descent, then rounds in which the least
    certain tokens are drawn anew, and one relaxation before those."""

    steps: int
    rounds: int

    @classmethod
    def of(cls, evaluations: int) -> "Budget":
        """Steps in whole pieces."""
        steps = max(PIECE, round((evaluations - evaluations // 3 - 1) / PIECE) * PIECE)
        return cls(steps, max(0, evaluations - steps - 1))

    @property
    def evaluations(self) -> int:
        """All of them."""
        return self.steps + (self.rounds + 1 if self.rounds else 0)


@dataclasses.dataclass(eq=False)
class Passage:
    """A passage that is to be written, at one of the engine's lengths `L`.

    - `model`: its name.
    - `ids (L,)`, `known (L,)`: given tokens. `b (L, V)`: other evidence.
    - `size`: its tokens; what is behind them is free, and cut away.
    - `temperature`, `keys (2, 2)`: of the noise, and of the draws: the same keys give the same passage.
    - `budget`: steps and rounds.
    - `commit`: whether tokens become given as soon as they are shown: as large a share of them, from the left, as of
      the budget is spent.
    - `strict`: an automaton that it has to match. Without a `dfa` it reads out the text after the steps.
    - `way`: how it is written.
    - `deliver`: called by the thread that writes: with `Shown` moments, with `None` at the end, or with an error.
    - `cancelled`: set when nobody waits for it any more.
    - `pattern`, `state`: from left to right its automaton, and the state before its first unknown token.
    - `dfa`: as a whole its automaton, part of the energy; of too many states it has none.
    - `watched`: whether moments before its end are looked at; from left to right they are not made else.
    """

    model: str
    ids: Integer[np.ndarray, " L"]
    known: Bool[np.ndarray, " L"]
    b: Float[np.ndarray, "L V"]
    size: int
    temperature: float
    keys: UInt32[np.ndarray, "2 _"]
    budget: Budget
    commit: bool
    strict: Strict | None
    way: Way
    deliver: Callable[[Any], object]
    cancelled: bool = False
    pattern: Pattern | None = None
    state: int = 0
    dfa: DFA | None = None
    watched: bool = True

    def __post_init__(self):
        self.holes = int(np.count_nonzero(~self.known[: self.size]))
        self.stands, self.written = 0, 0
        self.restrict()

    @property
    def shape(self) -> tuple[str, int, Way, Budget]:
        """What has to be alike for passages to be written together."""
        return self.model, len(self.ids), self.way, self.budget

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

    def commit_to(self, ids: Integer[np.ndarray, " L"], there: Bool[np.ndarray, " L"], share: float) -> None:
        """Tokens from the left become given, as far as they are `there`, up to a share of all that are written."""
        due, before = int(np.ceil(share * self.holes)) - self.written, self.stands
        while self.stands < self.size and (self.known[self.stands] or due > 0):
            place, token = self.stands, int(ids[self.stands])
            if not (there[place] or self.known[place]):
                break
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


def page_of(passage: Passage) -> Page:
    """Its arrays."""
    dtype = passage.b.dtype
    ids, known = passage.ids.astype(np.int32), passage.known.astype(bool)
    return Page(ids, known, passage.b, np.asarray(passage.temperature, dtype), passage.keys, passage.dfa)  # pyright: ignore


def pages_of(passages: Sequence[Passage], size: int) -> Page:
    """Their arrays on the device, padded to a batch by copies of the first."""
    rows = [page_of(passage) for passage in [*passages, *[passages[0]] * (size - len(passages))]]
    return jax.tree.map(lambda *leaves: on_device(np.stack(leaves)), *rows)


def row(tree: Any, n: int) -> Any:
    """Of a batch."""
    return jax.tree.map(lambda leaf: leaf[n], tree)

"""From a cue to the line that was meant: a sieve over all lines, the exact energy of those that are left."""

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from ..energy import PairHMMMixture
from ..flow import Typo
from ._grams import shared, signatures


TYPOS = (1e-4, 0.04, 0.15, 0.35, 0.6)
GAPS = (1e-6, 0.06)
"""Rates of mistyped and of inserted or left-out characters, over which a cue's own are unknown."""

CLEAN = 0.999
"""Share of cues expected to be without errors. Near one: an error needs evidence from the rest of the cue, so that a
short cue is not assigned to one of many lines that it merely resembles."""

SIEVE = 64
"""Lines for which the sum over alignments is taken, where more are stored."""

THRESHOLD = 0.985
"""Posterior mass of all lines together from which on a cue counts as recalled; see `benchmarks/text_memory.py`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Recall:
    """What `TextMemory.recall` returns.

    - `text`: the line that was meant, or `None`: not stored.
    - `best`: the likeliest line in any case. `index`: its number in the memory. `places`: the numbers of all lines that
      are the same as this one (in all but capitals and marks, if those are `normalized`), which count as one.
    - `exact`: whether the cue is this line, letter by letter (again, of what is compared); then the answer is certain.
    - `normalized`: whether capitals, accents and vowel marks were left out of the comparison.
    - `stored`: posterior probability that the cue comes from any stored line.
    - `mass`: posterior probability that it comes from this one.
    - `margin`: how far the next explanation lies above it in nats, another line or none of them; infinite if certain.
    - `nearest`: the likeliest lines and their masses, the best first.
    - `free_energy`: `F` in nats.
    - `typo`, `gap`: the rates of errors that explain the cue best by this line; `None` where the cue is evidence.
    """

    text: str | None
    best: str
    index: int
    places: tuple[int, ...]
    exact: bool
    normalized: bool
    stored: float
    mass: float
    margin: float
    nearest: list[tuple[str, float]]
    free_energy: float
    typo: float | None
    gap: float | None


def judged(
    masses: Float[np.ndarray, "Q G terms"],
    rest: Float[np.ndarray, " Q"],
    numbers: Integer[np.ndarray, " K"],
    read: Callable[[int], tuple[str, int, tuple[int, ...]]],
    threshold: float,
    clean: float = CLEAN,
    typos: Sequence[float] | Float[np.ndarray, " Q"] = (),
    gaps: Sequence[float] = (),
    exact: int | None = None,
    normalized: bool = False,
) -> Recall:
    """The `Recall` from log masses at each pair of rates: of background, lines `numbers`, and `rest` of all others.

    `read` maps a number to the line, its index and those of its copies. An `exact` line has probability 1.
    """
    prior = log_prior(masses.shape[0], masses.shape[1], clean)
    joint = prior[:, :, None] + masses.astype(np.float64)
    others = rest + np.logaddexp.reduce(prior, axis=1)
    total = np.logaddexp(np.logaddexp.reduce(joint, axis=None), np.logaddexp.reduce(others))
    terms = np.logaddexp.reduce(joint, axis=(0, 1))
    if exact is not None:
        terms[np.append(-1, numbers) != exact] = -np.inf
    p = np.exp(terms - (total if exact is None else terms.max()))
    order = np.argsort(-terms[1:], kind="stable")
    best = order[0] + 1
    q, g = divmod(int(np.argmax(joint[:, :, best])), prior.shape[1])
    stored = float(1.0 - p[0])
    text, index, places = read(int(numbers[best - 1]))
    return Recall(
        text=text if stored >= threshold else None,
        best=text,
        index=index,
        places=places,
        exact=exact is not None,
        normalized=normalized,
        stored=stored,
        mass=float(p[best]),
        margin=float(terms[best] - np.delete(terms, best).max()),
        nearest=[(read(int(numbers[k]))[0], float(p[k + 1])) for k in order[:5]],
        free_energy=float(-total),
        typo=float(typos[q]) if len(typos) else None,
        gap=float(gaps[g]) if len(gaps) else None,
    )


def log_prior(typos: int, gaps: int, clean: float) -> Float[np.ndarray, "Q G"]:
    """Log probability of each pair of rates, the smallest pair being that of a cue without errors."""
    if typos * gaps == 1:
        return np.zeros((1, 1))
    prior = np.full((typos, gaps), np.log((1.0 - clean) / (typos * gaps - 1)))
    prior[0, 0] = np.log(clean)
    return prior


@dataclasses.dataclass(frozen=True, eq=False)
class Cue:
    """A typed cue: tokens `(N,)`, and which of them are known and of the alphabet."""

    ids: Int[np.ndarray, " N"]
    seen: Bool[np.ndarray, " N"]

    def padded(self) -> tuple[Int[np.ndarray, " P"], Bool[np.ndarray, " P"], Bool[np.ndarray, " P"]]:
        """Tokens, which are seen and which exist, up to a multiple of 16: few lengths, few compilations."""
        more = (0, -len(self.ids) % 16)
        return np.pad(self.ids, more), np.pad(self.seen, more), np.pad(np.ones(len(self.ids), bool), more)


def agreement(
    cue: Cue, columns: Integer[np.ndarray, "L M"], lengths: Integer[np.ndarray, " M"]
) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """How many places of the cue agree with each line laid beside it, and how many it reaches, `(M,)`."""
    agree = np.zeros(columns.shape[1], np.uint16)
    for column, token, seen in zip(columns, cue.ids, cue.seen, strict=False):
        if seen:
            agree += column == token
    return agree.astype(np.int64), np.minimum(lengths, len(cue.ids))


def beside(
    cue: Cue, token: Float[np.ndarray, " V"], typos: Float[np.ndarray, " Q"]
) -> Float[np.ndarray, "Q places agree"]:
    """`sum_i b_i` of a line that reaches so many places and agrees in so many of them, for each rate of typos."""
    wrong = typos[:, None] / len(token)
    right = 1.0 - typos[:, None] + wrong
    known = np.concatenate([[0], np.cumsum(cue.seen)])
    anything = np.where(cue.seen, np.log((1.0 - typos[:, None]) * token[cue.ids] + wrong), 0.0)
    behind = np.cumsum(np.pad(anything, ((0, 0), (0, 1)))[:, ::-1], axis=1)[:, ::-1]
    agree = np.arange(len(cue.ids) + 1)
    scores = agree * np.log(right)[:, :, None] + (known[:, None] - agree) * np.log(wrong)[:, :, None]
    return np.where(agree <= known[:, None], scores + behind[:, :, None], -np.inf)


def sifted(
    cue: Cue,
    scores: Float[np.ndarray, " M"],
    grams: Integer[np.ndarray, "W M"],
    size: int,
    keep: int,
) -> Integer[np.ndarray, " K"]:
    """Lines for which alignments are summed: those that agree best in place, and those that share most pieces."""
    pieces = np.where(cue.seen, cue.ids, size)[:, None]
    # a piece with an unknown token is none: the mark is made for whole ones only
    whole = np.flatnonzero(np.convolve(cue.seen, np.ones(3, int), "valid") == 3) if len(cue.ids) >= 3 else []
    marks = np.zeros(grams.shape[0], np.uint32)
    for i in whole:
        marks |= signatures(pieces[i : i + 3], size)[:, 0]
    ranks = [scores] if not marks.any() else [scores, shared(grams, marks).astype(float)]
    each = keep // len(ranks)
    return np.unique(np.concatenate([np.argpartition(-rank, each)[:each] for rank in ranks]))


@eqx.filter_jit
def masses(
    lines: PairHMMMixture,
    ids: Int[Array, " P"],
    seen: Bool[Array, " P"],
    mask: Bool[Array, " P"],
    typos: Float[Array, " Q"],
    gaps: Float[Array, " G"],
) -> Float[Array, "Q G terms"]:
    """`PairHMMMixture.log_masses` at every pair of rates."""
    eye = jnp.eye(lines.background.size)

    def at(typo):
        b = Typo(ids, typo, seen).field(eye)
        return jax.vmap(lambda gap: lines.log_masses(b, gap=gap, mask=mask))(gaps)

    return jax.vmap(at)(typos)

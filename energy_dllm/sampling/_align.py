"""Missing and extra tokens: the alignment of the typed text with a passage that has the least free energy."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from .._checks import on_device
from .._types import Scalar
from ..energy import AbstractFreeEnergy, FreeEnergy
from ..flow import Typo, relax
from ._padding import padded_length


BATCH = 16
"""Alignments that relax in one batch, whose program serves any number of batches."""


class Aligned(NamedTuple):
    """A passage aligned with the typed text: the position of each token there, `-1` for an insertion `(L,)`; the
    probability of the insertion `(L,)`; the deleted positions with their probabilities; force evaluations."""

    origin: Integer[np.ndarray, " L"]
    trust: Float[np.ndarray, " L"]
    extra: dict[int, float]
    force_evaluations: int


def aligned(
    energy: AbstractFreeEnergy,
    seen: Integer[np.ndarray, " N"],
    known: Bool[np.ndarray, " N"],
    *,
    rate: float,
    shifts: int,
    steps: int,
    step: float,
    reader: FreeEnergy | None = None,
) -> Aligned:
    """At most `shifts` deletions and insertions, one by one, each the one that lowers `-log P(typed, alignment)` most:
    `-log rate` for the shift, `log V` for a deleted token, and what the tokens that are left cost. With a `reader`, the
    same energy in blocks of one, that is `-log P(w) - log P(typed | w)` of the likeliest tokens `w` at rest, by the
    chain rule; else `F` at rest less that of a masked passage."""
    alignment = Aligned(np.arange(seen.size), np.ones(seen.size), {}, 0)
    longest, cost = seen.size + shifts + 1, -np.log(rate)
    longest = padded_length(longest) if getattr(energy, "ragged", False) else longest
    for _ in range(shifts):
        origin = alignment.origin
        out = np.flatnonzero(origin >= 0) if origin.size > 1 else np.zeros(0, int)
        gaps = np.arange(origin.size + 1)
        moves = [origin, *(np.delete(origin, j) for j in out), *(np.insert(origin, j, -1) for j in gaps)]
        # masked passages of these lengths, for the normaliser; a chain rule has none
        count, lengths = len(moves), origin.size + np.arange(-1, 2)
        moves += [np.full(max(n, 1), -1) for n in lengths if reader is None]
        most = -(-len(moves) // BATCH) * BATCH
        rows = np.full((most, longest), -1)
        for row, each in zip(rows, moves, strict=False):
            row[: each.size] = each
        sizes = np.array([each.size for each in moves] + [1] * (most - len(moves)))
        here = np.arange(longest) < sizes[:, None]
        every = [seen[rows], (rows >= 0) & known[rows], here]
        batches = [[on_device(part[n : n + BATCH]) for part in every] for n in range(0, most, BATCH)]
        numbers = [on_device(np.asarray(number, energy.vocabulary.codes.dtype)) for number in (rate, step)]
        rest = np.concatenate([_costs(energy, reader, *batch, *numbers, steps) for batch in batches]).astype(float)
        prices = rest[:count]
        if reader is None:
            prices = prices - rest[count : count + 3][sizes[:count] - lengths[0]]
        prices[1:] += cost
        prices[1 : 1 + out.size] += np.log(energy.size)
        best = int(np.argmin(prices))
        alignment = alignment._replace(force_evaluations=alignment.force_evaluations + steps * most)
        if best == 0:
            break
        # among all alignments one shift away, and the present one
        share = float(1.0 / np.sum(np.exp(np.clip(prices[best] - prices, None, 700.0))))
        if best <= out.size:
            j = out[best - 1]
            extra = {**alignment.extra, int(origin[j]): share}
            alignment = alignment._replace(origin=moves[best], trust=np.delete(alignment.trust, j), extra=extra)
        else:
            alignment = alignment._replace(
                origin=moves[best], trust=np.insert(alignment.trust, best - 1 - out.size, share)
            )
    return alignment


@eqx.filter_jit
def _costs(
    energy: AbstractFreeEnergy,
    reader: FreeEnergy | None,
    ids: Int[Array, "N L"],
    known: Bool[Array, "N L"],
    here: Bool[Array, "N L"],
    rate: Scalar,
    step: Scalar,
    steps: int,
) -> Float[Array, " N"]:
    """What the typed tokens of each alignment cost, in nats."""

    def one(alignment):
        ids, known, here = alignment
        b = Typo(ids, rate, known).field(energy.vocabulary.codes)
        y = energy.neutral(ids.shape[0]).astype(b.dtype)
        y = relax(energy, y, b, steps=steps, step=step, mask=here)
        if reader is None:
            return energy(y, b, mask=here)
        likeliest = jnp.argmax(energy.logits(y, b), axis=-1)
        typed = jnp.take_along_axis(b, likeliest[:, None], axis=-1)[:, 0]
        return -jnp.sum(reader.in_order(likeliest) + typed, where=here)

    return jax.vmap(one)((ids, known, here))

"""Masked writing: what is drawn from the posterior at rest becomes evidence, and the relaxation goes on."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import on_device, sizes
from .._types import Key, Scalar
from ..energy import AbstractFreeEnergy
from ..flow import AbstractSchedule, Conditioning, Trajectory, relax
from ._samplers import AbstractSampler, Observer


Order = Callable[[Key, Float[Array, "L V"], Int[Array, " L"]], Float[Array, " L"]]
"""What comes first: `(key, log_p (L, V), ids (L,))` to `(L,)`, the highest first. `log_p` are the tokens' log
probabilities, `ids` those that were drawn, or stand there."""


def at_random(key: Key, log_p: Float[Array, "L V"], ids: Int[Array, " L"]) -> Float[Array, " L"]:
    """An `Order`: any token may be next."""
    return jax.random.uniform(key, ids.shape)


def left_to_right(key: Key, log_p: Float[Array, "L V"], ids: Int[Array, " L"]) -> Float[Array, " L"]:
    """An `Order`: as one reads."""
    return -jnp.arange(ids.shape[0], dtype=log_p.dtype)


def most_certain(key: Key, log_p: Float[Array, "L V"], ids: Int[Array, " L"]) -> Float[Array, " L"]:
    """An `Order`: the place with the least entropy first."""
    return jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def least_likely(key: Key, log_p: Float[Array, "L V"], ids: Int[Array, " L"]) -> Float[Array, " L"]:
    """An `Order`: the token of the lowest probability first."""
    return -jnp.take_along_axis(log_p, ids[:, None], axis=-1)[:, 0]


class Draft(NamedTuple):
    """A passage that is being written: tokens `ids (L,)`, which of them stand, `known (L,)`, and the neurons' state
    `y (L, D)`, at rest under what stands."""

    ids: Int[Array, " L"]
    known: Bool[Array, " L"]
    y: Float[Array, "L D"]


class Unmasking(AbstractSampler):
    """Tokens are drawn from the posterior at rest, some of them become evidence, and the neurons relax on from where
    they were.

    With the exact posterior and a token a round the law of the passages is exact, in any order. Tokens of one round are
    drawn together as far as the vocabulary (`energy.HMMVocabulary`) and the automaton of the page know how they
    belong together, and independently beyond that; that is the price of fewer rounds. Corrections pay some of it back:
    they forget tokens, relax, and draw them anew. One token forgotten `at_random` is a step of Gibbs sampling, which
    keeps the law.

    **Arguments:**

    - `rounds`: in so many rounds equally many tokens are drawn each.
    - `temperature`: prior probabilities are raised to `1/temperature` before drawing; 0 (and all below 0.05) takes
      the most likely passage, its tokens together where the vocabulary knows how they belong together (Viterbi).
    - `order`: which of the drawn tokens become evidence first: `at_random`, `most_certain`, `left_to_right`, or a
      function of your own.
    - `remask_rounds`: rounds of correction after the last token is written.
    - `remask_fraction`: share of the written tokens that a correction forgets, at least one of them.
    - `remask_order`: which tokens are forgotten first; by default the `least_likely`, as the others have it.
    - `steps`, `step`: the relaxation in each round, number and size of its Euler steps.

    **Raises:** `ValueError` for sizes that are not positive, or a negative temperature or number of corrections.

    **Source:** masked diffusion (Austin et al. 2021, arXiv 2107.03006); order by confidence (Chang et al. 2022, arXiv
    2202.04200); remasking (Wang et al. 2025, arXiv 2503.00307).

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    sampler = ed.sampling.Unmasking(rounds=4, temperature=0.7, order=ed.sampling.most_certain, remask_rounds=2)
    written = ed.generate(model, length=12, sampler=sampler)
    assert written.known.shape == (1, 7) and written.known[0, -1] == 1
    ```
    """

    rounds: int = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    order: Order = eqx.field(static=True)
    remask_rounds: int = eqx.field(static=True)
    remask_fraction: float = eqx.field(static=True)
    remask_order: Order = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    step: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        rounds: int = 24,
        temperature: float = 1.0,
        order: Order = at_random,
        remask_rounds: int = 0,
        remask_fraction: float = 0.1,
        remask_order: Order = least_likely,
        steps: int = 24,
        step: float = 0.6,
    ):
        sizes(rounds=rounds, steps=steps)
        if not 0 < step < np.inf:
            raise ValueError(f"`step` is {step}; expected a positive size, such as 0.6.")
        if not 0 <= temperature < np.inf:
            raise ValueError(
                f"`temperature` is {temperature}; expected 0 (the most likely passage) or more, such as 0.7."
            )
        if not isinstance(remask_rounds, int | np.integer) or remask_rounds < 0:
            raise ValueError(f"`remask_rounds` is {remask_rounds}; expected 0 (none) or more.")
        if not 0 < remask_fraction <= 1:
            raise ValueError(f"`remask_fraction` is {remask_fraction}; expected a share above 0 and up to 1.")
        self.rounds, self.temperature, self.order = rounds, temperature, order
        self.remask_rounds, self.remask_fraction, self.remask_order = remask_rounds, remask_fraction, remask_order
        self.steps, self.step = steps, step

    def clock(self, schedule: AbstractSchedule) -> Float[Array, " n"]:
        """Relaxation times `t`, one a round, the relaxation before the first draw being behind."""
        return on_device((1.0 + np.arange(self.rounds + self.remask_rounds + 1)) * self.steps * self.step)

    def sigma(self, clock: Float[Array, " n"], length: int) -> Float[Array, " n"]:
        """Infinite while a token is unknown, then 0."""
        return on_device(np.where(np.arange(clock.shape[0]) < self.rounds, np.inf, 0.0))

    @property
    def ending(self) -> str:
        """Nothing is left to write."""
        return "every token is written"

    def begin(self, energy: AbstractFreeEnergy, conditioning: Conditioning, time: Scalar, *, key: Key) -> Draft:
        """The page as given, the neurons neutral; moment 0 lets them relax under it."""
        y = energy.neutral(conditioning.length).astype(energy.vocabulary.codes.dtype)
        return Draft(conditioning.given.ids, conditioning.given.known, y)

    def move(
        self,
        energy: AbstractFreeEnergy,
        conditioning: Conditioning,
        state: Draft,
        clock: Float[Array, " n"],
        numbers: Int[Array, " n"],
        marks: tuple[int, ...],
        observer: Observer,
        *,
        key: Key,
    ) -> Trajectory:
        """The rounds `numbers`, each a draw and a relaxation; a correction is two relaxations."""

        def one(draft, number):
            write = lambda draft: self.write(energy, conditioning, draft, number, key=jax.random.fold_in(key, number))
            draft = jax.lax.cond(fresh(number), write, lambda draft: draft, draft)
            return draft, (draft, self._read(conditioning, draft, observer))

        # what a piece begins with was made by the piece before; nothing is before number 0
        fresh = lambda number: (number > numbers[0]) | (number == 0)
        _, (drafts, moments) = jax.lax.scan(one, state, numbers)
        kept = jnp.asarray([0, *marks, clock.shape[0] - 1])
        relaxations = jnp.where(fresh(numbers), jnp.where(numbers > self.rounds, 2, 1), 0)
        none = jnp.zeros((), int)
        return Trajectory(
            times=clock[kept],
            states=jax.tree.map(lambda leaf: leaf[kept], drafts),
            probes={"moment": jax.tree.map(lambda leaf: leaf[kept], moments)},
            force_evaluations=self.steps * jnp.sum(relaxations),
            accepted=none + clock.shape[0] - 1,
            rejected=none,
        )

    def write(
        self,
        energy: AbstractFreeEnergy,
        conditioning: Conditioning,
        draft: Draft,
        number: Int[Array, ""] | int,
        *,
        key: Key,
    ) -> Draft:
        """Round `number`: draw, keep as many as are due, relax. In round 0 none is due, after `rounds` all that were
        forgotten just before."""
        k1, k2 = jax.random.split(key)
        if self.remask_rounds:
            late = jnp.asarray(number) > self.rounds
            forgotten = lambda draft: self.remask(energy, conditioning, draft, key=k1)
            draft = jax.lax.cond(late, forgotten, lambda draft: draft, draft)
            # drawn with the key that forgetting has not used; in which order no longer matters, as all are due
            k1, k2 = jnp.where(late, k2, k1), jnp.where(late, k1, k2)
        drawn, log_p = self._draw(energy, conditioning, draft, key=k1)
        open = ~draft.known
        before = jnp.sum(conditioning.given.known)
        due = (
            before
            + (conditioning.length - before) * jnp.minimum(number, self.rounds) // self.rounds
            - jnp.sum(draft.known)
        )
        new = _first(due, jnp.where(open, self.order(k2, log_p, drawn), -jnp.inf)) & open
        return self._settled(energy, conditioning, Draft(jnp.where(new, drawn, draft.ids), draft.known | new, draft.y))

    def remask(self, energy: AbstractFreeEnergy, conditioning: Conditioning, draft: Draft, *, key: Key) -> Draft:
        """The first half of a correction: forget, relax."""
        written = draft.known & ~conditioning.given.known
        b = conditioning.written(draft.ids, draft.known).field(energy.vocabulary.codes)
        # what the others say about each token: its own evidence left out
        log_q = jax.nn.log_softmax(energy.logits(draft.y, b) - b, axis=-1)
        due = jnp.maximum(1, jnp.round(self.remask_fraction * jnp.sum(written)).astype(int))
        gone = _first(due, jnp.where(written, self.remask_order(key, log_q, draft.ids), -jnp.inf)) & written
        return self._settled(energy, conditioning, draft._replace(known=draft.known & ~gone))

    def _draw(self, energy, conditioning, draft, *, key):
        conditioning = conditioning.written(draft.ids, draft.known)
        b = conditioning.field(energy.vocabulary.codes)
        return conditioning.draw(energy, draft.y, b, temperature=self.temperature, key=key)

    def _read(self, conditioning, draft, observer):
        written = conditioning.written(draft.ids, draft.known)
        return observer(written, draft.y, written)

    def _settled(self, energy, conditioning, draft):
        b = conditioning.written(draft.ids, draft.known).field(energy.vocabulary.codes)
        y = relax(energy, draft.y, b, steps=self.steps, step=self.step)
        return draft._replace(y=y)


def _first(count: Int[Array, ""], scores: Float[Array, " L"]) -> Bool[Array, " L"]:
    """Where the `count` highest scores are."""
    order = jnp.argsort(-scores)
    return jnp.zeros(scores.shape, bool).at[order].set(jnp.arange(scores.shape[0]) < count)

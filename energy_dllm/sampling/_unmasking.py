"""Masked diffusion: tokens drawn from the posterior at rest become evidence, and the relaxation continues."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import on_device, sizes
from .._types import Key, Scalar
from ..energy import AbstractFreeEnergy
from ..flow import AbstractSchedule, Conditioning, Trajectory, relax
from ._sampler import AbstractSampler, Observer, changed


Order = Callable[[Key, Float[Array, "L V"], Int[Array, " L"]], Float[Array, " L"]]
"""Priority of every place: `(key, log_p (L, V), ids (L,))` to `(L,)`, the highest first. `log_p` are log probabilities,
`ids` the tokens drawn, or present, at every place."""


def at_random(key: Key, log_p: Float[Array, "L V"], ids: Int[Array, " L"]) -> Float[Array, " L"]:
    """An order of `Unmasking`: uniformly random.

    An order is any function `(key, log_p (L, V), ids (L,)) -> (L,)`: the priority of every place, the highest first,
    from the log probabilities of the tokens and those that were drawn, or stand, at every place.
    """
    return jax.random.uniform(key, ids.shape)


def left_to_right(key: Key, log_p: Float[Array, "L V"], ids: Int[Array, " L"]) -> Float[Array, " L"]:
    """An order of `Unmasking`: from left to right."""
    return -jnp.arange(ids.shape[0], dtype=log_p.dtype)


def most_certain(key: Key, log_p: Float[Array, "L V"], ids: Int[Array, " L"]) -> Float[Array, " L"]:
    """An order of `Unmasking`: the drawn token of the highest probability first. Unlikely ones are then drawn anew, and
    the distribution is narrower than the law (of 27 strings of three tokens 0.26 of the mass moves)."""
    return jnp.take_along_axis(log_p, ids[:, None], axis=-1)[:, 0]


def least_likely(key: Key, log_p: Float[Array, "L V"], ids: Int[Array, " L"]) -> Float[Array, " L"]:
    """An order of `Unmasking`: the token of the lowest probability first."""
    return -most_certain(key, log_p, ids)


ORDERS = (at_random, left_to_right, most_certain, least_likely)


class Unmasked(NamedTuple):
    """A partly unmasked passage: tokens `ids (L,)`, which of them are `known (L,)`, and the hidden state `y (L, D)`, at
    rest under those."""

    ids: Int[Array, " L"]
    known: Bool[Array, " L"]
    y: Float[Array, "L D"]


class Unmasking(AbstractSampler):
    """Masked diffusion with remasking: in each round tokens are drawn from the posterior at rest, some become evidence,
    and the relaxation continues.

    With the exact posterior and one token a round the distribution of the passages is exact, in any order that does not
    look at what was drawn. `most_certain` does: likely passages become likelier, as at a lower temperature. Tokens of
    one round are drawn jointly as far as the vocabulary (`energy.HMMVocabulary`) and the automaton are exact, and
    independently beyond that; fewer rounds cost accuracy. Remasking recovers some of it: tokens are masked again, the
    state relaxes, and they are drawn anew. Remasking one token `at_random` is a step of Gibbs sampling, which keeps the
    distribution.

    **Arguments:**

    - `rounds`: number of rounds, each with equally many tokens.
    - `temperature`: prior probabilities are raised to `1/temperature` before drawing; 0 (and all below 0.05) takes
      the most likely passage, its tokens together where the vocabulary knows how they belong together (Viterbi).
    - `order`: which of the drawn tokens become evidence first: `at_random`, `most_certain`, `left_to_right`, or a
      function of your own.
    - `remask_rounds`: rounds of remasking after the last token is drawn.
    - `remask_fraction`: share of the drawn tokens that a round of remasking masks, at least one of them.
    - `remask_order`: which tokens are masked first; by default the `least_likely` given the others.
    - `steps`, `step`: the relaxation in each round, number and size of its Euler steps.

    **Raises:** `ValueError` for sizes that are not positive, an order that is no function, or a negative temperature or
    number of remasking rounds.

    **Source:** masked diffusion (Austin et al. 2021, arXiv 2107.03006); order by confidence (Chang et al. 2022, arXiv
    2202.04200); remasking (Wang et al. 2025, arXiv 2503.00307).

    ??? cite "Reference"

        ```bibtex
        @article{wang2025remasking,
          title={Remasking Discrete Diffusion Models with Inference-Time Scaling},
          author={Wang, Guanghan and Schiff, Yair and Sahoo, Subham Sekhar and Kuleshov, Volodymyr},
          journal={arXiv:2503.00307},
          year={2025}
        }
        ```

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    sampler = ed.sampling.Unmasking(rounds=4, temperature=0.7, order=ed.sampling.most_certain, remask_rounds=2)
    made = ed.generate(model, length=12, sampler=sampler)
    assert made.known.shape == (1, 7) and made.known[0, -1] == 1
    ```
    """

    rounds: int = eqx.field(static=True)
    temperature: float
    order: Order = eqx.field(static=True)
    remask_rounds: int = eqx.field(static=True)
    remask_fraction: float
    remask_order: Order = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    step: float

    def __init__(
        self,
        *,
        rounds: int = 24,
        temperature: float = 1.0,
        order: Order = at_random,
        remask_rounds: int = 0,
        remask_fraction: float = 0.1,
        remask_order: Order = least_likely,
        steps: int = 12,
        step: float = 0.6,
    ):
        sizes(rounds=rounds, steps=steps)
        if not 0 < step < np.inf:
            raise ValueError(f"`step` is {step}; expected a positive size, such as 0.6.")
        if not 0 <= temperature < np.inf:
            raise ValueError(
                f"`temperature` is {temperature}; expected 0 (the most likely passage) or more, such as 0.7."
            )
        sizes(0, remask_rounds=remask_rounds)
        for name, each in (("order", order), ("remask_order", remask_order)):
            if not callable(each):
                raise ValueError(f"`{name}` is {each!r}; expected a function, such as `sampling.most_certain`.")
        if not 0 < remask_fraction <= 1:
            raise ValueError(f"`remask_fraction` is {remask_fraction}; expected a share above 0 and up to 1.")
        self.rounds, self.temperature, self.order = rounds, temperature, order
        self.remask_rounds, self.remask_fraction, self.remask_order = remask_rounds, remask_fraction, remask_order
        self.steps, self.step = steps, step

    @property
    def ragged(self) -> bool:
        """With the orders of this library, which look at one token at a time."""
        return self.order in ORDERS and self.remask_order in ORDERS

    def traced(self, dtype: Any) -> "Unmasking":
        """All numbers that are not whole ones."""
        temperature = 0.0 if Conditioning.cold(self.temperature) else np.asarray(self.temperature, dtype)
        share, step = np.asarray(self.remask_fraction, jnp.result_type(float)), np.asarray(self.step, dtype)
        return changed(self, temperature=temperature, remask_fraction=share, step=step)

    def clock(self, schedule: AbstractSchedule) -> Float[Array, " n"]:
        """Relaxation times `t`, one a round, after the relaxation before the first draw."""
        return on_device((1.0 + np.arange(self.rounds + self.remask_rounds + 1)) * self.steps * self.step)

    def sigma(self, clock: Float[Array, " n"], length: int) -> Float[Array, " n"]:
        """Infinite while a token is unknown, then 0."""
        return on_device(np.where(np.arange(clock.shape[0]) < self.rounds, np.inf, 0.0))

    @property
    def ending(self) -> str:
        """All tokens are drawn."""
        return "every token is written"

    def begin(self, energy: AbstractFreeEnergy, conditioning: Conditioning, time: Scalar, *, key: Key) -> Unmasked:
        """The given tokens and the neutral hidden state; step 0 relaxes it under them."""
        y = energy.neutral(conditioning.length).astype(energy.vocabulary.codes.dtype)
        return Unmasked(conditioning.given.ids, conditioning.given.known, y)

    def move(
        self,
        energy: AbstractFreeEnergy,
        conditioning: Conditioning,
        state: Unmasked,
        clock: Float[Array, " n"],
        numbers: Int[Array, " n"],
        marks: tuple[int, ...],
        observer: Observer,
        *,
        key: Key,
    ) -> Trajectory:
        """The rounds `numbers`, each a draw and a relaxation; remasking adds one relaxation."""

        def one(draft, number):
            unmask = lambda draft: self.unmask(energy, conditioning, draft, number, key=jax.random.fold_in(key, number))
            draft = jax.lax.cond(new_step(number), unmask, lambda draft: draft, draft)
            return draft, (draft, self._read(conditioning, draft, observer))

        # the first step of a call was made by the call before, except step 0
        new_step = lambda number: (number > numbers[0]) | (number == 0)
        _, (drafts, moments) = jax.lax.scan(one, state, numbers)
        kept = jnp.asarray([0, *marks, clock.shape[0] - 1])
        relaxations = jnp.where(new_step(numbers), jnp.where(numbers > self.rounds, 2, 1), 0)
        none = jnp.zeros((), int)
        return Trajectory(
            times=clock[kept],
            states=jax.tree.map(lambda leaf: leaf[kept], drafts),
            probes={"moment": jax.tree.map(lambda leaf: leaf[kept], moments)},
            force_evaluations=self.steps * jnp.sum(relaxations),
            accepted=none + clock.shape[0] - 1,
            rejected=none,
        )

    def unmask(
        self,
        energy: AbstractFreeEnergy,
        conditioning: Conditioning,
        draft: Unmasked,
        number: Int[Array, ""] | int,
        *,
        key: Key,
    ) -> Unmasked:
        """Round `number`: draw, keep as many as are due, relax. In round 0 none is due, after `rounds` all that were
        just masked."""
        k1, k2 = jax.random.split(key)
        if self.remask_rounds:
            remasking = jnp.asarray(number) > self.rounds
            masked = lambda draft: self.remask(energy, conditioning, draft, key=k1)
            draft = jax.lax.cond(remasking, masked, lambda draft: draft, draft)
            # drawn with the key that remasking has not used; the order no longer matters, as all are due
            k1, k2 = jnp.where(remasking, k2, k1), jnp.where(remasking, k1, k2)
        drawn, log_p = self._draw(energy, conditioning, draft, key=k1)
        open = ~draft.known
        before = jnp.sum(conditioning.given.known)
        due = (
            before
            + (conditioning.length - before) * jnp.minimum(number, self.rounds) // self.rounds
            - jnp.sum(draft.known)
        )
        new = first(due, jnp.where(open, self.order(k2, log_p, drawn), -jnp.inf)) & open
        return self._relaxed(
            energy, conditioning, Unmasked(jnp.where(new, drawn, draft.ids), draft.known | new, draft.y)
        )

    def remask(self, energy: AbstractFreeEnergy, conditioning: Conditioning, draft: Unmasked, *, key: Key) -> Unmasked:
        """The first half of a remasking round: mask, relax."""
        drawn_tokens = draft.known & ~conditioning.given.known
        b = conditioning.written(draft.ids, draft.known).field(energy.vocabulary.codes)
        # the cavity posterior: without the token's own evidence
        log_q = jax.nn.log_softmax(energy.logits(draft.y, b) - b, axis=-1)
        due = jnp.maximum(1, jnp.round(self.remask_fraction * jnp.sum(drawn_tokens)).astype(int))
        masked_now = (
            first(due, jnp.where(drawn_tokens, self.remask_order(key, log_q, draft.ids), -jnp.inf)) & drawn_tokens
        )
        return self._relaxed(energy, conditioning, draft._replace(known=draft.known & ~masked_now))

    def _draw(self, energy, conditioning, draft, *, key):
        conditioning = conditioning.written(draft.ids, draft.known)
        b = conditioning.field(energy.vocabulary.codes)
        return conditioning.draw(energy, draft.y, b, temperature=self.temperature, key=key)

    def _read(self, conditioning, draft, observer):
        now = conditioning.written(draft.ids, draft.known)
        return observer(now, draft.y, now)

    def _relaxed(self, energy, conditioning, draft):
        b = conditioning.written(draft.ids, draft.known).field(energy.vocabulary.codes)
        y = relax(energy, draft.y, b, steps=self.steps, step=self.step)
        return draft._replace(y=y)


def first(count: Int[Array, ""], scores: Float[Array, " L"]) -> Bool[Array, " L"]:
    """Where the `count` highest scores are."""
    order = jnp.argsort(-scores)
    return jnp.zeros(scores.shape, bool).at[order].set(jnp.arange(scores.shape[0]) < count)

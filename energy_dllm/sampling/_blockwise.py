"""A passage block by block, each given those before it, of which keys and values are kept."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import sizes
from .._types import LOG_ZERO, Key, Scalar
from ..energy import AbstractFreeEnergy, FreeEnergy, Padded
from ..flow import AbstractSchedule, Conditioning, Given, Likelihood, LogLinear, Trajectory, relax
from ._diffusion import Diffusion
from ._draft import Draft, guessed, is_shifted, noise_of
from ._sampler import AbstractSampler, Observer, changed
from ._unmasking import Unmasking, most_certain
from ._written import WrittenBlocks, progress, put, read_prompt


class Blocks(AbstractSampler):
    """A passage block by block: every block is sampled by itself, from an energy conditional on all before it.

    `F = sum_k F_k(block k | blocks before)`. What is before a block is read from its keys and values, which are
    computed once and kept, so that a force costs that of a block and not of the passage. The energy must be deep, and
    trained in blocks (`EnergyDLLM(blocks=(0, 4))`). Tokens that are given behind a block are not read by it.

    From left to right, blocks of one token drawn once, a pattern (`flow.Matching`) is kept too: a token is drawn from
    `p(w | before) P(what follows matches | w)`, the latter for tokens that follow independently by the prior, so that
    a word to match is not left to the end. The text matches always; where tokens are independent the draws are exact.

    **Arguments:**

    - `each`: the sampler of one block: `Unmasking`, or a `Diffusion` with a `schedule` of its own, such as
      `sampling.descent(8, schedule=flow.LogLinear(sigma_max=0.9, sigma_min=0.6))`. By default the most certain token
      first, one at a time.
    - `size`: tokens of a block; by default those of an energy that is in blocks itself (`FreeEnergy.in_blocks`).
    - `draft`: guesses of the next tokens (`Draft.of`), for one passage from left to right whose energy has a shifted
      read-out; elsewhere it is not asked. One pass reads several guesses, and those that were drawn as guessed stand:
      the text is the same, in fewer passes.
    - `ahead`: tokens that are read in one pass.
    - `moments`: how many moments between the first block and the last can be recorded; the result does not depend on
      it.

    **Raises:** `ValueError` for `moments`, `ahead` or `size` that are not positive, or a `Diffusion` without a
    schedule; in `generate`, for an energy that is not deep or has no blocks where `size` is not given, guidance, or a
    pattern unless it is from left to right.

    **Source:** block diffusion, Arriola et al. 2025 (arXiv 2503.09573).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{arriola2025block,
          title={Block Diffusion: Interpolating Between Autoregressive and Diffusion Language Models},
          author={Arriola, Marianne and Gokaslan, Aaron and Chiu, Justin T. and Yang, Zhihan and Qi, Zhixuan and
                  Han, Jiaqi and Sahoo, Subham Sekhar and Kuleshov, Volodymyr},
          booktitle={International Conference on Learning Representations},
          year={2025}
        }
        ```

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    made = ed.generate(model, length=12, prompt="ab", sampler=ed.sampling.Blocks(size=4))
    assert made.texts[0].startswith("ab") and made.known[0, -1] == 1
    ```
    """

    ragged: ClassVar[Any] = True

    each: Unmasking | Diffusion
    size: int | None = eqx.field(static=True)
    draft: Draft | None
    ahead: int = eqx.field(static=True)
    moments: int = eqx.field(static=True)
    exact: bool = eqx.field(static=True)
    times: Any

    def __init__(
        self,
        each: Unmasking | Diffusion | None = None,
        *,
        size: int | None = None,
        draft: Draft | None = None,
        ahead: int = 4,
        moments: int = 32,
    ):
        sizes(moments=moments, ahead=ahead, size=1 if size is None else size)
        self.draft, self.ahead = draft, ahead
        if isinstance(each, Diffusion) and each.schedule is None:
            raise ValueError("`each` is a Diffusion without a schedule; expected `descent(8, schedule=...)`.")
        drawing = Unmasking(rounds=size or 4, steps=1, step=1.0, order=most_certain)
        self.each, self.size = drawing if each is None else each, size
        self.exact = isinstance(self.each, Unmasking) and self.each.step == 1.0
        # the clock of a block; that of unmasking has no noise in it
        schedule = self.each.schedule if isinstance(self.each, Diffusion) else None
        self.moments, self.times = moments, np.asarray(self.each.clock(schedule or LogLinear()))

    def traced(self, dtype: Any) -> "Blocks":  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the sampler of a block."""
        return changed(self, each=self.each.traced(dtype), times=self.times.astype(dtype))

    def clock(self, schedule: AbstractSchedule) -> Float[Array, " n"]:
        """The share of the tokens that is written."""
        return progress(self.moments, jnp.result_type(float))[0]

    def sigma(self, clock: Float[Array, " n"], length: int) -> Float[Array, " n"]:
        """Infinite while a token is unknown, then 0."""
        return progress(self.moments, jnp.result_type(float))[1]

    @property
    def ending(self) -> str:
        """All blocks are written."""
        return "every token is written"

    def begin(self, energy: AbstractFreeEnergy, conditioning: Conditioning, time: Scalar, *, key: Key) -> WrittenBlocks:
        """The given tokens, and what is kept of all before the first block with an unknown one."""
        base = self._base(energy, conditioning)
        length, given = conditioning.length, conditioning.given
        # a pass may read some tokens more than there are
        drafted = self._drafted(base, conditioning)
        ids = jnp.pad(given.ids, (0, self.ahead if drafted else -length % base.block))
        first = jnp.where(jnp.all(given.known), length, jnp.argmin(given.known))
        none = jnp.zeros(ids.shape[0], energy.vocabulary.codes.dtype)
        ordered = self._in_order(base)
        # what is kept of later blocks is replaced as they are written; without a prompt there is nothing to keep
        if ordered and is_shifted(base):
            kept, log_p = read_prompt(base, ids, first, none)
        else:
            read = lambda ids: (base.kept(ids), base.in_order(ids).astype(none.dtype) if ordered else none)
            unread = lambda ids: (base.unwritten(ids.shape[0]), none)
            kept, log_p = jax.lax.cond(given.known[0], read, unread, ids)
        stands = None
        if drafted is not None:
            follow = lambda i, context: drafted.follow(context, ids[i])
            stands = first, jax.lax.fori_loop(0, first, follow, jnp.zeros((), drafted.next.dtype))
        return WrittenBlocks(ids, kept, jnp.zeros((), int), log_p, self._pattern(base, conditioning), stands)

    def move(
        self,
        energy: AbstractFreeEnergy,
        conditioning: Conditioning,
        state: WrittenBlocks,
        clock: Float[Array, " n"],
        numbers: Int[Array, " n"],
        marks: tuple[int, ...],
        observer: Observer,
        *,
        key: Key,
    ) -> Trajectory:
        """Block after block, as many at every recorded moment as are due."""
        base, length = self._base(energy, conditioning), conditioning.length
        b = None if conditioning.others is None else conditioning.others.field(energy.vocabulary.codes)
        b = None if b is None else jnp.pad(b, ((0, state.ids.shape[0] - length), (0, 0)))
        known = jnp.pad(conditioning.given.known, (0, state.ids.shape[0] - length), constant_values=True)
        # from the first block with an unknown token to the last
        number = jnp.arange(known.shape[0]) // base.block
        blocks = jnp.max(jnp.where(known, 0, number + 1))
        first = jnp.min(jnp.where(known, blocks, number))
        # the same for all samples, so that the loop is one for all of them
        due = lambda number: first + -(-(blocks - first) * number // self.moments)
        ordered, drafted = self._in_order(base), self._drafted(base, conditioning)
        # of all blocks at once: within the loop a key takes as long as a layer
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(state.ids.shape[0] // base.block))
        guess: Any = None
        if ordered:
            keys = jax.vmap(lambda key: jax.random.split(key, 3)[2])(keys)
            noise: Any = None if conditioning.dfa is not None else noise_of(keys, base, self.each.temperature, b)
            write = functools.partial(self._next, noise=noise, dfa=conditioning.dfa, b=b)
            guess = drafted and functools.partial(guessed, base, drafted, self.ahead, known, noise)
        else:
            write = functools.partial(self.extend, b=b)
        extend = lambda n, written: write(base, known, written, n, key=keys[n])

        def one(state, number):
            before, written = state
            if guess is None:
                written = jax.lax.fori_loop(due(before), due(number), extend, written)
            else:
                written = jax.lax.while_loop(lambda written: written.stands[0] < due(number), guess, written)
            there = conditioning.given.known | (jnp.arange(length) // base.block < due(number))
            now = conditioning.written(written.ids[:length], there)
            neutral, field = energy.neutral(length), now.field(energy.vocabulary.codes)
            rest = lambda y: relax(energy, y, field, steps=1, step=1.0)
            # before the first block nothing has moved; `F` of known and masked tokens is the same at any `y`
            y = neutral if ordered and b is None else jax.lax.cond(number > 0, rest, lambda y: y, neutral)
            look = lambda: observer(now, y, now)
            moment = _as_drawn(look, written, there, number == 0) if ordered else look()
            return (number, written), moment

        kept = jnp.asarray([0, *marks, clock.shape[0] - 1])
        (_, final), moments = jax.lax.scan(one, (numbers[0], state), numbers[kept])
        none = jnp.zeros((), int)
        return Trajectory(
            times=clock[kept],
            # keys and values of the last moment alone: those of all would be most of what the loop writes
            states=jax.tree.map(lambda leaf: leaf[None], final),
            probes={"moment": moments},
            force_evaluations=final.forces - jnp.where(numbers[0] == 0, 0, state.forces),
            accepted=none + clock.shape[0] - 1,
            rejected=none,
        )

    def extend(
        self,
        energy: FreeEnergy,
        known: Bool[Array, " L"],
        written: WrittenBlocks,
        number: Int[Array, ""] | int,
        *,
        b: Float[Array, "L V"] | None = None,
        key: Key,
    ) -> WrittenBlocks:
        """Block `number`, sampled given what is written, and what is kept of it."""
        size, start = energy.block, number * energy.block
        here = lambda rows: jax.lax.dynamic_slice_in_dim(rows, start, size)
        given = Given(here(written.ids), here(known))
        conditioning = Conditioning(given, None if b is None else Likelihood(here(b)))
        block = energy.after(written.kept, start, size)
        ids, forces = self._sampled(block, conditioning, key=key)
        kept = energy.extended(written.kept, ids, start)
        return written._replace(ids=put(written.ids, ids, start), kept=kept, forces=written.forces + forces)

    def _in_order(self, energy: FreeEnergy) -> bool:
        """Whether it is one token after another, each drawn once and at rest: one pass a token."""
        drawn = self.exact and isinstance(self.each, Unmasking) and not self.each.remask_rounds
        return energy.block == 1 and drawn

    @staticmethod
    def _pattern(energy: FreeEnergy, conditioning: Conditioning):
        """The state before the first unknown token, and `DFA.ahead` of tokens that are those of the prior."""
        dfa, length = conditioning.dfa, conditioning.length
        if dfa is None:
            return None
        log_p = energy.logits(energy.neutral(length), jnp.zeros((length, energy.size), energy.vocabulary.codes.dtype))
        given = conditioning.given
        b = Conditioning(given, conditioning.others).field(energy.vocabulary.codes)
        log_p = jnp.where(Conditioning.allowed(b), jax.nn.log_softmax(log_p + b, axis=-1), LOG_ZERO)
        step = lambda i, state: dfa.next[state, given.ids[i]]
        # no token is unknown: nothing is drawn
        state = jax.lax.fori_loop(0, jnp.argmin(given.known), step, dfa.start)
        return state, dfa.ahead(log_p)

    def _next(self, energy, known, written, number, *, noise, dfa, b, key):
        """One token, read in the same pass in which keys and values of the one before are made."""
        before = jnp.maximum(number - 1, 0)
        y, kept = energy.next(written.kept, written.ids[before], number)
        here = lambda rows: jax.lax.dynamic_slice_in_dim(rows, number, 1)
        now = Conditioning(Given(here(written.ids), here(known)), None if b is None else Likelihood(here(b)))
        log_p = jax.nn.log_softmax(energy.logits(y, jnp.zeros((1, energy.size), y.dtype)))
        pattern = written.pattern
        if pattern is None:
            drawn = jnp.argmax(log_p + here(noise), axis=-1).astype(written.ids.dtype)
        else:
            each: Any = self.each
            b = now.field(energy.vocabulary.codes) + pattern[1][number + 1, dfa.next[pattern[0]]]
            drawn, _ = now.draw(energy, y, b, temperature=each.temperature, key=key)
        ids = jnp.where(now.given.known, now.given.ids, drawn)
        if pattern is not None:
            pattern = dfa.next[pattern[0], ids[0]], pattern[1]
        log_p = put(written.log_p, log_p[0, ids], number)
        return WrittenBlocks(put(written.ids, ids, number), kept, written.forces + 1, log_p, pattern)

    def _drafted(self, energy: FreeEnergy, conditioning: Conditioning) -> Draft | None:
        """The draft, where it can be asked."""
        asked = self._in_order(energy) and conditioning.dfa is None and is_shifted(energy)
        return self.draft if asked else None

    def _sampled(self, block, conditioning, *, key):
        """The tokens of a block, and the forces they took."""
        clock, numbers = jnp.asarray(self.times), jnp.arange(self.times.shape[0])
        k1, k2, k3 = jax.random.split(key, 3)
        found = lambda evidence, y, now: {"ids": now.given.ids.astype(y.dtype), "terms": {}}
        state = self.each.begin(block, conditioning, clock[0], key=k1)
        # after the last draw nothing is asked any more, so there need be no relaxation
        last = isinstance(self.each, Unmasking) and not self.each.remask_rounds
        spans = (clock[:-1], numbers[:-1]) if last else (clock, numbers)
        made = self.each.move(block, conditioning, state, *spans, (), found, key=k2)
        ids = made.probes["moment"]["ids"][-1].astype(conditioning.given.ids.dtype)
        if last:
            draft: Any = made.final
            now = conditioning.written(draft.ids, draft.known)
            b = now.field(block.vocabulary.codes)
            drawn, _ = now.draw(block, draft.y, b, temperature=self.each.temperature, key=k3)
            ids = jnp.where(draft.known, draft.ids, drawn)
        return ids, made.force_evaluations

    def _base(self, energy, conditioning) -> FreeEnergy:
        base = energy.base if isinstance(energy, Padded) else energy
        if isinstance(base, FreeEnergy) and self.size is not None:
            base = base.in_blocks(self.size)
        if not isinstance(base, FreeEnergy) or not base.block:
            raise ValueError(
                "`sampler` is Blocks, for an energy in blocks without guidance; expected a deep one and "
                "`Blocks(size=4)`."
            )
        if conditioning.dfa is not None and not self._in_order(base):
            raise ValueError(
                "`sampler` is Blocks, which keeps a pattern from left to right alone; expected `Blocks(size=1)`, or "
                "`sampling.Unmasking`."
            )
        return base


def _as_drawn(
    look: Callable[[], Any], written: WrittenBlocks, there: Bool[Array, " L"], begins: Bool[Array, ""]
) -> Any:
    """A moment of a passage that is written from left to right, in which tokens are as certain as when they were drawn.
    Where no terms are recorded and all tokens are `there`, or none is written yet, the energy need not be asked."""
    like = jax.eval_shape(look)
    if not isinstance(like, dict):
        return look()
    p = jnp.exp(written.log_p[: there.shape[0]])
    if like["terms"]:
        moment = look()
    else:
        ids = written.ids[: there.shape[0]]
        found = {"ids": ids, "known": jnp.sum(there), "confidence": p, "entropy": 0.0, "terms": {}}
        fill = lambda value, leaf: jnp.broadcast_to(value, leaf.shape).astype(leaf.dtype)
        moment = jax.lax.cond(jnp.all(there) | begins, lambda: jax.tree.map(fill, found, like), look)
    return moment | {"confidence": jnp.where(there, p, moment["confidence"])}

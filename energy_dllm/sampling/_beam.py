"""The most likely passage: beam search by the chain rule."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import on_device, sizes
from .._types import LOG_ZERO, Key, Scalar
from ..energy import AbstractFreeEnergy
from ..flow import AbstractSchedule, Conditioning, Trajectory, relax
from ._sampler import AbstractSampler, Observer, changed
from ._unmasking import Unmasked


class Beams(NamedTuple):
    """Drafts of `width` passages, the likeliest first, what each has cost in nats `log_p`, and the forces so far."""

    drafts: Unmasked
    log_p: Float[Array, " W"]
    forces: Int[Array, ""]


class BeamSearch(AbstractSampler):
    """The most likely passage, as far as a search finds it: temperature 0.

    `log P(w) = sum_i log p_i(w_i | given, w_<i)` is added up from left to right, one token after another; after every
    token the `width` likeliest beginnings are kept. `width=1` is greedy choice, which is no search: its first token
    commits all others.

    **Arguments:**

    - `width`: how many beginnings are kept.
    - `rounds`: moments between the first token and the last that can be recorded; the result does not depend on it.
    - `steps`, `step`: the relaxation after every token, number and size of its Euler steps. One step of 1 is rest for a
      deep energy.

    **Raises:** `ValueError` for sizes that are not positive.

    **Source:** beam search, Lowerre 1976.

    ??? cite "Reference"

        ```bibtex
        @phdthesis{lowerre1976harpy,
          title={The {HARPY} speech recognition system},
          author={Lowerre, Bruce T.},
          school={Carnegie Mellon University},
          year={1976}
        }
        ```

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    made = ed.generate(model, length=12, prompt="ab", sampler=ed.sampling.BeamSearch(width=4))
    assert made.texts[0].startswith("ab") and made.known[0, -1] == 1
    ```
    """

    ragged: ClassVar[Any] = True

    width: int = eqx.field(static=True)
    rounds: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    step: float

    def __init__(self, *, width: int = 16, rounds: int = 32, steps: int = 1, step: float = 1.0):
        sizes(width=width, rounds=rounds, steps=steps)
        if not 0 < step < np.inf:
            raise ValueError(f"`step` is {step}; expected a positive size, such as 1.0.")
        self.width, self.rounds, self.steps, self.step = width, rounds, steps, step

    def traced(self, dtype: Any) -> "BeamSearch":
        """The size of a step."""
        return changed(self, step=np.asarray(self.step, dtype))

    def clock(self, schedule: AbstractSchedule) -> Float[Array, " n"]:
        """Relaxation times `t`, one a round."""
        return on_device((1.0 + np.arange(self.rounds + 1)) * self.steps * self.step)

    def sigma(self, clock: Float[Array, " n"], length: int) -> Float[Array, " n"]:
        """Infinite while a token is unknown, then 0."""
        return on_device(np.where(np.arange(clock.shape[0]) < self.rounds, np.inf, 0.0))

    @property
    def ending(self) -> str:
        """All tokens are chosen."""
        return "every token is written"

    def begin(self, energy: AbstractFreeEnergy, conditioning: Conditioning, time: Scalar, *, key: Key) -> Beams:
        """One beginning, the given tokens at rest; the others have no probability."""
        y = energy.neutral(conditioning.length).astype(energy.vocabulary.codes.dtype)
        draft = self._relaxed(energy, conditioning, Unmasked(conditioning.given.ids, conditioning.given.known, y))
        drafts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.width, *leaf.shape)), draft)
        log_p = jnp.full(self.width, LOG_ZERO, y.dtype).at[0].set(0.0)
        return Beams(drafts, log_p, jnp.asarray(self.steps))

    def move(
        self,
        energy: AbstractFreeEnergy,
        conditioning: Conditioning,
        state: Beams,
        clock: Float[Array, " n"],
        numbers: Int[Array, " n"],
        marks: tuple[int, ...],
        observer: Observer,
        *,
        key: Key,
    ) -> Trajectory:
        """The rounds `numbers`, in each of which as many tokens are chosen as are due, one after another."""
        before = jnp.sum(conditioning.given.known)

        def one(beams, number):
            due = before + (conditioning.length - before) * number // self.rounds
            some_due = lambda beams: jnp.sum(beams.drafts.known[0]) < due
            beams = jax.lax.while_loop(some_due, lambda beams: self.extend(energy, conditioning, beams), beams)
            best = jax.tree.map(lambda leaf: leaf[0], beams.drafts)
            now = conditioning.written(best.ids, best.known)
            return beams, (beams, observer(now, best.y, now))

        # the first step of a call was made by the call before: nothing is due in it
        _, (beams, moments) = jax.lax.scan(one, state, numbers)
        kept = jnp.asarray([0, *marks, clock.shape[0] - 1])
        none = jnp.zeros((), int)
        spent = beams.forces[-1] - jnp.where(numbers[0] == 0, 0, state.forces)
        return Trajectory(
            times=clock[kept],
            states=jax.tree.map(lambda leaf: leaf[kept], beams),
            probes={"moment": jax.tree.map(lambda leaf: leaf[kept], moments)},
            force_evaluations=spent,
            accepted=none + clock.shape[0] - 1,
            rejected=none,
        )

    def extend(self, energy: AbstractFreeEnergy, conditioning: Conditioning, beams: Beams) -> Beams:
        """Every beginning with every next token, of which the `width` likeliest are kept and relaxed."""
        drafts, log_p, forces = beams
        place = jnp.argmin(drafts.known[0])

        def ask(draft):
            b = conditioning.written(draft.ids, draft.known).field(energy.vocabulary.codes)
            return jax.nn.log_softmax(energy.logits(draft.y, b)[place])

        each = log_p[:, None] + jax.vmap(ask)(drafts)
        log_p, chosen = jax.lax.top_k(each.ravel(), self.width)
        parent, token = chosen // each.shape[1], chosen % each.shape[1]
        ids, known, y = jax.tree.map(lambda leaf: leaf[parent], drafts)
        longer = Unmasked(ids.at[:, place].set(token.astype(ids.dtype)), known.at[:, place].set(True), y)
        longer = jax.vmap(lambda draft: self._relaxed(energy, conditioning, draft))(longer)
        return Beams(longer, log_p, forces + self.width * self.steps)

    def _relaxed(self, energy, conditioning, draft):
        b = conditioning.written(draft.ids, draft.known).field(energy.vocabulary.codes)
        return draft._replace(y=relax(energy, draft.y, b, steps=self.steps, step=self.step))

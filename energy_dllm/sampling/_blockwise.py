"""A passage block by block, each given those before it, of which keys and values are kept."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import on_device, sizes
from .._types import Key, Scalar
from ..energy import AbstractFreeEnergy, FreeEnergy, Padded
from ..flow import AbstractSchedule, Conditioning, Given, Likelihood, LogLinear, Trajectory, relax
from ._diffusion import Diffusion
from ._sampler import AbstractSampler, Observer, changed
from ._unmasking import Unmasking, most_certain


class WrittenBlocks(NamedTuple):
    """A passage of which `done` tokens are written: `ids (L,)`, which are `known (L,)`, what is `kept` of them
    (`FreeEnergy.kept`), and the forces so far."""

    ids: Int[Array, " L"]
    known: Bool[Array, " L"]
    kept: PyTree[Array]
    done: Int[Array, ""]
    forces: Int[Array, ""]


class Blocks(AbstractSampler):
    """A passage block by block: every block is sampled by itself, from an energy conditional on all before it.

    `F = sum_k F_k(block k | blocks before)`. What is before a block is read from its keys and values, which are
    computed once and kept, so that a force costs that of a block and not of the passage. The energy must be one in
    blocks (`EnergyDLLM(block=4)`, `energy.DeepStack(block=)`). Tokens that are given behind a block are not read by it.

    **Arguments:**

    - `each`: the sampler of one block: `Unmasking`, or a `Diffusion` with a `schedule` of its own, such as
      `sampling.descent(8, schedule=flow.LogLinear(sigma_max=0.9, sigma_min=0.6))`. By default the most certain token
      first, four of them, one at a time.
    - `moments`: how many moments between the first block and the last can be recorded; the result does not depend on
      it.

    **Raises:** `ValueError` for `moments` that are not positive, or a `Diffusion` without a schedule; in `generate`,
    for an energy that is not in blocks, a pattern, or guidance.

    **Source:** block diffusion, Arriola et al. 2025 (arXiv 2503.09573).

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

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, block=4, key=jax.random.key(0))
    made = ed.generate(model, length=12, prompt="ab", sampler=ed.sampling.Blocks())
    assert made.texts[0].startswith("ab") and made.known[0, -1] == 1
    ```
    """

    ragged: ClassVar[Any] = True

    each: Unmasking | Diffusion
    moments: int = eqx.field(static=True)
    times: Any

    def __init__(self, each: Unmasking | Diffusion | None = None, *, moments: int = 32):
        sizes(moments=moments)
        if isinstance(each, Diffusion) and each.schedule is None:
            raise ValueError("`each` is a Diffusion without a schedule; expected `descent(8, schedule=...)`.")
        self.each = Unmasking(rounds=4, steps=1, step=1.0, order=most_certain) if each is None else each
        # the clock of a block; that of unmasking has no noise in it
        schedule = self.each.schedule if isinstance(self.each, Diffusion) else None
        self.moments, self.times = moments, np.asarray(self.each.clock(schedule or LogLinear()))

    def traced(self, dtype: Any) -> "Blocks":  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the sampler of a block."""
        return changed(self, each=self.each.traced(dtype), times=self.times.astype(dtype))

    def clock(self, schedule: AbstractSchedule) -> Float[Array, " n"]:
        """The share of the tokens that is written."""
        return on_device(np.linspace(0.0, 1.0, self.moments + 1))

    def sigma(self, clock: Float[Array, " n"], length: int) -> Float[Array, " n"]:
        """Infinite while a token is unknown, then 0."""
        return on_device(np.where(np.arange(clock.shape[0]) < self.moments, np.inf, 0.0))

    @property
    def ending(self) -> str:
        """All blocks are written."""
        return "every token is written"

    def begin(self, energy: AbstractFreeEnergy, conditioning: Conditioning, time: Scalar, *, key: Key) -> WrittenBlocks:
        """The given tokens, and what is kept of all before the first block with an unknown one."""
        base, given = self._base(energy, conditioning), conditioning.given
        room = -conditioning.length % base.block
        ids, known = jnp.pad(given.ids, (0, room)), jnp.pad(given.known, (0, room), constant_values=True)
        # what is kept of later blocks is replaced as they are written
        first = jnp.where(jnp.all(known), ids.shape[0], jnp.argmin(known) // base.block * base.block)
        return WrittenBlocks(ids, known, base.kept(ids), first, jnp.zeros((), int))

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
        kept = jnp.asarray([0, *marks, clock.shape[0] - 1])
        before = jnp.sum(conditioning.given.known)

        def one(written, number):
            due = before + (length - before) * number // self.moments
            open = lambda written: (jnp.sum(written.known[:length]) < due) & (written.done < written.ids.shape[0])
            extend = lambda written: self.extend(base, b, written, key=jax.random.fold_in(key, written.done))
            written = jax.lax.while_loop(open, extend, written)
            now = conditioning.written(written.ids[:length], written.known[:length])
            y = relax(energy, energy.neutral(length), now.field(energy.vocabulary.codes), steps=1, step=1.0)
            return written, (written, observer(now, y, now))

        _, (states, moments) = jax.lax.scan(one, state, numbers[kept])
        none = jnp.zeros((), int)
        return Trajectory(
            times=clock[kept],
            states=states,
            probes={"moment": moments},
            force_evaluations=states.forces[-1] - jnp.where(numbers[0] == 0, 0, state.forces),
            accepted=none + clock.shape[0] - 1,
            rejected=none,
        )

    def extend(
        self, energy: FreeEnergy, b: Float[Array, "L V"] | None, written: WrittenBlocks, *, key: Key
    ) -> WrittenBlocks:
        """The next block, sampled given what is written, and what is kept of it."""
        size, start = energy.block, written.done
        here = lambda rows: jax.lax.dynamic_slice_in_dim(rows, start, size)
        given = Given(here(written.ids), here(written.known))
        conditioning = Conditioning(given, None if b is None else Likelihood(here(b)))
        block = energy.after(written.kept, start, size)
        clock, numbers = jnp.asarray(self.times), jnp.arange(self.times.shape[0])
        k1, k2 = jax.random.split(key)
        state = self.each.begin(block, conditioning, clock[0], key=k1)
        found = lambda evidence, y, now: {"ids": now.given.ids.astype(y.dtype), "terms": {}}
        made = self.each.move(block, conditioning, state, clock, numbers, (), found, key=k2)
        ids = made.probes["moment"]["ids"][-1].astype(given.ids.dtype)
        put = lambda rows, new: jax.lax.dynamic_update_slice_in_dim(rows, new.astype(rows.dtype), start, axis=0)
        return WrittenBlocks(
            put(written.ids, ids),
            put(written.known, jnp.ones(size, bool)),
            jax.tree.map(put, written.kept, block.kept(ids)),
            start + size,
            written.forces + made.force_evaluations,
        )

    def _base(self, energy, conditioning) -> FreeEnergy:
        base = energy.base if isinstance(energy, Padded) else energy
        if not isinstance(base, FreeEnergy) or not base.block:
            raise ValueError(
                "`sampler` is Blocks, for an energy in blocks without guidance; expected a model such as "
                "`EnergyDLLM(block=4)`."
            )
        if conditioning.dfa is not None:
            raise ValueError("`sampler` is Blocks, which knows no pattern; use `sampling.Unmasking`.")
        return base

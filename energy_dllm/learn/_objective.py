"""Objectives: losses of a batch of windows.

Cross-entropy of the true token under the posterior `p` after a relaxation is a proper loss: it makes `p` the true
posterior, hence `x_hat` the posterior mean, hence the flow the true flow. The evidence is drawn from a mixture;
the relaxation runs for a random time, so that the landscape is right at rest and not only on the way.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._model import EnergyDLLM
from .._types import Key, Scalar
from ..energy import FreeEnergy
from ..flow import FORBIDDEN, AbstractSchedule, LogLinear, relax
from ._cross_entropy import (
    block_of,
    each_window,
    given_of,
    mask_windows,
    named_leaves,
    nll_of,
    stratified,
    weighted,
)


class AbstractObjective(eqx.Module):
    """A loss of a model on a batch of windows.

    To add an objective, write `__call__`; `diagnose` names what broke when the loss is not finite.
    """

    @abc.abstractmethod
    def __call__(self, model: Any, ids: Int[Array, "B L"], key: Key, progress: Scalar) -> Scalar:
        """The loss in nats per predicted token, at the fraction `progress` of the training."""

    @abc.abstractmethod
    def diagnose(self, model: Any, ids: Int[Array, "B L"], key: Key, progress: Scalar) -> str:
        """In words, what stopped being finite first."""


class Denoising(AbstractObjective):
    """Cross-entropy at rest under a mixture of evidences, for the energy model.

    `loss = -sum_i w_i log p(token_i) / sum_i w_i + speed_penalty mean log(1 + (dy/dt)^2) + prior_weight mean_i S_i
    + likelihood mean h(F(known, w_i) - F(known) + log p(w_i | known))`

    The weight `w` of a token is `1/sqrt(n)` in a window with `n` targets; `S` is the `nll` of the text to the
    vocabulary alone. The last part asks the scalar itself: to make a masked token known must raise `F` at rest by
    `-log p` of it, as it does where `F = -log P(known)`. In any order these differences add up to `-log P(text)`, which
    then is one evaluation of the energy, `FreeEnergy.log_likelihood`. `h` is Huber's function with a corner at 1 nat.

    Masked windows are read in the `blocks` of the model, one after the other; those under soft evidence as a whole,
    unless the model never reads so. All blocks of a window are asked about at once, each given the true tokens before
    it; of every block a uniformly drawn number of tokens is masked, and `n` is that number.

    Each window of a batch gets one kind of evidence: masks at a uniformly drawn rate, Gaussian noise at a drawn level,
    or typing errors at a uniformly drawn rate up to one half. By default soft evidence takes one step from neutral, and
    the gradient follows it: the recipe of a deep energy, whose masks are at rest after one step and whose descent from
    noise to text holds no noise fixed. `Denoising.at_rest` relaxes for longer, as one layer needs.

    `y` starts near neutral (normal noise of random size up to `start`) and descends for a random number of untracked
    steps, drawn log-uniformly from `shortest` to `horizon`, then for `tracked` steps the gradient follows. Both ends of
    the draw grow geometrically from 0 over the first `anneal` of the training. `speed_penalty` penalises motion that is
    left then, with the speed of the last step; the log has what each part is worth.

    **Arguments:**

    - `gaussian`, `typo`: share of the windows with that evidence; the rest are masked.
    - `shortest`, `horizon`: untracked steps are `floor(e^u) - 1`, `u` uniform from `log(1 + shortest)` to `log(1 +
      horizon)`: at least `shortest`, and fewer than `horizon` where that is more.
    - `tracked`: steps the gradient follows.
    - `step`: mean size of a step in time constants; each batch draws one within 30 % of it.
    - `anneal`: fraction of the training over which `shortest` and `horizon` are reached.
    - `speed_penalty`: weight of the penalty on the speed of the neurons at the end. It grows with the square of a small
      speed and with the logarithm of a large one, so that one window in motion does not outweigh a batch at rest.
    - `start`: largest standard deviation of the starting noise, meant to keep rest points from being mere saddles.
    - `prior_weight`: weight of the `nll` of the vocabulary alone.
    - `prefix`: share of the masked windows whose masks are all behind a uniformly drawn place. In a layout, of all
      windows in which only the grid of that place is masked, or wholly noisy: a caption or its picture.
    - `cut`: share of the windows cut by a straight line of random direction through a uniformly drawn place of a grid:
      masks are behind it and on every other grid. Of a picture a part is seen, and no caption.
    - `known`: share of the windows under Gaussian noise in which the tokens that a mask would leave are known as well,
      as in a passage with a prompt.
    - `schedule`: Gaussian noise levels; default equal steps of log sigma from 3.5 to 0.25.
    - `likelihood`: weight of the last part; only for energies whose masks are at rest after one step.

    **Raises:** `ValueError` for shares outside [0, 1], steps that are not positive or a negative weight; when called,
    for fewer windows than it takes to read in all `blocks`, and with `likelihood` above 0, for an energy whose masks
    need a relaxation.

    **Example:**

    ```python
    import equinox as eqx, jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    objective = eqx.filter_jit(ed.learn.Denoising(horizon=2))
    assert objective(model, jnp.zeros((4, 8), int), jax.random.key(1), jnp.array(1.0)) > 0
    ```
    """

    gaussian: float = eqx.field(static=True)
    typo: float = eqx.field(static=True)
    shortest: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    tracked: int = eqx.field(static=True)
    step: float = eqx.field(static=True)
    anneal: float = eqx.field(static=True)
    speed_penalty: float = eqx.field(static=True)
    start: float = eqx.field(static=True)
    prior_weight: float = eqx.field(static=True)
    prefix: float = eqx.field(static=True)
    cut: float = eqx.field(static=True)
    known: float = eqx.field(static=True)
    likelihood: float = eqx.field(static=True)
    schedule: AbstractSchedule

    def __init__(
        self,
        *,
        gaussian: float = 0.45,
        typo: float = 0.05,
        shortest: int = 2,
        horizon: int = 0,
        tracked: int = 1,
        step: float = 0.8,
        anneal: float = 0.5,
        speed_penalty: float = 0.2,
        start: float = 0.0,
        prior_weight: float = 1.0,
        prefix: float = 0.2,
        cut: float = 0.0,
        known: float = 0.5,
        schedule: AbstractSchedule | None = None,
        likelihood: float = 0.0,
    ):
        for name, share in (("prefix", prefix), ("cut", cut), ("known", known)):
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}` is {share}; expected a share of windows, 0 to 1.")
        if not (0 <= gaussian <= 1 and 0 <= typo <= 1 and gaussian + typo <= 1):
            raise ValueError(f"`gaussian`={gaussian} and `typo`={typo} are shares; their sum must be within [0, 1].")
        if horizon < 0 or shortest < 0:
            raise ValueError(f"`horizon`={horizon} and `shortest`={shortest} must be >= 0.")
        if (
            tracked < 1
            or not step > 0
            or not 0 <= anneal <= 1
            or min(speed_penalty, start, prior_weight, likelihood) < 0
        ):
            raise ValueError(
                f"`tracked`={tracked} must be >= 1, `step`={step} > 0, `anneal`={anneal} in [0, 1], "
                f"`speed_penalty`={speed_penalty}, `start`={start}, `prior_weight`={prior_weight} and "
                f"`likelihood`={likelihood} >= 0."
            )
        self.gaussian, self.typo = gaussian, typo
        self.shortest, self.horizon, self.tracked = min(shortest, horizon), horizon, tracked
        self.step, self.anneal, self.speed_penalty, self.start = step, anneal, speed_penalty, start
        self.prior_weight, self.likelihood = prior_weight, likelihood
        self.prefix, self.cut, self.known = prefix, cut, known
        self.schedule = LogLinear(sigma_max=3.5, sigma_min=0.25) if schedule is None else schedule

    @classmethod
    def at_rest(cls, **settings: Any) -> "Denoising":
        """The recipe for one layer, whose answer is that at rest: fewer windows under noise, and relaxations of 2 to 5
        untracked steps of 0.6 before 2 that the gradient follows; `settings` as above."""
        recipe = dict(gaussian=0.12, horizon=6, tracked=2, step=0.6, prefix=0.0, known=0.0)
        return cls(**{**recipe, **settings})

    def __call__(self, model: EnergyDLLM, ids: Int[Array, "B L"], key: Key, progress: Scalar) -> Scalar:
        """Cross-entropy of the tokens that are to be predicted, nats per token, plus the speed penalty."""
        b, asked, free, step = self.draw(model, ids, key, progress)
        sizes = self.sizes(model, ids.shape[0])
        energy: Any = model.energy

        y = jnp.zeros((*ids.shape, energy.dim), b.dtype)
        if self.start:
            k1, k2 = jax.random.split(jax.random.fold_in(key, 10))
            size = self.start * jax.random.uniform(k1, (), b.dtype)
            y = size * jax.random.normal(k2, y.shape, b.dtype)
        # masks are at rest after one full step where what tokens say is constant: only soft evidence needs a relaxation
        one_shot = isinstance(energy, FreeEnergy) and energy.one_shot
        soft = self._soft(ids.shape[0]) if one_shot else ids.shape[0]
        if self.likelihood and not one_shot:
            raise ValueError(
                f"`likelihood` is {self.likelihood} and the masks of this energy are not at rest after one step; "
                "expected a deep energy (`EnergyDLLM(depth=2)`), or 0."
            )

        def settle(ids, y, b, step, *block):
            energy, frozen = here(ids, *block)
            if self.horizon:  # else no loop is compiled that takes no step
                y = jax.lax.stop_gradient(_descend(frozen, y, b, free, step))

            def move(state, _):
                y, _ = state
                speed = energy.kappa * energy.force(y, b)
                return (y + step * speed, speed), None

            single = self.tracked == 1  # no loop, nor compiled as one
            y, speed = jax.lax.scan(move, (y, jnp.zeros_like(y)), None, length=self.tracked, unroll=single)[0]
            return nll_of(energy.logits(y, b), ids), jnp.mean(jnp.log1p(speed**2))

        def here(ids, *block):
            energy: Any = model.energy
            energy = energy.side_by_side(ids, *block) if block else energy
            return energy, jax.lax.stop_gradient(energy)

        def direct(ids, i, b, *block):
            energy, frozen = here(ids, *block)
            y = energy.neutral(b.shape[0]).astype(b.dtype)
            rest = y + energy.kappa * energy.force(y, b)
            nll = nll_of(energy.logits(rest, b), ids)
            if not self.likelihood:
                return nll, jnp.zeros(())
            # at rest `F` does not depend on `y` to first order, so that no gradient need follow it
            more = jnp.where((jnp.arange(b.shape[0]) == i)[:, None], given_of(ids, b), b)
            after = jax.lax.stop_gradient(y + frozen.kappa * frozen.force(y, more))
            rise = energy(after, more) - energy(jax.lax.stop_gradient(rest), b)
            gap = jnp.abs(rise - jax.lax.stop_gradient(nll[i]))
            return nll, jnp.where(gap < 1, 0.5 * gap**2, gap - 0.5)

        # one step from neutral is a force, of windows under masks a full one: all of them are one program
        alike = self.tracked == 1 and not (self.horizon or self.start or self.likelihood) and one_shot
        steps = jnp.where(np.arange(ids.shape[0]) < soft, step, 1.0).astype(b.dtype)
        # windows that relax first, and those that are read as a whole
        nll, motion, gaps = jnp.zeros(ids.shape, b.dtype), jnp.zeros(()), jnp.zeros(())
        one = jax.random.categorical(jax.random.fold_in(key, 13), jnp.where(asked, 0.0, -1e9), axis=-1)
        for beside in (False, True):
            rows = np.flatnonzero((sizes > 0) == beside)
            block = lambda rows, beside=beside: (jnp.asarray(sizes[rows]),) if beside else ()
            soft_rows, hard_rows = rows[rows < soft], rows[rows >= soft]
            if beside and not self.likelihood and (ordered := hard_rows[sizes[hard_rows] == 1]).size:
                # in blocks of one the state at rest is what the layers add: there is no force to follow
                log_p = each_window(energy.in_order, ids[ordered], size=b[0].size)
                nll, hard_rows = nll.at[ordered].set(-log_p), hard_rows[sizes[hard_rows] != 1]
            # few windows beside many are no program of their own; halves of a batch are faster apart, nearer to a cache
            if alike and 3 * hard_rows.size <= 2 * soft_rows.size:
                soft_rows, hard_rows = np.concatenate([soft_rows, hard_rows]), hard_rows[:0]
            if soft_rows.size:
                given = (row[soft_rows] for row in (ids, y, b, steps))
                settled, speeds = each_window(settle, *given, *block(soft_rows), size=b[0].size)
                nll, motion = nll.at[soft_rows].set(settled), motion + jnp.sum(speeds[soft_rows < soft])
            if hard_rows.size:
                given = (row[hard_rows] for row in (ids, one, b))
                masked, gap = each_window(direct, *given, *block(hard_rows), size=b[0].size)
                nll = nll.at[hard_rows].set(masked)
                gaps += jnp.sum(jnp.where(jnp.any(asked[hard_rows], axis=-1), gap, 0.0))
        kinds = [(int(size), sizes == size) for size in np.unique(sizes)]
        loss = sum(np.mean(rows) * weighted(nll[rows], asked[rows], size) for size, rows in kinds)
        loss += self.speed_penalty * motion / ids.shape[0] + self.likelihood * gaps / max(1, ids.shape[0] - soft)
        return loss + self.prior_weight * jnp.mean(jax.vmap(energy.vocabulary.nll)(ids))

    def sizes(self, model: EnergyDLLM, batch: int) -> Int[np.ndarray, " B"]:
        """Tokens of a block of every window, 0 where it is read as a whole."""
        blocks = (own,) if (own := block_of(model.energy)) else model.blocks
        soft = self._soft(batch)  # these stand first
        sizes = np.concatenate([np.resize((0,) if 0 in blocks else blocks, soft), np.resize(blocks, batch - soft)])
        masked = round(1 - self.gaussian - self.typo, 9)
        if masked and not set(blocks) <= set(sizes.tolist()):
            raise ValueError(
                f"`blocks` of the model are {blocks}, and of {batch} windows at once {batch - soft} are masked, too "
                f"few to read in each of them; expected {math.ceil(len(blocks) / masked)} or more, so raise "
                "`batch_size`, or lower `accumulate`."
            )
        return sizes

    def _soft(self, batch: int) -> int:
        return math.ceil((self.gaussian + self.typo) * batch)

    def draw(
        self, model: EnergyDLLM, ids: Int[Array, "B L"], key: Key, progress: Scalar
    ) -> tuple[Float[Array, "B L V"], Bool[Array, "B L"], Int[Array, ""], Scalar]:
        """Evidence `(B, L, V)`, tokens to predict `(B, L)`, untracked steps and their size, of one batch."""
        batch, size = ids.shape[0], model.size
        codes = jax.lax.stop_gradient(model.energy.vocabulary.codes)
        dtype = codes.dtype
        keys = [jax.random.fold_in(key, n) for n in range(10)]
        sizes = self.sizes(model, batch)
        shares, grids = (self.gaussian, self.prefix, self.cut), model.tokenizer.grids
        hidden = mask_windows(ids, sizes, grids, shares, key=key)
        seen = jax.nn.one_hot(ids, size, dtype=bool)
        given = jnp.where(seen | hidden[..., None], 0.0, FORBIDDEN).astype(dtype)

        u = jax.random.permutation(keys[1], stratified(keys[2], batch))
        sigma = jnp.exp(-self.schedule.level(u))[:, None, None].astype(dtype)
        x = codes[ids] + sigma * jax.random.normal(keys[3], (*ids.shape, codes.shape[1]), dtype)
        # soft evidence stands in the first rows only: the others need not have it
        most_noisy, most_soft = math.ceil(self.gaussian * batch), self._soft(batch)
        noisy = (x[:most_noisy] @ codes.T - 0.5 * jnp.sum(codes**2, axis=-1)) / sigma[:most_noisy] ** 2

        rate = jnp.maximum(0.5 * stratified(keys[4], batch), 1e-3)[:, None, None].astype(dtype)
        wrong = jax.random.uniform(keys[5], ids.shape) < rate[..., 0]
        typed = jnp.where(wrong, jax.random.randint(keys[6], ids.shape, 0, size, ids.dtype), ids)
        rate, typed = rate[:most_soft], typed[:most_soft]
        mistyped = jnp.log((1 - rate) * jax.nn.one_hot(typed, size, dtype=dtype) + rate / size)

        # each kind of evidence takes its share of the rows; windows come in random order
        row = (jnp.arange(batch) + jax.random.uniform(keys[9])) / batch
        is_noisy = (row < self.gaussian)[:, None]
        is_typed = ((row >= self.gaussian) & (row < self.gaussian + self.typo))[:, None]
        is_known = ~hidden & (jax.random.uniform(jax.random.fold_in(key, 12), (batch, 1)) < self.known)
        noisy = jnp.where(is_known[:most_noisy, :, None], noisy + given[:most_noisy], noisy)
        soft = jnp.where(is_typed[:most_soft, :, None], mistyped, given[:most_soft])
        soft = soft.at[:most_noisy].set(jnp.where(is_noisy[:most_noisy, :, None], noisy, soft[:most_noisy]))
        b = given.at[:most_soft].set(soft)
        asked = hidden | is_typed | (is_noisy & ~is_known)

        grown = jnp.minimum(1.0, progress / self.anneal) if self.anneal > 0 else 1.0
        low, high = jnp.log(1.0 + self.shortest), jnp.log(1.0 + self.horizon)
        steps = jnp.exp(grown * (low + (high - low) * jax.random.uniform(keys[7])))
        free = jnp.floor((1.0 + 1e-6) * steps).astype(int) - 1  # a whole number is one up to rounding
        step = self.step * jax.random.uniform(keys[8], (), dtype, 0.7, 1.3)
        return b, asked, jnp.clip(free, 0, self.horizon), step

    def diagnose(self, model: EnergyDLLM, ids: Int[Array, "B L"], key: Key, progress: Scalar) -> str:
        """The term of F that stopped being finite first, and at which relaxation step."""
        b, _, free, step = self.draw(model, ids, key, progress)
        neutral = jnp.zeros((*ids.shape, model.energy.dim), b.dtype)
        for name, leaf in named_leaves(model):
            if not jnp.all(jnp.isfinite(leaf)):
                return f"the parameter {name}"

        @eqx.filter_jit
        def terms(model, b, steps):
            def after(y, b):
                y = _descend(model.energy, y, b, jnp.minimum(steps, free), step)
                return model.energy.terms(relax(model.energy, y, b, steps=jnp.maximum(steps - free, 0), step=step), b)

            return jax.vmap(after)(neutral, b)

        for n in range(int(free) + self.tracked + 1):
            for name, term in terms(model, b, jnp.asarray(n)).items():
                if not jnp.all(jnp.isfinite(term)):
                    return f"the term {name!r} of F, at relaxation step {n}"
        return "the gradient; every term of F was finite"


def _descend(energy, y, b, steps, step):
    """The state after a number of steps that is not known to the compiler."""
    return jax.lax.fori_loop(0, steps, lambda _, y: y + step * energy.kappa * energy.force(y, b), y)

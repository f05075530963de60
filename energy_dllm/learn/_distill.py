"""`Distilling`: a flow map learns the ODE of an energy model."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._model import EnergyDLLM
from .._types import Key, Scalar
from ..flow import Gaussian, ProbabilityFlow
from ._cross_entropy import stratified
from ._twin_objectives import AbstractOnePass


class Distilling(AbstractOnePass):
    """Distillation of the `ProbabilityFlow` of a model into a flow map, by cross-entropy.

    `D(x, s, s) = p(x, s)`, and `D(x, s, t) = a D(x, s, u) + (1 - a) D(x_u, u, t)`, `a = (e^(u-s) - 1) / (e^(t-s) - 1)`

    The first is trained on a share of the windows, with the posterior of the energy as target; the second on the
    others, with `u` half way and the map itself as target: a jump equals two jumps of half its length, and jumps of
    length zero equal the posterior of the energy. Jumps start at noisy windows of the text, and grow to the whole path
    over the first `anneal` of the training.

    **Arguments:**

    - `teacher`: the energy model whose ODE is distilled; it does not change.
    - `taught`: share of the windows whose target is the energy model.
    - `steps`: relaxation steps of each such target, by default those for which the teacher is trained.
    - `anneal`: fraction of the training over which jumps reach full length.

    **Raises:** `ValueError` for a share or fraction outside [0, 1], or `steps` that are not positive.

    **Source:** Boffi et al. 2024 (arXiv 2406.07507); Frans et al. 2024, shortcut models (arXiv 2410.12557).

    **Example:**

    ```python
    import jax, energy_dllm as ed

    corpus = ed.data.grammar_corpus(characters=5000)
    model = ed.EnergyDLLM(corpus.tokenizer, dim=16, key=jax.random.key(0))
    jumps = ed.learn.FlowMap(model.energy, dim=16, depth=1, key=jax.random.key(1))
    jumps = ed.fit(jumps, corpus, ed.learn.Distilling(model), steps=2, length=16, batch_size=4)
    ```
    """

    teacher: EnergyDLLM
    taught: float = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    anneal: float = eqx.field(static=True)

    def __init__(self, teacher: EnergyDLLM, *, taught: float = 0.25, steps: int | None = None, anneal: float = 0.5):
        steps = teacher.steps if steps is None else steps
        if not 0 <= taught <= 1 or not 0 <= anneal <= 1:
            raise ValueError(f"`taught`={taught} and `anneal`={anneal} are fractions; expected values in [0, 1].")
        if steps < 1:
            raise ValueError(f"`steps` is {steps}; expected at least one relaxation step.")
        self.teacher, self.taught, self.steps, self.anneal = teacher, taught, steps, anneal

    def __call__(self, model: Callable, ids: Int[Array, "B L"], key: Key, progress: Scalar) -> Scalar:
        """Cross-entropy, nats per token; its least value is the entropy of the target."""
        energy, schedule = self.teacher.energy, self.teacher.schedule
        codes = energy.vocabulary.codes
        k1, k2, k3, k4 = jax.random.split(key, 4)
        batch = ids.shape[0]
        u = jax.random.permutation(k1, stratified(k2, batch))
        longest = jnp.clip(progress / self.anneal, 0.0, 1.0) if self.anneal > 0 else 1.0
        v = u + (1 - u) * longest * jax.random.uniform(k3, (batch,))
        direct = round(self.taught * batch)
        v = jnp.where(jnp.arange(batch) < direct, u, v)
        times = [schedule.level(w).astype(codes.dtype) for w in (u, (u + v) / 2, v)]
        noise = jax.random.normal(k4, (*ids.shape, codes.shape[1]), codes.dtype)
        x = codes[ids] + jnp.exp(-times[0])[:, None, None] * noise
        evidence = lambda x, s: Gaussian(x, jnp.exp(-s)).field(codes)

        def direct_target(x, s):
            return ProbabilityFlow(energy, steps=self.steps, step=self.teacher.step).posterior(s, x)

        def composed_target(x, s, m, t):
            first, ratio = model(evidence(x, s), s, m), jnp.exp(s - m).astype(x.dtype)
            second = model(evidence(ratio * x + (1 - ratio) * (jnp.exp(first) @ codes), m), m, t)
            # half and half where the jump has no length
            share = jnp.where(t > s, jnp.expm1(m - s) / jnp.where(t > s, jnp.expm1(t - s), 1.0), 0.5)
            return share * jnp.exp(first) + (1 - share) * jnp.exp(second)

        rows = lambda part, *arrays: [array[part] for array in arrays]
        targets = []
        if direct:
            targets.append(jax.vmap(direct_target)(*rows(slice(direct), x, times[0])))
        if direct < batch:
            targets.append(jax.vmap(composed_target)(*rows(slice(direct, None), x, *times)))
        target = jax.lax.stop_gradient(jnp.concatenate(targets))
        predicted = jax.vmap(lambda x, s, t: model(evidence(x, s), s, t))(x, times[0], times[2])
        return -jnp.mean(jnp.sum(target * predicted, axis=-1))

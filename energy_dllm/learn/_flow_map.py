"""A flow map that is learned: a transformer that jumps where the ODE of an energy model would lead."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Key, Scalar
from ..energy import AbstractFreeEnergy
from ..flow import FORBIDDEN, AbstractFlowMap
from ._twins import Trunk


WAVES = tuple(0.25 * 2.0**n for n in range(6))
"""Frequencies by which the network is told the time, per unit of noise time."""
LARGEST = 8.0
"""What stands for certain, among what the network is told of the evidence."""
LEAST = 1e-30
"""A probability of nothing, whose logarithm is still a number."""


class FlowMap(AbstractFlowMap):
    """A transformer that knows where the probability flow leads: `Distilling` teaches it, `Diffusion` jumps with it.

    `D = softmax(log p_0(b) + network(p_0(b), b, s, t))`

    `p_0` is the posterior of the energy with its neurons in neutral: what the vocabulary alone makes of the evidence,
    without any relaxation. Where the network is silent a jump is a step of `DDIM` on that; what evidence excludes stays
    excluded whatever the network says. The energy itself does not learn.

    **Arguments:**

    - `energy`: of the model that is imitated.
    - `dim`, `depth`, `heads`, `hidden`, `reach`, `local`: as those of a `MaskedDiffusion` twin.
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive, `local` is negative or `heads` does not divide `dim`.

    **Source:** Boffi et al. 2024, flow map matching (arXiv 2406.07507).

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    jumps = ed.learn.FlowMap(model.energy, dim=16, depth=1, key=jax.random.key(1))
    made = ed.generate(model, length=12, sampler=ed.sampling.Diffusion(steps=2, solver=jumps))
    assert made.force_evaluations.tolist() == [2]
    ```
    """

    energy: AbstractFreeEnergy
    trunk: Trunk

    def __init__(
        self,
        energy: AbstractFreeEnergy,
        *,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        hidden: int | None = None,
        reach: int = 64,
        local: int = 4,
        key: Key,
    ):
        if local < 0:
            raise ValueError(f"`local` is {local}; expected 0 (no convolution) or more neighbours.")
        size = energy.size
        inputs = 2 * size + 4 * len(WAVES)
        self.energy = energy
        self.trunk = Trunk(inputs, size, dim, depth, heads, hidden or 4 * dim, reach, 1, local, key)

    def average(self, b: Float[Array, "L V"], start: Scalar, end: Scalar) -> Float[Array, "L V"]:
        """Log of the posterior averaged over the path from noise time `start` to `end` `(L, V)`."""
        length, size = b.shape
        frozen = jax.lax.stop_gradient(self.energy)
        log_p = jnp.log(jnp.maximum(frozen.posterior(frozen.neutral(length).astype(b.dtype), b), LEAST))
        alone = jax.nn.log_softmax(b, axis=-1)
        sigma = jnp.exp(-start)
        # of unit size at every level: the noise where there is little else, the token where there is little noise
        scaled = jnp.clip((alone + math.log(size)) * sigma / jnp.sqrt(1 + sigma**-2), -LARGEST, LARGEST)
        angles = jnp.outer(jnp.stack([start, end]), jnp.asarray(WAVES)).ravel()
        clock = jnp.broadcast_to(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)]), (length, 4 * len(WAVES)))
        told = jnp.concatenate([math.sqrt(size) * jnp.exp(log_p), scaled, clock], axis=-1).astype(b.dtype)
        here = jnp.ones((length, length), bool)
        said = self.trunk.logits(told @ self.trunk.embedding, here)
        return jax.nn.log_softmax(log_p + jnp.where(alone > FORBIDDEN / 2, said, 0.0), axis=-1)

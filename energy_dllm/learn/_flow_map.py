"""A learned flow map: a transformer that jumps along the probability flow of an energy model."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Key, Scalar
from ..energy import AbstractFreeEnergy
from ..flow import FORBIDDEN
from ._twins import Trunk


WAVES = tuple(0.25 * 2.0**n for n in range(6))
"""Frequencies of the time features, per unit of noise time."""
LARGEST = 8.0
"""Clip of the evidence features."""
LEAST = 1e-30
"""Smallest probability, so that its logarithm is finite."""


class FlowMap(eqx.Module):
    """A transformer that predicts where the probability flow leads: trained by `Distilling`, followed by
    `flow.DDIM(average=)`.

    `D = softmax(log p_0(b) + network(p_0(b), b, s, t))`

    `p_0` is the posterior of the energy with its neurons in neutral, without any relaxation. Where the network is zero
    a jump is a step of `DDIM` on that; tokens that the evidence excludes stay excluded. The energy is not trained.

    **Arguments:**

    - `energy`: of the model that is distilled.
    - `dim`, `depth`, `heads`, `hidden`, `reach`, `local`: as those of a `MaskedDiffusion` twin.
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive, `local` is negative or `heads` does not divide `dim`.

    **Source:** Boffi et al. 2024, flow map matching (arXiv 2406.07507).

    ??? cite "Reference"

        ```bibtex
        @article{boffi2024flow,
          title={Flow Map Matching},
          author={Boffi, Nicholas M. and Albergo, Michael S. and Vanden-Eijnden, Eric},
          journal={arXiv:2406.07507},
          year={2024}
        }
        ```

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    jumps = ed.learn.FlowMap(model.energy, dim=16, depth=1, key=jax.random.key(1))
    made = ed.generate(model, length=12, sampler=ed.sampling.Diffusion(steps=2, solver=ed.flow.DDIM(average=jumps)))
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

    def __call__(self, b: Float[Array, "L V"], start: Scalar, end: Scalar) -> Float[Array, "L V"]:
        """Log of the posterior averaged over the path from noise time `start` to `end` `(L, V)`."""
        length, size = b.shape
        frozen = jax.lax.stop_gradient(self.energy)
        log_p = jnp.log(jnp.maximum(frozen.posterior(frozen.neutral(length).astype(b.dtype), b), LEAST))
        log_b = jax.nn.log_softmax(b, axis=-1)
        sigma = jnp.exp(-start)
        # of unit size at every noise level
        scaled = jnp.clip((log_b + math.log(size)) * sigma / jnp.sqrt(1 + sigma**-2), -LARGEST, LARGEST)
        angles = jnp.outer(jnp.stack([start, end]), jnp.asarray(WAVES)).ravel()
        clock = jnp.broadcast_to(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)]), (length, 4 * len(WAVES)))
        features = jnp.concatenate([math.sqrt(size) * jnp.exp(log_p), scaled, clock], axis=-1).astype(b.dtype)
        here = jnp.ones((length, length), bool)
        correction = self.trunk.logits(features @ self.trunk.embedding, here)
        return jax.nn.log_softmax(log_p + jnp.where(log_b > FORBIDDEN / 2, correction, 0.0), axis=-1)

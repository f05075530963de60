"""Memories of one state as synapses: on every token, or on a whole sequence as one state."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..energy import AbstractRecall, AbstractSynapse
from ._states import AbstractMemory, AbstractPatternMemory


class TokenMemory(AbstractRecall):
    """Any memory as a synapse that acts on every token: `E = sum_i E(g_i)`.

    **Arguments:**

    - `memory`: of states of width `D`.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    synapse = ed.memory.TokenMemory(ed.memory.GaussianMemory(jnp.eye(8), beta=2.0))
    network = ed.energy.Network(ed.energy.Tanh(), {"memory": synapse}, jnp.zeros(8))
    assert network.terms(jnp.ones((5, 8)))["memory"].shape == (5,)
    ```
    """

    memory: AbstractMemory

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """`E(g_i) (L,)`."""
        if mask is not None:  # padding may lie where the memory has no gradient, or an error
            g = jnp.where(mask[:, None], g, g[jnp.argmax(mask)])
        energy = jax.vmap(self.memory)(g)
        return energy if mask is None else jnp.where(mask, energy, 0.0)

    def per_memory(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, "L M"] | None:
        """The energy by stored pattern, `(L, M)`; `None` of a memory without explicit patterns."""
        if not isinstance(self.memory, AbstractPatternMemory):
            return None
        energy = jax.vmap(self.memory.split)(g)[0]
        return energy if mask is None else jnp.where(mask[:, None], energy, 0.0)

    def by_memory(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L M"] | None:
        """The message of pattern `m` to token `i` along `u_i`, `(L, M)`; `None` without explicit patterns."""
        if not isinstance(self.memory, AbstractPatternMemory):
            return None
        return -jax.jvp(jax.vmap(self.memory.per_memory), (g,), (u,))[1] * jax.vmap(self.memory.split)(g)[1]

    def activity(self, g: Float[Array, "L D"]) -> tuple[Float[Array, "L M"], Float[Array, "M D"]] | None:
        """The weight of each pattern's force, and the patterns `(M, D)`; `None` without explicit patterns."""
        if not isinstance(self.memory, AbstractPatternMemory):
            return None
        return jax.vmap(self.memory.split)(g)[1], self.memory.patterns


class SequenceMemory(AbstractSynapse):
    """A memory of whole sequences as one synapse: `E = E(g_1, ..., g_L)`, states of width `N = L D`.

    Padding, and the places after the end of a shorter sequence, are set to 0 in the state and in every pattern.

    **Arguments:**

    - `memory`: of flattened sequences, `(M, L D)`.

    **Raises:** `ValueError` for a sequence longer than the memory.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    sequences = jnp.eye(3, 10)  # three sequences of five tokens of width two
    synapse = ed.memory.SequenceMemory(ed.memory.GaussianMemory(sequences, beta=2.0))
    assert synapse.per_token(jnp.zeros((4, 2))).shape == (4,)
    ```
    """

    memory: AbstractPatternMemory

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """The energy in equal parts on all valid tokens, `(L,)`."""
        length, width = g.shape
        if self.memory.dim % width or length * width > self.memory.dim:
            raise ValueError(
                f"`g` has shape {g.shape}; the memory holds {self.memory.dim // width} tokens of width {width}, "
                f"{self.memory.dim} numbers: cut the cue, or store longer sequences."
            )
        here = jnp.ones(length, bool) if mask is None else mask
        there = jnp.pad(jnp.repeat(here, width), (0, self.memory.dim - length * width))
        x = jnp.where(there, jnp.pad(g.reshape(-1), (0, self.memory.dim - length * width)), 0.0)
        patterns = jnp.where(there, self.memory.patterns, 0.0)
        energy = eqx.tree_at(lambda memory: memory.patterns, self.memory, patterns)(x)
        return jnp.where(here, energy / jnp.maximum(jnp.sum(here), 1), 0.0)

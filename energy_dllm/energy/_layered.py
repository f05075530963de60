"""Synapses of several named terms, and how their forces are split."""

import abc

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._synapses import AbstractSynapse, by_token


class AbstractLayered(AbstractSynapse):
    """A synapse whose energy is a sum of named terms, each of which has its name in every report.

    To add one, write `terms`, and how each of them is split: every method below gives a dict by term. Along a direction
    `u_i` at every token the parts of a term add up to that of its force, `<-dE/dg_i, u_i>`.
    """

    @abc.abstractmethod
    def terms(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> dict[str, Float[Array, " L"]]:
        """The energy by named term, each token by token `(L,)`."""

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """The sum of `terms`, `(L,)`."""
        return jnp.sum(jnp.stack(list(self.terms(g, mask).values())), axis=0)

    @abc.abstractmethod
    def heads(self, g: Float[Array, "L D"]) -> dict[str, tuple[Float[Array, "H L"], Float[Array, "H L reads"]]]:
        """Energy of each head at every token, and its attention pattern."""

    @abc.abstractmethod
    def memories(
        self, g: Float[Array, "L D"]
    ) -> dict[str, tuple[Float[Array, "L M"], Float[Array, "L M"], Float[Array, "M D"]]]:
        """Energy of each stored pattern at every token, its activation there, and its value."""

    @abc.abstractmethod
    def by_neighbour(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> dict[str, Float[Array, "L L"]]:
        """The message of token `j` to token `i` along `u_i`."""

    def by_head(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> dict[str, Float[Array, "L H"]]:
        """The message of head `h` to token `i` along `u_i`."""
        whole = lambda g: {name: jnp.sum(energy, axis=1) for name, (energy, _) in self.heads(g).items()}
        return by_token(whole, g, u)

    def by_memory(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> dict[str, Float[Array, "L M"]]:
        """The message of stored pattern `m` to token `i` along `u_i`."""
        whole = lambda g: {name: jnp.sum(energy, axis=0) for name, (energy, *_) in self.memories(g).items()}
        return by_token(whole, g, u)

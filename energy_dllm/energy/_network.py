"""The hidden network: neurons, and the synapses between them."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._layered import AbstractLayered
from ._neurons import AbstractNeurons
from ._synapses import AbstractCoupling, AbstractRecall, AbstractSynapse, Attention, valid


class Network(eqx.Module):
    """Neurons and the named synapses between them: a sum of energies, term by term.

    `E(y) = sum_i [<y_i, g_i> - Λ(y_i)] + sum_n E_n(g) - sum_i <a, g_i>`, `g = grad Λ(y)`.

    **Arguments:**

    - `neurons`: the Lagrangian shared by all tokens.
    - `synapses`: energies of `g` by name; the names appear in every report.
    - `bias`: the field `a (D,)` on every token.

    **Raises:** `ValueError` if a synapse is named `neurons`, `bias`, `vocabulary` or `spring`, which are taken; in
    `terms`, if a synapse has the name of a layer of a `DeepStack`, of which there can be one.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.energy.DenseMemory(8, key=jax.random.key(0))
    network = ed.energy.Network(ed.energy.Tanh(), {"memory": memory}, jnp.zeros(8))
    assert set(network.terms(jnp.ones((3, 8)))) == {"neurons", "memory", "bias"}
    ```
    """

    neurons: AbstractNeurons
    synapses: Mapping[str, AbstractSynapse]
    bias: Float[Array, " D"]

    def __check_init__(self):
        taken = {"neurons", "bias", "vocabulary", "spring"} & set(self.synapses)
        if taken:
            raise ValueError(f"`synapses` has the name {sorted(taken)[0]!r}, which is taken; rename it.")

    def activation(self, y: Float[Array, "L D"]) -> Float[Array, "L D"]:
        """`g = grad Λ(y)`, token by token, `(L, D)`."""
        return jax.vmap(self.neurons.activation)(y)

    def terms(
        self, y: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None, *, g: Float[Array, "L D"] | None = None
    ) -> dict[str, Float[Array, " L"]]:
        """Every term of `E` by name, each token by token `(L,)`; `g` are other activations than those of `y`."""
        g = self.activation(y) if g is None else g
        # With y held, d/dg of the first term is y: the Legendre transform's own derivative.
        terms = {"neurons": valid(jnp.sum(y * g, axis=-1) - jax.vmap(self.neurons.lagrangian)(y), mask)}
        for name, synapse in self.synapses.items():
            with jax.named_scope(name):
                layered = isinstance(synapse, AbstractLayered)
                own = synapse.terms(g, mask) if layered else {name: synapse.per_token(g, mask)}
            if again := own.keys() & terms.keys():
                raise ValueError(
                    f"`synapses` have two terms named {min(again)!r}; expected a name of its own for each."
                )
            terms |= own
        return terms | {"bias": valid(-g @ self.bias, mask)}

    def heads(self, g: Float[Array, "L D"]) -> dict[str, tuple[Float[Array, "H L"], Float[Array, "H L reads"]]]:
        """Energy by head and attention pattern of every attention, by name."""
        found: dict[str, Any] = {}
        for name, synapse in self.synapses.items():
            if isinstance(synapse, AbstractLayered):
                found |= synapse.heads(g)
            elif isinstance(synapse, Attention):
                found[name] = synapse.per_head(g), synapse.pattern(g)
        return found

    def memories(self, g: Float[Array, "L D"]) -> dict[str, tuple[Array, Array | None, Array | None]]:
        """Energy `(L, M)`, activation `(L, M)` and value `(M, D)` of every stored pattern, by memory."""
        found: dict[str, Any] = {}
        for name, synapse in self.synapses.items():
            if isinstance(synapse, AbstractLayered):
                found |= synapse.memories(g)
            elif isinstance(synapse, AbstractRecall) and (each := synapse.per_memory(g)) is not None:
                found[name] = each, *(synapse.activity(g) or (None, None))
        return found

    def split(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> tuple[dict, dict, dict]:
        """The force of every term along `u_i`, by neighbour `(L, L)`, by head `(L, H)` and by stored pattern `(L, M)`,
        each a dict by name."""
        neighbours, heads, memories = {}, {}, {}
        for name, synapse in self.synapses.items():
            if isinstance(synapse, AbstractLayered):
                neighbours |= synapse.by_neighbour(g, u)
                heads |= synapse.by_head(g, u)
                memories |= synapse.by_memory(g, u)
            if isinstance(synapse, AbstractCoupling):
                neighbours[name] = synapse.by_neighbour(g, u)
            if isinstance(synapse, Attention):
                heads[name] = synapse.by_head(g, u)
            if isinstance(synapse, AbstractRecall) and (each := synapse.by_memory(g, u)) is not None:
                memories[name] = each
        return neighbours, heads, memories

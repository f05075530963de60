"""The parts of the synapses of a network, by the names of its terms."""

from typing import Any

from jaxtyping import Array, Float

from ..energy import AbstractAttention, AbstractCoupling, AbstractLayered, AbstractRecall, FreeEnergy


def heads(energy: FreeEnergy, g: Float[Array, "L D"]) -> dict[str, tuple[Array, Array]]:
    """Energy `(H, L)` and pattern `(H, L, L)` of every attention by name."""
    found: dict[str, tuple[Array, Array]] = {}
    for name, synapse in energy.network.synapses.items():
        if isinstance(synapse, AbstractLayered):
            found |= synapse.heads(g)
        elif isinstance(synapse, AbstractAttention):
            found[name] = synapse.per_head(g), synapse.pattern(g)
    return found


def memories(energy: FreeEnergy, g: Float[Array, "L D"]) -> dict[str, tuple[Array, Array | None, Array | None]]:
    """Energy `(L, M)`, activation `(L, M)` and value `(M, D)` of every stored pattern, by the name of the memory."""
    found: dict[str, Any] = {}
    for name, synapse in energy.network.synapses.items():
        if isinstance(synapse, AbstractLayered):
            found |= synapse.memories(g)
        elif isinstance(synapse, AbstractRecall) and (each := synapse.per_memory(g)) is not None:
            found[name] = each, *(synapse.activity(g) or (None, None))
    return found


def split(energy: FreeEnergy, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> tuple[dict, dict, dict]:
    """The force of every term along `u_i`, by neighbour `(L, L)`, by head `(L, H)` and by stored pattern `(L, M)`."""
    neighbours, of_heads, of_memories = {}, {}, {}
    for name, synapse in energy.network.synapses.items():
        if isinstance(synapse, AbstractLayered):
            neighbours |= synapse.by_neighbour(g, u)
            of_heads |= synapse.by_head(g, u)
            of_memories |= synapse.by_memory(g, u)
        if isinstance(synapse, AbstractCoupling):
            neighbours[name] = synapse.by_neighbour(g, u)
        if isinstance(synapse, AbstractAttention):
            of_heads[name] = synapse.by_head(g, u)
        if isinstance(synapse, AbstractRecall) and (each := synapse.by_memory(g, u)) is not None:
            of_memories[name] = each
    return neighbours, of_heads, of_memories

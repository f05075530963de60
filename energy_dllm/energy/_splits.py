"""Splits of the force of attention and pairwise synapses by neighbour: exact sums along a direction `u (L, D)`."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


def by_key(synapse: Any, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L L"]:
    """Messages of energy attention, each neighbour as key of the token and as query at it."""
    pattern, (as_query, as_key) = synapse.pattern(g), _slopes(synapse, g, u)
    messages = jnp.sum(pattern * as_query, axis=0) + jnp.sum(pattern * as_key, axis=0).T
    return messages * synapse.query.shape[1] ** 0.5


def by_offset(
    left: Float[Array, "O R D"], right: Float[Array, "O R D"], g: Float[Array, "L D"], u: Float[Array, "L D"]
) -> Float[Array, "L L"]:
    """Messages of a pairwise coupling."""
    length = g.shape[0]
    messages = jnp.zeros((length, length), g.dtype)
    for o in range(1, min(left.shape[0], length - 1) + 1):
        later = jnp.sum((u[:-o] @ left[o - 1].T) * (g[o:] @ right[o - 1].T), axis=-1)
        earlier = jnp.sum((g[:-o] @ left[o - 1].T) * (u[o:] @ right[o - 1].T), axis=-1)
        messages = messages + jnp.diag(later, o) + jnp.diag(earlier, -o)
    return messages


def _slopes(synapse, g, u):
    """Derivatives of the logits, with `u` as query and `g` as key, and the other way round: they are bilinear."""
    wide = jnp.concatenate([g, u], axis=-1)
    none = jnp.zeros_like(synapse.query)

    def slope(query, keys):
        halves = (jnp.concatenate(query, axis=-1), jnp.concatenate(keys, axis=-1), jnp.zeros_like(synapse.bias))
        logits = eqx.tree_at(lambda s: (s.query, s.keys, s.bias), synapse, halves).logits(wide)
        return jnp.where(jnp.isfinite(logits), logits, 0.0)

    return slope((none, synapse.query), (synapse.keys, none)), slope((synapse.query, none), (none, synapse.keys))

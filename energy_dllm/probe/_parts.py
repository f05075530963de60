"""Splits of the force of a synapse by neighbour and by stored pattern, exact sums.

`u (L, D)` is a direction at every token; the parts of a synapse along it add up to `<-dE/dg_i, u_i>`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import einsum
from jaxtyping import Array, Float

from ..energy import (
    AbstractSynapse,
    Attention,
    ConvolutionalMemory,
    DenseMemory,
    MappingAttention,
    MappingMemory,
    Pairwise,
)
from ..memory import AbstractPatternMemory, AbstractSoftMinimum, AbstractSum, TokenMemory


def by_neighbour(
    synapse: AbstractSynapse, g: Float[Array, "L D"], u: Float[Array, "L D"]
) -> Float[Array, "L L"] | None:
    """The message of token `j` to token `i` along `u_i`, `(L, L)`; `None` for a synapse that does not couple tokens."""
    if isinstance(synapse, Attention):
        return _attention(synapse, g, u)
    if isinstance(synapse, MappingAttention):
        return _mapping(synapse, g, u)
    if isinstance(synapse, Pairwise):
        return _pairwise(synapse, g, u)
    if isinstance(synapse, ConvolutionalMemory):
        return _recalled(synapse, g, u, axis=1)
    return None


def by_memory(synapse: AbstractSynapse, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L M"] | None:
    """The message of stored pattern `m` to token `i` along `u_i`, `(L, M)`; `None` for a synapse that stores none."""
    if isinstance(synapse, ConvolutionalMemory):
        return _recalled(synapse, g, u, axis=0)
    if isinstance(synapse, DenseMemory):
        return synapse.recalled(g) * (u @ synapse.patterns.T)
    if isinstance(synapse, TokenMemory) and isinstance(synapse.memory, AbstractPatternMemory):
        pull = -jax.jvp(jax.vmap(synapse.memory.per_memory), (g,), (u,))[1]
        if isinstance(synapse.memory, AbstractSoftMinimum):
            return pull * jax.vmap(synapse.memory.shares)(g)
        return pull
    if not isinstance(synapse, MappingMemory):
        return None
    # each token's patterns depend on that token alone: one forward derivative for all
    return -jax.jvp(lambda g: pattern_energy(synapse, g), (g,), (u,))[1]


def pattern_energy(synapse: AbstractSynapse, g: Float[Array, "L D"]) -> Float[Array, "L M"] | None:
    """The energy of a memory, stored pattern by stored pattern `(L, M)`; the sum of a row is that of the token."""
    if isinstance(synapse, ConvolutionalMemory):
        return synapse.per_memory(g)
    if isinstance(synapse, MappingMemory):
        return -_active(synapse, g) * (g @ synapse.answers.T)
    if isinstance(synapse, DenseMemory):
        # in proportion to the activations; nothing is recalled where all of them are 0
        recalled = synapse.recalled(g)
        total = jnp.sum(recalled, axis=-1, keepdims=True)
        return recalled / jnp.where(total == 0, 1.0, total) * synapse.per_token(g)[:, None]
    if isinstance(synapse, TokenMemory) and isinstance(synapse.memory, AbstractSum):
        return jax.vmap(synapse.memory.per_memory)(g)
    if isinstance(synapse, TokenMemory) and isinstance(synapse.memory, AbstractSoftMinimum):
        return jax.vmap(synapse.memory.shares)(g) * synapse.per_token(g)[:, None]
    return None


def activity(
    synapse: AbstractSynapse, g: Float[Array, "L D"]
) -> tuple[Float[Array, "L M"], Float[Array, "M D"]] | None:
    """Activation of each pattern at each token, and its value `(M, D)`; `None` if none is stored."""
    if isinstance(synapse, ConvolutionalMemory):
        return synapse.recalled(g), synapse.answers.reshape(-1, g.shape[1])
    if isinstance(synapse, MappingMemory):
        return _active(synapse, g), synapse.answers
    if isinstance(synapse, DenseMemory):
        return synapse.recalled(g), synapse.patterns
    if isinstance(synapse, TokenMemory) and isinstance(synapse.memory, AbstractSoftMinimum):
        return jax.vmap(synapse.memory.shares)(g), synapse.memory.patterns
    return None


def _active(synapse, g):
    return jax.nn.gelu(g @ synapse.cues.T + synapse.threshold)


def _attention(synapse, g, u):
    pattern, (as_query, as_key) = synapse.pattern(g), _slopes(synapse, g, u)
    forward = jnp.sum(pattern * as_query, axis=0) + jnp.sum(pattern * as_key, axis=0).T
    return forward * synapse.query.shape[1] ** 0.5


def _shown(g, to):
    return einsum(g, to, "l d, h k d -> h l k")


def _slopes(synapse, g, u):
    """How the logits change, `u` as query against `g` as key, and the other way round: they are bilinear."""
    wide = jnp.concatenate([g, u], axis=-1)
    none = jnp.zeros_like(synapse.query)

    def slope(query, keys):
        halves = (jnp.concatenate(query, axis=-1), jnp.concatenate(keys, axis=-1), jnp.zeros_like(synapse.bias))
        logits = eqx.tree_at(lambda s: (s.query, s.keys, s.bias), synapse, halves).logits(wide)
        return jnp.where(jnp.isfinite(logits), logits, 0.0)

    return slope((none, synapse.query), (synapse.keys, none)), slope((synapse.query, none), (none, synapse.keys))


def _mapping(synapse, g, u):
    """As `_attention`, with the derivative of the pattern: attention grows where the answer is above average."""
    pattern, answers, values = synapse.pattern(g), _shown(g, synapse.answers), _shown(g, synapse.values)
    agree = einsum(answers, values, "h i k, h j k -> h i j")
    gain = pattern * (agree - jnp.sum(pattern * agree, axis=-1, keepdims=True))
    as_query, as_key = _slopes(synapse, g, u)
    forward = pattern * einsum(_shown(u, synapse.answers), values, "h i k, h j k -> h i j") + gain * as_query
    backward = pattern * einsum(answers, _shown(u, synapse.values), "h i k, h j k -> h i j") + gain * as_key
    return jnp.sum(forward, axis=0) + jnp.sum(backward, axis=0).T


def _pairwise(synapse, g, u):
    length = g.shape[0]
    message = jnp.zeros((length, length), g.dtype)
    for o in range(1, min(synapse.left.shape[0], length - 1) + 1):
        left, right = synapse.left[o - 1], synapse.right[o - 1]
        later = jnp.sum((u[:-o] @ left.T) * (g[o:] @ right.T), axis=-1)
        earlier = jnp.sum((g[:-o] @ left.T) * (u[o:] @ right.T), axis=-1)
        message = message + jnp.diag(later, o) + jnp.diag(earlier, -o)
    return message


def _recalled(synapse, g, u, axis):
    """The message of pattern `m` as recalled at token `j` to token `i` along `u_i`, summed over `m` or over `j`."""
    energy = lambda g: jnp.sum(synapse.per_memory(g), axis=axis)
    part = lambda i: -jax.jvp(energy, (g,), (jnp.zeros_like(g).at[i].set(u[i]),))[1]
    return jax.lax.map(part, jnp.arange(g.shape[0]), batch_size=16)

"""What one neighbour or one stored pattern of a synapse contributes: sums that are exact, term by term.

`u (L, D)` is a direction at every token; the parts of a synapse along it add up to `<-dE/dg_i, u_i>`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import einsum
from jaxtyping import Array, Float

from ..energy import (
    AbstractPatternMemory,
    AbstractSoftMinimum,
    AbstractSum,
    AbstractSynapse,
    Attention,
    ConvolutionalMemory,
    MappingMemory,
    Pairwise,
    RectifiedMemory,
    SoftmaxMemory,
    TokenMemory,
)


def by_neighbour(
    synapse: AbstractSynapse, g: Float[Array, "L D"], u: Float[Array, "L D"]
) -> Float[Array, "L L"] | None:
    """What token `j` tells token `i` along `u_i`, `(L, L)`; `None` of a synapse that does not couple tokens."""
    if isinstance(synapse, Attention):
        return _attention(synapse, g, u)
    if isinstance(synapse, Pairwise):
        return _pairwise(synapse, g, u)
    if isinstance(synapse, ConvolutionalMemory):
        return _places(jnp.sum(_convolution(synapse, g, u), axis=-1), g.shape[0])
    return None


def by_memory(synapse: AbstractSynapse, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L M"] | None:
    """What stored pattern `m` tells token `i` along `u_i`, `(L, M)`; `None` of a synapse that stores none."""
    if isinstance(synapse, ConvolutionalMemory):
        return jnp.sum(_convolution(synapse, g, u), axis=1)
    if isinstance(synapse, SoftmaxMemory):
        return _shares(synapse, g) * (u @ synapse.patterns.T)
    if isinstance(synapse, TokenMemory) and isinstance(synapse.memory, AbstractPatternMemory):
        pull = -jax.jvp(jax.vmap(synapse.memory.per_memory), (g,), (u,))[1]
        if isinstance(synapse.memory, AbstractSoftMinimum):
            return pull * jax.vmap(synapse.memory.shares)(g)
        return pull
    if not isinstance(synapse, MappingMemory | RectifiedMemory):
        return None
    # each token's patterns depend on that token alone: one forward derivative for all
    return -jax.jvp(lambda g: pattern_energy(synapse, g), (g,), (u,))[1]


def pattern_energy(synapse: AbstractSynapse, g: Float[Array, "L D"]) -> Float[Array, "L M"] | None:
    """The energy of a memory, stored pattern by stored pattern `(L, M)`; the sum of a row is that of the token."""
    if isinstance(synapse, MappingMemory | ConvolutionalMemory):
        return -_active(synapse, g) * (g @ synapse.answers.T)
    if isinstance(synapse, RectifiedMemory):
        return -0.5 * jax.nn.relu(g @ synapse.patterns.T) ** 2
    if isinstance(synapse, SoftmaxMemory):
        # E = sum_m p_m E_m - entropy / beta, and E_m + log p_m / beta = E for every m
        return _shares(synapse, g) * synapse.per_token(g)[:, None]
    if isinstance(synapse, TokenMemory) and isinstance(synapse.memory, AbstractSum):
        return jax.vmap(synapse.memory.per_memory)(g)
    if isinstance(synapse, TokenMemory) and isinstance(synapse.memory, AbstractSoftMinimum):
        return jax.vmap(synapse.memory.shares)(g) * synapse.per_token(g)[:, None]
    return None


def activity(
    synapse: AbstractSynapse, g: Float[Array, "L D"]
) -> tuple[Float[Array, "L M"], Float[Array, "M D"]] | None:
    """How strongly each pattern is recalled at each token, and what it says `(M, D)`; `None` if none is stored."""
    if isinstance(synapse, MappingMemory | ConvolutionalMemory):
        return _active(synapse, g), synapse.answers
    if isinstance(synapse, RectifiedMemory):
        return jax.nn.relu(g @ synapse.patterns.T), synapse.patterns
    if isinstance(synapse, SoftmaxMemory):
        return _shares(synapse, g), synapse.patterns
    if isinstance(synapse, TokenMemory) and isinstance(synapse.memory, AbstractSoftMinimum):
        return jax.vmap(synapse.memory.shares)(g), synapse.memory.patterns
    return None


def _shares(synapse, g):
    return jax.nn.softmax(jnp.exp(synapse.log_beta) * (g @ synapse.patterns.T), axis=-1)


def _active(synapse, g):
    cues = g if isinstance(synapse, MappingMemory) else _window(synapse, g)
    return jax.nn.gelu(cues @ synapse.cues.T + synapse.threshold)


def _window(synapse, g):
    length, rank = g.shape[0], synapse.view.shape[0]
    offsets = synapse.cues.shape[1] // rank
    shown = jnp.pad(g @ synapse.view.T, ((offsets // 2, offsets // 2), (0, 0)))
    return jnp.concatenate([shown[o : o + length] for o in range(offsets)], axis=-1)


def _attention(synapse, g, u):
    # The logits are bilinear: `u` as query against `g` as key, and the other way round, in twice the width.
    wide = jnp.concatenate([g, u], axis=-1)
    none = jnp.zeros_like(synapse.query)

    def slope(query, keys):
        halves = (jnp.concatenate(query, axis=-1), jnp.concatenate(keys, axis=-1), jnp.zeros_like(synapse.bias))
        logits = eqx.tree_at(lambda s: (s.query, s.keys, s.bias), synapse, halves).logits(wide)
        return jnp.where(jnp.isfinite(logits), logits, 0.0)

    looks = synapse.pattern(g)
    as_query = jnp.sum(looks * slope((none, synapse.query), (synapse.keys, none)), axis=0)
    as_key = jnp.sum(looks * slope((synapse.query, none), (none, synapse.keys)), axis=0)
    return (as_query + as_key.T) * synapse.query.shape[1] ** 0.5


def _pairwise(synapse, g, u):
    length = g.shape[0]
    heard = jnp.zeros((length, length), g.dtype)
    for o in range(1, min(synapse.left.shape[0], length - 1) + 1):
        left, right = synapse.left[o - 1], synapse.right[o - 1]
        later = jnp.sum((u[:-o] @ left.T) * (g[o:] @ right.T), axis=-1)
        earlier = jnp.sum((g[:-o] @ left.T) * (u[o:] @ right.T), axis=-1)
        heard = heard + jnp.diag(later, o) + jnp.diag(earlier, -o)
    return heard


def _convolution(synapse, g, u):
    """What pattern `m`, recalled around token `i - o`, tells token `i`: `(L, offsets, M)`, `o = -reach .. reach`."""
    length, rank = g.shape[0], synapse.view.shape[0]
    reach = synapse.cues.shape[1] // rank // 2
    hidden = _window(synapse, g) @ synapse.cues.T + synapse.threshold
    active, slope = jax.jvp(jax.nn.gelu, (hidden,), (jnp.ones_like(hidden),))
    # what `u_i` changes in the cue of a window that has `i` at offset `o`
    moved = einsum(u @ synapse.view.T, synapse.cues.reshape(-1, 2 * reach + 1, rank), "i r, m o r -> i o m")
    weight = jnp.pad(slope * (g @ synapse.answers.T), ((reach, reach), (0, 0)))
    parts = moved * jnp.stack([weight[reach - o : reach - o + length] for o in range(-reach, reach + 1)], axis=1)
    return parts.at[:, reach].add(active * (u @ synapse.answers.T))


def _places(parts, length):
    """From offsets to places: `(L, offsets)` to `(L, L)`, column `j = i - o`."""
    offset = jnp.arange(length)[:, None] - jnp.arange(length)[None, :] + parts.shape[1] // 2
    inside = (offset >= 0) & (offset < parts.shape[1])
    found = jnp.take_along_axis(parts, jnp.clip(offset, 0, parts.shape[1] - 1), axis=1)
    return jnp.where(inside, found, 0.0)

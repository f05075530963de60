"""A passage in blocks: each lowers a scalar of its own, conditional on what was written before it."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ._deep import DeepStack, Prefix
from ._network import FreeEnergy


Kept = PyTree[Float[Array, "S ..."]]
"""What is kept of tokens that were written: keys and values of every layer, tokens first."""


def block_of(energy: Any) -> int:
    """Tokens of a block, in which a token reads its own block and all before it; 0 where it reads the whole passage.

    `F = sum_k F_k(block k | blocks before)`: a masked token has no energy, so that where all behind block `k` is masked
    the force on it is that of `F_k` alone, and what is before does not depend on it.
    """
    stacks = _stacks(energy)
    return stacks[0].block if stacks else 0


def in_blocks(energy: FreeEnergy, block: int) -> FreeEnergy:
    """The same parameters, every token reading its own block and all before it; 0 for the whole passage."""
    stack = _stack(energy)
    fields = {name: getattr(stack, name) for name in ("blocks", "background", "prefix")}
    other = object.__new__(DeepStack)
    for name, value in (fields | {"block": block}).items():
        object.__setattr__(other, name, value)
    return eqx.tree_at(_stack, energy, other)


def side_by_side(energy: FreeEnergy, ids: Int[Array, " L"]) -> FreeEnergy:
    """All blocks of a passage at once, each conditional on the true tokens before it: for training and measuring."""
    place = np.arange(ids.shape[0])
    number = place // block_of(energy)
    allowed, among = number[None, :] < number[:, None], number[None, :] == number[:, None]
    prefix = Prefix(kept_of(energy, ids), jnp.asarray(allowed), jnp.asarray(place - place[:, None]), jnp.asarray(among))
    return _after(energy, prefix)


def after(energy: FreeEnergy, kept: Kept, count: Int[Array, ""], length: int) -> FreeEnergy:
    """The energy of the `length` tokens that follow the first `count` of those of which `kept` is kept."""
    place, before = jnp.arange(length), jnp.arange(kept[0]["attention"][0].shape[0])
    allowed = jnp.broadcast_to(before < count, (length, before.shape[0]))
    return _after(energy, Prefix(kept, allowed, before - count - place[:, None]))


def kept_of(energy: FreeEnergy, ids: Int[Array, " L"]) -> Kept:
    """What is kept of known tokens."""
    return _stack(energy).kept(energy.kappa * energy.vocabulary.patterns[ids])


def _stacks(energy) -> list[DeepStack]:
    synapses = energy.network.synapses.values() if isinstance(energy, FreeEnergy) and energy.one_shot else ()
    return [synapse for synapse in synapses if isinstance(synapse, DeepStack)]


def _stack(energy) -> DeepStack:
    return _stacks(energy)[0]


def _after(energy, prefix):
    return eqx.tree_at(lambda energy: _stack(energy).prefix, energy, prefix, is_leaf=lambda node: node is None)

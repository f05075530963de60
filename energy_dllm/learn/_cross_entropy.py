"""What objectives share: masks, the cross-entropy of the true tokens, and windows whose evidence is large."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Key, Scalar
from ..energy import AbstractFreeEnergy, FreeEnergy


LARGE = 1 << 20
"""Entries of evidence `(L, V)` from which on windows are taken one by one."""


def each_window(one: Callable[..., Any], *rows: Array, size: int) -> Any:
    """`one` of every window: side by side, or one after another where its evidence has a `LARGE` `size = L V`; the
    gradient then keeps nothing of that size."""
    if size < LARGE:
        return jax.vmap(one)(*rows)
    return jax.lax.map(lambda row: jax.checkpoint(one)(*row), rows)


def nll_of(logits: Float[Array, "L V"], ids: Int[Array, " L"]) -> Float[Array, " L"]:
    """`-log softmax(logits)` of the true tokens `(L,)`."""
    return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]


def cross_entropy(log_posterior: Float[Array, "B L V"], ids: Int[Array, "B L"], targets: Bool[Array, "B L"]) -> Scalar:
    """`weighted` of `-log p(true token)`."""
    return weighted(-jnp.take_along_axis(log_posterior, ids[..., None], axis=-1)[..., 0], targets)


def weighted(ce: Float[Array, "B L"], targets: Bool[Array, "B L"], block: int = 0) -> Scalar:
    """Weighted mean of the cross-entropy over the `targets`; `1/sqrt(n)` for each of `n` in a window.

    Between the mean over tokens, in which windows with few masks hardly count, and the bound, in which every window
    counts the same. With `block`, for each of `n` in a block of so many tokens.
    """
    if block:
        ce, targets = ce.reshape(-1, block), targets.reshape(-1, block)
    weight = targets / jnp.sqrt(jnp.maximum(jnp.sum(targets, axis=-1, keepdims=True), 1))
    return jnp.sum(jnp.where(targets, weight * ce, 0.0)) / jnp.maximum(jnp.sum(weight), 1)


def stratified(key: Key, count: int) -> Float[Array, " N"]:
    """`count` uniform numbers, one in each of `count` equal strata: low-discrepancy draws of rates and levels."""
    return (jax.random.uniform(key) + jnp.arange(count) / count) % 1.0


def mask(ids: Int[Array, "B L"], key: Key) -> tuple[Bool[Array, "B L"], Float[Array, " B"]]:
    """Hidden tokens `(B, L)` at stratified rates `(B,)`, shuffled over the batch."""
    k1, k2, k3 = jax.random.split(key, 3)
    rate = jax.random.permutation(k3, stratified(k1, ids.shape[0]))
    return jax.random.uniform(k2, ids.shape) < rate[:, None], rate


def block_of(energy: AbstractFreeEnergy) -> int:
    """Tokens of a block, 0 where a token reads the whole passage."""
    return energy.block if isinstance(energy, FreeEnergy) else 0


def side_by_side(energy: AbstractFreeEnergy, ids: Int[Array, " L"]) -> AbstractFreeEnergy:
    """All blocks of a passage at once, each given the true tokens before it; the energy itself without blocks."""
    return energy.side_by_side(ids) if isinstance(energy, FreeEnergy) else energy


def mask_blocks(ids: Int[Array, "B L"], block: int, key: Key) -> Bool[Array, "B L"]:
    """Hidden tokens `(B, L)`: of every block a number that is uniform from 1 to all, stratified over the blocks."""
    if ids.shape[1] % block:
        raise ValueError(f"`length` is {ids.shape[1]} tokens in blocks of {block}; expected a multiple of {block}.")
    k1, k2, k3 = jax.random.split(key, 3)
    blocks = ids.size // block
    count = 1 + jnp.floor(block * jax.random.permutation(k3, stratified(k1, blocks))).astype(int)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(k2, (blocks, block)), axis=-1), axis=-1)
    return (rank < count[:, None]).reshape(ids.shape)

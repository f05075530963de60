"""What objectives share: masks, the cross-entropy of the true tokens, and windows whose evidence is large."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._types import Key, Scalar
from ..energy import AbstractFreeEnergy, FreeEnergy
from ..flow import FORBIDDEN
from ._mesh import shares, spread


LARGE = 1 << 20
"""Entries of evidence `(L, V)` from which on windows are taken one by one."""


def each_window(one: Callable[..., Any], *rows: Array, size: int) -> Any:
    """`one` of every window: side by side, or one after another where its evidence has a `LARGE` `size = L V`; the
    gradient then keeps nothing of that size."""
    rows = spread(rows)
    if size < LARGE:
        return jax.vmap(one)(*rows)
    # on a mesh one of every device's at once
    number = math.gcd(shares(jax.sharding.get_abstract_mesh())[1], rows[0].shape[0])
    turns = jax.tree.map(lambda row: row.reshape(number, -1, *row.shape[1:]).swapaxes(0, 1), rows)
    found = jax.lax.map(lambda row: jax.vmap(jax.checkpoint(one))(*row), turns)
    return jax.tree.map(lambda each: each.swapaxes(0, 1).reshape(-1, *each.shape[2:]), found)


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
    weight = targets / jnp.sqrt(jnp.maximum(asked_in_block(targets, block), 1))
    return jnp.sum(jnp.where(targets, weight * ce, 0.0)) / jnp.maximum(jnp.sum(weight), 1)


def asked_in_block(targets: Bool[Array, "B L"], block: int) -> Int[Array, "B L"]:
    """How many `targets` there are in the block of each token; 0 for one block of all."""
    number = np.arange(targets.shape[1]) // (block or targets.shape[1])
    return targets.astype(int) @ (number[:, None] == number).astype(int)


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


def mask_blocks(shape: tuple[int, int], block: int, key: Key) -> Bool[Array, "B L"]:
    """Hidden tokens `(B, L)`: of every block a number that is uniform from 1 to all, stratified over the blocks."""
    k1, k2, k3 = jax.random.split(key, 3)
    (windows, length), blocks = shape, -(-shape[1] // block)
    size = np.minimum(block, length - block * np.arange(blocks))
    share = jax.random.permutation(k3, stratified(k1, windows * blocks)).reshape(windows, blocks)
    count = 1 + jnp.floor(size * share).astype(int)
    there = np.arange(block) < size[:, None]
    order = jnp.where(there, jax.random.uniform(k2, (windows, blocks, block)), 1.0)
    rank = jnp.argsort(jnp.argsort(order, axis=-1), axis=-1)
    return (rank < count[..., None]).reshape(windows, -1)[:, :length]


def given_of(ids: Int[Array, " L"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
    """Evidence of known tokens, of the shape of `b`."""
    return jnp.where(jax.nn.one_hot(ids, b.shape[-1], dtype=bool), 0.0, FORBIDDEN).astype(b.dtype)


def named_leaves(model: PyTree) -> list[tuple[str, Array]]:
    """Parameters by their places in the model."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(model, eqx.is_inexact_array))
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def first_parameter(model: PyTree) -> str:
    """In words, the parameter that is not finite."""
    for name, leaf in named_leaves(model):
        if not jnp.all(jnp.isfinite(leaf)):
            return f"the parameter {name}"
    return "the gradient; every parameter was finite"

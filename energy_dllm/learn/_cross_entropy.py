"""What objectives share: masks, the cross-entropy of the true tokens, and windows whose evidence is large."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, PyTree

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


def mask_windows(
    ids: Int[Array, "B L"], sizes: Int[np.ndarray, " B"], grids: tuple, shares: tuple[float, float, float], *, key: Key
) -> Bool[Array, "B L"]:
    """Hidden tokens `(B, L)` of windows that are read in blocks of `sizes`, at a uniform rate; `shares` are those of
    windows under noise, which stand first, and of those read as a whole behind a place or beyond a line."""
    noisy, prefix, cut = shares
    batch, first = ids.shape[0], jax.random.fold_in(key, 0)
    hidden = mask(ids, first)[0]
    for block in np.unique(sizes[sizes > 0]):
        rows, there = np.flatnonzero(sizes == block), jax.random.fold_in(first, block)
        hidden = hidden.at[rows].set(mask_blocks((rows.size, ids.shape[1]), int(block), there))
    if sizes.all():
        return hidden
    ours = lambda share, key: (jax.random.uniform(key, (batch, 1)) < share) & (sizes == 0)[:, None]
    if prefix:
        k1, k2 = jax.random.split(jax.random.fold_in(key, 11))
        behind = mask_prefix(grids, hidden, jnp.arange(batch) < noisy * batch, k1)
        hidden = jnp.where(ours(prefix, k2), behind, hidden)
    if cut:
        k1, k2 = jax.random.split(jax.random.fold_in(key, 14))
        hidden = jnp.where(ours(cut, k1), mask_beyond(grids, ids.shape, k2), hidden)
    return hidden


def mask_prefix(grids: tuple, hidden: Bool[Array, "B L"], noisy: Bool[Array, " B"], key: Key) -> Bool[Array, "B L"]:
    """Hidden tokens `(B, L)` behind a drawn place; in a layout those of its grid, all of them where it is noisy."""
    place = jnp.floor(hidden.shape[1] * jax.random.uniform(key, (hidden.shape[0], 1)))
    if not grids:
        return jnp.arange(hidden.shape[1]) >= place
    grid = jnp.asarray(_places(grids)[0])
    return (grid == grid[place.astype(int)]) & (hidden | noisy[:, None])


def mask_beyond(grids: tuple, shape: tuple[int, ...], key: Key) -> Bool[Array, "B L"]:
    """Hidden tokens `(B, L)`: those behind a line of random direction through a drawn place, and every other grid."""
    k1, k2 = jax.random.split(key)
    grid, places = map(jnp.asarray, _places(grids or ((1, shape[1]),)))
    place = jax.random.randint(k1, (shape[0], 1), 0, shape[1])
    angle = jax.random.uniform(k2, (shape[0], 1), maxval=2 * math.pi)
    rows, columns = jnp.moveaxis(places - places[place], -1, 0)
    return (rows * jnp.sin(angle) + columns * jnp.cos(angle) >= 0) | (grid != grid[place])


def _places(grids: tuple) -> tuple[Integer[np.ndarray, " L"], Integer[np.ndarray, "L 2"]]:
    """The number of its grid, and row and column, of every token of a layout."""
    grid = np.repeat(np.arange(len(grids)), [rows * columns for rows, columns in grids])
    return grid, np.concatenate([np.indices(shape).reshape(2, -1).T for shape in grids])


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

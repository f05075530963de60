"""Products of a few rows, as a text that is written token by token asks for them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array


FEW = 6
"""Rows that are few."""


def against(rows: Array, matrix: Array) -> Array:
    """`rows @ matrix.T`. Of a few rows the matrix is read as it lies, in a product that stands by itself: else it is
    turned at every pass, or the compiler makes one slow loop of the product and what is added to it."""
    if rows.shape[0] > FEW:
        return rows @ matrix.T
    return jax.lax.optimization_barrier(matrix @ rows.T).T


def row_by_row(product: Callable[[Array], Array], rows: Array) -> Array:
    """A product of `rows (H, i, _)` with what is kept of a passage, head by head; of a few rows each by itself, which
    takes the CPU's compiler a fraction of the time."""
    if not 1 < rows.shape[1] <= FEW:
        return product(rows)
    each = (jax.lax.optimization_barrier(product(rows[:, i : i + 1])) for i in range(rows.shape[1]))
    return jnp.concatenate(list(each), axis=1)

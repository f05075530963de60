"""Products of a few rows, as a text that is written token by token asks for them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array


FEW = 6
"""Rows that are multiplied one by one."""


def alone(product: Array) -> Array:
    """A product of one row with a matrix as it is. With what is added to it the CPU's compiler makes a loop of both
    that takes four times as long."""
    return jax.lax.optimization_barrier(product) if product.size == product.shape[-1] else product


def row_by_row(product: Callable[[Array], Array], rows: Array) -> Array:
    """A product of `rows (H, i, _)` with what is kept of a passage, head by head; of a few rows each by itself, which
    takes the CPU's compiler a fraction of the time."""
    if not 1 < rows.shape[1] <= FEW:
        return product(rows)
    each = (jax.lax.optimization_barrier(product(rows[:, i : i + 1])) for i in range(rows.shape[1]))
    return jnp.concatenate(list(each), axis=1)

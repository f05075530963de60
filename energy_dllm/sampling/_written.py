"""A passage that is partly written, and how its prompt is read."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._checks import on_device
from ..energy import FreeEnergy


TOGETHER = 16
"""Tokens of a prompt that are read in one pass."""


class WrittenBlocks(NamedTuple):
    """A passage `ids (L,)` of which some blocks are written, what is `kept` of them, the forces so far, and, written
    from left to right, `log p` of each token given those before it `(L,)`; under a pattern the state of its automaton
    and `DFA.ahead`; with a draft how many tokens stand, and their context."""

    ids: Int[Array, " L"]
    kept: PyTree[Array]
    forces: Int[Array, ""]
    log_p: Float[Array, " L"]
    pattern: tuple[Int[Array, ""], Float[Array, "places states"]] | None = None
    stands: tuple[Int[Array, ""], Int[Array, ""]] | None = None


@functools.lru_cache(maxsize=32)
def progress(moments: int, dtype: np.dtype) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Shares that are written and noise levels, on the device."""
    there = np.linspace(0.0, 1.0, moments + 1, dtype=dtype)
    return on_device(there), on_device(np.where(there < 1.0, np.inf, 0.0).astype(dtype))


def read_prompt(
    energy: FreeEnergy, ids: Int[Array, " L"], count: Int[Array, ""], log_p: Float[Array, " L"]
) -> tuple[PyTree[Array], Float[Array, " L"]]:
    """What is kept of the first `count` tokens, and `log p` of each given those before it, some in one pass."""
    some = min(TOGETHER, ids.shape[0])

    def more(state):
        place, kept, log_p = state
        start = jnp.minimum(place, ids.shape[0] - some)
        here = jax.lax.dynamic_slice_in_dim(ids, start, some)
        before = jnp.append(ids[jnp.maximum(start - 1, 0)], here[:-1])
        y, kept = energy.next(kept, before, start)
        found = jax.nn.log_softmax(energy.logits(y, jnp.zeros((some, energy.size), y.dtype)))
        found = jnp.take_along_axis(found, here[:, None], axis=-1)[:, 0]
        return place + some, kept, put(log_p, found, start)

    state = jnp.zeros((), count.dtype), energy.unwritten(ids.shape[0]), log_p
    return jax.lax.while_loop(lambda state: state[0] < count, more, state)[1:]


def put(rows: Array, new: Array, start: Int[Array, ""] | int) -> Array:
    """Rows with new ones from place `start` on."""
    return jax.lax.dynamic_update_slice_in_dim(rows, new.astype(rows.dtype), start, axis=0)

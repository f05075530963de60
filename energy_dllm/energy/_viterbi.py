"""The most likely passage of a hidden Markov model, with its states: max-product in logs, `max` for every sum."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import LOG_ZERO
from ._dfa import DFA, padded


def viterbi(
    initial: Float[Array, " S"],
    transition: Float[Array, "S S"],
    emission: Float[Array, "S V"],
    scores: Float[Array, "L V"],
) -> Int[Array, " L"]:
    """`argmax_w max_z pi(z_1) prod_i O(w_i | z_i) T(z_(i+1) | z_i) exp(s_i(w_i))`, all three tables in logs."""
    tilted = emission[None] + scores[:, None]
    weight = jnp.max(tilted, axis=-1)

    def ahead(message, here):
        message = message + here
        return jnp.max(message[:, None] + transition, axis=0), message

    _, messages = jax.lax.scan(ahead, initial, weight)

    def back(onward, message):
        state = jnp.argmax(message + onward)
        return transition[:, state], state

    states = jax.lax.scan(back, jnp.zeros_like(initial), messages, reverse=True)[1]
    return jnp.argmax(tilted[jnp.arange(scores.shape[0]), states], axis=-1)


def viterbi_accepted(
    dfa: DFA,
    initial: Float[Array, " S"],
    transition: Float[Array, "S S"],
    emission: Float[Array, "S V"],
    scores: Float[Array, "L V"],
) -> Int[Array, " L"]:
    """The same, of the passages that the `dfa` accepts: `B_i(q, z)`, the most that can follow, for its state `q`."""
    moved = lambda best: jax.lax.map(lambda row: jnp.max(transition + row, axis=-1), best)  # (Q, S)

    def behind(onward, now):
        row, read = now
        there = padded(onward, LOG_ZERO)

        def most(best, now):
            weight, chance, goal = now
            return jnp.maximum(best, weight + chance + there[goal]), None

        best, _ = jax.lax.scan(most, jnp.full_like(onward, LOG_ZERO), (row, emission.T, dfa.table(read).T))
        return jnp.maximum(moved(best), LOG_ZERO), (best, onward)

    # behind the last token there is no state to move to
    end = dfa.ends.astype(initial.dtype)[:, None] + jnp.zeros_like(initial)
    _, (bests, onwards) = jax.lax.scan(behind, end, (scores, dfa.here), reverse=True)

    def ahead(state, now):
        place, arriving = state
        row, best, onward, read = now
        z, goals = jnp.argmax(arriving + best[place]), dfa.table(read)[place]
        w = jnp.argmax(row + emission[z] + padded(onward[:, z], LOG_ZERO)[goals])
        return (goals[w], transition[z]), w

    return jax.lax.scan(ahead, (dfa.start, initial), (scores, bests, onwards, dfa.here))[1]

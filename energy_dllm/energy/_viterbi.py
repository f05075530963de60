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
    moved = lambda after: jax.lax.map(lambda row: jnp.max(transition + row, axis=-1), after)  # (Q, S)

    def behind(after, row):
        onward = padded(moved(after), LOG_ZERO)

        def most(best, now):
            weight, chance, goal = now
            return jnp.maximum(best, weight + chance + onward[goal]), None

        best, _ = jax.lax.scan(most, jnp.full_like(after, LOG_ZERO), (row, emission.T, dfa.next.T))
        best = jnp.maximum(best, LOG_ZERO)
        return best, after

    end = jnp.where(dfa.accept, 0.0, LOG_ZERO)[:, None] + jnp.zeros_like(initial)
    start, afters = jax.lax.scan(behind, end, scores, reverse=True)

    def ahead(state, now):
        place, arriving, here = state
        row, after = now
        z = jnp.argmax(arriving + here)
        goals = dfa.next[place]
        w = jnp.argmax(row + emission[z] + padded(jnp.max(transition[z] + after, axis=-1), LOG_ZERO)[goals])
        goal = goals[w]
        return (goal, transition[z], padded(after, LOG_ZERO)[goal]), w

    # what follows the first token's state is that of all; later that of the state its token leads to
    begins = (dfa.start, initial, start[dfa.start])
    return jax.lax.scan(ahead, begins, (scores, afters))[1]

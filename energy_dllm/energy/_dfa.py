"""Strings that an automaton accepts: an energy of the evidence, like `NGram`, with nothing but yes and no in it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._checks import on_device
from .._types import Key, Scalar


NEVER = -1e30
"""The log of nothing, finite, so that gradients stay numbers."""


class DFA(eqx.Module):
    """The strings a deterministic automaton accepts: `E(b) = -log sum_(s accepted) exp(sum_i b_i(s_i))`.

    One backward pass in logarithms, `beta_i(q) = log sum_w exp(b_iw + beta_(i+1)(next(q, w)))`, `beta_N = 0` where the
    automaton accepts: exact whatever the evidence. Tokens drawn with it forwards are exactly distributed, and always
    accepted.

    **Arguments:**

    - `next`: the state after a state and a token `(S, V)`; `S` where there is none.
    - `accept`: the states in which a string may end `(S,)`.
    - `start`: the state a string begins in.

    **Raises:** `ValueError` if shapes do not match.

    **Source:** the forward-backward algorithm (Baum et al. 1970; Rabiner 1989).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    tokenizer = ed.data.Characters("ab")
    dfa = ed.energy.DFA.of(ed.data.RegexDFA.of("a+b", tokenizer))
    s = dfa.sample(jnp.zeros((5, 2)), key=jax.random.key(0))
    assert s.tolist() == [0, 0, 0, 0, 1] and dfa.accepts(s)
    ```
    """

    next: Int[Array, "S V"]
    accept: Bool[Array, " S"]
    start: Int[Array, ""]

    def __init__(self, next: Int[Array, "S V"], accept: Bool[Array, " S"], start: Int[Array, ""] | int = 0):
        shapes = jnp.shape(next), jnp.shape(accept)
        if len(shapes[0]) != 2 or shapes[1] != shapes[0][:1]:
            raise ValueError(f"`next` and `accept` have shapes {shapes}; expected (S, V) and (S,).")
        self.next, self.accept = jnp.asarray(next, jnp.int32), jnp.asarray(accept)
        self.start = jnp.asarray(start, self.next.dtype)

    @classmethod
    def of(cls, automaton) -> "DFA":
        """The language of a `data.RegexDFA`."""
        return cls(on_device(automaton.next), on_device(automaton.accept))

    def __call__(self, b: Float[Array, "N V"]) -> Scalar:
        """`-log sum_(s accepted) exp(sum_i b_i(s_i))` in nats; 1e30 if nothing is accepted."""
        return -self._behind(b, _sum)[0, self.start]

    def accepts(self, ids: Int[Array, " N"]) -> Bool[Array, ""]:
        """Whether the string `ids (N,)` is in the language."""
        none = self.accept.shape[0]
        step = lambda state, token: (padded(self.next, none)[state, token], None)
        return padded(self.accept, False)[jax.lax.scan(step, self.start, ids)[0]]

    def posterior(self, b: Float[Array, "N V"]) -> Float[Array, "N V"]:
        """`P(s_i = w | b, accepted) = -dE/db_iw`, `(N, V)`."""
        return -jax.grad(self.__call__)(b)

    def sample(self, b: Float[Array, "N V"], *, key: Key) -> Int[Array, " N"]:
        """An accepted string drawn from `exp(sum_i b_i(s_i))`, exactly."""
        keys = jax.random.split(key, b.shape[0])
        return self._ahead(b, self._behind(b, _sum), lambda n, row: jax.random.categorical(keys[n], row))

    def best(self, b: Float[Array, "N V"]) -> Int[Array, " N"]:
        """The accepted string of highest `sum_i b_i(s_i)`."""
        return self._ahead(b, self._behind(b, jnp.max), lambda n, row: jnp.argmax(row))

    def support(self, allowed: Bool[Array, "N V"]) -> Bool[Array, "N V"]:
        """Which tokens some accepted string of allowed tokens has where; nothing at all if there is no such string."""
        behind = self._behind(jnp.where(allowed, 0.0, NEVER), jnp.max) > NEVER / 2

        def step(here, now):
            row, after = now
            open = row & here[:, None] & padded(after, False)[self.next]
            there = jnp.zeros(here.shape[0] + 1, bool).at[self.next].max(open)[:-1]
            return there, jnp.any(open, axis=0)

        here = jnp.arange(self.accept.shape[0]) == self.start
        return jax.lax.scan(step, here, (allowed, behind[1:]))[1]

    def _behind(self, b, gather):
        """`beta (N + 1, S)`: what lies behind each state at each place, sums or maxima of the evidence."""
        if b.ndim != 2 or b.shape[1] != self.next.shape[1]:
            raise ValueError(f"`b` has shape {b.shape}; expected (N, {self.next.shape[1]}), one row a token.")
        end = jnp.where(self.accept, 0.0, NEVER).astype(b.dtype)

        def step(after, row):
            behind = jnp.maximum(gather(row + padded(after, NEVER)[self.next], axis=-1), NEVER)
            return behind, behind

        return jnp.concatenate([jax.lax.scan(step, end, b, reverse=True)[1], end[None]])

    def _ahead(self, b, behind, choose):
        def step(state, now):
            n, row, after = now
            token = choose(n, row + padded(after, NEVER)[self.next[state]])
            return self.next[state, token], token

        numbers = jnp.arange(b.shape[0])
        return jax.lax.scan(step, self.start, (numbers, b, behind[1:]))[1]


def _sum(values, axis):
    return jax.nn.logsumexp(values, axis=axis)


def padded(values, last):
    """With a last row for the state that is none."""
    return jnp.concatenate([values, jnp.full((1, *values.shape[1:]), last, values.dtype)])


def likeliest(scores: Float[Array, "L V"], dfa: DFA | None) -> Int[Array, " L"]:
    """For every place the token of the highest score, or the passage of the highest sum that the `dfa` accepts."""
    return jnp.argmax(scores, axis=-1) if dfa is None else dfa.best(jax.nn.log_softmax(scores, axis=-1))


def apart(scores: Float[Array, "L V"], dfa: DFA | None, *, key: Key) -> Int[Array, " L"]:
    """A token for every place, each from its own law `softmax(scores)`; what they make up is in the `dfa`."""
    if dfa is None:
        return jax.random.categorical(key, scores, axis=-1)
    return dfa.sample(jax.nn.log_softmax(scores, axis=-1), key=key)

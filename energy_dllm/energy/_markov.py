"""The vocabulary as one memory of whole passages: hidden states in a chain, which tokens speak for."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from .._types import Key
from ._dfa import DFA, NEVER, padded
from ._viterbi import viterbi, viterbi_accepted
from ._vocabulary import AbstractVocabulary


# Share of every row that goes anywhere: nothing is impossible, and no message is 0.
FLOOR = 1e-4

# At first every state speaks for one token, by so many nats: chains learn sooner what stands where.
OWN = 5.0


class HMMVocabulary(AbstractVocabulary):
    """A vocabulary in which tokens belong together: a hidden Markov model, tilted by what the neurons say.

    `E = sum_iw pi_iw s_iw - log Z(s + b)`, `s = <y, U>`, `Z(s) = sum_(w_1..w_L) P(w_1..w_L) exp(sum_i s_i(w_i))`

    `P(w) = sum_z pi(z_1) prod_i O(w_i | z_i) T(z_(i+1) | z_i)` is the law of passages where neurons are silent, `pi_iw`
    how often token `w` stands at place `i` in it. `E` is minus the log of how probable evidence and neurons find a
    passage of that law, with the mean of what neurons say taken out. `-dE/db_i = p_i` is the exact posterior of every
    token given the evidence about all of them, `-dE/dy_i = sum_w (p_iw - pi_iw) U_w` its voice: what is thought of it
    beyond what is true of any passage. `log Z` is convex and the rest a straight line, so `F` falls under any evidence.

    One pass forward and one backward, `O(L S^2)`. The energy of token `i` is that of what is known and said of it,
    given the same of all tokens before it.

    **Arguments:**

    - `size`: number of tokens `V`.
    - `dim`: hidden width `D`.
    - `states`: states `S` of the chain. At first each speaks for one token, by 5 nats; all tokens have a share in them.
    - `counts`: how often each token was seen `(V,)`; shares are as their square root. Equal by default.
    - `key`: random key; patterns have standard deviation `2/D`, logits of the tables 1.

    **Raises:** `ValueError` if a size is not positive, or `counts` has another shape or a negative entry.

    **Source:** the forward-backward algorithm (Baum et al. 1970; Rabiner 1989).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    vocabulary = ed.energy.HMMVocabulary(5, 8, states=3, key=jax.random.key(0))
    p = vocabulary.posterior(jnp.zeros((4, 8)), jnp.zeros((4, 5)))
    assert jnp.allclose(p.sum(-1), 1.0, atol=1e-5)
    ```
    """

    codes: Float[Array, "V C"]
    patterns: Float[Array, "V D"]
    initial: Float[Array, " S"]
    transition: Float[Array, "S S"]
    emission: Float[Array, "S V"]

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        states: int,
        counts: Integer[np.ndarray, " V"] | None = None,
        key: Key,
    ):
        for name, value in (("size", size), ("dim", dim), ("states", states)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; expected a positive integer.")
        counts = np.ones(size, int) if counts is None else counts
        if counts.shape != (size,) or counts.min() < 0 or not counts.any():
            raise ValueError(f"`counts` has shape {counts.shape}; expected {(size,)}, how often each token was seen.")
        k1, k2, k3 = jax.random.split(key, 3)
        self.codes = jnp.eye(size)
        self.patterns = 2.0 / dim * jax.random.normal(k1, (size, dim))
        self.initial = jnp.zeros(states)
        self.transition = jax.random.normal(k2, (states, states))
        share = np.cumsum(np.sqrt(counts))
        own = jax.nn.one_hot(np.searchsorted(share / share[-1], (np.arange(states) + 0.5) / states), size)
        self.emission = jax.random.normal(k3, (states, size)) + OWN * own

    def tables(self) -> tuple[Float[Array, " S"], Float[Array, "S S"], Float[Array, "S V"]]:
        """`pi(z)`, `T(z' | z)` and `O(w | z)`: probabilities, rows sum to 1."""
        rows = (jax.nn.softmax(logits, axis=-1) for logits in (self.initial, self.transition, self.emission))
        pi, move, token = ((1.0 - FLOOR) * row + FLOOR / row.shape[-1] for row in rows)
        return pi, move, token

    def cavity_logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """`log P(w_i | what is said and known of all other tokens) (L, V)`."""
        ahead, behind, *_ = self._messages(self.unary_logits(y) + b)
        return self._cavity(ahead, behind)

    def per_token(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, " L"]:
        """`sum_w pi_iw <y_i, U_w>`, less the log mean of `exp(<y_i, U> + b_i)` given the tokens before, `(L,)`."""
        said, scores = self._scores(y, b, mask)
        _, _, silent, norm = self._messages(scores)
        energies = jnp.sum(self._spoken(silent) * said, axis=-1) - norm
        return energies if mask is None else jnp.where(mask, energies, 0.0)

    def message(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """`sum_w (p_iw - pi_iw) U_w (L, D)`, minus the gradient of `per_token` in `y`."""
        _, scores = self._scores(y, b, mask)
        ahead, behind, silent, _ = self._messages(scores)
        told = jax.nn.softmax(self._cavity(ahead, behind) + scores, axis=-1) - self._spoken(silent)
        return (told if mask is None else jnp.where(mask[:, None], told, 0.0)) @ self.patterns

    def nll(self, ids: Int[Array, " L"]) -> Float[Array, " L"]:
        """`-log P(w_i | w_1 .. w_(i-1))`, nats `(L,)`."""
        pi, move, token = self.tables()

        def step(ahead, likelihood):
            here = ahead * likelihood
            total = jnp.sum(here)
            return here / total @ move, -jnp.log(total)

        return jax.lax.scan(step, pi, token.T[ids])[1]

    def sample(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, dfa: DFA | None = None, key: Key
    ) -> Int[Array, " L"]:
        """A token for every place, drawn together, exactly: states backwards from the last, then their tokens. With a
        `dfa`, of the passages that it accepts: `O(L S K (K + V))` for its `S` states."""
        scores = self.unary_logits(y) + b
        if dfa is not None:
            return _accepted(dfa, *(table.astype(scores.dtype) for table in self.tables()), scores, key)
        ahead, *_ = self._messages(scores)
        _, move, token = self.tables()
        tilted = jnp.log(token)[None] + scores[:, None]
        weight = jnp.log(ahead) + jax.nn.logsumexp(tilted, axis=-1)
        k1, k2 = jax.random.split(key)

        def back(onward, now):
            weight, key = now
            state = jax.random.categorical(key, weight + onward)
            return jnp.log(move[:, state]), state

        keys = jax.random.split(k1, scores.shape[0])
        states = jax.lax.scan(back, jnp.zeros_like(ahead[0]), (weight, keys), reverse=True)[1]
        places = jnp.arange(scores.shape[0])
        return jax.random.categorical(k2, tilted[places, states], axis=-1)

    def best(self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, dfa: DFA | None = None) -> Int[Array, " L"]:
        """The tokens of the most likely path of states and tokens, by Viterbi's max-product: together, where the most
        likely token of every place by itself may be no passage at all. With a `dfa`, of those that it accepts."""
        scores = self.unary_logits(y) + b
        pi, move, token = (jnp.log(table).astype(scores.dtype) for table in self.tables())
        if dfa is None:
            return viterbi(pi, move, token, scores)
        return viterbi_accepted(dfa, pi, move, token, scores)

    def _scores(self, y, b, mask):
        """What the neurons say of each token, and that with the evidence `(L, V)`; 0 where there is no token."""
        said = self.unary_logits(y)
        scores = said + b
        if mask is None:
            return said, scores
        return jnp.where(mask[:, None], said, 0.0), jnp.where(mask[:, None], scores, 0.0)

    def _messages(self, scores):
        return _messages(*(table.astype(scores.dtype) for table in self.tables()), scores)

    def _spoken(self, states):
        """The law of the token where that of the state is known `(L, V)`."""
        return states @ self.tables()[2].astype(states.dtype)

    def _cavity(self, ahead, behind):
        joint = ahead * behind
        return jnp.log(self._spoken(joint / jnp.sum(joint, axis=-1, keepdims=True)))


# Compiled once for every shape, by itself too where it is not part of something larger.
@jax.jit
def _messages(
    pi: Float[Array, " S"], move: Float[Array, "S S"], token: Float[Array, "S V"], scores: Float[Array, "L V"]
) -> tuple[Float[Array, "L S"], Float[Array, "L S"], Float[Array, "L S"], Float[Array, " L"]]:
    """The law of each state before its token is seen; what all tokens behind say of it, up to a factor; its law where
    nothing is seen; and the log of the sum of the token's weights given those before."""
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    likelihood = jnp.exp(scores - top) @ token.T

    def step(table, message, likelihood):
        here = message * likelihood
        total = jnp.sum(here, axis=-1, keepdims=True)
        return (here / total) @ table, (message, jnp.log(total))

    both = lambda seen: jnp.stack([seen, jnp.ones_like(seen)])
    _, (forward, norm) = jax.lax.scan(lambda m, e: step(move, m, both(e)), jnp.stack([pi, pi]), likelihood)
    anything = jnp.ones_like(pi)
    _, (behind, _) = jax.lax.scan(lambda m, e: step(move.T, m, e), anything, likelihood, reverse=True)
    return forward[:, 0], behind, forward[:, 1], norm[:, 0, 0] + top[:, 0]


@jax.jit
def _accepted(
    dfa: DFA,
    pi: Float[Array, " S"],
    move: Float[Array, "S S"],
    token: Float[Array, "S V"],
    scores: Float[Array, "L V"],
    key: Key,
) -> Int[Array, " L"]:
    """A passage that the language accepts, drawn from the law of the chain tilted by `scores`, exactly.

    `B_i(q, z) = sum_w O(w|z) exp(s_iw) sum_z' T(z'|z) B_(i+1)(next(q, w), z')`, backwards, for the automaton's
    state `q` before token `i` and the chain's `z`; then, forwards, `z`, its token, the next `z`. Every `q` has its own
    scale, in logs: a passage that only an unlikely one can end is drawn all the same.
    """

    def behind(after, row):
        scale, share = after
        onward = row + padded(scale, NEVER)[dfa.next]
        top = jnp.max(onward, axis=-1)
        weights = jnp.exp(onward - top[:, None])
        moved = padded(share @ move.T, 1.0)

        def add(total, now):
            weight, chance, goal = now
            return total + weight[:, None] * chance * moved[goal], None

        total, _ = jax.lax.scan(add, jnp.zeros_like(share), (weights.T, token.T, dfa.next.T))
        most = jnp.max(total, axis=-1)  # not 0: one weight is 1, and every row has its floor
        after = jnp.maximum(top + jnp.log(most), NEVER), total / most[:, None]
        return after, after

    end = jnp.where(dfa.accept, 0.0, NEVER).astype(pi.dtype), jnp.ones((dfa.accept.size, pi.size), pi.dtype)
    _, (scales, shares) = jax.lax.scan(behind, end, scores, reverse=True)
    scales, shares = (jnp.concatenate([part, last[None]]) for part, last in zip((scales, shares), end, strict=True))

    def ahead(state, now):
        place, before = state
        row, share, scale, onward, key = now
        k1, k2 = jax.random.split(key)
        z = jax.random.categorical(k1, jnp.log(before) + jnp.log(share[place]))
        value = scale + jnp.log(onward @ move[z])
        w = jax.random.categorical(k2, jnp.log(token[z]) + row + padded(value, NEVER)[dfa.next[place]])
        return (dfa.next[place, w], move[z]), w

    keys = jax.random.split(key, scores.shape[0])
    return jax.lax.scan(ahead, (dfa.start, pi), (scores, shares[:-1], scales[1:], shares[1:], keys))[1]

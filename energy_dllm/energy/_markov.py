"""A hidden Markov model as the vocabulary: exact posteriors and joint draws by forward-backward."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from .._checks import sizes, tokens
from .._types import LOG_ZERO, Key
from ._dfa import DFA, padded
from ._synapses import valid
from ._viterbi import viterbi, viterbi_accepted
from ._vocabulary import AbstractVocabulary, token_codes


# Uniform share mixed into every row of the tables: no probability, and no message, is exactly 0.
FLOOR = 1e-4

# Initial preference of every state for one token, in nats: it speeds up learning.
PREFERENCE = 5.0


class HMMVocabulary(AbstractVocabulary):
    """A hidden Markov model as the vocabulary, tilted by the unary logits of the neurons.

    `E = sum_iw pi_iw u_iw - log Z(u + b)`, `u = <y, U>`, `Z(u) = sum_(w_1..w_L) P(w_1..w_L) exp(sum_i u_i(w_i))`

    `P(w) = sum_z P_0(z_1) prod_i O(w_i | z_i) T(z_(i+1) | z_i)` is the prior over passages and `pi_iw` its marginal of
    token `w` at place `i`. `log Z` is the log-partition function of that prior under unary logits and evidence.
    `-dE/db_i = p_i` is the exact posterior of every token given the evidence about all of them; `-dE/dy_i = sum_w (p_iw
    - pi_iw) U_w` is its message, posterior minus prior. `log Z` is convex and the rest linear, so `F` falls under any
    evidence.

    Forward-backward, `O(L S^2)`; on accelerators by an associative scan, of depth `O(log L)`. The energy of token `i`
    is conditional on the evidence and unary logits of all tokens before it.

    **Arguments:**

    - `size`: number of tokens `V`.
    - `dim`: hidden width `D`.
    - `states`: hidden states `S`. Initially each prefers one token, by 5 nats; every token has some of them.
    - `counts`: how often each token was seen `(V,)`; it gets states in proportion to the square root. Equal by default.
    - `key`: random key; patterns have standard deviation `2/D`, logits of the tables 1.

    **Raises:** `ValueError` if a size is not positive, or `counts` has another shape or a negative entry.

    **Source:** the forward-backward algorithm (Baum et al. 1970; Rabiner 1989).

    ??? cite "Reference"

        ```bibtex
        @article{rabiner1989tutorial,
          title={A Tutorial on Hidden {Markov} Models and Selected Applications in Speech Recognition},
          author={Rabiner, Lawrence R.},
          journal={Proceedings of the IEEE}, volume={77}, number={2}, pages={257--286},
          year={1989}
        }
        ```

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
        sizes(size=size, dim=dim, states=states)
        counts = np.ones(size, int) if counts is None else counts
        if counts.shape != (size,) or counts.min() < 0 or not counts.any():
            raise ValueError(f"`counts` has shape {counts.shape}; expected {(size,)}, how often each token was seen.")
        k1, k2, k3 = jax.random.split(key, 3)
        self.codes = token_codes(size)
        self.patterns = 2.0 / dim * jax.random.normal(k1, (size, dim))
        self.initial = jnp.zeros(states)
        self.transition = jax.random.normal(k2, (states, states))
        share = np.cumsum(np.sqrt(counts))
        preferred = jax.nn.one_hot(np.searchsorted(share / share[-1], (np.arange(states) + 0.5) / states), size)
        self.emission = jax.random.normal(k3, (states, size)) + PREFERENCE * preferred

    def tables(self) -> tuple[Float[Array, " S"], Float[Array, "S S"], Float[Array, "S V"]]:
        """`P_0(z)`, `T(z' | z)` and `O(w | z)`: probabilities, rows sum to 1."""
        rows = (jax.nn.softmax(logits, axis=-1) for logits in (self.initial, self.transition, self.emission))
        initial, transition, emission = ((1.0 - FLOOR) * row + FLOOR / row.shape[-1] for row in rows)
        return initial, transition, emission

    def cavity_logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """`log P(w_i | unary logits and evidence of all other tokens) (L, V)`."""
        forward, backward, *_ = self._messages(self.unary_logits(y) + b)
        return self._cavity(forward, backward)

    def per_token(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, " L"]:
        """`sum_w pi_iw <y_i, U_w>`, less the log mean of `exp(<y_i, U> + b_i)` given the tokens before, `(L,)`."""
        unary, scores = self._scores(y, b, mask)
        _, _, prior, norm = self._messages(scores)
        return valid(jnp.sum(self._emitted(prior) * unary, axis=-1) - norm, mask)

    def message(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """`sum_w (p_iw - pi_iw) U_w (L, D)`, minus the gradient of `per_token` in `y`."""
        _, scores = self._scores(y, b, mask)
        forward, backward, prior, _ = self._messages(scores)
        difference = jax.nn.softmax(self._cavity(forward, backward) + scores, axis=-1) - self._emitted(prior)
        return valid(difference, mask) @ self.patterns

    def nll(self, ids: Int[Array, " L"]) -> Float[Array, " L"]:
        """`-log P(w_i | w_1 .. w_(i-1))`, nats `(L,)`."""
        ids = tokens(ids, self.codes.shape[0])
        initial, transition, emission = self.tables()

        def step(forward, likelihood):
            here = forward * likelihood
            total = jnp.sum(here)
            return here / total @ transition, -jnp.log(total)

        return jax.lax.scan(step, initial, emission.T[ids])[1]

    def sample(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, dfa: DFA | None = None, key: Key | None
    ) -> Int[Array, " L"]:
        """A token for every place, drawn jointly and exactly: states backwards from the last, then their tokens. With a
        `dfa`, from the passages that it accepts: `O(L Q S (S + V))` for its `Q` states. If `key` is `None`, the tokens
        of the most likely path of states and tokens, by Viterbi's max-product."""
        scores = self.unary_logits(y) + b
        initial, transition, emission = (table.astype(scores.dtype) for table in self.tables())
        if key is None:
            pi, move, token = map(jnp.log, (initial, transition, emission))
            if dfa is None:
                return viterbi(pi, move, token, scores)
            return viterbi_accepted(dfa, pi, move, token, scores)
        if dfa is not None:
            return _accepted(dfa, initial, transition, emission, scores, key)
        forward, *_ = self._messages(scores)
        tilted = jnp.log(emission)[None] + scores[:, None]
        weight = jnp.log(forward) + jax.nn.logsumexp(tilted, axis=-1)
        k1, k2 = jax.random.split(key)

        def back(onward, now):
            weight, key = now
            state = jax.random.categorical(key, weight + onward)
            return jnp.log(transition[:, state]), state

        keys = jax.random.split(k1, scores.shape[0])
        states = jax.lax.scan(back, jnp.zeros_like(forward[0]), (weight, keys), reverse=True)[1]
        places = jnp.arange(scores.shape[0])
        return jax.random.categorical(k2, tilted[places, states], axis=-1)

    def _scores(self, y, b, mask):
        """Unary logits, and their sum with the evidence `(L, V)`; 0 where there is no token."""
        unary = self.unary_logits(y)
        return valid(unary, mask), valid(unary + b, mask)

    def _messages(self, scores):
        return _messages(*(table.astype(scores.dtype) for table in self.tables()), scores)

    def _emitted(self, states):
        """Distribution of the token where that of the state is given `(L, V)`."""
        return states @ self.tables()[2].astype(states.dtype)

    def _cavity(self, forward, backward):
        joint = forward * backward
        return jnp.log(self._emitted(joint / jnp.sum(joint, axis=-1, keepdims=True)))


# Jitted on its own, so that it is compiled once for every shape even outside a larger jitted function.
@jax.jit
def _messages(
    initial: Float[Array, " S"],
    transition: Float[Array, "S S"],
    emission: Float[Array, "S V"],
    scores: Float[Array, "L V"],
) -> tuple[Float[Array, "L S"], Float[Array, "L S"], Float[Array, "L S"], Float[Array, " L"]]:
    """Forward messages, the distribution of each state before its token; backward messages, up to a factor; the prior
    of each state; and the log normaliser of each token given those before."""
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    likelihood = jnp.exp(scores - top) @ emission.T
    if jax.default_backend() != "cpu":  # where depth costs more than products
        forward, backward, prior = in_parallel(initial, transition, likelihood)
        return forward, backward, prior, jnp.log(jnp.sum(forward * likelihood, axis=-1)) + top[:, 0]

    def step(table, message, likelihood):
        here = message * likelihood
        total = jnp.sum(here, axis=-1, keepdims=True)
        return (here / total) @ table, (message, jnp.log(total))

    both = lambda seen: jnp.stack([seen, jnp.ones_like(seen)])
    _, (forward, norm) = jax.lax.scan(
        lambda m, e: step(transition, m, both(e)), jnp.stack([initial, initial]), likelihood
    )
    ones = jnp.ones_like(initial)
    _, (backward, _) = jax.lax.scan(lambda m, e: step(transition.T, m, e), ones, likelihood, reverse=True)
    return forward[:, 0], backward, forward[:, 1], norm[:, 0, 0] + top[:, 0]


def in_parallel(
    initial: Float[Array, " S"], transition: Float[Array, "S S"], likelihood: Float[Array, "L S"]
) -> tuple[Float[Array, "L S"], Float[Array, "L S"], Float[Array, "L S"]]:
    """Forward messages, backward messages and the prior of each state, in `O(log L)` steps of `O(L S^3)` in all.

    Forwards `initial A_1 .. A_(i-1)` and backwards `T A_(i+1) .. A_L 1` with `A_i = diag(likelihood_i) T`, products of
    neighbours first (an associative scan), each scaled to a largest entry of 1.
    """
    steps = jnp.stack([likelihood, jnp.ones_like(likelihood)])[..., None] * transition

    def join(one, other):
        product = one @ other
        return product / jax.lax.stop_gradient(jnp.max(product, axis=(-2, -1), keepdims=True))

    before = initial @ jax.lax.associative_scan(join, steps, axis=1)[:, :-1]
    forward = jnp.concatenate([jnp.broadcast_to(initial, (2, 1, initial.size)), before], axis=1)
    forward = forward / jnp.sum(forward, axis=-1, keepdims=True)
    after = jax.lax.associative_scan(lambda one, other: join(other, one), steps[0], reverse=True)
    backward = jnp.sum(after[1:], axis=-1) @ transition.T
    return forward[0], jnp.concatenate([backward, jnp.ones_like(initial)[None]]), forward[1]


@jax.jit
def _accepted(
    dfa: DFA,
    initial: Float[Array, " S"],
    transition: Float[Array, "S S"],
    emission: Float[Array, "S V"],
    scores: Float[Array, "L V"],
    key: Key,
) -> Int[Array, " L"]:
    """A passage that the automaton accepts, drawn exactly from the hidden Markov model tilted by `scores`.

    `B_i(q, z) = sum_w O(w|z) exp(score_iw) sum_z' T(z'|z) B_(i+1)(next(q, w), z')` backwards, for the automaton's state
    `q` before token `i` and the hidden state `z`; then, forwards, `z`, its token, the next `z`. Every `q` has its own
    scale, in logs: a passage that only an improbable state can end is drawn all the same.
    """

    def backward(after, now):
        (scale, share), (row, read) = after, now
        next = dfa.table(read)
        onward = row + padded(scale, LOG_ZERO)[next]
        top = jnp.max(onward, axis=-1)
        weights = jnp.exp(onward - top[:, None])
        moved = padded(share @ transition.T, 1.0)

        def add(total, now):
            weight, chance, goal = now
            return total + weight[:, None] * chance * moved[goal], None

        total, _ = jax.lax.scan(add, jnp.zeros_like(share), (weights.T, emission.T, next.T))
        largest = jnp.max(total, axis=-1)  # not 0: one weight is 1, and every row has its floor
        after = jnp.maximum(top + jnp.log(largest), LOG_ZERO), total / largest[:, None]
        return after, after

    end = dfa.ends.astype(initial.dtype), jnp.ones((dfa.accept.size, initial.size), initial.dtype)
    _, (scales, shares) = jax.lax.scan(backward, end, (scores, dfa.here), reverse=True)
    scales, shares = (jnp.concatenate([part, last[None]]) for part, last in zip((scales, shares), end, strict=True))

    def forward(state, now):
        place, before = state
        row, share, scale, onward, read, key = now
        next = dfa.table(read)[place]
        k1, k2 = jax.random.split(key)
        z = jax.random.categorical(k1, jnp.log(before) + jnp.log(share[place]))
        value = scale + jnp.log(onward @ transition[z])
        w = jax.random.categorical(k2, jnp.log(emission[z]) + row + padded(value, LOG_ZERO)[next])
        return (next[w], transition[z]), w

    keys = jax.random.split(key, scores.shape[0])
    return jax.lax.scan(forward, (dfa.start, initial), (scores, shares[:-1], scales[1:], shares[1:], dfa.here, keys))[1]

"""A vocabulary under a pattern: the sum over all passages becomes one over those that an automaton accepts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Key
from ._dfa import DFA, chosen
from ._synapses import valid
from ._vocabulary import AbstractVocabulary, MeanFieldVocabulary


class PatternVocabulary(AbstractVocabulary):
    """A `MeanFieldVocabulary` of the passages that an automaton accepts: what `FreeEnergy.accepted` makes.

    `E = -log sum_(w accepted) exp(sum_i s_i(w_i))`, `s_iw = <y_i, U_w> + c_w + b_iw`

    instead of `-sum_i log sum_w exp(s_iw)`. Both are minus log-partition functions, so that `Λ_b` stays convex and `F`
    falls. `p_i`, the marginal of token `i` over the accepted passages by a forward and a backward pass, is the exact
    posterior given the hidden state, and `sum_w p_iw U_w` the message. A token without evidence is silent: it has `s_iw
    = c_w`. Of the energy, what is above that of the base is `-log P(accepted)` of tokens drawn independently: the
    price of the pattern, nats, in equal parts. `O(L Q V)` for `Q` states.

    **Arguments:**

    - `base`: the vocabulary, without feedback.
    - `dfa`: the automaton.

    **Raises:** `ValueError` if the automaton is about another number of tokens, or the base has feedback.

    **Source:** the forward-backward algorithm (Rabiner 1989) as in a conditional random field (Lafferty et al. 2001).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    base = ed.energy.MeanFieldVocabulary(2, 8, key=jax.random.key(0))
    dfa = ed.energy.DFA.of(ed.data.RegexDFA.of("(ab)*", ed.data.Characters("ab")))
    vocabulary = ed.energy.PatternVocabulary(base, dfa)
    assert jnp.allclose(vocabulary.posterior(jnp.zeros((4, 8)), jnp.zeros((4, 2)))[:, 0], jnp.array([1, 0, 1, 0]))
    ```
    """

    base: MeanFieldVocabulary
    dfa: DFA

    def __init__(self, base: MeanFieldVocabulary, dfa: DFA):
        if base.feedback:
            raise ValueError("`base` has feedback; expected a `MeanFieldVocabulary` whose unknown tokens are silent.")
        if (size := dfa.next.shape[1]) != base.patterns.shape[0]:
            raise ValueError(
                f"`dfa` is about {size} tokens and `base` has {base.patterns.shape[0]}; take that of the "
                "model's tokenizer."
            )
        self.base, self.dfa = base, dfa

    @property
    def codes(self) -> Float[Array, "V C"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the base."""
        return self.base.codes

    @property
    def patterns(self) -> Float[Array, "V D"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the base."""
        return self.base.patterns

    def cavity_logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """`c_w`, and what the pattern adds."""
        return self.base.cavity_logits(y, b) + self.by_pattern(y, b)

    def by_pattern(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """Log of the weight of the other tokens, given their hidden states, that complete an accepted passage."""
        return self.dfa.cavity(self.base.logits(y, b))

    def per_token(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, " L"]:
        """That of the base, and `-log P(accepted)` in equal parts, nats `(L,)`."""
        scores = self._scores(y, b)
        alone = jax.nn.logsumexp(scores, axis=-1)
        price = self._read(mask)(scores) + jnp.sum(alone)
        count = b.shape[0] if mask is None else jnp.maximum(jnp.sum(mask), 1)
        return valid(price / count - alone, mask)

    def message(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """`sum_w p_iw U_w (L, D)`, minus the gradient of `per_token` in `y`; 0 without evidence."""
        scores = self._scores(y, b)
        p = jax.nn.softmax(scores + self._read(mask).cavity(scores), axis=-1)
        return valid(jnp.where(self.base.informed(b)[:, None], p, 0.0), mask) @ self.patterns

    def nll(self, ids: Int[Array, " L"]) -> Float[Array, " L"]:
        """That of the base, whatever is accepted."""
        return self.base.nll(ids)

    def sample(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, dfa: DFA | None = None, key: Key | None
    ) -> Int[Array, " L"]:
        """An accepted passage, drawn exactly or, if `key` is `None`, the likeliest; another `dfa` takes the place of
        this one."""
        return chosen(self.base.logits(y, b), self.dfa if dfa is None else dfa, key)

    def _read(self, mask):
        """The automaton, which reads nothing that is no token."""
        if mask is None:
            return self.dfa
        return self.dfa.within(mask if self.dfa.here is None else mask & self.dfa.here)

    def _scores(self, y, b):
        """`s (L, V)`, in which a token without evidence has its prior."""
        return jnp.where(self.base.informed(b)[:, None], self.base.logits(y, b), self.base.cavity_logits(y, b))

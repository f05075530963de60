"""The vocabulary: one more associative memory, whose stored patterns are the tokens."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import einsum
from jaxtyping import Array, Bool, Float, Int

from .._types import Key
from ._dfa import DFA, apart, likeliest


# Nats. Gaussian noise of sigma > 0.045 never says so much, a given token always does (`flow.FORBIDDEN`).
CERTAIN = 500.0


class AbstractVocabulary(eqx.Module):
    """An associative memory of the tokens, on which all evidence enters as a field.

    `codes` are the vectors `e_w` the noise acts on (one-hot: unit norm and orthogonal); `patterns` are the vectors
    `U_w` the neurons hear and say. To add one, write what a token's company expects of it, the energy and the voice.
    """

    codes: eqx.AbstractVar[Float[Array, "V C"]]
    patterns: eqx.AbstractVar[Float[Array, "V D"]]

    @abc.abstractmethod
    def cavity_logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """What the log posterior of a token has beside `<y_i, U_w>` and `b_iw`, whatever these are `(L, V)`."""

    @abc.abstractmethod
    def per_token(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, " L"]:
        """The energy, nats `(L,)`: minus the log-likelihood of the evidence under what is expected."""

    @abc.abstractmethod
    def message(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """Minus the gradient of `per_token` in `y` `(L, D)`; the pattern of a known token."""

    @abc.abstractmethod
    def nll(self, ids: Int[Array, " L"]) -> Float[Array, " L"]:
        """Minus the log probability of each token where the neurons say nothing, nats `(L,)`."""

    @abc.abstractmethod
    def sample(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, dfa: DFA | None = None, key: Key
    ) -> Int[Array, " L"]:
        """A token for every place, drawn together from the posterior as the vocabulary has it, of all passages or of
        those that a `dfa` accepts."""

    @abc.abstractmethod
    def best(self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, dfa: DFA | None = None) -> Int[Array, " L"]:
        """The most likely tokens `(L,)`, of all passages or of those that a `dfa` accepts."""

    def unary_logits(self, y: Float[Array, "L D"]) -> Float[Array, "L V"]:
        """`<y_i, U_w>`, what the neurons say of every candidate `(L, V)`."""
        return einsum(y, self.patterns, "l d, v d -> l v")

    def logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """The log posterior `(L, V)` up to a constant per token: heard, expected, and the evidence."""
        return self.unary_logits(y) + self.cavity_logits(y, b) + b

    def known(self, b: Float[Array, "L V"]) -> Bool[Array, " L"]:
        """Whether the evidence leaves one candidate, all others being `CERTAIN` nats or more below it `(L,)`."""
        return jnp.sum(b > jnp.max(b, axis=-1, keepdims=True) - CERTAIN, axis=-1) == 1

    def posterior(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """`p = softmax(logits)`, the posterior over tokens `(L, V)`."""
        return jax.nn.softmax(self.logits(y, b), axis=-1)

    def denoised(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L C"]:
        """`x_hat_i = sum_w p_iw e_w`, the posterior mean of the token codes `(L, C)`."""
        return self.posterior(y, b) @ self.codes


class Vocabulary(AbstractVocabulary):
    """A dense associative memory of the tokens, on which all evidence enters as a field.

    `E = -sum_i log sum_w pi_iw exp(b_iw)`, `pi_i = softmax(<y_i, U> + c)`: minus the log-likelihood of the evidence
    under the prior the context holds. Prior and evidence add up as Bayes says, `p = softmax(<y, U> + c + b)`, and
    `-dE/dy_i = sum_w (p_iw - pi_iw) U_w` is the token's voice: what is known of it beyond what was expected. A token
    whose evidence leaves one candidate is known; it keeps no prior, `E_i = -<y_i, U_w> - c_w - b_iw`, and its voice is
    its pattern.

    `codes` are the vectors `e_w` the noise acts on (one-hot: unit norm and orthogonal); `patterns` are the vectors
    `U_w` the neurons hear and say.

    **Arguments:**

    - `size`: number of tokens `V`.
    - `dim`: hidden width `D`.
    - `key`: random key of the patterns, drawn with standard deviation `2/D`.

    **Raises:** `ValueError` if a size is not positive.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    vocabulary = ed.energy.Vocabulary(5, 8, key=jax.random.key(0))
    p = vocabulary.posterior(jnp.zeros((3, 8)), jnp.zeros((3, 5)))
    assert jnp.allclose(p.sum(-1), 1.0)
    ```
    """

    codes: Float[Array, "V C"]
    patterns: Float[Array, "V D"]
    prior: Float[Array, " V"]

    def __init__(self, size: int, dim: int, *, key: Key):
        for name, value in (("size", size), ("dim", dim)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; expected a positive integer.")
        self.codes = jnp.eye(size)
        self.patterns = 2.0 / dim * jax.random.normal(key, (size, dim))
        self.prior = jnp.zeros(size)

    def cavity_logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """The prior `c_w`, the same everywhere `(L, V)`."""
        return jnp.broadcast_to(self.prior, b.shape)

    def per_token(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, " L"]:
        """`-log sum_w pi_iw exp(b_iw)`, nats `(L,)`; of a known token `-<y_i, U_w> - c_w - b_iw`."""
        prior = self.logits(y, jnp.zeros_like(b))
        expected = jnp.where(self.known(b), 0.0, jax.nn.logsumexp(prior, axis=-1))
        energy = expected - jax.nn.logsumexp(prior + b, axis=-1)
        return energy if mask is None else jnp.where(mask, energy, 0.0)

    def message(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """`sum_w (p_iw - pi_iw) U_w (L, D)`, minus the gradient of `per_token` in `y`; `U_w` of a known token."""
        prior = self.logits(y, jnp.zeros_like(b))
        expected = jnp.where(self.known(b)[:, None], 0.0, jax.nn.softmax(prior, axis=-1))
        told = jax.nn.softmax(prior + b, axis=-1) - expected
        return (told if mask is None else jnp.where(mask[:, None], told, 0.0)) @ self.patterns

    def nll(self, ids: Int[Array, " L"]) -> Float[Array, " L"]:
        """`-log softmax(c)`, nats `(L,)`."""
        return -jax.nn.log_softmax(self.prior)[ids]

    def sample(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, dfa: DFA | None = None, key: Key
    ) -> Int[Array, " L"]:
        """A token for every place, each from its own posterior; with a `dfa` of all passages of such tokens one
        that it accepts."""
        return apart(self.logits(y, b), dfa, key=key)

    def best(self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, dfa: DFA | None = None) -> Int[Array, " L"]:
        """The likeliest token of every place; with a `dfa` the most likely passage that it accepts."""
        return likeliest(self.logits(y, b), dfa)

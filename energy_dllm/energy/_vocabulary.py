"""The vocabulary: an associative memory whose stored patterns are the tokens."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from einops import einsum
from jaxtyping import Array, Bool, Float, Int

from .._checks import sizes, tokens
from .._types import Key
from ._dfa import DFA, chosen
from ._synapses import valid


# Nats. More than Gaussian noise of sigma > 0.045 can give, less than a given token has (`flow.FORBIDDEN`).
CERTAIN = 500.0
MOST_BYTES = 8e9
"""What the codes of a vocabulary may take."""


class AbstractVocabulary(eqx.Module):
    """An associative memory of the tokens, on which all evidence enters as a field.

    `codes` are the vectors `e_w` the noise acts on (one-hot: unit norm and orthogonal); `patterns` are the vectors
    `U_w` of the hidden space. To add one, write the abstract methods. What a member `by_pattern(y, b)` `(L, V)` is of
    the cavity logits is a part of its own in `probe.attribution`.
    """

    codes: eqx.AbstractVar[Float[Array, "V C"]]
    patterns: eqx.AbstractVar[Float[Array, "V D"]]

    @abc.abstractmethod
    def cavity_logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """The log posterior of a token given the others, without its own `<y_i, U_w>` and `b_iw` `(L, V)`."""

    @abc.abstractmethod
    def per_token(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, " L"]:
        """The energy, nats `(L,)`: minus the log-likelihood of the evidence under the prior."""

    @abc.abstractmethod
    def message(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """Minus the gradient of `per_token` in `y` `(L, D)`; the pattern of a known token."""

    @abc.abstractmethod
    def nll(self, ids: Int[Array, " L"]) -> Float[Array, " L"]:
        """Minus the log probability of each token at `y = 0`, nats `(L,)`; `ValueError` for one of no such number."""

    @abc.abstractmethod
    def sample(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, dfa: DFA | None = None, key: Key | None
    ) -> Int[Array, " L"]:
        """A token for every place, drawn from the joint posterior of the vocabulary, or the most likely ones if `key`
        is `None`; over all passages or those that a `dfa` accepts."""

    def unary_logits(self, y: Float[Array, "L D"]) -> Float[Array, "L V"]:
        """`<y_i, U_w>` of every token `(L, V)`."""
        return einsum(y, self.patterns, "l d, v d -> l v")

    def logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """The log posterior `(L, V)` up to a constant per token: unary logits, cavity logits and evidence."""
        return self.unary_logits(y) + self.cavity_logits(y, b) + b

    def known(self, b: Float[Array, "L V"]) -> Bool[Array, " L"]:
        """Whether the evidence leaves one candidate, all others being `CERTAIN` nats or more below it `(L,)`."""
        return jnp.sum(b > jnp.max(b, axis=-1, keepdims=True) - CERTAIN, axis=-1) == 1

    def posterior(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """`p = softmax(logits)`, the posterior over tokens `(L, V)`."""
        return jax.nn.softmax(self.logits(y, b), axis=-1)


class AbstractUnigram(AbstractVocabulary):
    """A vocabulary whose tokens are independent given the hidden state, with the prior `softmax(c)`."""

    prior: eqx.AbstractVar[Float[Array, " V"]]
    allowed: eqx.AbstractVar[Bool[Array, "L V"] | None]

    def cavity_logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """The prior `c_w (L, V)`, the same everywhere but for tokens that are not `allowed` at a place."""
        if self.allowed is None:
            return jnp.broadcast_to(self.prior, b.shape)
        if self.allowed.shape != b.shape:
            raise ValueError(
                f"`b` has shape {b.shape}; the layout of this model has {self.allowed.shape[0]} places for "
                f"{self.allowed.shape[1]} tokens: give evidence of that many."
            )
        return jnp.where(self.allowed, self.prior, -2.0 * CERTAIN).astype(b.dtype)

    def nll(self, ids: Int[Array, " L"]) -> Float[Array, " L"]:
        """`-log softmax(c)` among the tokens allowed at each place, nats `(L,)`."""
        ids = tokens(ids, self.prior.shape[0])
        if self.allowed is None:
            return -jax.nn.log_softmax(self.prior)[ids]
        none = jnp.zeros((ids.shape[0], self.prior.shape[0]), self.prior.dtype)
        log_p = jax.nn.log_softmax(self.cavity_logits(none, none), axis=-1)
        return -jnp.take_along_axis(log_p, ids[:, None], axis=-1)[:, 0]

    def sample(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, dfa: DFA | None = None, key: Key | None
    ) -> Int[Array, " L"]:
        """A token for every place, each from its own posterior, or the likeliest if `key` is `None`; with a `dfa` of
        all passages of such tokens one that it accepts."""
        return chosen(self.logits(y, b), dfa, key)


class Vocabulary(AbstractUnigram):
    """A dense associative memory of the tokens, on which all evidence enters as a field.

    `E = -sum_i log sum_w pi_iw exp(b_iw)`, `pi_i = softmax(<y_i, U> + c)`: minus the log-likelihood of the evidence
    under the prior given the context. Prior and evidence add by Bayes' rule, `p = softmax(<y, U> + c + b)`, and
    `-dE/dy_i = sum_w (p_iw - pi_iw) U_w` is the message of the token: posterior minus prior. A token whose evidence
    leaves one candidate is known; it has no prior, `E_i = -<y_i, U_w> - c_w - b_iw`, and its message is its pattern.

    `codes` are the vectors `e_w` the noise acts on (one-hot: unit norm and orthogonal); `patterns` are the vectors
    `U_w` of the hidden space.

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
    allowed: Bool[Array, "L V"] | None = None

    def __init__(self, size: int, dim: int, *, key: Key):
        sizes(size=size, dim=dim)
        self.codes = token_codes(size)
        self.patterns = 2.0 / dim * jax.random.normal(key, (size, dim))
        self.allowed = None
        self.prior = jnp.zeros(size)

    def per_token(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, " L"]:
        """`-log sum_w pi_iw exp(b_iw)`, nats `(L,)`; of a known token `-<y_i, U_w> - c_w - b_iw`."""
        prior = self.logits(y, jnp.zeros_like(b))
        expected = jnp.where(self.known(b), 0.0, jax.nn.logsumexp(prior, axis=-1))
        return valid(expected - jax.nn.logsumexp(prior + b, axis=-1), mask)

    def message(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """`sum_w (p_iw - pi_iw) U_w (L, D)`, minus the gradient of `per_token` in `y`; `U_w` of a known token."""
        prior = self.logits(y, jnp.zeros_like(b))
        expected = jnp.where(self.known(b)[:, None], 0.0, jax.nn.softmax(prior, axis=-1))
        return valid(jax.nn.softmax(prior + b, axis=-1) - expected, mask) @ self.patterns


class MeanFieldVocabulary(AbstractUnigram):
    """The tokens as the only layer of neurons: `E = -sum_i log sum_w exp(<y_i, U_w> + c_w + b_iw)`, concave in `y`.

    A token without evidence has `log sum_w exp(c_w)` in its place. The message `-dE/dy_i = sum_w p_iw U_w` is the
    posterior mean pattern: the pattern itself of a known token, under noise a mean that takes the context into account.
    The message of a token without evidence is 0: what is masked changes nothing for the others, so under masks the
    posterior is at rest after one evaluation of the force. With `Silent` neurons the `FreeEnergy` is a density
    functional, `F = spring + 1/kappa [<y, g> - Λ_b(y) + E(g) - <a, g>]` with `Λ_b = kappa sum_i log sum_w exp(...)` and
    `g = grad Λ_b`, which falls along every relaxation whatever the correlation energy `E(g)` is, for `Λ_b` is convex.

    With `feedback` a token without evidence sends its belief beyond the prior, `feedback sum_w (p_iw - π_w) U_w` with
    `π = softmax(c)`. Its energy is then less by `feedback (log sum_w π_w exp <y_i, U_w> - sum_w π_w <y_i, U_w>)`, which
    is convex too. The first evaluation is that of silent tokens; in further ones unknown tokens inform one another, so
    that masks need a relaxation (`FreeEnergy.one_shot` is False), and there are no blocks.

    **Arguments:**

    - `size`: number of tokens `V`.
    - `dim`: hidden width `D`, even. The two halves of a pattern are those of `DeepStack`: one is read by the other
      tokens (drawn with standard deviation 1), one compared with what was read (`0.1 (D/2)^-1/2`).
    - `codes`: the vectors `e_w (V, C)` the noise acts on, such as the pixels of a patch (`data.Patches.codes`);
      one-hot by default.
    - `allowed`: which tokens may stand at each place of a layout `(L, V)`; by default all of them, anywhere.
    - `feedback`: how much a token without evidence sends of its belief, 0 (none, the default) or more.
    - `key`: random key of the patterns.

    **Raises:** `ValueError` if a size is not positive, `dim` is odd, `feedback` is negative or infinite, or `codes` or
    `allowed` are of another size.

    **Source:** Hohenberg & Kohn 1964 and Kohn & Sham 1965 for the form; the marginals and their convex dual, Wainwright
    & Jordan 2008 (doi 10.1561/2200000001).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    vocabulary = ed.energy.MeanFieldVocabulary(5, 8, key=jax.random.key(0))
    message = vocabulary.message(jnp.ones((3, 8)), jnp.zeros((3, 5)).at[0, 1:].set(ed.flow.FORBIDDEN))
    assert jnp.allclose(message[0], vocabulary.patterns[0]) and not message[1:].any()
    believing = ed.energy.MeanFieldVocabulary(5, 8, feedback=1.0, key=jax.random.key(0))
    assert believing.message(jnp.ones((3, 8)), jnp.zeros((3, 5)))[1:].any()
    ```
    """

    codes: Float[Array, "V C"]
    patterns: Float[Array, "V D"]
    prior: Float[Array, " V"]
    allowed: Bool[Array, "L V"] | None = None
    feedback: float = eqx.field(static=True, default=0.0)

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        codes: Float[Array, "V C"] | None = None,
        allowed: Bool[Array, "L V"] | None = None,
        feedback: float = 0.0,
        key: Key,
    ):
        sizes(size=size, dim=dim)
        if dim % 2:
            raise ValueError(f"`dim` is {dim}; expected an even number, half of it read and half of it compared.")
        if not 0 <= feedback < np.inf:
            raise ValueError(f"`feedback` is {feedback}; expected 0 (silent unknown tokens) or more, such as 1.")
        for name, found in (
            ("codes", None if codes is None else codes.shape[0]),
            ("allowed", None if allowed is None else allowed.shape[-1]),
        ):
            if found not in (None, size):
                raise ValueError(
                    f"`{name}` is about {found} tokens and `size` is {size}; expected the same vocabulary."
                )
        half = dim // 2
        scale = jnp.repeat(jnp.asarray([1.0, 0.1 * half**-0.5]), half)
        self.codes = token_codes(size) if codes is None else codes
        self.allowed, self.feedback = allowed, float(feedback)
        self.patterns = scale * jax.random.normal(key, (size, dim))
        self.prior = jnp.zeros(size)

    def informed(self, b: Float[Array, "L V"]) -> Bool[Array, " L"]:
        """Whether there is evidence about a token: whether `b_i` tells any two candidates apart `(L,)`."""
        return jnp.any(b != b[:, :1], axis=-1)

    def per_token(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, " L"]:
        """`-log sum_w exp(<y_i, U_w> + c_w + b_iw)`, nats `(L,)`; without evidence `-log sum_w exp(c_w)`, and what
        `feedback` makes of it."""
        prior, here = self.cavity_logits(y, b), self.informed(b)[:, None]
        energy = -jax.nn.logsumexp(jnp.where(here, self.logits(y, b), prior), axis=-1)
        if self.feedback:
            unary = self.unary_logits(y)
            gain = jax.nn.logsumexp(unary + prior, axis=-1) - jax.nn.logsumexp(prior, axis=-1)
            gain -= jnp.sum(jax.nn.softmax(prior, axis=-1) * unary, axis=-1)
            energy -= jnp.where(here[:, 0], 0.0, self.feedback * gain)
        return valid(energy, mask)

    def message(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """`sum_w p_iw U_w (L, D)`, minus the gradient of `per_token` in `y`; without evidence 0, or what `feedback`
        makes of it."""
        here, p = self.informed(b)[:, None], self.posterior(y, b)
        unknown = self.feedback * (p - jax.nn.softmax(self.cavity_logits(y, b), axis=-1)) if self.feedback else 0.0
        return valid(jnp.where(here, p, unknown), mask) @ self.patterns


def token_codes(size: int) -> Float[Array, "V C"]:
    """Unit vectors `e_w` the noise acts on: one-hot for up to 512 tokens, beyond that 256 random directions each.

    `ValueError` if they would not fit.
    """
    if 4 * size * 256 > MOST_BYTES:
        raise ValueError(
            f"`size` is {size:,} tokens, whose codes alone need {4e-9 * size * 256:,.0f} GB; expected at most "
            f"{MOST_BYTES / 1e9:.0f} GB, so use a smaller vocabulary."
        )
    if size <= 512:
        return jnp.eye(size)
    codes = jax.random.normal(jax.random.key(size), (size, 256))
    return codes / jnp.linalg.norm(codes, axis=-1, keepdims=True)

"""Exact diffusion: the free energy of a finite data set, without training."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from einops import einsum
from jaxtyping import Array, Bool, Float, Int

from .._checks import Patterns, number, on_device, one_a_token, positive, stored
from .._types import LOG_ZERO, Key, Scalar
from ._dfa import DFA, chosen
from ._landscape import AbstractFreeEnergy
from ._synapses import valid


# Largest number of entries of the dense one-hot tensor of the items: 1 MB in single precision.
DENSE = 2**18


class Codes(eqx.Module):
    """Token codes without neurons: `e (V, C)`, the vectors the noise acts on."""

    codes: Float[Array, "V C"]


class Empirical(AbstractFreeEnergy):
    """The exact free energy of a data set: `F = -log sum_mu w_mu exp( sum_i b_(i, w_mu_i) )`, `sum_mu w_mu = 1`.

    Item `mu` is a sequence of tokens `w_mu`; `b` is any evidence, and the log-likelihood of an item is the sum over
    its tokens. Under Gaussian noise, with the spring, `F = -log p_sigma(x)` up to a constant, `p_sigma` being the data
    seen through that noise: `-dF/dx` is its exact score, `sigma^2 F` the energy of `GaussianMemory`. Under masks the
    posterior is that over the items which agree with what is visible. There are no neurons (`D = 0`), so nothing
    has to relax: `steps=1` is exact.

    A vector is a sequence of one token, whose code it is: `Empirical.of_vectors`.

    **Arguments:**

    - `items`: sequences of tokens `(M, L)`.
    - `codes`: token codes `(V, C)`, unit vectors by default.
    - `size`: vocabulary size `V` if there are no `codes`; by default the largest token and one.
    - `weights`: weights of the items `(M,)`, positive; equal by default, and normalised.

    **Raises:** `ValueError` for no item, shapes that differ, or a token outside the vocabulary.

    **Source:** the exact score of a finite data set; second-order identities in Pham et al. 2025 (arXiv 2505.21777).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    tokenizer = ed.data.Characters(" acdginorst")
    words = jnp.array([tokenizer.encode(word) for word in ("rats", "cats", "coin", "sand")])
    exact = ed.EnergyDLLM(tokenizer, energy=ed.energy.Empirical(words, size=11), steps=1, key=jax.random.key(0))
    assert ed.repair(exact, "cans", rate=0.1).text == "cats"
    ```
    """

    items: Int[Array, "M L"]
    vocabulary: Codes
    log_weights: Float[Array, " M"]

    def __init__(
        self,
        items: Int[Array | np.ndarray, "M L"],
        *,
        codes: Float[Array, "V C"] | None = None,
        size: int | None = None,
        weights: Float[Array, " M"] | None = None,
    ):
        ids = np.asarray(items)
        if ids.ndim != 2 or 0 in ids.shape or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"`items` is {ids.dtype}{list(ids.shape)}; expected integers (M, L), one item a row.")
        if codes is None:
            codes = jnp.eye(int(ids.max()) + 1 if size is None else size)
        if size not in (None, codes.shape[0]):
            raise ValueError(f"`size` is {size} but `codes` has {codes.shape[0]} rows; leave one of them out.")
        if ids.min() < 0 or ids.max() >= codes.shape[0]:
            raise ValueError(
                f"`items` has a token outside the vocabulary of {codes.shape[0]}; encode with its tokenizer."
            )
        # codes and weights are validated as those of a memory
        self.vocabulary = Codes(stored(codes, None)[0])
        weights = jnp.ones(len(ids), codes.dtype) if weights is None else weights
        self.log_weights = jax.nn.log_softmax(stored(jnp.zeros((len(ids), 1), codes.dtype), weights)[1])
        self.items = on_device(ids)

    @classmethod
    def of_vectors(cls, vectors: Patterns, *, weights: Float[Array, " M"] | None = None) -> "Empirical":
        """The data set of vectors `(M, N)`: sequences of one token, states `x (1, N)`."""
        codes, _ = stored(vectors, None)
        return cls(np.arange(len(codes))[:, None], codes=codes, weights=weights)

    @property
    def kappa(self) -> Scalar:
        """1: there are no neurons to drive."""
        return jnp.ones((), self.log_weights.dtype)

    @property
    def dim(self) -> int:
        """0: there are no neurons."""
        return 0

    @property
    def size(self) -> int:
        """Vocabulary size `V`."""
        return self.vocabulary.codes.shape[0]

    def neutral(self, length: int) -> Float[Array, "L D"]:
        """The hidden state of no neurons, `(L, 0)`."""
        return jnp.zeros((length, 0), self.log_weights.dtype)

    def accepted(self, dfa: DFA) -> "Empirical":
        """The accepted items, with the weights they have; all items if none is accepted."""
        there = jax.vmap(dfa.accepts)(self.items)
        weights = jnp.where(there | ~jnp.any(there), self.log_weights, LOG_ZERO)
        return eqx.tree_at(lambda data: data.log_weights, self, weights)

    def log_shares(self, b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " M"]:
        """`log p(mu | b) (M,)`: how likely each item is, given the evidence."""
        return jax.nn.log_softmax(self._scores(b, mask))

    def terms(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        spring: Float[Array, " L"] | None = None,
        mask: Bool[Array, " L"] | None = None,
    ) -> dict[str, Float[Array, " L"]]:
        """`F` in two terms (and the spring), token by token.

        `evidence` is how badly each token agrees with what was recalled, `-sum_w p_iw b_iw`; `items` the price of
        recalling it, `KL(p(mu | b) | w)` in equal parts. Their sum is `F`. `y (L, 0)` is ignored.
        """
        one_a_token(b.shape[0], spring=spring)
        logs = self.log_shares(b, mask)
        shares = jnp.exp(logs)
        here = jnp.ones(b.shape[0], bool) if mask is None else mask
        agreed = einsum(shares, self._each(self._finite(b)), "m, m l -> l")
        price = jnp.sum(shares * (logs - self.log_weights)) / jnp.maximum(jnp.sum(here), 1)
        terms = {"evidence": jnp.where(here, -agreed, 0.0), "items": jnp.where(here, price, 0.0)}
        return terms if spring is None else terms | {"spring": jnp.where(here, spring, 0.0)}

    def force(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """Empty, `(L, 0)`: there are no neurons."""
        return jnp.zeros_like(y)

    def forces(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> dict[str, Float[Array, "L D"]]:
        """None: there are no neurons."""
        return {}

    def logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """`log p_iw`, `p_iw = sum_mu p(mu | b) [w_mu_i = w]`; where that rounds to 0, as for a token in no item, the
        log of the smallest number there is, or the evidence against the token if it is more."""
        b = self._finite(b)
        shares = jnp.exp(self.log_shares(b))
        if self._few:
            p = einsum(shares, self._one_hot(b.dtype), "m, m l v -> l v")
        else:
            p = jnp.zeros_like(b).at[jnp.arange(b.shape[0]), self.items].add(shares[:, None])
        least = jnp.finfo(p.dtype).tiny
        # a prior, `logits - b`, above 0 would let a `ProductOfExperts` choose what the evidence rules out
        ruled_out = jnp.minimum(jnp.log(least), b - jnp.max(b, axis=-1, keepdims=True))
        return jnp.where(p > least, jnp.log(jnp.maximum(p, least)), ruled_out)

    def sample(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        tilt: Float[Array, "L V"] | float = 0.0,
        dfa: DFA | None = None,
        key: Key | None,
    ) -> Int[Array, " L"]:
        """One item of the posterior, whole; with a `dfa` one that it accepts. If it accepts none of those that are
        possible, each token from its own posterior, of all passages of such tokens one that it accepts."""
        pick = jnp.argmax if key is None else functools.partial(jax.random.categorical, key)
        scores = self._scores(b + tilt)
        if dfa is None:
            return self.items[pick(scores)]
        scores = jnp.where(jax.vmap(dfa.accepts)(self.items), scores, -jnp.inf)
        some = jnp.max(scores) > LOG_ZERO / 2
        item = self.items[pick(jnp.where(some, scores, 0.0))]
        return jnp.where(some, item, chosen(self.logits(y, b) + tilt, dfa, key))

    def log_density(self, x: Float[Array, "L C"], sigma: Scalar | float) -> Scalar:
        """`log p_sigma(x)`, normalised: the data seen through Gaussian noise of one level.

        `ValueError` if `x` has another shape than an item, or `sigma` is not positive.
        """
        codes = self.vocabulary.codes
        shape = (self.items.shape[1], codes.shape[1])
        if np.shape(x) != shape:
            raise ValueError(f"`x` has shape {np.shape(x)}; expected {shape}, one code a token.")
        number("sigma", sigma, positive, "a positive noise level")
        squared = jnp.sum((x[:, None] - codes) ** 2, axis=-1)
        normaliser = 0.5 * x.size * jnp.log(2 * jnp.pi * jnp.asarray(sigma) ** 2)
        return jax.nn.logsumexp(self._scores(-squared / (2 * jnp.asarray(sigma) ** 2))) - normaliser

    def _scores(self, b, mask=None):
        one_a_token(b.shape[0], mask=mask)
        b = valid(self._finite(b), mask)
        if not self._few:
            return self.log_weights + jnp.sum(self._each(b), axis=-1)
        return self.log_weights + einsum(self._one_hot(b.dtype), b, "m l v, l v -> m")

    def _each(self, b):
        """The evidence of every token of every item, `(M, L)`."""
        return b[jnp.arange(b.shape[0]), self.items]

    def _finite(self, b):
        """Evidence of the shape of an item; minus infinity, times 0, is no number."""
        if b.shape != (self.items.shape[1], self.size):
            raise ValueError(
                f"`b` has shape {b.shape}; expected {(self.items.shape[1], self.size)}: evidence for as many tokens as "
                "an item has, over the same vocabulary."
            )
        return jnp.maximum(b, LOG_ZERO)

    @property
    def _few(self):
        """Whether the items fit a dense matrix, whose products are many times faster than looking tokens up."""
        return self.items.size * self.size <= DENSE

    def _one_hot(self, dtype):
        return jax.nn.one_hot(self.items, self.size, dtype=dtype)

"""An n-gram prior, and a mixture of stored lines with alignments (pair hidden Markov models) over it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import concrete
from .._types import LOG_ZERO, Key, Scalar
from ._synapses import valid


BLOCK = 128
"""Places of a line up to which alignments advance by one product; its cost is the square of the places."""


class NGram(eqx.Module):
    """An n-gram model as an energy of the evidence: the background of text that is not stored.

    `E(b) = -log sum_x P(x) exp(sum_i b_i(x_i))` over all strings `x`, by the forward recursion. `P` is estimated from
    counts by absolute discounting with discount 1: the first occurrence of every tuple backs off to the shorter history
    `h'`, since it may belong to one stored line alone: `P(c | h) = (max(n_hc - 1, 0) + t_h P(c | h')) / n_h`, with
    `t_h` distinct tokens after `h`.

    **Arguments:**

    - `counts`: how often each tuple of two (first order) or three tokens (second order) was seen, `(V, V)` or
      `(V, V, V)`.

    **Raises:** `ValueError` if `counts` has another shape.

    **Source:** absolute discounting (Ney, Essen & Kneser 1994) with discount 1.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    ngram = ed.energy.NGram(jnp.array([[0.0, 9.0], [9.0, 0.0]]))
    b = jnp.array([[0.0, -30.0], [0.0, 0.0]])  # the first token is 0
    assert ngram.posterior(b)[1, 1] > 0.8
    ```
    """

    counts: Float[Array, "*context V"]

    def __check_init__(self):
        shape = jnp.shape(self.counts)
        if len(shape) not in (2, 3) or len(set(shape)) != 1:
            raise ValueError(f"`counts` has shape {shape}; expected (V, V) or (V, V, V), one axis a token.")

    @property
    def size(self) -> int:
        """Vocabulary size `V`."""
        return self.counts.shape[-1]

    @property
    def unigram(self) -> Float[Array, " V"]:
        """The unigram probability `u_w` of each token."""
        single = jnp.sum(self.counts, axis=tuple(range(self.counts.ndim - 1)), dtype=jnp.result_type(float)) + 1.0
        return single / jnp.sum(single)

    def tables(self) -> tuple[Float[Array, "*context"], Float[Array, "*context V"]]:
        """The probabilities of a context, and of a token after a context."""
        counts = jnp.asarray(self.counts, jnp.result_type(float))
        table = self.unigram
        context = jnp.ones(())
        for axes in range(counts.ndim - 2, -1, -1):
            seen = jnp.sum(counts, axis=tuple(range(axes)))
            again = jnp.maximum(seen - 1.0, 0.0)
            once = jnp.maximum(jnp.sum(jnp.minimum(seen, 1.0), axis=-1, keepdims=True), 1.0)
            context = context[..., None] * table
            table = (again + once * table) / (jnp.sum(again, axis=-1, keepdims=True) + once)
        return context, table

    def __call__(self, b: Float[Array, "N V"]) -> Scalar:
        """`-log sum_x P(x) exp(sum_i b_i(x_i))` in nats."""
        alpha, step = self._begin(b.dtype)
        return -jnp.sum(jax.lax.scan(step, alpha, b)[1])

    def posterior(self, b: Float[Array, "N V"]) -> Float[Array, "N V"]:
        """`P(x_i = w | b) = -dE/db_iw`, `(N, V)`."""
        return -jax.grad(self.__call__)(b)

    def sample(self, b: Float[Array, "N V"], *, key: Key) -> Int[Array, " N"]:
        """A string drawn from `P(x) exp(sum_i b_i(x_i))`, exactly: forward filtering, backward sampling."""
        alpha, step = self._begin(b.dtype)

        def ahead(alpha, row):
            alpha, _ = step(alpha, row)
            return alpha, alpha

        weights = jnp.moveaxis(jax.lax.scan(ahead, alpha, b)[1], -1, 1)
        table = self.tables()[1]
        key, *keys = jax.random.split(key, b.shape[0])
        last = jax.random.categorical(key, jnp.log(weights[-1]).ravel())
        state = jnp.unravel_index(last, weights.shape[1:])  # the last tokens, oldest first

        def back(state, now):
            weight, key = now
            before = weight[(slice(None), *state[:-1])] * table[(slice(None), *state)]
            state = (jax.random.categorical(key, jnp.log(before)), *state[:-1])
            return state, state[-1]

        if not keys:
            return state[-1][None]
        tokens = jax.lax.scan(back, state, (weights[:-1], jnp.stack(keys)), reverse=True)[1]
        return jnp.append(tokens, state[-1])

    def _begin(self, dtype):
        """Probability of each context, its oldest token last, and one step of the forward recursion."""
        context, table = (t.astype(dtype) for t in self.tables())
        table = jnp.moveaxis(table, 0, -2)

        def step(alpha, row):
            top = jnp.max(row)
            alpha = jnp.einsum("...a,...ac->...c", alpha, table) * jnp.exp(row - top)
            total = jnp.sum(alpha)
            return jnp.moveaxis(alpha / total, 0, -1), jnp.log(total) + top

        return jnp.moveaxis(context, 0, -1), step


class PairHMMMixture(eqx.Module):
    """A mixture of stored lines and a background, as one energy of the evidence.

    `F(b) = -log [ w_0 Z_0(b) + sum_m w_m Z_m(b) ]`, with `-log Z_0` the `NGram` and, where the offset is known, `Z_m(b)
    = exp(sum_i b_i(xi_m,i))`. After the end of a line any token may follow, `log sum_w u_w exp(b_iw)`.

    With a rate `gap`, the offset is not known: half of `Z_m` is then the sum over all alignments of the cue with a
    substring of the line (a pair hidden Markov model), where each token of the cue is an insertion with probability
    `gap`, and each next token of the line is deleted with probability `gap`. With `a_0 = 1/length` at each place to
    begin,

    `a_i = (1 - gap) e_i * (a_(i-1) T) + gap u_i a_(i-1)`,  `T_jk = (1 - gap) gap^(k-j-1)` for `k > j`,

    `e_ij = exp(b_i(xi_m,j))`, `u_i = sum_w u_w exp(b_iw)`; alignments that run past the end of the line have no weight.

    Posterior and marginals are gradients: `P(m | b) = -dF/dlog w_m`, `P(token_i = w | b) = -dF/db_iw`.

    **Arguments:**

    - `ids`: stored tokens `(M, L)`, padded with `V` after the end of a line.
    - `log_weights`: `log w_0, log w_1, ... (M + 1,)`, that of the background first.
    - `background`: the prior of text that is not stored.

    **Raises:** `ValueError` if shapes do not match, or a token is outside the vocabulary.

    **Source:** the exponential memory of Demircigil et al. 2017 on log-likelihoods; the alignments are those of a pair
    hidden Markov model (Durbin et al. 1998, chapter 4).

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    ngram = ed.energy.NGram(jnp.ones((3, 3)))
    lines = ed.energy.PairHMMMixture(jnp.array([[0, 1, 2], [2, 2, 3]]), jnp.log(jnp.array([0.5, 0.25, 0.25])), ngram)
    b = ed.flow.Typo(jnp.array([2, 1]), 0.1).field(jnp.eye(3))
    assert lines.posterior(b).shape == (3,) and lines.marginals(b).shape == (2, 3)
    ```
    """

    ids: Int[Array, "M L"]
    log_weights: Float[Array, " terms"]
    background: NGram

    def __check_init__(self):
        shapes = jnp.shape(self.ids), jnp.shape(self.log_weights)
        if len(shapes[0]) != 2 or shapes[1] != (shapes[0][0] + 1,):
            raise ValueError(f"`ids` and `log_weights` have shapes {shapes}; expected (M, L) and (M + 1,).")
        size = self.background.size
        if concrete(self.ids) and np.any((np.asarray(self.ids) < 0) | (np.asarray(self.ids) > size)):
            raise ValueError(f"`ids` has a token outside the vocabulary of {size}; pad the ends of lines with {size}.")

    def placed(self, b: Float[Array, "N V"], *, mask: Bool[Array, " N"] | None = None) -> Float[Array, " M"]:
        """`sum_i b_i(xi_m,i)`: the log-likelihood of the evidence, aligned with the beginning of every line."""
        table = self._table(b)
        if mask is not None:
            table = jnp.where(mask[:, None], table, 0.0)
        longer = max(0, b.shape[0] - self.ids.shape[1])
        ids = jnp.pad(self.ids, ((0, 0), (0, longer)), constant_values=self.background.size)[:, : b.shape[0]]
        return jnp.sum(table[jnp.arange(b.shape[0]), ids], axis=-1)

    def aligned(
        self, b: Float[Array, "N V"], gap: Scalar | float, *, mask: Bool[Array, " N"] | None = None
    ) -> Float[Array, " M"]:
        """The log of the sum over all alignments `(M,)`; tokens outside `mask` are padding of the cue."""
        size, width = self.background.size, self.ids.shape[1]
        inside = self.ids < size
        length = jnp.sum(inside, axis=-1, keepdims=True)
        place = jnp.arange(width + 1)
        length = jnp.maximum(length, 1)
        start = jnp.where(place < length, 1.0 / length, 0.0).astype(b.dtype)
        gap = jnp.asarray(gap, b.dtype)
        mask = jnp.ones(b.shape[0], bool) if mask is None else mask

        def step(a, now):
            row, there = now
            top = jnp.max(row)
            emit = jnp.where(inside, jnp.exp(row - top)[self.ids], 0.0)
            # no token lies behind the last place
            after = (1.0 - gap) ** 2 * emit * _decayed(a[:, :-1], gap)
            after = jnp.pad(after, ((0, 0), (1, 0))) + gap * jnp.exp(row[size] - top) * a
            total = jnp.sum(after, axis=-1, keepdims=True)
            some = total > 0  # without gaps a line shorter than the cue has no alignment
            total = jnp.where(some, total, 1.0)
            log_total = jnp.where(some, jnp.log(total), LOG_ZERO)[:, 0] + top
            return jnp.where(there, after / total, a), jnp.where(there, log_total, 0.0)

        return jnp.sum(jax.lax.scan(step, start, (self._table(b), mask))[1], axis=0)

    def log_masses(
        self, b: Float[Array, "N V"], *, gap: Scalar | float | None = None, mask: Bool[Array, " N"] | None = None
    ) -> Float[Array, " terms"]:
        """`log w_0 Z_0, log w_1 Z_1, ...`: the terms of the sum in `F`, that of the background first."""
        likelihood = self.placed(b, mask=mask)
        b = valid(b, mask)  # no evidence about padding: the background's sum over it is 1
        if gap is not None:
            likelihood = jnp.logaddexp(likelihood, self.aligned(b, gap, mask=mask)) - jnp.log(2.0)
        return self.log_weights + jnp.concatenate([-self.background(b)[None], likelihood])

    def __call__(
        self, b: Float[Array, "N V"], *, gap: Scalar | float | None = None, mask: Bool[Array, " N"] | None = None
    ) -> Scalar:
        """`F(b)` in nats."""
        return -jax.nn.logsumexp(self.log_masses(b, gap=gap, mask=mask))

    def posterior(self, b: Float[Array, "N V"], *, gap: Scalar | float | None = None) -> Float[Array, " terms"]:
        """`P(none | b), P(1 | b), ...`, `(M + 1,)`."""
        return jax.nn.softmax(self.log_masses(b, gap=gap))

    def marginals(self, b: Float[Array, "N V"], *, gap: Scalar | float | None = None) -> Float[Array, "N V"]:
        """`P(token_i = w | b) = -dF/db_iw`, `(N, V)`."""
        return -jax.grad(lambda b: self(b, gap=gap))(b)

    def _table(self, b):
        """Evidence `(N, V + 1)`, the last column being the unigram average."""
        if b.ndim != 2 or b.shape[1] != self.background.size:
            raise ValueError(f"`b` has shape {b.shape}; expected (N, {self.background.size}), one row a token.")
        anything = jax.nn.logsumexp(b + jnp.log(self.background.unigram).astype(b.dtype), axis=-1, keepdims=True)
        return jnp.concatenate([b, anything], axis=-1)


def _decayed(a: Float[Array, "M L"], gap: Scalar) -> Float[Array, "M L"]:
    """`sum_(j <= k) gap^(k-j) a_j` at every place `k`: a product within each block, and what earlier blocks leave."""
    width = a.shape[1]
    size = width if width <= BLOCK else BLOCK // 2
    ahead = jnp.arange(size) - jnp.arange(size)[:, None]
    decay = jnp.where(ahead >= 0, gap ** jnp.maximum(ahead, 0), 0.0)
    if size == width:
        return a @ decay
    inside = jnp.pad(a, ((0, 0), (0, -width % size))).reshape(a.shape[0], -1, size) @ decay
    left, shift = inside[:, :, -1], 1
    while shift < left.shape[1]:  # sums over twice as many blocks each time
        left = left + gap ** (shift * size) * jnp.pad(left[:, :-shift], ((0, 0), (shift, 0)))
        shift *= 2
    before = jnp.pad(left[:, :-1], ((0, 0), (1, 0)))
    return (inside + before[:, :, None] * gap ** (1.0 + jnp.arange(size))).reshape(a.shape[0], -1)[:, :width]

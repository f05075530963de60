"""Synapses: energies of the activations `g`.

A synapse is one scalar of `g (L, D)`, given token by token; its force `-dE/dg` comes from autodiff. Energies are sums
over tokens, never means. Padding is a mask `(L,)`: a token that is not valid neither exerts nor receives a force.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import einsum
from jaxtyping import Array, Bool, Float

from .._checks import sizes
from .._types import Key, Scalar
from ._splits import by_key, by_offset


class AbstractSynapse(eqx.Module):
    """An energy of the activations of one sequence.

    To add a synapse, write `per_token`; total, force and every report follow.
    """

    @abc.abstractmethod
    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """The energy `(L,)` token by token; the synapse's energy is its sum."""

    def __call__(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Scalar:
        """The energy, a scalar: the sum of `per_token`."""
        return jnp.sum(self.per_token(g, mask))


class AbstractCoupling(AbstractSynapse):
    """A synapse that couples tokens, and can split its force by neighbour.

    To add one, write `per_token` and `by_neighbour`; attribution and counterfactuals by neighbour follow.
    """

    @abc.abstractmethod
    def by_neighbour(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L L"]:
        """The message of token `j` to token `i` along `u_i`, `(L, L)`: row `i` sums to `<-dE/dg_i, u_i>`."""


class AbstractRecall(AbstractSynapse):
    """A synapse that stores patterns, and can split its energy and force by pattern.

    To add one, write `per_token` and the methods below; each may be `None` where the patterns are not explicit.
    """

    @abc.abstractmethod
    def per_memory(
        self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L pairs"] | None:
        """The energy by stored pattern, `(L, M)`; its sum is the energy."""

    @abc.abstractmethod
    def by_memory(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L pairs"] | None:
        """The message of pattern `m` to token `i` along `u_i`, `(L, M)`: row `i` sums to `<-dE/dg_i, u_i>`."""

    @abc.abstractmethod
    def activity(self, g: Float[Array, "L D"]) -> tuple[Float[Array, "L pairs"], Float[Array, "pairs D"]] | None:
        """The activation of each pattern at each token, and its value `(M, D)`."""


class Pairwise(AbstractCoupling):
    """Direct coupling of neighbours, low-rank and the same everywhere: a Markov random field as a crossbar.

    `E = -sum_o sum_i <P_o g_i, Q_o g_(i+o)>` for offsets `o = 1 .. offsets`. Each bond's energy is shared
    equally by its two ends.

    **Arguments:**

    - `dim`: hidden width `D`.
    - `offsets`: how many neighbours on each side are coupled.
    - `rank`: rank of each coupling matrix `P_o^T Q_o`.
    - `key`: random key of the initial couplings.

    **Raises:** `ValueError` if a size is not positive.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    pairwise = ed.energy.Pairwise(8, offsets=2, rank=3, key=jax.random.key(0))
    assert pairwise(jnp.ones((5, 8))).shape == ()
    ```
    """

    left: Float[Array, "O R D"]
    right: Float[Array, "O R D"]

    def __init__(self, dim: int, *, offsets: int = 4, rank: int = 32, key: Key):
        sizes(dim=dim, offsets=offsets, rank=rank)
        k1, k2 = jax.random.split(key)
        scale = 0.5 * (dim * rank) ** -0.25
        self.left = scale * jax.random.normal(k1, (offsets, rank, dim))
        self.right = scale * jax.random.normal(k2, (offsets, rank, dim))

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """Half of every bond's energy at each of its ends, `(L,)`."""
        g, length = valid(g, mask), g.shape[0]
        u = einsum(g, self.left, "l d, o r d -> o l r")
        v = einsum(g, self.right, "l d, o r d -> o l r")
        energy = jnp.zeros(length, g.dtype)
        for o in range(1, min(self.left.shape[0], length - 1) + 1):
            bond = -jnp.sum(u[o - 1, :-o] * v[o - 1, o:], axis=-1)
            energy = energy + 0.5 * (jnp.pad(bond, (0, o)) + jnp.pad(bond, (o, 0)))
        return energy

    def by_neighbour(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L L"]:
        """The message of token `j` to token `i` along `u_i`, `(L, L)`."""
        return by_offset(self.left, self.right, g, u)


class Attention(AbstractCoupling):
    """Energy attention: every token is an associative memory of all the others.

    `E = -1/beta sum_h sum_i log sum_(j != i) a_hij exp(beta <q_hi, k_hj>)`, `a_hij = softmax_j(r_h(j - i))`,
    `beta = 1/sqrt(K)`, `q = W_q g`, `k = W_k g`, `r` a learned bias per head and offset, optionally rotary phases on
    `q` and `k`. At `g = 0` it is 0. The force has two parts, one as query and one as key, both from autodiff. A token
    with no other token contributes 0.

    **Arguments:**

    - `dim`: hidden width `D`.
    - `heads`, `head_dim`: `H` and `K`.
    - `reach`: offsets beyond `reach` share one bias per side. The bias starts decaying with distance, head
      `h` with slope `2^-h`.
    - `rotary`: turn `q` and `k` by rotary phases as well (`head_dim` must then be even).
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive, or `head_dim` is odd with `rotary=True`.

    **Source:** Hoover et al. 2023 (arXiv 2302.07253); rotary phases, Su et al. 2021 (arXiv 2104.09864).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{hoover2023energy,
          title={Energy Transformer},
          author={Hoover, Benjamin and Liang, Yuchen and Pham, Bao and Panda, Rameswar and Strobelt, Hendrik and
            Chau, Duen Horng and Zaki, Mohammed J. and Krotov, Dmitry},
          booktitle={Advances in Neural Information Processing Systems},
          year={2023}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    attention = ed.energy.Attention(8, heads=2, head_dim=4, key=jax.random.key(0))
    assert attention(jnp.ones((1, 8))) == 0.0  # no other token
    ```
    """

    query: Float[Array, "H K D"]
    keys: Float[Array, "H K D"]
    bias: Float[Array, "H offsets"]
    rotary: bool = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int = 16,
        reach: int = 64,
        rotary: bool = False,
        key: Key,
    ):
        sizes(dim=dim, heads=heads, head_dim=head_dim, reach=reach)
        if rotary and head_dim % 2:
            raise ValueError(
                f"`head_dim` is {head_dim}; rotary phases turn pairs, so it must be even (or rotary=False)."
            )
        k1, k2 = jax.random.split(key)
        self.query = dim**-0.5 * jax.random.normal(k1, (heads, head_dim, dim))
        self.keys = dim**-0.5 * jax.random.normal(k2, (heads, head_dim, dim))
        slopes = 2.0 ** -jnp.arange(heads, dtype=float)
        self.bias = -slopes[:, None] * jnp.abs(jnp.arange(-reach, reach + 1))
        self.rotary = rotary

    def per_head(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, "H L"]:
        """`-1/beta log sum_j a_hij exp(beta <q_hi, k_hj>)` of each token as query, `(H, L)`."""
        score = self.logits(g, mask)
        some = jnp.any(_others(g.shape[0], mask), axis=-1)
        # an empty row is -inf throughout; 0 in its place, so that no derivative of it can be NaN
        lse = lambda score: jax.nn.logsumexp(jnp.where(some[:, None], score, 0.0), axis=-1)
        lower = lse(score) - lse(jnp.where(_others(g.shape[0], mask), self._offsets(g.shape[0]), -jnp.inf))
        return -jnp.where(some, lower, 0.0) / self._beta

    def by_neighbour(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L L"]:
        """The message of token `j` to token `i` along `u_i`, `(L, L)`."""
        return by_key(self, g, u)

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """The energy of each token as query, the sum of `per_head` over heads, `(L,)`."""
        return jnp.sum(self.per_head(g, mask), axis=0)

    def by_head(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L H"]:
        """The message of head `h` to token `i` along `u_i`, `(L, H)`: row `i` sums to `<-dE/dg_i, u_i>`."""
        return by_token(lambda g: jnp.sum(self.per_head(g), axis=1), g, u)

    def logits(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, "H L L"]:
        """`beta <q_hi, k_hj> + r_h(j - i)`, `(H, L, L)`; `-inf` for `j = i` and for padding."""
        length = g.shape[0]
        q, k = _shown(g, self.query), _shown(g, self.keys)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        score = self._beta * einsum(q, k, "h i k, h j k -> h i j") + self._offsets(length)
        return jnp.where(_others(length, mask), score, -jnp.inf)

    def pattern(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, "H L L"]:
        """The attention pattern, softmax of `logits` over the last axis; an empty row is 0."""
        score = self.logits(g, mask)
        some = jnp.any(_others(g.shape[0], mask), axis=-1, keepdims=True)
        return jnp.where(some, jax.nn.softmax(jnp.where(some, score, 0.0), axis=-1), 0.0)

    def _offsets(self, length: int) -> Float[Array, "H L L"]:
        """`r_h(j - i)`."""
        reach = self.bias.shape[1] // 2
        place = jnp.arange(length)
        return self.bias[:, jnp.clip(place[None, :] - place[:, None], -reach, reach) + reach]

    @property
    def _beta(self) -> float:
        return self.query.shape[1] ** -0.5


def by_token(energy: Callable[[Array], Any], g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Any:
    """`-d energy(g)/dg_i u_i`, token by token: the message of every entry of `energy(g)` to token `i` along `u_i`."""
    one = lambda i: jax.jvp(energy, (g,), (jnp.zeros_like(g).at[i].set(-u[i]),))[1]
    return jax.lax.map(one, jnp.arange(g.shape[0]), batch_size=16)


def _shown(g: Float[Array, "L D"], to: Float[Array, "H K D"]) -> Float[Array, "H L K"]:
    """Projections of each token for each head."""
    return einsum(g, to, "l d, h k d -> h l k")


def _others(length: int, mask: Bool[Array, " L"] | None) -> Bool[Array, "L L"]:
    """The pairs of different tokens, without padding."""
    others = ~jnp.eye(length, dtype=bool)
    return others if mask is None else others & mask[None, :] & mask[:, None]


def valid(values: Float[Array, "L *_"], mask: Bool[Array, " L"] | None) -> Float[Array, "L *_"]:
    """Rows of tokens, 0 where there is none."""
    return values if mask is None else jnp.where(mask.reshape(-1, *[1] * (values.ndim - 1)), values, 0.0)


def rotate(z: Float[Array, "H L K"]) -> Float[Array, "H L K"]:
    half = z.shape[-1] // 2
    frequency = 10_000.0 ** (-jnp.arange(half) / half)
    angle = jnp.arange(z.shape[1])[:, None] * frequency
    cos, sin = jnp.cos(angle).astype(z.dtype), jnp.sin(angle).astype(z.dtype)
    z1, z2 = z[..., :half], z[..., half:]
    return jnp.concatenate([z1 * cos - z2 * sin, z1 * sin + z2 * cos], axis=-1)

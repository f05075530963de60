"""Token memories: synapses that recall learned patterns for every token.

Like every synapse a memory is one scalar of `g (L, D)`, given token by token; stored patterns are leaves.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import sizes
from .._types import Key
from ._neurons import AbstractNeurons, Softmax
from ._synapses import AbstractCoupling, AbstractRecall, valid


class MappingMemory(AbstractRecall):
    """A key-value memory: `E = -sum_i <g_i, W_2 gelu(W_1 g_i + w)>`.

    Its force `W_2 gelu(W_1 g) + W_1^T [gelu'(W_1 g) * W_2^T g]` can point away from `g`: unlike that of `DenseMemory`
    it does not only amplify its input.

    **Arguments:**

    - `dim`: hidden width `D`.
    - `memories`: number `M` of stored pairs (row of `W_1`, column of `W_2`); default `D`.
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive.

    **Source:** the two-matrix energy of NRGPT (arXiv 2512.16762), per token and without detached keys.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.energy.MappingMemory(8, memories=16, key=jax.random.key(0))
    assert memory(jnp.zeros((5, 8))) == 0.0
    ```
    """

    cues: Float[Array, "M D"]
    threshold: Float[Array, " M"]
    answers: Float[Array, "M D"]

    def __init__(self, dim: int, *, memories: int | None = None, key: Key):
        memories = dim if memories is None else memories
        sizes(dim=dim, memories=memories)
        k1, k2 = jax.random.split(key)
        self.cues = dim**-0.5 * jax.random.normal(k1, (memories, dim))
        self.threshold = jnp.zeros(memories)
        self.answers = 0.5 * memories**-0.5 * jax.random.normal(k2, (memories, dim))

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """`-<g_i, W_2 gelu(W_1 g_i + w)>`, `(L,)`."""
        return valid(jnp.sum(self.per_memory(g), axis=-1), mask)

    def per_memory(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, "L M"]:
        """`-<g_i, W_2m> gelu(<W_1m, g_i> + w_m)`, `(L, M)`."""
        return valid(-self.activity(g)[0] * (g @ self.answers.T), mask)

    def by_memory(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L M"]:
        """The message of pair `m` to token `i` along `u_i`, `(L, M)`."""
        # the energy of a token depends on that token alone: one forward derivative for all
        return -jax.jvp(self.per_memory, (g,), (u,))[1]

    def activity(self, g: Float[Array, "L D"]) -> tuple[Float[Array, "L M"], Float[Array, "M D"]]:
        """`gelu(W_1 g_i + w) (L, M)`, and the values `W_2 (M, D)`."""
        return jax.nn.gelu(g @ self.cues.T + self.threshold), self.answers


class ConvolutionalMemory(AbstractCoupling, AbstractRecall):
    """A key-value memory whose key is a window of neighbours: `E = -sum_i <g_i, sum_n W_n h_ni>`, several layers deep.

    `h_ni = gelu(sum_o C_no z_(n-1)(i+o) + w_n)`, offsets `o = -reach .. reach`, and `z_n = z_(n-1) + B_n h_n` from `z_0
    = A g`. `A` projects each neighbour to `rank` numbers. A stored pair responds to several neighbours at once, each at
    its own offset, where a pairwise synapse is linear in each of them; `B` passes what was recalled around each
    neighbour to the next layer. The force has two parts: from the recalled pairs to the token, and from the token back
    to the neighbours in the window.

    **Arguments:**

    - `dim`: hidden width `D`.
    - `memories`: number `M` of stored pairs in each layer (a row of every `C_no`, a column of `W_n`); default `D`.
    - `depth`: layers, `n = 1 .. depth`.
    - `reach`: neighbours on each side that are part of the cue.
    - `rank`: numbers `R` that each of them is projected to; default `D / 8`.
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive.

    **Source:** the two-matrix energy of NRGPT (arXiv 2512.16762), its cue widened to a window and deepened; several
    hidden layers in one energy, Krotov 2021 (arXiv 2107.06446).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.energy.ConvolutionalMemory(8, memories=16, depth=2, reach=2, rank=3, key=jax.random.key(0))
    assert memory(jnp.ones((5, 8))).shape == ()
    ```
    """

    view: Float[Array, "R D"]
    cues: Float[Array, "N M offsets*R"]
    threshold: Float[Array, "N M"]
    onward: Float[Array, "N-1 R M"]
    answers: Float[Array, "N M D"]

    def __init__(
        self,
        dim: int,
        *,
        memories: int | None = None,
        depth: int = 1,
        reach: int = 4,
        rank: int | None = None,
        key: Key,
    ):
        memories = dim if memories is None else memories
        rank = max(1, dim // 8) if rank is None else rank
        sizes(dim=dim, memories=memories, depth=depth, reach=reach, rank=rank)
        k1, k2, k3, k4 = jax.random.split(key, 4)
        # near neighbours start with larger weights
        weight = 0.1 + jnp.exp(-(jnp.arange(-reach, reach + 1.0) ** 2) / 8)
        weight = weight / jnp.linalg.norm(weight)
        cues = rank**-0.5 * weight[:, None] * jax.random.normal(k1, (depth, memories, 2 * reach + 1, rank))
        self.view = dim**-0.5 * jax.random.normal(k3, (rank, dim))
        self.cues = cues.reshape(depth, memories, -1)
        self.threshold = jnp.zeros((depth, memories))
        self.onward = memories**-0.5 * jax.random.normal(k4, (depth - 1, rank, memories))
        self.answers = 0.5 * (depth * memories) ** -0.5 * jax.random.normal(k2, (depth, memories, dim))

    def recalled(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, "L pairs"]:
        """`h (L, N M)`: how strongly every stored pair is recalled at each token, layer after layer."""
        z, hidden = g @ self.view.T, []
        length, reach = g.shape[0], self.cues.shape[2] // self.view.shape[0] // 2
        for n, (cues, threshold) in enumerate(zip(self.cues, self.threshold, strict=True)):
            # padding is zero, like what lies beyond the ends, in every layer
            padded = jnp.pad(valid(z, mask), ((reach, reach), (0, 0)))
            window = jnp.concatenate([padded[o : o + length] for o in range(2 * reach + 1)], axis=-1)
            hidden.append(jax.nn.gelu(window @ cues.T + threshold))
            if n < len(self.onward):
                z = z + hidden[-1] @ self.onward[n].T
        return jnp.concatenate(hidden, axis=-1)

    def per_memory(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, "L pairs"]:
        """`-h_nim <g_i, W_nm>`, the energy of each token stored pair by stored pair, `(L, N M)`."""
        return valid(-self.recalled(g, mask) * (g @ self.answers.reshape(-1, g.shape[1]).T), mask)

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """`-<g_i, sum_n W_n h_ni>`, `(L,)`."""
        return jnp.sum(self.per_memory(g, mask), axis=-1)

    def by_neighbour(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L L"]:
        """The message to token `i` along `u_i` of what is recalled at token `j`, `(L, L)`."""
        return self._messages(g, u, axis=1)

    def by_memory(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L pairs"]:
        """The message to token `i` along `u_i` of pair `m`, wherever it is recalled, `(L, N M)`."""
        return self._messages(g, u, axis=0)

    def activity(self, g: Float[Array, "L D"]) -> tuple[Float[Array, "L pairs"], Float[Array, "pairs D"]]:
        """`h (L, N M)`, and the values `W (N M, D)`."""
        return self.recalled(g), self.answers.reshape(-1, g.shape[1])

    def _messages(self, g, u, axis):
        energy = lambda g: jnp.sum(self.per_memory(g), axis=axis)
        message = lambda i: -jax.jvp(energy, (g,), (jnp.zeros_like(g).at[i].set(u[i]),))[1]
        return jax.lax.map(message, jnp.arange(g.shape[0]), batch_size=16)


class DenseMemory(AbstractRecall):
    """Dense associative memory of patterns `xi`: `E = -sum_i Λ(xi g_i)`, `Λ` the Lagrangian of its memory neurons.

    | memory neurons | energy | kind |
    |---|---|---|
    | `Softmax(beta)` | `-1/beta log sum_m exp(beta <xi_m, g_i>)` | exponential separation, attention over patterns |
    | `Rectifier()` | `-1/2 sum_m relu(<xi_m, g_i>)^2` | rectified quadratic separation |

    The force is `xi^T grad Λ(xi g)`: the patterns, weighted by the activations of the memory neurons.

    **Arguments:**

    - `dim`: hidden width `D`.
    - `memories`: number `M` of stored patterns; default `2 D`.
    - `neurons`: the separation function as a Lagrangian; `Softmax()` by default. Its parameters are learnable leaves.
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive.

    **Source:** Krotov & Hopfield 2016, 2021 (arXiv 1606.01164, 2008.06996); Demircigil et al. 2017; Ramsauer et al.
    2021 (arXiv 2008.02217); in a transformer block, Hoover et al. 2023 (arXiv 2302.07253).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{krotov2021large,
          title={Large Associative Memory Problem in Neurobiology and Machine Learning},
          author={Krotov, Dmitry and Hopfield, John J.},
          booktitle={International Conference on Learning Representations},
          year={2021}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.energy.DenseMemory(8, memories=16, neurons=ed.energy.Rectifier(), key=jax.random.key(0))
    assert memory(jnp.ones((5, 8))) <= 0.0
    ```
    """

    patterns: Float[Array, "M D"]
    neurons: AbstractNeurons

    def __init__(self, dim: int, *, memories: int | None = None, neurons: AbstractNeurons | None = None, key: Key):
        memories = 2 * dim if memories is None else memories
        sizes(dim=dim, memories=memories)
        self.patterns = dim**-0.5 * jax.random.normal(key, (memories, dim))
        self.neurons = Softmax() if neurons is None else neurons

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """`-Λ(xi g_i)`, `(L,)`."""
        return valid(-jax.vmap(self.neurons.lagrangian)(g @ self.patterns.T), mask)

    def per_memory(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, "L M"]:
        """The energy in proportion to the size of the activations, `(L, M)`; 0 where all of them are 0."""
        recalled = jnp.abs(self.activity(g)[0])  # those of some neurons add up to 0
        total = jnp.sum(recalled, axis=-1, keepdims=True)
        return recalled / jnp.where(total == 0, 1.0, total) * self.per_token(g, mask)[:, None]

    def by_memory(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> Float[Array, "L M"]:
        """The message of pattern `m` to token `i` along `u_i`, `(L, M)`."""
        return self.activity(g)[0] * (u @ self.patterns.T)

    def activity(self, g: Float[Array, "L D"]) -> tuple[Float[Array, "L M"], Float[Array, "M D"]]:
        """`grad Λ(xi g_i) (L, M)`, and the patterns `xi (M, D)`."""
        return jax.vmap(self.neurons.activation)(g @ self.patterns.T), self.patterns

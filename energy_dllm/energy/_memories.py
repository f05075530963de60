"""Associative memories: synapses that act on every token by what is stored in them.

Like every synapse a memory is one scalar of `g (L, D)`, given token by token; stored patterns are leaves.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import sizes
from .._types import Key, Scalar
from ._synapses import AbstractSynapse, valid


class MappingMemory(AbstractSynapse):
    """A memory that maps one pattern to another: `E = -sum_i <g_i, W_2 gelu(W_1 g_i + w)>`.

    Its force `W_2 gelu(W_1 g) + W_1^T [gelu'(W_1 g) * W_2^T g]` can point away from `g`: unlike
    `RectifiedMemory` it does not only amplify what is already there.

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
        hidden = jax.nn.gelu(g @ self.cues.T + self.threshold)
        return valid(-jnp.sum(hidden * (g @ self.answers.T), axis=-1), mask)


class ConvolutionalMemory(AbstractSynapse):
    """A mapping memory whose cue is a neighbourhood: `E = -sum_i <g_i, sum_n W_n h_ni>`, several layers deep.

    `h_ni = gelu(sum_o C_no z_(n-1)(i+o) + w_n)`, offsets `o = -reach .. reach`, and `z_n = z_(n-1) + B_n h_n` from
    `z_0 = A g`. `A` shows each neighbour to the memories in `rank` numbers. A stored pair answers to what stands around
    a token, several neighbours at once and each in its place, where a pairwise synapse knows them one by one; `B`
    shows to the next layer what was recalled around each neighbour, so that it answers to letters and to words. The
    force runs both ways: what is recalled speaks to the token, and the token back to the neighbours that recalled it.

    **Arguments:**

    - `dim`: hidden width `D`.
    - `memories`: number `M` of stored pairs in each layer (a row of every `C_no`, a column of `W_n`); default `D`.
    - `depth`: layers, `n = 1 .. depth`.
    - `reach`: neighbours on each side that are part of the cue.
    - `rank`: numbers `R` a memory sees of each of them; default `D / 8`.
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
        # near neighbours count for more at first
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
            # padding is as silent as what lies beyond the ends, in every layer
            padded = jnp.pad(z if mask is None else jnp.where(mask[:, None], z, 0.0), ((reach, reach), (0, 0)))
            window = jnp.concatenate([padded[o : o + length] for o in range(2 * reach + 1)], axis=-1)
            hidden.append(jax.nn.gelu(window @ cues.T + threshold))
            if n < len(self.onward):
                z = z + hidden[-1] @ self.onward[n].T
        return jnp.concatenate(hidden, axis=-1)

    def per_memory(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, "L pairs"]:
        """`-h_nim <g_i, W_nm>`, the energy of each token stored pair by stored pair, `(L, N M)`."""
        energy = -self.recalled(g, mask) * (g @ self.answers.reshape(-1, g.shape[1]).T)
        return energy if mask is None else jnp.where(mask[:, None], energy, 0.0)

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """`-<g_i, sum_n W_n h_ni>`, `(L,)`."""
        return jnp.sum(self.per_memory(g, mask), axis=-1)


class RectifiedMemory(AbstractSynapse):
    """Dense associative memory of rectified-quadratic kind: `E = -1/2 sum_i sum_m relu(<xi_m, g_i>)^2`.

    **Arguments:**

    - `dim`: hidden width `D`.
    - `memories`: number `M` of stored patterns; default `2 D`.
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive.

    **Source:** Krotov & Hopfield 2016 (arXiv 1606.01164); Hoover et al. 2023 (arXiv 2302.07253).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.energy.RectifiedMemory(8, memories=16, key=jax.random.key(0))
    assert memory(jnp.ones((5, 8))) <= 0.0
    ```
    """

    patterns: Float[Array, "M D"]

    def __init__(self, dim: int, *, memories: int | None = None, key: Key):
        memories = 2 * dim if memories is None else memories
        sizes(dim=dim, memories=memories)
        self.patterns = 0.5 * dim**-0.5 * jax.random.normal(key, (memories, dim))

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """`-1/2 sum_m relu(<xi_m, g_i>)^2`, `(L,)`."""
        return valid(-0.5 * jnp.sum(jax.nn.relu(g @ self.patterns.T) ** 2, axis=-1), mask)


class SoftmaxMemory(AbstractSynapse):
    """Dense associative memory of exponential kind: `E = -1/beta sum_i log sum_m exp(beta <xi_m, g_i>)`.

    **Arguments:**

    - `dim`: hidden width `D`.
    - `memories`: number `M` of stored patterns; default `2 D`.
    - `beta`: inverse temperature, positive; a learnable leaf with its true gradient.
    - `key`: random key.

    **Raises:** `ValueError` if a size or `beta` is not positive.

    **Source:** Demircigil et al. 2017; Ramsauer et al. 2021 (arXiv 2008.02217).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.energy.SoftmaxMemory(8, memories=16, key=jax.random.key(0))
    assert memory(jnp.ones((5, 8))).shape == ()
    ```
    """

    patterns: Float[Array, "M D"]
    log_beta: Scalar

    def __init__(self, dim: int, *, memories: int | None = None, beta: float = 1.0, key: Key):
        memories = 2 * dim if memories is None else memories
        sizes(dim=dim, memories=memories)
        if not beta > 0:
            raise ValueError(f"`beta` is {beta}; expected a positive inverse temperature.")
        self.patterns = jax.random.normal(key, (memories, dim))
        self.log_beta = jnp.log(jnp.asarray(beta, jnp.result_type(float)))

    def per_token(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> Float[Array, " L"]:
        """`-1/beta log sum_m exp(beta <xi_m, g_i>)`, `(L,)`."""
        beta = jnp.exp(self.log_beta)
        return valid(-jax.nn.logsumexp(beta * (g @ self.patterns.T), axis=-1) / beta, mask)

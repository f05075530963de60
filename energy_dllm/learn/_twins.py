"""Twins: baseline transformers that every energy network is trained beside.

Same number of parameters, same windows in the same order, same number of training tokens; only the architecture
differs. All of them implement `log_posterior(ids, known)`, as the energy model does, so that one `evaluate` serves all.
Pre-norm blocks, GELU, and the same learned relative bias per head and offset as the energy's attention.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import einsum
from jaxtyping import Array, Bool, Float, Int

from .._checks import sizes
from .._types import Key
from ._objective import AbstractObjective
from ._twin_objectives import Masking, NextToken


class AbstractTwin(eqx.Module):
    """A transformer that predicts tokens."""

    size: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def objective(self) -> AbstractObjective:
        """What it is trained on: `fit(twin, corpus, twin.objective, steps=...)`."""

    @abc.abstractmethod
    def log_posterior(self, ids: Int[Array, " L"], known: Bool[Array, " L"]) -> Float[Array, "L V"]:
        """`log p(token_i = w | known tokens) (L, V)`; `ids` where `known` is false are ignored."""


class _Block(eqx.Module):
    """`z + convolution(norm z)` if it has one, `z + attention(norm z)`, then `z + mlp(norm z)`, on one sequence."""

    qkv: Float[Array, "3 H K D"]
    out: Float[Array, "H K D"]
    up: Float[Array, "M D"]
    up_bias: Float[Array, " M"]
    down: Float[Array, "M D"]
    down_bias: Float[Array, " D"]
    bias: Float[Array, "H offsets"]
    gain1: Float[Array, " D"]
    gain2: Float[Array, " D"]
    local: Float[Array, "near D"] | None

    def __init__(self, dim: int, heads: int, hidden: int, reach: int, depth: int, local: int, key: Key):
        k1, k2, k3, k4 = jax.random.split(key, 4)
        head_dim = dim // heads
        residual = (2 * depth) ** -0.5
        self.qkv = dim**-0.5 * jax.random.normal(k1, (3, heads, head_dim, dim))
        self.out = residual * dim**-0.5 * jax.random.normal(k2, (heads, head_dim, dim))
        self.up = dim**-0.5 * jax.random.normal(k3, (hidden, dim))
        self.up_bias = jnp.zeros(hidden)
        self.down = residual * hidden**-0.5 * jax.random.normal(k4, (hidden, dim))
        self.down_bias = jnp.zeros(dim)
        distance = jnp.abs(jnp.arange(-reach, reach + 1))
        self.bias = -(2.0 ** -jnp.arange(heads, dtype=float))[:, None] * distance
        self.gain1 = jnp.ones(dim)
        self.gain2 = jnp.ones(dim)
        near = jax.random.normal(jax.random.fold_in(key, 0), (2 * local + 1, dim))
        self.local = residual * (2 * local + 1) ** -0.5 * near if local else None

    def __call__(self, z: Float[Array, "L D"], allowed: Bool[Array, "L L"]) -> Float[Array, "L D"]:
        length = z.shape[0]
        if self.local is not None:
            reach = self.local.shape[0] // 2
            beside = jnp.pad(_norm(z), ((reach, reach), (0, 0)))
            z = z + sum(beside[o : o + length] * weight for o, weight in enumerate(self.local))
        q, k, v = einsum(_norm(z) * self.gain1, self.qkv, "l d, n h k d -> n h l k")
        reach = self.bias.shape[1] // 2
        place = jnp.arange(length)
        offset = jnp.clip(place[None, :] - place[:, None], -reach, reach) + reach
        score = q.shape[-1] ** -0.5 * einsum(q, k, "h i k, h j k -> h i j") + self.bias[:, offset]
        weight = jax.nn.softmax(jnp.where(allowed, score, -jnp.inf), axis=-1)
        z = z + einsum(weight, v, self.out, "h i j, h j k, h k d -> i d")
        hidden = jax.nn.gelu((_norm(z) * self.gain2) @ self.up.T + self.up_bias)
        return z + hidden @ self.down + self.down_bias

    def follow(
        self, z: Float[Array, " D"], place: Int[Array, ""], seen: tuple[Float[Array, "H L K"], Float[Array, "H L K"]]
    ) -> tuple[Float[Array, " D"], tuple[Float[Array, "H L K"], Float[Array, "H L K"]]]:
        """One token more, with the keys and values of those before it kept: as `__call__` without looking ahead."""
        q, k, v = einsum(_norm(z) * self.gain1, self.qkv, "d, n h k d -> n h k")
        keys, values = (old.at[:, place].set(new) for old, new in zip(seen, (k, v), strict=True))
        reach = self.bias.shape[1] // 2
        ahead = jnp.arange(keys.shape[1]) - place
        score = q.shape[-1] ** -0.5 * einsum(q, keys, "h k, h j k -> h j")
        score = score + self.bias[:, jnp.clip(ahead, -reach, reach) + reach]
        weight = jax.nn.softmax(jnp.where(ahead <= 0, score, -jnp.inf), axis=-1)
        z = z + einsum(weight, values, self.out, "h j, h j k, h k d -> d")
        hidden = jax.nn.gelu((_norm(z) * self.gain2) @ self.up.T + self.up_bias)
        return z + hidden @ self.down + self.down_bias, (keys, values)


class Trunk(eqx.Module):
    """Embedding, of tokens and of `places` in a layout, blocks, and an untied read-out; `repeats` applies the blocks
    again with the same weights."""

    embedding: Float[Array, "W D"]
    blocks: list[_Block]
    readout: Float[Array, "V D"]
    readout_bias: Float[Array, " V"]
    repeats: int = eqx.field(static=True)
    background: Float[Array, "L D"] | None = None

    def __init__(self, inputs, outputs, dim, depth, heads, hidden, reach, repeats, local, key, places=0):
        sizes(dim=dim, depth=depth, heads=heads, hidden=hidden, repeats=repeats)
        if dim % heads:
            raise ValueError(f"`dim` is {dim}, which `heads`={heads} does not divide; choose a multiple.")
        k1, k2, *keys = jax.random.split(key, 2 + depth)
        self.embedding = jax.random.normal(k1, (inputs, dim))
        self.blocks = [_Block(dim, heads, hidden, reach, depth * repeats, local, k) for k in keys]
        self.readout = 0.1 * dim**-0.5 * jax.random.normal(k2, (outputs, dim))
        self.readout_bias = jnp.zeros(outputs)
        self.repeats = repeats
        self.background = jax.random.normal(jax.random.fold_in(key, 0), (places, dim)) if places else None

    def __call__(self, ids: Int[Array, " L"], allowed: Bool[Array, "L L"]) -> Float[Array, "L V"]:
        return jax.nn.log_softmax(self.logits(self.embedded(ids, jnp.arange(ids.shape[0])), allowed), axis=-1)

    def embedded(self, ids: Int[Array, "*L"], place: Int[Array, "*L"]) -> Float[Array, "*L D"]:
        """Tokens as vectors, each with that of its place where places have one."""
        z = self.embedding[ids]
        return z if self.background is None else z + self.background[place]

    def logits(self, z: Float[Array, "L D"], allowed: Bool[Array, "L L"]) -> Float[Array, "L V"]:
        """What the blocks make of embedded tokens, not normalised."""
        for _ in range(self.repeats):
            for block in self.blocks:
                z = block(z, allowed)
        return _norm(z) @ self.readout.T + self.readout_bias


class MaskedDiffusion(AbstractTwin):
    """Masked-diffusion transformer: sees the known tokens, a mask symbol elsewhere, predicts every token.

    **Arguments:**

    - `size`: vocabulary `V`.
    - `dim`, `depth`, `heads`, `hidden`, `reach`: width, blocks, heads, width of the MLP (default `4 dim`), and the
      offset beyond which all distances share a bias.
    - `local`: neighbours on each side that a depthwise convolution at the head of every block sees; 0 for none.
    - `repeats`: how often all blocks are applied. With `depth=1` it is the weight-tied transformer: the energy model
      without an energy.
    - `places`: tokens of a layout, each of whose places has a vector of its own; 0 for text of any length.
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive, `local` is negative or `heads` does not divide `dim`.

    **Source:** Sahoo et al. 2024, MDLM (arXiv 2406.07524); Shi et al. 2024, MD4 (arXiv 2406.04329); tied weights,
    Dehghani et al. 2019 (arXiv 1807.03819).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{sahoo2024simple,
          title={Simple and Effective Masked Diffusion Language Models},
          author={Sahoo, Subham Sekhar and Arriola, Marianne and Schiff, Yair and Gokaslan, Aaron and Marroquin,
            Edgar and Chiu, Justin T. and Rush, Alexander and Kuleshov, Volodymyr},
          booktitle={Advances in Neural Information Processing Systems},
          year={2024}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    twin = ed.learn.MaskedDiffusion(5, dim=8, depth=1, heads=2, key=jax.random.key(0))
    assert twin.log_posterior(jnp.zeros(6, int), jnp.zeros(6, bool)).shape == (6, 5)
    ```
    """

    trunk: Trunk
    size: int = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        *,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        hidden: int | None = None,
        reach: int = 64,
        local: int = 0,
        repeats: int = 1,
        places: int = 0,
        key: Key,
    ):
        if local < 0:
            raise ValueError(f"`local` is {local}; expected 0 (no convolution) or more neighbours.")
        self.size = size
        self.trunk = Trunk(size + 1, size, dim, depth, heads, hidden or 4 * dim, reach, repeats, local, key, places)

    @property
    def objective(self) -> AbstractObjective:
        """Cross-entropy of masked tokens at a uniformly drawn rate, nats a token: the masks of `Denoising`."""
        return Masking()

    def log_posterior(self, ids: Int[Array, " L"], known: Bool[Array, " L"]) -> Float[Array, "L V"]:
        """`log p(token_i = w | known tokens) (L, V)`."""
        length = ids.shape[0]
        return self.trunk(jnp.where(known, ids, self.size), jnp.ones((length, length), bool))


class Autoregressive(AbstractTwin):
    """Autoregressive transformer: `p(token_i | tokens before i)`, the first from a start symbol.

    Same arguments as `MaskedDiffusion`. `log_posterior` conditions on all earlier tokens, for any `known`:
    it is for likelihoods, left to right.

    **Raises:** `ValueError` if a size is not positive or `heads` does not divide `dim`.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    twin = ed.learn.Autoregressive(5, dim=8, depth=1, heads=2, key=jax.random.key(0))
    ids = jnp.array([0, 1, 2, 3])
    later = twin.log_posterior(ids.at[3].set(4), jnp.ones(4, bool))
    assert jnp.allclose(later, twin.log_posterior(ids, jnp.ones(4, bool)))  # no token sees itself or the future
    ```
    """

    trunk: Trunk
    size: int = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        *,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        hidden: int | None = None,
        reach: int = 64,
        places: int = 0,
        key: Key,
    ):
        self.size = size
        self.trunk = Trunk(size + 1, size, dim, depth, heads, hidden or 4 * dim, reach, 1, 0, key, places)

    @property
    def objective(self) -> AbstractObjective:
        """Cross-entropy of every token given those before it, nats a token."""
        return NextToken()

    def log_posterior(self, ids: Int[Array, " L"], known: Bool[Array, " L"]) -> Float[Array, "L V"]:
        """`log p(token_i = w | tokens 1 .. i-1) (L, V)`."""
        length = ids.shape[0]
        shifted = jnp.concatenate([jnp.array([self.size], ids.dtype), ids[:-1]])
        return self.trunk(shifted, jnp.tril(jnp.ones((length, length), bool)))

    def sample(
        self, length: int, *, prompt: Int[Array, " n"] | None = None, temperature: float = 1.0, key: Key
    ) -> tuple[Int[Array, " L"], Float[Array, "L V"]]:
        """A passage, token after token in one loop that keeps keys and values, and `log p(token_i = w | before)`.

        It begins with the `prompt`; `temperature` is that of the draws, 0 for the likeliest token.
        """
        if length < 1 or not temperature >= 0:
            raise ValueError(f"`length`={length} must be positive and `temperature`={temperature} not negative.")
        if prompt is not None and prompt.shape[0] > length:
            raise ValueError(f"`prompt` has {prompt.shape[0]} tokens; expected at most the `length`, {length}.")

        def step(state, now):
            last, seen = state
            place, given, noise = now
            z, after = self.trunk.embedded(last, place), []
            for block, old in zip(self.trunk.blocks, seen, strict=True):
                z, new = block.follow(z, place, old)
                after.append(new)
            log_p = jax.nn.log_softmax(_norm(z) @ self.trunk.readout.T + self.trunk.readout_bias)
            drawn = jnp.where(given < 0, jnp.argmax(log_p + temperature * noise), given).astype(last.dtype)
            return (drawn, after), (drawn, log_p)

        heads, width = self.trunk.blocks[0].out.shape[:2]
        empty = jnp.zeros((heads, length, width), self.trunk.embedding.dtype)
        start = jnp.asarray(self.size, jnp.int32), [(empty, empty) for _ in self.trunk.blocks]
        given = jnp.full(length, -1) if prompt is None else jnp.full(length, -1).at[: prompt.shape[0]].set(prompt)
        # of all draws at once: within the loop it takes as long as a block
        noise = jax.vmap(lambda key: jax.random.gumbel(key, (self.size,)))(jax.random.split(key, length))
        return jax.lax.scan(step, start, (jnp.arange(length), given, noise))[1]


def _norm(z: Float[Array, "*L D"]) -> Float[Array, "*L D"]:
    return (z - jnp.mean(z, axis=-1, keepdims=True)) * jax.lax.rsqrt(jnp.var(z, axis=-1, keepdims=True) + 1e-5)

"""The deep energy: untied blocks of attention and key-value memory, read out as one scalar."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import sizes
from .._types import Key
from ._layered import AbstractLayered
from ._layers import AbstractLayer, Allowed, AttentionLayer, ConvolutionLayer, MemoryLayer, Past, Prefix, Readable
from ._layout import Grids, laid, tokens
from ._synapses import by_token, valid


Kept = PyTree[Float[Array, "... S _"]]
"""What is kept of tokens that were written, keys and values of every layer: tokens in the last axis but one."""


LONG = 1024
"""Tokens beyond which a passage of text is read in chunks, with memory linear in its length."""


class DeepStack(AbstractLayered):
    """The deep correlation energy: `N` untied blocks, read out as `E = -sum_i <r_i, sum_k Delta_k,i>`.

    The activation has two halves, `g_i = (z_i, r_i)`, each of width `W = D / 2`: `z_i` is what other tokens read of
    token `i`, `r_i` what is compared with what the blocks read at `i`. The residual stream starts at `z + z_0` (`z_0`
    a learned background, all there is of an unknown token) and every layer adds to it,

    `z^(k+1) = z^(k) + Delta_k,   Delta_k = layer_k(norm z^(k))`,

    a block being an attention, a depthwise convolution (optional) and a key-value memory. `E` is a sum over layers,
    their heads, memories and offsets, and tokens: `terms` has it by layer, `parts` by head, memory and offset. With
    `r` the pattern of a candidate token, `-<r, sum_k Delta_k>` is its energy in the context that was read: as a
    transformer's read-out, but a scalar, whose force also tells a token what those who read it would have it be.

    **Arguments:**

    - `dim`: width of the activation `D`, even; `W = D / 2`.
    - `depth`: blocks `N`.
    - `heads`: heads of every attention; a divisor of `W`.
    - `memories`: stored pairs of every memory, default `4 W`.
    - `convolution`: neighbours on each side that the convolution reads; 0 for none.
    - `reach`: offsets beyond it share one attention bias a side.
    - `rotary`: turn queries and keys by rotary phases as well; `W / heads` must then be even.
    - `grids`: rows and columns of each grid of a layout, such as `((1, 5), (7, 7))` for a picture under a caption of
      five letters (`data.Patches.grids`); offsets then are rows and columns, and every place has a background of its
      own. None, the default, is text of any length.
    - `block`: tokens of a block; a token reads its own block and all before it. 0, the default, is the whole passage.
    - `shift`: compare token `i` with what is read at token `i - 1`, which does not read token `i` then: `E = -sum_i
      <r_i, sum_k Delta_k,i-1>`. Before the first token stands a learned start. Read from left to right (`block=1`) a
      token takes one row of work in place of two, as in an autoregressive transformer; `block` is then 0 or 1.
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive, `dim` is odd, `heads` does not divide `dim / 2`, there are
    rotary phases, blocks or a shift in a layout of grids, or blocks of more than one token with a shift.

    **Source:** the layers, Vaswani et al. 2017 (arXiv 1706.03762); one tied block as an energy, Hoover et al. 2023
    (arXiv 2302.07253); tied and untied depth compared, NRGPT (arXiv 2512.16762); a shifted read-out in a masked
    diffusion model, Gong et al. 2024 (arXiv 2410.17891).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{vaswani2017attention,
          title={Attention Is All You Need},
          author={Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion and Gomez,
            Aidan N. and Kaiser, {\\L}ukasz and Polosukhin, Illia},
          booktitle={Advances in Neural Information Processing Systems},
          year={2017}
        }
        @inproceedings{gong2025scaling,
          title={Scaling Diffusion Language Models via Adaptation from Autoregressive Models},
          author={Gong, Shansan and Agarwal, Shivam and Zhang, Yizhe and Ye, Jiacheng and Zheng, Lin and others},
          booktitle={International Conference on Learning Representations},
          year={2025}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    stack = ed.energy.DeepStack(16, depth=2, heads=2, key=jax.random.key(0))
    g = jnp.ones((5, 16))
    assert set(stack.terms(g)) == {"attention 1", "memory 1", "attention 2", "memory 2"}
    assert jnp.allclose(stack(g), sum(part.sum() for part in stack.parts(g).values()), rtol=1e-5)
    ```
    """

    blocks: tuple[dict[str, AbstractLayer], ...]
    background: Float[Array, "*L W"]
    block: int = eqx.field(static=True, default=0)
    prefix: Prefix | None = None
    start: Float[Array, " W"] | None = None
    held: Float[Array, "L+1 W"] | None = None

    def __init__(
        self,
        dim: int,
        *,
        depth: int = 2,
        heads: int = 4,
        memories: int | None = None,
        convolution: int = 0,
        reach: int = 64,
        rotary: bool = False,
        grids: Grids = (),
        block: int = 0,
        shift: bool = False,
        key: Key,
    ):
        width = dim // 2
        memories = 4 * width if memories is None else memories
        sizes(dim=dim, depth=depth, heads=heads, memories=memories, reach=reach)
        if dim % 2:
            raise ValueError(f"`dim` is {dim}; expected an even number, half of it read and half of it compared.")
        if width % heads:
            raise ValueError(f"`heads` is {heads}, which does not divide `dim` / 2 = {width}; choose a divisor.")
        if rotary and width // heads % 2:
            raise ValueError(f"`heads` of width {width // heads} with rotary=True; expected an even width of a head.")
        if rotary and grids:
            raise ValueError("`rotary` is True with `grids`; phases are of one dimension: leave one of them out.")
        if shift and grids:
            raise ValueError("`shift` is True with `grids`; in a picture no place is the one before: leave one out.")
        if convolution < 0:
            raise ValueError(f"`convolution` is {convolution}; expected 0 (none) or more neighbours a side.")
        scale = (2 * depth) ** -0.5  # the stream grows to the same size whatever the depth
        blocks = []
        for n in range(depth):
            k1, k2, k3 = jax.random.split(jax.random.fold_in(key, n), 3)
            # in alphabetical order, in which jax keeps the keys of a dict whenever a module is mapped or compiled
            layers: dict[str, AbstractLayer] = {}
            layers["attention"] = AttentionLayer(
                width, heads=heads, reach=reach, rotary=rotary, scale=scale, grids=grids, key=k2
            )
            if convolution:
                layers["convolution"] = ConvolutionLayer(width, reach=convolution, scale=scale, grids=grids, key=k1)
            layers["memory"] = MemoryLayer(width, memories=memories, scale=scale, key=k3)
            blocks.append(layers)
        self.blocks = tuple(blocks)
        places = (tokens(grids), width) if grids else (width,)
        self.background = jax.random.normal(jax.random.fold_in(key, depth), places)
        self.block, self.prefix, self.held = block, None, None
        self.start = jax.random.normal(jax.random.fold_in(key, depth + 1), (width,)) if shift else None
        self._check_block(block)

    @property
    def shift(self) -> int:
        """By how many places the read-out is shifted, 0 or 1."""
        return 0 if self.start is None else 1

    def terms(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> dict[str, Float[Array, " L"]]:
        """`-<r_i, Delta_k,i>` of every layer by name, `attention 1` that of the first block; shifted `Delta_k,i-1`."""
        r = self._compared(g)
        energy = lambda delta: -jnp.sum(r * delta, axis=-1)[: len(g)]
        return {name: valid(energy(delta), mask) for name, *_, delta in self._layers(g, mask)}

    def parts(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> dict[str, Float[Array, "P L"]]:
        """Every layer's energy split into its heads, memories or offsets, each token by token."""
        r = self._compared(g)
        every = ((name, layer.parts(z, *reads, r)) for name, layer, z, reads, _ in self._layers(g, mask))
        return {name: jax.vmap(lambda part: valid(-part[: len(g)], mask))(parts) for name, parts in every}

    def added(self, g: Float[Array, "L D"]) -> Float[Array, "L W"]:
        """`sum_k Delta_k (L, W)`, all that the layers add: minus the slope of `E` in what a token that nobody reads is
        compared with, in one pass."""
        return sum((delta[: len(g)] for *_, delta in self._layers(g, None)), jnp.zeros_like(g[:, g.shape[1] // 2 :]))

    def kept(self, g: Float[Array, "L D"]) -> Kept:
        """All that later tokens read of these, keys and values, block by block and layer by layer; tokens in the last
        axis but one of every array."""
        return self._kept(g, None)

    def _kept(self, g, among):
        found: tuple[dict[str, PyTree], ...] = tuple({} for _ in self.blocks)
        for name, layer, z, *_ in self._layers(g, None, among):
            kind, n = name.split()
            found[int(n) - 1][kind] = layer.keep(z)
        if self.shift:
            found[0]["stream"] = self._stream(g)
        return found

    def unwritten(self, length: int) -> Kept:
        """`kept` of a passage of `length` tokens before the first of them is known."""
        g = jnp.zeros((length, 2 * self.background.shape[-1]), self.background.dtype)
        none = jax.tree.map(lambda rows: jnp.zeros(rows.shape, rows.dtype), jax.eval_shape(self.kept, g))
        return self.extend(g[:1], none, -1)[1] if self.shift else none

    def extend(
        self, g: Float[Array, "L D"], kept: Kept, start: Int[Array, ""] | int
    ) -> tuple[Float[Array, "L W"], Kept]:
        """`sum_k Delta_k (L, W)` of the tokens that stand from place `start` on, and `kept` with what is kept of them:
        one pass, with no way back. What is kept before that place is read, behind it not looked at."""
        length, there = g.shape[0], jnp.arange(kept[0]["attention"][0].shape[-2])
        start = start + self.shift  # of rows, the first of which holds the start
        place = start + np.arange(length)
        # all is read where it is kept, the tokens themselves too, so that nothing need be joined
        number = lambda place: place // self.block if self.block else jnp.zeros_like(place)
        allowed = (there < start + length) & (number(there) <= number(place)[:, None])
        put = lambda rows, new: jax.lax.dynamic_update_slice_in_dim(rows, new.astype(rows.dtype), start, axis=-2)
        stream = g[:, : self.background.shape[-1]] + self.background
        found: tuple[dict[str, PyTree], ...] = tuple({} for _ in self.blocks)
        if self.start is not None:
            allowed = allowed & (there != place[:, None] + 1)
            stream = jnp.where((place == 0)[:, None], self.start, stream)
            found[0]["stream"] = put(kept[0]["stream"], stream)
        first = stream
        for n, block in enumerate(self.blocks):
            for kind, layer in block.items():
                z = _norm(stream)
                found[n][kind] = jax.tree.map(put, kept[n][kind], layer.keep(z))
                stream = stream + layer.read(z, None, Past(found[n][kind], allowed, start))
        return stream - first, found

    def heads(self, g: Float[Array, "L D"]) -> dict[str, tuple[Float[Array, "H L"], Float[Array, "H L reads"]]]:
        """Those of every attention, by layer."""
        r, found = self._compared(g), {}
        for name, layer, z, reads, _ in self._layers(g, None):
            if isinstance(layer, AttentionLayer):
                found[name] = -layer.parts(z, *reads, r)[:, : len(g)], layer.pattern(z, *reads)[:, : len(g)]
        return found

    def memories(self, g: Float[Array, "L D"]) -> dict[str, tuple[Array, Array, Array]]:
        """Those of every key-value memory, by layer; values count where they are compared, in the second half."""
        r, found = self._compared(g), {}
        for name, layer, z, reads, _ in self._layers(g, None):
            if isinstance(layer, MemoryLayer):
                energy, (active, values) = -layer.parts(z, *reads, r).T[: len(g)], layer.recalled(z[: len(g)])
                found[name] = energy, active, jnp.pad(values, ((0, 0), (g.shape[1] // 2, 0)))
        return found

    def by_neighbour(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> dict[str, Float[Array, "L L"]]:
        """Layer by layer, what token `i` reads of token `j` (`AbstractLayer.sources`), and how the energy of token `j`
        depends on what it reads of token `i`."""
        read = g.shape[1] // 2
        messages = by_token(self.terms, g, u.at[:, read:].set(0.0))
        for name, layer, z, reads, _ in self._layers(g, None):
            found = layer.sources(z, *reads, self._compared(u))
            if self.shift:  # row `i` is read for token `i`; what it holds is the token before, or the start
                found, own = found[:-1, 1:], found[:-1, 0]
                if isinstance(layer, MemoryLayer):
                    found, own = jnp.zeros_like(found), own + jnp.sum(found, axis=1)
                found = found + jnp.diag(own)
            messages[name] = messages[name] + found
        return messages

    def after(self, kept: Kept, count: Int[Array, ""] | int, length: int) -> "DeepStack":
        """The stack of the `length` tokens that follow the first `count` of those of which `kept` is kept: they read
        what is kept, and their own block."""
        place, before = jnp.arange(length + self.shift), jnp.arange(kept[0]["attention"][0].shape[-2])
        allowed = jnp.broadcast_to(before < count, (place.shape[0], before.shape[0]))
        last = jax.lax.dynamic_index_in_dim(kept[0]["stream"], count, keepdims=False) if self.shift else None
        return self._changed(prefix=Prefix(kept, allowed, count, start=last))

    def side_by_side(self, g: Float[Array, "L D"], block: Int[Array, ""] | int) -> "DeepStack":
        """The stack of all blocks of `block` tokens at once: each reads its own tokens, and those before it with the
        activations `g (L, D)`. `ValueError` for a layout of grids or rotary phases, or blocks that a shift has not."""
        self._check_block(block if isinstance(block, int) else 1)
        if self.shift:  # blocks of one: what is read for a token is of those before it alone
            return self._changed(block=1, held=self._stream(g))
        place = np.arange(g.shape[0])
        number = jnp.asarray(place) // block
        before, among = number[None, :] < number[:, None], number[None, :] == number[:, None]
        kept = self._kept(g, before | among)
        return self._changed(prefix=Prefix(kept, before, 0, among))

    def in_blocks(self, block: int) -> "DeepStack":
        """The same layers, a token reading its own block and all before it; 0 for the whole passage."""
        self._check_block(block)
        return self._changed(block=block)

    def _check_block(self, block: int) -> None:
        attention: Any = self.blocks[0]["attention"]
        if block < 0 or (block and (attention.grids or attention.rotary)):
            raise ValueError(
                f"`block` is {block}; expected tokens of a block, of text whose attention has no rotary phases, or 0."
            )
        if self.shift and block > 1:
            raise ValueError(f"`block` is {block} and the read-out is shifted; expected 0, the whole passage, or 1.")

    def _changed(self, **values: Any) -> "DeepStack":
        other = object.__new__(DeepStack)
        for name in ("blocks", "background", "block", "prefix", "start", "held"):
            object.__setattr__(other, name, values.get(name, getattr(self, name)))
        return other

    def _compared(self, g):
        """What every row is compared with, nothing at the last one where the read-out is shifted."""
        return jnp.pad(g[:, self.background.shape[-1] :], ((0, self.shift), (0, 0)))

    def _stream(self, g):
        """The residual stream that every row begins with: that of its token, or with a shift of the one before."""
        if self.held is not None:
            return self.held
        stream = g[:, : self.background.shape[-1]] + self.background
        if self.start is None:
            return stream
        start = self.start if self.prefix is None or self.prefix.start is None else self.prefix.start
        return jnp.concatenate([start[None], stream])

    def _layers(
        self, g, mask, among=None
    ) -> Iterator[tuple[str, AbstractLayer, Array, tuple[Allowed, Past | None], Array]]:
        """Name, layer, the stream it reads, who may read whom and what is read before the passage, and what it adds; in
        order. Without `among (L, L)` a token may read its own block and all before it."""
        if self.background.ndim > 1:  # of a layout, before its places are added
            laid(self.blocks[0]["attention"].grids, len(g))  # pyright: ignore[reportAttributeAccessIssue]
        stream = self._stream(g)
        length = stream.shape[0]
        here = jnp.ones(length, bool) if mask is None else jnp.pad(mask, (self.shift, 0), constant_values=True)
        reads = here
        if self.start is not None and mask is not None:  # no row holds padding, but what is behind it has a row to read
            stream = jnp.where(here[:, None], stream, self.background)
            reads = here | jnp.pad(mask, (0, 1))
        among = self.prefix.among if among is None and self.prefix is not None else among
        number = np.arange(length) // (self.block or length)
        allowed: Allowed = Readable(here, reads, jnp.asarray(number), self.shift)
        if length <= LONG or among is not None or self.prefix is not None or self.background.ndim > 1:
            allowed = jnp.broadcast_to(here, (length, length)) & reads[:, None]
            if among is not None:
                allowed = allowed & among
            elif self.block:
                allowed = allowed & (number[None, :] <= number[:, None])
            if self.shift:
                allowed = allowed & ~np.eye(length, k=1, dtype=bool)
        for n, block in enumerate(self.blocks):
            for kind, layer in block.items():
                z, past = _norm(stream), None
                if self.prefix is not None:
                    past = Past(self.prefix.kept[n][kind], self.prefix.allowed & reads[:, None], self.prefix.place)
                with jax.named_scope(f"{kind} {n + 1}"):
                    # of a long passage the gradient makes what a layer computes again
                    read = eqx.filter_checkpoint(layer.read) if isinstance(allowed, Readable) else layer.read
                    delta = read(z, allowed, past)
                yield f"{kind} {n + 1}", layer, z, (allowed, past), delta
                stream = stream + delta


def _norm(z: Float[Array, "L W"]) -> Float[Array, "L W"]:
    return (z - jnp.mean(z, axis=-1, keepdims=True)) * jax.lax.rsqrt(jnp.var(z, axis=-1, keepdims=True) + 1e-5)

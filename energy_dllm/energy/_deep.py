"""The deep energy: untied blocks of attention and key-value memory, read out as one scalar."""

import abc
import math
from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from einops import einsum
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import sizes
from .._types import Key
from ._layered import AbstractLayered
from ._layout import Grids, flat, laid, near, relations, shifted, tokens
from ._synapses import by_token, rotate, valid


class Past(NamedTuple):
    """Tokens before a passage, as one layer reads them: what it `kept` of each of the `S` tokens, whether token `i` of
    the passage may read it, `allowed (L, S)`, and how far it stands from there, `offset (L, S)`, negative before it."""

    kept: PyTree[Float[Array, "S ..."]]
    allowed: Bool[Array, "L S"]
    offset: Int[Array, "L S"]


class Prefix(eqx.Module):
    """Tokens before a passage: what every layer `kept` of each, and `allowed`, `offset` as in `Past`; `among (L, L)`,
    where given, who may read whom in the passage itself."""

    kept: tuple[dict[str, PyTree], ...]
    allowed: Bool[Array, "L S"]
    offset: Int[Array, "L S"]
    among: Bool[Array, "L L"] | None = None


class AbstractLayer(eqx.Module):
    """One layer of a block: what it adds to the residual stream, as a sum of parts.

    To add a layer, write `read`, `parts` and `sources`, and `keep` if a token reads others. All are given the normalised
    stream `z (L, W)`, and `allowed (L, L)`, whether token `i` may read token `j`; `past` are tokens before the passage.
    """

    @abc.abstractmethod
    def read(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None = None
    ) -> Float[Array, "L W"]:
        """`Delta_i (L, W)`, what is added at every token."""

    @abc.abstractmethod
    def parts(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "parts L"]:
        """`<a_i, Delta_i>` split into heads, memories or offsets, `(parts, L)`; the sum over parts is all of it."""

    @abc.abstractmethod
    def sources(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "L L"]:
        """`<a_i, Delta_i>` split by the token `j` of the passage that was read, `(L, L)`; what was read before it is
        the token's own."""

    def keep(self, z: Float[Array, "L W"]) -> PyTree[Float[Array, "L ..."]]:
        """All that tokens after it read of every token; nothing by default."""
        return ()


class AttentionLayer(AbstractLayer):
    """Multi-head attention: `Delta_i = sum_h O_h sum_j A_hij V_h z_j`, `A_hij = softmax_j(<q_hi, k_hj>/sqrt(K) + r_h)`.

    `r_h(j - i)` is a learned bias per head and offset, which starts decaying with distance; `rotary` turns queries and
    keys by rotary phases as well. In a layout of grids `r_h` is a bias per head and offset in rows and columns.
    """

    gain: Float[Array, " W"]
    query: Float[Array, "H K W"]
    keys: Float[Array, "H K W"]
    values: Float[Array, "H K W"]
    out: Float[Array, "H K W"]
    bias: Float[Array, "H offsets"]
    rotary: bool = eqx.field(static=True)
    grids: Grids = eqx.field(static=True, default=())

    def __init__(self, width: int, *, heads: int, reach: int, rotary: bool, scale: float, grids: Grids = (), key: Key):
        k1, k2, k3, k4 = jax.random.split(key, 4)
        draw = lambda key: width**-0.5 * jax.random.normal(key, (heads, width // heads, width))
        self.gain = jnp.ones(width)
        self.query, self.keys, self.values, self.out = draw(k1), draw(k2), draw(k3), scale * draw(k4)
        distance = jnp.asarray(relations(grids or ((1, 1),), reach)[1])
        self.bias = -(2.0 ** -jnp.arange(heads, dtype=float))[:, None] * distance
        self.rotary, self.grids = rotary, grids

    def pattern(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None = None
    ) -> Float[Array, "H L S+L"]:
        """The attention pattern `A (H, L, S + L)`, the past first; the row of a token that may read nobody is 0."""
        reach = self.bias.shape[1] // 2
        q, k = (einsum(z * self.gain, to, "l d, h k d -> h l k") for to in (self.query, self.keys))
        if self.rotary:
            q, k = rotate(q), rotate(k)
        bias = self.bias[:, relations(laid(self.grids, z.shape[0]), reach)[0]]
        score = q.shape[-1] ** -0.5 * einsum(q, k, "h i k, h j k -> h i j") + bias
        if past is not None:
            before = self.bias[:, jnp.clip(past.offset, -reach, reach) + reach]
            before = q.shape[-1] ** -0.5 * einsum(q, past.kept[0], "h i k, j h k -> h i j") + before
            score = jnp.concatenate([before, score], axis=-1)
            allowed = jnp.concatenate([past.allowed, allowed], axis=-1)
        # finite, so that an empty row has finite derivatives
        return jnp.where(allowed, jax.nn.softmax(jnp.where(allowed, score, -1e30), axis=-1), 0.0)

    def keep(self, z: Float[Array, "L W"]) -> tuple[Float[Array, "L H K"], Float[Array, "L H K"]]:
        """Keys and values."""
        key, value = (einsum(z * self.gain, to, "l d, h k d -> l h k") for to in (self.keys, self.values))
        return key, value

    def _values(self, z, past):
        values = einsum(z * self.gain, self.values, "l d, h k d -> l h k")
        return values if past is None else jnp.concatenate([past.kept[1], values])

    def _heads(self, z, allowed, past):
        return einsum(self.pattern(z, allowed, past), self._values(z, past), "h i j, j h k -> h i k")

    def read(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None = None
    ) -> Float[Array, "L W"]:
        """`sum_h O_h sum_j A_hij V_h z_j (L, W)`."""
        return einsum(self._heads(z, allowed, past), self.out, "h i k, h k d -> i d")

    def parts(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "H L"]:
        """Head by head `(H, L)`."""
        return jnp.sum(self._heads(z, allowed, past) * einsum(a, self.out, "i d, h k d -> h i k"), axis=-1)

    def sources(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "L L"]:
        """`sum_h A_hij <a_i, O_h V_h z_j>`, the pattern as it is."""
        asked = einsum(a, self.out, "i d, h k d -> h i k")
        each = self.pattern(z, allowed, past) * einsum(asked, self._values(z, past), "h i k, j h k -> h i j")
        return within(jnp.sum(each, axis=0), z.shape[0])


class MemoryLayer(AbstractLayer):
    """Key-value memory: `Delta_i = sum_m gelu(<k_m, z_i> + theta_m) v_m`, `M` stored pairs.

    **Source:** Geva et al. 2021 (arXiv 2012.14913), the feed-forward layer of a transformer read as a memory.
    """

    gain: Float[Array, " W"]
    keys: Float[Array, "M W"]
    threshold: Float[Array, " M"]
    values: Float[Array, "M W"]

    def __init__(self, width: int, *, memories: int, scale: float, key: Key):
        k1, k2 = jax.random.split(key)
        self.gain = jnp.ones(width)
        self.keys = width**-0.5 * jax.random.normal(k1, (memories, width))
        self.threshold = jnp.zeros(memories)
        self.values = scale * memories**-0.5 * jax.random.normal(k2, (memories, width))

    def recalled(self, z: Float[Array, "L W"]) -> tuple[Float[Array, "L M"], Float[Array, "M W"]]:
        """`gelu(<k_m, z_i> + theta_m) (L, M)`, and `v_m (M, W)`."""
        return jax.nn.gelu((z * self.gain) @ self.keys.T + self.threshold), self.values

    def read(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None = None
    ) -> Float[Array, "L W"]:
        """`sum_m gelu(<k_m, z_i> + theta_m) v_m (L, W)`; no token reads another."""
        return self.recalled(z)[0] @ self.values

    def parts(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "M L"]:
        """Memory by memory `(M, L)`."""
        return (self.recalled(z)[0] * (a @ self.values.T)).T

    def sources(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "L L"]:
        """All of it from the token itself."""
        return jnp.diag(jnp.sum(a * self.read(z, allowed, past), axis=-1))


class ConvolutionLayer(AbstractLayer):
    """Depthwise convolution over the neighbours: `Delta_i = sum_o w_o * z_(i+o)`, offsets `-reach .. reach`; in a
    layout of grids over neighbours in rows and columns."""

    kernel: Float[Array, "offsets W"]
    grids: Grids = eqx.field(static=True, default=())

    def __init__(self, width: int, *, reach: int, scale: float, grids: Grids = (), key: Key):
        offsets = (2 * reach + 1) ** (1 if flat(grids) else 2)
        self.kernel = scale * offsets**-0.5 * jax.random.normal(key, (offsets, width))
        self.grids = grids

    def _layout(self, length):
        offsets = self.kernel.shape[0]
        return laid(self.grids, length), (offsets if flat(self.grids) else math.isqrt(offsets)) // 2

    def _neighbours(self, z, allowed, past=None):
        grids, reach = self._layout(z.shape[0])
        token = near(grids, reach)[1]
        may = jnp.take_along_axis(allowed, jnp.maximum(token, 0), axis=1) & (token >= 0)
        there = [there * may[:, o, None] for o, there in enumerate(shifted(z, grids, reach))]
        for o in range(0 if past is None else reach):  # those before
            there[o] += ((past.offset == o - reach) & past.allowed).astype(z.dtype) @ past.kept
        return [there * weight for there, weight in zip(there, self.kernel, strict=True)]

    def keep(self, z: Float[Array, "L W"]) -> Float[Array, "L W"]:
        """The stream itself."""
        return z

    def read(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None = None
    ) -> Float[Array, "L W"]:
        """`sum_o w_o * z_(i+o) (L, W)`."""
        return jnp.sum(jnp.stack(self._neighbours(z, allowed, past)), axis=0)

    def parts(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "offsets L"]:
        """Offset by offset `(offsets, L)`."""
        return jnp.stack([jnp.sum(there * a, axis=-1) for there in self._neighbours(z, allowed, past)])

    def sources(
        self, z: Float[Array, "L W"], allowed: Bool[Array, "L L"], past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "L L"]:
        """`<a_i, w_(j-i) * z_j>`, 0 beyond the reach."""
        offset = near(*self._layout(z.shape[0]))[0]
        each = self.parts(z, allowed, None, a)
        found = jnp.where(offset >= 0, each[offset, np.arange(len(offset))[:, None]], 0.0)
        if past is None:
            return found
        return found + jnp.diag(jnp.sum(self.parts(z, allowed, past, a) - each, axis=0))


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
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive, `dim` is odd, `heads` does not divide `dim / 2`, or there are
    rotary phases or blocks in a layout of grids.

    **Source:** the layers, Vaswani et al. 2017 (arXiv 1706.03762); one tied block as an energy, Hoover et al. 2023
    (arXiv 2302.07253); tied and untied depth compared, NRGPT (arXiv 2512.16762).

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
            raise ValueError(
                "`rotary` is True with `grids`; the phases are of one dimension, so leave one of them out."
            )
        if block < 0 or (block and (grids or rotary)):
            raise ValueError(
                f"`block` is {block}; expected tokens of a block, of text whose attention has no rotary phases, or 0."
            )
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
        self.block, self.prefix = block, None

    def terms(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> dict[str, Float[Array, " L"]]:
        """`-<r_i, Delta_k,i>` of every layer by name, `attention 1` being that of the first block."""
        r = self._compared(g)
        return {name: valid(-jnp.sum(r * delta, axis=-1), mask) for name, *_, delta in self._layers(g, mask)}

    def parts(self, g: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> dict[str, Float[Array, "P L"]]:
        """Every layer's energy split into its heads, memories or offsets, each token by token."""
        r = self._compared(g)
        every = ((name, layer.parts(z, *reads, r)) for name, layer, z, reads, _ in self._layers(g, mask))
        return {name: jax.vmap(lambda part: valid(-part, mask))(parts) for name, parts in every}

    def kept(self, g: Float[Array, "L D"]) -> tuple[dict[str, PyTree[Float[Array, "L ..."]]], ...]:
        """All that later tokens read of these, block by block and layer by layer."""
        found = tuple({} for _ in self.blocks)
        for name, layer, z, *_ in self._layers(g, None):
            kind, n = name.split()
            found[int(n) - 1][kind] = layer.keep(z)
        return found

    def heads(self, g: Float[Array, "L D"]) -> dict[str, tuple[Float[Array, "H L"], Float[Array, "H L L"]]]:
        """Those of every attention, by layer."""
        r, found = self._compared(g), {}
        for name, layer, z, reads, _ in self._layers(g, None):
            if isinstance(layer, AttentionLayer):
                found[name] = -layer.parts(z, *reads, r), layer.pattern(z, *reads)
        return found

    def memories(self, g: Float[Array, "L D"]) -> dict[str, tuple[Array, Array, Array]]:
        """Those of every key-value memory, by layer; values count where they are compared, in the second half."""
        r, found = self._compared(g), {}
        for name, layer, z, reads, _ in self._layers(g, None):
            if isinstance(layer, MemoryLayer):
                active, values = layer.recalled(z)
                found[name] = -layer.parts(z, *reads, r).T, active, jnp.pad(values, ((0, 0), (g.shape[1] // 2, 0)))
        return found

    def by_neighbour(self, g: Float[Array, "L D"], u: Float[Array, "L D"]) -> dict[str, Float[Array, "L L"]]:
        """Layer by layer, what token `i` reads of token `j` (`AbstractLayer.sources`), and how the energy of token `j`
        depends on what it reads of token `i`."""
        read = g.shape[1] // 2
        messages = by_token(self.terms, g, u.at[:, read:].set(0.0))
        for name, layer, z, reads, _ in self._layers(g, None):
            messages[name] = messages[name] + layer.sources(z, *reads, u[:, read:])
        return messages

    def _compared(self, g):
        return g[:, self.background.shape[-1] :]

    def _layers(self, g, mask) -> Iterator[tuple[str, AbstractLayer, Array, tuple[Array, Past | None], Array]]:
        """Name, layer, the stream it reads, who may read whom and what is read before the passage, and what it adds; in
        order."""
        length, width = g.shape[0], self.background.shape[-1]
        if self.background.ndim > 1:  # of a layout, before its places are added
            laid(self.blocks[0]["attention"].grids, length)  # pyright: ignore[reportAttributeAccessIssue]
        here = jnp.ones(length, bool) if mask is None else mask
        allowed = jnp.broadcast_to(here, (length, length)) & here[:, None]
        if self.prefix is not None and self.prefix.among is not None:
            allowed = allowed & self.prefix.among
        elif self.block:
            number = np.arange(length) // self.block
            allowed = allowed & (number[None, :] <= number[:, None])
        stream = g[:, :width] + self.background
        for n, block in enumerate(self.blocks):
            for kind, layer in block.items():
                z, past = _norm(stream), None
                if self.prefix is not None:
                    past = Past(self.prefix.kept[n][kind], self.prefix.allowed & here[:, None], self.prefix.offset)
                with jax.named_scope(f"{kind} {n + 1}"):
                    delta = layer.read(z, allowed, past)
                yield f"{kind} {n + 1}", layer, z, (allowed, past), delta
                stream = stream + delta


def within(each: Float[Array, "L S+L"], length: int) -> Float[Array, "L L"]:
    """What was read before the passage, on the diagonal; the rest as it is."""
    before = each.shape[1] - length
    return each[:, before:] + jnp.diag(jnp.sum(each[:, :before], axis=1))


def _norm(z: Float[Array, "L W"]) -> Float[Array, "L W"]:
    return (z - jnp.mean(z, axis=-1, keepdims=True)) * jax.lax.rsqrt(jnp.var(z, axis=-1, keepdims=True) + 1e-5)

"""The layers of a deep energy: attention, key-value memory, convolution."""

import abc
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from einops import einsum
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._types import Key
from ._layout import Grids, flat, laid, near, neighbours, relations, shifted
from ._rows import FEW, against, row_by_row
from ._synapses import rotate


CHUNK = 128
"""Queries that are answered at once in a long passage, of which nothing of size `(L, L)` is made."""


class Readable(NamedTuple):
    """Who may read whom in a long passage of text, made where it is asked for: `[i, j]` is whether `i` `reads`, `j` is
    `here`, and in the block of `i` or before it; not the next one where the read-out is shifted."""

    here: Bool[Array, " L"]
    reads: Bool[Array, " L"]
    block: Int[Array, " L"]
    shift: int = 0

    def __getitem__(self, index: Any) -> Any:
        i, j = index
        there = self.reads[i] & self.here[j] & (self.block[j] <= self.block[i])
        return there & (j != i + 1) if self.shift else there


Allowed = Bool[Array, "L L"] | Readable | None


class Past(NamedTuple):
    """Tokens before a passage, as one layer reads them: what it `kept` of the `S` tokens, whether token `i` of the
    passage may read it, `allowed (L, S)`, and the `place` among them of the first token of the passage."""

    kept: PyTree[Float[Array, "... S _"]]
    allowed: Bool[Array, "L S"]
    place: Int[Array, ""] | int


class Prefix(eqx.Module):
    """Tokens before a passage: what every layer `kept` of each, and `allowed`, `place` as in `Past`; `among (L, L)`,
    where given, who may read whom in the passage itself; `start`, of a shifted read-out, the stream of the last one."""

    kept: PyTree[Float[Array, "... S _"]]
    allowed: Bool[Array, "L S"]
    place: Int[Array, ""] | int
    among: Bool[Array, "L L"] | None = None
    start: Float[Array, " W"] | None = None


class AbstractLayer(eqx.Module):
    """One layer of a block: what it adds to the residual stream, as a sum of parts.

    To add a layer, write `read`, `parts`, `sources` and `keep`. All are given the normalised stream `z (L, W)`, and
    `allowed (L, L)`, whether token `i` may read token `j`; `past` are tokens before the passage. With `allowed` None
    the passage itself is among what was kept, and is read there.
    """

    @abc.abstractmethod
    def read(self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None = None) -> Float[Array, "L W"]:
        """`Delta_i (L, W)`, what is added at every token."""

    @abc.abstractmethod
    def parts(
        self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "parts L"]:
        """`<a_i, Delta_i>` split into heads, memories or offsets, `(parts, L)`; the sum over parts is all of it."""

    @abc.abstractmethod
    def sources(
        self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "L L"]:
        """`<a_i, Delta_i>` split by the token `j` of the passage that was read, `(L, L)`; what was read before it is
        the token's own."""

    @abc.abstractmethod
    def keep(self, z: Float[Array, "L W"]) -> PyTree[Float[Array, "... L _"]]:
        """All that later tokens read of every token, tokens in the last axis but one; `()` where none reads another."""


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

    def pattern(self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None = None) -> Float[Array, "H L reads"]:
        """The attention pattern `A (H, L, S + L)`, the past first; the row of a token that may read nobody is 0."""
        (q, k), places, reach = self._asked(z), np.arange(z.shape[0]), self.bias.shape[1] // 2
        product = lambda q, keys: einsum(q, keys, "h i k, h j k -> h i j")
        score = lambda product, bias: q.shape[-1] ** -0.5 * product + bias
        scores, may = [], []
        if past is not None:
            bias = self._bias(past.place, z.shape[0], past.kept[0].shape[-2])
            scores.append(score(row_by_row(lambda q: product(q, past.kept[0]), q), bias))
            may.append(past.allowed)
        if allowed is not None:
            scores.append(score(product(q, k), self.bias[:, relations(laid(self.grids, z.shape[0]), reach)[0]]))
            may.append(allowed[places[:, None], places] if isinstance(allowed, Readable) else allowed)
        join = lambda parts: parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
        score, may = join(scores), join(may)
        # finite, so that an empty row has finite derivatives
        return jnp.where(may, jax.nn.softmax(jnp.where(may, score, -1e30), axis=-1), 0.0)

    def _bias(self, place, rows, count):
        """`r_h(j - place - i) (H, rows, count)`; of a few rows each is a part of one row of all offsets."""
        reach = self.bias.shape[1] // 2
        if rows > FEW:
            offset = jnp.arange(count) - place - np.arange(rows)[:, None]
            return self.bias[:, jnp.clip(offset, -reach, reach) + reach]
        beyond = max(0, count + rows - reach)
        every, first = jnp.pad(self.bias, ((0, 0), (beyond, beyond)), mode="edge"), beyond + reach - place
        one = lambda i: jax.lax.dynamic_slice_in_dim(every, first - i, count, axis=1)
        return jnp.stack([one(i) for i in range(rows)], axis=1)

    def _asked(self, z):
        q, k = (einsum(z * self.gain, to, "l d, h k d -> h l k") for to in (self.query, self.keys))
        return (rotate(q), rotate(k)) if self.rotary else (q, k)

    def keep(self, z: Float[Array, "L W"]) -> tuple[Float[Array, "H L K"], Float[Array, "H L K"]]:
        """Keys and values."""
        key, value = (einsum(z * self.gain, to, "l d, h k d -> h l k") for to in (self.keys, self.values))
        return key, value

    def _by_source(self, pattern, z, past, how):
        """`how` of the pattern and the values that are read, before the passage, which are not copied, and in it."""
        values, count = einsum(z * self.gain, self.values, "l d, h k d -> h l k"), z.shape[0]
        here = how(pattern[..., -count:], values)
        return (None, here) if past is None else (how(pattern[..., :-count], past.kept[1]), here)

    def _heads(self, z, allowed, past):
        if isinstance(allowed, Readable):
            return self._in_chunks(z, allowed)
        read = lambda pattern, values: einsum(pattern, values, "h i j, h j k -> h i k")
        pattern = self.pattern(z, allowed, past)
        if allowed is None and past is not None:
            return row_by_row(lambda pattern: read(pattern, past.kept[1]), pattern)
        before, here = self._by_source(pattern, z, past, read)
        return here if before is None else before + here

    def read(self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None = None) -> Float[Array, "L W"]:
        """`sum_h O_h sum_j A_hij V_h z_j (L, W)`."""
        return einsum(self._heads(z, allowed, past), self.out, "h i k, h k d -> i d")

    def parts(
        self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "H L"]:
        """Head by head `(H, L)`."""
        return jnp.sum(self._heads(z, allowed, past) * einsum(a, self.out, "i d, h k d -> h i k"), axis=-1)

    def sources(
        self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "L L"]:
        """`sum_h A_hij <a_i, O_h V_h z_j>`, the pattern as it is."""
        asked = einsum(a, self.out, "i d, h k d -> h i k")
        share = lambda pattern, values: jnp.sum(pattern * einsum(asked, values, "h i k, h j k -> h i j"), axis=0)
        before, here = self._by_source(self.pattern(z, allowed, past), z, past, share)
        return here if before is None else here + jnp.diag(jnp.sum(before, axis=1))

    def _in_chunks(self, z, allowed):
        """The same with memory linear in `L`: some queries at a time, which the gradient makes again."""
        reach, places = self.bias.shape[1] // 2, np.arange(z.shape[0])
        (q, k), values = self._asked(z), self.keep(z)[1]

        @jax.checkpoint
        def some(i):
            offset = jnp.clip(places - i[:, None], -reach, reach) + reach
            score = q.shape[-1] ** -0.5 * einsum(q[:, i], k, "h i k, h j k -> h i j") + self.bias[:, offset]
            may = allowed[i[:, None], places]
            pattern = jnp.where(may, jax.nn.softmax(jnp.where(may, score, -1e30), axis=-1), 0.0)
            return einsum(pattern, values, "h i j, h j k -> i h k")

        rows = np.minimum(np.arange(-(-len(places) // CHUNK) * CHUNK), len(places) - 1).reshape(-1, CHUNK)
        found = jax.lax.map(some, jnp.asarray(rows))
        return jnp.swapaxes(found.reshape(-1, *found.shape[2:])[: len(places)], 0, 1)


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

    def keep(self, z: Float[Array, "L W"]) -> tuple[()]:
        """Nothing."""
        return ()

    def recalled(self, z: Float[Array, "L W"]) -> tuple[Float[Array, "L M"], Float[Array, "M W"]]:
        """`gelu(<k_m, z_i> + theta_m) (L, M)`, and `v_m (M, W)`."""
        return jax.nn.gelu(against(z * self.gain, self.keys) + self.threshold), self.values

    def read(self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None = None) -> Float[Array, "L W"]:
        """`sum_m gelu(<k_m, z_i> + theta_m) v_m (L, W)`; no token reads another."""
        return self.recalled(z)[0] @ self.values

    def parts(
        self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "M L"]:
        """Memory by memory `(M, L)`."""
        return (self.recalled(z)[0] * (a @ self.values.T)).T

    def sources(
        self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None, a: Float[Array, "L W"]
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
        there: list[Any] = [0.0] * len(self.kernel)
        if allowed is not None:
            token = neighbours(grids, reach)
            may = allowed[np.arange(len(token))[:, None], np.maximum(token, 0)] & (token >= 0)
            there = [there * may[:, o, None] for o, there in enumerate(shifted(z, grids, reach))]
        if past is not None:  # the tokens of which stand side by side
            offsets = np.arange(reach if allowed is not None else len(there))
            place = past.place + np.arange(z.shape[0])[:, None] + offsets - reach
            inside = jnp.clip(place, 0, past.kept.shape[0] - 1)
            may = jnp.take_along_axis(past.allowed, inside, axis=1) & (place == inside)
            found = jnp.where(may[..., None], past.kept[inside], 0.0)
            there = [row + found[:, o] if o < len(offsets) else row for o, row in enumerate(there)]
        return [there * weight for there, weight in zip(there, self.kernel, strict=True)]

    def keep(self, z: Float[Array, "L W"]) -> Float[Array, "L W"]:
        """The stream itself."""
        return z

    def read(self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None = None) -> Float[Array, "L W"]:
        """`sum_o w_o * z_(i+o) (L, W)`."""
        return jnp.sum(jnp.stack(self._neighbours(z, allowed, past)), axis=0)

    def parts(
        self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "offsets L"]:
        """Offset by offset `(offsets, L)`."""
        return jnp.stack([jnp.sum(there * a, axis=-1) for there in self._neighbours(z, allowed, past)])

    def sources(
        self, z: Float[Array, "L W"], allowed: Allowed, past: Past | None, a: Float[Array, "L W"]
    ) -> Float[Array, "L L"]:
        """`<a_i, w_(j-i) * z_j>`, 0 beyond the reach."""
        offset = near(*self._layout(z.shape[0]))[0]
        each = self.parts(z, allowed, None, a)
        found = jnp.where(offset >= 0, each[offset, np.arange(len(offset))[:, None]], 0.0)
        if past is None:
            return found
        return found + jnp.diag(jnp.sum(self.parts(z, allowed, past, a) - each, axis=0))

"""The motion that devices can do: neurons on capacitors, memories in conductances, and two kinds of cells."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._types import Scalar
from ..energy import Attention, DenseMemory, FreeEnergy, Identity, Rectifier, Softmax, Tanh
from ..flow import AbstractMotion, Relaxation


class AbstractCell(eqx.Module):
    """A layer of non-linear cells, a function of what its wires carry."""

    @abc.abstractmethod
    def __call__(self, signal: Float[Array, " M"]) -> Float[Array, " M"]:
        """The answer of every cell `(M,)`."""


class Competition(AbstractCell):
    """Cells that share a current: `p = softmax(beta h)` within each group. One transistor a cell, one tail a group.

    The collector currents of bipolar transistors with joined emitters are the softmax of their base voltages over
    `kT/q`, exactly for ideal transistors: the translinear principle.

    **Arguments:**

    - `sizes`: number of cells of each group.
    - `beta`: inverse temperature, positive.

    **Raises:** `ValueError` if a size or `beta` is not positive.

    **Source:** Gilbert 1975; Bacvanski et al. 2025 (arXiv 2512.15002).
    """

    sizes: tuple[int, ...] = eqx.field(static=True)
    beta: float = eqx.field(static=True)

    def __init__(self, sizes: tuple[int, ...], *, beta: float = 1.0):
        if not sizes or min(sizes) < 1 or not beta > 0:
            raise ValueError(f"`groups` are {sizes} with `beta` {beta}; expected positive numbers.")
        self.sizes, self.beta = tuple(sizes), beta

    @property
    def groups(self) -> np.ndarray:
        """The group of each cell `(M,)`."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def __call__(self, signal: Float[Array, " M"]) -> Float[Array, " M"]:
        """`softmax(beta h)` in every group."""
        logits = self.beta * signal
        if len(set(self.sizes)) == 1:
            return jax.nn.softmax(logits.reshape(len(self.sizes), -1), axis=-1).reshape(-1)
        return jnp.concatenate([jax.nn.softmax(part) for part in jnp.split(logits, self._ends)])

    def centred(self, weights: Float[Array, "M N"]) -> tuple[Float[Array, "M N"], Float[Array, " N"]]:
        """Weights less their mean over each group, and the sum of these means: what competes is differences."""
        means = jnp.stack([part.mean(axis=0) for part in jnp.split(weights, self._ends)])
        return weights - means[self.groups], means.sum(axis=0)

    @property
    def _ends(self) -> list[int]:
        return np.cumsum(self.sizes)[:-1].tolist()


class Rectification(AbstractCell):
    """Cells that let one sign pass: `p = max(h, 0)`. One diode inside a feedback loop a cell."""

    def __call__(self, signal: Float[Array, " M"]) -> Float[Array, " M"]:
        """`max(h, 0)`."""
        return jax.nn.relu(signal)


class Follower(AbstractCell):
    """Cells that pass on what they carry: `g = v`."""

    def __call__(self, signal: Float[Array, " M"]) -> Float[Array, " M"]:
        """`v`."""
        return signal


class TanhPair(AbstractCell):
    """Cells that saturate: `g = tanh(beta v)`, `beta` being the slope at the origin. Two transistors with joined
    emitters a cell."""

    beta: float = eqx.field(static=True)

    def __init__(self, *, beta: float = 1.0):
        if not beta > 0:
            raise ValueError(f"`slope` is {beta}; expected a positive number, or None for neurons that are linear.")
        self.beta = beta

    def __call__(self, signal: Float[Array, " M"]) -> Float[Array, " M"]:
        """`tanh(beta v)`."""
        return jnp.tanh(self.beta * signal)


class Crossbar(AbstractMotion):
    """Visible neurons that leak, and memories that read and write them through one matrix.

    `dv/dt = -v + a + W^T f(W g(v) + c)`, with `f` a softmax within groups of memories or a rectifier, `g(v) = v` or
    `tanh(slope v)`. It is the descent of `sum <v, g> - Λ(v) - <a, g> - Λ_hidden(W g + c)`; a memory of `energy` over
    one token is one.

    **Arguments:**

    - `patterns`: the stored patterns `W (M, N)`.
    - `groups`: how many memories compete in each group, `f = softmax(beta h)` there, adding up to `M`; one transistor a
      memory and one tail current a group. None for rectified memories, `f = max(h, 0)`, a diode in a loop each.
    - `beta`: inverse temperature of the competition.
    - `slope`: visible neurons saturate, `g = tanh(slope v)`, a pair of transistors each; None for followers, `g = v`.
    - `threshold`: `c (M,)`, zeros by default.
    - `bias`: `a (N,)`, zeros by default.
    - `clamped`: which visible neurons are held at their start `(N,)`; none by default.

    **Raises:** `ValueError` if shapes do not match, or a group, `beta` or `slope` is not positive.

    **Source:** Krotov & Hopfield 2021 (arXiv 2008.06996); Bacvanski et al. 2025 (arXiv 2512.15002); the translinear
    principle, Gilbert 1975.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    memory = ed.circuit.Crossbar(jnp.eye(3, 4), (3,), beta=4.0)
    path = ed.solve(memory, jnp.array([0.9, 0.2, 0.0, 0.0]), t0=0.0, t1=10.0)
    assert path.final.argmax() == 0
    ```
    """

    patterns: Float[Array, "M N"]
    threshold: Float[Array, " M"]
    bias: Float[Array, " N"]
    clamped: Bool[Array, " N"]
    hidden: Competition | Rectification
    visible: Follower | TanhPair

    def __init__(
        self,
        patterns: Float[Array, "M N"],
        groups: tuple[int, ...] | None,
        *,
        beta: float = 1.0,
        slope: float | None = None,
        threshold: Float[Array, " M"] | None = None,
        bias: Float[Array, " N"] | None = None,
        clamped: Bool[Array, " N"] | None = None,
    ):
        m, n = patterns.shape
        self.patterns = patterns
        self.hidden = Rectification() if groups is None else Competition(groups, beta=beta)
        self.visible = Follower() if slope is None else TanhPair(beta=slope)
        self.threshold = jnp.zeros(m, patterns.dtype) if threshold is None else threshold
        self.bias = jnp.zeros(n, patterns.dtype) if bias is None else bias
        self.clamped = jnp.zeros(n, bool) if clamped is None else clamped
        shapes = self.threshold.shape, self.bias.shape, self.clamped.shape
        if shapes != ((m,), (n,), (n,)):
            raise ValueError(f"`threshold`, `bias`, `clamped` have shapes {shapes}; expected (({m},), ({n},), ({n},)).")
        if groups is not None and sum(groups) != m:
            raise ValueError(f"`groups` are {groups}, `patterns` has {m} rows; they must add up to it.")

    @staticmethod
    def of(field: Relaxation, *, length: int = 1) -> "Crossbar":
        """The crossbar of a relaxation with one memory, `length` tokens flattened, without evidence.

        **Raises:** `ValueError` if the energy has no network, or that is not `Identity` or `Tanh` neurons with a
        `DenseMemory` of `Softmax` or `Rectifier` neurons.
        """
        if not isinstance(field.energy, FreeEnergy):
            kind = type(field.energy).__name__
            raise ValueError(f"`field` moves on a {kind}, which has no network; expected one on a FreeEnergy.")
        network = field.energy.network
        memories = list(network.synapses.values())
        memory, neurons = (memories or [None])[0], network.neurons
        kinds = [type(m).__name__ for m in memories]
        if len(memories) != 1 or not isinstance(memory, DenseMemory):
            raise ValueError(f"`field` has the synapses {kinds}; expected one DenseMemory.")
        if not isinstance(memory.neurons, Softmax | Rectifier):
            kind = type(memory.neurons).__name__
            raise ValueError(f"`field` has a DenseMemory of {kind} neurons; expected Softmax or Rectifier.")
        if not isinstance(neurons, Identity | Tanh):
            raise ValueError(f"`field` has {type(neurons).__name__} neurons; expected Identity or Tanh.")
        slope = float(jnp.exp(neurons.log_beta)) if isinstance(neurons, Tanh) else None
        patterns = jnp.kron(jnp.eye(length, dtype=memory.patterns.dtype), memory.patterns)
        bias = jnp.tile(network.bias, length)
        if isinstance(memory.neurons, Rectifier):
            return Crossbar(patterns, None, slope=slope, bias=bias)
        groups, beta = (len(memory.patterns),) * length, float(jnp.exp(memory.neurons.log_beta))
        return Crossbar(patterns, groups, beta=beta, slope=slope, bias=bias)

    @staticmethod
    def attending(attention: Attention, context: Float[Array, "L D"], place: int) -> "Crossbar":
        """Attention to tokens that do not move, as a crossbar: their keys are conductances.

        `E = -1/beta sum_h log sum_(j != i) exp(beta <W_q g_i, k_hj> + r_h(j - i))` as a function of the token `i`
        alone: a softmax memory for each head, with patterns `W_q^T k_hj` and thresholds `r / beta`. Attention between
        tokens that all move needs a multiplier for every pair and component, and is left to `lower`.

        **Arguments:**

        - `attention`: without rotary phases.
        - `context`: activations `(L, D)`; row `place` is ignored.
        - `place`: the token that moves.

        **Returns:** a `Crossbar` of the token's `D` neurons, with a group of `L - 1` cells for each head.

        **Raises:** `ValueError` for rotary attention, a place outside the context, or a context of one token.

        **Example:**

        ```python
        import jax, jax.numpy as jnp, energy_dllm as ed

        attention = ed.energy.Attention(8, heads=2, head_dim=4, key=jax.random.key(0))
        crossbar = ed.circuit.Crossbar.attending(attention, jnp.ones((5, 8)), 2)
        assert crossbar.patterns.shape == (2 * 4, 8)
        ```
        """
        length = context.shape[0]
        if attention.rotary:
            raise ValueError("`attention` has rotary phases; expected rotary=False, positions by the learned bias.")
        if length < 2 or not 0 <= place < length:
            raise ValueError(
                f"`place` is {place} in a context of {length}; expected a token with others in its context."
            )
        others = np.delete(np.arange(length), place)
        beta = attention.query.shape[1] ** -0.5
        keys = jnp.einsum("jd,hkd->hjk", context[others], attention.keys)
        patterns = jnp.einsum("hjk,hkd->hjd", keys, attention.query)
        reach = attention.bias.shape[1] // 2
        threshold = attention.bias[:, np.clip(others - place, -reach, reach) + reach] / beta
        heads = patterns.shape[0]
        groups = (length - 1,) * heads
        return Crossbar(patterns.reshape(-1, patterns.shape[-1]), groups, beta=beta, threshold=threshold.reshape(-1))

    @property
    def force_evaluations(self) -> int:
        """One."""
        return 1

    @property
    def operations(self) -> int:
        """Multiplications, additions and functions of one evaluation: two products with `W`, and the cells."""
        m, n = self.patterns.shape
        return 4 * n * m + 5 * m + 3 * n

    def __call__(self, time: Scalar | float, state: Float[Array, " N"], args: object = None) -> Float[Array, " N"]:
        """`dv/dt (N,)`."""
        p = self.hidden(self.patterns @ self.visible(state) + self.threshold)
        speed = self.bias - state + p @ self.patterns
        return jnp.where(self.clamped, 0.0, speed)

    def headroom(self, state: Float[Array, " N"], *, limit: float = 20.0) -> Scalar:
        """A penalty for training: the mean square of what the hidden cells' signals exceed `limit` by.

        `mean_m max(|f_m| - limit, 0)^2` with `f = beta (W g(v) + c)`, centred in each group. A base voltage is `kT/q`
        times as many volts: 20 are 0.52 V. Add it to a loss, and the chip that is built of the patterns stays between
        its rails. For the noise of parts put `fabricate(self, technology, key)` into the loss in place of the crossbar:
        it is differentiable.

        **Arguments:**

        - `state`: a state on its trajectory `(N,)`, such as the last one.
        - `limit`: what costs nothing.

        **Returns:** a scalar, not negative.

        **Example:**

        ```python
        import jax.numpy as jnp, energy_dllm as ed

        memory = ed.circuit.Crossbar(30 * jnp.eye(2), (2,))
        assert memory.headroom(jnp.array([1.0, -1.0]), limit=25.0) == 25.0
        ```
        """
        signal = self.patterns @ self.visible(state) + self.threshold
        if isinstance(self.hidden, Competition):
            signal = self.hidden.beta * self.hidden.centred(signal[:, None])[0][:, 0]
        return jnp.mean(jnp.maximum(jnp.abs(signal) - limit, 0.0) ** 2)

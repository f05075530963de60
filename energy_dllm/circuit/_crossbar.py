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

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    p = ed.circuit.Competition((2, 3), beta=2.0)(jnp.arange(5.0))
    assert jnp.allclose(p[:2].sum(), 1.0) and jnp.allclose(p.sum(), 2.0)
    ```
    """

    sizes: tuple[int, ...] = eqx.field(static=True)
    beta: float = eqx.field(static=True)

    def __init__(self, sizes: tuple[int, ...], *, beta: float = 1.0):
        if not sizes or min(sizes) < 1 or not beta > 0:
            raise ValueError(f"`sizes`={sizes} and `beta`={beta} must be positive.")
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
    """Cells that let one sign pass: `p = max(h, 0)`. One diode inside a feedback loop a cell.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    assert ed.circuit.Rectification()(jnp.array([-1.0, 2.0])).tolist() == [0.0, 2.0]
    ```
    """

    def __call__(self, signal: Float[Array, " M"]) -> Float[Array, " M"]:
        """`max(h, 0)`."""
        return jax.nn.relu(signal)


class Follower(AbstractCell):
    """Cells that pass on what they carry: `g = v`."""

    def __call__(self, signal: Float[Array, " M"]) -> Float[Array, " M"]:
        """`v`."""
        return signal


class TanhPair(AbstractCell):
    """Cells that saturate: `g = tanh(beta v)`. Two transistors with joined emitters a cell.

    **Arguments:**

    - `beta`: slope at the origin, positive.

    **Raises:** `ValueError` if `beta` is not positive.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    assert ed.circuit.TanhPair(beta=2.0)(jnp.array([0.0, 9.0]))[1] > 0.999
    ```
    """

    beta: float = eqx.field(static=True)

    def __init__(self, *, beta: float = 1.0):
        if not beta > 0:
            raise ValueError(f"`beta` is {beta}; expected a positive number.")
        self.beta = beta

    def __call__(self, signal: Float[Array, " M"]) -> Float[Array, " M"]:
        """`tanh(beta v)`."""
        return jnp.tanh(self.beta * signal)


class Crossbar(AbstractMotion):
    """Visible neurons that leak, and memories that read and write them through one matrix.

    `dv/dt = -v + a + W^T f(W g(v) + c)`, with `f` a layer of `hidden` cells and `g` one of `visible` cells. It is the
    descent of `sum <v, g> - Λ(v) - <a, g> - Λ_hidden(W g + c)`; every memory of `energy` over one token is one.

    **Arguments:**

    - `patterns`: the stored patterns `W (M, N)`.
    - `hidden`: `Competition` or `Rectification`.
    - `visible`: `Follower` or `TanhPair`.
    - `threshold`: `c (M,)`, zeros by default.
    - `bias`: `a (N,)`, zeros by default.
    - `clamped`: which visible neurons are held at their start `(N,)`; none by default.

    **Raises:** `ValueError` if shapes do not match.

    **Source:** Krotov & Hopfield 2021 (arXiv 2008.06996); Bacvanski et al. 2025 (arXiv 2512.15002).

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    memory = ed.circuit.Crossbar(jnp.eye(3, 4), ed.circuit.Competition((3,), beta=4.0))
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
        hidden: Competition | Rectification,
        visible: Follower | TanhPair | None = None,
        *,
        threshold: Float[Array, " M"] | None = None,
        bias: Float[Array, " N"] | None = None,
        clamped: Bool[Array, " N"] | None = None,
    ):
        m, n = patterns.shape
        self.patterns, self.hidden = patterns, hidden
        self.visible = Follower() if visible is None else visible
        self.threshold = jnp.zeros(m, patterns.dtype) if threshold is None else threshold
        self.bias = jnp.zeros(n, patterns.dtype) if bias is None else bias
        self.clamped = jnp.zeros(n, bool) if clamped is None else clamped
        shapes = self.threshold.shape, self.bias.shape, self.clamped.shape
        if shapes != ((m,), (n,), (n,)):
            raise ValueError(f"`threshold`, `bias`, `clamped` have shapes {shapes}; expected (({m},), ({n},), ({n},)).")
        if isinstance(hidden, Competition) and sum(hidden.sizes) != m:
            raise ValueError(f"`hidden` has groups of {hidden.sizes}, `patterns` has {m} rows; they must add up to it.")

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
        visible = TanhPair(beta=float(jnp.exp(neurons.log_beta))) if isinstance(neurons, Tanh) else Follower()
        hidden = Rectification()
        if isinstance(memory.neurons, Softmax):
            hidden = Competition((len(memory.patterns),) * length, beta=float(jnp.exp(memory.neurons.log_beta)))
        patterns = jnp.kron(jnp.eye(length, dtype=memory.patterns.dtype), memory.patterns)
        return Crossbar(patterns, hidden, visible, bias=jnp.tile(network.bias, length))

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
        hidden = Competition((length - 1,) * heads, beta=beta)
        return Crossbar(patterns.reshape(-1, patterns.shape[-1]), hidden, threshold=threshold.reshape(-1))

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

        memory = ed.circuit.Crossbar(30 * jnp.eye(2), ed.circuit.Competition((2,)))
        assert memory.headroom(jnp.array([1.0, -1.0]), limit=25.0) == 25.0
        ```
        """
        signal = self.patterns @ self.visible(state) + self.threshold
        if isinstance(self.hidden, Competition):
            signal = self.hidden.beta * self.hidden.centred(signal[:, None])[0][:, 0]
        return jnp.mean(jnp.maximum(jnp.abs(signal) - limit, 0.0) ** 2)

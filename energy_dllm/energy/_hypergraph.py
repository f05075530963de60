"""Layers of neurons and the synapses between them: the hierarchical associative memory, of any shape.

A node is a layer of neurons, a hyperedge a scalar of the activations of one, two or more of them. The total is one
scalar, and nothing else has to be known for the motion: `flow.LayerRelaxation`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Key, Scalar
from ._neurons import AbstractNeurons


Layered = dict[str, Float[Array, "..."]]


class Layer(eqx.Module):
    """A layer of neurons: a Lagrangian, a shape, and a threshold that its state is measured from.

    `g = grad Λ(y + threshold)`, `E = sum <y, g> - Λ(y + threshold)`, so that `dE/dg = y`. The Lagrangian acts on the
    last axis; it is the same for all indices of the others, and summed over them: `(L, D)` are `L` tokens of `D`
    neurons. The threshold is what the layer hears from outside, a bias or evidence.

    **Arguments:**

    - `neurons`: the Lagrangian `Λ`.
    - `shape`: of the state, at least one axis.
    - `threshold`: what is added to the state, of `shape` or one that broadcasts to it; nothing by default.

    **Raises:** `ValueError` for an empty shape, or a threshold that does not broadcast to it.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    layer = ed.energy.Layer(ed.energy.Softmax(), (5, 3), threshold=jnp.array([0.0, 1.0, 2.0]))
    assert jnp.allclose(layer.activation(jnp.zeros((5, 3))).sum(-1), 1.0)
    ```
    """

    neurons: AbstractNeurons
    shape: tuple[int, ...] = eqx.field(static=True)
    threshold: Float[Array, "..."] | None

    def __init__(
        self, neurons: AbstractNeurons, shape: tuple[int, ...], *, threshold: Float[Array, "..."] | None = None
    ):
        shape = tuple(shape)
        if not shape or min(shape) < 1:
            raise ValueError(f"`shape` is {shape}; expected at least one axis, none of them empty, such as (64,).")
        if threshold is not None and not _broadcasts(threshold.shape, shape):
            raise ValueError(f"`threshold` has shape {threshold.shape}; expected {shape} or what broadcasts to it.")
        self.neurons, self.shape, self.threshold = neurons, shape, threshold

    def lagrangian(self, y: Float[Array, "..."]) -> Scalar:
        """`sum Λ(y + threshold)`, over all axes but the last."""
        heard = y if self.threshold is None else y + self.threshold
        return jnp.sum(jax.vmap(self.neurons.lagrangian)(heard.reshape(-1, self.shape[-1])))

    def activation(self, y: Float[Array, "..."]) -> Float[Array, "..."]:
        """`g = grad Λ(y + threshold)`, of the shape of `y`."""
        heard = y if self.threshold is None else y + self.threshold
        return jax.vmap(self.neurons.activation)(heard.reshape(-1, self.shape[-1])).reshape(self.shape)


class Hyperedge(eqx.Module):
    """A synapse and the names of the layers it joins.

    **Arguments:**

    - `synapse`: a scalar of the activations of these layers, in this order: a `DenseSynapse`, a
      `ConvolutionalSynapse`; of one layer `(L, D)` any `AbstractSynapse` (attention, memories); of one layer `(N,)` any
      `AbstractMemory`; or a function.
    - `layers`: their names, one or more.

    **Raises:** `ValueError` if no layer is named.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    edge = ed.energy.Hyperedge(ed.energy.DenseSynapse.random(64, 10, key=jax.random.key(0)), "pixels", "digits")
    assert edge.layers == ("pixels", "digits")
    ```
    """

    synapse: Callable[..., Scalar]
    layers: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, synapse: Callable[..., Scalar], *layers: str):
        if not layers:
            raise ValueError("`layers` is empty; name the layers the synapse joins, one or more.")
        self.synapse, self.layers = synapse, layers


class Hypergraph(eqx.Module):
    """Any number of layers and synapses: one scalar of all their states.

    `E(y) = sum_l [<y_l, g_l> - Λ_l(y_l + threshold_l)] + sum_e E_e(g of its layers)`, `g_l = grad Λ_l(y_l +
    threshold_l)`.

    Every layer falls on the same scalar: `tau_l dy_l/dt = -dE/dg_l = -y_l - dE_syn/dg_l` (`flow.LayerRelaxation`), and
    `dE/dt = -sum_l 1/tau_l (dE/dg_l)^T (d^2 Λ_l/dy_l^2) (dE/dg_l) <= 0`. At rest the state of a layer is what its
    synapses tell it. A state is a dict of arrays, one for each layer by name.

    The energy of the language model is one of these, of three layers: hidden neurons, tokens whose threshold is prior
    and evidence, and tokens whose threshold is the prior alone, which take back what was expected.

    **Arguments:**

    - `layers`: the layers by name.
    - `synapses`: the hyperedges by name.

    **Raises:** `ValueError` for no layer, a synapse that joins a layer which is not there, or a name used twice.

    **Source:** Krotov 2021 (arXiv 2107.06446), Krotov & Hopfield 2021 (arXiv 2008.06996); as a hypergraph, Hoover et
    al. 2022 (HAMUX).

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    patterns = jnp.array([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]])
    memory = ed.energy.Hypergraph(
        {"seen": ed.energy.Layer(ed.energy.Tanh(), (4,)), "which": ed.energy.Layer(ed.energy.Softmax(beta=4.0), (2,))},
        {"stored": ed.energy.Hyperedge(ed.energy.DenseSynapse(2.0 * patterns.T), "seen", "which")},
    )
    cue = memory.neutral() | {"seen": jnp.array([0.9, 0.3, -0.2, -1.1])}
    end = ed.solve(ed.flow.LayerRelaxation(memory), cue, t0=0.0, t1=30.0).final
    assert (jnp.sign(end["seen"]) == patterns[0]).all() and memory(end) < memory(cue)
    ```
    """

    layers: Mapping[str, Layer]
    synapses: Mapping[str, Hyperedge]

    def __init__(self, layers: Mapping[str, Layer], synapses: Mapping[str, Hyperedge]):
        self.layers, self.synapses = dict(layers), dict(synapses)

    def __check_init__(self):
        if not self.layers:
            raise ValueError("`layers` is empty; expected at least one layer.")
        if both := sorted(set(self.layers) & set(self.synapses)):
            raise ValueError(f"`synapses` has the name {both[0]!r}, which is that of a layer; rename it.")
        for name, edge in self.synapses.items():
            if missing := [layer for layer in edge.layers if layer not in self.layers]:
                raise ValueError(
                    f"`synapses` has {name!r}, which joins the layer {missing[0]!r}; there are {sorted(self.layers)}."
                )

    def neutral(self) -> Layered:
        """The neutral state, `y = 0` in every layer."""
        return {name: jnp.zeros(layer.shape) for name, layer in self.layers.items()}

    def activations(self, states: Layered) -> Layered:
        """`g = grad Λ(y + threshold)` of every layer by name."""
        self._check(states)
        return {name: layer.activation(states[name]) for name, layer in self.layers.items()}

    def terms(self, states: Layered) -> dict[str, Scalar]:
        """The energy of every layer and of every synapse by name, scalars; their sum is `E`.

        `ValueError` if a layer's state is missing or of another shape.
        """
        return self._terms(states, self.activations(states))

    def __call__(self, states: Layered) -> Scalar:
        """`E`, the sum of `terms`."""
        return sum_of(self.terms(states))

    def force(self, states: Layered) -> Layered:
        """`-dE/dg` of every layer by name: what its synapses tell it, less what it is."""
        activations = self.activations(states)
        gradient = jax.grad(lambda g: sum_of(self._terms(states, g)))(activations)
        return jax.tree.map(jnp.negative, gradient)

    def _terms(self, states, activations):
        # With y held, d/dg of a layer's term is y: the Legendre transform's own derivative.
        terms = {
            name: jnp.sum(states[name] * activations[name]) - layer.lagrangian(states[name])
            for name, layer in self.layers.items()
        }
        for name, edge in self.synapses.items():
            terms[name] = edge.synapse(*(activations[layer] for layer in edge.layers))
            if jnp.shape(terms[name]) != ():
                raise ValueError(f"`synapses` has {name!r} of shape {terms[name].shape}; expected a scalar, a sum.")
        return terms

    def _check(self, states):
        if set(states) != set(self.layers):
            raise ValueError(f"`states` has the layers {sorted(states)}; expected {sorted(self.layers)}.")
        for name, layer in self.layers.items():
            if states[name].shape != layer.shape:
                raise ValueError(
                    f"`states` has shape {states[name].shape} for {name!r}; expected {layer.shape}. `vmap` for a batch."
                )


class DenseSynapse(eqx.Module):
    """Everything coupled with everything, two layers or more: `E = -sum_i sum_ab.. W_ab.. g_ia h_ib ..`.

    `W` has one axis for each layer, for the last axis of its activations. Other axes, such as tokens, are common to all
    layers: the same couplings `W` at each, summed over `i`. Two layers make a matrix, `-<g, W h>`; three a tensor,
    where one layer is a gate between the others.

    **Arguments:**

    - `weights`: `W`, an axis for each layer.

    **Raises:** `ValueError` for fewer than two axes, and when asked, for activations that do not fit.

    **Source:** Krotov 2021 (arXiv 2107.06446); of many bodies, Hoover et al. 2022 (HAMUX).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    synapse = ed.energy.DenseSynapse.random(8, 3, key=jax.random.key(0))
    g, h = jnp.ones(8), jnp.ones(3)
    assert jnp.allclose(synapse(g, h), -g @ synapse.weights @ h)
    ```
    """

    weights: Float[Array, "..."]

    def __init__(self, weights: Float[Array, "..."]):
        if weights.ndim < 2:
            raise ValueError(f"`weights` has shape {weights.shape}; expected one axis for each of two layers or more.")
        self.weights = weights

    @classmethod
    def random(cls, *dims: int, key: Key) -> "DenseSynapse":
        """Random couplings of layers of these widths, of variance `1 / max(dims)`."""
        if len(dims) < 2 or min(dims) < 1:
            raise ValueError(f"`dims` is {dims}; expected two widths or more, all positive.")
        return cls(max(dims) ** -0.5 * jax.random.normal(key, dims))

    def __call__(self, *activations: Float[Array, "..."]) -> Scalar:
        """`-sum_i sum_ab.. W_ab.. g_ia h_ib ..`, a scalar."""
        shapes = [g.shape for g in activations]
        if tuple(shape[-1] for shape in shapes) != self.weights.shape or len({shape[:-1] for shape in shapes}) != 1:
            raise ValueError(
                f"`activations` have the shapes {shapes}; expected last axes {self.weights.shape}, the others equal."
            )
        letters = "abcdefghijklmnopqrstuvwxyz"[: len(activations)]
        sides = ",".join(f"...{letter}" for letter in letters)
        return -jnp.sum(jnp.einsum(f"{letters},{sides}->...", self.weights, *activations))


class ConvolutionalSynapse(eqx.Module):
    """A sequence and a coarser one, the same couplings everywhere: `E = -sum_j sum_o <g_(stride j + o), W_o h_j>`.

    Token `j` of the upper layer `h (J, E)` is coupled with a window of the lower one, `g (L, D)`: offsets `o = 0 ..
    O - 1`, less the padding. `J = (L + 2 padding - O) // stride + 1`. A window as long as the sequence couples every
    place in its own way.

    **Arguments:**

    - `weights`: `W (O, D, E)`.
    - `stride`: places from one window to the next, positive.
    - `padding`: places, silent, before the first token and after the last; not negative.

    **Raises:** `ValueError` for another number of axes, a bad stride or padding, and when asked, for lengths that do
    not fit.

    **Source:** Krotov 2021 (arXiv 2107.06446).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    synapse = ed.energy.ConvolutionalSynapse.random(3, 4, 6, stride=3, key=jax.random.key(0))
    assert synapse(jnp.ones((9, 4)), jnp.ones((3, 6))).shape == ()  # nine letters, three syllables
    ```
    """

    weights: Float[Array, "O D E"]
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)

    def __init__(self, weights: Float[Array, "O D E"], *, stride: int = 1, padding: int = 0):
        if weights.ndim != 3:
            raise ValueError(f"`weights` has shape {weights.shape}; expected (O, D, E): offsets, lower, upper width.")
        if stride < 1 or padding < 0:
            raise ValueError(f"`stride`={stride} must be at least 1 and `padding`={padding} at least 0.")
        self.weights, self.stride, self.padding = weights, stride, padding

    @classmethod
    def random(
        cls, offsets: int, lower: int, upper: int, *, stride: int = 1, padding: int = 0, key: Key
    ) -> "ConvolutionalSynapse":
        """Random couplings `(offsets, lower, upper)`, of variance `1 / (offsets max(lower, upper))`."""
        if min(offsets, lower, upper) < 1:
            raise ValueError(f"`offsets`={offsets}, `lower`={lower} and `upper`={upper} must be positive.")
        scale = (offsets * max(lower, upper)) ** -0.5
        return cls(scale * jax.random.normal(key, (offsets, lower, upper)), stride=stride, padding=padding)

    def __call__(self, g: Float[Array, "L D"], h: Float[Array, "J E"]) -> Scalar:
        """`-sum_j sum_o <g_(stride j + o - padding), W_o h_j>`, a scalar."""
        offsets, lower, upper = self.weights.shape
        count = (g.shape[0] + 2 * self.padding - offsets) // self.stride + 1
        if g.shape[1:] != (lower,) or h.shape != (count, upper) or count < 1:
            raise ValueError(
                f"`g` {g.shape} and `h` {h.shape} do not fit; expected (L, {lower}) and ({max(count, 0)}, {upper}), "
                f"{offsets} places a window, stride {self.stride}, padding {self.padding}."
            )
        padded = jnp.pad(g, ((self.padding, self.padding), (0, 0)))
        last = self.stride * (count - 1) + 1
        windows = jnp.stack([padded[o : o + last : self.stride] for o in range(offsets)])
        return -jnp.sum(jnp.einsum("ojd,ode->je", windows, self.weights) * h)


def sum_of(terms: Mapping[str, Any]) -> Scalar:
    return jnp.sum(jnp.stack(list(terms.values())))


def _broadcasts(shape, target):
    try:
        return jnp.broadcast_shapes(shape, target) == target
    except ValueError:
        return False

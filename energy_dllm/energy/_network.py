"""The hidden network, and the one scalar everything descends."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Key, Scalar
from ._dfa import DFA
from ._landscape import AbstractFreeEnergy, total
from ._neurons import AbstractNeurons
from ._synapses import AbstractSynapse
from ._vocabulary import AbstractVocabulary


class Network(eqx.Module):
    """Neurons and the named synapses between them: a sum of energies, term by term.

    `E(y) = sum_i [<y_i, g_i> - Λ(y_i)] + sum_n E_n(g) - sum_i <a, g_i>`, `g = grad Λ(y)`.

    **Arguments:**

    - `neurons`: the Lagrangian shared by all tokens.
    - `synapses`: energies of `g` by name; the names appear in every report.
    - `bias`: the field `a (D,)` on every token.

    **Raises:** `ValueError` if a synapse is named `neurons`, `bias`, `vocabulary` or `spring`, which are taken.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.energy.RectifiedMemory(8, key=jax.random.key(0))
    network = ed.energy.Network(ed.energy.Tanh(), {"memory": memory}, jnp.zeros(8))
    assert set(network.terms(jnp.ones((3, 8)))) == {"neurons", "memory", "bias"}
    ```
    """

    neurons: AbstractNeurons
    synapses: Mapping[str, AbstractSynapse]
    bias: Float[Array, " D"]

    def __check_init__(self):
        taken = {"neurons", "bias", "vocabulary", "spring"} & set(self.synapses)
        if taken:
            raise ValueError(f"`synapses` has the name {sorted(taken)[0]!r}, which is taken; rename it.")

    def activation(self, y: Float[Array, "L D"]) -> Float[Array, "L D"]:
        """`g = grad Λ(y)`, token by token, `(L, D)`."""
        return jax.vmap(self.neurons.activation)(y)

    def terms(self, y: Float[Array, "L D"], mask: Bool[Array, " L"] | None = None) -> dict[str, Float[Array, " L"]]:
        """Every term of `E` by name, each token by token `(L,)`."""
        return self._terms(y, self.activation(y), mask)

    @property
    def _names(self) -> tuple[str, ...]:
        return "neurons", *self.synapses, "bias"

    def _terms(self, y, g: Array | Mapping[str, Array], mask):
        activations = g if isinstance(g, Mapping) else dict.fromkeys(self._names, g)
        # With y held, d/dg of the first term is y: the Legendre transform's own derivative.
        terms = {"neurons": jnp.sum(y * activations["neurons"], axis=-1) - jax.vmap(self.neurons.lagrangian)(y)}
        if mask is not None:
            terms["neurons"] = jnp.where(mask, terms["neurons"], 0.0)
        terms |= {name: synapse.per_token(activations[name], mask) for name, synapse in self.synapses.items()}
        bias = -activations["bias"] @ self.bias
        terms["bias"] = bias if mask is None else jnp.where(mask, bias, 0.0)
        return terms


class FreeEnergy(AbstractFreeEnergy):
    """The free energy `F` of a passage: hidden network plus vocabulary.

    `F = spring + 1/kappa [sum_i <y_i, g_i> - Λ(y_i) + E(g) - <a, g_i>] - sum_i log sum_w pi_iw exp(b_iw)`

    What a token hears is `y`: the others' context, whose prior is `pi = softmax(<y, U> + c)`. What it says is `g`, its
    neurons and its voice, `g = grad Λ(y) + kappa sum_w (p_w - pi_w) U_w`: what is known of it beyond what the context
    knew. A token about which nothing is known has no voice; a known one has no prior to be measured against (in `F`
    too, `-<y_i, U_w> - c_w`) and says its pattern, `kappa U_w`. Neurons and voice are one gradient, that of
    `Λ_b = Λ + kappa log sum_w pi_w exp(b_w)`: the vocabulary is a layer of neurons, evidence is their threshold. It is
    told to the others and not to itself, so that no prior counts its own evidence.

    The force is `-dF/dg`, by autodiff of the scalar; the network does not see the noise level: one landscape, on which
    only the evidence `b` changes. Where `Λ_b` is convex `F` cannot rise: under any evidence with a `HMMVocabulary`,
    and with a `Vocabulary` where every token is known or unknown; under soft evidence the latter can be dented where
    the context is less certain than the evidence.

    **Arguments:**

    - `network`: neurons and synapses.
    - `vocabulary`: the token memory.
    - `kappa`: strength of the tokens' voice beside that of the neurons, positive; a learnable leaf.

    **Raises:** `ValueError` if `kappa <= 0` or if network and vocabulary differ in width.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    k1, k2 = jax.random.split(jax.random.key(0))
    network = ed.energy.Network(ed.energy.Tanh(), {"pair": ed.energy.Pairwise(8, key=k1)}, jnp.zeros(8))
    energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(5, 8, key=k2), kappa=4.0)
    y, b = jnp.ones((6, 8)), jnp.zeros((6, 5))
    assert jnp.allclose(energy(y, b), sum(t.sum() for t in energy.terms(y, b).values()))
    ```
    """

    network: Network
    vocabulary: AbstractVocabulary
    log_kappa: Scalar

    def __init__(self, network: Network, vocabulary: AbstractVocabulary, *, kappa: float):
        if not kappa > 0:
            raise ValueError(f"`kappa` is {kappa}; expected a positive number, about half the hidden width.")
        widths = network.bias.shape[-1], vocabulary.patterns.shape[-1]
        if widths[0] != widths[1]:
            raise ValueError(f"`network` has width {widths[0]} but `vocabulary` has width {widths[1]}.")
        self.network = network
        self.vocabulary = vocabulary
        self.log_kappa = jnp.log(jnp.asarray(kappa, jnp.result_type(float)))

    @property
    def kappa(self) -> Scalar:
        """Strength of the tokens' voice beside that of the neurons."""
        return jnp.exp(self.log_kappa)

    @property
    def dim(self) -> int:
        """Hidden width `D`."""
        return self.network.bias.shape[-1]

    @property
    def size(self) -> int:
        """Vocabulary size `V`."""
        return self.vocabulary.patterns.shape[0]

    def neutral(self, length: int) -> Float[Array, "L D"]:
        """The neutral hidden state `y = 0 (L, D)` every relaxation starts from."""
        return jnp.zeros((length, self.dim), self.network.bias.dtype)

    def activation(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """`g = grad Λ(y) + kappa sum_w (p_w - pi_w) U_w (L, D)`, what every token says: the gradient of `Λ_b`."""
        self._check(y, b)
        return self.network.activation(y) + self.kappa * self.vocabulary.message(y, b, mask)

    # Compiled once for every shape, by themselves too where they are not part of something larger.
    @eqx.filter_jit
    def terms(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        spring: Float[Array, " L"] | None = None,
        mask: Bool[Array, " L"] | None = None,
        g: Float[Array, "L D"] | None = None,
    ) -> dict[str, Float[Array, " L"]]:
        """Every term of `F` by name, token by token.

        **Arguments:**

        - `y`: hidden state `(L, D)`.
        - `b`: evidence `(L, V)`, log-likelihoods in nats.
        - `spring`: the evidence's own energy `(L,)`, `|x_i|^2 / (2 sigma_i^2)` under Gaussian noise.
        - `mask`: which tokens are valid `(L,)`; all of them by default.
        - `g`: what the tokens say `(L, D)`, to hold it while `y` or `b` vary; by default `activation(y, b)`. With `g`
          held `dF/db = -p` exactly, and `dF/dg` is what `force` follows.

        **Returns:** a dict of arrays `(L,)` in nats, whose sum over everything is `F`.

        **Raises:** `ValueError` if `y` or `b` has the wrong shape.
        """
        self._check(y, b)
        g = self.activation(y, b, mask) if g is None else g
        terms = self._spoken(y, g, mask)
        terms["vocabulary"] = self.vocabulary.per_token(y, b, mask)
        if spring is not None:
            terms["spring"] = spring if mask is None else jnp.where(mask, spring, 0.0)
        return terms

    @eqx.filter_jit
    def force(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """`-dF/dg (L, D)` at the hidden state `y`: how every term pulls on every neuron."""
        return -jax.grad(lambda g: total(self._spoken(y, g, mask)))(self.activation(y, b, mask))

    @eqx.filter_jit
    def forces(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> dict[str, Float[Array, "L D"]]:
        """The force of every term by name, each `(L, D)`; their sum is `force`.

        `kappa` times that of a synapse is what it tells each token; `neurons` is the leak, `-y / kappa`. At rest `y` is
        the sum of all that is told, and the logits `<y, U>` are a sum over terms too. The vocabulary pulls on nobody
        directly: it speaks through `g`.
        """
        g = self.activation(y, b, mask)
        # each term hears a copy of its own: one gradient of the one scalar tells them apart
        copies = dict.fromkeys(self.network._names, g)
        slopes = jax.grad(lambda copies: total(self._spoken(y, copies, mask)))(copies)
        return {name: -slopes[name] for name in copies}

    @eqx.filter_jit
    def logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """`<y, U> + c + b (L, V)`; in a `HMMVocabulary`, `c` is what the other tokens leave to expect."""
        return self.vocabulary.logits(y, b)

    def sample(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        tilt: Float[Array, "L V"] | float = 0.0,
        dfa: DFA | None = None,
        key: Key,
    ) -> Int[Array, " L"]:
        """A token for every place `(L,)`, drawn together as the vocabulary has them, those of a passage that the
        `dfa` accepts; `tilt` is added to `b`."""
        return self.vocabulary.sample(y, b + tilt, dfa=dfa, key=key)

    def best(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        tilt: Float[Array, "L V"] | float = 0.0,
        dfa: DFA | None = None,
    ) -> Int[Array, " L"]:
        """The most likely tokens `(L,)` as the vocabulary has them."""
        return self.vocabulary.best(y, b + tilt, dfa=dfa)

    def _spoken(self, y, g, mask):
        """The terms that depend on `g`: one for all, or one for each by name."""
        return {name: value / self.kappa for name, value in self.network._terms(y, g, mask).items()}

    def _check(self, y, b):
        if y.ndim != 2 or y.shape[1] != self.dim:
            raise ValueError(f"`y` has shape {y.shape}; expected (L, {self.dim}). Use `vmap` for a batch.")
        if b.shape != (y.shape[0], self.size):
            raise ValueError(f"`b` has shape {b.shape}; expected ({y.shape[0]}, {self.size}), one row a token.")

"""The free energy that is lowered: hidden network and vocabulary, as one scalar."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._checks import number, one_a_token, positive
from .._types import Key, Scalar
from ._deep import DeepStack, Kept
from ._dfa import DFA
from ._landscape import AbstractFreeEnergy, total
from ._network import Network
from ._neurons import Silent
from ._pattern import PatternVocabulary
from ._synapses import valid
from ._vocabulary import CERTAIN, AbstractUnigram, AbstractVocabulary, MeanFieldVocabulary


class FreeEnergy(AbstractFreeEnergy):
    """The free energy `F` of a passage, hidden network plus vocabulary; a token's input is `y`, its output `g`.

    `F = spring + 1/kappa [sum_i <y_i, g_i> - Λ(y_i) + E(g) - <a, g_i>] + vocabulary(y, b)`,   `g = grad Λ_b(y)`

    where `Λ_b = Λ - kappa vocabulary`: the vocabulary is a layer of neurons whose threshold is the evidence. With the
    `MeanFieldVocabulary` of the default model and `Silent` neurons, `Λ_b = kappa sum_i log sum_w exp(<y_i, U_w> + c_w +
    b_iw)` and `g = kappa sum_w p_w U_w`, 0 for a token without evidence. With a `Vocabulary` the last term is `-sum_i
    log sum_w pi_iw exp(b_iw)`, `pi = softmax(<y, U> + c)` the prior, `g = grad Λ(y) + kappa sum_w (p_w - pi_w) U_w`:
    the neurons' activation plus a message, posterior minus prior, so that no prior counts its own evidence; a known
    token has no prior (its term is `-<y_i, U_w> - c_w`), and its message is its pattern, `kappa U_w`.

    The force is `-dF/dg`, by autodiff of the scalar; the network does not depend on the noise level: one landscape, on
    which only the evidence `b` changes. Where `Λ_b` is convex `F` cannot rise: under any evidence with a mean-field or
    an `HMMVocabulary`, with a `Vocabulary` where every token is known or unknown or the prior more certain than `b`.

    **Arguments:**

    - `network`: neurons and synapses.
    - `vocabulary`: the token memory.
    - `kappa`: strength of the messages beside the activations of the neurons, positive; a learnable leaf.

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
        number("kappa", kappa, positive, "a positive number, such as 1.0")
        self.network, self.vocabulary = network, vocabulary
        self.log_kappa = jnp.log(jnp.asarray(kappa, jnp.result_type(float)))

    def __check_init__(self):
        width, other = self.network.bias.shape[-1], self.vocabulary.patterns.shape[-1]
        if width != other:
            raise ValueError(f"`network` has width {width} but `vocabulary` has width {other}.")

    @property
    def kappa(self) -> Scalar:
        """Strength of the messages beside the activations of the neurons."""
        return jnp.exp(self.log_kappa)

    @property
    def one_shot(self) -> bool:
        """Whether tokens that are known or unknown are at rest after one full step, their messages being constant."""
        vocabulary, neurons = self.vocabulary, self.network.neurons
        return isinstance(vocabulary, MeanFieldVocabulary) and isinstance(neurons, Silent) and not vocabulary.feedback

    @property
    def ragged(self) -> bool:
        """Whether tokens are independent given `y`, and no layout says how many there are."""
        return isinstance(self.vocabulary, AbstractUnigram) and self.vocabulary.allowed is None

    @property
    def dim(self) -> int:
        """Hidden width `D`."""
        return self.network.bias.shape[-1]

    @property
    def size(self) -> int:
        """Vocabulary size `V`."""
        return self.vocabulary.patterns.shape[0]

    def neutral(self, length: int) -> Float[Array, "L D"]:
        """`y = 0 (L, D)`."""
        return jnp.zeros((length, self.dim), self.network.bias.dtype)

    def accepted(self, dfa: DFA) -> "FreeEnergy":
        """With a `PatternVocabulary`, where tokens are independent given `y` and silent where nothing is known."""
        base = self.vocabulary
        if not isinstance(base, MeanFieldVocabulary) or base.feedback:
            return self
        return eqx.tree_at(lambda energy: energy.vocabulary, self, PatternVocabulary(base, dfa))

    def activation(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """`g (L, D)`, the gradient of `Λ_b`: by default `kappa sum_w p_w U_w`, see the class."""
        self._check(y, b, mask=mask)
        with jax.named_scope("vocabulary"):
            message = self.kappa * self.vocabulary.message(y, b, mask)
        return self.network.activation(y) + message

    # Jitted on their own, so that they are compiled once for every shape even outside a larger jitted function.
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
        - `spring`: that of the evidence `(L,)`, under Gaussian noise `|x_i|^2 / (2 sigma_i^2) + tau^2 C log sigma_i`.
        - `mask`: which tokens are valid `(L,)`; all of them by default.
        - `g`: activations `(L, D)`, to hold them fixed while `y` or `b` vary; by default `activation(y, b)`. At fixed
          `g`, `dF/db = -p` exactly, and `-dF/dg` is the `force`.

        **Returns:** a dict of arrays `(L,)` in nats, whose sum over everything is `F`.

        **Raises:** `ValueError` if `y`, `b`, `spring` or `mask` has the wrong shape.
        """
        self._check(y, b, spring=spring, mask=mask)
        g = self.activation(y, b, mask) if g is None else g
        terms = self._by_name(y, g, mask)
        with jax.named_scope("vocabulary"):
            terms["vocabulary"] = self.vocabulary.per_token(y, b, mask)
        if spring is not None:
            terms["spring"] = valid(spring, mask)
        return terms

    @eqx.filter_jit
    def force(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """The force `-dF/dg (L, D)` at the hidden state `y`."""
        return -jax.grad(lambda g: total(self._by_name(y, g, mask)))(self.activation(y, b, mask))

    @eqx.filter_jit
    def forces(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> dict[str, Float[Array, "L D"]]:
        """The force of every term by name, each `(L, D)`; their sum is `force`.

        `kappa` times that of a synapse is its message to each token; `neurons` is the leak, `-y / kappa`. At rest `y`
        and `<y, U>` are sums over all messages. The vocabulary has no force of its own: it acts through `g`.
        """
        totals = lambda g: {name: jnp.sum(term) for name, term in self._by_name(y, g, mask).items()}
        terms, pull = jax.vjp(totals, self.activation(y, b, mask))
        none = jax.tree.map(jnp.zeros_like, terms)
        layers = {name: none[name] for name in terms if name not in {"neurons", "bias", *self.network.synapses}}
        forces = {name: -pull({**none, name: jnp.ones_like(none[name])})[0] for name in terms if name not in layers}
        if layers:  # one program for all layers of a stack, which share their way back
            names = list(layers)
            each = jax.vmap(lambda seed: -pull(none | dict(zip(names, seed, strict=True)))[0])
            forces |= dict(zip(names, each(jnp.eye(len(names), dtype=none[names[0]].dtype)), strict=True))
        return {name: forces[name] for name in terms}

    @property
    def block(self) -> int:
        """Tokens of a block of a deep energy in which a token reads its own block and all before it, `F = sum_k
        F_k(block k | blocks before)`, where what is before does not depend on it; 0 where it reads the whole."""
        return self._stack.block if self._stack else 0

    def in_blocks(self, block: int) -> "FreeEnergy":
        """With blocks of so many tokens, 0 for the whole; `ValueError` if it is not deep, on grids, or `block` < 0."""
        return self._with(lambda stack: stack.in_blocks(block))

    def kept(self, ids: Int[Array, " L"]) -> Kept:
        """Keys and values of every layer, what later tokens read of these; `ValueError` if the energy is not deep."""
        return self._deep.kept(self.kappa * self.vocabulary.patterns[ids])

    def unwritten(self, length: int) -> Kept:
        """`kept` of `length` tokens before the first is known, as in the example of `next`. `ValueError` as there."""
        return self._deep.unwritten(length)

    def after(self, kept: Kept, count: Int[Array, ""] | int, length: int) -> "FreeEnergy":
        """`F_k(block | before)`: the energy of the `length` tokens behind the first `count` of those that were kept.

        **Arguments:**

        - `kept`: as by `kept`, of a passage of any length; what is kept from place `count` on is not read.
        - `count`: tokens that stand before the block, also a traced number.
        - `length`: tokens of the block, those of `y (length, D)` and `b (length, V)` of the energy that is returned.

        **Raises:** `ValueError` if the energy is not a deep one.

        **Example:**

        ```python
        import jax, jax.numpy as jnp, energy_dllm as ed

        model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, blocks=(4,), key=jax.random.key(0))
        ids = jnp.array([0, 1, 2, 0, 1, 1, 2, 0])
        kept = model.energy.kept(ids)
        block = model.energy.after(kept, 4, 4)  # the second block of four
        y = block.force(block.neutral(4), jnp.zeros((4, 3)))
        assert y.shape == (4, 16)
        again = model.energy.extended(kept, ids[4:], 4)  # and what is kept when it is known
        assert all(map(jnp.allclose, jax.tree.leaves(again), jax.tree.leaves(kept)))
        ```
        """
        return self._with(lambda stack: stack.after(kept, count, length))

    def extended(self, kept: Kept, ids: Int[Array, " L"], start: Int[Array, ""] | int) -> Kept:
        """`kept`, of a longer passage, with keys and values of the known tokens `ids` from place `start` on: one pass.
        What is kept before `start` is read, what is kept behind `ids` left as it is. An example is at `after`."""
        return self._deep.extend(self.kappa * self.vocabulary.patterns[ids], kept, start)[1]

    def next(self, kept: Kept, last: Int[Array, "*n"], count: Int[Array, ""] | int) -> tuple[Float[Array, "n D"], Kept]:
        """State at rest of the token behind the first `count`, of which `last` is the last, and `kept` with what is
        kept of it: for text that is read token by token. With a shift `last` may be several, read at once.

        A token that is not known and that nobody reads is compared with nothing, so that the force on it is what the
        layers add at it, `y = a + sum_k Delta_k`: one pass, as one full step of `relax` from neutral.

        **Arguments:**

        - `kept`: of a passage of any length, as by `kept`, tokens in the last axis but one.
        - `last`: id of the last of the first `count` tokens (not looked at where that is 0), or several `(n,)`.
        - `count`: how many tokens stand.

        **Raises:** `ValueError` if the energy is not a deep one, or `last` are several tokens without a shift.

        **Example:**

        ```python
        import jax, jax.numpy as jnp, energy_dllm as ed

        model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, blocks=(0, 1), key=jax.random.key(0))
        energy, ids = model.energy.in_blocks(1), jnp.array([0, 1, 2, 0])
        kept = energy.next(energy.unwritten(4), ids[0], 0)[1]
        y, kept = energy.next(kept, ids[0], 1)  # after the first
        log_p = jax.nn.log_softmax(energy.logits(y, jnp.zeros((1, 3))))
        assert jnp.allclose(log_p[0, ids[1]], energy.in_order(ids)[1], atol=1e-5)
        ```
        """
        g, stack = self.kappa * self.vocabulary.patterns[jnp.atleast_1d(last)], self._deep.in_blocks(1)
        if stack.shift:  # it is read where the last token stands
            added, kept = stack.extend(g, kept, count - 1)
            return self._at_rest(added), kept
        if g.shape[0] > 1:
            raise ValueError(f"`last` are {g.shape[0]} tokens; expected one, as the read-out is not shifted.")
        g = jnp.where(jnp.arange(2)[:, None] < jnp.minimum(count, 1), g, 0.0)  # else in a row of its own
        added, kept = stack.extend(g, kept, jnp.maximum(count - 1, 0))
        return self._at_rest(jax.lax.dynamic_slice_in_dim(added, jnp.minimum(count, 1), 1)), kept

    def side_by_side(self, ids: Int[Array, " L"], block: Int[Array, ""] | int) -> "FreeEnergy":
        """`sum_k F_k(block k | true tokens before it)`: all blocks of `block` tokens at once, to train and measure.

        The last may be shorter. `ValueError` as in `after`.
        """
        return self._with(lambda stack: stack.side_by_side(self.kappa * self.vocabulary.patterns[ids], block))

    @property
    def _deep(self) -> DeepStack:
        if self._stack is None:
            raise ValueError("`energy` has no blocks and keeps nothing of a text; expected a `DeepStack` alone.")
        return self._stack

    @property
    def _stack(self) -> DeepStack | None:
        stack, *others = *self.network.synapses.values(), None  # keys and values are those of the stack alone
        return stack if isinstance(stack, DeepStack) and len(others) == 1 and self.one_shot else None

    def _with(self, change: Callable[[DeepStack], DeepStack]) -> "FreeEnergy":
        return eqx.tree_at(lambda energy: energy._deep, self, change(self._deep))

    @eqx.filter_jit
    def logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """`<y, U> + c + b (L, V)`; in an `HMMVocabulary`, `c` are the cavity logits."""
        return self.vocabulary.logits(y, b)

    def log_likelihood(self, ids: Int[Array, " L"]) -> Scalar:
        """`log P(ids)` by one evaluation of the energy: `F` of the empty passage at rest less `F` of the text, nats.

        Exact where `E` is the functional of a law of passages; its distance from the bound and from the chain rule is
        that of `E` from such a functional. In blocks of one token it is the chain rule. Of a `one_shot` energy only.
        """
        if not self.one_shot:
            raise ValueError("`log_likelihood` needs an energy with `MeanFieldVocabulary` and `Silent` neurons.")
        y = self.neutral(ids.shape[0])
        if self.block == 1:
            return jnp.sum(self.in_order(ids))
        seen = jnp.arange(self.size) == ids[:, None]
        known = jnp.where(seen, 0.0, -2.0 * CERTAIN).astype(y.dtype)
        return self(y, jnp.zeros_like(known)) - self(y, known)

    def in_order(self, ids: Int[Array, " L"]) -> Float[Array, " L"]:
        """`log p(token_i | those before it) (L,)`, nats, by the chain rule. `ValueError` if the energy is not deep."""
        return jnp.take_along_axis(self.conditionals(ids), ids[:, None], axis=-1)[:, 0]

    def conditionals(self, ids: Int[Array, " L"]) -> Float[Array, "L V"]:
        """`log p(w at place i | the tokens before it) (L, V)` of a text that is read from left to right.

        At rest as in `next`: two passes, or one if shifted. `ValueError` too.
        """
        g, stack = self.kappa * self.vocabulary.patterns[ids], self._deep.in_blocks(1)
        y = self._at_rest(stack.added(g) if stack.shift else stack.side_by_side(g, 1).added(jnp.zeros_like(g)))
        return jax.nn.log_softmax(self.logits(y, jnp.zeros((ids.shape[0], self.size), y.dtype)))

    def _at_rest(self, added: Float[Array, "L W"]) -> Float[Array, "L D"]:
        """State of tokens that nobody reads, from what the layers add at them."""
        return self.network.bias + jnp.pad(added, ((0, 0), (self.dim - added.shape[1], 0)))

    def sample(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        tilt: Float[Array, "L V"] | float = 0.0,
        dfa: DFA | None = None,
        key: Key | None,
    ) -> Int[Array, " L"]:
        """A token for every place `(L,)` by the vocabulary, drawn or (`key=None`) the most likely, of a passage that
        the `dfa` accepts; `tilt` is added to `b`."""
        return self.vocabulary.sample(y, b + tilt, dfa=dfa, key=key)

    def _by_name(self, y, g, mask):
        """The terms that depend on `g`: one for all, or one for each by name."""
        return {name: value / self.kappa for name, value in self.network.terms(y, mask, g=g).items()}

    def _check(self, y, b, **others):
        if y.ndim != 2 or y.shape[1] != self.dim:
            raise ValueError(f"`y` has shape {y.shape}; expected (L, {self.dim}). Use `vmap` for a batch.")
        if b.shape != (y.shape[0], self.size):
            raise ValueError(f"`b` has shape {b.shape}; expected ({y.shape[0]}, {self.size}), one row a token.")
        one_a_token(y.shape[0], **others)

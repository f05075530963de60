"""The interface of every free energy of a passage, and products of them, which its operators make."""

import abc
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import concrete, one_a_token
from .._types import Key, Scalar
from ._dfa import DFA, chosen
from ._synapses import valid


class AbstractFreeEnergy(eqx.Module):
    """The free energy `F(y; b)` of a passage: hidden state `y (L, D)`, evidence `b (L, V)`.

    `FreeEnergy` is learned, `Empirical` is the exact one of a data set; every field, `solve`, `EnergyDLLM` and
    `generate` take any of them. To add one, write the abstract members below.

    One that has the member `ragged`, and has it true, is one in which tokens outside of a `mask` change nothing for the
    others, in `logits` and `sample` too, which have none: passages are padded then, and one compiled program serves
    several lengths. One that has `accepted(dfa)` knows the energy of the passages that an automaton accepts, all others
    ruled out: flows under a pattern move on it (`DFA.on`).
    """

    # each narrows it, and an override of any other AbstractVar must be of equal type
    vocabulary: eqx.AbstractVar[Any]

    @property
    @abc.abstractmethod
    def kappa(self) -> Scalar:
        """Strength of the messages of the tokens beside the activations of the neurons; the unit of relaxation time."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Hidden width `D`."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Vocabulary size `V`."""

    @abc.abstractmethod
    def neutral(self, length: int) -> Float[Array, "L D"]:
        """The neutral hidden state `y (L, D)` every relaxation starts from."""

    @abc.abstractmethod
    def terms(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        spring: Float[Array, " L"] | None = None,
        mask: Bool[Array, " L"] | None = None,
    ) -> dict[str, Float[Array, " L"]]:
        """Every term of `F` by name, token by token, in nats."""

    @abc.abstractmethod
    def force(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """The force `-dF/dg (L, D)`."""

    @abc.abstractmethod
    def forces(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> dict[str, Float[Array, "L D"]]:
        """The force of every term by name, each `(L, D)`; their sum is `force`."""

    @abc.abstractmethod
    def logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """The log posterior over tokens `(L, V)`, up to a constant per token."""

    @abc.abstractmethod
    def sample(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        tilt: Float[Array, "L V"] | float = 0.0,
        dfa: DFA | None = None,
        key: Key | None,
    ) -> Int[Array, " L"]:
        """A token for every place `(L,)`, together where the joint posterior is known: drawn, or the most likely ones
        if `key` is `None`. `tilt` is added to the log posterior. With a `dfa` the passage is one that it accepts."""

    def __call__(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        spring: Float[Array, " L"] | None = None,
        mask: Bool[Array, " L"] | None = None,
    ) -> Scalar:
        """`F`, the sum of `terms`; same arguments."""
        return total(self.terms(y, b, spring=spring, mask=mask))

    def posterior(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """`p = softmax(logits) (L, V)`, the posterior over tokens."""
        return jax.nn.softmax(self.logits(y, b), axis=-1)

    def __rmul__(self, weight: Scalar | float) -> "AbstractFreeEnergy":
        """`weight * energy`: the distribution to that power, a `ProductOfExperts` of one."""
        return ProductOfExperts([self], [weight])

    def __mul__(self, weight: Scalar | float) -> "AbstractFreeEnergy":
        """`energy * weight`, as `weight * energy`."""
        return weight * self

    def __neg__(self) -> "AbstractFreeEnergy":
        """`-1 * energy`."""
        return -1.0 * self

    def __add__(self, other: "AbstractFreeEnergy") -> "AbstractFreeEnergy":
        """`one + another`: the product of both distributions, a `ProductOfExperts`."""
        return ProductOfExperts([self, other], [1.0, 1.0])

    def __sub__(self, other: "AbstractFreeEnergy") -> "AbstractFreeEnergy":
        """`one - another`: a `ProductOfExperts` with weight -1 for the other."""
        return ProductOfExperts([self, other], [1.0, -1.0])

    def denoised(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L C"]:
        """`x_hat = sum_w p_w e_w (L, C)`."""
        return self.posterior(y, b) @ self.vocabulary.codes


class ProductOfExperts(AbstractFreeEnergy):
    """The normalised product `prod_n p_n^(w_n)` of several free energies; `(1 + w) A - w B` is guidance of `A` away
    from `B`.

    `F = sum_n w_n F_n(y_n; b) + (1 - sum_n w_n) F_0(b)`, where `F_0` is that of uniform independent tokens: the
    evidence counts once, whatever the weights. Each expert keeps its own neurons, `y = (y_1, y_2, ...)`, at rest on its
    own energy, so that `F` is stationary where all of them rest; of a complete text `F` is `-sum_n w_n log p_n`, up to
    a constant. Tokens are drawn from `p ~ exp(b) prod_n pi_n^(w_n)`, exact for one token given the others: Gibbs
    sampling (`remask_rounds`) leads to the exact distribution. Under Gaussian noise that is not `-dF/db`, the weighted
    sum of the posteriors, and the flow is approximate.

    Usually written `1.5 * one - 0.5 * another`.

    **Arguments:**

    - `landscapes`: over one vocabulary.
    - `weights`: `w_n (N,)`, negative for an expert to be avoided.

    **Raises:** `ValueError` if numbers, vocabularies or codes differ.

    **Source:** products of experts (Hinton 2002); guidance without a classifier (Ho & Salimans 2022, arXiv 2207.12598).

    ??? cite "Reference"

        ```bibtex
        @article{hinton2002training,
          title={Training Products of Experts by Minimizing Contrastive Divergence},
          author={Hinton, Geoffrey E.},
          journal={Neural Computation}, volume={14}, number={8}, pages={1771--1800},
          year={2002}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    one, two = (ed.EnergyDLLM(ed.data.Characters("ab"), dim=8, key=jax.random.key(n)).energy for n in range(2))
    sharp = 1.5 * one - 0.5 * two
    y, b = sharp.neutral(4), jnp.zeros((4, 2))
    assert jnp.allclose(sharp(y, b), 1.5 * one(y[:, :8], b) - 0.5 * two(y[:, 8:], b))
    ```
    """

    landscapes: tuple[AbstractFreeEnergy, ...]
    weights: Float[Array, " N"]

    def __init__(
        self, landscapes: Sequence[AbstractFreeEnergy], weights: Float[Array, " N"] | Sequence[Scalar | float]
    ):
        # arrays, so that another weight is not another program; a product of products is one product
        if len(landscapes) != len(weights) or not landscapes:
            raise ValueError(
                f"`weights` has {len(weights)} numbers for {len(landscapes)} `landscapes`; expected one each."
            )
        parts: list[tuple[Scalar | float, AbstractFreeEnergy]] = []
        for weight, whole in zip(weights, landscapes, strict=True):
            if isinstance(whole, ProductOfExperts):
                parts += [(weight * own, part) for own, part in zip(whole.weights, whole.landscapes, strict=True)]
            else:
                parts.append((weight, whole))
        self.landscapes = tuple(part for _, part in parts)
        self.weights = jnp.asarray([weight for weight, _ in parts], jnp.result_type(float))
        first, *others = (landscape.vocabulary.codes for landscape in self.landscapes)
        differ = lambda codes: concrete((codes, first)) and not np.array_equal(np.asarray(codes), np.asarray(first))
        if any(codes.shape != first.shape or differ(codes) for codes in others):
            raise ValueError("`landscapes` differ in their token codes; expected one vocabulary, encoded alike.")

    @property
    def vocabulary(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the first landscape; the codes are those of all."""
        return self.landscapes[0].vocabulary

    @property
    def kappa(self) -> Scalar:
        """1: that of every expert is in its force."""
        return jnp.ones((), self.weights.dtype)

    @property
    def dim(self) -> int:
        """The hidden widths together."""
        return sum(landscape.dim for landscape in self.landscapes)

    @property
    def size(self) -> int:
        """Vocabulary size `V`."""
        return self.landscapes[0].size

    def neutral(self, length: int) -> Float[Array, "L D"]:
        """Those of the experts, concatenated."""
        return jnp.concatenate([landscape.neutral(length) for landscape in self.landscapes], axis=-1)

    def terms(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        spring: Float[Array, " L"] | None = None,
        mask: Bool[Array, " L"] | None = None,
    ) -> dict[str, Float[Array, " L"]]:
        """Those of the landscapes, weighted, under their names and numbers; `evidence`, so that it counts once."""
        one_a_token(b.shape[0], spring=spring, mask=mask)
        terms = {
            f"{name} {n}": weight * term
            for n, weight, landscape, own in self._each(y)
            for name, term in landscape.terms(own, b, mask=mask).items()
        }
        uniform = jnp.log(self.size) - jax.nn.logsumexp(b, axis=-1)
        terms["evidence"] = (1.0 - jnp.sum(self.weights)) * valid(uniform, mask)
        return terms if spring is None else terms | {"spring": valid(spring, mask)}

    def force(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """`-kappa_n dF_n/dg_n` of each on its own neurons: all descend, whatever the sign of their weight."""
        pulls = [landscape.kappa * landscape.force(own, b, mask=mask) for _, _, landscape, own in self._each(y)]
        return jnp.concatenate(pulls, axis=-1)

    def forces(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> dict[str, Float[Array, "L D"]]:
        """Those of the landscapes by name and number, each on its own neurons; their sum is `force`."""
        forces, before = {}, 0
        for n, _, landscape, own in self._each(y):
            behind = self.dim - before - landscape.dim
            for name, force in landscape.forces(own, b, mask=mask).items():
                forces[f"{name} {n}"] = jnp.pad(landscape.kappa * force, ((0, 0), (before, behind)))
            before += landscape.dim
        return forces

    def logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """`b + sum_n w_n log pi_n (L, V)`, `pi_n` being the prior of each given the other tokens."""
        return b + sum(weight * (landscape.logits(own, b) - b) for _, weight, landscape, own in self._each(y))

    def sample(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        tilt: Float[Array, "L V"] | float = 0.0,
        dfa: DFA | None = None,
        key: Key | None,
    ) -> Int[Array, " L"]:
        """A token for every place, independently from its posterior, the only one known of a product. With a `dfa`,
        conditional on being accepted."""
        return chosen(self.logits(y, b) + tilt, dfa, key)

    def _each(self, y):
        """Number, weight, landscape and its neurons."""
        cuts = [sum(landscape.dim for landscape in self.landscapes[:n]) for n in range(1, len(self.landscapes))]
        own = jnp.split(y, cuts, axis=-1)
        return [(n + 1, self.weights[n], landscape, own[n]) for n, landscape in enumerate(self.landscapes)]


def total(terms: dict[str, Float[Array, " L"]]) -> Scalar:
    return jnp.sum(jnp.stack([jnp.sum(term) for term in terms.values()]))

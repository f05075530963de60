"""What every free energy of a passage answers, whatever it is made of."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Key, Scalar
from ._dfa import DFA


class AbstractFreeEnergy(eqx.Module):
    """The free energy `F(y; b)` of a passage: hidden state `y (L, D)`, evidence `b (L, V)`.

    `FreeEnergy` is the one that is learned, `Empirical` the exact one of a data set; every field, `solve`,
    `EnergyDLLM` and `generate` take either. To add one, write the members below that are abstract.
    """

    vocabulary: eqx.AbstractVar[Any]

    @property
    @abc.abstractmethod
    def kappa(self) -> Scalar:
        """Strength of the vocabulary's drive on the neurons, the unit of relaxation time."""

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
        """`-dF/dg (L, D)`: how every term pulls on every neuron."""

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
        key: Key,
    ) -> Int[Array, " L"]:
        """A token for every place `(L,)`, drawn together where it is known how they belong together; `tilt` is added
        to the log posterior. With a `dfa` all of them are a passage that it accepts."""

    @abc.abstractmethod
    def best(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        tilt: Float[Array, "L V"] | float = 0.0,
        dfa: DFA | None = None,
    ) -> Int[Array, " L"]:
        """The most likely tokens `(L,)`, together where it is known how they belong together, else each by itself;
        arguments as of `sample`."""

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
        """`weight * landscape`: the law to that power, a `ProductOfExperts` of one."""
        from ._product import ProductOfExperts

        return ProductOfExperts([self], [weight])

    def __add__(self, other: "AbstractFreeEnergy") -> "AbstractFreeEnergy":
        """`one + another`: the law of both together, their `ProductOfExperts`."""
        from ._product import ProductOfExperts

        return ProductOfExperts([self, other], [1.0, 1.0])

    def __sub__(self, other: "AbstractFreeEnergy") -> "AbstractFreeEnergy":
        """`one - another`: away from what the other likes."""
        from ._product import ProductOfExperts

        return ProductOfExperts([self, other], [1.0, -1.0])

    def denoised(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L C"]:
        """`x_hat = sum_w p_w e_w (L, C)`."""
        return self.posterior(y, b) @ self.vocabulary.codes


def total(terms: dict[str, Float[Array, " L"]]) -> Scalar:
    return jnp.sum(jnp.stack([jnp.sum(term) for term in terms.values()]))

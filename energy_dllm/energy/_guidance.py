"""Guidance: any differentiable scalar of the posterior, added to a free energy with a weight."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Key, Scalar
from ._dfa import DFA
from ._landscape import AbstractFreeEnergy
from ._padded import AbstractWrapped


class Guidance(eqx.Module):
    """A scalar `E(p)` of the posterior `p (L, V)` that is added to the free energy. `2.0 * one + another` is guidance
    too.

    **Arguments:**

    - `function`: `p (L, V)` to a scalar in nats, differentiable: a count, a distance, any Equinox classifier.
    - `weight`: its strength; negative for the opposite.
    - `name`: under which it appears among the terms; with a number, as `guidance 2`, where a term has that name.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    fewer = ed.energy.Guidance(lambda p: jnp.sum(p[:, 0]), name="as") + 2.0 * ed.energy.Guidance(
        lambda p: -jnp.sum(p[:, 1])
    )
    assert float(fewer(jnp.ones((3, 2)) / 2)) == 1.5 - 3.0
    ```
    """

    function: Callable[[Float[Array, "L V"]], Scalar]
    weight: Scalar
    name: str = eqx.field(static=True)

    def __init__(
        self, function: Callable[[Float[Array, "L V"]], Scalar], weight: Scalar | float = 1.0, name: str = "guidance"
    ):
        # an array, so that another strength is not another program
        self.function, self.weight, self.name = function, jnp.asarray(weight, jnp.result_type(float)), name

    def __call__(self, p: Float[Array, "L V"]) -> Scalar:
        """`weight * E(p)` in nats."""
        return self.weight * self.function(p)

    def on(self, energy: AbstractFreeEnergy) -> AbstractFreeEnergy:
        """The free energy with this added, for every motion and sampler.

        Guidance acts as evidence that depends on the posterior: `b' = b - dE/dp` at `p = p(y, b)`, one step of the
        mean-field equations of `F + E`, and `F' = F(y, b') + E(p) - <p, dE/dp>`. Where `E` is linear in `p` it is
        exact.
        """
        return GuidedEnergy(energy, self)

    def __rmul__(self, strength: Scalar | float) -> "Guidance":
        return Guidance(self.function, strength * self.weight, self.name)

    def __mul__(self, strength: Scalar | float) -> "Guidance":
        return strength * self

    def __add__(self, other: "Guidance") -> "Guidance":
        name = self.name if self.name == other.name else f"{self.name} + {other.name}"
        return Guidance(Both(self, other), 1.0, name)


class Both(eqx.Module):
    """The sum of two guidance terms."""

    one: Guidance
    two: Guidance

    def __call__(self, p: Float[Array, "L V"]) -> Scalar:
        """Their sum."""
        return self.one(p) + self.two(p)


class GuidedEnergy(AbstractWrapped):
    """A free energy with guidance added: `Guidance.on`."""

    base: AbstractFreeEnergy
    guidance: Guidance

    def __init__(self, base: AbstractFreeEnergy, guidance: Guidance):
        self.base, self.guidance = base, guidance

    def accepted(self, dfa: DFA) -> AbstractFreeEnergy:
        """Guidance of the accepted passages of the base."""
        return GuidedEnergy(dfa.on(self.base), self.guidance)

    def terms(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        spring: Float[Array, " L"] | None = None,
        mask: Bool[Array, " L"] | None = None,
    ) -> dict[str, Float[Array, " L"]]:
        """Those of the base under `b'`, and the guidance in equal parts."""
        p = self.base.posterior(y, b)
        cost, pull = jax.value_and_grad(self.guidance)(p)
        here = jnp.ones(b.shape[0], bool) if mask is None else mask
        share = (cost - jnp.sum(p * pull)) / jnp.maximum(jnp.sum(here), 1)
        terms = self.base.terms(y, b - pull, spring=spring, mask=mask)
        name, number = self.guidance.name, 1
        while name in terms:
            number += 1
            name = f"{self.guidance.name} {number}"
        return {**terms, name: jnp.where(here, share, 0.0)}

    def force(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """That of the base under `b'`."""
        return self.base.force(y, self._pulled(y, b), mask=mask)

    def forces(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> dict[str, Float[Array, "L D"]]:
        """That of the base under `b'`."""
        return self.base.forces(y, self._pulled(y, b), mask=mask)

    def logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """That of the base under `b'`."""
        return self.base.logits(y, self._pulled(y, b))

    def sample(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        tilt: Float[Array, "L V"] | float = 0.0,
        dfa: DFA | None = None,
        key: Key | None,
    ) -> Int[Array, " L"]:
        """That of the base under `b'`."""
        return self.base.sample(y, self._pulled(y, b), tilt=tilt, dfa=dfa, key=key)

    def _pulled(self, y, b):
        return b - jax.grad(self.guidance)(self.base.posterior(y, b))

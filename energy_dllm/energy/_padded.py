"""Free energies that wrap another one; and passages that are shorter than their arrays."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Key, Scalar
from ._dfa import DFA
from ._landscape import AbstractFreeEnergy


class AbstractWrapped(AbstractFreeEnergy):
    """A free energy that changes some of the members of another, its `base`."""

    base: eqx.AbstractVar[AbstractFreeEnergy]

    @property
    def vocabulary(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the base."""
        return self.base.vocabulary

    @property
    def kappa(self) -> Scalar:
        """That of the base."""
        return self.base.kappa

    @property
    def dim(self) -> int:
        """Hidden width `D`."""
        return self.base.dim

    @property
    def size(self) -> int:
        """Vocabulary size `V`."""
        return self.base.size

    def neutral(self, length: int) -> Float[Array, "L D"]:
        """That of the base."""
        return self.base.neutral(length)


class Padded(AbstractWrapped):
    """A `ragged` free energy of passages that are shorter than their arrays: what lies behind has no energy, no force,
    and no effect on the others.

    **Arguments:**

    - `base`: the free energy.
    - `here`: which tokens are those of the passage `(L,)`.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    padded = ed.energy.Padded(model.energy, jnp.arange(8) < 5)
    y, b = model.energy.neutral(8), jnp.zeros((8, 3))
    assert jnp.allclose(padded(y, b), model.energy(y[:5], b[:5]), atol=1e-5)
    ```
    """

    base: AbstractFreeEnergy
    here: Bool[Array, " L"]

    def __init__(self, base: AbstractFreeEnergy, here: Bool[Array, " L"]):
        self.base, self.here = base, here

    def accepted(self, dfa: DFA) -> "Padded":
        """That of the base, which the automaton is about; it reads nothing behind the passage."""
        return Padded(dfa.on(self.base), self.here)

    def terms(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        spring: Float[Array, " L"] | None = None,
        mask: Bool[Array, " L"] | None = None,
    ) -> dict[str, Float[Array, " L"]]:
        """Those of the base, 0 of the padding."""
        return self.base.terms(y, b, spring=spring, mask=self._valid(mask))

    def force(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """That of the base, 0 on the padding."""
        return jnp.where(self.here[:, None], self.base.force(y, b, mask=self._valid(mask)), 0.0)

    def forces(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> dict[str, Float[Array, "L D"]]:
        """Those of the base, 0 on the padding."""
        forces = self.base.forces(y, b, mask=self._valid(mask))
        return {name: jnp.where(self.here[:, None], force, 0.0) for name, force in forces.items()}

    def logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """Those of the base."""
        return self.base.logits(y, b)

    def sample(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        tilt: Float[Array, "L V"] | float = 0.0,
        dfa: DFA | None = None,
        key: Key | None,
    ) -> Int[Array, " L"]:
        """Those of the base."""
        return self.base.sample(y, b, tilt=tilt, dfa=dfa, key=key)

    def _valid(self, mask):
        return self.here if mask is None else self.here & mask

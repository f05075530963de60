"""Passages padded to a few lengths, so that one compiled program serves all lengths up to the next of them."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._checks import on_device
from .._model import EnergyDLLM
from .._types import Key, Scalar
from ..energy import DFA, AbstractFreeEnergy
from ..flow import AbstractEvidence, Conditioning, Given, Likelihood
from ._validate import field


LENGTHS = (16, 32, 64, 96, 128, 192, 256)
"""Beyond them the multiples of the half of the last."""


def padded_length(length: int) -> int:
    """The next of `LENGTHS`."""
    more = LENGTHS[-1] // 2
    return next((each for each in LENGTHS if each >= length), -(-length // more) * more)


def pad(row: ArrayLike, length: int, value: float = 0) -> np.ndarray:
    """An array `(..., L)` filled up along its last axis."""
    row = np.asarray(row)
    return np.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, length - row.shape[-1])], constant_values=value)


def pad_evidence(model: EnergyDLLM, evidence: AbstractEvidence, length: int) -> AbstractEvidence:
    """The evidence, and none about the tokens behind it."""
    return Likelihood(on_device(pad(field(model, evidence).T, length).T))


def pad_conditioning(model: EnergyDLLM, conditioning: Conditioning) -> Conditioning:
    """The padding is given, so that nothing is drawn there; `Padded` gives it no effect."""
    length, given, others = padded_length(conditioning.length), conditioning.given, conditioning.others
    padded = Given(on_device(pad(given.ids, length)), on_device(pad(given.known, length, True)))
    return Conditioning(padded, None if others is None else pad_evidence(model, others, length))


def can_pad(energy: AbstractFreeEnergy, evidence: AbstractEvidence | None, dfa: DFA | None) -> bool:
    """Whether padding changes nothing. A pattern is about the length of the passage, a spring is lost in `b`."""
    return energy.ragged and dfa is None and (evidence is None or not np.asarray(_spring(evidence)).any())


@eqx.filter_jit
def _spring(evidence):
    return evidence.spring()


class Padded(AbstractFreeEnergy):
    """A `ragged` free energy of passages of `size` tokens, those that are `here`; behind them is padding, which has no
    energy, no force, and no effect on the others."""

    base: AbstractFreeEnergy
    here: Bool[Array, " L"]

    def __init__(self, base: AbstractFreeEnergy, size: int):
        self.base, self.here = base, on_device(np.arange(padded_length(size)) < size)

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

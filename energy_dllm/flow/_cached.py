"""A field at one moment, whose evidence and hidden state are computed once for all probes."""

from jaxtyping import Array, Float, PyTree

from .._types import Scalar
from ..energy import AbstractFreeEnergy
from ._field import AbstractField
from .evidence._evidence import AbstractEvidence


class FixedEvidence(AbstractEvidence):
    """Evidence whose log-likelihood `b (L, V)` and spring `(L,)` are computed already."""

    b: Float[Array, "L V"]
    stored: Float[Array, " L"]

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.b.shape[0]

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """`b` itself."""
        return self.b

    def spring(self) -> Float[Array, " L"]:
        """The stored spring."""
        return self.stored


class CachedField(AbstractField):
    """A field at one moment: `y`, `b` and spring are computed once, for any number of probes.

    Evidence validates itself (`eqx.error_if`), and XLA merges neither two checks nor the computations after them. With
    one check it merges the rest: probes that need the same force share it. A probe gets the interface of
    `AbstractField` only.
    """

    of: AbstractField
    now: FixedEvidence
    y: Float[Array, "L D"]

    def __init__(self, of: AbstractField, time: Scalar, state: PyTree[Array]):
        evidence = of.evidence(time, state)
        self.of = of
        self.now = FixedEvidence(evidence.field(of.energy.vocabulary.codes), evidence.spring())
        self.y = of.hidden(time, state)

    @property
    def energy(self) -> AbstractFreeEnergy:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The landscape of the field."""
        return self.of.energy

    @property
    def force_evaluations(self) -> int:
        """Those of the field."""
        return self.of.force_evaluations

    def __call__(self, time: Scalar | float, state: PyTree[Array], args: object = None) -> PyTree[Array]:
        """The motion of the field."""
        return self.of(time, state, args)

    def evidence(self, time: Scalar | float, state: PyTree[Array]) -> AbstractEvidence:
        """The evidence of this moment."""
        return self.now

    def hidden(self, time: Scalar | float, state: PyTree[Array]) -> Float[Array, "L D"]:
        """The hidden state now."""
        return self.y

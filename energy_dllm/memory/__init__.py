"""Recall without training: dense memories of one state, their dynamics and meters, and `TextMemory`."""

# in the order of the API page: what a reader wants first
from ._text import TextMemory as TextMemory
from ._recall import Recall as Recall
from ._sums import (
    HopfieldMemory as HopfieldMemory,
    PolynomialMemory as PolynomialMemory,
    ExponentialMemory as ExponentialMemory,
    SimplicialMemory as SimplicialMemory,
)
from ._minima import LogSumExpMemory as LogSumExpMemory, GaussianMemory as GaussianMemory, KernelMemory as KernelMemory
from ._features import (
    PositiveFeatureMemory as PositiveFeatureMemory,
    TrigonometricFeatureMemory as TrigonometricFeatureMemory,
)
from ._dynamics import Descent as Descent, Langevin as Langevin, glauber as glauber
from ._bridges import TokenMemory as TokenMemory, SequenceMemory as SequenceMemory
from ._meters import (
    retrieval_rate as retrieval_rate,
    capacity as capacity,
    basin as basin,
    Minima as Minima,
)
from ._memorisation import (
    Memorisation as Memorisation,
    CriticalNoise as CriticalNoise,
    effective_memories as effective_memories,
)
from ._states import AbstractMemory as AbstractMemory

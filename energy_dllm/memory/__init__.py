"""Recall without training: dense memories of one state, their dynamics and meters, and `TextMemory`."""

from ._bridges import SequenceMemory as SequenceMemory, TokenMemory as TokenMemory
from ._dynamics import Descent as Descent, Langevin as Langevin, glauber as glauber
from ._features import (
    AbstractFeatureMemory as AbstractFeatureMemory,
    PositiveFeatureMemory as PositiveFeatureMemory,
    TrigonometricFeatureMemory as TrigonometricFeatureMemory,
)
from ._memorisation import (
    CriticalNoise as CriticalNoise,
    Memorisation as Memorisation,
    critical_noise as critical_noise,
    effective_memories as effective_memories,
    memorisation as memorisation,
)
from ._meters import (
    Minima as Minima,
    basin as basin,
    capacity as capacity,
    minima as minima,
    retrieval_rate as retrieval_rate,
)
from ._minima import (
    GaussianMemory as GaussianMemory,
    KernelMemory as KernelMemory,
    LogSumExpMemory as LogSumExpMemory,
)
from ._recall import Recall as Recall
from ._states import (
    AbstractMemory as AbstractMemory,
    AbstractPatternMemory as AbstractPatternMemory,
    AbstractSoftMinimum as AbstractSoftMinimum,
    AbstractSum as AbstractSum,
)
from ._sums import (
    ExponentialMemory as ExponentialMemory,
    HopfieldMemory as HopfieldMemory,
    PolynomialMemory as PolynomialMemory,
    SimplicialMemory as SimplicialMemory,
)
from ._text import TextMemory as TextMemory

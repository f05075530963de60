"""The scalar being lowered: neurons, synapses, the vocabulary, and their sum."""

from ._bridges import SequenceMemory as SequenceMemory, TokenMemory as TokenMemory
from ._empirical import Codes as Codes, Empirical as Empirical
from ._features import (
    AbstractFeatureMemory as AbstractFeatureMemory,
    PositiveFeatureMemory as PositiveFeatureMemory,
    TrigonometricFeatureMemory as TrigonometricFeatureMemory,
)
from ._hypergraph import (
    ConvolutionalSynapse as ConvolutionalSynapse,
    DenseSynapse as DenseSynapse,
    Hyperedge as Hyperedge,
    Hypergraph as Hypergraph,
    Layer as Layer,
)
from ._landscape import AbstractFreeEnergy as AbstractFreeEnergy
from ._language import Language as Language
from ._lines import Chain as Chain, Lines as Lines
from ._markov import MarkovVocabulary as MarkovVocabulary
from ._memories import (
    ConvolutionalMemory as ConvolutionalMemory,
    MappingMemory as MappingMemory,
    RectifiedMemory as RectifiedMemory,
    SoftmaxMemory as SoftmaxMemory,
)
from ._minima import (
    GaussianMemory as GaussianMemory,
    KernelMemory as KernelMemory,
    LogSumExpMemory as LogSumExpMemory,
)
from ._network import FreeEnergy as FreeEnergy, Network as Network
from ._neurons import (
    AbstractNeurons as AbstractNeurons,
    Identity as Identity,
    LayerNorm as LayerNorm,
    Softmax as Softmax,
    Softplus as Softplus,
    Spherical as Spherical,
    Tanh as Tanh,
)
from ._product import Product as Product
from ._states import (
    AbstractMemory as AbstractMemory,
    AbstractPatternMemory as AbstractPatternMemory,
    AbstractSoftMinimum as AbstractSoftMinimum,
    AbstractSum as AbstractSum,
)
from ._steered import Steered as Steered, Wish as Wish
from ._sums import (
    ExponentialMemory as ExponentialMemory,
    HopfieldMemory as HopfieldMemory,
    PolynomialMemory as PolynomialMemory,
    SimplicialMemory as SimplicialMemory,
)
from ._synapses import (
    AbstractAttention as AbstractAttention,
    AbstractSynapse as AbstractSynapse,
    Attention as Attention,
    MappingAttention as MappingAttention,
    Pairwise as Pairwise,
)
from ._vocabulary import AbstractVocabulary as AbstractVocabulary, Vocabulary as Vocabulary

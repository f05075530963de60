"""The scalar being lowered: neurons, synapses, the vocabulary, and their sum."""

from ._dfa import DFA as DFA
from ._empirical import Empirical as Empirical
from ._guidance import Guidance as Guidance, GuidedEnergy as GuidedEnergy
from ._landscape import AbstractFreeEnergy as AbstractFreeEnergy
from ._markov import HMMVocabulary as HMMVocabulary
from ._memories import (
    ConvolutionalMemory as ConvolutionalMemory,
    DenseMemory as DenseMemory,
    MappingMemory as MappingMemory,
)
from ._network import FreeEnergy as FreeEnergy, Network as Network
from ._neurons import (
    AbstractNeurons as AbstractNeurons,
    Identity as Identity,
    LayerNorm as LayerNorm,
    Rectifier as Rectifier,
    Softmax as Softmax,
    Softplus as Softplus,
    Spherical as Spherical,
    Tanh as Tanh,
)
from ._ngram import NGram as NGram, PairHMMMixture as PairHMMMixture
from ._product import ProductOfExperts as ProductOfExperts
from ._synapses import (
    AbstractAttention as AbstractAttention,
    AbstractSynapse as AbstractSynapse,
    Attention as Attention,
    MappingAttention as MappingAttention,
    Pairwise as Pairwise,
)
from ._vocabulary import AbstractVocabulary as AbstractVocabulary, Vocabulary as Vocabulary

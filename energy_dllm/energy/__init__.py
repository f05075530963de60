"""The scalar being lowered: neurons, synapses, the vocabulary, and their sum."""

from ._deep import DeepStack as DeepStack
from ._dfa import DFA as DFA
from ._empirical import Codes as Codes, Empirical as Empirical
from ._guidance import Guidance as Guidance, GuidedEnergy as GuidedEnergy
from ._hypergraph import (
    ConvolutionalSynapse as ConvolutionalSynapse,
    DenseSynapse as DenseSynapse,
    Hyperedge as Hyperedge,
    Hypergraph as Hypergraph,
    Layer as Layer,
)
from ._landscape import AbstractFreeEnergy as AbstractFreeEnergy
from ._markov import HMMVocabulary as HMMVocabulary
from ._memories import (
    ConvolutionalMemory as ConvolutionalMemory,
    MappingMemory as MappingMemory,
    RectifiedMemory as RectifiedMemory,
    SoftmaxMemory as SoftmaxMemory,
)
from ._network import FreeEnergy as FreeEnergy, Network as Network
from ._neurons import (
    AbstractNeurons as AbstractNeurons,
    Identity as Identity,
    LayerNorm as LayerNorm,
    Silent as Silent,
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
from ._vocabulary import (
    AbstractVocabulary as AbstractVocabulary,
    MeanFieldVocabulary as MeanFieldVocabulary,
    Vocabulary as Vocabulary,
)

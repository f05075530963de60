"""The scalar that is lowered: neurons, synapses, vocabularies, and their sum."""

# in the order of the API page: what a reader wants first
from ._free_energy import FreeEnergy as FreeEnergy
from ._network import Network as Network
from ._landscape import AbstractFreeEnergy as AbstractFreeEnergy, ProductOfExperts as ProductOfExperts
from ._deep import DeepStack as DeepStack
from ._neurons import (
    AbstractNeurons as AbstractNeurons,
    Silent as Silent,
    LayerNorm as LayerNorm,
    Tanh as Tanh,
    Softmax as Softmax,
    Rectifier as Rectifier,
    Identity as Identity,
)
from ._synapses import (
    AbstractSynapse as AbstractSynapse,
    AbstractCoupling as AbstractCoupling,
    AbstractRecall as AbstractRecall,
    Pairwise as Pairwise,
    Attention as Attention,
)
from ._memories import (
    ConvolutionalMemory as ConvolutionalMemory,
    DenseMemory as DenseMemory,
    MappingMemory as MappingMemory,
)
from ._vocabulary import (
    AbstractVocabulary as AbstractVocabulary,
    MeanFieldVocabulary as MeanFieldVocabulary,
    Vocabulary as Vocabulary,
)
from ._markov import HMMVocabulary as HMMVocabulary
from ._guidance import Guidance as Guidance
from ._padded import Padded as Padded
from ._empirical import Empirical as Empirical
from ._dfa import DFA as DFA
from ._ngram import NGram as NGram, PairHMMMixture as PairHMMMixture

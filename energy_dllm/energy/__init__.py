"""The scalar that is lowered: neurons, synapses, vocabularies, and their sum."""

# in the order of the API page: what a reader wants first
from ._free_energy import FreeEnergy as FreeEnergy
from ._deep import DeepStack as DeepStack
from ._vocabulary import MeanFieldVocabulary as MeanFieldVocabulary, Vocabulary as Vocabulary
from ._markov import HMMVocabulary as HMMVocabulary
from ._pattern import PatternVocabulary as PatternVocabulary
from ._guidance import Guidance as Guidance
from ._landscape import ProductOfExperts as ProductOfExperts
from ._empirical import Empirical as Empirical
from ._network import Network as Network
from ._synapses import Attention as Attention, Pairwise as Pairwise
from ._memories import (
    ConvolutionalMemory as ConvolutionalMemory,
    DenseMemory as DenseMemory,
    MappingMemory as MappingMemory,
)
from ._neurons import (
    LayerNorm as LayerNorm,
    Tanh as Tanh,
    Softmax as Softmax,
    Rectifier as Rectifier,
    Identity as Identity,
    Silent as Silent,
)
from ._dfa import DFA as DFA
from ._ngram import NGram as NGram, PairHMMMixture as PairHMMMixture
from ._padded import Padded as Padded
from ._synapses import (
    AbstractSynapse as AbstractSynapse,
    AbstractCoupling as AbstractCoupling,
    AbstractRecall as AbstractRecall,
)
from ._neurons import AbstractNeurons as AbstractNeurons
from ._vocabulary import AbstractVocabulary as AbstractVocabulary
from ._landscape import AbstractFreeEnergy as AbstractFreeEnergy

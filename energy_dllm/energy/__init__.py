"""The scalar being lowered: neurons, synapses, the vocabulary, and their sum."""

from ._lines import Chain as Chain, Lines as Lines
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
    Softmax as Softmax,
    Softplus as Softplus,
    Spherical as Spherical,
    Tanh as Tanh,
)
from ._synapses import (
    AbstractSynapse as AbstractSynapse,
    Attention as Attention,
    Pairwise as Pairwise,
)
from ._vocabulary import Vocabulary as Vocabulary

"""From data to parameters: objectives, `fit`, `evaluate`, the twins, and models on disk."""

from ._checkpoint import load as load, notes as notes, save as save, shipped as shipped
from ._distill import Distilling as Distilling
from ._evaluate import Evaluation as Evaluation, evaluate as evaluate
from ._fit import default_optimizer as default_optimizer, fit as fit
from ._flow_map import FlowMap as FlowMap
from ._objective import (
    AbstractObjective as AbstractObjective,
    Denoising as Denoising,
    Masking as Masking,
    MaximumLikelihood as MaximumLikelihood,
    NextToken as NextToken,
)
from ._split_merge import fit_split_merge as fit_split_merge
from ._twins import (
    AbstractTwin as AbstractTwin,
    Autoregressive as Autoregressive,
    MaskedDiffusion as MaskedDiffusion,
    Recurrent as Recurrent,
)

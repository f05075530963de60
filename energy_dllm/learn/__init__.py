"""From data to parameters: objectives, `fit`, `evaluate`, baselines, and models on disk."""

# in the order of the API page: what a reader wants first
from ._fit import fit as fit
from ._optimizer import default_optimizer as default_optimizer
from ._objective import Denoising as Denoising
from ._split_merge import fit_split_merge as fit_split_merge
from ._evaluate import evaluate as evaluate, Evaluation as Evaluation
from ._checkpoint import save as save, load as load, notes as notes, stored as stored, shipped as shipped
from ._checkpoint import save_to_hub as save_to_hub
from ._twins import MaskedDiffusion as MaskedDiffusion, Autoregressive as Autoregressive
from ._twin_objectives import MaximumLikelihood as MaximumLikelihood
from ._flow_map import FlowMap as FlowMap
from ._distill import Distilling as Distilling
from ._mesh import shardings as shardings
from ._objective import AbstractObjective as AbstractObjective
from ._twins import AbstractTwin as AbstractTwin
from ._harness import harness as harness

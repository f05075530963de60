"""The motion: evidence, noise schedules, vector fields, and `solve`."""

from ._error import step_error as step_error
from ._evidence import (
    FORBIDDEN as FORBIDDEN,
    AbstractEvidence as AbstractEvidence,
    Evidences as Evidences,
    Gaussian as Gaussian,
    Masked as Masked,
)
from ._exponential import DDIM as DDIM, ExponentialHeun as ExponentialHeun
from ._field import (
    AbstractField as AbstractField,
    AbstractFlow as AbstractFlow,
    AbstractMotion as AbstractMotion,
    AbstractStochasticField as AbstractStochasticField,
    JointFlow as JointFlow,
    ProbabilityFlow as ProbabilityFlow,
    Relaxation as Relaxation,
    ReverseDiffusion as ReverseDiffusion,
)
from ._flow_map import AbstractFlowMap as AbstractFlowMap
from ._front import Front as Front
from ._layers import LayerRelaxation as LayerRelaxation
from ._likelihood import (
    Continuity as Continuity,
    FlowLikelihood as FlowLikelihood,
    log_likelihood as log_likelihood,
)
from ._matching import Matching as Matching
from ._page import Page as Page, allowed as allowed
from ._path import AbstractPath as AbstractPath, Diffusion as Diffusion
from ._relax import relax as relax
from ._schedule import (
    AbstractSchedule as AbstractSchedule,
    InformationUniform as InformationUniform,
    LogLinear as LogLinear,
)
from ._solve import SteadyState as SteadyState, Trajectory as Trajectory, solve as solve
from ._states import Descent as Descent, Langevin as Langevin, glauber as glauber
from ._tokens import Allowed as Allowed, Given as Given, Likelihood as Likelihood, Typo as Typo
from ._unmask import (
    Draft as Draft,
    Unmasking as Unmasking,
    at_random as at_random,
    least_likely as least_likely,
    left_to_right as left_to_right,
    most_certain as most_certain,
)

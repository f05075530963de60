"""The motion: evidence, noise schedules, vector fields, and `solve`."""

from ._error import step_error as step_error
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
from ._likelihood import (
    FlowLikelihood as FlowLikelihood,
    log_likelihood as log_likelihood,
)
from ._relax import relax as relax
from ._rolling import RollingNoise as RollingNoise
from ._schedule import (
    AbstractSchedule as AbstractSchedule,
    InformationUniform as InformationUniform,
    LogLinear as LogLinear,
)
from ._solve import SteadyState as SteadyState, Trajectory as Trajectory, solve as solve
from .evidence._conditioning import Conditioning as Conditioning
from .evidence._evidence import (
    FORBIDDEN as FORBIDDEN,
    AbstractEvidence as AbstractEvidence,
    Evidences as Evidences,
    Gaussian as Gaussian,
    Masked as Masked,
)
from .evidence._matching import Matching as Matching
from .evidence._tokens import Allowed as Allowed, Given as Given, Likelihood as Likelihood, Typo as Typo

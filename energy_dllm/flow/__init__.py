"""The motion: evidence, noise schedules, vector fields, and `solve`."""

# in the order of the API page: what a reader wants first
from ._solve import solve as solve, Trajectory as Trajectory
from .evidence._evidence import (
    AbstractEvidence as AbstractEvidence,
    Masked as Masked,
    Gaussian as Gaussian,
    Evidences as Evidences,
    FORBIDDEN as FORBIDDEN,
)
from .evidence._tokens import Given as Given, Typo as Typo, Allowed as Allowed, Likelihood as Likelihood
from .evidence._matching import Matching as Matching
from .evidence._conditioning import Conditioning as Conditioning
from ._field import (
    Relaxation as Relaxation,
    ProbabilityFlow as ProbabilityFlow,
    JointFlow as JointFlow,
    ReverseDiffusion as ReverseDiffusion,
)
from ._autonomous import AutonomousDescent as AutonomousDescent
from ._rolling import RollingNoise as RollingNoise
from ._relax import relax as relax
from ._schedule import (
    AbstractSchedule as AbstractSchedule,
    InformationUniform as InformationUniform,
    LogLinear as LogLinear,
)
from ._exponential import DDIM as DDIM, ExponentialHeun as ExponentialHeun
from ._likelihood import FlowLikelihood as FlowLikelihood
from ._field import (
    AbstractField as AbstractField,
    AbstractMotion as AbstractMotion,
)

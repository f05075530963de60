"""The motion: evidence, noise schedules, vector fields, and `solve`."""

# in the order of the API page: what a reader wants first
from ._solve import solve as solve, Trajectory as Trajectory
from .evidence._tokens import Given as Given
from .evidence._evidence import Masked as Masked, Gaussian as Gaussian
from .evidence._tokens import Typo as Typo, Allowed as Allowed, Likelihood as Likelihood
from .evidence._matching import Matching as Matching
from ._field import Relaxation as Relaxation
from ._autonomous import AutonomousDescent as AutonomousDescent
from ._field import ProbabilityFlow as ProbabilityFlow, JointFlow as JointFlow
from ._churn import ReverseDiffusion as ReverseDiffusion
from ._rolling import RollingNoise as RollingNoise
from ._relax import relax as relax
from ._exponential import DDIM as DDIM, ExponentialHeun as ExponentialHeun
from ._schedule import InformationUniform as InformationUniform, LogLinear as LogLinear
from ._likelihood import FlowLikelihood as FlowLikelihood
from .evidence._conditioning import Conditioning as Conditioning
from .evidence._evidence import (
    FORBIDDEN as FORBIDDEN,
    AbstractEvidence as AbstractEvidence,
)
from ._field import AbstractField as AbstractField, AbstractMotion as AbstractMotion
from ._schedule import AbstractSchedule as AbstractSchedule

"""The motion: evidence, noise schedules, vector fields, and `solve`."""

from ._evidence import (
    FORBIDDEN as FORBIDDEN,
    AbstractEvidence as AbstractEvidence,
    Allowed as Allowed,
    Evidences as Evidences,
    Gaussian as Gaussian,
    Given as Given,
    Likelihood as Likelihood,
    Masked as Masked,
    Typo as Typo,
)
from ._field import (
    AbstractField as AbstractField,
    AbstractStochasticField as AbstractStochasticField,
    JointFlow as JointFlow,
    ProbabilityFlow as ProbabilityFlow,
    Relaxation as Relaxation,
    ReverseDiffusion as ReverseDiffusion,
    relax as relax,
)
from ._schedule import (
    AbstractSchedule as AbstractSchedule,
    InformationUniform as InformationUniform,
    LogLinear as LogLinear,
)
from ._solve import SteadyState as SteadyState, Trajectory as Trajectory, solve as solve

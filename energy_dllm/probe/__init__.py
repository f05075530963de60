"""Looking inside: probes along a motion, attribution, landscapes, spectra, checks, and figures."""

# in the order of the API page: what a reader wants first
from ._inspect import inspect as inspect
from ._page import page as page
from ._check import check as check, Health as Health, Finding as Finding
from ._attribution import attribution as attribution, Attribution as Attribution
from ._counterfactual import Counterfactual as Counterfactual
from ._score import score as score, Score as Score
from ._probes import (
    energy_terms as energy_terms,
    free_energy as free_energy,
    energy_by_token as energy_by_token,
    tokens as tokens,
    posterior_entropy as posterior_entropy,
    confidence as confidence,
    attention_pattern as attention_pattern,
)
from ._probes import force_norm as force_norm, dissipation as dissipation, distance_to_rest as distance_to_rest
from ._members import (
    energy_by_part as energy_by_part,
    strongest_memories as strongest_memories,
)
from ._commitment import commitment_time as commitment_time
from ._rest import rest_point as rest_point, Barrier as Barrier
from ._landscape import Landscape as Landscape, Plane as Plane
from ._spectrum import (
    hessian_spectrum as hessian_spectrum,
    relaxation_rates as relaxation_rates,
    lyapunov as lyapunov,
    Spectrum as Spectrum,
)
from .plot._passage import plot_passage as plot_passage
from .plot._animate import animate as animate
from .plot._motion import (
    plot_energy as plot_energy,
    plot_relaxation as plot_relaxation,
    plot_relaxation_curve as plot_relaxation_curve,
)
from .plot._why import (
    plot_attention as plot_attention,
)

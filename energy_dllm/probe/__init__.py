"""Looking: probes along a motion, slices of the landscape, figures, and `inspect`, which does it all."""

from ._attribution import Attribution as Attribution, attribution as attribution
from ._check import Finding as Finding, Health as Health, check as check
from ._commitment import certainty_time as certainty_time, commitment_time as commitment_time
from ._counterfactual import Counterfactual as Counterfactual, counterfactual as counterfactual
from ._inspect import inspect as inspect
from ._landscape import Landscape as Landscape, Plane as Plane, landscape as landscape
from ._members import (
    energy_by_head as energy_by_head,
    energy_by_memory as energy_by_memory,
    force_share as force_share,
    nearest_tokens as nearest_tokens,
    strongest_memories as strongest_memories,
)
from ._page import page as page
from ._probes import (
    attention_pattern as attention_pattern,
    confidence as confidence,
    dissipation as dissipation,
    distance_to_rest as distance_to_rest,
    energy_by_token as energy_by_token,
    energy_terms as energy_terms,
    force_norm as force_norm,
    free_energy as free_energy,
    posterior_entropy as posterior_entropy,
    tokens as tokens,
)
from ._rest import Barrier as Barrier, RestPoint as RestPoint, barrier as barrier, rest_point as rest_point
from ._score import Score as Score, score as score
from ._slices import Profile as Profile, Projection as Projection, profile as profile, project as project
from ._spectrum import (
    Spectrum as Spectrum,
    hessian_spectrum as hessian_spectrum,
    lyapunov as lyapunov,
    relaxation_rates as relaxation_rates,
)
from .plot._animate import animate as animate
from .plot._motion import (
    plot_energy as plot_energy,
    plot_landscape as plot_landscape,
    plot_relaxation as plot_relaxation,
    plot_relaxation_curve as plot_relaxation_curve,
)
from .plot._passage import plot_passage as plot_passage
from .plot._why import (
    plot_attention as plot_attention,
    plot_attribution as plot_attribution,
    plot_barrier as plot_barrier,
    plot_spectrum as plot_spectrum,
)

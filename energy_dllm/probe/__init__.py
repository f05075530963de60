"""Looking: probes along a motion, slices of the landscape, figures, and `inspect`, which does it all."""

from ._attribution import Attribution as Attribution, attribution as attribution
from ._commitment import certainty_time as certainty_time, commitment_time as commitment_time
from ._inspect import inspect as inspect
from ._landscape import Landscape as Landscape, Plane as Plane, landscape as landscape
from ._memorisation import (
    CriticalNoise as CriticalNoise,
    Memorisation as Memorisation,
    critical_noise as critical_noise,
    effective_memories as effective_memories,
    memorisation as memorisation,
)
from ._passage import plot_passage as plot_passage
from ._plot import (
    plot_energy as plot_energy,
    plot_landscape as plot_landscape,
    plot_relaxation as plot_relaxation,
    plot_relaxation_curve as plot_relaxation_curve,
)
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
from ._recall import (
    Minima as Minima,
    basin as basin,
    capacity as capacity,
    minima as minima,
    retrieval_rate as retrieval_rate,
)

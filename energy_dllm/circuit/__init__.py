"""The same motion as an electronic circuit: a netlist, its simulation, the comparison, the energy it takes."""

from ._chip import Chip as Chip, fabricate as fabricate, headroom as headroom
from ._circuit import Circuit as Circuit
from ._compare import Comparison as Comparison, compare as compare
from ._crossbar import (
    AbstractCell as AbstractCell,
    Competition as Competition,
    Crossbar as Crossbar,
    Follower as Follower,
    Rectification as Rectification,
    TanhPair as TanhPair,
    attend as attend,
)
from ._energy import EnergyReport as EnergyReport, energy_report as energy_report
from ._graph import Graph as Graph
from ._lower import lower as lower
from ._netlist import Netlist as Netlist
from ._noise import thermal_noise as thermal_noise
from ._simulate import (
    SimulationError as SimulationError,
    Waveforms as Waveforms,
    find_ngspice as find_ngspice,
    simulate as simulate,
)
from ._technology import (
    BIPOLAR as BIPOLAR,
    BUILT as BUILT,
    IDEAL as IDEAL,
    Technology as Technology,
)

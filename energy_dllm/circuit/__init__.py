"""The same motion as an electronic circuit: a netlist, its simulation, the comparison, the energy it takes."""

# in the order of the API page: what a reader wants first
from ._lower import lower as lower
from ._circuit import Circuit as Circuit
from ._simulate import simulate as simulate, Waveforms as Waveforms
from ._compare import compare as compare, Comparison as Comparison
from ._crossbar import Crossbar as Crossbar, attend as attend
from ._technology import Technology as Technology, IDEAL as IDEAL, BUILT as BUILT, BIPOLAR as BIPOLAR
from ._chip import fabricate as fabricate, Chip as Chip, headroom as headroom
from ._noise import thermal_noise as thermal_noise
from ._energy import energy_report as energy_report, EnergyReport as EnergyReport
from ._crossbar import (
    Competition as Competition,
    Rectification as Rectification,
    Follower as Follower,
    TanhPair as TanhPair,
    AbstractCell as AbstractCell,
)
from ._netlist import Netlist as Netlist
from ._graph import Graph as Graph
from ._simulate import find_ngspice as find_ngspice, SimulationError as SimulationError

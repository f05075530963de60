"""The same motion as an electronic circuit: a netlist, its simulation, the comparison, the energy it takes."""

# in the order of the API page: what a reader wants first
from ._lower import lower as lower
from ._circuit import Circuit as Circuit
from ._simulate import simulate as simulate, Waveforms as Waveforms
from ._compare import Comparison as Comparison
from ._crossbar import Crossbar as Crossbar
from ._technology import Technology as Technology
from ._chip import fabricate as fabricate, Chip as Chip
from ._noise import thermal_noise as thermal_noise
from ._energy import EnergyReport as EnergyReport
from ._simulate import find_ngspice as find_ngspice

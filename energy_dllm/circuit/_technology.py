"""What parts are made of, and how far from exact they are."""

import math
from typing import Any

import equinox as eqx


BOLTZMANN = 1.380649e-23
ELECTRON = 1.602176634e-19


class Technology(eqx.Module):
    """Units, rails, transistors, drivers and their spread. All numbers are plain floats in SI units.

    By default parts are exact: the circuit is then the model's own equation. `bipolar` and `built` are real ones.

    **Arguments:**

    - `resistance`, `capacitance`: of a visible neuron; their product is the unit of time.
    - `volts`: one unit of the state.
    - `rail`: supplies at `+rail` and `-rail`.
    - `tail`: current of a group of transistors.
    - `load`: largest voltage over a collector's load.
    - `gain`, `early`, `emitter`: of a transistor, current gain, Early voltage, emitter resistance; 0 for an ideal one.
    - `junction`, `transit`: capacitance of a transistor's junctions, transit time.
    - `bandwidth`: of a driver in hertz, 0 for one without delay.
    - `efficiency`: transconductance of a driver per ampere, 1/V.
    - `parasitic`: capacitance of a wire, and what a driver has to charge, with 1 fF for each crosspoint on top.
    - `temperature`: kelvin.
    - `conductance`, `capacity`: relative spread (standard deviation) of conductances and neurons' capacitors.
    - `offset`, `base`: spread in volts of the drivers' inputs, and of the transistors' base voltages.
    - `levels`: number of values a conductance can take, from 0 to the largest; 0 for any.

    **Raises:** `ValueError` if one of them is negative or not finite, one that must be positive is not, or `levels` is
    no whole number.

    **Example:**

    ```python
    import energy_dllm as ed

    cheap = ed.circuit.Technology(conductance=0.1, levels=8)
    assert cheap.seconds == ed.circuit.Technology.built().seconds
    ```
    """

    resistance: float = eqx.field(static=True, default=1e5)
    capacitance: float = eqx.field(static=True, default=1e-12)
    volts: float = eqx.field(static=True, default=0.05)
    rail: float = eqx.field(static=True, default=1.5)
    tail: float = eqx.field(static=True, default=1e-5)
    load: float = eqx.field(static=True, default=0.1)
    gain: float = eqx.field(static=True, default=0.0)
    early: float = eqx.field(static=True, default=0.0)
    emitter: float = eqx.field(static=True, default=0.0)
    junction: float = eqx.field(static=True, default=0.0)
    transit: float = eqx.field(static=True, default=0.0)
    bandwidth: float = eqx.field(static=True, default=0.0)
    efficiency: float = eqx.field(static=True, default=15.0)
    parasitic: float = eqx.field(static=True, default=0.0)
    temperature: float = eqx.field(static=True, default=300.15)
    conductance: float = eqx.field(static=True, default=0.0)
    capacity: float = eqx.field(static=True, default=0.0)
    offset: float = eqx.field(static=True, default=0.0)
    base: float = eqx.field(static=True, default=0.0)
    levels: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        needed = ("resistance", "capacitance", "volts", "rail", "tail", "load", "efficiency", "temperature")
        for name, value in vars(self).items():
            whole = name != "levels" or (value % 1 == 0 and value != 1)
            if not 0 <= value < math.inf or (name in needed and not value > 0) or not whole:
                raise ValueError(
                    f"`{name}` is {value}; expected a {'positive' if name in needed else 'sensible'} number."
                )

    @classmethod
    def bipolar(cls, **changes: Any) -> "Technology":
        """Transistors of an integrated bipolar process, drivers without delay; `changes` are settings of your own."""
        parts: dict[str, Any] = {"gain": 150.0, "early": 60.0, "emitter": 20.0, "junction": 1e-14, "transit": 1e-11}
        return cls(**parts | changes)

    @classmethod
    def built(cls, **changes: Any) -> "Technology":
        """`bipolar` with drivers of 100 MHz, wires, and the spread of unselected parts."""
        spread: dict[str, Any] = {"conductance": 0.05, "capacity": 0.05, "offset": 1e-3, "base": 2e-3, "levels": 16}
        return cls.bipolar(**{"bandwidth": 1e8, "parasitic": 5e-14} | spread | changes)

    @property
    def seconds(self) -> float:
        """The time constant of a visible neuron, `R C`."""
        return self.resistance * self.capacitance

    @property
    def thermal(self) -> float:
        """`kT/q` in volts."""
        return BOLTZMANN * self.temperature / ELECTRON

    @property
    def noise(self) -> float:
        """The temperature of the model that the capacitors' own noise amounts to, `(kT/C) / volts^2`."""
        return BOLTZMANN * self.temperature / self.capacitance / self.volts**2

    @property
    def collected(self) -> float:
        """The share of an emitter's current that its collector gets, in a cell ten `kT/q` above the others."""
        if not self.gain:
            return 1.0
        across = self.rail - self.load - 10 * self.thermal
        gain = self.gain * (1 + across / self.early if self.early else 1.0)
        return gain / (1 + gain)

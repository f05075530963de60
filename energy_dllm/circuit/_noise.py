"""Thermal noise, written into the netlist point by point: any simulator repeats it, and so can jax."""

import copy
import dataclasses

import jax
import numpy as np

from .._types import Key
from ._circuit import Circuit, positives
from ._netlist import GROUND


def thermal_noise(circuit: Circuit, key: Key, *, temperature: float, t1: float, step: float = 0.05) -> Circuit:
    """The circuit with noise on every component: `d state = field d time + sqrt(2 T) dW`, whose law is `exp(-E / T)`.

    Each component gets a current that runs in straight lines between independent normal values, `step` apart, of
    variance `2 T / step`: white for all that is slower than `step`. A capacitor's own noise at `kT` amounts to
    `Technology.noise`. The simulator's own noise sources are not used: they cannot be repeated.

    **Arguments:**

    - `circuit`: from `lower`, or from a `Chip` with nominal capacitors.
    - `key`: random key.
    - `temperature`: `T`, in units of the energy.
    - `t1`: how long it is to be shaken, in units of time.
    - `step`: time between two values.

    **Returns:** another `Circuit`.

    **Raises:** `ValueError` if `temperature`, `t1` or `step` is not positive.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    circuit = ed.circuit.lower(lambda t, y: -y, jnp.zeros(2))
    shaken = ed.circuit.thermal_noise(circuit, jax.random.key(0), temperature=0.1, t1=5.0)
    assert shaken.elements == circuit.elements + 2
    ```
    """
    positives(temperature=temperature, t1=t1, step=step)
    netlist = copy.deepcopy(circuit.netlist)
    times = np.arange(0.0, t1 + 2 * step, step) * circuit.seconds
    normal = np.asarray(jax.random.normal(key, (len(circuit.nodes), len(times))), float)
    # a current of C V/s moves a component by one unit in one unit of time
    currents = (2 * temperature / step) ** 0.5 * circuit.farads * circuit.volts / circuit.seconds * normal
    for node, current in zip(circuit.nodes, currents, strict=True):
        netlist.waveform(GROUND, node, times.tolist(), current.tolist())
    return dataclasses.replace(circuit, netlist=netlist)

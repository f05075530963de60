"""A circuit: a netlist, and which of its voltages are the state of the model."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from .._files import replace
from ._netlist import Netlist, escape, number


@dataclasses.dataclass(frozen=True)
class Circuit:
    """A netlist, the node of every component of the state, and the units.

    Made by `lower` and by `Chip.circuit`.

    **Arguments:**

    - `netlist`: the elements.
    - `nodes`: the node of each component, in the order of the flattened state.
    - `state`: where the state starts.
    - `volts`: volts per unit of the state.
    - `seconds`: seconds per unit of time.
    - `farads`: capacitor of a component.
    - `celsius`: temperature of the parts.
    - `supplies`: voltage sources whose current is recorded: name of the element, its volts.
    - `assumptions`: what the numbers of this circuit rest on, sentence by sentence.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    circuit = ed.circuit.lower(lambda t, y: -y, jnp.ones(2))
    assert circuit.nodes == ("y_0", "y_1") and circuit.elements == 4
    ```
    """

    netlist: Netlist
    nodes: tuple[str, ...]
    state: PyTree[Array | np.ndarray]
    volts: float = 1.0
    seconds: float = 1.0
    farads: float = 1.0
    celsius: float = 27.0
    supplies: tuple[tuple[str, float], ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.netlist.elements

    def expected_seconds(self, *, t1: float, max_step: float = 0.05) -> float:
        """A rough estimate of the simulator's time, 1e-4 s for each element and hundred steps, on one core.

        From `benchmarks/circuit.py`: within a factor of four there, and more where products are many.
        """
        positives(t1=t1, max_step=max_step)
        return 0.02 + 1e-6 * self.elements * max(20.0, t1 / max_step)

    def deck(self, *, t1: float, max_step: float = 0.05, tolerance: float = 1e-5) -> str:
        """The whole text for a simulator: elements, start, and a transient analysis to `t1`.

        **Arguments:**

        - `t1`: end, in units of time from the start.
        - `max_step`: the simulator's largest step, in units of time. The trapezoidal rule's error is of its square:
          this, not `tolerance`, sets the accuracy.
        - `tolerance`: relative tolerance of the simulator's own error control.

        **Returns:** text that ends with a newline.

        **Raises:** `ValueError` if one of them is not positive, or `max_step` is longer than `t1`.
        """
        positives(t1=t1, max_step=max_step, tolerance=tolerance)
        if max_step > t1:
            raise ValueError(f"`max_step`={max_step} is longer than `t1`={t1}; a hundredth of `t1` is a good start.")
        step, end = number(max_step * self.seconds), number(t1 * self.seconds)
        seen = [f"v({escape(node)})" for node in self.nodes] + [f"i({name})" for name, _ in self.supplies]
        # saved in lines of moderate length; some readers stop at a few thousand letters
        saved = [f".save {' '.join(seen[n : n + 16])}" for n in range(0, len(seen), 16)]
        options = f".options reltol={number(tolerance)} method=trap temp={number(self.celsius)}"
        return self.netlist.text(options, f".tran {step} {end} 0 {step} uic", *saved)

    def save(self, path: str | Path, *, t1: float, max_step: float = 0.05, tolerance: float = 1e-5) -> Path:
        """Write `deck` to a file, whole or not at all, with the units in front; `ngspice -b FILE` runs it."""
        path = Path(path)
        replace(path, self.deck(t1=t1, max_step=max_step, tolerance=tolerance).encode(), "memory.cir")
        return path

    def unflatten(self, voltages: np.ndarray) -> PyTree[Any]:
        """Voltages `(N, components)` as the state over time, leaves with a leading axis `N`, in units of the state."""
        leaves, structure = jax.tree.flatten(self.state)
        sizes = np.cumsum([np.size(leaf) for leaf in leaves])[:-1]
        parts = np.split(voltages / self.volts, sizes, axis=1)
        shaped = [part.reshape(-1, *np.shape(leaf)) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(structure, shaped)


def positives(**values: float) -> None:
    """`ValueError` naming the first that is not positive and finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"`{name}` is {value}; expected a positive number.")

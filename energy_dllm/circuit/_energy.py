"""What a circuit takes from its supplies, and what the same answer costs a digital machine."""

import equinox as eqx
import jax
import numpy as np

from ._circuit import Circuit
from ._crossbar import Crossbar
from ._simulate import Waveforms


PICOJOULE = 1e-12


class EnergyReport(eqx.Module):
    """The supplies' energy, integrated from the simulation, with the digital count beside it.

    `E = sum over supplies of V * integral I dt`, until every component is `within` of its value at the end.

    **Arguments:**

    - `circuit`: from `Chip.circuit(..., metered=True)`.
    - `waveforms`: its simulation.
    - `crossbar`: what it computes, for the count of operations.
    - `evaluations`: of the field, by the solver one would use instead (`Trajectory.force_evaluations`).
    - `within`: what counts as settled, in units of the state.

    **Attributes:**

    - `joules`: taken from the supplies until the state has settled.
    - `settled`: when that was, in units of time: from then on no component is further than `within` from its end.
    - `operations`: of one evaluation of the field; `evaluations`: how many a solver needed.
    - `assumptions`: what the circuit's number rests on.

    **Raises:** `ValueError` for a circuit without meters.

    **Example:**

    ```python
    import shutil, jax.numpy as jnp, energy_dllm as ed

    memory = ed.circuit.Crossbar(jnp.eye(3, 4), (3,), beta=4.0)
    made = ed.circuit.fabricate(memory, ed.circuit.Technology.built()).circuit(0.5 * jnp.ones(4), metered=True)
    if shutil.which("ngspice"):
        path = ed.circuit.simulate(made, t1=10.0)
        print(ed.circuit.EnergyReport(made, path, memory, evaluations=20))
    ```
    """

    joules: float
    settled: float
    operations: int
    evaluations: int
    assumptions: tuple[str, ...]

    def __init__(
        self, circuit: Circuit, waveforms: Waveforms, crossbar: Crossbar, *, evaluations: int, within: float = 0.01
    ):
        if not circuit.supplies or not circuit.assumptions:
            raise ValueError("`circuit` has no meters; make it by Chip.circuit(..., metered=True).")
        count = len(waveforms.times)
        states = np.concatenate([np.reshape(leaf, (count, -1)) for leaf in jax.tree.leaves(waveforms.states)], axis=1)
        moving = np.flatnonzero(np.max(np.abs(states - states[-1]), axis=1) > within)
        last = min(int(moving[-1]) + 1, count - 1) if moving.size else 0
        power = np.sum([volts * waveforms.currents[name] for name, volts in circuit.supplies], axis=0)
        # the first point is after the first step: the power up to it is taken to be what it is there
        times = np.concatenate([[0.0], waveforms.times[: last + 1]])
        power = np.concatenate([power[:1], power[: last + 1]])
        joules = float(np.trapezoid(power, times) * circuit.seconds)
        self.joules, self.settled, self.operations = joules, float(times[-1]), crossbar.operations
        self.evaluations, self.assumptions = evaluations, circuit.assumptions

    def digital(self, joules_per_operation: float = PICOJOULE) -> float:
        """Joules of the arithmetic alone, `operations * evaluations * joules_per_operation`."""
        return self.operations * self.evaluations * joules_per_operation

    @property
    def break_even(self) -> float:
        """Joules per operation at which both cost the same; a machine that needs less beats this circuit."""
        return self.joules / (self.operations * self.evaluations)

    def __str__(self) -> str:
        costs = ", ".join(f"{self.digital(pj * PICOJOULE):.3g} J at {pj:g} pJ" for pj in (0.1, 1.0, 10.0))
        lines = [
            f"circuit: {self.joules:.3g} J in {self.settled:.2f} time constants",
            f"arithmetic: {self.operations:,} operations, {self.evaluations:,} times: {costs} an operation",
            f"the same at {self.break_even / PICOJOULE:.3g} pJ an operation, memory traffic not counted",
        ]
        return "\n".join([*lines, *(f"- {sentence}" for sentence in self.assumptions)])

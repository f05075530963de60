"""A circuit's waveforms beside the same motion by diffrax."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..flow import AbstractMotion, solve
from ._simulate import Waveforms


class Comparison(eqx.Module):
    """The reference at the simulator's own time points, by `flow.solve` in equal steps of order 5, and the distance.

    **Arguments:**

    - `field`, `state`, `t0`: what the circuit was made of.
    - `waveforms`: from `simulate`.
    - `step`: step of the reference in units of time; halve it to see that it does not matter.

    **Attributes:**

    - `largest`: largest error of any component at any time point.
    - `rms`: root of the mean square error.
    - `end`: largest error at the last time point.
    - `scale`: largest absolute value of the reference, so that `largest / scale` is the relative error.
    - `states`: the reference at every time point, leaves with a leading axis `N`.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, shutil, energy_dllm as ed

    memory = ed.energy.DenseMemory(4, memories=3, key=jax.random.key(0))
    network = ed.energy.Network(ed.energy.Identity(), {"memory": memory}, jnp.zeros(4))
    energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(2, 4, key=jax.random.key(1)), kappa=1.0)
    field, state = ed.flow.Relaxation(energy, ed.flow.Masked(2)), jnp.ones((2, 4))
    if shutil.which("ngspice"):
        path = ed.circuit.simulate(ed.circuit.lower(field, state), t1=5.0)
        assert ed.circuit.Comparison(field, state, path).relative < 1e-3
    ```
    """

    largest: float
    rms: float
    end: float
    scale: float
    states: PyTree[np.ndarray]

    def __init__(
        self, field: AbstractMotion, state: PyTree[Array], waveforms: Waveforms, *, t0: float = 0.0, step: float = 0.02
    ):
        times = np.asarray(waveforms.times)
        count = len(times)
        # shapes are few: the same program serves simulations of different length
        room = max(256, 1 << (count - 1).bit_length())
        padded = np.concatenate([times, times[-1] + np.arange(1, room - count + 1) * step * 1e-3])
        wide = lambda a: jnp.asarray(a, jnp.result_type(float))
        states = _reference(field, jax.tree.map(wide, state), wide(t0), wide(t0 + padded), wide(step))
        states = jax.tree.map(lambda leaf: np.asarray(leaf)[:count], states)
        leaves = zip(jax.tree.leaves(waveforms.states), jax.tree.leaves(states), strict=True)
        apart = np.concatenate([(a - b).reshape(count, -1) for a, b in leaves], axis=1)
        size = max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(states))
        self.largest, self.rms = float(np.max(np.abs(apart))), float(np.sqrt(np.mean(apart**2)))
        self.end, self.scale, self.states = float(np.max(np.abs(apart[-1]))), size, states

    @property
    def relative(self) -> float:
        """`largest / scale`."""
        return self.largest / self.scale


@eqx.filter_jit
def _reference(
    field: AbstractMotion,
    state: PyTree[Array],
    t0: Float[Array, ""],
    times: Float[Array, " N"],
    step: Float[Array, ""],
) -> PyTree[Array]:
    end = times[-1] + step
    path = solve(field, state, t0=t0, t1=end, times=times, step=step, max_steps=1 << 16)
    return jax.tree.map(lambda leaf: leaf[:-1], path.states)

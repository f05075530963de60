"""The motion of many layers on one scalar, each at its own pace."""

from collections.abc import Mapping

import equinox as eqx
from jaxtyping import Array, Float

from .._types import Scalar
from ..energy import Hypergraph
from ._field import AbstractMotion


class LayerRelaxation(AbstractMotion):
    """Descent of a hypergraph: `tau_l dy_l/dt = -dE/dg_l`, all layers at once.

    `dE/dt = -sum_l 1/tau_l (dE/dg_l)^T (dg_l/dy_l) (dE/dg_l) <= 0` for convex Lagrangians, whatever the time constants
    are: they choose the path, not the points of rest. An infinite one holds its layer where it starts. State: a dict of
    arrays by layer; relaxation time `t`.

    **Arguments:**

    - `energy`: the hypergraph.
    - `tau`: time constants by layer, positive; 1 for those not named.

    **Raises:** `ValueError` for a time constant that is not positive, or of a layer that is not there.

    **Source:** Krotov 2021 (arXiv 2107.06446).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    layers = {"seen": ed.energy.Layer(ed.energy.Tanh(), (6,)), "cause": ed.energy.Layer(ed.energy.Softmax(), (3,))}
    read = ed.energy.Hyperedge(ed.energy.DenseSynapse.random(6, 3, key=jax.random.key(0)), "seen", "cause")
    energy = ed.energy.Hypergraph(layers, {"read": read})
    field = ed.flow.LayerRelaxation(energy, tau={"seen": 10.0})
    path = ed.solve(field, energy.neutral() | {"seen": jnp.ones(6)}, t0=0.0, t1=5.0)
    assert path.final["cause"].shape == (3,)
    ```
    """

    energy: Hypergraph
    tau: tuple[tuple[str, float], ...] = eqx.field(static=True)

    def __init__(self, energy: Hypergraph, *, tau: Mapping[str, float] | None = None):
        tau = {} if tau is None else dict(tau)
        for name, value in tau.items():
            if name not in energy.layers:
                raise ValueError(f"`tau` has {name!r}, which is no layer; there are {sorted(energy.layers)}.")
            if not value > 0:
                raise ValueError(f"`tau` is {value} for {name!r}; expected a positive time (infinite holds it).")
        self.energy, self.tau = energy, tuple(sorted((name, float(value)) for name, value in tau.items()))

    @property
    def force_evaluations(self) -> int:
        """One."""
        return 1

    def __call__(
        self, time: Scalar | float, state: dict[str, Float[Array, "..."]], args: object = None
    ) -> dict[str, Float[Array, "..."]]:
        """`-dE/dg_l / tau_l` by layer."""
        tau = dict(self.tau)
        return {name: force / tau.get(name, 1.0) for name, force in self.energy.force(state).items()}

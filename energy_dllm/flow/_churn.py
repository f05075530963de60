"""A flow from noise to text with matched noise, so that its marginals are kept."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._checks import number
from .._types import Scalar
from ..energy import AbstractFreeEnergy
from ._field import AbstractField, Times
from .evidence._evidence import AbstractEvidence


class ReverseDiffusion(AbstractField):
    """A flow of `x` with churn: noise and the drift that compensates it, so that all marginals are kept.

    `dx = (1 + churn) (x_hat - x) ds + sqrt(2 churn) sigma dW`; `churn = 0` is the flow itself, `churn = 1` the
    reverse-time diffusion. Everything but `x` moves as in the wrapped flow.

    **Arguments:**

    - `flow`: a `ProbabilityFlow`, a `JointFlow`, one of your own with a `diffusion_coefficient`, or a `RollingNoise`
      of one.
    - `churn`: strength of the noise, not negative.

    **Raises:** `ValueError` if `churn` is negative or `flow` does not move an observation `x`.

    **Source:** Anderson 1982; Song et al. 2021 (arXiv 2011.13456); Karras et al. 2022 (arXiv 2206.00364).

    ??? cite "Reference"

        ```bibtex
        @article{anderson1982reverse,
          title={Reverse-Time Diffusion Equation Models},
          author={Anderson, Brian D. O.},
          journal={Stochastic Processes and their Applications}, volume={12}, number={3}, pages={313--326},
          year={1982}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, diffrax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.ReverseDiffusion(ed.flow.ProbabilityFlow(model.energy, steps=4), churn=0.5)
    path = ed.solve(field, jnp.ones((8, 3)), t0=-1.0, t1=1.5, solver=diffrax.Euler(), step=0.1, key=jax.random.key(1))
    assert path.states.shape == (1, 8, 3)
    ```
    """

    flow: AbstractField
    churn: Scalar | float

    def __init__(self, flow: AbstractField, *, churn: Scalar | float = 0.5):
        coefficient_of(flow)  # a field without one is refused
        number("churn", churn, lambda churn: (churn >= 0) & (churn < np.inf), "0 (no noise) or more")
        self.flow, self.churn = flow, churn

    @property
    def energy(self) -> AbstractFreeEnergy:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The landscape of the flow it wraps."""
        return self.flow.energy

    @property
    def force_evaluations(self) -> int:
        """Those of the flow."""
        return self.flow.force_evaluations

    def __call__(self, time: Scalar | float, state: PyTree[Array], args: object = None) -> PyTree[Array]:
        """The flow's drift, with that of `x` multiplied by `1 + churn`."""
        drift = self.flow(time, state, args)
        if isinstance(drift, tuple):
            return (1 + self.churn) * drift[0], drift[1]
        return (1 + self.churn) * drift

    def amplitude(self, time: Scalar | float, state: PyTree[Array]) -> PyTree[Array]:
        """`sqrt(2 churn) sigma` on `x`, 0 on `y`."""
        x = state[0] if isinstance(state, tuple) else state
        size = jnp.sqrt(2 * self.churn) * jnp.atleast_1d(coefficient_of(self.flow)(time, x.shape[0]))[:, None]
        noise = jnp.broadcast_to(size, x.shape)
        return (noise, jnp.zeros_like(state[1])) if isinstance(state, tuple) else noise

    def evidence(self, time: Scalar | float, state: PyTree[Array]) -> AbstractEvidence:
        """That of the flow."""
        return self.flow.evidence(time, state)

    def hidden(self, time: Scalar | float, state: PyTree[Array]) -> Float[Array, "L D"]:
        """That of the flow."""
        return self.flow.hidden(time, state)


def coefficient_of(flow: AbstractField) -> Callable[[Times, int], Scalar | Float[Array, " L"]]:
    """Its `diffusion_coefficient`; `ValueError` for a field that does not move `x` from noise to text."""
    coefficient = getattr(flow, "diffusion_coefficient", None)
    if coefficient is None:
        raise ValueError(
            f"`flow` is a {type(flow).__name__}, which has no method `diffusion_coefficient(time, length)`; expected "
            "a ProbabilityFlow, a JointFlow, or a field of your own that has it."
        )
    return coefficient

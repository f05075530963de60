"""Rolling noise: every token has its own noise time, and a front of noise travels through the text."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._types import Scalar
from ..energy import AbstractFreeEnergy
from ._churn import coefficient_of
from ._field import AbstractField
from .evidence._evidence import AbstractEvidence


class RollingNoise(AbstractField):
    """A flow in which the noise falls from left to right: `dx_i/ds = (ds_i/ds) (x_hat_i - x_i)`.

    `s_i = start + (end - start) S(u (1 + (L - 1)/width) - i/width)`, `u = (s - start)/(end - start)`, and `S(v) = v^2
    (3 - 2v)` within 0 and 1: at any moment about `width` tokens lie between full noise and none. The marginals are
    those of text under that noise, so the distribution at the end is that of the flow it wraps; with infinite width it
    is that flow with another time.

    **Arguments:**

    - `flow`: a `ProbabilityFlow`, a `JointFlow` or one of your own with a `diffusion_coefficient`.
    - `width`: width of the front in tokens, positive; infinite for none.
    - `start`, `end`: noise times at which the first token starts and the last one ends.

    **Raises:** `ValueError` if `width` is not positive or `flow` does not move an observation `x`.

    **Source:** noise that differs from token to token, as in rolling diffusion (Ruhe et al. 2024, arXiv 2402.09470) and
    diffusion forcing (Chen et al. 2024, arXiv 2407.01392).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{ruhe2024rolling,
          title={Rolling Diffusion Models},
          author={Ruhe, David and Heek, Jonathan and Salimans, Tim and Hoogeboom, Emiel},
          booktitle={International Conference on Machine Learning},
          year={2024}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    rolling = ed.flow.RollingNoise(ed.flow.ProbabilityFlow(model.energy, steps=4), width=2.0, start=-1.0, end=2.0)
    times, _ = rolling.times(0.5, 8)
    assert times[0] == 2.0 and times[-1] == -1.0
    ```
    """

    flow: AbstractField
    width: Scalar | float
    start: Scalar
    end: Scalar

    def __init__(self, flow: AbstractField, *, width: Scalar | float, start: Scalar | float, end: Scalar | float):
        coefficient_of(flow)  # a field without one is refused
        if not isinstance(width, jax.Array) and not width > 0:
            raise ValueError(f"`width` is {width}; expected a positive number of tokens, such as 16, or infinity.")
        self.flow, self.width = flow, width
        self.start, self.end = jnp.asarray(start), jnp.asarray(end)

    @property
    def energy(self) -> AbstractFreeEnergy:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The landscape of the flow it wraps."""
        return self.flow.energy

    @property
    def force_evaluations(self) -> int:
        """Those of the flow."""
        return self.flow.force_evaluations

    def times(self, time: Scalar | float, length: int) -> tuple[Float[Array, " L"], Float[Array, " L"]]:
        """The noise time `s_i` of each token and its speed `ds_i/ds`, `(L,)` each."""
        span = self.end - self.start
        stretch = 1.0 + (length - 1) / self.width
        u = jnp.clip((jnp.asarray(time) - self.start) / span * stretch - jnp.arange(length) / self.width, 0.0, 1.0)
        # smooth at both ends: a kink within a step would leave x with another noise level than s_i
        return self.start + span * u**2 * (3 - 2 * u), 6 * u * (1 - u) * stretch

    def diffusion_coefficient(self, time: Scalar | float, length: int) -> Float[Array, " L"]:
        """`sigma_i sqrt(ds_i/ds)`."""
        times, speed = self.times(time, length)
        return coefficient_of(self.flow)(times, length) * jnp.sqrt(speed)

    def __call__(self, time: Scalar | float, state: PyTree[Array], args: object = None) -> PyTree[Array]:
        """The flow's drift, that of `x` at each token's own speed."""
        times, speed = self.times(time, token_count(state))
        drift = self.flow(times, state, args)
        if isinstance(drift, tuple):
            return speed[:, None] * drift[0], drift[1]
        return speed[:, None] * drift

    def evidence(self, time: Scalar | float, state: PyTree[Array]) -> AbstractEvidence:
        """That of the flow, each token at its own noise level."""
        return self.flow.evidence(self.times(time, token_count(state))[0], state)

    def hidden(self, time: Scalar | float, state: PyTree[Array]) -> Float[Array, "L D"]:
        """That of the flow."""
        return self.flow.hidden(self.times(time, token_count(state))[0], state)


def token_count(state: PyTree[Array]) -> int:
    """Tokens of an observation, alone or with what moves along."""
    return (state[0] if isinstance(state, tuple) else state).shape[0]

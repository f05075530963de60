"""Vector fields: how the state moves on the landscape.

| field | state | motion |
|---|---|---|
| `Relaxation` | `y` | `dy/dt = -kappa dF/dg` at fixed evidence: F falls |
| `ProbabilityFlow` | `x` | `dx/ds = x_hat - x = -sigma^2 dF/dx`, `y` relaxed anew at every evaluation |
| `JointFlow` | `(x, y)` | both at once, `y` on a faster clock |
| `AutonomousDescent` | `(x, y, log sigma)` | the gradient flow of one static scalar, which falls from noise to text |
| `ReverseDiffusion` | that of the flow it wraps | the flow plus matched noise; marginals kept |
| `RollingNoise` | that of the flow it wraps | the flow with a noise time for each token, from left to right |
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import expected, number, positive, sizes
from .._types import Scalar
from ..energy import AbstractFreeEnergy
from ._relax import relax
from .evidence._evidence import AbstractEvidence, Gaussian


Times = Scalar | float | Float[Array, " L"]
"""One time for all tokens, or one for each."""


class AbstractMotion(eqx.Module):
    """A vector field `d state / d time`, all that `solve` needs; it need not have an energy.

    One with noise, `d state = field d time + amplitude dW`, has a second method, `amplitude(time, state)`: that of the
    noise on every component, the structure of `state`.
    """

    @property
    @abc.abstractmethod
    def force_evaluations(self) -> int:
        """Evaluations of the force per call."""

    @abc.abstractmethod
    def __call__(self, time: Scalar | float, state: PyTree[Array], args: object = None) -> PyTree[Array]:
        """`d state / d time`, the structure of `state`."""


class AbstractField(AbstractMotion):
    """The motion of a passage on an explicit free energy, with its evidence, hidden state and posterior.

    One that moves an observation `x` from noise to text, which is its state or the first of a tuple, has one method
    more, `diffusion_coefficient(time, length)`: `sigma sqrt(ds_i/ds)` of each token or of all, the amplitude of the
    noise that keeps the marginals over `sqrt(2 churn)`. `ReverseDiffusion` and `RollingNoise` (that is, `churn` and
    `front` of `sampling.Diffusion`) take any such field; the times that they hand it may be one for all tokens or
    `(length,)`.
    """

    energy: eqx.AbstractVar[AbstractFreeEnergy]

    def __check_init__(self):
        given = getattr(self, "given", None)
        expected(
            energy=(self.energy, AbstractFreeEnergy, "model.energy"),
            given=(given, AbstractEvidence, "flow.Masked(64)"),
        )

    @abc.abstractmethod
    def evidence(self, time: Scalar | float, state: PyTree[Array]) -> AbstractEvidence:
        """The evidence at this moment."""

    @abc.abstractmethod
    def hidden(self, time: Scalar | float, state: PyTree[Array]) -> Float[Array, "L D"]:
        """The hidden state `y (L, D)` at this moment."""

    def posterior(self, time: Scalar | float, state: PyTree[Array]) -> Float[Array, "L V"]:
        """`p = softmax(<y, U> + c + b) (L, V)` at this moment."""
        b = self.evidence(time, state).field(self.energy.vocabulary.codes)
        return self.energy.posterior(self.hidden(time, state), b)


class Relaxation(AbstractField):
    """Descent of the free energy at fixed evidence: `dy/dt = -kappa dF/dg`.

    `dF/dt = -kappa (dF/dg)^T (dg/dy) (dF/dg) <= 0` where `Λ_b` is convex (see `energy.FreeEnergy`). State `y (L, D)`,
    relaxation time `t`, whose unit is the time constant of an uncoupled neuron.

    **Arguments:**

    - `energy`: the landscape.
    - `given`: the evidence, held fixed.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    path = ed.solve(field, model.energy.neutral(8), t0=0.0, t1=4.0)
    assert path.states.shape == (1, 8, 16)
    ```
    """

    energy: AbstractFreeEnergy
    given: AbstractEvidence

    @property
    def force_evaluations(self) -> int:
        """One."""
        return 1

    def __call__(self, time: Scalar | float, state: Float[Array, "L D"], args: object = None) -> Float[Array, "L D"]:
        """`-kappa dF/dg (L, D)`."""
        b = self.given.field(self.energy.vocabulary.codes)
        return self.energy.kappa * self.energy.force(state, b)

    def evidence(self, time: Scalar | float, state: Float[Array, "L D"]) -> AbstractEvidence:
        """The evidence given."""
        return self.given

    def hidden(self, time: Scalar | float, state: Float[Array, "L D"]) -> Float[Array, "L D"]:
        """The state itself."""
        return state


class ProbabilityFlow(AbstractField):
    """The diffusion ODE, with the neurons at rest: `dx/ds = x_hat(x) - x = -sigma^2 dF/dx`.

    State `x (L, C)`, noise time `s = -log sigma`. At every evaluation the hidden state descends from neutral for
    `steps` Euler steps of `step` time constants, so the field is a function of `x` and `s` alone.

    **Arguments:**

    - `energy`: the landscape.
    - `given`: evidence besides the noise (prompt, constraint); none by default.
    - `steps`, `step`: the relaxation inside, number and size of its steps.

    **Raises:** `ValueError` if `steps` or `step` is not positive.

    **Source:** Song et al. 2021 (arXiv 2011.13456) in noise time; Karras et al. 2022 (arXiv 2206.00364).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{song2021score,
          title={Score-Based Generative Modeling through Stochastic Differential Equations},
          author={Song, Yang and Sohl-Dickstein, Jascha and Kingma, Diederik P. and Kumar, Abhishek and Ermon,
            Stefano and Poole, Ben},
          booktitle={International Conference on Learning Representations},
          year={2021}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    path = ed.solve(ed.flow.ProbabilityFlow(model.energy, steps=4), jnp.ones((8, 3)), t0=-1.0, t1=1.5)
    assert path.states.shape == (1, 8, 3)
    ```
    """

    energy: AbstractFreeEnergy
    given: AbstractEvidence | None
    steps: int = eqx.field(static=True)
    step: float = eqx.field(static=True)

    def __init__(
        self,
        energy: AbstractFreeEnergy,
        given: AbstractEvidence | None = None,
        *,
        steps: int = 12,
        step: float = 0.6,
    ):
        sizes(steps=steps)
        number("step", step, positive, "a positive step size, such as 0.6")
        self.energy, self.given, self.steps, self.step = energy, given, steps, step

    @property
    def force_evaluations(self) -> int:
        """`steps`."""
        return self.steps

    def diffusion_coefficient(self, time: Times, length: int) -> Scalar | Float[Array, " L"]:
        """`e^-s`."""
        return jnp.exp(-jnp.asarray(time))

    def __call__(self, time: Times, state: Float[Array, "L C"], args: object = None) -> Float[Array, "L C"]:
        """`x_hat - x (L, C)`."""
        b = self.evidence(time, state).field(self.energy.vocabulary.codes)
        return self.energy.denoised(self._settle(b), b) - state

    def evidence(self, time: Times, state: Float[Array, "L C"]) -> AbstractEvidence:
        """Gaussian evidence at `sigma = e^-s`, plus what was given."""
        noisy = Gaussian(state, jnp.exp(-jnp.asarray(time)))
        return noisy if self.given is None else noisy + self.given

    def hidden(self, time: Times, state: Float[Array, "L C"]) -> Float[Array, "L D"]:
        """`y` after the relaxation inside."""
        return self._settle(self.evidence(time, state).field(self.energy.vocabulary.codes))

    def _settle(self, b):
        y = self.energy.neutral(b.shape[0]).astype(b.dtype)
        return relax(self.energy, y, b, steps=self.steps, step=self.step)


class JointFlow(AbstractField):
    """Observation and neurons move at once: `dx/ds = x_hat(y) - x`, `dy/ds = -rate kappa dF/dg`.

    State `(x (L, C), y (L, D))`, noise time `s`. One force evaluation a call; as `rate` grows it becomes the
    `ProbabilityFlow` with the neurons followed along the path.

    **Arguments:**

    - `energy`: the landscape.
    - `given`: evidence besides the noise; none by default.
    - `rate`: time constants of the neurons per unit of noise time, positive.

    **Raises:** `ValueError` if `rate` is not positive.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    state = jnp.ones((8, 3)), model.energy.neutral(8)
    path = ed.solve(ed.flow.JointFlow(model.energy), state, t0=-1.0, t1=1.5)
    assert path.states[1].shape == (1, 8, 16)
    ```
    """

    energy: AbstractFreeEnergy
    given: AbstractEvidence | None
    rate: float = eqx.field(static=True)

    def __init__(self, energy: AbstractFreeEnergy, given: AbstractEvidence | None = None, *, rate: float = 10.0):
        number("rate", rate, positive, "a positive number, such as 10")
        self.energy, self.given, self.rate = energy, given, rate

    @property
    def force_evaluations(self) -> int:
        """One."""
        return 1

    def diffusion_coefficient(self, time: Times, length: int) -> Scalar | Float[Array, " L"]:
        """`e^-s`."""
        return jnp.exp(-jnp.asarray(time))

    def __call__(
        self, time: Times, state: tuple[Float[Array, "L C"], Float[Array, "L D"]], args: object = None
    ) -> tuple[Float[Array, "L C"], Float[Array, "L D"]]:
        """`(x_hat - x, -rate kappa dF/dg)`."""
        x, y = state
        b = self.evidence(time, state).field(self.energy.vocabulary.codes)
        dy = self.rate * self.energy.kappa * self.energy.force(y, b)
        return self.energy.denoised(y, b) - x, dy

    def evidence(self, time: Times, state: tuple[Float[Array, "L C"], Float[Array, "L D"]]) -> AbstractEvidence:
        """Gaussian evidence at `sigma = e^-s`, plus what was given."""
        noisy = Gaussian(state[0], jnp.exp(-jnp.asarray(time)))
        return noisy if self.given is None else noisy + self.given

    def hidden(self, time: Times, state: tuple[Float[Array, "L C"], Float[Array, "L D"]]) -> Float[Array, "L D"]:
        """The `y` of the state."""
        return state[1]

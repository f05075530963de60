"""From noise to text without a clock: the noise level is one more coordinate of one static scalar."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import floats, number, positive, sizes
from .._types import Scalar
from ..energy import AbstractFreeEnergy
from ._field import AbstractField
from ._relax import relax
from .evidence._evidence import AbstractEvidence, Gaussian


class AutonomousDescent(AbstractField):
    """From noise to text as the gradient flow of one static scalar: the noise level is a coordinate, not a clock.

    State `(x (L, C), y (L, D), log sigma)`, scalar `F(x, y; sigma)`, whose spring holds `tau^2 C log sigma_i`:

    `dx/dt = -sigma^2 dF/dx`,   `dy/dt = -rate kappa dF/dg`,   `d log sigma/dt = -pace dF/dlog sigma / (tau^2 L C)`

    so `dF/dt <= 0` from noise to text wherever `Λ_b` is convex. With `y` at rest `-sigma^2 dF/dx = x_hat - x` is the
    probability flow, and `dF/dlog sigma = tau^2 L C - sum_iw p_iw |x_i - e_w|^2 / sigma^2` vanishes where `sigma` is
    `1 / tau` times the maximum-likelihood noise level of `x`: as `pace` grows sigma follows it, and falls as the noise
    does, `sigma ~ e^-t`, as far down as rounding lets see (about 1e-3 of a code's size in single precision), where it
    stays. The right-hand side does not depend on `t`. Where `y` is not at rest, `-sigma^2 dF/dx` at fixed `y` is `sum_w
    q_iw e_w - x_i` with `q_iw = p_iw (1 + <kappa U_w - g_i, -dF/dg_i>)`: to first order the posterior after the next
    full step of `y`.

    With `steps` the hidden state is that after as many steps from neutral, taken anew at every evaluation, as in a
    training without untracked steps: tokens then cannot reinforce one another's estimates and be certain too early. A
    `step` above 1 gives the context more weight against the noise: after one step of that size from neutral `p =
    softmax(step <y, U> + c + b)`, `y` being the full step. `x` and `sigma` then descend `F` at fixed activations `g`,
    where `dF/db = -p` and `-sigma^2 dF/dx = x_hat - x` wherever `y` is; that the change of `y` does not raise `F` is an
    observation, not a theorem.

    **Arguments:**

    - `energy`: the landscape.
    - `given`: evidence besides the noise (prompt, constraint); none by default.
    - `rate`, `pace`: speeds of `y` and of `log sigma`, in units of that of `x`.
    - `temperature`: `tau` of the noise (see `Gaussian`): at 1 the distribution of the text is that of the probability
      flow for many tokens (of three, 0.05 of the mass is elsewhere), below 1 more of it is where the mass is.
    - `by_token`: a noise level of its own for every token, `log sigma (L,)`: certain tokens freeze first. The estimate
      from the `C` numbers of a token is off by a share of about `1 / sqrt(2 C)`, the same all along its path (with one
      level `1 / sqrt(2 L C)`): of three tokens 0.13 of the mass is elsewhere where `C` is 3, no more than with one
      level where it is 48.
    - `steps`: steps of `y` from neutral, anew at every evaluation; 0, the default, lets it move along.
    - `step`: their size, 1 for full ones.

    **Raises:** `ValueError` if `rate`, `pace`, `temperature` or `step` is not positive, or `steps` no integer of at
    least 0.

    **Source:** the noise-conditional score as a gradient, Salimans & Ho 2021; blind denoising, where the noise level is
    inferred from the observation, Kadkhodaie & Simoncelli 2021 (arXiv 2007.13640).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{kadkhodaie2021stochastic,
          title={Stochastic Solutions for Linear Inverse Problems Using the Prior Implicit in a Denoiser},
          author={Kadkhodaie, Zahra and Simoncelli, Eero P.},
          booktitle={Advances in Neural Information Processing Systems},
          year={2021}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.AutonomousDescent(model.energy)
    x = 1 / 3 + 3.0 * jax.random.normal(jax.random.key(1), (8, 3))
    path = ed.solve(field, field.initial(x, model.energy.neutral(8), 3.0), t0=0.0, t1=2.0)
    assert path.final[2] < jnp.log(3.0)
    ```
    """

    energy: AbstractFreeEnergy
    given: AbstractEvidence | None
    rate: float = eqx.field(static=True)
    pace: float = eqx.field(static=True)
    temperature: Scalar | float
    by_token: bool = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    step: float = eqx.field(static=True)

    def __init__(
        self,
        energy: AbstractFreeEnergy,
        given: AbstractEvidence | None = None,
        *,
        rate: float = 60.0,
        pace: float = 15.0,
        temperature: Scalar | float = 1.0,
        by_token: bool = False,
        steps: int = 0,
        step: float = 1.0,
    ):
        for name, value in (("rate", rate), ("pace", pace), ("temperature", temperature), ("step", step)):
            number(name, value, positive, "a positive number, such as 30 (or 1: `step`)")
        sizes(0, steps=steps)
        self.energy, self.given, self.rate, self.pace = energy, given, rate, pace
        self.temperature, self.by_token, self.steps, self.step = temperature, by_token, steps, step

    @property
    def force_evaluations(self) -> int:
        """One, which the gradients in `x`, `y` and `log sigma` share; or `steps`."""
        return max(1, self.steps)

    @property
    def decay(self) -> tuple[float, ...]:
        """The rates at which `x`, `y` and `log sigma` approach where they are drawn, for exponential integrators.

        The messages of other tokens change against the motion of `y`: 0.6 of its rate is added to that of its leak, so
        that a step of any length goes at most 1 / 1.6 of the way and does not overshoot.
        """
        return 1.0, 1.6 * self.rate, 2.0 * self.pace

    def initial(
        self, x: Float[Array, "L C"], y: Float[Array, "L D"], sigma: Float[Array, " L"] | Scalar | float
    ) -> PyTree[Array]:
        """`(x, y, log sigma)`. `ValueError` unless `sigma` is positive, one for all or (`by_token`) one a token."""
        number("sigma", sigma, positive, "a positive noise level")
        x, y = floats(x), floats(y)
        sigma = jnp.asarray(sigma, x.dtype)
        if sigma.ndim and not self.by_token or sigma.shape not in ((), x.shape[:1]):
            wanted = f"() or {x.shape[:1]}" if self.by_token else "(), or `by_token=True`"
            raise ValueError(f"`sigma` has shape {sigma.shape}; expected {wanted}.")
        return x, y.astype(x.dtype), jnp.broadcast_to(jnp.log(sigma), x.shape[:1] if self.by_token else ())

    def likely(self, state: PyTree[Array]) -> PyTree[Array]:
        """The state with the most likely noise level, for the posterior at the level that it has, and a little more:
        `sigma^2 = sum_iw p_iw |x_i - e_w|^2 / (tau^2 L C)`. A motion that begins there need not raise it first."""
        x, _, level = state
        y = self.hidden(0.0, state)
        codes, b = self.energy.vocabulary.codes, self.evidence(0.0, state).field(self.energy.vocabulary.codes)
        p = jax.nn.softmax(self.energy.logits(y, b), axis=-1)
        square = jnp.sum(x**2, axis=-1) + jnp.sum(p * (jnp.sum(codes**2, axis=-1) - 2 * x @ codes.T), axis=-1)
        square = jnp.maximum(square, self._least(x))
        # the derivative in the spring of a token is 1, of padding 0
        here = jax.grad(lambda spring: self.energy(y, b, spring=spring))(jnp.zeros_like(square))
        mean = square if self.by_token else jnp.sum(here * square) / jnp.sum(here)
        return x, state[1], (0.002 + 0.5 * jnp.log(mean / (self.temperature**2 * x.shape[1]))).astype(level.dtype)

    def scalar(self, state: PyTree[Array]) -> Scalar:
        """`F(x, y; sigma)`, the static scalar that falls, nats."""
        evidence = self.evidence(0.0, state)
        b = evidence.field(self.energy.vocabulary.codes)
        return self.energy(self.hidden(0.0, state), b, spring=evidence.spring())

    def __call__(self, time: Scalar | float, state: PyTree[Array], args: object = None) -> PyTree[Array]:
        """`(-sigma^2 dF/dx, -rate kappa dF/dg, -pace dF/dlog sigma / (tau^2 L C))`, per token `/ (tau^2 C)`."""
        x, y, level = state

        def seen(x, level):
            evidence = self.evidence(time, (x, y, level))
            return evidence.field(self.energy.vocabulary.codes), evidence.spring()

        # the evidence once, so that its gradient and the force of `y` share one evaluation
        (b, spring), pull = jax.vjp(seen, x, level)
        force = self._settled(b) - y if self.steps else self.energy.kappa * self.energy.force(y, b)
        y = y + force if self.steps else y
        # the derivative in the spring of a token is 1, of padding 0
        db, here = jax.grad(lambda b, spring: self.energy(y, b, spring=spring), (0, 1))(b, spring)
        if self.steps:  # at fixed beliefs
            db = (-here[:, None] * self.energy.posterior(y, b)).astype(b.dtype)
        dx, dlevel = pull((db, here))
        size = self.temperature**2 * x.shape[1] * (1 if self.by_token else jnp.sum(here, dtype=level.dtype))
        least = self._least(x) if self.by_token else jnp.sum(here * self._least(x), dtype=level.dtype)
        # where it would fall below what rounding lets see, it stays
        dlevel = jnp.where(size * jnp.exp(2 * level) > least, dlevel, jnp.minimum(dlevel, 0.0))
        return (
            -jnp.exp(2 * jnp.broadcast_to(level, x.shape[:1]))[:, None] * dx,
            self.rate * force,
            -self.pace * dlevel / size,
        )

    def evidence(self, time: Scalar | float, state: PyTree[Array]) -> AbstractEvidence:
        """Gaussian evidence at the noise level of the state, plus what was given."""
        noisy = Gaussian(state[0], jnp.exp(state[2]), temperature=self.temperature)
        return noisy if self.given is None else noisy + self.given

    def hidden(self, time: Scalar | float, state: PyTree[Array]) -> Float[Array, "L D"]:
        """The `y` of the state, or that after `steps` from neutral."""
        if not self.steps:
            return state[1]
        return self._settled(self.evidence(time, state).field(self.energy.vocabulary.codes))

    def _least(self, x):
        """`sum_w p_iw |x_i - e_w|^2 (L,)` below which it is rounding."""
        scale = jnp.sum(x**2, axis=-1) + jnp.mean(jnp.sum(self.energy.vocabulary.codes**2, axis=-1))
        return (16 * jnp.finfo(x.dtype).eps * scale).astype(x.dtype)

    def _settled(self, b):
        neutral = self.energy.neutral(b.shape[0]).astype(b.dtype)
        return relax(self.energy, neutral, b, steps=self.steps, step=self.step)

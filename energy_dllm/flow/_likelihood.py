"""The ODE likelihood of a text: the probability flow run backwards, with its divergence."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from einops import einsum
from jaxtyping import Array, Float, Int

from .._checks import sizes, tokens
from .._types import Key, Scalar
from ._field import AbstractMotion, ProbabilityFlow
from ._schedule import AbstractSchedule
from ._solve import solve


class Continuity(AbstractMotion):
    """A probability flow run backwards, with its log-volume: `dz/dr = -x_hat`, `dv/dr = -sigma tr(dx_hat/dx)`.

    State `(z (L, C), v)` with `z = x / sigma`, time `r = -1/sigma`, from text to noise: where `x_hat` is constant, any
    solver is exact in any number of steps. `log p(z)` at the start of a path is that at its end plus `v`, densities of
    `z`.

    **Arguments:**

    - `flow`: the probability flow.
    - `directions (N, L, C)`: random vectors of mean 0 and covariance 1; the trace is then that of `Cov_p(e) / sigma^2`,
      `dx_hat/dx` at fixed `y`, and an estimate of the rest, the mean of `<e, (dx_hat/dx - Cov_p(e) / sigma^2) e>` over
      them. Exact, at the price of `L C` derivatives, without.

    **Source:** Chen et al. 2018 (arXiv 1806.07366); Hutchinson 1990 for the estimate.
    """

    flow: ProbabilityFlow
    directions: Float[Array, "N L C"] | None = None

    @property
    def force_evaluations(self) -> int:
        """Those of the flow; a derivative costs about as much again for every direction."""
        return self.flow.force_evaluations

    def __call__(
        self, time: Scalar | float, state: tuple[Float[Array, "L C"], Scalar], args: object = None
    ) -> tuple[Float[Array, "L C"], Scalar]:
        """`(-x_hat, -sigma tr(dx_hat/dx))`."""
        inverse, codes = -jnp.asarray(time), self.flow.energy.vocabulary.codes
        x = state[0] / inverse
        posterior = lambda x: self.flow.posterior(jnp.log(inverse), x)
        if self.directions is None:
            p, change = posterior(x), jax.jacfwd(lambda x: posterior(x) @ codes)(x)
            return -p @ codes, -einsum(change, "l c l c ->") / inverse
        p, change = jax.vmap(lambda e: jax.jvp(posterior, (x,), (e,)), out_axes=(None, 0))(self.directions)
        # less what a token's own evidence makes of it, whose trace is known
        along = self.directions @ codes.T
        change = change - inverse**2 * p * (along - jnp.sum(p * along, axis=-1, keepdims=True))
        own = inverse**2 * (jnp.sum(p @ codes**2) - jnp.sum((p @ codes) ** 2))
        return -p @ codes, -(own + jnp.mean(jnp.sum(along * change, axis=(1, 2)))) / inverse


class FlowLikelihood(eqx.Module):
    """The likelihood of a text under the flow: the ODE likelihood, as a lower bound.

    The generative model is `x` at full noise, the flow, and a draw from every token's posterior at its end. With `x =
    e_token + sigma_1 noise` at that end, by Jensen, `log p(tokens) >= E[log p(x) + sum_i log p_i(token_i | x) - log
    N(x; e_token, sigma_1^2)]`, `log p(x)` by the change of variables. It is tight where the posterior at `sigma_1` is
    certain.

    **Arguments:**

    - `flow`: the probability flow; its given evidence is conditioned on.
    - `ids`: the text `(L,)`.
    - `schedule`: noise levels of the flow.
    - `key`: random key of the noise and of the directions.
    - `steps`: steps through the schedule.
    - `directions`: random signs for the trace (see `Continuity`), or `None` for the exact one.
    - `solver`: any diffrax solver; default Heun.

    **Attributes:**

    `log p(tokens) >= E[prior + volume + decoder - encoder]`

    - `prior`: log density of the end of the path at full noise, normal around the mean code.
    - `volume`: the change of log density along the flow, `-∫ tr(dx_hat/dx) ds`.
    - `decoder`: `sum_i log p_i(token_i)` at the smallest noise.
    - `encoder`: log density of the noise that was added to the text there.

    Both densities are of `x / sigma`; their normalisations cancel and are left out.
    - `force_evaluations`: of the path.

    **Raises:** `ValueError` if `steps` or `directions` is not positive, or a token is outside the vocabulary.

    **Source:** Song et al. 2021 (arXiv 2011.13456); the bound for tokens, Li et al. 2022 (arXiv 2205.14217).

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
    flow = ed.flow.ProbabilityFlow(model.energy, steps=4)
    bound = ed.flow.FlowLikelihood(flow, model.encode("a b"), model.schedule, key=jax.random.key(0), steps=8)
    assert bound.nats < 0
    ```
    """

    prior: Scalar
    volume: Scalar
    decoder: Scalar
    encoder: Scalar
    force_evaluations: Int[Array, ""]

    def __init__(
        self,
        flow: ProbabilityFlow,
        ids: Int[Array, " L"],
        schedule: AbstractSchedule,
        *,
        key: Key,
        steps: int = 64,
        directions: int | None = 1,
        solver: diffrax.AbstractSolver | None = None,
    ):
        sizes(steps=steps, directions=1 if directions is None else directions)
        codes = flow.energy.vocabulary.codes
        ids = tokens(ids, codes.shape[0])
        # -1/sigma, from the text to full noise
        levels = -jnp.exp(schedule.levels(steps)[::-1].astype(codes.dtype))
        k1, k2 = jax.random.split(key)
        noise = jax.random.normal(k1, (len(ids), codes.shape[1]), codes.dtype)
        z = -levels[0] * codes[ids] + noise
        signs = None if directions is None else jax.random.rademacher(k2, (directions, *z.shape), codes.dtype)
        path = solve(
            Continuity(flow, signs),
            (z, jnp.zeros((), codes.dtype)),
            t0=levels[0],
            t1=levels[-1],
            levels=levels,
            solver=diffrax.Heun() if solver is None else solver,
        )
        end, volume = path.final
        b = jnp.zeros((len(ids), codes.shape[0]), codes.dtype) if flow.given is None else flow.given.field(codes)
        mean = flow.energy.denoised(flow.energy.neutral(len(ids)), b)
        p = flow.posterior(jnp.log(-levels[0]), -z / levels[0])
        log_p = jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))
        self.prior, self.volume = -0.5 * jnp.sum((end + levels[-1] * mean) ** 2), volume
        self.decoder = jnp.sum(jnp.take_along_axis(log_p, ids[:, None], axis=-1))
        self.encoder, self.force_evaluations = -0.5 * jnp.sum(noise**2), path.force_evaluations

    @property
    def nats(self) -> Scalar:
        """The sum, nats a passage."""
        return self.prior + self.volume + self.decoder - self.encoder

"""Exponential integrators: the noise falls exactly, only the change of the posterior within a step is approximated."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._types import Scalar
from ._field import ProbabilityFlow
from ._rolling import RollingNoise, token_count


Average = Callable[[Float[Array, "L V"], Scalar, Scalar], Float[Array, "L V"]]


class DDIM(diffrax.AbstractSolver):
    """`x_t = r x_s + (1 - r) x_hat(x_s)`, `r = sigma_t / sigma_s = e^(s - t)`: one evaluation a step, order 1.

    The exact solution of `dx/ds = x_hat - x` if `x_hat` stood still, which Euler's method is only for short steps: a
    step of any length ends between noise and text, never beyond. Under `RollingNoise` `s` and `t` are the noise times
    of each token. What moves along is stepped as by Euler's method (`y` of a `JointFlow`), or by its own rate of
    `decay` (`AutonomousDescent`).

    With `average`, a flow map, the step is a jump along the `ProbabilityFlow`: `x_t = r x_s + (1 - r) D(x_s, s, t)`.
    This is exact with `D = int_s^t e^(u - t) x_hat(x_u) du / (1 - r)`, the posterior mean averaged over the path, so a
    map predicts one distribution for each token, and every jump stays in the convex hull of the codes. A step then
    costs one evaluation of the map and none of the force.

    **Arguments:**

    - `decay`: the rates of the parts of the state, `field.decay`; by default 1 for `x` and 0 for what moves along.
    - `average`: a learned flow map, such as `learn.FlowMap`: `(b, s, t)` to the log of the posterior averaged over the
      path from noise time `s` to `t` `(L, V)`, where `b (L, V)` is the evidence at its start.

    **Raises:** `ValueError` beside an `average` if the field is no `ProbabilityFlow`, or has guidance.

    **Source:** Song et al. 2021 (arXiv 2010.02502); Lu et al. 2022 (arXiv 2206.00927) for why it is exponential Euler.

    ??? cite "Reference"

        ```bibtex
        @inproceedings{song2021ddim,
          title={Denoising Diffusion Implicit Models},
          author={Song, Jiaming and Meng, Chenlin and Ermon, Stefano},
          booktitle={International Conference on Learning Representations},
          year={2021}
        }
        ```

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    made = ed.generate(model, length=12, sampler=ed.sampling.Diffusion(steps=4, solver=ed.flow.DDIM()))
    assert made.reason == "reached the end of the time interval"
    ```
    """

    decay: tuple[float, ...] = ()
    average: Average | None = None

    term_structure = diffrax.ODETerm
    interpolation_cls = diffrax.LocalLinearInterpolation

    def order(self, terms: diffrax.AbstractTerm) -> int | None:
        """1; of a flow map none, since the error of a jump does not shrink with its length."""
        return 1 if self.average is None else None

    def init(self, terms, t0, t1, y0, args) -> None:
        """No state."""

    def step(
        self, terms, t0, t1, y0, args, solver_state: None, made_jump: Any
    ) -> tuple[PyTree[Array], None, dict[str, Any], None, diffrax.RESULTS]:
        """One step; `args` is the field, as `solve` passes it."""
        del solver_state, made_jump
        slope = _slope(terms, t0, y0, args) if self.average is None else self._averaged(args, t0, t1, y0)
        y1 = _ahead(y0, slope, _spans(terms, t0, t1, y0, args), self.decay)
        return y1, None, dict(y0=y0, y1=y1), None, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args) -> PyTree[Array]:
        """The field."""
        return terms.vf(t0, y0, args)

    def _averaged(self, field, start, end, x):
        """`D - x`, in place of the `x_hat - x` at the start of the step."""
        if not isinstance(field, ProbabilityFlow):
            raise ValueError(
                f"`solver` is a flow map and the field a {type(field).__name__}; a map jumps along a ProbabilityFlow, "
                "so leave out churn, front, and other fields."
            )
        if hasattr(field.energy, "guidance"):
            raise ValueError(
                "`solver` is a flow map, which knows the landscape it was taught and not the `guidance` added to it; "
                "leave out the guidance, or step with `DDIM()`."
            )
        codes, start, end = field.energy.vocabulary.codes, jnp.asarray(start), jnp.asarray(end)
        assert self.average is not None
        return jnp.exp(self.average(field.evidence(start, x).field(codes), start, end)) @ codes - x


class ExponentialHeun(diffrax.AbstractSolver):
    """`DDIM`, and then again with `x_hat` on a straight line between the two ends: two evaluations, order 2.

    `x_t = r x_s + (1 - r) x_hat_s + (1 - (1 - r) / h) (x_hat_t - x_hat_s)`, `h = t - s`

    **Arguments:**

    - `decay`: as of `DDIM`.

    **Source:** Cox and Matthews 2002 (ETD2RK); Lu et al. 2022 (arXiv 2206.00927).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{lu2022dpm,
          title={{DPM-Solver}: A Fast {ODE} Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps},
          author={Lu, Cheng and Zhou, Yuhao and Bao, Fan and Chen, Jianfei and Li, Chongxuan and Zhu, Jun},
          booktitle={Advances in Neural Information Processing Systems},
          year={2022}
        }
        ```

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    sampler = ed.sampling.Diffusion(steps=2, solver=ed.flow.ExponentialHeun())
    assert ed.generate(model, length=12, sampler=sampler).force_evaluations.tolist() == [2 * 2 * 12]
    ```
    """

    decay: tuple[float, ...] = ()

    term_structure = diffrax.ODETerm
    interpolation_cls = diffrax.LocalLinearInterpolation
    stages: ClassVar[int] = 2

    def order(self, terms: diffrax.AbstractTerm) -> int | None:
        """2."""
        return 2

    def init(self, terms, t0, t1, y0, args) -> None:
        """No state."""

    def step(
        self, terms, t0, t1, y0, args, solver_state: None, made_jump: Any
    ) -> tuple[PyTree[Array], PyTree[Array], dict[str, Any], None, diffrax.RESULTS]:
        """One step; its error is what the second evaluation changed."""
        del solver_state, made_jump
        spans = _spans(terms, t0, t1, y0, args)
        here = _slope(terms, t0, y0, args)
        guess = _ahead(y0, here, spans, self.decay)
        there = _slope(terms, t1, guess, args)
        # f = N - r x, so N_t - N_s is the change of f and r times that of x
        change = _parts(lambda r, f0, f1, x0, x1, h: _second(r, h) * (f1 - f0 + r * (x1 - x0)), self.decay)(
            here, there, y0, guess, spans
        )
        y1 = jax.tree.map(jnp.add, guess, change)
        return y1, change, dict(y0=y0, y1=y1), None, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args) -> PyTree[Array]:
        """The field."""
        return terms.vf(t0, y0, args)


def _slope(terms, time, state, field):
    """The motion in noise time; under rolling noise in that of each token, which may stand still until later."""
    if not isinstance(field, RollingNoise):
        return terms.vf(time, state, field)
    return field.flow(field.times(time, token_count(state))[0], state)


def _spans(terms, start, end, state, field):
    """How much of its time passes in a step, for every part of the state: for each token of `x` under rolling noise."""
    h = own = terms.contr(start, end)
    if isinstance(field, RollingNoise):
        before, after = (field.times(time, token_count(state))[0] for time in (start, end))
        own = (after - before)[:, None]
    return (own, *[h] * (len(state) - 1)) if isinstance(state, tuple) else own


def _ahead(state, slope, spans, decay):
    """Every part by the share `1 - e^(-r h)` of the way to where it is drawn; by the time `h` where `r` is 0."""
    return _parts(lambda r, x, f, h: x + (-jnp.expm1(-r * h) / r if r else h) * f, decay)(state, slope, spans)


def _second(r, h):
    """What the second evaluation weighs, `(e^(-r h) - 1 + r h) / (r^2 h)`; `h / 2` where `r` is 0."""
    if not r:
        return h / 2
    return (jnp.expm1(-r * h) + r * h) / (r**2 * jnp.where(h > 0, h, 1.0))  # no time passes at a token out of the front


def _parts(function, decay):
    """`function(rate, *parts)` of a state that is `x` alone or a tuple of `x` and what moves along."""

    def apply(*states):
        if not isinstance(states[0], tuple):
            return function(decay[0] if decay else 1.0, *states)
        rates = (*(decay or (1.0,)), *[0.0] * len(states[0]))
        return tuple(function(rate, *parts) for rate, *parts in zip(rates, *states, strict=False))

    return apply

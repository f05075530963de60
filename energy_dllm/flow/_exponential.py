"""Exponential integrators: the noise falls exactly, only the change of the posterior within a step is approximated."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


class DDIM(diffrax.AbstractSolver):
    """`x_t = r x_s + (1 - r) x_hat(x_s)`, `r = sigma_t / sigma_s = e^(s - t)`: one evaluation a step, order 1.

    The exact solution of `dx/ds = x_hat - x` if `x_hat` stood still, which Euler's method is only for short steps: a
    step of any length ends between noise and text, never beyond. Hidden states that move along
    (`JointFlow`) are stepped as by Euler's method.

    **Source:** Song et al. 2021 (arXiv 2010.02502); Lu et al. 2022 (arXiv 2206.00927) for why it is exponential Euler.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    made = ed.generate(model, length=12, sampler=ed.sampling.Diffusion(steps=4, solver=ed.flow.DDIM()))
    assert made.reason == "reached the end of the time interval"
    ```
    """

    term_structure = diffrax.ODETerm
    interpolation_cls = diffrax.LocalLinearInterpolation

    def order(self, terms: diffrax.AbstractTerm) -> int | None:
        """1."""
        return 1

    def init(self, terms, t0, t1, y0, args) -> None:
        """No state."""

    def step(
        self, terms, t0, t1, y0, args, solver_state: None, made_jump: Any
    ) -> tuple[PyTree[Array], None, dict[str, Any], None, diffrax.RESULTS]:
        """One step."""
        del solver_state, made_jump
        h = terms.contr(t0, t1)
        y1 = _ahead(y0, terms.vf(t0, y0, args), -jnp.expm1(-h), h)
        return y1, None, dict(y0=y0, y1=y1), None, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args) -> PyTree[Array]:
        """The field."""
        return terms.vf(t0, y0, args)


class ExponentialHeun(diffrax.AbstractSolver):
    """`DDIM`, and then again with `x_hat` on a straight line between the two ends: two evaluations, order 2.

    `x_t = r x_s + (1 - r) x_hat_s + (1 - (1 - r) / h) (x_hat_t - x_hat_s)`, `h = t - s`

    **Source:** Cox and Matthews 2002 (ETD2RK); Lu et al. 2022 (arXiv 2206.00927).

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    sampler = ed.sampling.Diffusion(steps=2, solver=ed.flow.ExponentialHeun())
    assert ed.generate(model, length=12, sampler=sampler).force_evaluations.tolist() == [2 * 2 * 12]
    ```
    """

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
        h = terms.contr(t0, t1)
        here = terms.vf(t0, y0, args)
        guess = _ahead(y0, here, -jnp.expm1(-h), h)
        there = terms.vf(t1, guess, args)
        # f = x_hat - x, so x_hat_t - x_hat_s is the change of f and of x; of hidden states that of f alone
        bent = lambda f0, f1, x0, x1: f1 - f0 + x1 - x0
        if isinstance(y0, tuple):
            (f0, *g0), (f1, *g1) = here, there
            change = ((1 + jnp.expm1(-h) / h) * bent(f0, f1, y0[0], guess[0]),)
            change += tuple(h / 2 * (b - a) for a, b in zip(g0, g1, strict=True))
        else:
            change = (1 + jnp.expm1(-h) / h) * bent(here, there, y0, guess)
        y1 = jax.tree.map(jnp.add, guess, change)
        return y1, change, dict(y0=y0, y1=y1), None, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args) -> PyTree[Array]:
        """The field."""
        return terms.vf(t0, y0, args)


def _ahead(state, slope, gone, h):
    """`x` by the share `gone` of the way to `x_hat`; hidden states by the time `h`."""
    if isinstance(state, tuple):
        return state[0] + gone * slope[0], *(y + h * dy for y, dy in zip(state[1:], slope[1:], strict=True))
    return state + gone * slope

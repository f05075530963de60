"""Flow maps: solvers that jump along the probability flow."""

import abc
from typing import Any

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar


class AbstractFlowMap(diffrax.AbstractSolver):
    """A solver whose step may be as long as the path: a learned flow map of the `ProbabilityFlow`.

    `x_t = r x_s + (1 - r) D(x_s, s, t)`, `r = sigma_t / sigma_s = e^(s - t)`

    For any flow `dx/ds = x_hat - x` this is exact with `D = int_s^t e^(u - t) x_hat(x_u) du / (1 - r)`, the posterior
    mean averaged over the path; so a map predicts one distribution a token, and every jump stays in the convex hull of
    the codes. It is the `solver` of a `Diffusion` or of `solve`; a step costs one evaluation of the map and none of the
    force.

    To add a map, write `average`.
    """

    term_structure = diffrax.AbstractTerm
    interpolation_cls = diffrax.LocalLinearInterpolation

    @abc.abstractmethod
    def average(self, b: Float[Array, "L V"], start: Scalar, end: Scalar) -> Float[Array, "L V"]:
        """Log of the posterior averaged over the path from noise time `start` to `end`; `b` is the evidence at its
        start, that of the noise and all else. At `end = start`, log of the posterior itself."""

    def jump(
        self,
        x: Float[Array, "L C"],
        log_d: Float[Array, "L V"],
        codes: Float[Array, "V C"],
        start: Scalar,
        end: Scalar,
    ) -> Float[Array, "L C"]:
        """`x` at noise time `end`, from `x` at `start`, by the `average` between them."""
        ratio = jnp.exp(start - end).astype(x.dtype)
        return ratio * x + (1 - ratio) * (jnp.exp(log_d) @ codes)

    def order(self, terms: diffrax.AbstractTerm) -> int | None:
        """None: the error of a jump does not shrink with its length."""
        return None

    def init(self, terms, t0, t1, y0, args) -> None:
        """No state."""

    def step(
        self, terms, t0, t1, y0, args, solver_state: None, made_jump: Any
    ) -> tuple[Array, None, dict[str, Any], None, diffrax.RESULTS]:
        """One jump; `args` is the field, as `solve` passes it."""
        del solver_state, made_jump
        codes = args.energy.vocabulary.codes
        start, end = jnp.asarray(t0), jnp.asarray(t1)
        log_d = self.average(args.evidence(start, y0).field(codes), start, end)
        y1 = self.jump(y0, log_d, codes, start, end)
        return y1, None, dict(y0=y0, y1=y1), None, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args) -> Array:
        """The field itself, for diffrax."""
        return terms.vf(t0, y0, args)

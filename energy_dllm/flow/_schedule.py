"""Noise schedules: how the steps are distributed over the noise time `s = -log sigma`.

A schedule is an increasing map from `u` in [0, 1] to noise time, from most noise to least. Training draws `u`
uniformly, generation steps through equal `u`; the landscape itself does not change with the schedule.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import on_device
from .._types import Scalar


class AbstractSchedule(eqx.Module):
    """Noise levels, ordered from noise to text.

    To add a schedule, write `level`, increasing in `u`.
    """

    @abc.abstractmethod
    def level(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Noise time `s = -log sigma` at the fraction `u` of the way, `0 <= u <= 1`, increasing."""

    def levels(self, steps: int) -> Float[Array, " N"]:
        """`steps + 1` noise times from most noise to least, equally spaced in `u`."""
        if steps < 1:
            raise ValueError(f"`steps` is {steps}; expected at least one.")
        return self.level(jnp.linspace(0.0, 1.0, steps + 1))


class LogLinear(AbstractSchedule):
    """Equal steps of `log sigma`: `s = -log sigma_max + u log(sigma_max / sigma_min)`.

    **Arguments:**

    - `sigma_max`, `sigma_min`: noise at the start and at the end, in units of the codes' norm.

    **Raises:** `ValueError` unless `sigma_max > sigma_min > 0`.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    s = ed.flow.LogLinear(sigma_max=4.0, sigma_min=0.25).levels(2)
    assert jnp.allclose(jnp.exp(-s), jnp.array([4.0, 1.0, 0.25]))
    ```
    """

    start: Scalar
    end: Scalar

    def __init__(self, *, sigma_max: float = 3.5, sigma_min: float = 0.15):
        self.start, self.end = (jnp.asarray(-np.log(v)) for v in _ordered(sigma_max, sigma_min))

    def level(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`s` linear in `u`."""
        return self.start + u * (self.end - self.start)


class InformationUniform(AbstractSchedule):
    """Equal steps of information: the cross-entropy falls by the same amount in every step.

    `u(s) = [CE(s_0) - CE(s)] / [CE(s_0) - CE(s_1)]`, inverted piecewise linearly, mixed with a small share of
    `LogLinear` so that no level is skipped. Without a curve it takes that of `size` equally likely tokens with
    orthonormal codes and no context, computed here.

    **Arguments:**

    - `noise_times`: increasing noise times `(N,)` of a measured curve.
    - `cross_entropy`: cross-entropy at each of them `(N,)`, nats per token; made non-increasing if noise in the
      measurement has it rise.
    - `uniform`: share of the steps spread evenly in `log sigma`, between 0 and 1.

    **Raises:** `ValueError` if the noise times run backwards, a number is not finite, shapes differ or the curve gains
    no information.

    **Source:** time warping of CDCD (arXiv 2211.15089).

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    schedule = ed.flow.InformationUniform.context_free(27)
    s = schedule.levels(8)
    assert (jnp.diff(s) > 0).all()
    ```
    """

    knots: Float[Array, " N"]
    fraction: Float[Array, " N"]

    def __init__(
        self,
        noise_times: Float[Array | np.ndarray, " N"],
        cross_entropy: Float[Array | np.ndarray, " N"],
        *,
        uniform: float = 0.2,
    ):
        s, ce = np.asarray(noise_times, float), np.asarray(cross_entropy, float)
        if s.ndim != 1 or s.shape != ce.shape or s.size < 2:
            raise ValueError(
                f"`noise_times` {s.shape} and `cross_entropy` {ce.shape} must be two curves of equal length >= 2."
            )
        for name, curve in (("noise_times", s), ("cross_entropy", ce)):
            if not np.isfinite(curve).all():
                raise ValueError(f"`{name}` has a NaN or an infinity; expected finite numbers.")
        if not (np.diff(s) > 0).all():
            raise ValueError("`noise_times` runs backwards; expected increasing noise times -log sigma.")
        if not 0 < uniform <= 1:
            raise ValueError(f"`uniform` is {uniform}; expected a share above 0 and up to 1.")
        ce = np.minimum.accumulate(ce)
        gain = ce[0] - ce[-1]
        if not gain > 0:
            raise ValueError("`cross_entropy` never falls; expected a curve that gains information with s.")
        share = (1 - uniform) * (ce[0] - ce) / gain + uniform * (s - s[0]) / (s[-1] - s[0])
        self.knots, self.fraction = on_device(s), on_device(share)

    @classmethod
    def context_free(
        cls, size: int, *, sigma_max: float = 3.5, sigma_min: float = 0.15, uniform: float = 0.2
    ) -> "InformationUniform":
        """The schedule of `size` equally likely tokens with orthonormal codes, without context.

        By symmetry `CE(sigma) = E log sum_w exp((<x, e_w> - <x, e_1>) / sigma^2)`, averaged over fixed draws.
        """
        if size < 2:
            raise ValueError(f"`size` is {size}; expected at least two tokens.")
        start, end = (-np.log(v) for v in _ordered(sigma_max, sigma_min))
        s = np.linspace(start, end, 65)
        # level by level, and fewer draws of many tokens, whose sum is an average already: memory like that of a table
        noise = np.random.default_rng(0).standard_normal((min(1024, max(64, 2**22 // size)), size))

        def mean(snr):
            b = np.sqrt(snr) * noise
            b[:, 0] += snr
            top = b.max(-1, keepdims=True)
            return (np.log(np.exp(b - top).sum(-1)) + top[:, 0] - b[:, 0]).mean()

        return cls(s, np.array([mean(snr) for snr in np.exp(2 * s)]), uniform=uniform)

    def level(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`s` at which the fraction `u` of the information is in."""
        # the schedule is measured, not learned by gradient
        knots, fraction = jax.lax.stop_gradient((self.knots, self.fraction))
        return jnp.interp(u, fraction, knots)


def _ordered(sigma_max: float, sigma_min: float) -> tuple[float, float]:
    if not np.inf > sigma_max > sigma_min > 0:
        raise ValueError(
            f"`sigma_max`={sigma_max} and `sigma_min`={sigma_min}; expected sigma_max > sigma_min > 0 "
            "(a schedule runs from noise to text)."
        )
    return sigma_max, sigma_min

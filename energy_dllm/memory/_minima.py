"""Memories whose patterns compete: log-sum-exp by dot product and by distance, log-sum-ReLU and what lies between."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import Patterns, error_if, log_positive, stored
from .._types import Scalar
from ._states import AbstractSoftMinimum, overlaps, soft_minimum, squared


class LogSumExpMemory(AbstractSoftMinimum):
    """Log-sum-exp by dot product: `E = |x|^2 / 2 - 1/beta log sum_mu w_mu exp(beta <xi_mu, x>)`.

    `x - dE/dx` is one read of attention: softmax over patterns as keys, patterns as values.

    **Arguments:**

    - `patterns`: stored patterns `(M, N)`.
    - `beta`: inverse temperature, positive; a learnable leaf with its true gradient.
    - `weights`: weights `(M,)`, positive; 1 by default.

    **Raises:** `ValueError` for no pattern, shapes that differ or `beta <= 0`, or if one is not finite.

    **Source:** Ramsauer et al. 2021 (arXiv 2008.02217).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{ramsauer2021hopfield,
          title={Hopfield Networks is All You Need},
          author={Ramsauer, Hubert and Sch{\\"a}fl, Bernhard and Lehner, Johannes and others},
          booktitle={International Conference on Learning Representations},
          year={2021}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.LogSumExpMemory(jnp.eye(4), beta=3.0)
    x = jnp.array([0.9, 0.1, 0.0, 0.2])
    assert jnp.allclose(x - jax.grad(memory)(x), jax.nn.softmax(3.0 * x), atol=1e-6)
    ```
    """

    patterns: Float[Array, "M N"]
    log_weights: Float[Array, " M"]
    log_beta: Scalar

    def __init__(self, patterns: Patterns, *, beta: Scalar | float = 1.0, weights: Float[Array, " M"] | None = None):
        self.patterns, self.log_weights = stored(patterns, weights)
        self.log_beta = log_positive("beta", beta, self.patterns.dtype)

    def per_memory(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`|x|^2 / 2 - <xi_mu, x> - log(w_mu) / beta`."""
        return 0.5 * jnp.sum(x**2) - overlaps(self.patterns, x) - self.log_weights / self.beta

    def shares(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`p(mu | x) = softmax(-beta E_mu) (M,)`: the weight of each pattern's force at `x`."""
        return jax.nn.softmax(-self.beta * self.per_memory(x))

    def __call__(self, x: Float[Array, " N"]) -> Scalar:
        """`|x|^2 / 2 - 1/beta log sum_mu w_mu exp(beta <xi_mu, x>)`."""
        return soft_minimum(self.per_memory(x), self.beta)


class GaussianMemory(AbstractSoftMinimum):
    """Log-sum-exp by distance: `E = -1/beta log sum_mu w_mu exp(-beta/2 |x - xi_mu|^2)`.

    With `beta = 1/sigma^2` this is `-sigma^2 log p_sigma(x)` up to a constant, `p_sigma` being the patterns seen
    through Gaussian noise: `x - dE/dx` is the exact denoiser, `dE/dx = -sigma^2` times the score.

    **Arguments:**

    - `patterns`: stored patterns `(M, N)`.
    - `beta`: inverse temperature `1/sigma^2`, positive; a learnable leaf with its true gradient.
    - `weights`: weights `(M,)`, positive; 1 by default.

    **Raises:** `ValueError` for no pattern, shapes that differ or `beta <= 0`, or if one is not finite.

    **Source:** Saha et al. 2023 (arXiv 2306.03209); Pham et al. 2025 (arXiv 2505.21777), whose `beta` is half of ours.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.GaussianMemory(jnp.array([[2.0, 0.0], [-2.0, 0.0]]), beta=1.0)
    assert memory.shares(jnp.array([1.0, 3.0]))[0] > 0.98
    ```
    """

    patterns: Float[Array, "M N"]
    log_weights: Float[Array, " M"]
    log_beta: Scalar

    def __init__(self, patterns: Patterns, *, beta: Scalar | float = 1.0, weights: Float[Array, " M"] | None = None):
        self.patterns, self.log_weights = stored(patterns, weights)
        self.log_beta = log_positive("beta", beta, self.patterns.dtype)

    def per_memory(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`|x - xi_mu|^2 / 2 - log(w_mu) / beta`."""
        return 0.5 * squared(self.patterns, x) - self.log_weights / self.beta

    def shares(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`p(mu | x) = softmax(-beta E_mu) (M,)`: the weight of each pattern's force at `x`."""
        return jax.nn.softmax(-self.beta * self.per_memory(x))

    def __call__(self, x: Float[Array, " N"]) -> Scalar:
        """`-1/beta log sum_mu w_mu exp(-beta/2 |x - xi_mu|^2)`."""
        return soft_minimum(self.per_memory(x), self.beta)


class KernelMemory(AbstractSoftMinimum):
    """Log-sum-ReLU and its family: `E = -1/beta log[ floor + sum_mu w_mu relu(1 - beta |x - xi_mu|^2 / (2 m))^m ]`.

    `m = 1` is log-sum-ReLU (the Epanechnikov kernel), 2 the quartic, 3 the triweight, and `m -> inf` is
    `GaussianMemory`. Each kernel ends at the radius `sqrt(2 m / beta)`: a memory whose neighbours lie further than that
    is a point where the gradient is exactly 0, and centroids of overlapping supports are minima too.

    Outside every support the bracket has no gradient. With `floor = 0` a query there is an error; check
    with `covers`. With `floor > 0` there is a far field, a spring to the nearest pattern,
    `+ 1/2 relu(min_mu |x - xi_mu|^2 - 2 m / beta)`, continuous at the boundary, so that every query has a gradient.
    Minima within the supports are where they are without it: for steps that may leave them (`Minima`) give a floor.

    **Arguments:**

    - `patterns`: stored patterns `(M, N)`.
    - `beta`: inverse temperature, positive; a learnable leaf with its true gradient.
    - `power`: `m`, at least 1.
    - `floor`: the far field: 0 for none, or the bracket's value far away, such as 1e-6.
    - `weights`: weights `(M,)`, positive; 1 by default.

    **Raises:** `ValueError` for no pattern, shapes that differ, `beta <= 0`, `power < 1` or a negative floor; a
    runtime error for a pattern that is not finite, or a query outside every support without a far field.

    **Source:** Hoover et al. 2025, Dense associative memory with Epanechnikov energy (arXiv 2506.10801).

    ??? cite "Reference"

        ```bibtex
        @article{hoover2025epanechnikov,
          title={Dense Associative Memory with Epanechnikov Energy},
          author={Hoover, Benjamin and others},
          journal={arXiv:2506.10801},
          year={2025}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.KernelMemory(2.0 * jnp.eye(3), beta=2.0)
    assert (jax.grad(memory)(2.0 * jnp.eye(3)[0]) == 0).all() and not memory.covers(jnp.zeros(3))
    ```
    """

    patterns: Float[Array, "M N"]
    log_weights: Float[Array, " M"]
    log_beta: Scalar
    power: float = eqx.field(static=True)
    floor: float = eqx.field(static=True)

    def __init__(
        self,
        patterns: Patterns,
        *,
        beta: Scalar | float = 1.0,
        power: float = 1.0,
        floor: float = 0.0,
        weights: Float[Array, " M"] | None = None,
    ):
        if not power >= 1 or not power < float("inf"):
            raise ValueError(
                f"`power` is {power}; expected a number of at least 1 (and `GaussianMemory` for infinity)."
            )
        if not floor >= 0:
            raise ValueError(f"`floor` is {floor}; expected 0 (no far field) or a small positive number, such as 1e-6.")
        self.patterns, self.log_weights = stored(patterns, weights)
        self.log_beta = log_positive("beta", beta, self.patterns.dtype)
        self.power, self.floor = float(power), float(floor)

    @property
    def radius(self) -> Scalar:
        """Where every kernel ends, `sqrt(2 m / beta)`."""
        return jnp.sqrt(2 * self.power / self.beta)

    def covers(self, x: Float[Array, " N"]) -> Bool[Array, ""]:
        """Whether a query lies inside the support of at least one pattern."""
        return jnp.min(squared(self.patterns, x)) < self.radius**2

    def per_memory(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`-1/beta [m log relu(1 - beta |x - xi_mu|^2 / (2 m)) + log w_mu]`, outside the support the far field."""
        distances = squared(self.patterns, x)
        inside, logs = self._kernels(distances)
        spring = 0.5 * (distances - self.radius**2) - jnp.log(self.floor) / self.beta if self.floor else jnp.inf
        return jnp.where(inside, -logs / self.beta, spring)

    def shares(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`p(mu | x) (M,)`, the weight of each pattern's force at `x`: its part of the bracket, `floor` having one too.

        Outside every support the far field is that of the nearest pattern; without one, zeros.
        """
        distances = squared(self.patterns, x)
        inside, logs = self._kernels(distances)
        some = jnp.any(inside)
        logs = jnp.append(jnp.where(inside, logs, -jnp.inf), jnp.log(jnp.asarray(self.floor, logs.dtype)))
        kernels = jax.nn.softmax(jnp.where(some, logs, 0.0))[:-1]
        nearest = (jnp.arange(inside.size) == jnp.argmin(distances)) & (self.floor > 0)
        return jnp.where(some, kernels, nearest)

    def __call__(self, x: Float[Array, " N"]) -> Scalar:
        """`-1/beta log[floor + sum_mu w_mu relu(1 - ...)^m]` and the far field."""
        distances = squared(self.patterns, x)
        inside, logs = self._kernels(distances)
        if self.floor == 0:
            # as logarithms, so that a high power near the rim does not round to nothing
            total = jax.nn.logsumexp(jnp.where(inside, logs, -jnp.inf))
            message = "`x` lies outside every support, where there is no gradient; give a `floor`, or lower `beta`."
            return -error_if(lambda total, inside: ~inside.any(), message, total, inside) / self.beta
        total = jnp.sum(jnp.where(inside, jnp.exp(logs), 0.0)) + self.floor
        return -jnp.log(total) / self.beta + 0.5 * jax.nn.relu(jnp.min(distances) - self.radius**2)

    def _kernels(self, distances):
        left = 1.0 - self.beta * distances / (2 * self.power)
        inside = left > 0
        # 1 stands in outside, so that no derivative of the logarithm there can be NaN
        return inside, self.power * jnp.log(jnp.where(inside, left, 1.0)) + self.log_weights

"""Memories of fixed size: all patterns in one vector of random features, for any number of patterns."""

import abc
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._checks import Patterns, error_if, sizes, stored
from .._types import Key, Scalar
from ._states import AbstractMemory


_Self = TypeVar("_Self", bound="AbstractFeatureMemory")


class AbstractFeatureMemory(AbstractMemory):
    """A `GaussianMemory` of random features: `E = -1/beta log <Phi(x), T>`, `T = sum_mu w_mu Phi(xi_mu)`.

    The size of `T` does not depend on the number of patterns: they are added and removed in chunks, and not stored
    themselves. The error of the kernel falls as `1 / sqrt(features)`. `beta` is part of `T` and therefore fixed. To
    add a kind, write `features` and `__call__`.

    **Source:** Hoover et al. 2024, Dense associative memory through the lens of random features (arXiv 2410.24153).
    """

    projection: eqx.AbstractVar[Float[Array, "F N"]]
    total: eqx.AbstractVar[Float[Array, " P"]]
    count: eqx.AbstractVar[Int[Array, ""]]
    beta: eqx.AbstractVar[float]

    @abc.abstractmethod
    def features(self, x: Float[Array, " N"]) -> Float[Array, " P"]:
        """`Phi(x) (P,)`, bounded."""

    @property
    def dim(self) -> int:
        """Width `N` of a state."""
        return self.projection.shape[1]

    def add(self: _Self, patterns: Patterns, *, weights: Float[Array, " Q"] | None = None, chunk: int = 256) -> _Self:
        """A memory with these patterns `(Q, N)` as well, `chunk` of them at a time in memory."""
        change, count = self._sum(patterns, weights, chunk)
        return self._with(self.total + change, self.count + count)

    def remove(
        self: _Self, patterns: Patterns, *, weights: Float[Array, " Q"] | None = None, chunk: int = 256
    ) -> _Self:
        """A memory without these patterns, given with the weights they were added with.

        `T` does not record which patterns it holds: removing one that was never added is detected only where fewer are
        stored than are removed.
        """
        change, count = self._sum(patterns, weights, chunk)
        left = error_if(lambda left: left < 0, "`patterns` are more than the memory holds.", self.count - count)
        # exactly 0, without rounding errors of what was removed
        return self._with(jnp.where(left == 0, 0.0, self.total - change), left)

    def _sum(self, patterns, weights, chunk):
        rows, logs = stored(patterns, weights)
        sizes(chunk=chunk)
        if rows.shape[1] != self.dim:
            raise ValueError(f"`patterns` have width {rows.shape[1]}; the memory holds states of width {self.dim}.")
        number = rows.shape[0]
        rows = rows.astype(self.total.dtype)
        shares = jnp.exp(logs).astype(self.total.dtype)
        short = -number % min(chunk, number)
        rows, shares = jnp.pad(rows, ((0, short), (0, 0))), jnp.pad(shares, (0, short))
        pieces = rows.reshape(-1, min(chunk, number), self.dim), shares.reshape(-1, min(chunk, number))
        step = lambda total, piece: (total + piece[1] @ jax.vmap(self.features)(piece[0]), None)
        return jax.lax.scan(step, jnp.zeros_like(self.total), pieces)[0], number

    def _with(self, total, count):
        return eqx.tree_at(lambda memory: (memory.total, memory.count), self, (total, count))


class PositiveFeatureMemory(AbstractFeatureMemory):
    """Random features that are never negative: `<Phi(x), Phi(xi)> = 1/F sum_f e^(u_f(x) + u_f(xi))`.

    `u_f(x) = <w_f, x'> - |x'|^2`, `x' = sqrt(beta) x`, `w_f ~ N(0, 1)`: the mean over `w` is the Gaussian kernel
    `exp(-beta/2 |x - xi|^2)`. Written with squares completed, `e^u = e^(|w|^2/4) e^(-|x' - w/2|^2)`, it is a memory of
    `F` random bumps with learned weights, all in one logarithm: nothing is clipped, and no query is without a
    gradient. The price is variance, which grows with `beta |x|^2`: centre and scale the patterns.

    **Arguments:**

    - `dim`: width `N` of a state.
    - `features`: number `F` of random bumps.
    - `beta`: inverse temperature, positive, fixed.
    - `key`: random key of the `w_f`.

    **Raises:** `ValueError` if a size or `beta` is not positive.

    **Source:** positive features, Choromanski et al. 2021 (arXiv 2009.14794); as a memory, arXiv 2410.24153.

    ??? cite "Reference"

        ```bibtex
        @inproceedings{choromanski2021rethinking,
          title={Rethinking Attention with Performers},
          author={Choromanski, Krzysztof and Likhosherstov, Valerii and Dohan, David and others},
          booktitle={International Conference on Learning Representations},
          year={2021}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.PositiveFeatureMemory(2, features=64, key=jax.random.key(0))
    memory = memory.add(jnp.array([[1.0, 0.0], [0.0, 1.0]])).remove(jnp.array([[1.0, 0.0]]))
    assert memory.count == 1 and jnp.isfinite(memory(jnp.ones(2)))
    ```
    """

    projection: Float[Array, "F N"]
    total: Float[Array, " F"]
    count: Int[Array, ""]
    beta: float = eqx.field(static=True)

    def __init__(self, dim: int, *, features: int = 1024, beta: float = 1.0, key: Key):
        self.projection, self.beta = _drawn(dim, features, beta, key)
        self.total, self.count = jnp.zeros(features, self.projection.dtype), jnp.asarray(0)

    def features(self, x: Float[Array, " N"]) -> Float[Array, " F"]:
        """The bumps `exp(-|x' - w_f/2|^2) (F,)`, at most 1; their weights `e^(|w|^2/2) / F` are in the energy."""
        return jnp.exp(-self._distances(x))

    def __call__(self, x: Float[Array, " N"]) -> Scalar:
        """`-1/beta log 1/F sum_f e^(|w_f|^2/2) T_f e^(-|x' - w_f/2|^2)`."""
        held = self.total > 0
        log = jnp.where(held, jnp.log(jnp.where(held, self.total, 1.0)), -jnp.inf)
        log = log + 0.5 * jnp.sum(self.projection**2, axis=-1) - self._distances(x)
        lse = jax.nn.logsumexp(log) - jnp.log(log.size)
        empty = lambda lse, held: ~held.any()
        return -error_if(empty, "the memory is empty; `add` patterns first.", lse, held) / self.beta

    def _distances(self, x):
        return jnp.sum((self.beta**0.5 * x - 0.5 * self.projection) ** 2, axis=-1)


class TrigonometricFeatureMemory(AbstractFeatureMemory):
    """Random waves: `<Phi(x), Phi(xi)> = 1/F sum_f cos(sqrt(beta) <w_f, x - xi>)`, `w_f ~ N(0, 1)`.

    The mean over `w` is the Gaussian kernel. The error is the same everywhere, so that far from all patterns the
    estimated density `z` is noise around 0 and may be negative. Below `floor` its logarithm goes on as its tangent,
    `log floor + z / floor - 1`, so that the gradient is never 0. `covers` tells where
    `z` is above it.

    **Arguments:**

    - `dim`: width `N` of a state.
    - `features`: number `F` of random waves, each a sine and a cosine.
    - `beta`: inverse temperature, positive, fixed.
    - `floor`: density below which the logarithm is continued, positive.
    - `key`: random key of the `w_f`.

    **Raises:** `ValueError` if a size, `beta` or `floor` is not positive.

    **Source:** Rahimi & Recht 2007; as a memory, Hoover et al. 2024 (arXiv 2410.24153).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{rahimi2007random,
          title={Random Features for Large-Scale Kernel Machines},
          author={Rahimi, Ali and Recht, Benjamin},
          booktitle={Advances in Neural Information Processing Systems},
          year={2007}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.TrigonometricFeatureMemory(2, features=64, key=jax.random.key(0)).add(jnp.zeros((1, 2)))
    assert jnp.allclose(memory(jnp.zeros(2)), 0.0, atol=1e-6) and memory.covers(jnp.zeros(2))
    ```
    """

    projection: Float[Array, "F N"]
    total: Float[Array, " 2*F"]
    count: Int[Array, ""]
    beta: float = eqx.field(static=True)
    floor: float = eqx.field(static=True)

    def __init__(self, dim: int, *, features: int = 1024, beta: float = 1.0, floor: float = 1e-3, key: Key):
        if not floor > 0:
            raise ValueError(f"`floor` is {floor}; expected a small positive density, such as 1e-3.")
        self.projection, self.beta = _drawn(dim, features, beta, key)
        self.total, self.count = jnp.zeros(2 * features, self.projection.dtype), jnp.asarray(0)
        self.floor = floor

    def features(self, x: Float[Array, " N"]) -> Float[Array, " P"]:
        """`F^(-1/2) [cos <w_f, x'>, sin <w_f, x'>] (2 F,)`."""
        phase = self.projection @ (self.beta**0.5 * x)
        return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)]) * phase.size**-0.5

    def density(self, x: Float[Array, " N"]) -> Scalar:
        """The estimate `z = <Phi(x), T>` of `sum_mu w_mu exp(-beta/2 |x - xi_mu|^2)`; it can be negative."""
        return self.features(x) @ self.total

    def covers(self, x: Float[Array, " N"]) -> Bool[Array, ""]:
        """Whether the estimated density is above the floor, where the energy is its logarithm."""
        return self.density(x) >= self.floor

    def __call__(self, x: Float[Array, " N"]) -> Scalar:
        """`-1/beta log z`, below the floor its tangent."""
        z = self.density(x)
        z = error_if(lambda z, count: count == 0, "the memory is empty; `add` patterns first.", z, self.count)
        above = jnp.log(jnp.maximum(z, self.floor))
        return -jnp.where(z >= self.floor, above, jnp.log(self.floor) + z / self.floor - 1.0) / self.beta


def _drawn(dim: int, features: int, beta: float, key: Key) -> tuple[Float[Array, "F N"], float]:
    sizes(dim=dim, features=features)
    if not beta > 0:
        raise ValueError(f"`beta` is {beta}; expected a positive number.")
    return jax.random.normal(key, (features, dim)), float(beta)

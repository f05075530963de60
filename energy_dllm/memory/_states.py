"""Associative memories of one state: scalars `E(x)` of a vector `x (N,)`, low where something is stored.

| memory | energy of one pattern, `E_mu(x)` | together |
|---|---|---|
| `HopfieldMemory` | `-w <xi, x>^2 / 2` | sum |
| `PolynomialMemory` | `-w relu(<xi, x>)^n / n` | sum |
| `ExponentialMemory` | `-w exp(beta (<xi, x> - R^2)) / beta` | sum |
| `SimplicialMemory` | `-w sum_(i<j<k) xi_i x_i xi_j x_j xi_k x_k` | sum |
| `LogSumExpMemory` | `abs(x)^2 / 2 - <xi, x>` | soft minimum |
| `GaussianMemory` | `abs(x - xi)^2 / 2` | soft minimum |
| `KernelMemory` | `-m/beta log relu(1 - beta abs(x - xi)^2 / (2 m))` | soft minimum |

In a sum the forces of all patterns add, `E = sum_mu E_mu`. In a soft minimum they compete,
`E = -1/beta log sum_mu w_mu exp(-beta E_mu)`: its force is the average of the patterns' forces under `shares`.
"""

import abc
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import Patterns, stored
from .._types import Scalar


_Self = TypeVar("_Self", bound="AbstractPatternMemory")


class AbstractMemory(eqx.Module):
    """A scalar energy `E(x)` of one state `x (N,)`; retrieval is descent, `dx/dt = -dE/dx` (`memory.Descent`).

    `TokenMemory` makes a synapse of it that acts on every token, `SequenceMemory` one that acts on the whole sequence
    as one state; as synapses they join any `Network`.
    To add a memory without explicit patterns, write `dim` and `__call__`; with them, see `AbstractPatternMemory`.
    """

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Width `N` of a state."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, " N"]) -> Scalar:
        """The energy `E(x)`, a scalar."""


class AbstractPatternMemory(AbstractMemory):
    """A memory whose stored patterns are leaves `(M, N)`, each with a weight; both can be learned.

    To add one, derive from `AbstractSum` and write `per_memory`, the energy of every pattern alone, or from
    `AbstractSoftMinimum` and write `__call__` and `shares` too. Adding, removing and reweighting return a new memory
    and leave the old one as it was.
    """

    patterns: eqx.AbstractVar[Float[Array, "M N"]]
    log_weights: eqx.AbstractVar[Float[Array, " M"]]

    @abc.abstractmethod
    def per_memory(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """The energy `E_mu(x) (M,)` each pattern would have alone, its weight included."""

    @abc.abstractmethod
    def split(self, x: Float[Array, " N"]) -> tuple[Float[Array, " M"], Float[Array, " M"]]:
        """The energy by pattern `(M,)`, whose sum is `E(x)`, and the weight of each pattern's force in that of `E`."""

    @property
    def dim(self) -> int:
        """Width `N` of a state."""
        return self.patterns.shape[1]

    @property
    def weights(self) -> Float[Array, " M"]:
        """`w_mu (M,)`, positive; 1 by default."""
        return jnp.exp(self.log_weights)

    def add(self: _Self, patterns: Patterns, *, weights: Float[Array, " Q"] | None = None) -> _Self:
        """A memory with these patterns `(Q, N)` as well; `ValueError` if they have another width."""
        rows, logs = stored(patterns, weights)
        if rows.shape[1] != self.dim:
            raise ValueError(f"`patterns` have width {rows.shape[1]}; the memory holds states of width {self.dim}.")
        both = lambda old, new: jnp.concatenate([old, new.astype(old.dtype)])
        return self._with(both(self.patterns, rows), both(self.log_weights, logs))

    def remove(self: _Self, *indices: int) -> _Self:
        """A memory without the patterns of these indices; `ValueError` for one that is not there."""
        count = self.patterns.shape[0]
        for index in indices:
            if not isinstance(index, int | np.integer) or not -count <= index < count:
                raise ValueError(f"`indices` has {index}; the memory holds {count} patterns, 0 to {count - 1}.")
        kept = np.delete(np.arange(count), np.array(indices, int))
        if not kept.size:
            raise ValueError("`indices` leave no pattern; a memory holds at least one.")
        return self._with(self.patterns[kept], self.log_weights[kept])

    def reweight(self: _Self, weights: Float[Array, " M"]) -> _Self:
        """The same patterns with other weights `(M,)`, all positive."""
        return self._with(*stored(self.patterns, weights))

    def _with(self, patterns, log_weights):
        where = lambda memory: (memory.patterns, memory.log_weights)
        return eqx.tree_at(where, self, (patterns, log_weights))


class AbstractSum(AbstractPatternMemory):
    """Patterns whose energies add: `E = sum_mu E_mu`."""

    def __call__(self, x: Float[Array, " N"]) -> Scalar:
        """`sum_mu E_mu(x)`."""
        return jnp.sum(self.per_memory(x))

    def split(self, x: Float[Array, " N"]) -> tuple[Float[Array, " M"], Float[Array, " M"]]:
        """The energy by pattern `(M,)`, and the weight of each pattern's force, 1."""
        energies = self.per_memory(x)
        return energies, jnp.ones_like(energies)


class AbstractSoftMinimum(AbstractPatternMemory):
    """Patterns that compete: `E = -1/beta log sum_mu exp(-beta E_mu)`, at most the least of them.

    `beta` is a learnable leaf, kept as its logarithm, with its true gradient.
    """

    log_beta: eqx.AbstractVar[Scalar]

    @property
    def beta(self) -> Scalar:
        """Inverse temperature; of Gaussian noise, `1 / sigma^2`."""
        return jnp.exp(self.log_beta)

    @abc.abstractmethod
    def shares(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`p(mu | x) (M,)`: the weight of each pattern's force at `x`, such as `softmax(-beta E_mu)`."""

    def split(self, x: Float[Array, " N"]) -> tuple[Float[Array, " M"], Float[Array, " M"]]:
        """The energy by pattern `(M,)` in proportion to `shares(x)`, and the weight of each pattern's force, these."""
        shares = self.shares(x)
        total = jnp.sum(shares)
        return shares / jnp.where(total == 0, 1.0, total) * self(x), shares


def soft_minimum(energies: Float[Array, " M"], beta: Scalar) -> Scalar:
    """`-1/beta log sum_mu exp(-beta E_mu)`, relative to the least energy."""
    least = jax.lax.stop_gradient(jnp.min(energies))
    gaps = energies - least
    # if E is computed twice with different rounding, the least gap can be below 0, and beta would amplify it
    gaps = gaps + jax.lax.stop_gradient(jax.nn.relu(-gaps))
    return least - jnp.log(jnp.sum(jnp.exp(-beta * gaps))) / beta


def overlaps(patterns: Float[Array, "M N"], x: Float[Array, " N"]) -> Float[Array, " M"]:
    """`<xi_mu, x>`."""
    return patterns @ _fitting(patterns, x)


def squared(patterns: Float[Array, "M N"], x: Float[Array, " N"]) -> Float[Array, " M"]:
    """`|x - xi_mu|^2`, of differences: exactly 0, and of gradient 0, at a pattern."""
    return jnp.sum((_fitting(patterns, x) - patterns) ** 2, axis=-1)


def _fitting(patterns, x):
    if x.shape != patterns.shape[1:]:
        raise ValueError(f"`x` has shape {x.shape}; expected {patterns.shape[1:]}, as a pattern. `vmap` for a batch.")
    return x

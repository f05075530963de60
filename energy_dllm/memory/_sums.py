"""Memories whose pattern energies add: classical, polynomial, exponential, simplicial."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import Patterns, log_positive, sizes, stored
from .._types import Scalar
from ._states import AbstractSum, overlaps


# Above this the exponential is continued as its tangent: e^30 and its square are finite in every precision.
_LINEAR = 30.0


class HopfieldMemory(AbstractSum):
    """The classical memory: `E = -1/2 sum_mu w_mu <xi_mu, x>^2`, the Hebb rule as an energy.

    For states of +-1 (`glauber`), where the self-coupling is a constant, or in a box: over all of space it has no lower
    bound. Random patterns are held up to about `M = 0.138 N`.

    **Arguments:**

    - `patterns`: stored patterns `(M, N)`, usually +-1.
    - `weights`: weights `(M,)`, positive; 1 by default.

    **Raises:** `ValueError` for no pattern or shapes that differ, or if one is not finite.

    **Source:** Hopfield 1982; capacity: Amit, Gutfreund & Sompolinsky 1985.

    ??? cite "Reference"

        ```bibtex
        @article{hopfield1982neural,
          title={Neural Networks and Physical Systems with Emergent Collective Computational Abilities},
          author={Hopfield, John J.},
          journal={Proceedings of the National Academy of Sciences}, volume={79}, number={8}, pages={2554--2558},
          year={1982}
        }
        ```

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.HopfieldMemory(jnp.array([[1.0, -1.0, 1.0, 1.0]]))
    assert memory(memory.patterns[0]) == -8.0
    ```
    """

    patterns: Float[Array, "M N"]
    log_weights: Float[Array, " M"]

    def __init__(self, patterns: Patterns, *, weights: Float[Array, " M"] | None = None):
        self.patterns, self.log_weights = stored(patterns, weights)

    def per_memory(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`-1/2 w_mu <xi_mu, x>^2`."""
        return -0.5 * self.weights * (overlaps(self.patterns, x)) ** 2


class PolynomialMemory(AbstractSum):
    """The dense memory of degree `n`: `E = -1/n sum_mu w_mu relu(<xi_mu, x>)^n`.

    Holds about `N^(n-1)` random patterns of +-1. Powers of overlaps of order `N` are large numbers, in `float32`
    infinite from `N^n = 1e38` on: for many neurons and a high degree store `xi / N`, which scales the energy and
    nothing else.

    **Arguments:**

    - `patterns`: stored patterns `(M, N)`.
    - `degree`: `n`, at least 2.
    - `weights`: weights `(M,)`, positive; 1 by default.

    **Raises:** `ValueError` for no pattern, shapes that differ or a degree below 2, or if one is not
    finite.

    **Source:** Krotov & Hopfield 2016 (arXiv 1606.01164).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{krotov2016dense,
          title={Dense Associative Memory for Pattern Recognition},
          author={Krotov, Dmitry and Hopfield, John J.},
          booktitle={Advances in Neural Information Processing Systems},
          year={2016}
        }
        ```

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.PolynomialMemory(jnp.array([[1.0, -1.0, 1.0]]), degree=3)
    assert memory(memory.patterns[0]) == -9.0 and memory(-memory.patterns[0]) == 0.0
    ```
    """

    patterns: Float[Array, "M N"]
    log_weights: Float[Array, " M"]
    degree: int = eqx.field(static=True)

    def __init__(self, patterns: Patterns, *, degree: int = 3, weights: Float[Array, " M"] | None = None):
        sizes(2, degree=degree)
        self.patterns, self.log_weights = stored(patterns, weights)
        self.degree = degree

    def per_memory(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`-1/n w_mu relu(<xi_mu, x>)^n`."""
        return -self.weights * jax.nn.relu(overlaps(self.patterns, x)) ** self.degree / self.degree


class ExponentialMemory(AbstractSum):
    """The memory of exponential capacity: `E = -1/beta sum_mu w_mu exp(beta (<xi_mu, x> - R^2))`, `R = max |xi|`.

    `R^2` is a choice of unit that keeps the exponent below 0 for every state in the ball of radius `R`, where nothing
    can overflow. Far outside it, above an exponent of 30, the exponential is continued as its tangent. Where it is less
    than -100 for every pattern (-700 in `float64`), energy and force round to 0 and nothing is recalled: lower `beta`,
    or use `LogSumExpMemory`, by which states of equal norm have the same order.

    **Arguments:**

    - `patterns`: stored patterns `(M, N)`.
    - `beta`: inverse temperature, positive; a learnable leaf with its true gradient.
    - `weights`: weights `(M,)`, positive; 1 by default.

    **Raises:** `ValueError` for no pattern, shapes that differ or `beta <= 0`, or if one is not finite.

    **Source:** Demircigil et al. 2017 (arXiv 1702.01929).

    ??? cite "Reference"

        ```bibtex
        @article{demircigil2017model,
          title={On a Model of Associative Memory with Huge Storage Capacity},
          author={Demircigil, Mete and Heusel, Judith and L{\\"o}we, Matthias and Upgang, Sven and Vermet, Franck},
          journal={Journal of Statistical Physics}, volume={168}, pages={288--299},
          year={2017}
        }
        ```

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.ExponentialMemory(jnp.array([[1.0, -1.0], [1.0, 1.0]]), beta=2.0)
    assert jnp.allclose(memory(memory.patterns[0]), -(1 + jnp.exp(-4.0)) / 2)
    ```
    """

    patterns: Float[Array, "M N"]
    log_weights: Float[Array, " M"]
    log_beta: Scalar

    def __init__(self, patterns: Patterns, *, beta: Scalar | float = 1.0, weights: Float[Array, " M"] | None = None):
        self.patterns, self.log_weights = stored(patterns, weights)
        self.log_beta = log_positive("beta", beta, self.patterns.dtype)

    def per_memory(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`-w_mu exp(beta (<xi_mu, x> - R^2)) / beta`."""
        beta = jnp.exp(self.log_beta)
        radius = jnp.max(jnp.sum(self.patterns**2, axis=-1))
        exponent = beta * (overlaps(self.patterns, x) - radius) + self.log_weights
        below = jnp.minimum(exponent, _LINEAR)
        return -jnp.exp(below) * (1 + exponent - below) / beta


class SimplicialMemory(AbstractSum):
    """Interactions of three neurons: `E = -sum_mu w_mu sum_(i<j<k) z_i z_j z_k`, `z = xi_mu * x`.

    Over all triples the inner sum is a polynomial of power sums, `(p_1^3 - 3 p_1 p_2 + 2 p_3) / 6`, and costs no more
    than an overlap; `triples` keeps some of the simplices only. For states of +-1, as `HopfieldMemory`.

    **Arguments:**

    - `patterns`: stored patterns `(M, N)`, usually +-1.
    - `triples`: the simplices `(T, 3)` as indices of neurons; all of them by default.
    - `weights`: weights `(M,)`, positive; 1 by default.

    **Raises:** `ValueError` for no pattern, shapes that differ, fewer than three neurons, or a triple that is none
    or that is there twice.

    **Source:** Burns & Fukai 2023, Simplicial Hopfield networks (arXiv 2305.05179).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{burns2023simplicial,
          title={Simplicial Hopfield Networks},
          author={Burns, Thomas F. and Fukai, Tomoki},
          booktitle={International Conference on Learning Representations},
          year={2023}
        }
        ```

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.SimplicialMemory(jnp.array([[1.0, -1.0, 1.0, -1.0]]))
    assert jnp.allclose(memory(memory.patterns[0]), -4.0)  # four triples
    ```
    """

    patterns: Float[Array, "M N"]
    log_weights: Float[Array, " M"]
    triples: Int[Array, "T 3"] | None

    def __init__(
        self,
        patterns: Patterns,
        *,
        triples: Int[Array | np.ndarray, "T 3"] | None = None,
        weights: Float[Array, " M"] | None = None,
    ):
        self.patterns, self.log_weights = stored(patterns, weights)
        size = self.patterns.shape[1]
        if size < 3:
            raise ValueError(f"`patterns` have width {size}; three bodies need at least three neurons.")
        self.triples = None if triples is None else _simplices(np.asarray(triples), size)

    def per_memory(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """`-w_mu sum_(i<j<k) z_i z_j z_k`."""
        overlaps(self.patterns, x)
        z = self.patterns * x
        if self.triples is not None:
            return -self.weights * jnp.sum(jnp.prod(z[:, self.triples], axis=-1), axis=-1)
        one, two, three = (jnp.sum(z**n, axis=-1) for n in (1, 2, 3))
        return -self.weights * (one**3 - 3 * one * two + 2 * three) / 6


def _simplices(triples: np.ndarray, size: int) -> Int[Array, "T 3"]:
    if triples.ndim != 2 or triples.shape[1] != 3 or not len(triples):
        raise ValueError(f"`triples` has shape {triples.shape}; expected (T, 3), three neurons a row.")
    rows = np.sort(triples, axis=1)
    if rows.min() < 0 or rows.max() >= size or (np.diff(rows, axis=1) == 0).any():
        raise ValueError(f"`triples` has a row that is not three different neurons of 0 to {size - 1}.")
    if len(np.unique(rows, axis=0)) < len(rows):
        raise ValueError("`triples` has a simplex twice; expected each once, in any order of its neurons.")
    return jnp.asarray(rows)

"""Neurons as Lagrangians.

A layer of neurons is one convex function `Λ(y)`. Its gradient is the activation `g = grad Λ(y)`, its Hessian
the (positive semidefinite) mobility of the relaxation, and its Legendre transform `<y, g> - Λ(y)` the energy
the neurons store, whose derivative in `g` is `y` itself: the leak that keeps every rest point finite.
Activation, mobility and energy are all derived from `Λ`.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import log_positive
from .._types import Scalar


class AbstractNeurons(eqx.Module):
    """The neurons of one token: a convex Lagrangian `Λ` of its hidden state.

    To add a kind of neurons, write `lagrangian`; the activation follows.
    """

    @abc.abstractmethod
    def lagrangian(self, y: Float[Array, " D"]) -> Scalar:
        """`Λ(y)`, a convex scalar of the hidden state `y (D,)` of one token."""

    def activation(self, y: Float[Array, " D"]) -> Float[Array, " D"]:
        """`g = grad Λ(y)`, the activation `(D,)` of one token."""
        return jax.grad(self.lagrangian)(y)


class Identity(AbstractNeurons):
    """Linear neurons: `Λ = |y|^2 / 2`, `g = y`.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    y = jnp.array([1.0, -2.0])
    assert jnp.allclose(ed.energy.Identity().activation(y), y)
    ```
    """

    def lagrangian(self, y: Float[Array, " D"]) -> Scalar:
        """`|y|^2 / 2`."""
        return 0.5 * jnp.sum(y**2)


class Silent(AbstractNeurons):
    """No neurons beside the vocabulary: `Λ = 0`, `g = 0`.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    assert not ed.energy.Silent().activation(jnp.array([1.0, -2.0])).any()
    ```
    """

    def lagrangian(self, y: Float[Array, " D"]) -> Scalar:
        """0."""
        return jnp.zeros((), y.dtype)


class Softmax(AbstractNeurons):
    """Competing neurons: `Λ = 1/beta log sum_d exp(beta y_d)`, `g = softmax(beta y)`.

    **Arguments:**

    - `beta`: inverse temperature, positive; a learnable leaf with its true gradient.

    **Raises:** `ValueError` if `beta <= 0`.

    **Source:** Ramsauer et al. 2021 (arXiv 2008.02217); Krotov & Hopfield 2021 (arXiv 2008.06996).

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    g = ed.energy.Softmax(beta=2.0).activation(jnp.array([0.0, 1.0, 3.0]))
    assert jnp.allclose(g.sum(), 1.0)
    ```
    """

    log_beta: Scalar

    def __init__(self, *, beta: float = 1.0):
        self.log_beta = log_positive("beta", beta, jnp.result_type(float))

    def lagrangian(self, y: Float[Array, " D"]) -> Scalar:
        """`1/beta log sum_d exp(beta y_d)`."""
        beta = jnp.exp(self.log_beta)
        return jax.nn.logsumexp(beta * y) / beta


class LayerNorm(AbstractNeurons):
    """Layer norm: `g = gamma (y - mean(y)) / sqrt(var(y) + epsilon)`.

    `Λ = D gamma (sqrt(var(y) + epsilon) - sqrt(epsilon))`.

    `gamma` is one scalar: a vector of gains has no Lagrangian. `epsilon` is real and learnable: of order 1 it
    bounds the gain `dg/dy <= gamma / sqrt(epsilon)`, so that weak states are not amplified to full strength.

    **Arguments:**

    - `gamma`: gain, positive.
    - `epsilon`: variance at which the gain has fallen to `1/sqrt(2)`, in units of `y^2`, positive.

    **Raises:** `ValueError` if `gamma <= 0` or `epsilon <= 0`.

    **Source:** Hoover et al. 2023, Energy Transformer (arXiv 2302.07253).

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    g = ed.energy.LayerNorm(epsilon=1e-6).activation(jnp.array([1.0, 2.0, 6.0]))
    assert jnp.allclose(jnp.var(g), 1.0, atol=1e-4)
    ```
    """

    log_gamma: Scalar
    log_epsilon: Scalar

    def __init__(self, *, gamma: float = 1.0, epsilon: float = 1.0):
        self.log_gamma = log_positive("gamma", gamma, jnp.result_type(float))
        self.log_epsilon = log_positive("epsilon", epsilon, jnp.result_type(float))

    def lagrangian(self, y: Float[Array, " D"]) -> Scalar:
        """`D gamma (sqrt(var(y) + epsilon) - sqrt(epsilon))`, 0 at 0, with all digits of a small state."""
        return y.size * jnp.exp(self.log_gamma) * _risen(jnp.var(y), self.log_epsilon)


class Tanh(AbstractNeurons):
    """Saturating neurons: `Λ = 1/beta sum_d log cosh(beta y_d)`, `g = tanh(beta y)`.

    **Arguments:**

    - `beta`: slope at the origin, positive; a learnable leaf with its true gradient.

    **Raises:** `ValueError` if `beta <= 0`.

    **Source:** Hopfield 1984; Krotov & Hopfield 2021 (arXiv 2008.06996).

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    y = jnp.array([0.1, -100.0])
    assert jnp.allclose(ed.energy.Tanh(beta=2.0).activation(y), jnp.tanh(2.0 * y))
    ```
    """

    log_beta: Scalar

    def __init__(self, *, beta: float = 1.0):
        self.log_beta = log_positive("beta", beta, jnp.result_type(float))

    def lagrangian(self, y: Float[Array, " D"]) -> Scalar:
        """`1/beta sum_d log cosh(beta y_d)`, written so that large states do not overflow."""
        beta = jnp.exp(self.log_beta)
        # log cosh z = logaddexp(z, -z) - log 2
        return jnp.sum(jnp.logaddexp(beta * y, -beta * y) - jnp.log(2.0)) / beta


class Rectifier(AbstractNeurons):
    """Rectified neurons: `Λ = 1/2 sum_d relu(y_d)^2`, `g = relu(y)`.

    **Source:** Krotov & Hopfield 2016 (arXiv 1606.01164).

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    g = ed.energy.Rectifier().activation(jnp.array([-2.0, 3.0]))
    assert g.tolist() == [0.0, 3.0]
    ```
    """

    def lagrangian(self, y: Float[Array, " D"]) -> Scalar:
        """`1/2 sum_d relu(y_d)^2`."""
        return 0.5 * jnp.sum(jax.nn.relu(y) ** 2)


def _risen(square: Scalar, log_epsilon: Scalar) -> Scalar:
    """`sqrt(square + epsilon) - sqrt(epsilon)` without the difference."""
    epsilon = jnp.exp(log_epsilon)
    return square / (jnp.sqrt(square + epsilon) + jnp.sqrt(epsilon))

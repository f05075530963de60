"""Dynamics of one state on any scalar: gradient descent, Langevin dynamics, and heat-bath flips of binary neurons.

| dynamics | state | equation |
|---|---|---|
| `Descent` | any array `x` | `dx/dt = -dE/dx`: E falls |
| `Langevin` | any array `x` | `dx = -dE/dx dt + sqrt(2 T) dW`: the stationary distribution is `exp(-E/T)` |
| `glauber` | `x` of +-1 | one neuron at a time, `p(x_i = 1) = 1 / (1 + exp(dE_i / T))` |
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import error_if, floats, is_value, number, positive, sizes
from .._types import Key, Scalar
from ..flow import AbstractMotion


class Descent(AbstractMotion):
    """Descent of a scalar of one state: `dx/dt = -dE/dx`, `dE/dt = -|dE/dx|^2`.

    **Arguments:**

    - `energy`: a function of `x`, such as any `memory.AbstractMemory`.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.GaussianMemory(jnp.array([[1.0, 0.0], [0.0, 1.0]]), beta=9.0)
    path = ed.solve(ed.memory.Descent(memory), jnp.array([0.8, 0.4]), t0=0.0, t1=20.0)
    assert jnp.allclose(path.final, jnp.array([1.0, 0.0]), atol=1e-2)
    ```
    """

    energy: Callable[[Array], Scalar]

    @property
    def force_evaluations(self) -> int:
        """One."""
        return 1

    def __call__(self, time: Scalar | float, state: Float[Array, "..."], args: object = None) -> Float[Array, "..."]:
        """`-dE/dx`."""
        return -jax.grad(self.energy)(state)


class Langevin(AbstractMotion):
    """Overdamped Langevin motion of one state: `dx = -dE/dx dt + sqrt(2 T) dW`.

    Its stationary law is `exp(-E/T)`: for `E = -log p` at `T = 1` it samples `p`. An Euler step `h` is exact to order
    `h`.

    **Arguments:**

    - `energy`: a function of `x`, such as any `memory.AbstractMemory`.
    - `temperature`: `T`, positive, in units of the energy.

    **Raises:** `ValueError` if `temperature` is not positive.

    **Source:** Langevin 1908; Roberts & Tweedie 1996.

    ??? cite "Reference"

        ```bibtex
        @article{roberts1996exponential,
          title={Exponential Convergence of {Langevin} Distributions and Their Discrete Approximations},
          author={Roberts, Gareth O. and Tweedie, Richard L.},
          journal={Bernoulli}, volume={2}, number={4}, pages={341--363},
          year={1996}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    field = ed.memory.Langevin(ed.memory.GaussianMemory(jnp.eye(3), beta=4.0), temperature=0.01)
    path = ed.solve(field, jnp.zeros(3), t0=0.0, t1=5.0, step=0.05, key=jax.random.key(0))
    assert path.final.shape == (3,)
    ```
    """

    energy: Callable[[Array], Scalar]
    temperature: Scalar | float

    def __init__(self, energy: Callable[[Array], Scalar], *, temperature: Scalar | float = 1.0):
        number("temperature", temperature, positive, "a positive number (`Descent` has none)")
        self.energy, self.temperature = energy, temperature

    @property
    def force_evaluations(self) -> int:
        """One."""
        return 1

    def __call__(self, time: Scalar | float, state: Float[Array, "..."], args: object = None) -> Float[Array, "..."]:
        """The drift `-dE/dx`."""
        return -jax.grad(self.energy)(state)

    def amplitude(self, time: Scalar | float, state: Float[Array, "..."]) -> Float[Array, "..."]:
        """`sqrt(2 T)` on every component."""
        return jnp.full_like(state, (2 * self.temperature) ** 0.5)


def glauber(
    energy: Callable[[Array], Scalar],
    x: Float[Array, " N"],
    *,
    sweeps: int,
    temperature: Scalar | float = 0.0,
    key: Key,
) -> Float[Array, " N"]:
    """Flips of binary neurons, one at a time in random order: heat-bath dynamics on any scalar.

    `p(x_i = 1) = 1 / (1 + exp((E(x_i=1) - E(x_i=-1)) / T))`, at `T = 0` the lower of the two, and `x_i` as it is where
    they are equal. At `T = 0` no flip raises `E`; at `T > 0` the stationary law is `exp(-E/T)`.

    **Arguments:**

    - `energy`: a function of `x`, such as `memory.HopfieldMemory`.
    - `x`: the state to start from `(N,)`, of +-1.
    - `sweeps`: updates of every neuron.
    - `temperature`: `T`, not negative, in units of the energy.
    - `key`: random key of the order and of the flips.

    **Returns:** the state `(N,)`.

    **Raises:** `ValueError` if `sweeps` or `temperature` is negative; a runtime error if a difference of energies is
    not a number.

    **Source:** Glauber 1963; Hopfield 1982.

    ??? cite "Reference"

        ```bibtex
        @article{glauber1963time,
          title={Time-Dependent Statistics of the {Ising} Model},
          author={Glauber, Roy J.},
          journal={Journal of Mathematical Physics}, volume={4}, number={2}, pages={294--307},
          year={1963}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.HopfieldMemory(jnp.array([[1.0, -1.0, 1.0, 1.0, -1.0]]))
    cue = jnp.array([1.0, -1.0, 1.0, -1.0, -1.0])
    assert (ed.memory.glauber(memory, cue, sweeps=2, key=jax.random.key(0)) == memory.patterns[0]).all()
    ```
    """
    sizes(0, sweeps=sweeps)
    number("temperature", temperature, lambda temperature: temperature >= 0, "0 or more")
    x = floats(x)
    cold = is_value(temperature, 0)
    end = _flipped(energy, x, jax.random.split(key, sweeps), None if cold else jnp.asarray(temperature, x.dtype))
    message = "`energy` is not finite for a state of +-1; scale the patterns down, such as `xi / N`."
    return error_if(lambda end: end != end, message, end)


@eqx.filter_jit
def _flipped(energy, x, keys, temperature):
    def update(x, site):
        index, uniform = site
        rise = energy(x.at[index].set(1.0)) - energy(x.at[index].set(-1.0))
        flip = jnp.where(rise == 0, x[index], -jnp.sign(rise))
        if temperature is not None:
            warm = jnp.where(uniform < jax.nn.sigmoid(-rise / temperature), 1.0, -1.0)
            flip = jnp.where(temperature > 0, warm, flip)
        return x.at[index].set(jnp.where(jnp.isnan(rise), rise, flip)), None

    def sweep(x, key):
        k1, k2 = jax.random.split(key)
        sites = jax.random.permutation(k1, x.size), jax.random.uniform(k2, x.shape, x.dtype)
        return jax.lax.scan(update, x, sites)[0], None

    return jax.lax.scan(sweep, x, keys)[0]

"""The loop of the relaxation, for training and for fields with a relaxation inside."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import number, sizes
from .._types import Scalar
from ..energy import AbstractFreeEnergy


def relax(
    energy: AbstractFreeEnergy,
    y: Float[Array, "L D"],
    b: Float[Array, "L V"],
    *,
    steps: int | np.integer | Int[Array, ""],
    step: Scalar | float,
    momentum: Scalar | float = 0.0,
    mask: Bool[Array, " L"] | None = None,
) -> Float[Array, "L D"]:
    """`steps` Euler steps of `Relaxation`: `y <- y + v`, `v <- momentum v - step kappa dF/dg`.

    Without momentum the same as `solve(Relaxation(...), solver=diffrax.Euler())` without recording: the loop that
    training differentiates. With momentum (heavy ball) the fixed points are the same, and slow modes, stable or not,
    are `1 / (1 - momentum)` times faster.

    **Arguments:**

    - `energy`: the landscape.
    - `y`: hidden state to start from `(L, D)`.
    - `b`: evidence `(L, V)`.
    - `steps`: number of steps; a traced integer is allowed where no gradient is taken.
    - `step`: size of a step in time constants.
    - `momentum`: share of the last change that is kept, in [0, 1).
    - `mask`: which tokens are valid `(L,)`; all of them by default.

    **Returns:** the hidden state `(L, D)`, without momentum at `t = steps * step`.

    **Raises:** `ValueError` if shapes do not match, `steps` or `step` is negative or `momentum` is not in [0, 1).

    **Source:** the heavy ball, Polyak 1964.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    b = ed.flow.Gaussian(jnp.eye(3)[jnp.arange(8) % 3], 1.0).field(model.energy.vocabulary.codes)
    y = ed.flow.relax(model.energy, model.energy.neutral(8), b, steps=4, step=0.5)
    assert model.energy(y, b) < model.energy(model.energy.neutral(8), b)
    ```
    """
    if not isinstance(steps, jax.Array):
        sizes(0, steps=steps)
        steps = int(steps)
    number("step", step, lambda step: (step >= 0) & (step < np.inf), "a step size in time constants, such as 0.5")
    share = "a share of at least 0 and below 1, such as 0.9"
    number("momentum", momentum, lambda momentum: (momentum >= 0) & (momentum < 1), share)
    return _relax(energy, y, b, steps, step, momentum, mask)


# Jitted on its own, so that it is compiled once for every shape even outside a larger jitted function.
@eqx.filter_jit
def _relax(energy, y, b, steps, step, momentum, mask):
    y = y.astype(jnp.result_type(y, b))
    move = lambda y: (step * energy.kappa * energy.force(y, b, mask=mask)).astype(y.dtype)

    def euler(y, _):
        return y + move(y), None

    def heavy(state, _):
        y, v = state
        v = momentum * v + move(y)
        return (y + v, v), None

    if isinstance(momentum, float | int) and momentum == 0:
        return _loop(euler, y, steps)
    return _loop(heavy, (y, jnp.zeros_like(y)), steps)[0]


def _loop(move, state, steps):
    """`steps` moves: a differentiable scan where their number is static, a loop where it is traced."""
    if isinstance(steps, int):
        return jax.lax.scan(move, state, None, length=steps)[0]
    return jax.lax.fori_loop(0, steps, lambda _, state: move(state, None)[0], state)

"""The error estimate of one step of a solver."""

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import Scalar
from ._field import AbstractMotion


def step_error(
    time: Scalar | float,
    state: PyTree[Array],
    field: AbstractMotion,
    *,
    step: Scalar | float,
    solver: diffrax.AbstractSolver | None = None,
) -> PyTree[Array]:
    """A solver's own estimate of the error of one step from here: the difference of its two embedded methods.

    A probe: bind the step with `functools.partial(step_error, step=0.6)`. What the controller accepts is a step whose
    error is below `atol + rtol |state|`; a step much larger than that is an unrolled network rather than a motion.

    **Arguments:**

    - `time`, `state`, `field` as `solve` passes them; the noise of a stochastic field is left out.
    - `step`: the step, in the field's own time.
    - `solver`: one that estimates its error; default `diffrax.Tsit5()`.

    **Returns:** the error, the structure of `state`.

    **Raises:** `ValueError` if the solver has no estimate, as `diffrax.Euler` has not.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    assert ed.flow.step_error(0.0, model.energy.neutral(8) + 1.0, field, step=0.6).shape == (8, 16)
    ```
    """
    solver = diffrax.Tsit5() if solver is None else solver
    terms = diffrax.ODETerm(lambda t, y, args: field(jnp.asarray(t), y))
    t0 = jnp.asarray(time, jnp.result_type(float))
    carried = solver.init(terms, t0, t0 + step, state, None)
    _, error, *_ = solver.step(terms, t0, t0 + step, state, None, carried, False)
    if error is None:
        raise ValueError(f"`solver` is a {type(solver).__name__}, which estimates no error; take diffrax.Tsit5().")
    return error

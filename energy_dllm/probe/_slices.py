"""Slices and projections: the landscape along a line, and trajectories in few dimensions."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar


def profile(
    energy: Callable[[Array], Scalar],
    one: Float[Array, "*shape"],
    two: Float[Array, "*shape"],
    *,
    points: int = 65,
    margin: float = 0.25,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """The energy along the straight line through two states: a slice in one dimension.

    Between the rest points of two texts it bounds the barrier from above (`barrier` finds the pass); through a rest
    point `y` and `y + v`, with `v` an eigenvector of `hessian_spectrum` or a random direction, it shows the valley.

    **Arguments:**

    - `energy`: of one state: a memory, or `lambda y: model.energy(y, b)`.
    - `one`, `two`: states of one shape.
    - `points`: along the line.
    - `margin`: how far the line goes on beyond both, as a share of their distance.

    **Returns:** the share of the way from the first state to the second `(n,)`, and the energy there `(n,)`.

    **Raises:** `ValueError` if the shapes differ, `points` is below 2 or `margin` is negative.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.GaussianMemory(jnp.array([[2.0, 0.0], [-2.0, 0.0]]))
    share, energy = ed.probe.profile(memory, *memory.patterns, points=5, margin=0.0)
    assert energy.argmax() == 2
    ```
    """
    if one.shape != two.shape:
        raise ValueError(f"`one` has shape {one.shape} and `two` {two.shape}; take two texts of the same length.")
    if points < 2 or margin < 0:
        raise ValueError(f"`points`={points} must be 2 or more, and `margin`={margin} not negative.")
    share = jnp.linspace(-margin, 1 + margin, points)
    return share, _along(energy, one, two, share)


@eqx.filter_jit
def _along(energy, one, two, share):
    return jax.lax.map(lambda s: energy(one + s * (two - one)), share)


class Projection(eqx.Module):
    """What `project` returns.

    - `coordinates (P, N, k)`: the trajectories in the principal directions, in units of the state.
    - `origin (...)`, `directions (k, ...)`: the mean of all states, and orthonormal directions from it.
    - `held (k,)`: the share of all variance in each direction, largest first.
    """

    coordinates: Float[Array, "P N k"]
    origin: Float[Array, "*shape"]
    directions: Float[Array, "k *shape"]
    held: Float[Array, " k"]


def project(paths: Float[Array, "P N *shape"], *, count: int = 3) -> Projection:
    """Trajectories projected onto the principal components of all their states.

    **Arguments:**

    - `paths`: states `(P, N, ...)`, of trajectories of the same length.
    - `count`: directions, at most as many as there are states or numbers in one.

    **Returns:** a `Projection`.

    **Raises:** `ValueError` if there are fewer than two states, or `count` is not positive.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    paths = jax.random.normal(jax.random.key(0), (2, 5, 8, 16))
    assert ed.probe.project(paths, count=2).coordinates.shape == (2, 5, 2)
    ```
    """
    if paths.ndim < 3 or paths.shape[0] * paths.shape[1] < 2:
        raise ValueError(f"`paths` has shape {paths.shape}; expected (P, N, ...) with at least two states.")
    if count < 1:
        raise ValueError(f"`count` is {count}; expected a positive integer, such as 2.")
    points = paths.reshape(paths.shape[0] * paths.shape[1], -1)
    origin = jnp.mean(points, axis=0)
    _, sizes, rows = jnp.linalg.svd(points - origin, full_matrices=False)
    rows = rows[:count]
    flat = (points - origin) @ rows.T
    shape = paths.shape[2:]
    held = sizes[:count] ** 2 / jnp.maximum(jnp.sum(sizes**2), jnp.finfo(sizes.dtype).tiny)
    return Projection(flat.reshape(*paths.shape[:2], -1), origin.reshape(shape), rows.reshape(-1, *shape), held)

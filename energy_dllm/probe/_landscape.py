"""Two-dimensional slices of the free energy through the hidden state space."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..energy import AbstractFreeEnergy
from ..flow import AbstractEvidence


class Plane(eqx.Module):
    """A plane in the space of hidden states: `y(u, v) = origin + u e_1 + v e_2`, `e_1` and `e_2` orthonormal.

    **Arguments:**

    - `origin`: the hidden state `(L, D)` at `u = v = 0`.
    - `directions`: two hidden displacements `(2, L, D)` that span it; they are made orthonormal, the first
      keeping its direction.

    **Raises:** `ValueError` if shapes do not match; a runtime error if the directions are parallel or zero.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    plane = ed.probe.Plane(jnp.zeros((2, 3)), jnp.eye(2, 6).reshape(2, 2, 3))
    assert jnp.allclose(plane.coordinates(plane.at(jnp.array([0.5, -1.0]))), jnp.array([0.5, -1.0]))
    ```
    """

    origin: Float[Array, "L D"]
    directions: Float[Array, "2 L D"]

    def __init__(self, origin: Float[Array, "L D"], directions: Float[Array, "2 L D"]):
        if origin.ndim != 2 or directions.shape != (2, *origin.shape):
            raise ValueError(
                f"`directions` has shape {directions.shape} and `origin` {origin.shape}; expected (2, L, D) and (L, D)."
            )
        first, second = directions
        one = first / jnp.linalg.norm(first)
        rest = second - jnp.sum(second * one) * one
        # twice: after one pass the rounding error is as large as a nearly parallel second direction
        rest = rest - jnp.sum(rest * one) * one
        width = jnp.linalg.norm(rest)
        flat = ~(width > 1e-5 * jnp.linalg.norm(second))
        two = eqx.error_if(rest / width, flat, "`directions` are parallel or zero; a plane needs two of them.")
        self.origin, self.directions = origin, jnp.stack([one, two])

    @classmethod
    def of_paths(cls, paths: Float[Array, "P N L D"]) -> "Plane":
        """The plane that holds most of several trajectories: their first two principal components.

        The origin is the mean of the end points, so that `(0, 0)` lies among the rest points. Of the two
        signs of each axis, the one that trajectories move along on average is taken.
        """
        if paths.ndim != 4 or paths.shape[0] * paths.shape[1] < 3:
            raise ValueError(f"`paths` has shape {paths.shape}; expected (P, N, L, D) with at least three states.")
        points = paths.reshape(-1, paths.shape[2] * paths.shape[3])
        _, _, rows = jnp.linalg.svd(points - jnp.mean(points, axis=0), full_matrices=False)
        moved = jnp.mean(paths[:, -1] - paths[:, 0], axis=0).reshape(-1)
        axes = jnp.where((rows[:2] @ moved)[:, None] < 0, -rows[:2], rows[:2])
        return cls(jnp.mean(paths[:, -1], axis=0), axes.reshape(2, *paths.shape[2:]))

    @classmethod
    def through(cls, origin: Float[Array, "L D"], one: Float[Array, "L D"], two: Float[Array, "L D"]) -> "Plane":
        """The plane through three hidden states, such as two rest points and a start, the first at `(0, 0)`."""
        return cls(origin, jnp.stack([one - origin, two - origin]))

    def at(self, uv: Float[Array, "*shape 2"]) -> Float[Array, "*shape L D"]:
        """The hidden states at the coordinates `(u, v)`."""
        return self.origin + jnp.tensordot(uv, self.directions, axes=1)

    def coordinates(self, y: Float[Array, "*shape L D"]) -> Float[Array, "*shape 2"]:
        """The coordinates `(u, v)` of hidden states, projected onto the plane."""
        return jnp.einsum("...ld,kld->...k", y - self.origin, self.directions)

    def distance(self, y: Float[Array, "*shape L D"]) -> Float[Array, "*shape"]:
        """How far hidden states lie from the plane, Euclidean, in units of `y`."""
        left = y - self.at(self.coordinates(y))
        return jnp.sqrt(jnp.sum(left**2, axis=(-2, -1)))


class Landscape(eqx.Module):
    """A slice `F(y(u, v); b)` of the free energy at fixed evidence, with trajectories projected onto it.

    **Arguments:**

    - `energy`: the landscape.
    - `evidence`: the evidence about the passage.
    - `paths`: trajectories of the hidden state `(P, N, L, D)`: they set the frame of the slice.
    - `plane`: where to slice; by default the principal plane of `paths`.
    - `resolution`: grid points `n` per axis.
    - `margin`: frame left around the trajectories, as a share of their larger extent.

    **Attributes:**

    - `u (n,)`, `v (n,)`: coordinates of the grid, in units of `y`.
    - `free_energy (n, n)`: `F` in nats; row `i`, column `j` is the state at `(u_j, v_i)`.
    - `paths (P, N, 2)`: trajectories projected onto the plane.
    - `path_energy (P, N)`: the true `F` along them in nats, not that of the projection.
    - `path_distance (P, N)`: how far off the plane they run, in units of `y`.
    - `plane`: where in the space of hidden states the slice was taken.

    **Raises:** `ValueError` if shapes do not match, `resolution` is below 2 or `margin` is negative.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    starts = jax.random.normal(jax.random.key(1), (3, 8, 16))
    b = model.field(ed.flow.Masked(8))
    ends = jax.vmap(lambda y: ed.flow.relax(model.energy, y, b, steps=8, step=0.5))(starts)
    land = ed.probe.Landscape(model.energy, ed.flow.Masked(8), jnp.stack([starts, ends], axis=1), resolution=9)
    assert land.free_energy.shape == (9, 9)
    ```
    """

    u: Float[Array, " n"]
    v: Float[Array, " n"]
    free_energy: Float[Array, "n n"]
    paths: Float[Array, "P N 2"]
    path_energy: Float[Array, "P N"]
    path_distance: Float[Array, "P N"]
    plane: Plane

    def __init__(
        self,
        energy: AbstractFreeEnergy,
        evidence: AbstractEvidence,
        paths: Float[Array, "P N L D"],
        *,
        plane: Plane | None = None,
        resolution: int = 48,
        margin: float = 0.25,
    ):
        if resolution < 2:
            raise ValueError(f"`resolution` is {resolution}; expected at least 2 grid points per axis.")
        if margin < 0:
            raise ValueError(f"`margin` is {margin}; expected 0 or more, such as 0.25.")
        if paths.ndim != 4 or paths.shape[2:] != (evidence.length, energy.dim):
            expected = f"(P, N, {evidence.length}, {energy.dim})"
            raise ValueError(
                f"`paths` has shape {paths.shape}; expected {expected}, the length of `evidence` and the width "
                "of `energy`."
            )
        plane = Plane.of_paths(paths) if plane is None else plane
        self.plane = plane
        slice = _slice(energy, evidence, paths, plane, resolution, margin)
        self.u, self.v, self.free_energy, self.paths, self.path_energy, self.path_distance = slice

    @property
    def held(self) -> Float[Array, ""]:
        """The share of the trajectories' variance (about the origin) that lies in the plane, 0 to 1."""
        inside, outside = jnp.sum(self.paths**2), jnp.sum(self.path_distance**2)
        return inside / (inside + outside)

    def plot(self) -> Any:
        """A slice of the free energy with trajectories on it: black dots where they start, red where they end.

        **Returns:** a matplotlib `Figure`.

        **Raises:** `ImportError` without matplotlib.

        **Example:**

        ```python
        import jax, energy_dllm as ed

        model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
        paths = jax.random.normal(jax.random.key(1), (3, 2, 8, 16))
        land = ed.probe.Landscape(model.energy, ed.flow.Masked(8), paths, resolution=9)
        assert land.plot().axes[0].get_xlabel()
        ```
        """
        from .plot._motion import landscape_figure

        return landscape_figure(self)


@eqx.filter_jit
def _slice(energy, evidence, paths, plane, resolution, margin):
    b, spring = evidence.field(energy.vocabulary.codes), evidence.spring()
    height = jax.vmap(lambda y: energy(y, b, spring=spring))
    flat = plane.coordinates(paths)
    low, high = jnp.min(flat, axis=(0, 1)), jnp.max(flat, axis=(0, 1))
    pad = margin * jnp.max(high - low)
    u, v = jnp.linspace(low - pad, high + pad, resolution, axis=1)
    grid = jnp.stack(jnp.meshgrid(u, v), axis=-1)
    # one row at a time: n hidden states in memory, not n^2
    free_energy = jax.lax.map(lambda row: height(plane.at(row)), grid)
    return u, v, free_energy, flat, jax.lax.map(height, paths), plane.distance(paths)

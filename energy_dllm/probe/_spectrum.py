"""Spectra of Hessians, relaxation rates and Lyapunov exponents, matrix-free."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._checks import floats, sizes
from .._types import Key, Scalar
from ..energy import FreeEnergy
from ..flow import AbstractMotion


class Spectrum(eqx.Module):
    """Lanczos eigenvalues in increasing order, as numpy arrays; the ends of the spectrum are the most exact.

    - `values (k,)`: eigenvalues.
    - `vectors (k, ...)`: eigenvectors of the shape of the state, of length 1.
    - `weights (k,)`: the share of each in a random direction; with `values` a coarse picture of the whole density.
    - `residuals (k,)`: an eigenvalue of the true matrix lies within this distance.
    """

    values: Float[np.ndarray, " k"]
    vectors: Float[np.ndarray, "k *shape"]
    weights: Float[np.ndarray, " k"]
    residuals: Float[np.ndarray, " k"]

    def plot(self, *, label: str = "eigenvalue") -> Any:
        """A spectrum as stems: where the eigenvalues lie, how much of a random direction each holds.

        **Arguments:**

        - `label`: what the values are, with their unit.

        **Returns:** a matplotlib `Figure`.

        **Raises:** `ImportError` without matplotlib.

        **Example:**

        ```python
        import jax, jax.numpy as jnp, energy_dllm as ed

        memory = ed.memory.GaussianMemory(jnp.array([[2.0, 0.0], [-2.0, 0.0]]))
        found = ed.probe.hessian_spectrum(memory, jnp.zeros(2), key=jax.random.key(0))
        assert found.plot().axes[0].get_xlabel() == "eigenvalue"
        ```
        """
        from .plot._why import spectrum_figure

        return spectrum_figure(self, label=label)


def hessian_spectrum(
    energy: Callable[[Array], Scalar], point: Float[Array, "*shape"], *, key: Key, count: int = 32
) -> Spectrum:
    """The spectrum of the Hessian of an energy at a point, from products of it with vectors.

    Negative values are directions in which the point is no minimum, values near 0 are flat directions.

    **Arguments:**

    - `energy`: of one state: a memory, or `lambda y: model.energy(y, b)`.
    - `point`: where.
    - `key`: random key of the first direction.
    - `count`: steps of Lanczos, each one product; as many as the state has numbers give all of the spectrum.

    **Returns:** a `Spectrum` of at most `count` values.

    **Raises:** `ValueError` if `count` is not positive.

    **Source:** Lanczos 1950, with full reorthogonalisation.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.GaussianMemory(jnp.array([[2.0, 0.0], [-2.0, 0.0]]))
    found = ed.probe.hessian_spectrum(memory, jnp.zeros(2), key=jax.random.key(0))
    assert jnp.allclose(found.values, jnp.array([-3.0, 1.0]), atol=1e-4)  # 1 - beta |xi|^2, and 1
    ```
    """
    sizes(count=count)
    point = floats(point)
    return _spectrum(*_hessian(energy, point, jax.random.normal(key, point.shape, point.dtype), count), point)


def relaxation_rates(
    energy: FreeEnergy, y: Float[Array, "L D"], b: Float[Array, "L V"], *, key: Key, count: int = 32
) -> Spectrum:
    """The rates at which a relaxation near `y` converges or diverges: the spectrum of `1 + E_gg dg/dy`.

    A direction decays as `exp(-rate t)`; a negative rate grows. An Euler step is stable where it is below 2 / the
    largest rate. The matrix is not symmetric, but is so in the metric of the mobility `dg/dy`, in which Lanczos runs.

    **Arguments:**

    - `energy`: the landscape.
    - `y`, `b`: hidden state `(L, D)` and evidence `(L, V)`.
    - `key`: random key of the first direction.
    - `count`: steps of Lanczos.

    **Returns:** a `Spectrum`, in units of one per time constant.

    **Raises:** `ValueError` if `count` is not positive or shapes do not match.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    given = ed.flow.Masked(6)
    rates = ed.probe.relaxation_rates(model.energy, model.settle(given), model.field(given), key=jax.random.key(1))
    assert (rates.values > 0).all()  # at rest in a valley
    ```
    """
    sizes(count=count)
    return _spectrum(*_rates(energy, y, b, jax.random.normal(key, y.shape, y.dtype), count), y)


@eqx.filter_jit
def _hessian(energy, point, start, count):
    product = lambda v: jax.jvp(jax.grad(energy), (point,), (v,))[1]
    return _lanczos(product, lambda v: v, start, count)


@eqx.filter_jit
def _rates(energy, y, b, start, count):
    product = lambda v: -energy.kappa * jax.jvp(lambda y: energy.force(y, b), (y,), (v,))[1]
    mobility = lambda v: jax.jvp(lambda y: energy.activation(y, b), (y,), (v,))[1]
    still = ~jnp.any(mobility(start))  # where no activation moves there is no metric, and only the leak
    return _lanczos(product, lambda v: jnp.where(still, v, mobility(v)), start, count)


def largest_gain(
    energy: FreeEnergy, y: Float[Array, "L D"], b: Float[Array, "L V"], *, key: Key
) -> tuple[float, float]:
    """The largest and the least eigenvalue of the slope `dg/dy` of the activation."""
    values = _spectrum(*_gains(energy, y, b, jax.random.normal(key, y.shape, y.dtype)), y).values
    return float(values[-1]), float(values[0])


@eqx.filter_jit
def _gains(energy, y, b, start):
    return _lanczos(lambda v: jax.jvp(lambda y: energy.activation(y, b), (y,), (v,))[1], lambda v: v, start, 24)


def _lanczos(product, metric, start, count):
    """A basis that is orthonormal in the metric, and the tridiagonal matrix of the product in it."""
    count = min(count, start.size)
    shape, flat = start.shape, lambda v: v.reshape(-1)
    basis = jnp.zeros((count, start.size), start.dtype)

    def step(n, carry):
        basis, duals, alphas, betas, v = carry
        dual = flat(metric(v.reshape(shape)))
        size = jnp.sqrt(jnp.maximum(v @ dual, 0.0))
        scale = jnp.where(size > 0, 1.0 / jnp.where(size > 0, size, 1.0), 0.0)
        v, dual = scale * v, scale * dual
        basis, duals = basis.at[n].set(v), duals.at[n].set(dual)
        w = flat(product(v.reshape(shape)))
        alpha = dual @ w
        for _ in range(2):  # twice is enough
            w = w - (duals @ w) @ basis
        return basis, duals, alphas.at[n].set(alpha), betas.at[n].set(size), w

    zeros = jnp.zeros(count, start.dtype)
    basis, _, alphas, betas, left = jax.lax.fori_loop(
        0, count, step, (basis, jnp.zeros_like(basis), zeros, zeros, flat(start))
    )
    last = jnp.sqrt(jnp.maximum(left @ flat(metric(left.reshape(shape))), 0.0))
    return basis, alphas, betas, last


def _spectrum(basis, alphas, betas, last, like) -> Spectrum:
    basis, alphas, betas = np.asarray(basis), np.asarray(alphas), np.asarray(betas)
    size = max(np.abs(alphas).max(), betas[1:].max(initial=0.0))
    # where the rest is rounding, the directions that were reached are all there are
    tiny = np.flatnonzero(~(betas[1:] > 1e3 * np.finfo(betas.dtype).eps * size))
    k = tiny[0] + 1 if tiny.size else len(alphas)
    beyond = float(betas[k]) if k < len(alphas) else float(last)
    values, mixed = np.linalg.eigh(np.diag(alphas[:k]) + np.diag(betas[1:k], 1) + np.diag(betas[1:k], -1))
    vectors = mixed.T @ basis[:k]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Spectrum(values, vectors.reshape(k, *like.shape), mixed[0] ** 2, beyond * np.abs(mixed[-1]))


def lyapunov(
    field: AbstractMotion,
    state: PyTree[Array],
    *,
    t1: float,
    key: Key,
    t0: float = 0.0,
    step: float = 0.1,
    count: int = 4,
) -> Float[Array, " k"]:
    """The largest Lyapunov exponents along a motion: the mean rates at which neighbouring paths diverge.

    The motion and `count` displacements are carried along together by Runge-Kutta steps of fourth order, and the
    displacements are made orthonormal after each (QR). In the first quarter of the time they find their directions; the
    rest counts. A descent that comes to rest has none above 0; of a diffusion, a
    positive one means that a small change of the noise grows into another text.

    **Arguments:**

    - `field`: the motion; the noise of a stochastic one is left out.
    - `state`: where it starts.
    - `t0`, `t1`: the interval, in the field's own time.
    - `key`: random key of the first displacements.
    - `step`: size of a step.
    - `count`: how many, at most as many as the state has numbers.

    **Returns:** exponents `(count,)`, largest first, per unit of time.

    **Raises:** `ValueError` if `t1` is not after `t0`, or `step` or `count` is not positive.

    **Source:** Benettin et al. 1980.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    field = ed.memory.Descent(ed.memory.GaussianMemory(jnp.zeros((1, 3))))  # one bowl of curvature 1
    exponents = ed.probe.lyapunov(field, jnp.ones(3), t1=5.0, key=jax.random.key(0), count=2)
    assert jnp.allclose(exponents, -1.0, atol=1e-3)
    ```
    """
    sizes(count=count)
    if not t1 > t0 or not step > 0:
        raise ValueError(f"`t1`={t1} must be after `t0`={t0}, and `step`={step} positive.")
    return _lyapunov(field, state, t0, max(1, round((t1 - t0) / step)), t1 - t0, key, count)


@eqx.filter_jit
def _lyapunov(field, state, t0, steps, time, key, count):
    flat, tree = ravel_pytree(state)
    size = time / steps
    speed = lambda t, z: ravel_pytree(field(t, tree(z)))[0]

    def stepped(t, z):
        k1 = speed(t, z)
        k2 = speed(t + size / 2, z + size / 2 * k1)
        k3 = speed(t + size / 2, z + size / 2 * k2)
        k4 = speed(t + size, z + size * k3)
        return z + size / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    def move(carry, n):
        z, q, grown = carry
        new, slope = jax.linearize(lambda z: stepped(t0 + n * size, z), z)
        q, r = jnp.linalg.qr(jax.vmap(slope, 1, 1)(q))
        counts = jnp.where(n >= steps // 4, jnp.log(jnp.abs(jnp.diag(r))), 0.0)
        return (new, q, grown + counts), None

    count = min(count, flat.size)
    q = jnp.linalg.qr(jax.random.normal(key, (flat.size, count), flat.dtype))[0]
    (_, _, grown), _ = jax.lax.scan(move, (flat, q, jnp.zeros(count, flat.dtype)), jnp.arange(steps))
    return jnp.sort(grown / (size * (steps - steps // 4)))[::-1]

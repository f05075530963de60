"""Rest points, and the barriers between them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from .._types import Scalar


Energy = Callable[[Array], Scalar]
Force = Callable[[Array], Array]
DENSE = 1024
"""Largest size of a state whose Jacobian is formed as a dense matrix."""


def rest_point(
    force: Force, start: Float[Array, "*shape"], *, tolerance: float = 1e-6, steps: int = 64
) -> tuple[Float[Array, "*shape"], Scalar]:
    """A point where the force is zero: minimum, saddle or maximum, whichever is near the start.

    Descent finds minima only, and slowly where the landscape is flat; a root of the force is found in a few steps and
    may be any of them; `hessian_spectrum` tells which.

    **Arguments:**

    - `force`: from a state to `-dE/dstate` or `-dF/dg`, of its shape: `lambda y: energy.force(y, b)`.
    - `start`: a state nearby.
    - `tolerance`: of the root finder, absolute and relative, positive.
    - `steps`: at most so many of its steps.

    **Returns:** the point, and the largest component of the force that is left there; if that is not small, none was
    found.

    **Raises:** `ValueError` if a number is not positive or the force has another shape than `start`.

    **Source:** Levenberg-Marquardt, and Newton with GMRES for states of more than 1,024 numbers, by `optimistix`.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.GaussianMemory(jnp.array([[2.0, 0.0], [-2.0, 0.0]]))
    saddle, left = ed.probe.rest_point(lambda x: -jax.grad(memory)(x), jnp.array([0.2, 0.1]))
    assert jnp.allclose(saddle, 0.0, atol=1e-4) and left < 1e-4
    ```
    """
    if not tolerance > 0 or steps < 1:
        raise ValueError(f"`tolerance`={tolerance} and `steps`={steps} must be positive.")
    made = jax.eval_shape(force, start)
    if made.shape != start.shape:
        raise ValueError(f"`force` gives the shape {made.shape} for a `start` of {start.shape}; expected the same.")
    return _root(force, start, tolerance, steps)


@eqx.filter_jit
def _root(force, start, tolerance, steps):
    if start.size <= DENSE:
        solver = optx.LevenbergMarquardt(rtol=tolerance, atol=tolerance)
    else:
        inner = lx.GMRES(rtol=1e-3, atol=tolerance, restart=64)
        solver = optx.Newton(rtol=tolerance, atol=tolerance, linear_solver=inner)
    found = optx.root_find(lambda z, _: force(z), solver, start, max_steps=steps, throw=False).value
    return found, jnp.max(jnp.abs(force(found)))


class Barrier(eqx.Module):
    """The energy barrier between two states, by the string method.

    A chain of images descends while it is kept equally spaced, so that it comes to lie along the valley that leads over
    the pass; its ends descend to the rest points. The highest image is then refined to the saddle itself.

    Main arguments:

    - `energy`: of one state: a memory, or `lambda y: model.energy(y, b)`.
    - `one`, `two`: states in the two basins, of one shape: two texts of the same length, settled.

    Other arguments:

    - `force`: along which to descend; by default `-dE/dstate`. Of a network `lambda y: energy.force(y, b)`, which has
      the same rest points and better conditions.
    - `images`: states along the chain.
    - `steps`, `step`: of the descent; a step must be stable, below 2 / the largest curvature.
    - `tolerance`: of the refinement of the saddle.

    **Attributes:**

    - `path (n, ...)`: states along the pass, equally far apart, from one rest point to the other.
    - `energies (n,)`: the energy at each of them.
    - `saddle`: the highest point, refined by root finding; `energy ()` there.
    - `height ()`, `back ()`: how far up it is from the first rest point, and from the second.
    - `curvature ()`: of the energy along the path at the saddle, negative at a true pass.
    - `speed ()`: the largest force that is left at the saddle; not small if `steps` or `images` were too few.

    **Raises:** `ValueError` if the states have different shapes, a number is not positive, or `images` is below 3.

    **Source:** the simplified string method, E, Ren & Vanden-Eijnden 2007.

    ??? cite "Reference"

        ```bibtex
        @article{e2007simplified,
          title={Simplified and Improved String Method for Computing the Minimum Energy Paths in Barrier-Crossing
            Events},
          author={E, Weinan and Ren, Weiqing and Vanden-Eijnden, Eric},
          journal={The Journal of Chemical Physics}, volume={126}, pages={164103},
          year={2007}
        }
        ```

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.GaussianMemory(jnp.array([[2.0, 0.0], [-2.0, 0.0]]))
    over = ed.probe.Barrier(memory, jnp.array([1.5, 1.0]), jnp.array([-1.5, 0.0]), steps=100)
    assert jnp.allclose(over.saddle, 0.0, atol=1e-3) and over.curvature < 0 < over.height
    ```
    """

    path: Float[Array, "n *shape"]
    energies: Float[Array, " n"]
    saddle: Float[Array, "*shape"]
    energy: Scalar
    height: Scalar
    back: Scalar
    curvature: Scalar
    speed: Scalar

    def __init__(
        self,
        energy: Energy,
        one: Float[Array, "*shape"],
        two: Float[Array, "*shape"],
        *,
        force: Force | None = None,
        images: int = 33,
        steps: int = 500,
        step: float = 0.2,
        tolerance: float = 1e-6,
    ):
        if one.shape != two.shape:
            raise ValueError(
                f"`one` has shape {one.shape} and `two` {two.shape}; a barrier lies between states of one shape: "
                "take two texts of the same length, under one evidence."
            )
        if images < 3 or steps < 1 or not step > 0 or not tolerance > 0:
            raise ValueError(
                f"`images`={images} must be 3 or more, `steps`={steps}, `step`={step} and `tolerance`={tolerance} "
                "positive."
            )
        push = (lambda z: -jax.grad(energy)(z)) if force is None else force
        path, energies = _string(energy, push, one, two, images, steps, step)
        if not np.isfinite(energies).all():
            raise FloatingPointError(f"the chain left the finite numbers; take a smaller `step` than {step}.")
        top = int(np.argmax(energies))
        if 0 < top < images - 1:
            saddle, speed = rest_point(push, path[top], tolerance=tolerance)
            tangent = path[top + 1] - path[top - 1]
        else:  # downhill all the way: the higher end is the top
            saddle, speed = path[top], jnp.max(jnp.abs(push(path[top])))
            tangent = path[1] - path[0] if top == 0 else path[-1] - path[-2]
        at, curvature = _top(energy, saddle, tangent)
        self.path, self.energies, self.saddle, self.energy = path, energies, saddle, at
        self.height, self.back, self.curvature, self.speed = at - energies[0], at - energies[-1], curvature, speed

    def plot(self) -> Any:
        """The pass between two rest points: the energy along the chain, the saddle marked.

        **Returns:** a matplotlib `Figure`.

        **Raises:** `ImportError` without matplotlib.

        **Example:**

        ```python
        import jax.numpy as jnp, energy_dllm as ed

        memory = ed.memory.GaussianMemory(jnp.array([[2.0, 0.0], [-2.0, 0.0]]))
        over = ed.probe.Barrier(memory, *memory.patterns, steps=50)
        assert over.plot().axes[0].get_ylabel() == "$E$"
        ```
        """
        from .plot._why import barrier_figure

        return barrier_figure(self)


@eqx.filter_jit
def _string(energy, push, one, two, images, steps, step):
    share = jnp.linspace(0.0, 1.0, images)
    start = one[None] + share.reshape(-1, *[1] * one.ndim) * (two - one)[None]

    def even(path):
        flat = path.reshape(images, -1)
        gaps = jnp.linalg.norm(jnp.diff(flat, axis=0), axis=-1)
        along = jnp.concatenate([jnp.zeros(1), jnp.cumsum(gaps)])
        place = share * along[-1]
        return jax.vmap(lambda column: jnp.interp(place, along, column), 1, 1)(flat).reshape(path.shape)

    move = lambda path, _: (even(path + step * jax.lax.map(push, path, batch_size=16)), None)
    path = jax.lax.scan(move, start, None, length=steps)[0]
    return path, jax.lax.map(energy, path)


@eqx.filter_jit
def _top(energy, point, tangent):
    size = jnp.sqrt(jnp.sum(tangent**2))
    along = tangent / jnp.where(size > 0, size, 1.0)
    _, bent = jax.jvp(jax.grad(energy), (point,), (along,))
    return energy(point), jnp.sum(bent * along)

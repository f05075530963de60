"""Meters of memories: retrieval rate, capacity, basins, and all minima."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import floats
from .._types import Key, Scalar


Retrieval = Callable[[Array], Array]


def retrieval_rate(
    recall: Retrieval, patterns: Float[Array, "Q N"], cues: Float[Array, "Q N"], *, tolerance: float = 1e-3
) -> Scalar:
    """The share of cues that are retrieved: `|recall(cue) - pattern| <= tolerance sqrt(N)`.

    The recall is any function of one state: `lambda x: solve(Descent(memory), x, t0=0.0, t1=20.0).final`, or flips
    of binary neurons. Against load, noise or `beta` it makes the curves of capacity.

    **Arguments:**

    - `recall`: from a cue `(N,)` to the recalled state `(N,)`; it is batched here.
    - `patterns`: the patterns to retrieve `(Q, N)`.
    - `cues`: the cues `(Q, N)`, row by row.
    - `tolerance`: root mean square error a component that still counts, not negative.

    **Returns:** a share between 0 and 1.

    **Raises:** `ValueError` if shapes differ or `tolerance` is negative.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.LogSumExpMemory(jnp.eye(5), beta=20.0)
    read = lambda x: x - jax.grad(memory)(x)
    assert ed.memory.retrieval_rate(read, jnp.eye(5), 0.9 * jnp.eye(5) + 0.1) == 1.0
    ```
    """
    if patterns.shape != cues.shape or patterns.ndim != 2:
        raise ValueError(f"`patterns` {patterns.shape} and `cues` {cues.shape} differ; expected (Q, N) of both.")
    if tolerance < 0:
        raise ValueError(f"`tolerance` is {tolerance}; expected 0 or more.")
    error = jnp.sqrt(jnp.mean((jax.vmap(recall)(cues) - patterns) ** 2, axis=-1))
    return jnp.mean(error <= tolerance)


def capacity(loads: Float[Array | np.ndarray, " n"], rates: Float[Array | np.ndarray, " n"], *, level: float = 0.5):
    """The load at which retrieval falls through `level`, between two measured points by a straight line.

    **Arguments:**

    - `loads`: increasing numbers of patterns `(n,)`.
    - `rates`: retrieval rate at each of them `(n,)`.
    - `level`: a share between 0 and 1.

    **Returns:** a load, a float; infinite if the rate never falls below `level`.

    **Raises:** `ValueError` if shapes differ, loads do not increase, a number is not finite, or the first rate is below
    `level`.

    **Example:**

    ```python
    import numpy as np, energy_dllm as ed

    assert ed.memory.capacity(np.array([10.0, 20.0, 30.0]), np.array([1.0, 0.75, 0.25])) == 25.0
    ```
    """
    loads, rates = np.asarray(loads, float), np.asarray(rates, float)
    if loads.ndim != 1 or not loads.size or loads.shape != rates.shape or not (np.diff(loads) > 0).all():
        raise ValueError(f"`loads` {loads.shape} must increase and be as many as `rates` {rates.shape}.")
    if not (np.isfinite(rates).all() and np.isfinite(loads).all()):
        raise ValueError("`loads` and `rates` must be finite; one has a NaN or an infinity.")
    if rates[0] < level:
        raise ValueError(f"`rates` begin at {rates[0]}, below the `level` {level}; start with a smaller load.")
    below = np.flatnonzero(rates < level)
    if not below.size:
        return float("inf")
    n = below[0]
    share = (rates[n - 1] - level) / (rates[n - 1] - rates[n])
    return float(loads[n - 1] + share * (loads[n] - loads[n - 1]))


def basin(
    recall: Retrieval,
    pattern: Float[Array, " N"],
    radii: Float[Array, " R"],
    *,
    key: Key,
    tries: int = 64,
    tolerance: float = 1e-3,
) -> Float[Array, " R"]:
    """How far one may be from a memory and still come home: the retrieval rate of cues at given distances.

    **Arguments:**

    - `recall`: from a cue `(N,)` to what was recalled `(N,)`.
    - `pattern`: the memory `(N,)`; what is recalled from it itself is what the cues should come to.
    - `radii`: distances `(R,)`, in units of the state; directions are uniform.
    - `key`: random key of the directions.
    - `tries`: cues at each distance.
    - `tolerance`: as in `retrieval_rate`.

    **Returns:** shares `(R,)`.

    **Raises:** `ValueError` if `tries` is not positive.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.GaussianMemory(jnp.array([[2.0, 0.0], [-2.0, 0.0]]), beta=9.0)
    read = lambda x: x - jax.grad(memory)(x)
    rates = ed.memory.basin(read, memory.patterns[0], jnp.array([1.0, 4.0]), key=jax.random.key(0))
    assert rates[0] == 1.0 > rates[1]
    ```
    """
    if tries < 1:
        raise ValueError(f"`tries` is {tries}; expected a positive integer.")
    pattern, radii = floats(pattern), floats(radii)
    way = jax.random.normal(key, (tries, pattern.size), pattern.dtype)
    way = way / jnp.linalg.norm(way, axis=1, keepdims=True)
    home = jnp.broadcast_to(recall(pattern), way.shape)
    return jax.lax.map(lambda r: retrieval_rate(recall, home, pattern + r * way, tolerance=tolerance), radii)


class Minima(eqx.Module):
    """All the minima that descent from many starts finds, duplicates removed.

    Gradient descent whose step is halved where `E` would rise and grows where it falls: `E` never rises, and no
    step size has to be known. End points closer than `apart` are one.

    **Arguments:**

    - `energy`: a function of one state, such as any `memory.AbstractMemory`.
    - `starts`: states to start from `(S, N)`; what they miss is not found.
    - `steps`: at most so many steps.
    - `step`: the first step size; 1 is one read of attention for log-sum-exp memories.
    - `apart`: largest distance of two end points that are called one, positive.

    **Attributes:**

    - `points (P, N)`, `energies (P,)`: where they are.
    - `counts (P,)`: how many of the starts came there.
    - `curvature (P,)`: least eigenvalue of the Hessian; positive at a strict minimum, negative at a saddle where a
      start with a symmetry got stuck.
    - `which (S,)`: for every start the row it came to.
    - `speed ()`: the largest component of a gradient that was left anywhere; large if `steps` were too few.

    **Raises:** `ValueError` if `starts` is not `(S, N)`, or a number is not positive.

    **Source:** multi-start descent; the count of emergent minima in arXiv 2506.10801.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    memory = ed.memory.GaussianMemory(jnp.array([[1.0, 0.0], [-1.0, 0.0]]), beta=4.0)
    found = ed.memory.Minima(memory, jax.random.normal(jax.random.key(0), (20, 2)))
    assert found.points.shape == (2, 2) and (found.curvature > 0).all()
    ```
    """

    points: Float[np.ndarray, "P N"]
    energies: Float[np.ndarray, " P"]
    counts: Int[np.ndarray, " P"]
    curvature: Float[np.ndarray, " P"]
    which: Int[np.ndarray, " S"]
    speed: float

    def __init__(
        self,
        energy: Callable[[Array], Scalar],
        starts: Float[Array, "S N"],
        *,
        steps: int = 2000,
        step: float = 1.0,
        apart: float = 1e-3,
    ):
        starts = floats(starts)
        if starts.ndim != 2 or not len(starts):
            raise ValueError(f"`starts` has shape {starts.shape}; expected (S, N), one start a row.")
        if steps < 1 or not step > 0 or not apart > 0:
            raise ValueError(f"`steps`={steps}, `step`={step} and `apart`={apart} must be positive.")
        ends, energies, slopes, curvature = map(np.asarray, _descend(energy, starts, steps, step))
        order = np.argsort(energies, kind="stable")
        which = np.full(len(ends), -1)
        first: list[int] = []
        for n in order:
            near = [k for k, m in enumerate(first) if np.linalg.norm(ends[m] - ends[n]) <= apart]
            if not near:
                first.append(n)
            which[n] = near[0] if near else len(first) - 1
        counts = np.bincount(which, minlength=len(first))
        self.points, self.energies, self.counts, self.curvature = ends[first], energies[first], counts, curvature[first]
        self.which, self.speed = which, float(np.abs(slopes).max())


@eqx.filter_jit
def _descend(energy, starts, steps, step):
    value = jax.value_and_grad(energy)

    def move(carry, _):
        x, here, slope, size = carry
        there = x - size * slope
        new, turned = value(there)
        falls = new <= here
        pick = lambda a, b: jnp.where(falls, a, b)
        return (pick(there, x), pick(new, here), pick(turned, slope), size * pick(1.2, 0.5)), None

    def one(x):
        start = (x, *value(x), jnp.asarray(step, x.dtype))
        (x, here, slope, _), _ = jax.lax.scan(move, start, None, length=steps)
        return x, here, slope, jnp.linalg.eigvalsh(jax.hessian(energy)(x))[0]

    return jax.vmap(one)(starts)

"""Two memories become one where the noise is as large as they are: a bifurcation at `sigma_c = |xi|`.

python examples/two_memories.py
"""

import jax
import jax.numpy as jnp
import numpy as np

import energy_dllm as ed


def main(halvings: int = 12) -> float:
    """Print where the minima lie, then find the critical noise by halving; return `sigma_c / |xi|`."""
    xi = jnp.array([1.2, -0.5, 0.3])
    norm = float(jnp.linalg.norm(xi))
    starts = 1.5 * jax.random.normal(jax.random.key(0), (16, 3))
    pair = ed.memory.GaussianMemory(jnp.stack([xi, -xi]))

    def found(ratio: float) -> ed.memory.Minima:
        # temperature is a leaf: one compiled descent serves all of them
        memory = ed.memory.GaussianMemory(pair.patterns, beta=jnp.asarray((ratio * norm) ** -2, xi.dtype))
        return ed.memory.Minima(memory, starts, steps=1500, apart=0.02 * norm)

    print("sigma/|xi|  minima   m = |x|/|xi|   tanh(m |xi|^2/sigma^2)   curvature")
    for ratio in (0.4, 0.6, 0.8, 0.9, 1.1, 1.3):
        minima = found(ratio)
        m = float(np.linalg.norm(minima.points[0])) / norm
        print(
            f"{ratio:8.2f} {len(minima.points):8d} {m:14.4f} {np.tanh(m / ratio**2):20.4f} {minima.curvature[0]:14.4f}"
        )
    low, high = 0.5, 2.0
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if len(found(middle).points) > 1 else (low, middle)
    speciation = ed.memory.CriticalNoise(pair.patterns, key=jax.random.key(1), draws=1).speciation / norm
    print(f"two minima up to sigma/|xi| = {low:.4f}; from the covariance, {speciation:.4f}")
    return low


if __name__ == "__main__":
    main()

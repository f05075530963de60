"""Points of a circle are learned by heart, then mixed up, then understood: K = 2, 9, 1000.

python examples/circle.py
"""

import jax
import jax.numpy as jnp
import numpy as np

import energy_dllm as ed


def main(counts: tuple[int, ...] = (2, 9, 1000), sigma: float = 0.3, starts: int = 60) -> list[ed.memory.Memorisation]:
    """Descend the exact energy of K random points at one noise level; say what comes out."""
    reports = []
    for count in counts:
        k1, k2 = jax.random.split(jax.random.key(count))
        angle = 2 * jnp.pi * jax.random.uniform(k1, (count,)) if count > 2 else jnp.array([0.4, 0.4 + jnp.pi])
        points = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
        memory = ed.memory.GaussianMemory(points, beta=sigma**-2)
        begin = 1.2 * jax.random.normal(k2, (starts, 2))
        # not for long: around the ring of many points E is all but flat, and nothing should be hurried along it
        found = ed.memory.Minima(memory, begin, steps=8)
        rest = found.points[found.which]
        report = ed.memory.Memorisation(rest, points, near=0.01)
        radius = np.linalg.norm(rest, axis=1)
        shares = f"memorised {report.memorised:4.0%}, spurious {report.spurious:4.0%}, new {report.generalised:4.0%}"
        print(f"K = {count:5d}: {len(found.points):4d} different ends; {shares}; radius {radius.mean():.3f}")
        reports.append(report)
    return reports


if __name__ == "__main__":
    main()

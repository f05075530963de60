"""The figure of the page on memories: nine stored points, three noise levels, and how many minima there are.

python benchmarks/figure_memories.py docs/figures/memories.png
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import energy_dllm as ed


BLUE, RED, INK = "#0072b2", "#d55e00", "#1a1a1a"


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    options = parser.parse_args()
    draw = np.random.default_rng(4)
    angle = 2 * np.pi * (np.arange(9) + draw.uniform(-0.38, 0.38, 9)) / 9
    points = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    starts = jnp.asarray(1.3 * draw.normal(size=(150, 2)))
    axis = jnp.linspace(-1.6, 1.6, 161)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1)

    def found(sigma: float) -> ed.memory.Minima:
        memory = ed.memory.GaussianMemory(points, beta=jnp.asarray(sigma**-2))
        minima = ed.memory.Minima(memory, starts, steps=400, apart=0.02)
        return minima

    critical = ed.memory.CriticalNoise(points, key=jax.random.key(0), draws=8)
    levels = np.geomspace(0.08, 1.2, 28)
    counts = [int((found(float(s)).curvature > 0).sum()) for s in levels]

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 4, figsize=(11.5, 3.1), layout="constrained", width_ratios=(1, 1, 1, 1.25))
    for panel, sigma in zip(axes, (0.18, 0.34, 0.9), strict=False):
        memory = ed.memory.GaussianMemory(points, beta=sigma**-2)
        energy = np.asarray(jax.jit(jax.vmap(jax.vmap(memory)))(grid))
        minima = found(sigma)
        low = energy.min()
        panel.contourf(axis, axis, np.sqrt(energy - low), levels=18, cmap="Greys")
        panel.plot(*points.T, "o", color=BLUE, markersize=4.5, label="stored")
        strict = minima.points[minima.curvature > 0]
        panel.plot(*strict.T, "o", mfc="none", mec=RED, mew=1.6, markersize=9, label="minimum")
        panel.set(aspect="equal", xticks=[], yticks=[], xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))
        panel.set_title(f"$\\sigma$ = {sigma:g}: {len(strict)} minim{'um' if len(strict) == 1 else 'a'}", loc="left")
    axes[2].legend(loc="lower left", fontsize=7.5, framealpha=0.9)
    last = axes[3]
    last.plot(levels, counts, "o-", color=INK, markersize=3.5, linewidth=1.2)
    for name, value, height in (("condensation", critical.condensation, 8.4), ("speciation", critical.speciation, 5.4)):
        last.axvline(value, color=RED, linewidth=1.0)
        last.annotate(name, (value, height), xytext=(4, 0), textcoords="offset points", color=RED, fontsize=8)
    last.set_xscale("log")
    last.set_xticks([0.1, 0.2, 0.5, 1.0], ["0.1", "0.2", "0.5", "1"])
    last.minorticks_off()
    last.set(xlabel="noise level $\\sigma$", ylim=(0, 9.5), yticks=[1, 3, 5, 7, 9])
    last.set_title("strict minima of the energy", loc="left")
    figure.savefig(options.path, dpi=130)
    print(f"{options.path}: condensation {critical.condensation:.3f}, speciation {critical.speciation:.3f}")


if __name__ == "__main__":
    main()

"""Ten digits are stored; one comes back from noise, its energy written beside each frame.

python examples/denoise_digits.py
"""

import jax
import jax.numpy as jnp
import numpy as np

import energy_dllm as ed


# 8 x 8 pixels each: eight rows of one digit, ten digits side by side.
GLYPHS = """
..####.....##.....####....####.......##..######...####...######...####....####..
.##..##...###....##..##..##..##.....###..##......##..##......##..##..##..##..##.
.##.###..####........##......##....####..##......##..........##..##..##..##..##.
.######....##.......##.....###....##.##..#####...#####......##....####....#####.
.###.##....##......##........##..##..##......##..##..##....##....##..##......##.
.##..##....##.....##.........##..######......##..##..##....##....##..##......##.
.##..##....##....##......##..##......##..##..##..##..##....##....##..##..##..##.
..####...######..######...####.......##...####....####.....##.....####....####..
"""


def digits() -> jax.Array:
    """The stored patterns `(10, 64)`, pixels of +-1."""
    rows = [[1.0 if pixel == "#" else -1.0 for pixel in line] for line in GLYPHS.split()]
    return jnp.asarray(np.array(rows).reshape(8, 10, 8).transpose(1, 0, 2).reshape(10, 64))


def main(digit: int = 2, noise: float = 0.5, seed: int = 0, frames: int = 5, tries: int = 20) -> float:
    """Replace a share of the pixels by random ones, descend, draw; return the share of all cues that come back."""
    patterns = jnp.repeat(digits(), tries, axis=0)
    memory = ed.memory.LogSumExpMemory(digits(), beta=0.6)
    k1, k2 = jax.random.split(jax.random.key(seed))
    lost = jax.random.bernoulli(k1, noise, patterns.shape)
    cues = jnp.where(lost, jax.random.rademacher(k2, patterns.shape, patterns.dtype), patterns)
    recall = lambda x, **more: ed.solve(ed.memory.Descent(memory), x, t0=0.0, t1=12.0, **more)

    times = jnp.array([0.0, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0])[:frames]
    path = recall(cues[digit * tries], times=times, probes={"energy": lambda t, x, field: field.energy(x)})
    ink = lambda value: " .:+#@"[int(np.clip((float(value) + 1) * 3, 0, 5))] * 2
    pictures = [["".join(ink(v) for v in row) for row in np.reshape(state, (8, 8))] for state in path.states]
    print("   ".join(f"t = {float(time):<12.1f}" for time in path.times))
    for lines in zip(*pictures, strict=True):
        print("   ".join(lines))
    print("   ".join(f"E = {float(energy):<12.2f}" for energy in path.probes["energy"]))

    rate = float(ed.memory.retrieval_rate(lambda x: recall(x).final, patterns, cues, tolerance=0.1))
    # the glyphs are alike, some of them but for three pixels: what any reader can do, but for ties
    nearest = np.mean(np.argmax(np.asarray(cues @ digits().T), axis=1) == np.arange(10).repeat(tries))
    print(f"{noise:.0%} of the pixels replaced by random ones: {rate:.0%} of {10 * tries} cues come back")
    print(f"the stored digit with the largest overlap is the right one for {nearest:.0%}")
    return rate


if __name__ == "__main__":
    main()

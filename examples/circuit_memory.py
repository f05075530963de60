"""Digits recalled by an electronic circuit: one pixel in five is wrong, the capacitors find the digit.

python examples/circuit_memory.py            # needs ngspice; --plot FILE needs matplotlib
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import energy_dllm as ed


GLYPHS = """
.###. ..#.. .###. .###. ...#. ##### .###. ##### .###. .###.
#...# .##.. #...# #...# ..##. #.... #.... ....# #...# #...#
#..## ..#.. ....# ....# .#.#. ####. ####. ...#. #...# #...#
#.#.# ..#.. ..##. .###. #..#. ....# #...# ..#.. .###. .####
##..# ..#.. .#... ....# ##### ....# #...# ..#.. #...# ....#
#...# ..#.. #.... #...# ...#. #...# #...# .#... #...# ....#
.###. .###. ##### .###. ...#. .###. .###. .#... .###. .###.
"""


def digits() -> np.ndarray:
    """Ten digits of 7 x 5 pixels, -1 or 1, `(10, 35)`."""
    rows = [line.split() for line in GLYPHS.split("\n") if line]
    return np.array([[1.0 if c == "#" else -1.0 for row in rows for c in row[n]] for n in range(10)])


def memory(beta: float = 1.0) -> ed.circuit.Crossbar:
    """The digits as the conductances of a crossbar."""
    patterns = jnp.asarray(digits())
    return ed.circuit.Crossbar(patterns, (10,), beta=beta)


def cue(digit: int, key: jax.Array, flipped: float = 0.2) -> jax.Array:
    """A digit with every pixel turned with probability `flipped`."""
    pattern = jnp.asarray(digits())[digit]
    # the same pixels in single and in double precision
    return jnp.where(jax.random.uniform(key, pattern.shape, jnp.float32) < flipped, -pattern, pattern)


def show(*pictures: np.ndarray) -> str:
    """Pictures side by side in characters."""
    shades = " .:-=+*#%@"
    level = lambda v: shades[int(np.clip((v + 1) / 2 * (len(shades) - 1), 0, len(shades) - 1))] * 2
    return "\n".join("   ".join("".join(map(level, p.reshape(7, 5)[row])) for p in pictures) for row in range(7))


def plot(path: ed.circuit.Waveforms, reference: np.ndarray, file: str) -> None:
    """Every neuron's voltage over time, diffrax's beneath in grey, and four moments as pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.6), layout="constrained", facecolor="white")
    left, *small = figure.subplot_mosaic("AAABC;AAADE").values()
    for n in range(path.states.shape[1]):
        left.plot(path.times, reference[:, n], color="#c8c8c8", linewidth=3.2, label="diffrax" if n == 0 else None)
    for n in range(path.states.shape[1]):
        colour = "#0072b2" if path.final[n] > 0 else "#d55e00"
        left.plot(path.times, path.states[:, n], color=colour, linewidth=0.8)
    left.plot([], [], color="#0072b2", linewidth=0.8, label="ngspice, ink")
    left.plot([], [], color="#d55e00", linewidth=0.8, label="ngspice, paper")
    left.set(xlabel="time (time constants of 100 ns)", ylabel="voltage (units of 50 mV)")
    left.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, loc="center right")
    for axes, time in zip(small, (0.0, 0.5, 2.0, 8.0), strict=True):
        moment = min(int(np.searchsorted(path.times, time)), len(path.times) - 1)
        axes.imshow(-path.states[moment].reshape(7, 5), cmap="gray", vmin=-1, vmax=1)
        axes.set_title(f"t = {time:g}", fontsize=9)
        axes.set(xticks=[], yticks=[])
    figure.savefig(file, dpi=150)


def main(chosen: tuple[int, ...] = tuple(range(10)), file: str | None = None, *, t1: float = 8.0) -> dict[str, float]:
    """Recall every chosen digit in ngspice, with real transistors, and compare with diffrax."""
    crossbar, technology = memory(), ed.circuit.Technology.bipolar()
    chip = ed.circuit.fabricate(crossbar, technology)
    right, worst, elements = 0, 0.0, 0
    for digit in chosen:
        start = cue(digit, jax.random.key(digit))
        made = chip.circuit(start, t1=t1)
        path = ed.circuit.simulate(made, t1=t1)
        apart = ed.circuit.Comparison(crossbar, start, path)
        answer = int(np.argmax(digits() @ path.final))
        right, worst, elements = right + (answer == digit), max(worst, apart.end), made.elements
        print(f"\n{digit}: shown, after 1 time constant, at the end (read as {answer}, {path.seconds:.2f} s)")
        print(show(np.asarray(start), path.states[np.searchsorted(path.times, 1.0)], path.final))
        if file and digit == chosen[-1]:
            plot(path, apart.states, file)
    print(f"\n{right} of {len(chosen)} recalled by {elements} elements; ngspice and diffrax end {worst:.1e} apart")
    return {"recalled": right / len(chosen), "end_error": worst}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", metavar="FILE")
    main(file=parser.parse_args().plot)

"""The pictures of the shipped model in the README and on the pages, made anew: after new weights, all of them.

    python benchmarks/figures.py docs/figures

Figures of `inspect`, the page it writes, photographed by a headless `chromium` from the PATH, by day and by night, and
the descent of a passage as a film.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from page import FLAGS

import energy_dllm as ed


SIZE = 1000, 1050
SCHEMES = {"page.png": 1, "page_dark.png": 0}
"""Width and height in pixels; and what `chromium` calls light and dark."""


def film(model: ed.EnergyDLLM, path: Path, *, seed: int = 3, columns: int = 32) -> Path:
    """A passage of 64 tokens from noise to text: every token by its certainty, and the scalar that falls."""
    made = ed.generate(model, length=64, seed=seed, frames=64)
    frames, certainty = made.frames[0], np.exp(-made.entropy[0])
    scalar = (made.free_energy[0] - made.free_energy[0, -1]) / 64
    figure, (text, curve) = plt.subplots(2, 1, figsize=(7.2, 3.4), height_ratios=(1, 1.1), layout="constrained")
    text.set(xlim=(-0.5, columns - 0.5), ylim=(64 // columns - 0.5, -0.5))
    text.axis("off")
    letters = [
        text.text(n % columns, n // columns, "", family="monospace", fontsize=15, ha="center", va="center")
        for n in range(64)
    ]
    curve.semilogx(made.sigma, scalar, color="0.85", linewidth=1.5)
    (done,) = curve.semilogx([], [], color="C0", linewidth=2)
    (here,) = curve.semilogx([], [], "o", color="C0")
    curve.set(xlabel="noise level sigma, inferred on the way", ylabel="F, nats a token")
    curve.invert_xaxis()
    curve.spines[["top", "right"]].set_visible(False)
    curve.xaxis.set_major_formatter("{x:g}")
    curve.xaxis.set_minor_formatter("{x:g}")

    def draw(n):
        n = min(n, len(frames) - 1)
        for letter, token, sure in zip(letters, frames[n], certainty[n], strict=True):
            letter.set_text(model.decode(np.array([token])).replace("\n", "\u21b5"))
            letter.set_color(plt.colormaps["Greys"](0.15 + 0.85 * float(sure)))
        done.set_data(made.sigma[: n + 1], scalar[: n + 1])
        here.set_data(made.sigma[n : n + 1], scalar[n : n + 1])

    motion = FuncAnimation(figure, draw, frames=len(frames) + 16, blit=False)
    motion.save(path, writer=PillowWriter(fps=12), dpi=100)
    plt.close(figure)
    return path


def main() -> None:
    """Make them, and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="shakespeare")
    options = parser.parse_args()
    if shutil.which("chromium") is None:
        raise SystemExit("chromium is not on the PATH; install it, such as by `apt install chromium`.")
    model = ed.load(options.model)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        made = Path(name)
        figures = [path for path in ed.probe.inspect(model, made / "inspect") if path.suffix == ".png"]
        page = ed.probe.page(model, made / "page.html", prompt="KING", length=48)
        for picture, scheme in SCHEMES.items():
            settings = f"--user-data-dir={made / 'user'}", f"--blink-settings=preferredColorScheme={scheme}"
            look = f"--window-size={SIZE[0]},{SIZE[1]}", "--hide-scrollbars", f"--screenshot={made / picture}"
            command = ["chromium", *FLAGS, *settings, *look, page.as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            figures.append(made / picture)
        figures.append(film(model, made / "descent.gif"))
        options.folder.mkdir(parents=True, exist_ok=True)
        for path in figures:
            print(shutil.copy(path, options.folder / path.name))


if __name__ == "__main__":
    main()

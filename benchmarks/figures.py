"""The pictures of the shipped model in the README and on the pages, made anew: after new weights, all of them.

    python benchmarks/figures.py docs/figures
    python benchmarks/figures.py docs/figures --only film

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


SIZE = 1000, 2000
SCHEMES = {"page.png": 1, "page_dark.png": 0}
"""Width in pixels, and a height that holds all of the page; and what `chromium` calls light and dark."""
PARTS = ["inspect", "page", "film"]


def film(model: ed.EnergyDLLM, path: Path, *, length: int = 64, seed: int = 3, columns: int = 56) -> Path:
    """A passage from noise to text: every character by the certainty of its token, and the scalar that falls."""
    sampler = ed.sampling.descent(64)
    made = ed.generate(model, length=length, seed=seed, sampler=sampler, frames=sampler.steps)
    pieces = [[model.decode(np.array([token])) for token in frame] for frame in made.frames[0]]
    certainty = np.exp(-made.entropy[0])
    rows = -(-max(sum(map(len, piece)) for piece in pieces) // columns)
    scalar = (made.free_energy[0] - made.free_energy[0, -1]) / length
    figure, (text, curve) = plt.subplots(
        2, 1, figsize=(7.2, 2.4 + 0.3 * rows), height_ratios=(0.36 * rows, 2), layout="constrained"
    )
    text.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    text.axis("off")
    style = dict(family="monospace", fontsize=13, ha="center", va="center")
    letters = [text.text(n % columns, n // columns, "", **style) for n in range(rows * columns)]
    curve.plot(made.sigma, scalar, color="0.85", linewidth=1.5)
    (done,) = curve.plot([], [], color="C0", linewidth=2)
    (here,) = curve.plot([], [], "o", color="C0")
    curve.set(xlabel="noise level sigma, inferred on the way", ylabel="F, nats a token")
    curve.invert_xaxis()
    curve.spines[["top", "right"]].set_visible(False)

    def draw(n):
        n = min(n, len(pieces) - 1)
        sure = [c for piece, c in zip(pieces[n], certainty[n], strict=True) for _ in piece]
        characters = "".join(pieces[n]).replace("\n", "\u21b5").ljust(len(letters))
        for letter, character, c in zip(letters, characters, [*sure, *[1.0] * len(letters)], strict=False):
            letter.set_text(character)
            letter.set_color(plt.colormaps["Greys"](0.15 + 0.85 * float(c)))
        done.set_data(made.sigma[: n + 1], scalar[: n + 1])
        here.set_data(made.sigma[n : n + 1], scalar[n : n + 1])

    motion = FuncAnimation(figure, draw, frames=len(pieces) + 16, blit=False)
    motion.save(path, writer=PillowWriter(fps=8), dpi=100)
    plt.close(figure)
    return path


def main() -> None:
    """Make them, and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="shakespeare")
    parser.add_argument("--film", default="stories", help="the model whose descent is filmed")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="which of them; all by default")
    options = parser.parse_args()
    if "page" in options.only and shutil.which("chromium") is None:
        raise SystemExit("chromium is not on the PATH; install it, such as by `apt install chromium`.")
    model, figures = ed.load(options.model), []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        made = Path(name)
        if "inspect" in options.only:
            figures += [path for path in ed.probe.inspect(model, made / "inspect") if path.suffix == ".png"]
        page = ed.probe.page(model, made / "page.html", prompt="KING", length=48) if "page" in options.only else made
        for picture, scheme in SCHEMES.items() if "page" in options.only else ():
            settings = f"--user-data-dir={made / 'user'}", f"--blink-settings=preferredColorScheme={scheme}"
            look = f"--window-size={SIZE[0]},{SIZE[1]}", "--hide-scrollbars", f"--screenshot={made / picture}"
            command = ["chromium", *FLAGS, *settings, *look, page.as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            pixels = plt.imread(made / picture)
            drawn = np.flatnonzero((pixels != pixels[-1]).any(axis=(1, 2)))
            plt.imsave(made / picture, pixels[: drawn[-1] + 16])  # without the empty rest of the window
            figures.append(made / picture)
        if "film" in options.only:
            figures.append(film(ed.load(options.film), made / "descent.gif"))
        options.folder.mkdir(parents=True, exist_ok=True)
        for path in figures:
            print(shutil.copy(path, options.folder / path.name))


if __name__ == "__main__":
    main()

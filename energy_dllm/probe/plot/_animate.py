"""A passage condensing out of noise, as a moving picture."""

import os
from pathlib import Path

import numpy as np

from ...data import AbstractTokenizer
from ...flow import Trajectory
from ._style import COLOURS, GREY, INK, MONO, cells, cut, figure, glyphs, recorded, style


def animate(
    path: Trajectory,
    tokenizer: AbstractTokenizer,
    file: str | os.PathLike,
    *,
    width: int = 32,
    frames_per_second: int = 8,
) -> Path:
    """A trajectory as GIF or MP4: the likeliest text at every record, and how certain each token is.

    A frame for each record. Every cell is a token, its shade the certainty `1 - entropy / log V`; below, the mean
    certainty so far.

    **Arguments:**

    - `path`: a trajectory recorded with the probes `tokens` and `posterior_entropy`, under these names.
    - `tokenizer`: of the model.
    - `file`: where it goes; `.gif`, or `.mp4` where ffmpeg is installed.
    - `width`: tokens of a line.
    - `frames_per_second`: of the picture.

    **Returns:** the path of the file.

    **Raises:** `ImportError` without matplotlib; `ValueError` if a probe was not recorded, the suffix is another, a
    number is not positive, or ffmpeg is missing.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    probes = {"tokens": ed.probe.tokens, "posterior_entropy": ed.probe.posterior_entropy}
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    path = ed.solve(field, model.energy.neutral(8), t0=0.0, t1=2.0, times=jnp.arange(2.0), probes=probes)
    assert ed.probe.animate(path, model.tokenizer, "condensing.gif").exists()
    ```
    """
    file = Path(file)
    if file.suffix not in (".gif", ".mp4"):
        raise ValueError(f"`file` is {file}; expected a name that ends with .gif or .mp4.")
    if width < 1 or frames_per_second < 1:
        raise ValueError(f"`width`={width} and `frames_per_second`={frames_per_second} must be positive.")
    ids, entropy = np.asarray(recorded(path, "tokens")), np.asarray(recorded(path, "posterior_entropy"))
    certainty = 1.0 - entropy / np.log(max(tokenizer.size, 2))
    times, mean = np.asarray(path.times), certainty.mean(axis=1)
    length = ids.shape[1]
    rows = -(-length // width)
    with style():
        from matplotlib import animation, collections, colors

        if file.suffix == ".mp4" and not animation.FFMpegWriter.isAvailable():
            raise ValueError("`file` ends with .mp4, which needs the program ffmpeg; install it, or write a .gif.")
        names = glyphs(tokenizer)
        letters, widths = cells(names, ids[-1])
        lines = [widths[n : n + width] for n in range(0, length, width)]
        left = np.concatenate([np.cumsum(line) - line for line in lines])
        across = max(line.sum() for line in lines)
        # letters are of size 8 in place of 7.5, single ones further apart
        scale = 1.1 if max(letters) > 1 else 1.5
        made, (above, below) = figure(
            0.6 + scale * max(across, 1.5), 1.6 + 0.34 * rows, 2, 1, height_ratios=(rows, 2.2)
        )
        shades = colors.LinearSegmentedColormap.from_list("certainty", ["#ffffff", "#d3e6f3", "#74b3dc"])
        places = [(x, n // width, x + w, n // width + 1) for n, (x, w) in enumerate(zip(left, widths, strict=True))]
        corners = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, y0, x1, y1 in places]
        image = above.add_collection(
            collections.PolyCollection(corners, cmap=shades, clim=(0.0, 1.0), edgecolor="face")
        )
        above.set(xlim=(0.0, across), ylim=(rows, 0.0))
        above.set_axis_off()
        font = {"family": MONO, "fontsize": 8, "ha": "center", "va": "center", "parse_math": False}
        written = [above.text((x0 + x1) / 2, y0 + 0.5, "", **font) for x0, y0, x1, _ in places]
        below.set(xlim=(times[0], times[-1]), ylim=(0.0, 1.0), xlabel="time", ylabel="certainty")
        below.plot(times, mean, color="#d8d8d8")
        (line,) = below.plot([], [], color=COLOURS[0])

        def draw(n):
            image.set_array(certainty[n])
            for label, w, size, sure in zip(written, ids[n], letters, certainty[n], strict=True):
                label.set_text(cut(names[w], size).ljust(size) if names[w] else "")
                label.set_color(INK if sure > 0.25 else GREY)
            line.set_data(times[: n + 1], mean[: n + 1])

        writer = animation.PillowWriter if file.suffix == ".gif" else animation.FFMpegWriter
        waiting = file.with_name(f".{os.getpid()}.{file.name}")
        try:
            sink = writer(fps=frames_per_second)
            with sink.saving(made, str(waiting), dpi=110):
                for n in range(len(times)):
                    draw(n)
                    sink.grab_frame()
            os.replace(waiting, file)
        finally:
            waiting.unlink(missing_ok=True)
    return file

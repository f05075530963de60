"""A passage condensing out of noise, drawn character by character."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data import AbstractTokenizer
from ...flow import Trajectory
from ._style import COLOURS, INK, MONO, cells, cut, figure, glyphs, recorded, style


if TYPE_CHECKING:
    import matplotlib.figure


def plot_passage(path: Trajectory, tokenizer: AbstractTokenizer, *, rows: int = 32) -> "matplotlib.figure.Figure":
    """A passage condensing out of noise: a row for each moment, the final text at the bottom.

    Every cell is the likeliest token, a patch of a picture as it is; its shade is the certainty `1 - entropy / log V`.
    A bar marks the moment from which a token never changes again; without one it was there from the start. A cell is as
    wide as the token that is there at the end; longer ones before it are cut.

    **Arguments:**

    - `path`: a trajectory in noise time recorded with the probes `tokens` and `posterior_entropy`, under
      these names.
    - `tokenizer`: of the model.
    - `rows`: at most so many recorded moments are drawn, evenly spread.

    **Returns:** a matplotlib `Figure`.

    **Raises:** `ImportError` without matplotlib; `ValueError` if a probe was not recorded or `rows` is below
    2.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    probes = {"tokens": ed.probe.tokens, "posterior_entropy": ed.probe.posterior_entropy}
    state = jax.random.normal(jax.random.key(1), (8, 3)), model.energy.neutral(8)
    path = ed.solve(ed.flow.JointFlow(model.energy), state, t0=-1.0, t1=1.5, times=jnp.arange(-1, 1.5), probes=probes)
    assert ed.probe.plot_passage(path, model.tokenizer).axes
    ```
    """
    if rows < 2:
        raise ValueError(f"`rows` is {rows}; expected at least the first and the last moment.")
    ids, entropy = np.asarray(recorded(path, "tokens")), np.asarray(recorded(path, "posterior_entropy"))
    kept = np.unique(np.linspace(0, len(ids) - 1, min(rows, len(ids))).round().astype(int))
    certainty = 1.0 - entropy[kept] / np.log(max(tokenizer.size, 2))
    sigma = np.exp(-np.asarray(path.times))[kept]
    # the first drawn row at or after the last change
    agree = np.flip(np.cumprod(np.flip(ids == ids[-1], 0), axis=0), 0)
    commit = np.searchsorted(kept, len(ids) - agree.sum(axis=0))
    ids = ids[kept]
    height, length = ids.shape
    with style():
        from matplotlib.colors import LinearSegmentedColormap

        names = glyphs(tokenizer)
        letters, widths = cells(names, ids[-1])
        edges = np.concatenate([[0.0], np.cumsum(widths)])
        made, axes = figure(1.7 + max(edges[-1], 3.2), 1.1 + 0.19 * height)
        shades = LinearSegmentedColormap.from_list("certainty", ["#ffffff", "#d3e6f3", "#74b3dc"])
        image = axes.pcolormesh(edges, np.arange(height + 1) - 0.5, certainty, cmap=shades, vmin=0.0, vmax=1.0)
        axes.invert_yaxis()
        font = {"family": MONO, "fontsize": 7.5, "ha": "center", "va": "center", "parse_math": False}
        for i, j in np.ndindex(height, length):
            colour = INK if certainty[i, j] > 0.25 else "#858585"
            glyph = cut(names[ids[i, j]], letters[j])
            middle = (edges[j] + edges[j + 1]) / 2
            axes.text(middle, i, glyph.ljust(letters[j]) if glyph else "", color=colour, **font)
        if tokenizer.places:
            _patches(axes, tokenizer, ids, edges)
        late = np.flatnonzero(commit > 0)
        axes.hlines(commit[late] - 0.5, edges[late], edges[late + 1], color=COLOURS[1], linewidth=1.8)
        axes.set_title("bar: from here on it stays", loc="right", color=COLOURS[1], fontsize=8)
        marks = np.unique(np.linspace(0, height - 1, min(height, 9)).round().astype(int))
        axes.set_yticks(marks, [f"{sigma[m]:.2g}" for m in marks])
        axes.set_ylabel("noise level $\\sigma$")
        tens = np.arange(0, length, 10 if length > 10 else 1)
        axes.set_xticks((edges[tens] + edges[tens + 1]) / 2, map(str, tens))
        axes.set_xlabel("token")
        axes.set_title("A passage, from noise to text")
        axes.spines[:].set_visible(False)
        bar = made.colorbar(image, ax=axes, pad=0.015, fraction=0.035, aspect=40)
        bar.set_label("certainty, 1 − entropy / log V")
        bar.outline.set_visible(False)
    return made


def _patches(axes: Any, tokenizer: Any, ids: np.ndarray, edges: np.ndarray) -> None:
    """Those of a picture, in the middle of their cells."""
    rows, count, side = len(ids), math.prod(tokenizer.grids[-1]), tokenizer.patch
    pixels = tokenizer.codes[ids[:, -count:], : side * side * tokenizer.channels]
    pixels = np.broadcast_to(pixels.reshape(rows, count, side, side, -1), (rows, count, side, side, 3))
    apart = [(0, 0), (0, 0), (0, 0), (1, 1), (0, 0)]  # a clear pixel on both sides of each
    clear = np.pad(np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1), apart)
    low, high = axes.get_xlim(), axes.get_ylim()
    for i, row in enumerate(clear.transpose(0, 2, 1, 3, 4).reshape(rows, side, -1, 4)):
        place = (edges[-1 - count], edges[-1], i + 0.3, i - 0.3)
        axes.imshow(row, extent=place, aspect="auto", interpolation="none", zorder=1.5)  # above the shades
    axes.set(xlim=low, ylim=high)

"""Figures of why: attribution as bars, attention as a map, a pass, a spectrum."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ...data import AbstractTokenizer
from .._attribution import Attribution
from .._rest import Barrier
from .._spectrum import Spectrum
from ._style import COLOURS, GREY, INK, figure, finish, nats, style


if TYPE_CHECKING:
    import matplotlib.figure


def attribution_figure(
    why: Attribution, place: int, tokenizer: AbstractTokenizer, *, ids: Any = None, count: int = 12
) -> "matplotlib.figure.Figure":
    """`Attribution.plot`."""
    length = len(why.log_odds)
    if not -length <= place < length:
        raise ValueError(f"`place` is {place}; the passage has {length} tokens, 0 to {length - 1}.")
    place = place % length
    symbols = tokenizer.symbols
    token, reference = (_glyph(symbols[int(each[place])]) for each in (why.token, why.reference))
    parts = {name: float(part[place]) for name, part in why.parts.items()}
    messages = sum((np.asarray(split)[place] for split in why.neighbours.values()), np.zeros(length))
    shown = np.arange(max(0, place - count), min(length, place + count + 1))
    text = np.asarray(why.token if ids is None else ids)
    with style():
        made, (above, below) = figure(7.2, 5.2, 2, 1, height_ratios=(3, 2))
        names = list(parts)[::-1]
        values = np.array([parts[name] for name in names])
        above.barh(names, values, color=_signed(values), height=0.7)
        above.axvline(0.0, color=GREY, linewidth=0.8)
        room = 0.02 * max(np.abs(values).max(), 1e-12)
        for n, value in enumerate(values):
            side = "left" if value >= 0 else "right"
            above.text(value + (room if value >= 0 else -room), n, nats(value), ha=side, va="center", fontsize=8)
        above.margins(x=0.14)
        above.set_xlabel("nats; they add up to the log-odds")
        above.set_title(f"Place {place}: {token} against {reference}, log-odds {nats(float(why.log_odds[place]))} nats")
        below.bar(shown, messages[shown], color=_signed(messages[shown]), width=0.75)
        below.axhline(0.0, color=GREY, linewidth=0.8)
        glyphs = [_glyph(symbols[int(text[n])]) for n in shown]
        below.set_xticks(shown, glyphs, rotation=_turned(glyphs))
        below.get_xticklabels()[int(np.flatnonzero(shown == place)[0])].set_color(COLOURS[1])
        below.set_ylabel("nats")
        below.set_xlabel("neighbour (its own place: what was recalled there)")
        below.set_title("Messages of the neighbours")
        finish(below)
    return made


def plot_attention(pattern: Any, tokenizer: AbstractTokenizer, ids: Any) -> "matplotlib.figure.Figure":
    """Attention patterns: one map for each head, queries in rows, keys in columns, coloured by the root of the share.

    **Arguments:**

    - `pattern`: of one synapse `(H, L, L)`, from `attention_pattern`.
    - `tokenizer`: of the model.
    - `ids`: the text `(L,)`, written along both sides where it is not too long.

    **Returns:** a matplotlib `Figure`.

    **Raises:** `ImportError` without matplotlib; `ValueError` if shapes do not match.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    pattern = ed.probe.attention_pattern(jnp.zeros(()), jnp.ones((8, 16)), field)["attention 1"]
    assert ed.probe.plot_attention(pattern, model.tokenizer, jnp.zeros(8, int)).axes
    ```
    """
    pattern, ids = np.asarray(pattern), np.asarray(ids)
    if pattern.ndim != 3 or pattern.shape[1:] != (len(ids), len(ids)):
        raise ValueError(
            f"`pattern` has shape {pattern.shape}; expected (H, {len(ids)}, {len(ids)}), as long as `ids`."
        )
    heads, length = pattern.shape[:2]
    with style():
        from matplotlib.colors import PowerNorm

        across = min(heads, 3)
        down = -(-heads // across)
        made, grid = figure(1.0 + 3.4 * across, 0.8 + 3.1 * down, down, across, squeeze=False, sharex=True, sharey=True)
        for n, axes in enumerate(grid.flat):
            if n >= heads:
                axes.set_axis_off()
                continue
            # by the root: most shares are small
            axes.imshow(pattern[n], cmap="cividis", norm=PowerNorm(0.5, vmin=0.0, vmax=float(pattern.max())))
            axes.set_title(f"head {n}")
            if length <= 48:
                glyphs = [_glyph(tokenizer.symbols[int(w)]) for w in ids]
                axes.set_xticks(range(length), glyphs, fontsize=6.5, rotation=_turned(glyphs))
                axes.set_yticks(range(length), glyphs, fontsize=6.5)
            axes.set_xlabel("key")
            if n % across == 0:
                axes.set_ylabel("query")
        bar = made.colorbar(grid[0, 0].images[0], ax=grid, fraction=0.03, pad=0.02)
        bar.set_label("share of attention")
        bar.outline.set_visible(False)
    return made


def barrier_figure(over: Barrier) -> "matplotlib.figure.Figure":
    """`Barrier.plot`."""
    path, energies = np.asarray(over.path), np.asarray(over.energies)
    along = np.linspace(0.0, 1.0, len(path))
    flat = path.reshape(len(path), -1)
    top = along[int(np.argmin(np.linalg.norm(flat - np.asarray(over.saddle).reshape(-1), axis=1)))]
    with style():
        made, axes = figure(5.6, 3.6)
        axes.plot(along, energies, "o-", color=COLOURS[0], markersize=3.5)
        axes.plot(top, float(over.energy), "D", color=COLOURS[1], markersize=7)
        axes.annotate(
            f"saddle: {float(over.height):.3g} up, {float(over.back):.3g} back",
            (top, float(over.energy)),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color=COLOURS[1],
        )
        axes.margins(y=0.16)
        axes.set_xlabel("share of the way from one rest point to the other")
        axes.set_ylabel("$E$")
        axes.set_title("The lowest pass between two rest points")
        finish(axes)
        axes.margins(x=0.06)
    return made


def spectrum_figure(spectrum: Spectrum, *, label: str = "eigenvalue") -> "matplotlib.figure.Figure":
    """`Spectrum.plot`."""
    values, weights = np.asarray(spectrum.values), np.maximum(np.asarray(spectrum.weights), 1e-12)
    with style():
        made, axes = figure(5.6, 3.6)
        low = weights.min() / 3
        colours = [COLOURS[1] if value < 0 else COLOURS[0] for value in values]
        axes.vlines(values, low, weights, color=colours, linewidth=1.4)
        axes.scatter(values, weights, color=colours, s=16, zorder=3)
        if values.min() < 0:
            axes.axvline(0.0, color=GREY, linewidth=0.9, linestyle=(0, (3, 3)))
            axes.text(0.02, 0.95, "below 0: no minimum", color=COLOURS[1], transform=axes.transAxes, va="top")
        axes.set_yscale("log")
        axes.set_ylim(low, 2.0)
        axes.set_xlabel(label)
        axes.set_ylabel("share of a random direction")
        axes.set_title(f"{len(values)} eigenvalues, from {values[0]:.3g} to {values[-1]:.3g}", color=INK)
        finish(axes)
    return made


def _signed(values) -> list[str]:
    return [COLOURS[0] if value >= 0 else COLOURS[1] for value in values]


def _glyph(symbol: str) -> str:
    """A token as a label: a dollar sign would begin a formula."""
    return symbol.replace("\\n", "↵").replace("$", r"\$")


def _turned(glyphs: list[str]) -> float:
    """Labels of several letters would overlap side by side."""
    return 90.0 if any(len(glyph.replace("\\", "")) > 2 for glyph in glyphs) else 0.0

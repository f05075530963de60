"""The style of every figure: white ground, dark ink, colours that the colour-blind can tell apart."""

import contextlib
import functools
from typing import Any

import numpy as np

from ...data import AbstractTokenizer
from ...flow import Trajectory


INK, GREY = "#1a1a1a", "#6b6b6b"
# Okabe and Ito's colours, darkened where they would be too pale for a line on white.
COLOURS = ("#0072b2", "#d55e00", "#00795a", "#b0508a", "#8a6100", "#3a8fc7", "#4d4d4d")
MONO = "DejaVu Sans Mono"
STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    # opaque: a figure must also be readable on a dark page
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextlib.contextmanager
def style():
    """The style, while a figure is made; matplotlib's own settings are left as they were."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib, which is optional: pip install '.[plot]' in a checkout.") from error
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):  # pyright: ignore
        yield


def figure(width: float, height: float, *grid: int, **settings: Any) -> tuple[Any, Any]:
    """A figure outside pyplot (nothing global to close) and its axes."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(*grid, **settings)


def finish(axes: Any) -> None:
    """Light horizontal lines to read values by."""
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)


def label_ends(axes: Any, x: float, ends: list[tuple[float, str, str]]) -> None:
    """Write `(y, text, colour)` at the right end of lines, pushed apart where they would overlap, within the axes where
    they fit; a thin line leads from the end to its text."""
    low, high = axes.get_ylim()
    inches = axes.get_position().height * axes.figure.get_figheight()
    gap = (high - low) * 0.155 / max(inches, 0.5)
    order = sorted(ends, key=lambda end: end[0])
    place = np.array([end[0] for end in order])
    for _ in range(100):
        close = np.flatnonzero(np.diff(place) < gap * 0.999)
        if not close.size:
            break
        for i in close:
            middle = 0.5 * (place[i] + place[i + 1])
            place[i], place[i + 1] = middle - gap / 2, middle + gap / 2
    if place.size * gap <= high - low:  # from below, then from above
        rank = gap * np.arange(place.size)
        place = np.maximum(place, low + gap / 2 + rank)
        place = np.minimum(place, high - gap / 2 - rank[::-1])
    for y, (end, text, colour) in zip(place, order, strict=True):
        axes.annotate(
            text,
            (x, end),
            xytext=(1.035, y),
            textcoords=axes.get_yaxis_transform(),
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops=dict(arrowstyle="-", color=colour, linewidth=0.6, shrinkA=1, shrinkB=0, relpos=(0, 0.5)),
        )


def glyphs(tokenizer: AbstractTokenizer) -> list[str]:
    """What to draw for each token: a space and a patch of a picture are blank, a line break and a tab arrows, what the
    font lacks a box."""
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    drawable = FT2Font(findfont(MONO)).get_charmap()
    drawn = {"\\n": "\u21b5", "\\t": "\u21e5", "\u2423": " "}
    names = [functools.reduce(lambda name, each: name.replace(*each), drawn.items(), s) for s in tokenizer.symbols]
    if tokenizer.places:
        pictures: Any = tokenizer
        names = [" " if patch else name for name, patch in zip(names, pictures.allowed[-1], strict=True)]
    return ["" if name == " " else name if all(ord(c) in drawable for c in name) else "\u25a1" for name in names]


def cells(names: list[str], ids: Any) -> tuple[list[int], np.ndarray]:
    """Letters that the cell of each token of a text holds, and its width in inches at a size of 7.5: cells of tokens of
    several letters are as wide as these, so that the text reads as one line."""
    several = max(map(len, names)) > 1
    letters = [max(len(names[w]), 1 + several) for w in ids]
    return letters, np.array(letters) * (0.07 if several else 0.135)


def cut(name: str, letters: int) -> str:
    """A name that fits into a cell."""
    return name if len(name) <= letters else name[: letters - 1] + "\u2026"


def sigma_axis(axes: Any, *, label: str = "noise level $\\sigma$") -> None:
    """The noise level along the top of an axis whose bottom is noise time."""
    low, high = axes.get_xlim()
    top = axes.secondary_xaxis("top", functions=(lambda s: s, lambda s: s))
    marks = [m for m in (20, 10, 5, 3, 2, 1, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01) if low <= -np.log(m) <= high]
    top.set_xticks([-np.log(m) for m in marks], [f"{m:g}" for m in marks])
    top.set_xlabel(label)


def nats(value: float) -> str:
    """With three digits, none of them lost in a small value beside a large one."""
    if abs(value) < 1e-6:
        return "0"
    return f"{value:+{',.0f' if abs(value) >= 100 else '.3g'}}".replace("-", "\u2212")


def recorded(path: Trajectory, name: str) -> Any:
    """What a probe read along a path."""
    if name not in path.probes:
        raise ValueError(
            f"`path` has no probe named {name!r}; record it: solve(..., probes={{{name!r}: probe.{name}}})."
        )
    return path.probes[name]

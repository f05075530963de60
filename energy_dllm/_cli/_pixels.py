"""Pictures on a terminal, two pixels a character, and in files."""

import tempfile
from pathlib import Path
from typing import Any

from rich.text import Text


FILES = (".png", ".jpg", ".jpeg")
"""Endings of names under which a picture is written as one; under others its text is."""


def half_blocks(picture: Any) -> Text:
    """Pixels as the upper and the lower half of each character, in their own colours."""
    text = Text()
    for upper, lower in _pairs(picture):
        for over, under in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", f"{_colour(over)} on {_colour(under)}")
        text.append("\n")
    return text


def plain(picture: Any) -> str:
    """Without colours, for a pipe: a half block where a pixel is more than half white."""
    grey = picture if picture.ndim == 2 else picture.mean(axis=-1)
    lines = ("".join(" ▄▀█"[kind] for kind in 2 * upper + lower) for upper, lower in _pairs((grey > 127).astype(int)))
    return "\n".join(line.rstrip() for line in lines)


def save(path: Path, pictures: Any) -> None:
    """All of them side by side in one file."""
    import numpy as np

    from ..data import write_picture

    write_picture(path, np.concatenate(list(pictures), axis=1))


def tried(path: Path) -> None:
    """An error before the work that makes a picture, if it cannot be written to a file of this name."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / f"trial{path.suffix}", np.zeros((1, 1, 1), np.uint8))


def _pairs(picture: Any) -> list[tuple[Any, Any]]:
    """Rows two by two, the last one beside a black one if it is alone."""
    import numpy as np

    even = np.concatenate([picture, np.zeros_like(picture[: len(picture) % 2])])
    return list(zip(even[::2], even[1::2], strict=True))


def _colour(pixel: Any) -> str:
    red, green, blue = pixel if isinstance(pixel, list) else (pixel,) * 3
    return f"rgb({red},{green},{blue})"

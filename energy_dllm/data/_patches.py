"""Pictures to tokens and back: patches, a codebook, and a caption above them."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped, UInt8

from ._tokenizer import AbstractTokenizer, printable


_MOST = 1 << 16
"""Patches that a codebook is found in, at most."""


@dataclasses.dataclass(frozen=True, repr=False)
class Patches(AbstractTokenizer):
    """A caption and a picture: letters, then patches of `patch x patch` pixels row by row, each the nearest of a book.

    The code of a patch, on which Gaussian noise acts, is its pixels themselves, 0 to 1: noise on codes is noise on
    pixels. A letter is one-hot. Letters stand in the caption only, patches in the picture only.

    **Arguments:**

    - `shape`: rows and columns of a picture in pixels, multiples of `patch`.
    - `patch`: rows and columns of a patch.
    - `codebook`: the patches, each as hexadecimal bytes row by row, three to a pixel where there is colour.
    - `letters`: the alphabet of captions, a space in it, which fills up what a caption leaves.
    - `width`: letters of a caption; 0 for pictures without.

    **Raises:** `ValueError` if sizes do not fit one another, or a patch is not of `patch x patch` pixels.

    **Example:**
    ```python
    import numpy as np
    from energy_dllm.data import Patches

    pictures = np.random.default_rng(0).integers(0, 2, (9, 4, 6), np.uint8) * 255
    tokenizer = Patches.from_pictures(pictures, patch=2, captions=["one", "two"])
    ids = tokenizer.join(["two"], pictures[3:4])[0]
    assert tokenizer.grids == ((1, 3), (2, 3)) and tokenizer.decode(ids) == "two"
    assert (tokenizer.picture(ids) == pictures[3]).all()  # few distinct patches: each has a code of its own
    ```
    """

    shape: tuple[int, int]
    patch: int
    codebook: tuple[str, ...]
    letters: str = ""
    width: int = 0

    def __post_init__(self):
        rows, columns = self.shape
        if self.patch < 1 or rows < 1 or columns < 1 or rows % self.patch or columns % self.patch:
            raise ValueError(
                f"`shape` is {self.shape} and `patch` {self.patch}; expected rows and columns in multiples of `patch`."
            )
        pixels = self.patch**2
        if not self.codebook or any(len(each) not in (2 * pixels, 6 * pixels) for each in self.codebook):
            raise ValueError(f"`codebook` needs patches of {pixels} bytes in hexadecimal, or {3 * pixels} in colour.")
        if len({len(each) for each in self.codebook}) > 1:
            raise ValueError("`codebook` has patches in colour beside grey ones; expected one kind.")
        if self.width and " " not in self.letters:
            raise ValueError(f"`letters` is {self.letters!r}, without the space that fills up a caption; add it.")
        try:
            bytes.fromhex("".join(self.codebook))
        except ValueError:
            raise ValueError("`codebook` has a patch that is not hexadecimal; expected two digits a pixel.") from None

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"Patches({len(self.codebook)} of {self.patch} x {self.patch}, {rows} x {columns}, {self.letters!r})"

    @classmethod
    def from_pictures(
        cls,
        pictures: UInt8[np.ndarray, "N rows columns *channels"],
        *,
        patch: int = 4,
        size: int = 256,
        captions: Sequence[str] = (),
        seed: int = 0,
    ) -> "Patches":
        """With a codebook found in these pictures: all of their patches if they are at most `size`, else `size` by
        k-means. `captions` are those that will be used, or all letters of them.

        **Raises:** `ValueError` if `pictures` are none of grey or of three channels, or sizes do not fit.
        """
        pictures = checked(pictures)
        rows, columns = pictures.shape[1:3]
        if not len(pictures):
            raise ValueError("`pictures` is empty; expected pictures to find patches in.")
        if patch < 1 or rows % patch or columns % patch:
            raise ValueError(f"`patch` is {patch}; expected a divisor of {rows} rows and {columns} columns.")
        distinct, counts = np.unique(
            _cut(pictures, patch).reshape(-1, patch**2 * pictures.shape[3]), axis=0, return_counts=True
        )
        book = distinct if len(distinct) <= size else _means(distinct, counts, size, seed)
        letters = "".join(sorted({" ", *"".join(captions)})) if captions else ""
        width = max(map(len, captions), default=0)
        return cls((rows, columns), patch, tuple(each.tobytes().hex() for each in book), letters, width)

    @property
    def size(self) -> int:
        return len(self.letters) + len(self.codebook)

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*map(printable, self.letters), *(f"#{n}" for n in range(len(self.codebook))))

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Rows and columns of the caption, if there is one, and of the picture in patches."""
        picture = self.shape[0] // self.patch, self.shape[1] // self.patch
        return ((1, self.width), picture) if self.width else (picture,)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return len(self.codebook[0]) // 2 // self.patch**2

    @functools.cached_property
    def _pixels(self) -> UInt8[np.ndarray, "codes pixels"]:
        return np.frombuffer(bytes.fromhex("".join(self.codebook)), np.uint8).reshape(len(self.codebook), -1)

    @functools.cached_property
    def codes(self) -> Float[np.ndarray, "V C"]:
        """`e_w`: one-hot of letters, then the pixels of each patch, 0 to 1, in the first of as many axes as needed."""
        codes = np.zeros((self.size, max(self._pixels.shape[1], len(self.letters))), np.float32)
        codes[: len(self.letters), : len(self.letters)] = np.eye(len(self.letters))
        codes[len(self.letters) :, : self._pixels.shape[1]] = self._pixels / np.float32(255)
        return codes

    @property
    def allowed(self) -> Bool[np.ndarray, "L V"]:
        """Which tokens may stand at each place: letters in the caption, patches in the picture."""
        return (np.arange(self.places) < self.width)[:, None] == (np.arange(self.size) < len(self.letters))

    def encode(self, text: str) -> Integer[np.ndarray, " L"]:
        """The letters of a caption."""
        unknown = [letter for letter in text if letter not in self.letters]
        if unknown:
            raise ValueError(
                f"`text` holds {unknown[0]!r}, which is in no caption of these pictures; expected of {self.letters!r}."
            )
        return np.array([self.letters.index(letter) for letter in text], np.int32)

    def decode(self, ids: Integer[np.ndarray, " L"]) -> str:
        """The letters, without spaces at the end; a patch has none, `picture` shows it."""
        return "".join(self.letters[n] for n in self._checked(ids) if n < len(self.letters)).rstrip()

    def join(
        self, captions: Sequence[str], pictures: UInt8[np.ndarray, "N rows columns *channels"]
    ) -> Integer[np.ndarray, "N L"]:
        """Ids of captions, filled up with spaces, each followed by its picture, int32 `(N, L)`."""
        letters = np.zeros((len(captions), self.width), np.int32)
        for row, caption in zip(letters, captions, strict=True):
            row[:] = self.fill(caption)
        return np.concatenate([letters, self.quantise(pictures)], axis=1)

    def fill(self, caption: str) -> Integer[np.ndarray, " width"]:
        """Ids of a caption, filled up with spaces."""
        if len(caption) > self.width:
            raise ValueError(f"`caption` {caption!r} has {len(caption)} letters; expected at most {self.width}.")
        return self.encode(caption.ljust(self.width))

    def quantise(self, pictures: UInt8[np.ndarray, "N rows columns *channels"]) -> Integer[np.ndarray, "N patches"]:
        """Ids of the nearest patches of pictures, int32 `(N, rows columns / patch^2)`."""
        pictures = checked(pictures)
        if pictures.shape[1:] != (*self.shape, self.channels):
            raise ValueError(f"`pictures` are {pictures.shape[1:]}; expected {(*self.shape, self.channels)} of uint8.")
        flat = self.cut(pictures).reshape(-1, self._pixels.shape[1]).astype(np.float32)
        nearest = _nearest(flat, self._pixels.astype(np.float32)).reshape(len(pictures), math.prod(self.grids[-1]))
        return (nearest + len(self.letters)).astype(np.int32)

    def cut(
        self, pictures: Shaped[np.ndarray, "N rows columns *channels"]
    ) -> Shaped[np.ndarray, "N down across *pixels"]:
        """Pictures in patches `(N, down, across, patch, patch, channels)`."""
        return _cut(pictures if pictures.ndim == 4 else pictures[..., None], self.patch)

    def picture(self, ids: Integer[np.ndarray, " L"]) -> UInt8[np.ndarray, "rows columns *channels"]:
        """The picture of a sequence, grey `(rows, columns)` or in colour `(rows, columns, 3)`."""
        ids = self._checked(ids)[self.width :] - len(self.letters)
        down, across = self.grids[-1]
        if ids.shape != (down * across,) or (ids < 0).any():
            raise ValueError(f"`ids` has no picture of {down} x {across} patches after {self.width} letters.")
        patches = self._pixels[ids].reshape(down, across, self.patch, self.patch, self.channels)
        made = patches.transpose(0, 2, 1, 3, 4).reshape(*self.shape, self.channels)
        return made[..., 0] if self.channels == 1 else made


def checked(pictures: np.ndarray) -> UInt8[np.ndarray, "N rows columns channels"]:
    """Pictures with an axis of channels; `ValueError` if they are none."""
    pictures = np.asarray(pictures)
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] not in (1, 3):
        raise ValueError(
            f"`pictures` is {pictures.dtype} of shape {pictures.shape}; expected uint8 (N, rows, columns), or "
            "(N, rows, columns, 3) in colour."
        )
    return pictures


def _cut(pictures: np.ndarray, patch: int) -> np.ndarray:
    """`(N, down, across, patch, patch, channels)`."""
    count, rows, columns, channels = pictures.shape
    grid = pictures.reshape(count, rows // patch, patch, columns // patch, patch, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5)


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The index of the nearest centre of every point, piece by piece."""
    half = 0.5 * np.sum(centres**2, axis=1)
    pieces = np.array_split(points, 1 + (len(points) * len(centres) >> 24))
    return np.concatenate([np.argmax(piece @ centres.T - half, axis=1) for piece in pieces])


def _means(distinct: np.ndarray, counts: np.ndarray, size: int, seed: int, rounds: int = 25) -> np.ndarray:
    """`size` centres by k-means, weighted by how often each patch occurs; it begins at the most frequent one."""
    draw = np.random.default_rng(seed)
    if len(distinct) > _MOST:
        kept = draw.choice(len(distinct), _MOST, replace=False, p=counts / counts.sum())
        kept = np.union1d(kept, [counts.argmax()])
        distinct, counts = distinct[kept], counts[kept]
    points, weight = distinct.astype(np.float32), counts.astype(np.float64)
    # k-means++: each next centre far from those before
    centres = [points[counts.argmax()]]
    away = np.sum((points - centres[0]) ** 2, axis=1)
    for _ in range(size - 1):
        chance = weight * away
        centres.append(points[draw.choice(len(points), p=chance / chance.sum())])
        away = np.minimum(away, np.sum((points - centres[-1]) ** 2, axis=1))
    book = np.stack(centres)
    for _ in range(rounds):
        own = _nearest(points, book)
        mass = np.bincount(own, weight, size)
        sums = np.stack([np.bincount(own, weight * axis, size) for axis in points.T], axis=1)
        book[mass > 0] = (sums[mass > 0] / mass[mass > 0, None]).astype(np.float32)
    return np.rint(book).astype(np.uint8)

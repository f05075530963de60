"""Pictures to learn from: handwritten digits, and folders of picture files."""

import gzip
import io
import os
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8

from ._corpus import Corpus
from ._patches import Patches, checked


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The captions of the pictures of MNIST."""


def picture_corpus(
    name: str,
    pictures: UInt8[np.ndarray, "N rows columns *channels"],
    captions: Sequence[str] | None = None,
    *,
    test: tuple[np.ndarray, Sequence[str]] | None = None,
    tokenizer: Patches | None = None,
    patch: int = 4,
    size: int = 256,
    validation: float = 0.05,
) -> Corpus:
    """Pictures with captions as a corpus: passages of one length, caption first, one after another.

    **Arguments:**

    - `name`: what a report calls it.
    - `pictures`: grey `(N, rows, columns)` or in colour `(N, rows, columns, 3)`, uint8; the last ones are held out.
    - `captions`: one for each, or none.
    - `test`: other pictures with their captions.
    - `tokenizer`: by default one with a codebook of `size` patches of `patch x patch`, found in the training part.
    - `validation`: share that is held out.

    **Returns:** a `Corpus` whose passages have `tokenizer.places` tokens each.

    **Raises:** `ValueError` if there are not as many captions as pictures, nothing is left to train on, or sizes do
    not fit.

    **Example:**
    ```python
    import numpy as np
    from energy_dllm.data import picture_corpus

    pictures = np.random.default_rng(0).integers(0, 2, (40, 4, 4), np.uint8) * 255
    corpus = picture_corpus("noise", pictures, ["a", "bc"] * 20, patch=2)
    assert corpus.tokenizer.places == 6 and len(corpus.train) == 38 * 6
    ```
    """
    pictures = checked(pictures)
    captions = [""] * len(pictures) if captions is None else list(captions)
    if len(captions) != len(pictures):
        raise ValueError(f"`captions` are {len(captions)} for {len(pictures)} pictures; expected one each.")
    if not 0 <= validation < 1 or len(pictures) * (1 - validation) < 1:
        raise ValueError(f"`validation` is {validation} of {len(pictures)} pictures; expected a share that leaves one.")
    cut = len(pictures) - int(len(pictures) * validation)
    if tokenizer is None:
        every = [*captions, *(test[1] if test else ())]
        tokenizer = Patches.from_pictures(pictures[:cut], patch=patch, size=size, captions=sorted(set(every)))
    held, names = (checked(test[0]), list(test[1])) if test else (pictures[:0], [])
    parts = [(captions[:cut], pictures[:cut]), (captions[cut:], pictures[cut:]), (names, held)]
    train, valid, tests = (tokenizer.join(*part).ravel() for part in parts)
    return Corpus(name, tokenizer, train, valid, tests)


def read_mnist(
    folder: str | os.PathLike[str], *, tokenizer: Patches | None = None, patch: int = 4, size: int = 256
) -> Corpus:
    """MNIST with its digits as words for captions: `train`, the last 5 % of it for `validation`, and the `test` digits.

    **Arguments:**

    - `folder`: with `t10k-images-idx3-ubyte.gz` and `t10k-labels-idx1-ubyte.gz`, and `train-images-idx3-ubyte.gz` and
      `train-labels-idx1-ubyte.gz` or a part of them as `train_10k.npz` (`images`, `labels`).
    - `tokenizer`, `patch`, `size`: as in `picture_corpus`.

    **Returns:** a `Corpus`, as of `picture_corpus`.

    **Raises:** `FileNotFoundError` if a file is missing, `ValueError` if one is damaged or of another kind.
    """
    folder = Path(folder)
    part = folder / "train_10k.npz"
    if part.exists():
        try:
            with np.load(part, allow_pickle=False) as file:
                images, labels = file["images"], file["labels"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"`folder` has a damaged {part.name} ({error}); take another copy.") from error
    else:
        images, labels = (idx(folder / f"train-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    others, theirs = (idx(folder / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    for name, digits, pictures in (("training", labels, images), ("test", theirs, others)):
        if digits.shape != pictures.shape[:1] or (digits > 9).any():
            raise ValueError(
                f"`folder` has {len(pictures)} {name} pictures with labels {digits.shape} up to {digits.max()}; "
                "expected one digit each."
            )
    words = lambda digits: [DIGITS[digit] for digit in digits]
    test = others, words(theirs)
    return picture_corpus("mnist", images, words(labels), test=test, tokenizer=tokenizer, patch=patch, size=size)


def idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """The array of bytes of a gzipped IDX file."""
    if not path.exists():
        raise FileNotFoundError(f"`folder` has no {path.name}; expected the files of MNIST in {path.parent}.")
    try:
        content = gzip.decompress(path.read_bytes())
        axes = content[3]
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
        if content[:3] != b"\0\0\x08":
            raise ValueError("it has no bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, IndexError, struct.error, ValueError) as error:
        raise ValueError(f"`folder` has a damaged {path.name} ({error}); take another copy.") from error


def read_pictures(
    folder: str | os.PathLike[str],
    *,
    shape: tuple[int, int] | None = None,
    colour: bool = False,
    tokenizer: Patches | None = None,
    patch: int = 4,
    size: int = 256,
    validation: float = 0.05,
) -> Corpus:
    """A folder of PNG and JPEG files as a corpus; in sub-folders, whose names are the captions, or without captions.

    Needs pillow: `pip install '.[image]'` in a checkout.

    **Arguments:**

    - `folder`: read in the order of names, those of each sub-folder in turn.
    - `shape`: rows and columns every picture is scaled to; by default those of the first, which all others must have.
    - `colour`: three channels in place of grey.
    - `tokenizer`, `patch`, `size`, `validation`: as in `picture_corpus`.

    **Returns:** a `Corpus`, as of `picture_corpus`.

    **Raises:** `FileNotFoundError` if there is no such folder, `ValueError` if it has no pictures, or one that cannot
    be read or is of another size (it is named).

    **Example:**
    ```python
    import numpy as np
    from pathlib import Path
    from energy_dllm.data import read_pictures, write_picture

    for name in ("dark", "light"):
        Path(name).mkdir()
        for n in range(4):
            write_picture(f"{name}/{n}.png", np.full((4, 4), 60 * n + 10, np.uint8))
    corpus = read_pictures(".", patch=2)
    assert corpus.tokenizer.places == 5 + 4  # the letters of a caption, and four patches
    ```
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` {str(folder)!r} is not a folder; expected one of PNG or JPEG files.")
    kinds = {".png", ".jpg", ".jpeg"}
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in kinds)
    if not files:
        raise ValueError(f"`folder` {str(folder)!r} has no file that ends in .png, .jpg or .jpeg.")
    pictures = []
    for file in files:
        pictures.append(read_picture(file, shape=shape, colour=colour))
        if pictures[-1].shape != pictures[0].shape:
            raise ValueError(
                f"`folder` has {file} of {pictures[-1].shape[:2]} pixels beside {files[0].name} of "
                f"{pictures[0].shape[:2]}; give the `shape` that all are to be scaled to."
            )
    captions = ["" if file.parent == folder else file.parent.name for file in files]
    order = np.random.default_rng(0).permutation(len(files))  # so that the part held out has every caption
    chosen = [captions[n] for n in order] if any(captions) else None
    return picture_corpus(
        folder.name,
        np.stack(pictures)[order],
        chosen,
        tokenizer=tokenizer,
        patch=patch,
        size=size,
        validation=validation,
    )


def read_picture(
    path: str | os.PathLike[str] | io.BufferedIOBase,
    *,
    shape: tuple[int, int] | None = None,
    colour: bool = False,
    alpha: bool = False,
) -> UInt8[np.ndarray, "rows columns *channels"]:
    """The pixels of a PNG or JPEG file, `(rows, columns)`, with `colour` `(rows, columns, 3)`, uint8. Needs pillow.

    A photograph is turned as its camera says; of 16 bits a pixel the upper 8 are taken; what can be seen through is
    white, unless `alpha` is asked for.

    **Arguments:**

    - `path`: the file, or one that is open.
    - `shape`: rows and columns it is scaled to; by default its own.
    - `colour`: three channels in place of grey.
    - `alpha`: one more channel, the last: how opaque each pixel is, 255 where the file does not say.

    **Raises:** `FileNotFoundError` if there is none, `ValueError` if it cannot be read; `ImportError` without pillow.
    """
    image, source = _pillow(), cast(Any, path)
    if not isinstance(path, io.BufferedIOBase) and not Path(path).is_file():
        raise FileNotFoundError(f"`path` {str(path)!r} is not a file; expected a PNG or JPEG picture.")
    try:
        from PIL import ImageOps

        with image.open(source) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits a pixel, of which the upper half is kept
                picture = image.fromarray((np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
            if alpha or picture.has_transparency_data:
                picture = picture.convert("RGBA")
            if not alpha and picture.mode == "RGBA":
                picture = image.alpha_composite(image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert(("RGB" if colour else "L") + "A" * alpha)
            if shape is not None and picture.size != (shape[1], shape[0]):
                picture = picture.resize((shape[1], shape[0]))
            return np.asarray(picture, np.uint8)
    except (OSError, SyntaxError, ValueError, image.DecompressionBombError) as error:
        raise ValueError(f"`path` {str(path)!r} cannot be read as a picture ({error}); take another copy.") from error


def write_picture(
    path: str | os.PathLike[str] | io.BufferedIOBase, picture: UInt8[np.ndarray, "rows columns *channels"]
) -> None:
    """Write pixels `(rows, columns)` or `(rows, columns, 3)`, uint8, to a PNG or JPEG file, or as PNG to one that is
    open. Needs pillow.

    **Example:**
    ```python
    import numpy as np
    from energy_dllm.data import read_picture, write_picture

    write_picture("grey.png", np.full((4, 6), 128, np.uint8))
    assert read_picture("grey.png").shape == (4, 6)
    ```
    """
    if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (2, 3, 4))):
        raise ValueError(
            f"`picture` has shape {picture.shape} of {picture.dtype}; expected (rows, columns) or (rows, columns, 3) "
            "of uint8, such as `(255 * picture).astype(np.uint8)`."
        )
    _pillow().fromarray(picture).save(cast(Any, path), "PNG" if isinstance(path, io.BufferedIOBase) else None)


def _pillow():
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("pictures need pillow, which is optional: pip install '.[image]' in a checkout.") from error
    return Image

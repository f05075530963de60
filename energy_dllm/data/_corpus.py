import codecs
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from ._byte_pairs import last_border
from ._sources import packed
from ._tokenizer import AbstractTokenizer, Bytes, Characters


_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """A text as ids, in three parts.

    **Arguments:**

    - `name`: what a report calls it.
    - `tokenizer`: what the ids mean.
    - `train`, `validation`, `test`: integer arrays `(N,)`, maybe memory-mapped; a part may be empty.
    - `entropy`: exact entropy rate in nats per character, when the source of the text is known.

    **Example:**
    ```python
    from energy_dllm.data import Bytes, Corpus

    ids = Bytes().encode("hello world")
    assert Corpus("hello", Bytes(), ids[:9], ids[9:], ids[:0]).entropy is None
    ```
    """

    name: str
    tokenizer: AbstractTokenizer
    train: Integer[np.ndarray, " N"]
    validation: Integer[np.ndarray, " n"]
    test: Integer[np.ndarray, " m"]
    entropy: float | None = None

    def counts(self) -> Integer[np.ndarray, " V"]:
        """How often each token stands in `train` `(V,)`, counted piece by piece: a text is larger as whole numbers."""
        pieces = (self.train[start : start + _CHUNK] for start in range(0, len(self.train), _CHUNK))
        return sum((np.bincount(piece, minlength=self.tokenizer.size) for piece in pieces), np.zeros(1, np.int64))


def read_text(
    path: str | os.PathLike[str],
    *,
    tokenizer: AbstractTokenizer | None = None,
    validation: float = 0.1,
    test: float = 0.0,
) -> Corpus:
    """A UTF-8 text file as a corpus: its beginning to train, then validation, then test.

    With `Bytes()` the memory-mapped file itself is the array of ids; with `Characters` ids are made chunk by
    chunk, one byte a character, so the text is never in memory as a whole. Line ends stay as they are; a byte
    order mark is skipped.

    **Arguments:**

    - `path`: the file.
    - `tokenizer`: by default the characters of the file if they are at most 256, else `Bytes()`.
    - `validation`, `test`: parts of the file, fractions of 1.

    **Returns:** a `Corpus` named after the file.

    **Raises:** `FileNotFoundError` if there is no such file; `ValueError` if it is a folder, empty, not
    UTF-8, holds characters outside the alphabet, or if the fractions leave nothing to train on.

    **Example:**
    ```python
    import pathlib, tempfile
    from energy_dllm.data import read_text

    path = pathlib.Path(tempfile.mkdtemp()) / "abc.txt"
    path.write_text("abc" * 100)
    corpus = read_text(path)
    assert (len(corpus.train), len(corpus.validation), corpus.tokenizer.size) == (270, 30, 3)
    ```
    """
    path = Path(path)
    fractions(validation, test)
    raw = _open(path)
    alphabet, characters = _scan(path, raw)
    if tokenizer is None:
        tokenizer = Bytes() if alphabet is None else Characters(alphabet)
    if isinstance(tokenizer, Bytes):
        ids = raw
    else:
        ids = _encode(path, raw, tokenizer, characters)
    cuts = [int(len(ids) * (1 - validation - test)), int(len(ids) * (1 - test))]
    if isinstance(tokenizer, Bytes):
        cuts = [_character_start(raw, cut) for cut in cuts]
    train, valid, held = np.split(ids, cuts)
    if len(train) == 0:
        raise ValueError(f"`path` {str(path)!r} leaves no token to train on ({len(ids)} in all); give a longer text.")
    return Corpus(path.stem, tokenizer, train, valid, held)


def _open(path: Path) -> np.memmap:
    if path.is_dir():
        raise ValueError(f"`path` {str(path)!r} is a folder, expected a text file; name one file in it.")
    if not path.exists():
        raise FileNotFoundError(f"`path` {str(path)!r} does not exist; check the spelling and the current folder.")
    if not path.is_file():
        raise ValueError(f"`path` {str(path)!r} is a pipe or a device; expected a file, so write it to one first.")
    if (fault := packed(path)) is not None:
        raise ValueError(f"`path` {str(path)!r} is {fault}.")
    size = path.stat().st_size
    with path.open("rb") as file:
        mark = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
    if size == mark:
        raise ValueError(f"`path` {str(path)!r} is empty, expected a text of at least one character.")
    return np.memmap(path, np.uint8, mode="r", offset=mark)


def _texts(path: Path, raw: np.memmap) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(raw), _CHUNK):
        pending = len(decoder.getstate()[0])
        stop = start + _CHUNK
        try:
            yield decoder.decode(raw[start:stop].tobytes(), final=stop >= len(raw))
        except UnicodeDecodeError as error:
            offset = start - pending + error.start + raw.offset
            raise ValueError(
                f"`path` {str(path)!r} is not UTF-8 ({error.reason}: 0x{error.object[error.start]:02x} "
                f"at byte {offset}); convert it, for example with `iconv -t UTF-8`."
            ) from None


def _scan(path: Path, raw: np.memmap) -> tuple[str | None, int]:
    """The sorted characters if they are at most 256, and how many characters there are."""
    seen: set[str] = set()
    characters = 0
    for text in _texts(path, raw):
        characters += len(text)
        if len(seen) <= 256:
            seen.update(text)
    return ("".join(sorted(seen)) if len(seen) <= 256 else None), characters


def _encode(path: Path, raw: np.memmap, tokenizer: AbstractTokenizer, characters: int) -> np.ndarray:
    dtype = np.min_scalar_type(tokenizer.size - 1)
    if not isinstance(tokenizer, Characters):
        parts, pending = [], ""
        for text in _texts(path, raw):
            pending += text
            cut = last_border(pending)  # no word is cut: it would have other tokens
            parts.append(tokenizer.encode(pending[:cut]).astype(dtype))
            pending = pending[cut:]
        return np.concatenate([*parts, tokenizer.encode(pending).astype(dtype)])
    ids = np.empty(characters, dtype)
    done = 0
    for text in _texts(path, raw):
        try:
            ids[done : done + len(text)] = tokenizer.encode(text)
        except ValueError as error:
            raise ValueError(f"`path` {str(path)!r}, from character {done} on: {error}") from None
        done += len(text)
    return ids


def _character_start(raw: np.ndarray, cut: int) -> int:
    """The first byte from `cut` on that begins a character, so that no part begins inside one."""
    while cut < len(raw) and raw[cut] & 0xC0 == 0x80:
        cut += 1
    return cut


def fractions(validation: float, test: float) -> None:
    """`ValueError` where these are no parts of a text that leave something to train on."""
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise ValueError(
            f"`validation` and `test` must be fractions of at least 0 with a sum below 1, got {validation} and {test}."
        )

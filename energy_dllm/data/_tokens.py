"""Token files: texts larger than memory as ids on disk, written once, read by memory map."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._files import alone, writing
from ._byte_pairs import BytePairs, last_border
from ._corpus import Corpus, fractions
from ._sources import CHUNK, digest, pieces
from ._tokenizer import AbstractTokenizer, Bytes, Characters


FORMAT = "energy_dllm tokens 1"
_CHUNK = CHUNK
_OWN, _TEMPORARY = ("tokens.bin", "tokens.json"), ".tokens.json.tmp"
_TOKENIZERS: dict[str, type] = {kind.__name__: kind for kind in (Bytes, Characters, BytePairs)}

PathLike = str | os.PathLike[str]


def tokenize(
    sources: Sequence[PathLike],
    folder: PathLike,
    *,
    tokenizer: AbstractTokenizer | None = None,
    field: str = "text",
    progress: Callable[[float], object] | None = None,
) -> Corpus:
    """Write the ids of texts to a folder, piece by piece; the same call goes on where one was stopped.

    The folder holds `tokens.bin`, the ids as they stand in memory, and `tokens.json`: tokenizer, sources, and how far
    they are read. Of a text no more than a few megabytes are in memory at once.

    **Arguments:**

    - `sources`: UTF-8 text files, `.jsonl` (`.ndjson`) of one object a line, or `.parquet` (extra `parquet`); each
      record of the latter two, a text, bytes of UTF-8 or null for none, is followed by a newline.
    - `folder`: where the ids go.
    - `tokenizer`: by default the characters of all sources if they are at most 256, else `Bytes()`.
    - `field`: of a record that holds its text.
    - `progress`: is given the share of the sources that is done, 0 to 1, after each piece.

    **Returns:** the corpus, as `read_tokens` reads it.

    **Raises:** `FileNotFoundError` if there is no such file; `ValueError` for a source that is not UTF-8 or has no text
    in that field, characters outside the alphabet, or a `folder` of other sources or another tokenizer, that has lost
    its ids, or in which another call is at work; `OSError` if it cannot be written; `ImportError` without the extra.

    **Example:**

    ```python
    import pathlib, tempfile
    from energy_dllm.data import tokenize

    here = pathlib.Path(tempfile.mkdtemp())
    (here / "abc.txt").write_text("abc" * 100)
    corpus = tokenize([here / "abc.txt"], here / "tokens")
    assert len(corpus.train) == 270 and corpus.train[:3].tolist() == [0, 1, 2]
    ```
    """
    if isinstance(sources, str | os.PathLike):
        raise ValueError(f"`sources` is {str(sources)!r}; expected a list of files, such as [{str(sources)!r}].")
    paths, folder = [Path(source) for source in sources], Path(folder)
    if not paths:
        raise ValueError("`sources` is empty; expected at least one text file.")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"`sources` names {str(path)!r}, which is not a file; check the spelling.")
        if path.resolve() in ((folder / name).resolve() for name in _OWN):
            raise ValueError(f"`sources` names {str(path)!r}, which would be lost; give another `folder`.")
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        with alone(folder, "folder", "`tokenize`"):
            _tokenize(paths, folder, tokenizer, field, progress or (lambda share: None))
    finally:
        for each in made:  # where nothing was written
            with contextlib.suppress(OSError):
                each.rmdir()
    return read_tokens(folder)


def _tokenize(
    paths: Sequence[Path],
    folder: Path,
    tokenizer: AbstractTokenizer | None,
    field: str,
    progress: Callable[[float], object],
) -> None:
    names = [[path.name, path.stat().st_size, digest(path)] for path in paths]
    state, ids = _state(folder) if (folder / "tokens.json").exists() else None, folder / "tokens.bin"
    if state is None and ids.exists() and (not ids.is_file() or ids.stat().st_size):
        raise ValueError(f"`folder` {folder} has a tokens.bin without its tokens.json; give another folder.")
    if tokenizer is None:
        tokenizer = _alphabet(paths, field) if state is None else _tokenizer(state)
    about = {"format": FORMAT, "tokenizer": _described(tokenizer), "sources": names, "field": field}
    if state is None:
        state = {**about, "tokens": 0, "source": 0, "position": 0, "pending": ""}
    # folders of before have no digests
    same = len(names) == len(state["sources"]) and all(
        name[: len(kept)] == kept for name, kept in zip(names, state["sources"], strict=True)
    )
    for name, value in about.items():
        if not (same if name == "sources" else state[name] == value):
            raise ValueError(f"`folder` {folder} holds tokens of another {name}; give another folder, or remove it.")
    dtype = np.min_scalar_type(tokenizer.size - 1)
    counted = state["tokens"] * dtype.itemsize
    if counted and (not ids.is_file() or ids.stat().st_size < counted):
        raise ValueError(_lost(folder))
    whole, before = sum(size for _, size, _ in names) or 1, 0
    full = functools.partial(writing, "folder", folder, "what is there is kept, so make room and run the same again.")
    with full():
        file = open(ids, "ab")
    try:
        with full():
            file.truncate(counted)  # what a stopped call wrote and did not count

        def keep(text: str, **where: Any) -> None:
            ids = tokenizer.encode(text).astype(dtype) if text else np.zeros(0, dtype)
            with full():
                file.write(ids.tobytes())
                file.flush()
                state.update(where, tokens=state["tokens"] + len(ids))
                _write(folder, state)

        keep("")  # from now on these are ours
        for number, (path, (_, size, _)) in enumerate(zip(paths, names, strict=True)):
            if number < state["source"]:
                before += size
                continue
            for text, position, share in pieces(path, state["position"], field, _CHUNK):
                pending = state["pending"] + text
                cut = last_border(pending) if isinstance(tokenizer, BytePairs) else len(pending)  # no word is cut
                keep(pending[:cut], position=position, pending=pending[cut:])
                progress((before + share * size) / whole)
            before += size
            keep(state["pending"], source=number + 1, position=0, pending="")
        with full():
            os.fsync(file.fileno())
    finally:
        with contextlib.suppress(OSError):  # what was not written has raised already
            file.close()
        if not (state["source"] or state["position"]):
            for name in (*_OWN, _TEMPORARY):
                (folder / name).unlink(missing_ok=True)


def read_tokens(folder: PathLike, *, validation: float = 0.1, test: float = 0.0) -> Corpus:
    """What `tokenize` wrote, memory-mapped: its beginning to train, then validation, then test.

    **Arguments:**

    - `folder`: of `tokens.bin` and `tokens.json`.
    - `validation`, `test`: parts of the ids, fractions of 1.

    **Returns:** a `Corpus` named after the folder.

    **Raises:** `ValueError` if the folder holds no tokens, or they are not finished, and as `read_text` for fractions.

    **Example:**

    ```python
    import pathlib, tempfile
    from energy_dllm.data import Bytes, read_tokens, tokenize

    here = pathlib.Path(tempfile.mkdtemp())
    (here / "abc.txt").write_text("abc" * 100)
    tokenize([here / "abc.txt"], here / "tokens", tokenizer=Bytes())
    assert len(read_tokens(here / "tokens", validation=0.5).validation) == 150
    ```
    """
    folder = Path(folder)
    fractions(validation, test)
    state = _state(folder)
    tokenizer = _tokenizer(state)
    if state["source"] < len(state["sources"]):
        raise ValueError(f"`folder` {folder} is not finished; run the same `energy-dllm tokenize` again.")
    dtype, count = np.min_scalar_type(tokenizer.size - 1), state["tokens"]
    if not count:
        raise ValueError(
            f"`folder` {folder} holds no tokens, its sources being empty; give a text, and another folder."
        )
    path = folder / "tokens.bin"
    if not path.is_file() or path.stat().st_size != count * dtype.itemsize:
        raise ValueError(_lost(folder))
    ids = np.memmap(path, dtype, mode="r")
    train, valid, held = np.split(ids, [int(count * (1 - validation - test)), int(count * (1 - test))])
    return Corpus(folder.name, tokenizer, train, valid, held)


def _alphabet(paths: Sequence[Path], field: str) -> AbstractTokenizer:
    seen: set[str] = set()
    for path in paths:
        for text, *_ in pieces(path, 0, field, _CHUNK):
            seen.update(text)
            if len(seen) > 256:
                return Bytes()
    return Characters("".join(sorted(seen))) if seen else Bytes()


def _described(tokenizer: AbstractTokenizer) -> dict[str, Any]:
    name = type(tokenizer).__name__
    if _TOKENIZERS.get(name) is not type(tokenizer):
        raise ValueError(f"`tokenizer` is {name}; expected Characters, Bytes or BytePairs.")
    return {"class": name, **dataclasses.asdict(tokenizer)}  # pyright: ignore[reportArgumentType]


def _tokenizer(state: dict[str, Any]) -> AbstractTokenizer:
    fields = dict(state["tokenizer"])
    return _TOKENIZERS[fields.pop("class")](**fields)


def _state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / "tokens.json").read_text())
        _tokenizer(state)
        whole = all(isinstance(state[name], int) for name in ("tokens", "source", "position"))
        whole = whole and all(isinstance(state[name], str) for name in ("field", "pending"))
        if state["format"] == FORMAT and whole and isinstance(state["sources"], list):
            return state
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(f"`folder` {folder} holds no tokens; `energy-dllm tokenize TEXT... -o {folder}` writes them.")


def _lost(folder: Path) -> str:
    return f"`folder` {folder} has lost tokens.bin, or a part of it; remove the folder, and tokenize again."


def _write(folder: Path, state: dict[str, Any]) -> None:
    temporary = folder / _TEMPORARY
    temporary.write_text(json.dumps(state))
    os.replace(temporary, folder / "tokens.json")

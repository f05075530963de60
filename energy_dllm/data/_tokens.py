"""Token files: texts larger than memory as ids on disk, written once, read by memory map."""

import codecs
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._byte_pairs import BytePairs, last_border
from ._corpus import Corpus, fractions
from ._tokenizer import AbstractTokenizer, Bytes, Characters


FORMAT = "energy_dllm tokens 1"
_CHUNK = 1 << 20
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

    - `sources`: UTF-8 text files, `.jsonl` of one object a line, or `.parquet` (extra `parquet`); each record of the
      latter two is followed by a newline.
    - `folder`: where the ids go.
    - `tokenizer`: by default the characters of all sources if they are at most 256, else `Bytes()`.
    - `field`: of a record that holds its text.
    - `progress`: is given the share of the sources that is done, 0 to 1, after each piece.

    **Returns:** the corpus, as `read_tokens` reads it.

    **Raises:** `FileNotFoundError` if there is no such file; `ValueError` for a source that is not UTF-8 or has no such
    field, characters outside the alphabet, or a `folder` of other sources or another tokenizer; `ImportError` without
    the extra.

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
    paths, folder = [Path(source) for source in sources], Path(folder)
    if not paths:
        raise ValueError("`sources` is empty; expected at least one text file.")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"`sources` names {str(path)!r}, which is not a file; check the spelling.")
    names = [[path.name, path.stat().st_size] for path in paths]
    state = _state(folder) if (folder / "tokens.json").exists() else None
    if tokenizer is None:
        tokenizer = _alphabet(paths, field) if state is None else _tokenizer(state)
    about = {"format": FORMAT, "tokenizer": _described(tokenizer), "sources": names, "field": field}
    if state is None:
        state = {**about, "tokens": 0, "source": 0, "position": 0, "pending": ""}
    for name, value in about.items():
        if state[name] != value:
            raise ValueError(f"`folder` {folder} holds tokens of another {name}; give another folder, or remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.min_scalar_type(tokenizer.size - 1)
    whole, before = sum(size for _, size in names) or 1, 0
    with open(folder / "tokens.bin", "ab") as file:
        file.truncate(state["tokens"] * dtype.itemsize)  # what a stopped call wrote and did not count

        def keep(text: str, **where: Any) -> None:
            ids = tokenizer.encode(text).astype(dtype) if text else np.zeros(0, dtype)
            file.write(ids.tobytes())
            file.flush()
            state.update(where, tokens=state["tokens"] + len(ids))
            _write(folder, state)

        for number, (path, (_, size)) in enumerate(zip(paths, names, strict=True)):
            if number < state["source"]:
                before += size
                continue
            for text, position, share in _pieces(path, state["position"], field):
                pending = state["pending"] + text
                cut = last_border(pending) if isinstance(tokenizer, BytePairs) else len(pending)  # no word is cut
                keep(pending[:cut], position=position, pending=pending[cut:])
                if progress is not None:
                    progress((before + share * size) / whole)
            before += size
            keep(state["pending"], source=number + 1, position=0, pending="")
        os.fsync(file.fileno())
    return read_tokens(folder)


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
    if (folder / "tokens.bin").stat().st_size != count * dtype.itemsize:
        raise ValueError(f"`folder` {folder} has no {count} tokens in tokens.bin; remove it and tokenize again.")
    ids = np.memmap(folder / "tokens.bin", dtype, mode="r")
    train, valid, held = np.split(ids, [int(count * (1 - validation - test)), int(count * (1 - test))])
    return Corpus(folder.name, tokenizer, train, valid, held)


def _pieces(path: Path, start: int, field: str) -> Iterator[tuple[str, int, float]]:
    """Texts of a source from a position on, the position after each, and the share of the source that is done."""
    size = path.stat().st_size
    if path.suffix == ".parquet":
        yield from _of_parquet(path, start, field)
        return
    with open(path, "rb") as file:
        if start == 0 and file.read(3) == codecs.BOM_UTF8:
            start = 3
        file.seek(start)
        rest = b""
        while read := file.read(_CHUNK):
            raw, position = rest + read, file.tell()
            if path.suffix == ".jsonl":
                cut = len(raw) if position == size else raw.rfind(b"\n") + 1
                text = "".join(_record(path, line, field) + "\n" for line in raw[:cut].splitlines() if line.strip())
            else:
                decoder = codecs.getincrementaldecoder("utf-8")()
                try:
                    text = decoder.decode(raw, final=position == size)
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"`sources` names {str(path)!r}, which is not UTF-8 ({error.reason} at byte "
                        f"{position - len(raw) + error.start}); convert it, for example with `iconv -t UTF-8`."
                    ) from None
                cut = len(raw) - len(decoder.getstate()[0])
            rest = raw[cut:]
            yield text, position - len(rest), (position - len(rest)) / size


def _of_parquet(path: Path, start: int, field: str) -> Iterator[tuple[str, int, float]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow, which is optional: pip install '.[parquet]' in a checkout."
        ) from error
    with parquet.ParquetFile(path) as file:
        if field not in file.schema_arrow.names:
            raise ValueError(f"`sources` names {str(path)!r}, which has no column {field!r}; name one with `field`.")
        rows, done = file.metadata.num_rows, 0
        for batch in file.iter_batches(batch_size=256, columns=[field]):
            done += batch.num_rows
            if done > start:
                texts = batch.column(0).to_pylist()
                yield "".join(f"{text or ''}\n" for text in texts), done, done / rows


def _record(path: Path, line: bytes, field: str) -> str:
    try:
        return str(json.loads(line)[field])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`sources` names {str(path)!r}, which has a line that is no JSON object with the field {field!r} "
            f"({type(error).__name__}); name another with `field`, or mend the line."
        ) from None


def _alphabet(paths: Sequence[Path], field: str) -> AbstractTokenizer:
    seen: set[str] = set()
    for path in paths:
        for text, *_ in _pieces(path, 0, field):
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
        if state["format"] == FORMAT and state["tokenizer"]["class"] in _TOKENIZERS:
            return state
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"`folder` {folder} holds no tokens; `energy-dllm tokenize TEXT... -o {folder}` writes them.")


def _write(folder: Path, state: dict[str, Any]) -> None:
    temporary = folder / ".tokens.json.tmp"
    temporary.write_text(json.dumps(state))
    os.replace(temporary, folder / "tokens.json")

"""Sources of text: plain files, records of JSONL and Parquet, read piece by piece from any position on."""

import codecs
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


CHUNK = 1 << 20
RECORDS = (".jsonl", ".ndjson")
_PACKED = {
    b"\x1f\x8b": "packed by gzip; unpack it first, by `gunzip`",
    b"\xfd7zXZ\0": "packed by xz; unpack it first, by `unxz`",
    b"BZh": "packed by bzip2; unpack it first, by `bunzip2`",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it first, by `unzstd`",
    b"PK\3\4": "a zip archive; unpack it first, by `unzip`",
    b"\xff\xfe": "UTF-16; convert it, for example with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "UTF-16; convert it, for example with `iconv -f UTF-16 -t UTF-8`",
    b"PAR1": "a Parquet file; give it a name in .parquet, and `energy-dllm tokenize` reads it",
}


def packed(path: Path) -> str | None:
    """What a file is, and what to do first, where its first bytes are not those of a text."""
    with open(path, "rb") as file:
        begin = file.read(6)
    return next((words for mark, words in _PACKED.items() if begin.startswith(mark)), None)


def digest(path: Path) -> str:
    """Changes with the first and the last megabyte of a file."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        found = hashlib.sha256(file.read(CHUNK))
        file.seek(max(0, size - CHUNK))
        found.update(file.read(CHUNK))
    return found.hexdigest()[:16]


def pieces(path: Path, start: int, field: str, chunk: int = CHUNK) -> Iterator[tuple[str, int, float]]:
    """Texts of a source from a position on, the position after each, and the share of the source that is done."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _of_parquet(path, start, field)
        return
    if (fault := packed(path)) is not None:
        raise ValueError(f"`sources` names {str(path)!r}, which is {fault}.")
    size = path.stat().st_size
    with open(path, "rb") as file:
        if start == 0 and file.read(3) == codecs.BOM_UTF8:
            start = 3
        file.seek(start)
        rest = b""
        while read := file.read(chunk):
            raw, position = rest + read, file.tell()
            if suffix in RECORDS:
                cut = len(raw) if position == size else raw.rfind(b"\n") + 1
                text = _records(path, raw[:cut], position - len(raw), field)
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


def _records(path: Path, raw: bytes, position: int, field: str) -> str:
    """The texts of whole lines of JSONL, of which the first begins at a position of the file."""
    texts = []
    for n, line in enumerate(raw.splitlines()):
        if line.strip():
            try:
                texts.append(_text(json.loads(line)[field]) + "\n")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                with open(path, "rb") as file:
                    number = 1 + n + sum(file.read(min(CHUNK, position - at)).count(b"\n") for at in _starts(position))
                reason = str(error) if isinstance(error, _NoText) else type(error).__name__
                raise ValueError(
                    f"`sources` names {str(path)!r}, whose line {number} is no JSON object with a text in the field "
                    f"{field!r} ({reason}); name another with `field`, or mend the line."
                ) from None
    return "".join(texts)


def _starts(position: int) -> range:
    return range(0, position, CHUNK)


def _of_parquet(path: Path, start: int, field: str) -> Iterator[tuple[str, int, float]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow, which is optional: pip install '.[parquet]' in a checkout."
        ) from error
    named = f"`sources` names {str(path)!r}, which"
    try:
        with parquet.ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                raise _NoText("it has no such column")
            rows, done = file.metadata.num_rows, 0
            for batch in file.iter_batches(batch_size=256, columns=[field]):
                done += batch.num_rows
                if done > start:
                    texts = [_text(value) for value in batch.column(0).to_pylist()]
                    yield "".join(f"{text}\n" for text in texts), done, done / rows
    except _NoText as error:
        raise ValueError(f"{named} has no column {field!r} of texts ({error}); name one with `field`.") from None
    except (OSError, pyarrow.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{named} cannot be read as Parquet ({reason}); take another copy.") from error


class _NoText(ValueError):
    """A value of a record that is no text."""


def _text(value: Any) -> str:
    """A text, bytes of UTF-8, or nothing."""
    if value is None:
        return ""
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            value.encode()  # half of a pair of surrogates is no text
            return value
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise _NoText(f"it has what is not UTF-8, {error.reason}") from None
    raise _NoText(f"it is of type {type(value).__name__}")

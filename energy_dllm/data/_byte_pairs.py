"""Byte-pair encoding. The `tokenizers` library, which is optional, trains and encodes long texts fast."""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from ._merges import encoder
from ._tokenizer import AbstractTokenizer, printable


CHUNK = 1 << 16
"""Characters that are encoded as one piece, if there is a line break to cut at."""
LEAST = 256
"""The bytes, of which every text is made."""
_EXPECTED = "expected byte-level byte pairs as of GPT-2 or Llama 3 (model BPE, pre-tokenizer ByteLevel, 256 bytes)"


@dataclasses.dataclass(frozen=True, repr=False)
class BytePairs(AbstractTokenizer):
    """Byte-pair encoding: the 256 bytes, and pairs of tokens that stand side by side often, merged into new tokens.

    Every text encodes and decodes exactly: what no merge knows is spelt in bytes. A token is some bytes of UTF-8, so
    it may be part of a character; a sample that ends inside of one decodes to `�` there.

    Trained by the `tokenizers` library: `pip install '.[bpe]'` in a checkout. Without it a tokenizer of GPT-2's form,
    as those of `from_text`, still encodes, slowly: a prompt, not a corpus.

    **Arguments:**

    - `definition`: the content of a `tokenizer.json`. What would change texts is left out: a space in front, spaces
      eaten around special tokens, Unicode normalisation (NFC), tokens added at the ends.

    **Raises:** `ValueError` for another kind of tokenizer.

    **Source:** Sennrich et al. 2016 (arXiv 1508.07909); bytes, Radford et al. 2019 (GPT-2).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{sennrich2016neural,
          title={Neural Machine Translation of Rare Words with Subword Units},
          author={Sennrich, Rico and Haddow, Barry and Birch, Alexandra},
          booktitle={Annual Meeting of the Association for Computational Linguistics},
          year={2016}
        }
        ```

    **Example:**
    ```python
    from energy_dllm.data import BytePairs

    tokenizer = BytePairs.from_text("the cat and the dog and the rat " * 9, size=264)
    ids = tokenizer.encode("the rat, né the cat")
    assert len(ids) < 19 and tokenizer.decode(ids) == "the rat, né the cat"
    ```
    """

    definition: str

    def __post_init__(self):
        object.__setattr__(self, "definition", _canonical(self.definition))

    def __repr__(self) -> str:
        return f"BytePairs({self.size} tokens, {hashlib.sha256(self.definition.encode()).hexdigest()[:12]})"

    @classmethod
    def from_text(cls, text: str, size: int = 1024) -> "BytePairs":
        """The `size` tokens of a text: 256 bytes and its most frequent pairs, fewer where no pair occurs twice.

        **Raises:** `ValueError` if `size` is below 256; `ImportError` without the `tokenizers` library.
        """
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < LEAST:
            raise ValueError(f"`size` is {size!r}; expected at least the {LEAST} bytes, such as 1024.")
        library = _library()
        made = library.Tokenizer(library.models.BPE())
        made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = library.decoders.ByteLevel()
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        trainer = library.trainers.BpeTrainer(
            vocab_size=int(size), min_frequency=2, initial_alphabet=alphabet, show_progress=False
        )
        made.train_from_iterator(pieces(text), trainer)
        return cls(made.to_str())

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "BytePairs":
        """That of a `tokenizer.json`, or of a folder with one or with GPT-2's `vocab.json` and `merges.txt`.

        **Raises:** `FileNotFoundError` if there is none; `ValueError` for a file of another kind.
        """
        path = Path(path)
        if path.is_dir() and not (path / "tokenizer.json").exists():
            files = [path / "vocab.json", path / "merges.txt"]
            if not all(file.is_file() for file in files):
                raise FileNotFoundError(
                    f"`path` {str(path)!r} has neither tokenizer.json nor vocab.json and merges.txt; name one that has."
                )
            vocabulary, merges = (file.read_bytes() for file in files)
            read = lambda: _of_gpt2(json.loads(vocabulary), merges.decode())
        else:
            path = path / "tokenizer.json" if path.is_dir() else path
            if not path.is_file():
                raise FileNotFoundError(f"`path` {str(path)!r} is not a file; expected a tokenizer.json.")
            read = lambda: path.read_text(encoding="utf-8")
        try:
            made = cls(read())
            if importlib.util.find_spec("tokenizers") is not None:
                _ = made._encoder  # made here, so that a pattern it cannot read is an error of this file
            return made
        except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
            reason = str(error) if "`definition`" in str(error) else f"`definition` is no JSON; {_EXPECTED}."
            raise ValueError(reason.replace("`definition`", f"`path` {str(path)!r}")) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ordinary `tokenizer.json`."""
        Path(path).write_text(self.definition, encoding="utf-8")

    @property
    def size(self) -> int:
        return len(self.spelling)

    @functools.cached_property
    def spelling(self) -> tuple[bytes, ...]:
        """The bytes of every token."""
        content = json.loads(self.definition)
        byte = {character: n for n, character in enumerate(_alphabet())}
        of = {n: bytes(byte[c] for c in token) for token, n in content["model"]["vocab"].items()}
        of |= {token["id"]: token["content"].encode() for token in content["added_tokens"]}
        return tuple(of[n] for n in range(len(of)))

    @property
    def symbols(self) -> tuple[str, ...]:
        return self._names

    @functools.cached_property
    def _names(self) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for token in self.spelling:
            # a byte that is no text by itself is a lone surrogate here
            name = "".join(
                printable(c) if not "\udc80" <= c <= "\udcff" else f"<{ord(c) - 0xDC00:02X}>"
                for c in token.decode("utf-8", errors="surrogateescape")
            )
            names[name if name not in names else f"<{token.hex().upper()}>"] = None
        return tuple(names)

    @functools.cached_property
    def _encoder(self) -> Any:
        library = _library()
        try:
            return library.Tokenizer.from_str(self.definition)
        except Exception as error:  # the library has no kinds of them
            raise ValueError(f"`definition` cannot be read by tokenizers ({error}); {_EXPECTED}.") from None

    @functools.cached_property
    def _plain_encoder(self) -> Callable[[str], list[int]]:
        content = json.loads(self.definition)
        model, byte = content["model"], {character: n for n, character in enumerate(_alphabet())}
        if content["pre_tokenizer"] != _LEVEL:
            _library()  # that of other patterns of words
        spelt = lambda token: bytes(byte[c] for c in token)
        return encoder(
            {spelt(token): n for token, n in model["vocab"].items()},
            [(spelt(one), spelt(two)) for one, two in (pair.split(" ") for pair in model["merges"])],
            {token["content"]: token["id"] for token in content["added_tokens"] if token["content"]},
            model["ignore_merges"],
        )

    def encode(self, text: str) -> Integer[np.ndarray, " L"]:
        text.encode()  # a lone surrogate is refused as by `Bytes`
        if importlib.util.find_spec("tokenizers") is None:
            return np.array(self._plain_encoder(text), np.int32)
        ids, batch = [np.zeros(0, np.int32)], []
        for piece in pieces(text):
            batch.append(piece)
            if len(batch) == 16:  # a megabyte, side by side on all cores
                ids += self._batch(batch)
                batch = []
        return np.concatenate(ids + self._batch(batch))

    def _batch(self, texts: list[str]) -> list[np.ndarray]:
        made = self._encoder.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(each.ids, np.int32) for each in made]

    def decode(self, ids: Integer[np.ndarray, " L"]) -> str:
        return b"".join(self.spelt(ids)).decode("utf-8", errors="replace")


def pieces(text: str) -> Iterator[str]:
    """A text in pieces that are encoded as in the whole: cut behind line breaks between two characters that are none,
    nor spaces, where no pattern of words goes on."""
    start = 0
    while len(text) - start > CHUNK:
        cut = _BORDER.search(text, start + CHUNK)
        if cut is None:
            break
        yield text[start : cut.start() + 2]
        start = cut.start() + 2
    if start < len(text):
        yield text[start:]


_BORDER = re.compile(r"\S\n(?=\S)")


def last_border(text: str) -> int:
    """Where the last piece of a text that goes on begins, 0 if it is one piece; not far behind its beginning."""
    cut = 0
    for found in _BORDER.finditer(text, max(0, len(text) - CHUNK)):
        cut = found.start() + 2
    return cut


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            "byte pairs need the tokenizers library, which is optional: pip install '.[bpe]' in a checkout."
        ) from None
    return tokenizers


@functools.cache
def _alphabet() -> str:
    """GPT-2's character for each byte: itself where it is printable, the others from U+0100 on."""
    itself = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return "".join(chr(n if n in itself else next(others)) for n in range(256))


_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _of_gpt2(vocabulary: dict[str, int], merges: str) -> str:
    """As a tokenizer.json; what no merge makes is a special token."""
    pairs = [line for line in merges.splitlines() if line and not line.startswith("#version")]
    made = {line.replace(" ", "", 1) for line in pairs} | set(_alphabet())
    special = [{"id": n, "content": token} for token, n in vocabulary.items() if token not in made]
    model = {"type": "BPE", "vocab": {token: n for token, n in vocabulary.items() if token in made}, "merges": pairs}
    return json.dumps({"added_tokens": special, "pre_tokenizer": _LEVEL, "model": model})


def _canonical(definition: str) -> str:
    """The part of a tokenizer.json that decides ids and texts, in one form; `ValueError` for another kind."""
    try:
        return _parsed(json.loads(definition))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if "`definition`" in str(error):
            raise
        raise ValueError(f"`definition` is not the content of a tokenizer.json; {_EXPECTED}.") from None


def _parsed(content: dict[str, Any]) -> str:
    model = content["model"]
    kind = model.get("type", "BPE" if "merges" in model else "unknown")
    if kind != "BPE":
        raise ValueError(f"`definition` is a tokenizer of kind {kind}; {_EXPECTED}.")
    parts = _parts(content.get("pre_tokenizer"), "pretokenizers")
    norms = [part.get("type") for part in _parts(content.get("normalizer"), "normalizers")]
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise ValueError(f"`definition` is a tokenizer with a `{name}`; {_EXPECTED}.")
    fault = next((name for name in norms if name != "NFC"), None)
    for part in parts:
        if part.get("type") not in ("ByteLevel", "Split", "Digits", "Punctuation") or part.get("behavior") == "Removed":
            fault = fault or part.get("type")
    if fault or not any(part.get("type") == "ByteLevel" for part in parts):
        raise ValueError(f"`definition` is a tokenizer with {fault or 'no ByteLevel'}, which {_LOSES}; {_EXPECTED}.")
    parts = [{**_LEVEL, "use_regex": p.get("use_regex", True)} if p["type"] == "ByteLevel" else p for p in parts]
    added = [
        {"id": t["id"], "content": t["content"], "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for t in content.get("added_tokens") or []
    ]
    names = {t["content"] for t in added}
    vocabulary = {token: n for token, n in sorted(model["vocab"].items(), key=lambda item: item[1])}
    texts = {token: n for token, n in vocabulary.items() if token not in names}
    ids = sorted([*texts.values(), *(t["id"] for t in added)])
    letters = set(_alphabet())
    if ids != list(range(len(ids))) or not letters <= set(texts) or not all(set(token) <= letters for token in texts):
        raise ValueError(f"`definition` is a tokenizer whose tokens are not all bytes, numbered from 0; {_EXPECTED}.")
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    for pair in merges:
        one, _, two = pair.partition(" ")
        if not (one in texts and two in texts and one + two in texts):
            raise ValueError(f"`definition` is a tokenizer that merges {pair!r}, which are no two tokens; {_EXPECTED}.")
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": sorted(added, key=lambda token: token["id"]),
            "normalizer": None,
            "pre_tokenizer": parts[0] if len(parts) == 1 else {"type": "Sequence", "pretokenizers": parts},
            "post_processor": None,
            "decoder": _LEVEL,
            "model": {
                "type": "BPE",
                "ignore_merges": bool(model.get("ignore_merges", False)),
                "vocab": texts,
                "merges": merges,
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


_LOSES = "does not give every text back"


def _parts(step: dict | None, name: str) -> list[dict]:
    """Of a normalizer or pre-tokenizer, those of a sequence one by one."""
    if step is None:
        return []
    if step.get("type") == "Sequence":
        return [part for each in step.get(name) or [] for part in _parts(each, name)]
    return [step]

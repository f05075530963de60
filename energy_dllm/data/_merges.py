"""Byte-pair encoding of short texts without the `tokenizers` library, for definitions of GPT-2's form."""

import functools
import re
import unicodedata
from collections.abc import Callable


# The words of GPT-2, whose tokens are never merged, of a text in which `_kind` stands for what is not ASCII.
_WORDS = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII)


def encoder(
    vocabulary: dict[bytes, int], merges: list[tuple[bytes, bytes]], special: dict[str, int], whole: bool
) -> Callable[[str], list[int]]:
    """The function from a text to its ids.

    `special` tokens are cut out of the text first; with `whole` a word of the vocabulary is one token, even where no
    merges lead to it.
    """
    rank = {pair: n for n, pair in enumerate(merges)}
    cut = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")

    def encode(text: str) -> list[int]:
        ids, start = [], 0
        for found in cut.finditer(text):
            ids += plain(text[start : found.start()]) + [special[found[0]]]
            start = found.end()
        return ids + plain(text[start:])

    def plain(text: str) -> list[int]:
        kinds = text if text.isascii() else "".join(map(_kind, text))
        words = (text[found.start() : found.end()].encode() for found in _WORDS.finditer(kinds))
        return [vocabulary[token] for word in words for token in split(word)]

    @functools.lru_cache(1 << 16)
    def split(word: bytes) -> list[bytes]:
        tokens = [word] if whole and word in vocabulary else [word[n : n + 1] for n in range(len(word))]
        while True:
            ranks = [rank.get(pair, len(rank)) for pair in zip(tokens, tokens[1:], strict=False)]
            best = min(ranks, default=len(rank))
            if best == len(rank):
                return tokens
            place = ranks.index(best)
            tokens[place : place + 2] = [tokens[place] + tokens[place + 1]]

    return encode


def _kind(character: str) -> str:
    """An ASCII character of the same kind: letter, number, space or none of them."""
    if character.isascii():
        return character
    category = unicodedata.category(character)[0]
    return {"L": "a", "N": "0"}.get(category, "\n" if character.isspace() else "!")

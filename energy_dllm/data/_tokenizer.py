import abc
import dataclasses
import functools
from typing import ClassVar

import numpy as np
from jaxtyping import Integer, UInt


class AbstractTokenizer(abc.ABC):
    """Strings to ids and back.

    A tokenizer is a frozen dataclass: hashable, comparable, and rebuilt from its class and
    `dataclasses.asdict(tokenizer)`, whose values are plain JSON. So it can be a static field of a model and
    be stored beside its weights.
    """

    grids: ClassVar[tuple[tuple[int, int], ...]] = ()
    """Rows and columns of each grid of a passage, where a passage has a layout; text has none."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of symbols `V`; ids are `0..V-1`."""

    @property
    @abc.abstractmethod
    def symbols(self) -> tuple[str, ...]:
        """A printable name of each symbol, for tables and figures (`␣` for a space, `\\n` for a newline)."""

    @abc.abstractmethod
    def encode(self, text: str) -> Integer[np.ndarray, " L"]:
        """Ids of a string, int32."""

    @abc.abstractmethod
    def decode(self, ids: Integer[np.ndarray, " L"]) -> str:
        """String of a sequence of ids."""

    @property
    def places(self) -> int:
        """Tokens of a passage that has a layout, 0 for text, which has any number."""
        return sum(rows * columns for rows, columns in self.grids)

    def characters(self, ids: Integer[np.ndarray, " L"]) -> int:
        """Number of characters that begin in these ids: what a likelihood is divided by, whatever the tokens are."""
        # of a character that began before, what is left of it is no text by itself
        return len(self.decode(ids).lstrip("\N{REPLACEMENT CHARACTER}"))

    def by_token(self, ids: Integer[np.ndarray, " L"]) -> list[str]:
        """The string of each token by itself, `L` of them; `ValueError` as `decode`.

        **Example:**
        ```python
        from energy_dllm.data import Characters

        assert Characters("abc ").by_token(Characters("abc ").encode("a a")) == ["a", " ", "a"]
        ```
        """
        numbers = np.asarray(ids).tolist()
        each = {number: self.decode(np.asarray([number])) for number in set(numbers)}
        return [each[number] for number in numbers]

    def spelt(self, ids: Integer[np.ndarray, " L"]) -> list[bytes]:
        """The bytes of each token in UTF-8, `L` of them: a token of byte pairs may be a part of a character. Tokenizers
        of such tokens have them as `spelling`, by id.

        **Example:**
        ```python
        from energy_dllm.data import Bytes

        assert Bytes().spelt(Bytes().encode("né")) == [b"n", b"\\xc3", b"\\xa9"]
        ```
        """
        spelling = getattr(self, "spelling", None)
        if spelling is None:
            return [text.encode() for text in self.by_token(ids)]
        return [spelling[n] for n in self._checked(ids).tolist()]

    def _checked(self, ids: Integer[np.ndarray, " L"]) -> Integer[np.ndarray, " L"]:
        ids = np.asarray(ids)
        if ids.ndim != 1 or (ids.size > 0 and ids.dtype.kind not in "iu"):
            raise ValueError(
                f"`ids` must be a one-dimensional array of integers, got {ids.dtype} of shape {ids.shape}; "
                "decode a batch one row at a time."
            )
        ids = ids.astype(np.int64)
        outside = np.flatnonzero((ids < 0) | (ids >= self.size))
        if outside.size:
            raise ValueError(
                f"`ids` must lie in 0..{self.size - 1}, got {ids[outside[0]]} at position {outside[0]}; "
                "decode with the tokenizer that encoded them."
            )
        return ids


@dataclasses.dataclass(frozen=True)
class Bytes(AbstractTokenizer):
    """The 256 bytes of UTF-8: any text, one to four ids a character.

    Bytes that are no UTF-8 (a cut inside a character, a sample of a model) decode to `�`.

    **Example:**
    ```python
    from energy_dllm.data import Bytes

    assert Bytes().encode("né").tolist() == [110, 195, 169]
    assert Bytes().decode(Bytes().encode("né")) == "né"
    ```
    """

    @property
    def size(self) -> int:
        return 256

    @functools.cached_property
    def spelling(self) -> tuple[bytes, ...]:
        """The byte of every token."""
        return tuple(bytes([n]) for n in range(256))

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(printable(chr(i)) if i < 128 else f"<{i:02X}>" for i in range(256))

    def encode(self, text: str) -> Integer[np.ndarray, " L"]:
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)

    def decode(self, ids: Integer[np.ndarray, " L"]) -> str:
        return b"".join(self.spelt(ids)).decode("utf-8", errors="replace")


@dataclasses.dataclass(frozen=True)
class Characters(AbstractTokenizer):
    """One id for each character of an alphabet, in the order given.

    **Arguments:**

    - `alphabet`: the characters, each once.

    **Raises:** `ValueError` if the alphabet is empty or repeats a character; `encode` if a character is not
    in it.

    **Example:**
    ```python
    from energy_dllm.data import Characters

    tokenizer = Characters.from_text("abracadabra")
    assert tokenizer.alphabet == "abcdr" and tokenizer.encode("bad").tolist() == [1, 0, 3]
    ```
    """

    alphabet: str

    def __post_init__(self):
        if not self.alphabet:
            raise ValueError("`alphabet` is empty, expected at least one character; try `Characters.from_text(text)`.")
        if len(set(self.alphabet)) < len(self.alphabet):
            twice = next(c for i, c in enumerate(self.alphabet) if c in self.alphabet[:i])
            raise ValueError(
                f"`alphabet` holds {twice!r} twice, expected each character once; "
                "`Characters.from_text(text)` sorts and removes repeats."
            )

    @classmethod
    def from_text(cls, text: str) -> "Characters":
        """The sorted characters of a text."""
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        return len(self.alphabet)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(printable(c) for c in self.alphabet)

    @functools.cached_property
    def _points(self) -> UInt[np.ndarray, " V"]:
        return _code_points(self.alphabet)

    @functools.cached_property
    def _table(self) -> Integer[np.ndarray, " points"]:
        # One entry past the largest code point catches every unknown character.
        table = np.full(int(self._points.max()) + 2, -1, np.int32)
        table[self._points] = np.arange(self.size)
        return table

    def encode(self, text: str) -> Integer[np.ndarray, " L"]:
        points = _code_points(text)
        ids = self._table[np.minimum(points, len(self._table) - 1)]
        unknown = np.flatnonzero(ids < 0)
        if unknown.size:
            first: dict[str, int] = {}
            for i in unknown:
                first.setdefault(text[i], int(i))
                if len(first) == 5:
                    break
            named = ", ".join(f"{c!r} at {i}" for c, i in first.items())
            raise ValueError(
                f"`text` holds {unknown.size} characters outside the alphabet of {self.size} ({named}); "
                "use `Characters.from_text` on all of your text, or `Bytes()`, which knows every character."
            )
        return ids

    def decode(self, ids: Integer[np.ndarray, " L"]) -> str:
        return self._points[self._checked(ids)].tobytes().decode("utf-32-le", errors="surrogatepass")


def _code_points(text: str) -> UInt[np.ndarray, " L"]:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), "<u4")


def printable(character: str) -> str:
    if character == " ":
        return "␣"
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")

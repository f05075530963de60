"""The texts that a cue is compared with: every one once, as characters."""

from collections.abc import Iterable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, UInt

from ..data import AbstractTokenizer, Bytes, Characters
from ..energy import NGram, PairHMMMixture
from ._grams import signatures
from ._recall import Cue
from ._store import columns_of, counts_of, firsts_of, lengths_of, padded


MOST = 512
"""Characters from which on texts are compared as bytes: the background counts pairs of symbols, `4 V^2` bytes."""


class Keys(eqx.Module):
    """Different texts `(K)`, whatever the tokens of a model are; with what sieve and background need of them."""

    tokenizer: AbstractTokenizer = eqx.field(static=True)
    columns: UInt[Array, "L K"]
    lengths: Int[Array, " K"]
    grams: UInt[Array, "W K"]
    counts: Float[Array, "*context V"]

    def __init__(self, tokenizer: AbstractTokenizer, columns, grams, counts):
        self.tokenizer = tokenizer
        leaves = columns, lengths_of(columns, tokenizer.size), grams, counts
        # unlike `jnp.asarray`, this compiles nothing for a new number of texts
        self.columns, self.lengths, self.grams, self.counts = map(jax.device_put, leaves)

    @classmethod
    def of(cls, texts: Sequence[str], alphabet: Iterable[str] = ()) -> "tuple[Keys, Int[np.ndarray, ' n']]":
        """Keys of texts, of characters of at least this `alphabet`, and the number of the key of each text."""
        symbols = "".join([*texts, *alphabet])
        tokenizer = Characters.from_text(symbols) if len(set(symbols)) <= MOST else Bytes()
        columns = columns_of(texts, tokenizer)
        new, numbers = firsts_of(columns)
        columns = columns[:, new]
        return cls(tokenizer, columns, signatures(columns, tokenizer.size), counts_of(columns, tokenizer.size)), numbers

    def __len__(self) -> int:
        return self.columns.shape[1]

    def find(self, text: str) -> int | None:
        """The number of a text, if it is one of them."""
        found = np.flatnonzero(same(np.asarray(self.columns), self.tokenizer, text))
        return int(found[0]) if found.size else None

    def cue(self, pieces: Sequence[str]) -> Cue:
        """A text, with an unknown character between each two of its pieces.

        A character outside the alphabet is unknown as well: it is in no line, so it cannot tell one from another.
        """
        read: list[Integer[np.ndarray, " n"]] = []
        for number, piece in enumerate(pieces):
            read += [np.zeros(0, np.int32)] * (number > 0)
            for character in piece:
                try:
                    read.append(np.asarray(self.tokenizer.encode(character)))
                except ValueError:
                    read.append(np.zeros(0, np.int32))
        lengths = [max(1, len(ids)) for ids in read]
        longest = int(np.max(self.lengths))
        if sum(lengths) > 2 * longest:
            raise ValueError(
                f"`cue` has {sum(lengths)} tokens, more than twice the longest line of this memory ({longest}); "
                "give a shorter piece of it."
            )
        ids, seen = np.zeros(sum(lengths), np.int32), np.zeros(sum(lengths), bool)
        for start, here in zip(np.cumsum([0, *lengths[:-1]]), read, strict=True):
            ids[start : start + len(here)] = here
            seen[start : start + len(here)] = True
        return Cue(ids, seen)

    def add(self, texts: Sequence[str]) -> "tuple[Keys, Int[np.ndarray, ' n']]":
        """With further texts, and the number of the key of each."""
        here, size = len(self), self.tokenizer.size
        try:
            columns = columns_of(texts, self.tokenizer)
        except ValueError:  # characters that are new to all of them
            read = lambda ids: self.tokenizer.decode(ids[ids < size])
            before = [read(ids) for ids in np.asarray(self.columns).T]
            keys, numbers = Keys.of([*before, *texts], getattr(self.tokenizer, "alphabet", ""))
            return keys, numbers[here:]
        columns = np.concatenate(padded(np.asarray(self.columns), columns, size), axis=1)
        new, numbers = firsts_of(columns)
        new[:here] = False
        columns = np.concatenate([columns[:, :here], columns[:, new]], axis=1)
        grams = np.concatenate([np.asarray(self.grams), signatures(columns[:, here:], size)], axis=1)
        counts = np.asarray(self.counts) + counts_of(columns[:, here:], size)
        return Keys(self.tokenizer, columns, grams, counts), numbers[here:]

    def without(self, gone: Bool[np.ndarray, " K"]) -> "Keys":
        """Without some of the texts."""
        columns = np.asarray(self.columns)
        counts = np.asarray(self.counts) - counts_of(columns[:, gone], self.tokenizer.size)
        return Keys(self.tokenizer, columns[:, ~gone], np.asarray(self.grams)[:, ~gone], counts)

    def energy(self, weights: Float[np.ndarray, " K"], numbers: Integer[np.ndarray, " n"], room: int) -> PairHMMMixture:
        """The energy of some texts with the weights they have among all, with room for more of weight zero."""
        return lines_of(np.asarray(self.columns), weights, NGram(self.counts), numbers, room)


def lines_of(
    columns: Integer[np.ndarray, "L M"],
    weights: Float[np.ndarray, " M"],
    background: NGram,
    numbers: Integer[np.ndarray, " n"],
    room: int,
) -> PairHMMMixture:
    more = room - len(numbers)
    with np.errstate(divide="ignore"):
        log_weights = np.log(np.pad(0.5 * weights[numbers] / weights.sum(), (1, more)))
    log_weights[0] = np.log(0.5)
    ids = np.pad(columns[:, numbers].T.astype(np.int32), ((0, more), (0, 0)), constant_values=background.size)
    return PairHMMMixture(jnp.asarray(ids), jnp.asarray(log_weights), background)


def same(columns: Integer[np.ndarray, "L M"], tokenizer: AbstractTokenizer, text: str) -> Bool[np.ndarray, " M"]:
    """Which columns are this text, letter by letter."""
    try:
        ids = np.asarray(tokenizer.encode(text))
    except ValueError:
        ids = np.zeros(0, int)  # of other characters, hence none of them
    if not 0 < len(ids) <= len(columns):
        return np.zeros(columns.shape[1], bool)
    return np.all(columns == np.pad(ids, (0, len(columns) - len(ids)), constant_values=tokenizer.size)[:, None], axis=0)

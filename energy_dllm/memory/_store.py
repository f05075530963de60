"""Lines as arrays: tokens with one column a line, and what is counted on them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt

from ..data import AbstractTokenizer


def texts(lines: Any) -> list[str]:
    """The lines as a list; `ValueError` if they are none, or not texts."""
    if not isinstance(lines, Iterable):
        raise ValueError(f"`lines` is {lines!r}; expected texts.")
    lines = list(lines)
    if odd := [line for line in lines if not isinstance(line, str)]:
        raise ValueError(f"`lines` has {odd[0]!r}; expected texts.")
    if not lines:
        raise ValueError("`lines` is empty; expected at least one line to store.")
    return lines


def columns_of(lines: Sequence[str], tokenizer: AbstractTokenizer) -> UInt[np.ndarray, "L M"]:
    """Tokens with one column a line, so that a cue is laid beside all lines place by place; its end is `V`."""
    encoded = []
    for number, line in enumerate(lines):
        if not line:
            raise ValueError(f"`lines` number {number} is empty; expected at least one character a line.")
        encoded.append(np.asarray(tokenizer.encode(line)))
    width = -(-max(map(len, encoded)) // 16) * 16  # a line a little longer does not change the shape
    columns = np.full((width, len(lines)), tokenizer.size, np.min_scalar_type(tokenizer.size))
    for number, ids in enumerate(encoded):
        columns[: len(ids), number] = ids
    return columns


def padded(
    old: Integer[np.ndarray, "L M"], new: Integer[np.ndarray, "K N"], end: int
) -> tuple[Integer[np.ndarray, "P M"], Integer[np.ndarray, "P N"]]:
    """Both with columns of the same length."""
    length = max(len(old), len(new))
    old, new = (np.pad(c, ((0, length - len(c)), (0, 0)), constant_values=end) for c in (old, new))
    return old, new


def lengths_of(columns: Integer[np.ndarray, "L M"], size: int) -> Int[np.ndarray, " M"]:
    return np.asarray(np.sum(columns < size, axis=0, dtype=np.int32))


def firsts_of(columns: Integer[np.ndarray, "L M"]) -> tuple[Bool[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Which columns are the first of their kind, and the number of its kind for every column."""
    seen: dict[bytes, int] = {}
    numbers = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in columns.T], np.int32)
    return np.append(True, np.diff(np.maximum.accumulate(numbers)) > 0), numbers


def counts_of(columns: Integer[np.ndarray, "L M"], size: int) -> Float[np.ndarray, "*context V"]:
    """How often each three tokens stand together (each two, for vocabularies whose cubes are large).

    A line follows upon itself, so that its first tokens are counted behind others as well.
    """
    order = 3 if size <= 128 else 2
    lengths = lengths_of(columns, size)
    place = np.arange(len(columns))[:, None]
    inside = place < lengths
    earlier = [
        np.take_along_axis(columns, (place - n) % np.maximum(lengths, 1), axis=0)[inside]
        for n in reversed(range(order))
    ]
    flat = np.ravel_multi_index(tuple(tokens.astype(np.int64) for tokens in earlier), (size,) * order)
    return np.bincount(flat, minlength=size**order).astype(np.float32).reshape((size,) * order)


def weights_of(weights, lines: int) -> Float[np.ndarray, " M"]:
    weights = np.array(weights, np.float32)  # a copy: nobody else may change it
    if weights.shape != (lines,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(f"`weights` has shape {weights.shape}; expected {lines} positive numbers, one a line.")
    return weights

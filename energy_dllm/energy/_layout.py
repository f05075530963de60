"""Layouts: where the tokens of a passage stand. Text is one row of them, a picture a grid, its caption a row above.

A layout is a tuple of grids `(rows, columns)`, one after another, each read row by row; the empty one is text, a row as
long as the passage is. All grids stand in one plane, one below another and so far apart that no step from a token to
another within a grid is one from grid to grid.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer


Grids = tuple[tuple[int, int], ...]


def tokens(grids: Grids) -> int:
    """How many tokens a layout has."""
    return sum(rows * columns for rows, columns in grids)


def laid(grids: Grids, length: int) -> Grids:
    """The grids of a passage of `length` tokens; `ValueError` if it is not that of the layout."""
    if not grids:
        return ((1, length),)
    if tokens(grids) != length:
        shape = " and ".join(f"{rows} x {columns}" for rows, columns in grids)
        raise ValueError(
            f"the passage has {length} tokens; the layout of this model, {shape}, has {tokens(grids)}: give that many."
        )
    return grids


@functools.cache
def steps(grids: Grids) -> Integer[np.ndarray, "L L axes"]:
    """`place_j - place_i` in rows and columns `(L, L, 2)`."""
    height, top, places = max(rows for rows, _ in grids), 0, []
    for rows, columns in grids:
        places += [(top + row, column) for row in range(rows) for column in range(columns)]
        top += rows + height - 1
    found = np.array(places)
    return found[None, :] - found[:, None]


@functools.cache
def relations(grids: Grids, reach: int) -> tuple[Integer[np.ndarray, "L L"], Integer[np.ndarray, " offsets"]]:
    """Which pairs of tokens are alike `(L, L)`, by number, and how far apart they are, for each number.

    In text `clip(j - i, -reach, reach) + reach`; in a layout of grids by rows and columns, without a limit. Tokens of
    different grids have the distance 0.
    """
    ahead = steps(grids)
    if len(grids) == 1 and grids[0][0] == 1:
        return np.clip(ahead[..., 1], -reach, reach) + reach, np.abs(np.arange(-reach, reach + 1))
    rows, columns = (int(np.abs(ahead[..., axis]).max()) for axis in (0, 1))
    number = (ahead[..., 0] + rows) * (2 * columns + 1) + ahead[..., 1] + columns
    down, across = np.meshgrid(np.arange(-rows, rows + 1), np.arange(-columns, columns + 1), indexing="ij")
    within = np.abs(down) < max(height for height, _ in grids)
    return number, np.where(within, np.abs(down) + np.abs(across), 0).ravel()


@functools.cache
def near(grids: Grids, reach: int) -> tuple[Integer[np.ndarray, "L L"], Integer[np.ndarray, "L offsets"]]:
    """By which of the offsets of a convolution `j` stands from `i` `(L, L)`, -1 if by none; and which token stands
    there `(L, offsets)`, -1 if none."""
    ahead, high = steps(grids), 0 if flat(grids) else reach
    inside = (np.abs(ahead[..., 0]) <= high) & (np.abs(ahead[..., 1]) <= reach)
    offset = np.where(inside, (ahead[..., 0] + high) * (2 * reach + 1) + ahead[..., 1] + reach, -1)
    token = np.full((len(ahead), (2 * high + 1) * (2 * reach + 1)), -1)
    i, j = np.nonzero(offset >= 0)
    token[i, offset[i, j]] = j
    return offset, token


def neighbours(grids: Grids, reach: int) -> Integer[np.ndarray, "L offsets"]:
    """Which token stands at each offset of a convolution `(L, offsets)`, -1 if none; nothing `(L, L)` for text."""
    if len(grids) != 1 or not flat(grids):
        return near(grids, reach)[1]
    ((_, length),) = grids
    token = np.arange(length)[:, None] + np.arange(-reach, reach + 1)
    return np.where((token >= 0) & (token < length), token, -1)


def flat(grids: Grids) -> bool:
    """Whether it is of single rows, so that a convolution reaches along them only."""
    return all(rows == 1 for rows, _ in grids)


def shifted(z: Float[Array, "L W"], grids: Grids, reach: int) -> list[Float[Array, "L W"]]:
    """`z` of the token at every offset of a convolution, row by row; 0 beyond the rim of the grid."""
    high, start, parts = 0 if flat(grids) else reach, 0, []
    for rows, columns in grids:
        grid = z[start : start + rows * columns].reshape(rows, columns, -1)
        wide = jnp.pad(grid, ((high, high), (reach, reach), (0, 0)))
        cuts = [(down, across) for down in range(2 * high + 1) for across in range(2 * reach + 1)]
        part = [wide[down : down + rows, across : across + columns] for down, across in cuts]
        parts.append([each.reshape(rows * columns, -1) for each in part])
        start += rows * columns
    return parts[0] if len(parts) == 1 else [jnp.concatenate(each) for each in zip(*parts, strict=True)]

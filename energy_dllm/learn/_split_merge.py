"""Expectation-maximisation for the tables of an `HMMVocabulary`, with states that are split and merged."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from .._checks import seeded
from ..energy import HMMVocabulary
from ._checkpoint import load, notes, save


# Uniform share mixed into every row: what was not seen keeps a positive probability.
FLOOR = 1e-4

# Relative standard deviation of the noise that makes the two halves of a state different.
SPREAD = 0.5

# Share of the states that is kept after a round of splitting.
KEPT = 0.75


class _Chain(NamedTuple):
    """Expected counts `(S, S)` of transitions between states, and the token `(S,)` that each state emits."""

    moves: Float[np.ndarray, "S S"]
    tokens: Integer[np.ndarray, " S"]


def fit_split_merge(
    vocabulary: HMMVocabulary,
    ids: Integer[np.ndarray, " N"],
    *,
    rounds: int = 1,
    epochs: float = 0.5,
    stickiness: float = 0.95,
    length: int = 256,
    batch_size: int = 4,
    seed: int = 0,
    directory: str | os.PathLike | None = None,
) -> HMMVocabulary:
    """Fit the tables of a vocabulary by expectation-maximisation with split and merge rounds.

    Every state emits one token. A round splits each state in two, runs online expectation-maximisation (E and M steps
    on batches, with counts that decay), and merges the pairs that lose least,

        `cost(z, z') = sum_n [h(T_zn, T_z'n) + h(T_nz, T_nz')] - h(T_z, T_z')`
        `h(a, b) = a log a + b log b - (a + b) log (a + b)`

    with expected transition counts `T`: the loss of information about the next state, less the information about the
    previous one that is no longer needed. The halves of a state are sticky: with probability `stickiness` a first half
    is followed by first halves, so that each split stores one bit that persists, and the fit finds a use for it. Halves
    that start at random do not learn to carry information over several words.

    Texts of strict form (a grammar, code, tables) are fitted better by this than by gradients; of prose a hidden Markov
    model whose states share tokens learns more (`MaximumLikelihood`), and may be initialised by this.

    **Arguments:**

    - `vocabulary`: whose `initial`, `transition` and `emission` are fitted, `S` states; patterns and codes stay.
    - `ids`: the text `(N,)`.
    - `rounds`: of splitting and merging after the full number of states is reached.
    - `epochs`: passes over the text in each round.
    - `stickiness`: probability that a half is followed by a half of the same kind, in (0, 1).
    - `length`, `batch_size`: tokens of a window, and windows of a batch. Small batches fit better: an M step follows a
      thousand tokens by default.
    - `seed`: of the halves and of the windows.
    - `directory`: where the result is saved, as `grown.safetensors`. If it exists with these settings, it is loaded.

    **Returns:** the vocabulary with its new tables.

    **Raises:** `ValueError` if there are fewer states than tokens, `ids` are no ids of it or fewer than `length`, a
    setting is out of its range, or `directory` holds the result of other settings.

    **Source:** Baum et al. 1970; Cappé & Moulines 2009 (batches); Petrov et al. 2006 (split and merge); George et al.
    2021 (states that stand for one token).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{petrov2006learning,
          title={Learning Accurate, Compact, and Interpretable Tree Annotation},
          author={Petrov, Slav and Barrett, Leon and Thibaux, Romain and Klein, Dan},
          booktitle={Annual Meeting of the Association for Computational Linguistics},
          year={2006}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, numpy as np, energy_dllm as ed

    ids = np.tile([0, 1, 1, 2], 500)
    vocabulary = ed.energy.HMMVocabulary(3, 8, states=4, key=jax.random.key(0))
    grown = ed.learn.fit_split_merge(vocabulary, ids, epochs=20.0, length=50)
    assert grown.nll(jnp.asarray(ids[:40])).sum() < 3.0
    ```
    """
    seeded(seed)
    ids = np.asarray(ids)
    size, states = vocabulary.patterns.shape[0], vocabulary.initial.shape[0]
    _check(ids, size, states, rounds=rounds, epochs=epochs, stickiness=stickiness, length=length, batch_size=batch_size)
    settings = dict(
        rounds=rounds, epochs=epochs, stickiness=stickiness, length=length, batch_size=batch_size, seed=seed
    )
    settings |= {"ids": _digest(ids), "vocabulary": _digest(*jax.tree.leaves(vocabulary))}
    kept = None if directory is None else Path(directory) / "grown.safetensors"
    if kept is not None and kept.exists():
        return _read(kept, settings)
    rng, pairs = np.random.default_rng(seed), np.zeros((size, size))
    for pair in _neighbours(ids):
        np.add.at(pairs, pair, 1.0)
    chain = _Chain(pairs, np.arange(size))
    count = lambda chain, epochs: _count(chain, ids, size, epochs, length, batch_size, rng)
    while rounds > 0:
        rounds -= len(chain.tokens) == states
        chain = count(_split(chain, stickiness, rng), epochs)
        # one more fit after merging
        chain = count(_merge(chain, min(states, max(size, int(KEPT * len(chain.tokens))))), 0.6 * epochs)
    grown = _tables(vocabulary, chain)
    if kept is not None:
        save(kept, grown, notes={"growing": settings})
    return grown


def _neighbours(ids, piece: int = 1 << 20):
    """Tokens and those that follow them, a piece at a time: as an index all of them take eight bytes each."""
    for start in range(0, len(ids) - 1, piece):
        yield ids[start : start + piece][: len(ids) - 1 - start], ids[start + 1 : start + piece + 1]


def _digest(*arrays) -> str:
    """A hash of all arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]


def _read(kept: Path, settings: dict) -> HMMVocabulary:
    found = notes(kept).get("growing", {})
    different = sorted(name for name in settings if found.get(name) != settings[name])
    if different:
        name = different[0]
        raise ValueError(
            f"`directory` {kept.parent} holds another growing: its {name} is {found.get(name)!r}, now "
            f"{settings[name]!r}; give another folder or the same settings."
        )
    return load(kept)


def _check(ids, size, states, *, rounds, epochs, stickiness, length, batch_size):
    if states < size:
        raise ValueError(
            f"`vocabulary` has {states} states for {size} tokens; expected one a token, or more (`states=`)."
        )
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer) or ids.size < length + 1:
        raise ValueError(
            f"`ids` has shape {ids.shape} and dtype {ids.dtype}; expected more than `length` {length} token ids (N,)."
        )
    if ids.min() < 0 or ids.max() >= size:
        raise ValueError(f"`ids` lie in {ids.min()}..{ids.max()}; expected ids of the vocabulary, 0..{size - 1}.")
    for name, value in (("rounds", rounds), ("batch_size", batch_size), ("length", length - 1)):
        if value < 1:
            raise ValueError(f"`{name}` is {value + (name == 'length')}; expected at least {1 + (name == 'length')}.")
    if not epochs > 0:
        raise ValueError(f"`epochs` is {epochs}; expected a positive number of passes over the text, such as 0.5.")
    if not 0 < stickiness < 1:
        raise ValueError(f"`stickiness` is {stickiness}; expected a probability between 0 and 1, such as 0.95.")


def _split(chain: _Chain, stickiness: float, rng: np.random.Generator) -> _Chain:
    """Every state in two halves, which are followed by the same half with probability `stickiness`."""
    moves = np.kron(chain.moves, [[stickiness, 1.0 - stickiness], [1.0 - stickiness, stickiness]])
    return _Chain(moves * rng.gamma(SPREAD**-2, SPREAD**2, moves.shape), np.repeat(chain.tokens, 2))


def _merge(chain: _Chain, states: int) -> _Chain:
    """Merge the pairs of states of one token with the least cost, a few at a time, until `states` are left."""
    moves, tokens = chain.moves.copy(), chain.tokens
    while len(tokens) > states:
        cost = _costs(moves, tokens)
        most = max(1, min(len(tokens) - states, len(tokens) // 6))
        gone: list[int] = []
        touched: set[int] = set()
        for flat in np.argsort(cost, axis=None):
            first, second = divmod(int(flat), len(tokens))
            if len(gone) == most or not np.isfinite(cost[first, second]):
                break
            if not {first, second} & touched:
                touched |= {first, second}
                gone.append(second)
                moves[first] += moves[second]
                moves[:, first] += moves[:, second]
        left = np.setdiff1d(np.arange(len(tokens)), gone)
        moves, tokens = moves[np.ix_(left, left)], tokens[left]
    return _Chain(moves, tokens)


def _costs(moves, tokens):
    """Log-likelihood lost where two states become one `(S, S)`; infinite where they emit different tokens."""
    costs = np.full(moves.shape, np.inf)
    for token in np.unique(tokens):
        mine = np.flatnonzero(tokens == token)
        left, entered = moves[mine], moves[:, mine].T
        lost = _apart(left) - _entropic(left.sum(1)[:, None], left.sum(1)[None])
        pair = lost + _apart(entered)
        pair[np.tril_indices(len(mine))] = np.inf
        costs[np.ix_(mine, mine)] = pair
    return costs


def _apart(rows):
    return np.stack([_entropic(row, rows).sum(-1) for row in rows])


def _entropic(a, b):
    """`a log a + b log b - (a + b) log (a + b)`"""
    log = lambda x: x * np.log(np.maximum(x, 1e-300))
    return log(a) + log(b) - log(a + b)


def _count(chain: _Chain, ids, size, epochs, length, batch_size, rng) -> _Chain:
    """Expected counts after `epochs` over the text."""
    # one block of counts for each pair of consecutive tokens that the text has
    seen = np.zeros((size, size), bool)
    for pair in _neighbours(ids):
        seen[pair] = True
    pairs = np.stack(np.nonzero(seen))
    number = np.zeros((size, size), np.int32)
    number[*pairs] = np.arange(pairs.shape[1])
    # places of a token's states in its blocks, padded: few widths, so that few programs are compiled
    copies = np.bincount(chain.tokens, minlength=size)
    places = np.arange(-(-int(copies.max()) // 8) * 8)
    alive = places < copies[:, None]
    state = np.argsort(chain.tokens, kind="stable")[np.where(alive, (np.cumsum(copies) - copies)[:, None] + places, 0)]
    cells = state[pairs[0]][:, :, None], state[pairs[1]][:, None, :]
    live = alive[pairs[0]][:, :, None] & alive[pairs[1]][:, None, :]
    blocks = chain.moves[cells] * live
    counts = jnp.asarray(blocks / blocks.sum(), jnp.float32)
    for step in range(max(1, round(epochs * len(ids) / (batch_size * length)))):
        x = ids[rng.integers(0, len(ids) - length + 1, (batch_size, 1)) + np.arange(length)].astype(np.int32)
        # the first batches replace the initial counts gradually
        fade = 0.5 * (step + 1) ** -0.6 if step < 20 else (step + 2) ** -0.6
        counts = _update(counts, pairs, alive, x[:, 0], number[x[:, :-1], x[:, 1:]], fade)
    moves = np.zeros_like(chain.moves)
    np.add.at(moves, cells, np.asarray(counts, float) * live)
    return _Chain(moves, chain.tokens)


@jax.jit
def _update(
    counts: Float[Array, "R n n"],
    pairs: Int[Array, "2 R"],
    alive: Bool[Array, "V n"],
    first: Int[Array, " B"],
    then: Int[Array, "B M"],
    fade: Float[Array, ""] | float,
) -> Float[Array, "R n n"]:
    """An M step and an E step on a batch: tables from counts, expected counts of the batch, decaying average."""
    start, moves = _laws(counts, pairs, alive)
    _, fresh = _expected_counts(start, moves, first, then)
    return (1.0 - fade) * counts + fade * fresh / jnp.sum(fresh)


def _laws(counts, pairs, alive):
    """Marginal of each state `(V, n)` and transition probabilities, a block for each pair of tokens."""
    left = jax.ops.segment_sum(jnp.sum(counts, 2), pairs[0], alive.shape[0])
    entered = jax.ops.segment_sum(jnp.sum(counts, 1), pairs[1], alive.shape[0])
    least = FLOOR / jnp.sum(alive)
    moves = (1.0 - FLOOR) * counts / jnp.maximum(left, 1e-30)[pairs[0]][:, :, None] + least
    start = (1.0 - FLOOR) * (left + entered) / jnp.sum(left + entered) + least
    return start * alive, moves * alive[pairs[0]][:, :, None] * alive[pairs[1]][:, None, :]


def _expected_counts(start, moves, first, then):
    """`log P` of a batch, nats, and the expected count of each transition: the gradient of the former in `log moves`.

    `first (B,)` are the first tokens of the windows, `then (B, M)` the numbers of the pairs that follow.
    """

    def ahead(message, pair):
        onward = jnp.einsum("bi,bij->bj", message, moves[pair])
        total = jnp.sum(onward, axis=-1)
        return onward / total[:, None], (message, total)

    total = jnp.sum(start[first], axis=-1)
    _, (messages, totals) = jax.lax.scan(ahead, start[first] / total[:, None], then.T)

    def back(carry, now):
        behind, counts = carry
        pair, message, total = now
        block, weight = moves[pair], behind / total[:, None]
        counts = counts.at[pair].add(message[:, :, None] * block * weight[:, None, :])
        return (jnp.einsum("bij,bj->bi", block, weight), counts), None

    done = jnp.ones_like(messages[0]), jnp.zeros_like(moves)
    (_, counts), _ = jax.lax.scan(back, done, (then.T, messages, totals), reverse=True)
    return jnp.sum(jnp.log(total)) + jnp.sum(jnp.log(totals)), counts


def _tables(vocabulary: HMMVocabulary, chain: _Chain) -> HMMVocabulary:
    """The vocabulary with these tables, as logits."""
    left, entered = chain.moves.sum(1), chain.moves.sum(0)
    log = lambda law: jnp.log(jnp.asarray(law + 0.1 * FLOOR / law.shape[-1], vocabulary.transition.dtype))
    moves = chain.moves / np.maximum(left, 1e-30)[:, None]
    tokens = np.eye(vocabulary.emission.shape[1])[chain.tokens]
    tables = log((left + entered) / (left + entered).sum()), log(moves), log(tokens)
    return eqx.tree_at(lambda v: (v.initial, v.transition, v.emission), vocabulary, tables)

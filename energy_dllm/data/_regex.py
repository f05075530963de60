"""Regular expressions about text, as deterministic automata over the tokens of a tokenizer."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Integer

from ._nfa import NFA, named, parse
from ._symbols import Symbols
from ._tokenizer import AbstractTokenizer


STATES = 4096
"""Largest number of states of an automaton."""
WORK = 1_000_000
"""Largest number of states of the machine that are looked at while its sets of states are made."""
ENTRIES = 1 << 25
"""Largest number of entries of a table of states and tokens."""


@dataclasses.dataclass(frozen=True, eq=False)
class RegexDFA:
    """A deterministic automaton: which strings of tokens are accepted. It begins in state 0.

    - `next (S, V)`: the state after a state and a token; `S` where no accepted string goes on.
    - `accept (S,)`: the states in which a string may end.

    `one & another` accepts what both accept, `~one` what it does not.

    **Example:**

    ```python
    from energy_dllm.data import RegexDFA, Characters

    tokenizer = Characters("abc ")
    words = RegexDFA.of("[abc]+( [abc]+)*", tokenizer) & ~RegexDFA.of(".*bb.*", tokenizer)
    assert words(tokenizer.encode("cab abc")) and not words(tokenizer.encode("abba"))
    ```
    """

    next: Integer[np.ndarray, "S V"]
    accept: Bool[np.ndarray, " S"]

    @classmethod
    def of(cls, pattern: str, tokenizer: AbstractTokenizer) -> "RegexDFA":
        r"""The automaton of a regular expression, which has to match the whole of a string.

        It is about text, whatever the tokens are: a character may be several of them (its bytes), and a token several
        characters. Characters, `.` (any of them, line breaks too), `[a-z]`, `[^a-z]`, `\d \w \s \D \W \S` as `re` has
        them (letters of all scripts), `\n \t \r \f \v`, `\x41`, `\u0041`, groups, `|`, `?`, `*`, `+`, `{2}`, `{2,}`,
        `{2,5}`, each with a `?` behind or not.

        **Raises:** `ValueError` for a pattern that is malformed, has something else of `re` in it (it says what), names
        a character outside of the alphabet, accepts nothing at all, has groups within 50 groups, or needs more than
        4,096 states.
        """
        symbols = Symbols(tokenizer)
        made = _subsets(parse(pattern, symbols), symbols.size, named(pattern))
        if not made.accept.any():
            raise ValueError(f"{named(pattern)} accepts no string at all; loosen it.")
        return _spelt(made, symbols.spelling, named(pattern))

    @classmethod
    def without(cls, words: Sequence[str], tokenizer: AbstractTokenizer) -> "RegexDFA":
        """The automaton of all strings in which none of these words occurs, not even inside of another.

        **Raises:** `ValueError` for no words, an empty one, or characters outside of the alphabet.
        """
        if not words or not all(words) or isinstance(words, str):
            raise ValueError(f"`words` is {words!r}; expected a list of words of at least one character.")
        symbols = Symbols(tokenizer)
        arrows = [[(frozenset(range(symbols.size)), 0)]]  # a loop on anything, and a chain for each word
        final = []
        for word in words:
            state = 0
            for character in word:
                chosen = symbols.between(character, character)
                if not chosen.any():
                    raise ValueError(f"`words` has {word!r}; {character!r} is not in the alphabet of the model.")
                for ((code, _),) in symbols.shape(chosen):
                    arrows.append([])
                    arrows[state].append((code, len(arrows) - 1))
                    state = len(arrows) - 1
            final.append(state)
        found = _subsets(NFA(arrows, [[] for _ in arrows], final), symbols.size, "`words`", absorbing=True)
        return _spelt(~found, symbols.spelling, "`words`")

    def __call__(self, ids: Integer[np.ndarray, " L"]) -> bool:
        """Whether a string is accepted."""
        state = 0
        for token in np.asarray(ids).tolist():
            state = int(self.next[state, token])
            if state == len(self.accept):
                return False
        return bool(self.accept[state])

    def __and__(self, other: "RegexDFA") -> "RegexDFA":
        if self.next.shape[1] != other.next.shape[1]:
            raise ValueError(f"automata over {self.next.shape[1]} and {other.next.shape[1]} tokens; expected as many.")
        size = len(self.accept), len(other.accept)
        # tokens that lead to the same states everywhere are followed as one
        columns, kind = np.unique(np.vstack([self.next, other.next]), axis=1, return_inverse=True)
        known, queue, rows = {(0, 0): 0}, [(0, 0)], []
        for one, two in queue:
            row = []
            for pair in zip(columns[one].tolist(), columns[size[0] + two].tolist(), strict=True):
                if pair[0] == size[0] or pair[1] == size[1]:
                    row.append(-1)
                    continue
                if pair not in known:
                    known[pair] = len(queue)
                    queue.append(pair)
                row.append(known[pair])
            rows.append(row)
            _few(queue, "the two automata together")
        table = np.array(rows)
        accept = np.array([self.accept[one] and other.accept[two] for one, two in queue])
        return _minimal(np.where(table < 0, len(queue), table)[:, kind.ravel()], accept)

    def __invert__(self) -> "RegexDFA":
        # the failure becomes a state of its own
        full = np.vstack([self.next, np.full((1, self.next.shape[1]), len(self.accept))])
        return _minimal(full, np.append(~self.accept, True))

    def lengths(self, limit: int) -> list[int]:
        """The lengths up to `limit` of accepted strings."""
        none = len(self.accept)
        start, end = np.unique(np.stack([np.repeat(np.arange(none), self.next.shape[1]), self.next.ravel()]), axis=1)
        here, found = np.arange(none) == 0, []
        for n in range(limit + 1):
            if self.accept[here].any():
                found.append(n)
            there = np.zeros(none + 1, bool)
            there[end[here[start]]] = True
            here = there[:none]
        return found


def _few(states, what: str):
    if len(states) > STATES:
        raise ValueError(f"{what} needs more than {STATES:,} states; make it simpler, or its counts smaller.")


def _subsets(machine: NFA, size: int, what: str, *, absorbing: bool = False) -> RegexDFA:
    """Deterministic by sets of states; `absorbing`: once accepted, always accepted."""
    kind, members = _kinds(machine, size)
    start = machine.closure([0])
    known, queue, rows, work = {start: 0}, [start], [], 0
    final = set(machine.final)
    for here in queue:
        work += len(here)
        if work > WORK:
            raise ValueError(f"{what} takes too long to prepare; make it simpler, or its counts smaller.")
        row = np.full(int(kind.max(initial=-1)) + 1, -1)
        if absorbing and final & here:
            row[:] = known[here]
        else:
            for token, goals in _moves(machine, here, members).items():
                there = machine.closure(goals)
                if there not in known:
                    known[there] = len(queue)
                    queue.append(there)
                row[token] = known[there]
        rows.append(row)
        _few(queue, what)
    table = np.array(rows)[:, kind]
    return _minimal(np.where(table < 0, len(queue), table), np.array([bool(final & here) for here in queue]))


def _kinds(machine, size):
    """The kind of every symbol, those in the same sets being of one; and the kinds in each set."""
    sets = list({chosen for arrows in machine.arrows for chosen, _ in arrows})
    inside = np.zeros((len(sets) + 1, size), bool)
    for row, chosen in zip(inside, sets, strict=False):
        row[list(chosen)] = True
    kinds, kind = np.unique(inside, axis=1, return_inverse=True)
    return kind.ravel(), {chosen: np.flatnonzero(row).tolist() for chosen, row in zip(sets, kinds, strict=False)}


def _moves(machine, here, members):
    moves: dict[int, list[int]] = {}
    for state in here:
        for chosen, goal in machine.arrows[state]:
            for kind in members[chosen]:
                moves.setdefault(kind, []).append(goal)
    return moves


def _spelt(made: RegexDFA, spelling: Sequence[Sequence[int]], what: str) -> RegexDFA:
    """Over tokens, each of which is read symbol by symbol; one that is no text is never accepted."""
    if all(symbols == [n] for n, symbols in enumerate(spelling)):
        return made
    none = len(made.accept)
    if none * len(spelling) > ENTRIES:
        raise ValueError(
            f"{what} needs a table of {none:,} states and {len(spelling):,} tokens, {4e-9 * none * len(spelling):.1f} "
            f"GB; expected at most {4e-9 * ENTRIES:.1f} GB, so make it simpler."
        )
    step = np.vstack([made.next, np.full(made.next.shape[1], none)])
    columns = np.full((none, len(spelling)), none)
    for token, symbols in enumerate(spelling):
        if symbols:
            columns[:, token] = functools.reduce(lambda state, n: step[state, n], symbols, np.arange(none))
    return _minimal(columns, made.accept)


def _minimal(table: np.ndarray, accept: np.ndarray) -> RegexDFA:
    """States from which nothing is accepted become the failure, states with the same future one."""
    size = len(accept)
    table = np.vstack([table, np.full((1, table.shape[1]), size)])[: size + 1]
    accept = np.append(accept, False)
    columns, kind = np.unique(table, axis=1, return_inverse=True)
    part = _futures(columns, accept)
    # numbered from the start, the dead part (that of the failure) last
    dead = part[-1]
    order, queue = {int(part[0]): 0}, [0]
    if part[0] == dead:
        return RegexDFA(np.full((1, table.shape[1]), 1), np.array([False]))
    first = {int(p): int(n) for n, p in reversed(list(enumerate(part.tolist())))}
    rows = []
    for state in queue:
        for p in part[columns[state]].tolist():
            if p != dead and p not in order:
                order[p] = len(queue)
                queue.append(first[p])
        rows.append(part[columns[state]])
    number = np.full(int(part.max()) + 1, len(queue))
    for p, n in order.items():
        number[p] = n
    return RegexDFA(number[np.array(rows)][:, kind.ravel()], accept[np.array(queue)])


def _futures(table: np.ndarray, accept: np.ndarray) -> np.ndarray:
    """The number of the part of each state: two are in one if they accept the same (Moore's refinement).

    Rows are told apart by a random sum of their entries; where two should have had the same by chance, rows
    themselves are compared.
    """
    draw = np.random.default_rng(0).integers(1 << 63, size=table.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(
        1
    )
    start = accept.astype(np.int64)
    for exact in (False, True):
        part = start
        while True:
            rows = part[table]
            if exact:
                _, finer = np.unique(np.column_stack([part, rows]), axis=0, return_inverse=True)
            else:
                sums = rows.astype(np.uint64) @ draw + part.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
                _, finer = np.unique(sums, return_inverse=True)
            finer = finer.ravel()
            if finer.max() == part.max():
                break
            part = finer
        _, example = np.unique(part, return_index=True)
        if (part[table] == part[table][example[part]]).all() and (accept == accept[example[part]]).all():
            break
    return part

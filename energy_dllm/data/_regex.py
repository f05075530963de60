"""Regular expressions as deterministic automata over the symbols of a tokenizer."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Integer

from ._nfa import NFA, Tokens, parse
from ._tokenizer import AbstractTokenizer


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

        Characters, `.` (any symbol, line breaks too), `[a-z]`, `[^a-z]`, `\d \w \s \D \W \S`, `\n`, `\t`, groups, `|`,
        `?`, `*`, `+`, `{2}`, `{2,}`, `{2,5}`.

        **Raises:** `ValueError` for a pattern that is malformed, names a character outside of the alphabet, accepts
        nothing at all, or needs more than 4,096 states.
        """
        made = _subsets(parse(pattern, tokenizer), tokenizer.size)
        if not made.accept.any():
            raise ValueError(f"`pattern` {pattern!r} accepts no string at all; loosen it.")
        return made

    @classmethod
    def without(cls, words: Sequence[str], tokenizer: AbstractTokenizer) -> "RegexDFA":
        """The automaton of all strings in which none of these words occurs, not even inside of another.

        **Raises:** `ValueError` for no words, an empty one, or characters outside of the alphabet.
        """
        if not words or not all(words) or isinstance(words, str):
            raise ValueError(f"`words` is {words!r}; expected a list of words of at least one character.")
        ids = [tokenizer.encode(word).tolist() for word in words]
        arrows: list[list[tuple[Tokens, int]]] = [[(None, 0)]]  # a loop on anything, and a chain for each word
        final = []
        for word in ids:
            state = 0
            for token in word:
                arrows.append([])
                arrows[state].append((frozenset([token]), len(arrows) - 1))
                state = len(arrows) - 1
            final.append(state)
        return ~_subsets(NFA(arrows, [[] for _ in arrows], final), tokenizer.size, absorbing=True)

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
        known, queue, rows = {(0, 0): 0}, [(0, 0)], []
        for one, two in queue:
            row = []
            for pair in zip(self.next[one].tolist(), other.next[two].tolist(), strict=True):
                if pair[0] == size[0] or pair[1] == size[1]:
                    row.append(-1)
                    continue
                if pair not in known:
                    known[pair] = len(queue)
                    queue.append(pair)
                row.append(known[pair])
            rows.append(row)
            _few(queue)
        table = np.array(rows)
        accept = np.array([self.accept[one] and other.accept[two] for one, two in queue])
        return _minimal(np.where(table < 0, len(queue), table), accept)

    def __invert__(self) -> "RegexDFA":
        # the failure becomes a state of its own
        full = np.vstack([self.next, np.full((1, self.next.shape[1]), len(self.accept))])
        return _minimal(full, np.append(~self.accept, True))

    def lengths(self, limit: int) -> list[int]:
        """The lengths up to `limit` of accepted strings."""
        here, found = {0}, []
        for n in range(limit + 1):
            if any(self.accept[state] for state in here):
                found.append(n)
            here = {int(state) for row in here for state in set(self.next[row].tolist())} - {len(self.accept)}
        return found


def _few(states):
    if len(states) > 4096:
        raise ValueError("`pattern` needs more than 4,096 states; make it simpler, or its counts smaller.")


def _subsets(machine: NFA, size: int, *, absorbing: bool = False) -> RegexDFA:
    """Deterministic by sets of states; `absorbing`: once accepted, always accepted."""
    start = machine.closure([0])
    known, queue, rows = {start: 0}, [start], []
    final = set(machine.final)
    for here in queue:
        row = np.full(size, -1)
        for token, goals in _moves(machine, here, size).items():
            there = machine.closure(goals)
            if there not in known:
                known[there] = len(queue)
                queue.append(there)
            row[token] = known[there]
        if absorbing and final & here:
            row[:] = known[here]
        rows.append(row)
        _few(queue)
    table = np.array(rows)
    return _minimal(np.where(table < 0, len(queue), table), np.array([bool(final & here) for here in queue]))


def _moves(machine, here, size):
    moves: dict[int, list[int]] = {}
    for state in here:
        for tokens, goal in machine.arrows[state]:
            for token in range(size) if tokens is None else tokens:
                moves.setdefault(token, []).append(goal)
    return moves


def _minimal(table: np.ndarray, accept: np.ndarray) -> RegexDFA:
    """States from which nothing is accepted become the failure, states with the same future one."""
    size = len(accept)
    if len(table) == size:
        table = np.vstack([table, np.full((1, table.shape[1]), size)])
    accept = np.append(accept, False)[: len(table)]
    part = accept.astype(np.int64)
    while True:
        _, finer = np.unique(np.column_stack([part, part[table]]), axis=0, return_inverse=True)
        finer = finer.ravel()
        if finer.max() == part.max():
            break
        part = finer
    # numbered from the start, the dead part (that of the failure) last
    dead = part[-1]
    order, queue = {int(part[0]): 0}, [0]
    if part[0] == dead:
        return RegexDFA(np.full((1, table.shape[1]), 1), np.array([False]))
    first = {int(p): int(n) for n, p in reversed(list(enumerate(part.tolist())))}
    rows = []
    for state in queue:
        for p in part[table[state]].tolist():
            if p != dead and p not in order:
                order[p] = len(queue)
                queue.append(first[p])
        rows.append(part[table[state]])
    number = np.full(int(part.max()) + 1, len(queue))
    for p, n in order.items():
        number[p] = n
    return RegexDFA(number[np.array(rows)], accept[np.array(queue)])

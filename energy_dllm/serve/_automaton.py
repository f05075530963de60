"""Patterns about a part of a passage: which tokens they leave open, and the most likely tokens that they accept."""

import collections
import functools
import threading
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Integer

from .._checks import on_device
from ..data import AbstractTokenizer, RegexDFA
from ..energy import DFA
from ..flow import FORBIDDEN


BREAK = "\n"
"""What ends a structured answer: the text behind it is free, and cut away."""
LONGEST = 20_000
"""Characters of a pattern, at most."""
KEPT = 64 << 20
"""Bytes of the automata that are kept for later requests."""
STATES = (64, 1024)
"""Of automata from left to right, a program each; those of more are about a passage as a whole."""
TABLE = 2**20
"""States times tokens of an automaton from left to right, at most."""
LARGEST = 2**14
"""States times kinds of tokens of an automaton that is part of the energy of a passage as a whole, at most."""
_kept_ones: collections.OrderedDict[tuple[object, ...], RegexDFA] = collections.OrderedDict()
_lock = threading.Lock()


def _kept(make: Callable[..., RegexDFA]) -> Callable[..., RegexDFA]:
    """A function whose values are kept, as many as fit of those that were asked for last."""

    @functools.wraps(make)
    def found(*asked: object) -> RegexDFA:
        key = make.__name__, *asked
        with _lock:
            if key in _kept_ones:
                _kept_ones.move_to_end(key)
                return _kept_ones[key]
        made = make(*asked)
        made = RegexDFA(made.next.astype(np.int32), made.accept)
        with _lock:
            if made.next.nbytes <= KEPT:
                _kept_ones[key] = made
            while sum(each.next.nbytes for each in _kept_ones.values()) > KEPT:
                _kept_ones.popitem(last=False)
        return made

    return found


@_kept
def line_of(pattern: str, tokenizer: AbstractTokenizer) -> RegexDFA:
    """One line that matches the pattern, then nothing, or a line break and any text.

    **Raises:** `ValueError` if the pattern is too long or malformed, matches no single line, or the alphabet has no
    line break.
    """
    if len(pattern) > LONGEST:
        raise ValueError(
            f"`pattern` has {len(pattern):,} characters; expected at most {LONGEST:,}, so make it simpler."
        )
    try:
        (end,) = tokenizer.encode(BREAK)
        lines = RegexDFA.of(r"[^\n]*", tokenizer)
    except ValueError:
        raise ValueError(
            "`response_format` needs a model whose alphabet has a line break, which ends a structured answer; use "
            "/v1/infill with `match`, which is about the whole text."
        ) from None
    made = RegexDFA.of(pattern, tokenizer) & lines
    if not made.accept.any():
        raise ValueError(
            f"`pattern` {pattern[:80]!r} matches no text of one line; a line break ends a structured answer."
        )
    size, tokens = made.next.shape
    # the state after the last line accepts everything; the failure is numbered after it
    table = np.where(made.next == size, size + 1, made.next)
    table = np.vstack([table, np.full((1, tokens), size)])
    table[:-1, end] = np.where(made.accept, size, size + 1)
    return RegexDFA(table, np.append(made.accept, True))


@_kept
def matching(pattern: str, tokenizer: AbstractTokenizer) -> RegexDFA:
    """The automaton of a pattern about a whole text."""
    return RegexDFA.of(pattern, tokenizer)


@_kept
def avoiding(words: tuple[str, ...], tokenizer: AbstractTokenizer) -> RegexDFA:
    """The automaton of texts without these words."""
    return RegexDFA.without(list(words), tokenizer)


def states_of(count: int, size: int) -> int | None:
    """As many states as a program has for an automaton from left to right, and for failure; none for too many."""
    return next((states for states in STATES if states > count and states * size <= TABLE), None)


class Strict:
    """An automaton about the places `begin` to `end` of a passage, given which tokens are allowed there.

    **Arguments:**

    - `automaton`: what the text at these places has to match.
    - `begin`, `end`: where it begins and ends.
    - `allowed`: which tokens all other evidence leaves open `(L, V)`.
    - `what`: its name in the error.

    **Raises:** `ValueError` if no text is accepted.
    """

    def __init__(self, automaton: RegexDFA, begin: int, end: int, allowed: Bool[np.ndarray, "L V"], what: str):
        self.automaton, self.next, self.begin, self.end = automaton, automaton.next, begin, end
        # the states from which acceptance can still be reached, the failure being the last
        self.reach = np.zeros((len(allowed) + 1, len(automaton.accept) + 1), bool)
        self.reach[end, :-1] = automaton.accept
        for place in range(end - 1, begin - 1, -1):
            self.reach[place, :-1] = (allowed[place] & self.reach[place + 1][self.next]).any(axis=-1)
        if not self.reach[begin, 0]:
            raise ValueError(
                f"{what} cannot be matched by {end - begin} tokens with what is given; change one of them."
            )

    def dfa(self, length: int) -> DFA | None:
        """On the device, about its places of a passage of this length; none if it is too large."""
        if len(self.automaton.accept) > LARGEST // 4:
            return None
        made, here = DFA.of(self.automaton, base=4), np.arange(length)
        within = on_device((self.begin <= here) & (here < self.end))
        return made.within(within) if made.moves.size <= LARGEST else None

    def follow(self, state: int, token: int, place: int) -> int | None:
        """The state after a token, if acceptance can be reached from there."""
        if not self.begin <= place < self.end:
            return state
        after = int(self.next[state, token])
        return after if self.reach[place + 1, after] else None

    def open(self, allowed: Bool[np.ndarray, "L V"], state: int = 0, place: int = 0) -> Bool[np.ndarray, "L V"]:
        """Which tokens some accepted text has, from a state before `place` on."""
        open, size = allowed.copy(), len(self.reach[0])
        here = np.arange(size - 1) == state
        for i in range(max(place, self.begin), self.end):
            row = allowed[i] & here[:, None] & self.reach[i + 1][self.next]
            open[i] = row.any(axis=0)
            there = np.zeros(size, bool)
            there[self.next[row]] = True
            here = there[:-1]
        return open

    def ahead(self, log_p: Float[np.ndarray, "L V"]) -> Float[np.ndarray, "places states"]:
        """`log sum exp(sum_(j >= i) log_p_j(x_j))` over all that may follow at place `i` in every state for the text to
        be accepted; `FORBIDDEN` where nothing may. `DFA.ahead` of the places of this part; before and behind it 0."""
        found = np.zeros((len(log_p) + 1, self.reach.shape[1] - 1))
        found[self.end] = np.where(self.reach[self.end, :-1], 0.0, FORBIDDEN)
        for place in range(self.end - 1, self.begin - 1, -1):
            after = np.append(found[place + 1], FORBIDDEN)
            rows = np.logaddexp.reduce(log_p[place] + after[self.next], axis=-1)
            found[place] = np.where(self.reach[place, :-1], rows, FORBIDDEN)
        return found

    def best(self, log_p: Float[np.ndarray, "L V"]) -> Integer[np.ndarray, " n"]:
        """The accepted text of the highest `sum_i log p_i`, by the backward pass of the Viterbi algorithm."""
        after = np.where(self.reach[self.end], 0.0, -np.inf)
        backward = [after]
        for place in range(self.end - 1, self.begin - 1, -1):
            values = (log_p[place] + after[self.next]).max(axis=-1)
            after = np.where(self.reach[place], np.append(values, -np.inf), -np.inf)
            backward.append(after)
        state, ids = 0, []
        for place, after in zip(range(self.begin, self.end), backward[-2::-1], strict=True):
            ids.append(int(np.argmax(log_p[place] + after[self.next[state]])))
            state = int(self.next[state, ids[-1]])
        return np.array(ids, np.int32)

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Integer

from ._automaton import Beliefs, beliefs, check, entropies, minimal, slot_visits, spell_out
from ._corpus import Corpus
from ._english import english
from ._tokenizer import Characters
from ._windows import check_seed


class Grammar:
    """A source of text whose entropy is known exactly.

    Slots are followed by words drawn independently, words by slots. Written out character by character this
    is a unifilar automaton: state `s` and next character `c` decide the next state `T(s, c)`, with
    probability `P(c | s)`. Its stationary law `pi` gives the entropy rate in closed form,

        h = - sum_s pi(s) sum_c P(c | s) log P(c | s)   nats per character,

    and, because a window cut at a random place begins in state `s` with probability `pi(s)`, the exact
    probability of every window. All entropies and log-probabilities are in nats.

    **Arguments:**

    - `rules`: for each slot its continuations `(string, weight, next slot)`; no string of a slot may begin
      another one of that slot, and every slot must lead to every other. By default small English with number
      agreement, 29 symbols.

    **Raises:** `ValueError` if the rules do not make such an automaton.

    **Example:**
    ```python
    from energy_dllm.data import Grammar

    coin = Grammar({"toss": [("a", 1, "toss"), ("b", 1, "toss")]})
    assert abs(coin.entropy_rate() - 0.6931) < 1e-4 and coin.accepts("abba")
    ```

    **Source:** Shannon 1948, section 7; Crutchfield & Feldman 2003, arXiv:cond-mat/0102181 (window
    entropies).
    """

    def __init__(self, rules: Mapping[str, Sequence[tuple[str, float, str]]] | None = None):
        rules = english() if rules is None else rules
        check(rules)
        self.rules: dict[str, list[tuple[str, float, str]]] = {}
        for slot, entries in rules.items():
            total = math.fsum(weight for _, weight, _ in entries)
            self.rules[slot] = [(word, weight / total, goal) for word, weight, goal in entries]
        words = (word for entries in self.rules.values() for word, _, _ in entries)
        self.alphabet = "".join(sorted(set().union(*words)))
        self._visits = slot_visits(self.rules)
        self._automaton = minimal(*spell_out(self.rules, self.alphabet, self._visits))
        self._beliefs: Beliefs | None = None

    @property
    def tokenizer(self) -> Characters:
        """One id for each character the grammar writes."""
        return Characters(self.alphabet)

    @property
    def states(self) -> int:
        """Number of states of the smallest automaton."""
        return len(self._automaton.pi)

    def stationary(self) -> Float[np.ndarray, " V"]:
        """How often each character occurs in the long run: `sum_s pi(s) P(c | s)`."""
        return self._automaton.pi @ self._automaton.prob

    def entropy_rate(self) -> float:
        """Nats per character of the endless stream, `sum_s pi(s) H(next character | s)`."""
        return float(self._automaton.pi @ entropies(self._automaton.prob))

    def window_entropy(self, length: int, *, limit: int = 100_000) -> float:
        """Exact `H(X_1..X_length) / length` of a window cut at a random place, nats per character.

        No model can have a smaller expected negative log-likelihood per character on such windows. It sums
        `H(X_t | X_1..X_(t-1))` over the law of the belief about the state; equal beliefs are merged.

        **Arguments:**

        - `length`: characters of a window.
        - `limit`: most beliefs to follow.

        **Raises:** `ValueError` if there are more beliefs than `limit`; then average `-log_probability` over
        windows.
        """
        if length < 1:
            raise ValueError(f"`length` must be an integer of at least 1, got {length!r}.")
        if self._beliefs is None:
            self._beliefs = beliefs(self._automaton, limit)
        law = np.zeros(len(self._beliefs.entropy))
        law[0] = 1.0
        total = 0.0
        for _ in range(length):
            total += float(law @ self._beliefs.entropy)
            law = self._beliefs.advance(law)
        return total / length

    def log_probability(self, ids: Integer[np.ndarray, " L"]) -> float:
        """Exact log-probability of a window cut at a random place of the stream; `-inf` if it cannot occur.

            log sum_s pi(s) prod_t P(x_t | s_(t-1))

        **Arguments:**

        - `ids (L,)`: characters, as ids of `tokenizer`.

        **Returns:** nats, of the whole window.
        """
        ids = np.asarray(ids)
        if ids.ndim != 1 or (ids.size and (ids.min() < 0 or ids.max() >= len(self.alphabet))):
            raise ValueError(
                f"`ids` must be one window of ids in 0..{len(self.alphabet) - 1}, got shape {ids.shape}; "
                "encode text with the grammar's own `tokenizer`."
            )
        belief, total = self._automaton.pi, 0.0
        for character in ids.tolist():
            belief = self._automaton.advance(belief, character)
            mass = float(belief.sum())
            if mass == 0.0:
                return -math.inf
            belief /= mass
            total += math.log(mass)
        return total

    def accepts(self, text: str) -> bool:
        """Whether a fragment of text can occur anywhere in the stream."""
        if not set(text) <= set(self.alphabet):
            return False
        return self.log_probability(self.tokenizer.encode(text)) > -math.inf

    def posterior(self, evidence: Float[np.ndarray, "L V"]) -> Float[np.ndarray, "L V"]:
        """The exact posterior of each character of a window under evidence about all of them.

        The best any denoiser can do: `p_iw = P(X_i = w | b)` where `P(X_1..X_L | b)` is proportional to
        `P(X_1..X_L) exp(sum_i b_i(X_i))`, by one pass forward and one backward.

        **Arguments:**

        - `evidence (L, V)`: log-likelihoods `b`; 0 for an unknown character, `-inf` for an excluded one.

        **Returns:** `p (L, V)`, rows sum to 1.

        **Raises:** `ValueError` if no text of the grammar agrees with the evidence.
        """
        evidence = np.asarray(evidence, float)
        if evidence.ndim != 2 or evidence.shape[1] != len(self.alphabet):
            raise ValueError(f"`evidence` must have shape (L, {len(self.alphabet)}), got {evidence.shape}.")
        peak = evidence.max(1, keepdims=True)
        likelihood = np.exp(evidence - np.where(np.isfinite(peak), peak, 0.0))
        machine = self._automaton
        behind = [np.ones(self.states)]
        for row in likelihood[:0:-1]:
            ahead = (machine.prob * row * behind[-1][machine.next]).sum(1)
            behind.append(ahead / max(float(ahead.sum()), 1e-300))
        belief, p = machine.pi, np.empty_like(evidence)
        for i, row in enumerate(likelihood):
            arrivals = belief[:, None] * machine.prob * row
            p[i] = (arrivals * behind[-1 - i][machine.next]).sum(0)
            if p[i].sum() == 0.0:
                raise ValueError(f"`evidence` excludes every text of the grammar, seen at position {i}; loosen it.")
            belief = np.bincount(machine.next.ravel(), weights=arrivals.ravel(), minlength=self.states)
            belief /= belief.sum()
        return p / p.sum(1, keepdims=True)

    def sample(self, characters: int, seed: int = 0) -> str:
        """Text of the stream, cut at a random place (so it may begin inside a word).

        **Arguments:**

        - `characters`: how many.
        - `seed`: which text.
        """
        if characters < 1:
            raise ValueError(f"`characters` must be an integer of at least 1, got {characters!r}.")
        check_seed(seed)
        uniform = _uniforms(seed)
        # A random place lies in a word with probability proportional to its length.
        places: list[tuple[str, str, float]] = []
        laws: dict[str, list[float]] = {}
        for (slot, entries), visits in zip(self.rules.items(), self._visits, strict=True):
            places += [(word, goal, visits * p * len(word)) for word, p, goal in entries]
            laws[slot] = list(itertools.accumulate(p for _, p, _ in entries))
        word, slot, _ = places[_draw(list(itertools.accumulate(share for *_, share in places)), next(uniform))]
        pieces = [word[int(next(uniform) * len(word)) :]]
        written = len(pieces[0])
        while written < characters:
            word, _, slot = self.rules[slot][_draw(laws[slot], next(uniform))]
            pieces.append(word)
            written += len(word)
        return "".join(pieces)[:characters]


def grammar_corpus(*, characters: int = 1_000_000, seed: int = 0, grammar: Grammar | None = None) -> Corpus:
    """Text of a `Grammar`, with its exact entropy rate.

    **Arguments:**

    - `characters`: length of the training text; validation and test are a tenth of it each.
    - `seed`: which text.
    - `grammar`: the source; by default small English.

    **Returns:** a `Corpus` whose `entropy` is the entropy rate; for windows compare with
    `Grammar.window_entropy`.

    **Raises:** `ValueError` if `characters` is below 10.

    **Example:**
    ```python
    from energy_dllm.data import grammar_corpus

    corpus = grammar_corpus(characters=5_000)
    assert 0.5 < corpus.entropy < 1.0 and corpus.tokenizer.size == 29
    ```
    """
    if characters < 10:
        raise ValueError(f"`characters` must be an integer of at least 10, got {characters!r}.")
    grammar = Grammar() if grammar is None else grammar
    held = characters // 10
    ids = grammar.tokenizer.encode(grammar.sample(characters + 2 * held, seed))
    ids = ids.astype(np.min_scalar_type(len(grammar.alphabet) - 1))
    train, validation, test = np.split(ids, [characters, characters + held])
    return Corpus("grammar", grammar.tokenizer, train, validation, test, grammar.entropy_rate())


def _uniforms(seed: int) -> Iterator[float]:
    generator = np.random.Generator(np.random.Philox(key=seed))
    while True:
        yield from generator.random(4096).tolist()


def _draw(cumulative: list[float], uniform: float) -> int:
    return min(bisect_right(cumulative, uniform * cumulative[-1]), len(cumulative) - 1)

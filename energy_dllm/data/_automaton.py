import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Integer


Rules = Mapping[str, Sequence[tuple[str, float, str]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Automaton:
    """Unifilar: state and character decide the next state. Where `prob` is 0, `next` means nothing.

    `S` states, `V` characters; `next (S, V)`, `prob (S, V)` with rows that sum to 1, `pi (S,)` the stationary
    law.
    """

    next: Integer[np.ndarray, "S V"]
    prob: Float[np.ndarray, "S V"]
    pi: Float[np.ndarray, " S"]

    def advance(self, belief: Float[np.ndarray, " S"], character: int) -> Float[np.ndarray, " S"]:
        """The belief about the state after one more character, not normalised: its sum is the probability."""
        mass = belief * self.prob[:, character]
        return np.bincount(self.next[:, character], weights=mass, minlength=len(self.pi))


@dataclasses.dataclass(frozen=True, eq=False)
class Beliefs:
    """What a reader of a window can know: a Markov chain on beliefs, number 0 before the first character."""

    source: Integer[np.ndarray, " edges"]
    target: Integer[np.ndarray, " edges"]
    weight: Float[np.ndarray, " edges"]
    entropy: Float[np.ndarray, " beliefs"]

    def advance(self, law: Float[np.ndarray, " beliefs"]) -> Float[np.ndarray, " beliefs"]:
        return np.bincount(self.target, weights=law[self.source] * self.weight, minlength=len(law))


def check(rules: Rules) -> None:
    if not rules:
        raise ValueError("`rules` is empty, expected at least one slot.")
    for slot, entries in rules.items():
        if not entries:
            raise ValueError(f"`rules` gives slot {slot!r} no continuation, expected at least one.")
        for word, weight, goal in entries:
            if not word or not 0 < weight < math.inf or goal not in rules:
                raise ValueError(
                    f"`rules` has {(word, weight, goal)!r} in slot {slot!r}, expected a non-empty string, "
                    f"a positive weight and one of the {len(rules)} slots."
                )
        words = sorted(word for word, _, _ in entries)
        for word, longer in zip(words, words[1:], strict=False):
            if longer.startswith(word):
                raise ValueError(
                    f"`rules` has {word!r} and {longer!r} in slot {slot!r}, "
                    "but no string of a slot may begin another; end words with a space or a period."
                )
    first = next(iter(rules))
    backward = {slot: [s for s in rules if any(g == slot for *_, g in rules[s])] for slot in rules}
    forward = {slot: [goal for *_, goal in entries] for slot, entries in rules.items()}
    for arrows, fault in ((forward, "cannot be reached from"), (backward, "never leads back to")):
        seen, stack = {first}, [first]
        while stack:
            fresh = set(arrows[stack.pop()]) - seen
            seen |= fresh
            stack += fresh
        for slot in rules:
            if slot not in seen:
                raise ValueError(
                    f"`rules` has slot {slot!r} that {fault} {first!r}; every slot must lead to every other."
                )


def slot_visits(rules: Rules) -> np.ndarray:
    slots = {slot: i for i, slot in enumerate(rules)}
    jump = np.zeros((len(slots), len(slots)))
    for slot, entries in rules.items():
        for _, p, goal in entries:
            jump[slots[slot], slots[goal]] += p
    # nu (jump - 1) = 0 with sum nu = 1; the rank is full because every slot leads to every other.
    system = np.vstack([jump.T - np.eye(len(slots)), np.ones(len(slots))])
    return np.linalg.lstsq(system, np.append(np.zeros(len(slots)), 1.0), rcond=None)[0]


def spell_out(rules: Rules, alphabet: str, visits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Next states, probabilities and stationary law of the trie of the words of every slot."""
    index: dict[tuple[str, str], int] = {}
    for slot, entries in rules.items():
        for word, _, _ in entries:
            for k in range(len(word)):
                index.setdefault((slot, word[:k]), len(index))
    column = {c: i for i, c in enumerate(alphabet)}
    following = np.zeros((len(index), len(column)), np.int64)
    mass = np.zeros((len(index), len(column)))
    for slot, entries in rules.items():
        for word, p, goal in entries:
            for k, c in enumerate(word):
                state = index[slot, word[:k]]
                following[state, column[c]] = index.get((slot, word[: k + 1]), index[goal, ""])
                mass[state, column[c]] += p
    reach = mass.sum(1)
    share = dict(zip(rules, visits, strict=True))
    pi = reach * np.array([share[slot] for slot, _ in index])
    return following, mass / reach[:, None], pi / pi.sum()


def minimal(following: np.ndarray, prob: np.ndarray, pi: np.ndarray) -> Automaton:
    """Merge states with the same future (partition refinement)."""
    part = np.zeros(len(pi), np.int64)
    while True:
        future = np.hstack([np.round(prob, 12), np.where(prob > 0, part[following], -1)])
        _, first, finer = np.unique(future, axis=0, return_index=True, return_inverse=True)
        finer = finer.ravel()
        if finer.max() == part.max():
            # This round split nothing, so any member represents its part.
            return Automaton(finer[following[first]], prob[first], np.bincount(finer, weights=pi))
        part = finer


def beliefs(automaton: Automaton, limit: int) -> Beliefs:
    """Follow every window from the stationary law until no new belief appears."""
    known = {_key(automaton.pi): 0}
    queue = [automaton.pi]
    edges: list[tuple[int, int, float]] = []
    entropy: list[float] = []
    while len(entropy) < len(queue):
        here = len(entropy)
        law = queue[here] @ automaton.prob
        entropy.append(float(entropies(law)))
        for character in np.flatnonzero(law).tolist():
            after = automaton.advance(queue[here], character)
            after /= after.sum()
            there = known.setdefault(_key(after), len(queue))
            if there == len(queue):
                queue.append(after)
            edges.append((here, there, float(law[character])))
        if len(queue) > limit:
            raise ValueError(
                f"`limit` of {limit} beliefs is too small for this grammar; raise it, "
                "or average `-log_probability` over many windows."
            )
    source, target, weight = (np.array(column) for column in zip(*edges, strict=True))
    return Beliefs(source, target, weight, np.array(entropy))


def entropies(law: np.ndarray) -> np.ndarray:
    """Nats of each row."""
    return np.asarray(-(law * np.log(np.where(law > 0, law, 1.0))).sum(-1))


def _key(belief: np.ndarray) -> bytes:
    # Beliefs reached on different ways differ by rounding; 1e-10 is far below any difference that matters.
    support = np.flatnonzero(belief)
    return support.tobytes() + np.round(belief[support], 10).tobytes()

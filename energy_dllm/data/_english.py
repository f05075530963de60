"""The default rules of `Grammar`: small English with number agreement.

A rule set maps a slot to its continuations `(string, weight, next slot)`. Words carry the space or period
that ends them, which makes every slot prefix-free and so the source unifilar: the characters read so far
decide the state.
"""

from collections.abc import Callable


Rules = dict[str, list[tuple[str, float, str]]]

# Weights fall slowly with rank: many likely words in few characters give a high entropy rate.
_NOUNS = (
    ("cat", "cats", 6),
    ("king", "kings", 6),
    ("fox", "foxes", 6),
    ("bird", "birds", 6),
    ("dog", "dogs", 6),
    ("man", "men", 6),
    ("boy", "boys", 5),
    ("wolf", "wolves", 5),
    ("queen", "queens", 5),
    ("mouse", "mice", 5),
    ("owl", "owls", 5),
    ("girl", "girls", 5),
    ("tree", "trees", 5),
    ("ship", "ships", 4),
    ("bee", "bees", 4),
    ("pig", "pigs", 4),
    ("ant", "ants", 4),
    ("hen", "hens", 4),
    ("child", "children", 4),
    ("judge", "judges", 3),
    ("river", "rivers", 3),
    ("wizard", "wizards", 3),
)
_ADJECTIVES = {
    "old": 6, "red": 6, "big": 6, "shy": 6, "mad": 5, "wet": 5, "dark": 5, "tiny": 5, "quick": 4, "happy": 4,
    "brave": 3, "lazy": 3,
}  # fmt: skip
_DETERMINERS = {
    "one": {"the": 6, "my": 5, "this": 4, "every": 3, "one": 4, "her": 4},
    "many": {"the": 5, "my": 4, "two": 5, "some": 4, "her": 3},
}
_TRANSITIVE = {
    "see": 6, "like": 6, "fear": 5, "know": 5, "meet": 5, "help": 5, "paint": 4, "follow": 3, "visit": 3,
}  # fmt: skip
_INTRANSITIVE = {"run": 5, "sing": 5, "sleep": 4, "wait": 4, "jump": 3}
_ADVERBS = {"now": 5, "again": 4, "here": 4, "often": 4, "slowly": 3, "quietly": 2}
_ADJECTIVE_SHARE = 0.3


def english() -> Rules:
    """Sentences such as `the old king sees two red birds.`, joined by `and`, broken into lines."""
    rules: Rules = {
        "sentence": _determiners("subject"),
        "object": _determiners("object"),
        "break": [(" ", 5, "sentence"), ("\n", 1, "sentence")],
        "after": [
            *((f"{word}.", weight, "break") for word, weight in _ADVERBS.items()),
            ("and ", 8, "sentence"),
        ],
    }
    verb = lambda noun, number, share: [(f"{noun} ", share, f"verb {number}")]
    end = lambda noun, number, share: _closing(noun, share)
    for role, then in (("subject", verb), ("object", end)):
        rules[f"{role} one"] = _noun_phrase(role, ("one",), then)
        rules[f"{role} many"] = _noun_phrase(role, ("many",), then)
        rules[f"{role} any"] = _noun_phrase(role, ("one", "many"), then)
    for number, ending in (("one", "s"), ("many", "")):
        verbs = [(f"{verb}{ending} ", 3.0 * weight, "object") for verb, weight in _TRANSITIVE.items()]
        for verb, weight in _INTRANSITIVE.items():
            verbs += _closing(verb + ending, weight)
        rules[f"verb {number}"] = verbs
    return rules


def _determiners(role: str) -> list[tuple[str, float, str]]:
    weights: dict[str, float] = {}
    goals: dict[str, str] = {}
    for number, words in _DETERMINERS.items():
        for word, weight in words.items():
            goals[word] = f"{role} any" if word in weights else f"{role} {number}"
            weights[word] = weights.get(word, 0) + weight
    return [(f"{word} ", weight, goals[word]) for word, weight in weights.items()]


def _noun_phrase(
    role: str, numbers: tuple[str, ...], then: Callable[[str, str, float], list[tuple[str, float, str]]]
) -> list[tuple[str, float, str]]:
    """Any number of adjectives, then a noun, and what follows it: a verb remembers the number until it has agreed."""
    total = sum(_ADJECTIVES.values())
    own = f"{role} {numbers[0] if len(numbers) == 1 else 'any'}"
    phrase = [(f"{word} ", _ADJECTIVE_SHARE * weight / total, own) for word, weight in _ADJECTIVES.items()]
    total = sum(weight for _, _, weight in _NOUNS) * len(numbers)
    for number in numbers:
        for singular, plural, weight in _NOUNS:
            noun = singular if number == "one" else plural
            share = (1 - _ADJECTIVE_SHARE) * weight / total
            phrase += then(noun, number, share)
    return phrase


def _closing(word: str, weight: float) -> list[tuple[str, float, str]]:
    return [(f"{word}.", 0.6 * weight, "break"), (f"{word} ", 0.4 * weight, "after")]

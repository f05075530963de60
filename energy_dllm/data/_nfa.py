"""A small parser of regular expressions: text to a machine with several arrows a symbol and free arrows."""

import dataclasses
import re

import numpy as np
from jaxtyping import Bool

from ._symbols import END, Shape, Symbols


STATES = 20_000
"""Largest number of states of a machine."""
DEPTH = 50
"""Groups within groups."""


@dataclasses.dataclass(frozen=True)
class NFA:
    """A nondeterministic automaton that begins in state 0: arrows by symbol, free arrows, where it may end."""

    arrows: list[list[tuple[frozenset[int], int]]]
    free: list[list[int]]
    final: list[int]

    def closure(self, states) -> frozenset[int]:
        """These states and all that free arrows lead to."""
        seen, stack = set(states), list(states)
        while stack:
            for goal in self.free[stack.pop()]:
                if goal not in seen:
                    seen.add(goal)
                    stack.append(goal)
        return frozenset(seen)


def _word(c: str) -> bool:
    return c.isalnum() or c == "_"


def _any(c: str) -> bool:
    return True


# As `re` has them of text.
CLASSES = {"d": str.isdecimal, "w": _word, "s": str.isspace}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
CODES = {"x": 2, "u": 4, "U": 8}
GROUPS = {
    "=": "a lookahead (?=...)",
    "!": "a negative lookahead (?!...)",
    "<=": "a lookbehind (?<=...)",
    "<!": "a negative lookbehind (?<!...)",
    "P<": "a named group (?P<name>...)",
    "P=": "a reference (?P=name) to a group",
    "(": "a condition (?(...)...)",
    "#": "a comment (?#...)",
    ">": "an atomic group (?>...)",
}
REFUSED = {
    "b": "the word boundary", "B": "the word boundary", "A": "the anchor", "Z": "the anchor",
    "N": "the named character", "p": "the property of characters", "P": "the property of characters",
}  # fmt: skip


def parse(pattern: str, symbols: Symbols) -> NFA:
    reader = _Reader(pattern, symbols)
    first, last = reader.choice()
    if reader.place < len(pattern):
        reader.fail("a closing bracket that was never opened")
    # state 0 has to be the first one
    reader.free[0].append(first)
    return NFA(reader.arrows, reader.free, [last])


class _Reader:
    """Recursive descent; every part is a pair of states, the first and the last."""

    def __init__(self, pattern: str, symbols: Symbols):
        self.pattern, self.place, self.depth = pattern, 0, 0
        self.arrows: list[list[tuple[frozenset[int], int]]] = [[]]
        self.free: list[list[int]] = [[]]
        self.symbols = symbols
        self.known: dict[int, tuple[Shape, int]] = {}

    def fail(self, fault: str):
        raise ValueError(f"{named(self.pattern)} has {fault} at character {self.place}.")

    def state(self) -> int:
        self.arrows.append([])
        self.free.append([])
        if len(self.arrows) > STATES:
            raise ValueError(
                f"{named(self.pattern)} is too large, more than {STATES:,} states before they are joined; make its "
                "counts smaller."
            )
        return len(self.arrows) - 1

    def peek(self) -> str:
        return self.pattern[self.place : self.place + 1]

    def take(self) -> str:
        self.place += 1
        return self.pattern[self.place - 1 : self.place]

    def choice(self):
        parts = [self.sequence()]
        while self.peek() == "|":
            self.take()
            parts.append(self.sequence())
        if len(parts) == 1:
            return parts[0]
        first, last = self.state(), self.state()
        for one, two in parts:
            self.free[first].append(one)
            self.free[two].append(last)
        return first, last

    def sequence(self):
        first = last = self.state()
        while self.peek() not in ("", "|", ")"):
            one, two = self.repeated()
            self.free[last].append(one)
            last = two
        return first, last

    def repeated(self):
        begin = self.place
        one, two = self.atom()
        while self.peek() and self.peek() in "?*+{":
            least, most = self.count()
            end = self.place
            # the part is read again for every time it may occur: states are not shared
            first = last = self.state()
            for n in range(max(least, most or 0, 1) if most != 0 else 0):
                self.place = begin
                one, two = self.atom() if n else (one, two)
                self.free[last].append(one)
                if n >= least:
                    self.free[last].append(two)
                if most is None and n + 1 >= least:
                    self.free[two].append(one)
                last = two
            self.place = end
            one, two = first, self.state()
            self.free[last].append(two)
            if self.peek() == "?":  # as few as possible, which is the same where the whole has to match
                self.take()
            elif self.peek() == "+":
                self.fail("a possessive repetition or one of a repetition, which is not known here,")
            if self.peek() and self.peek() in "?*+{":
                self.fail("a repetition of a repetition (write it with a group)")
        return one, two

    def count(self):
        sign = self.take()
        if sign != "{":
            return {"?": (0, 1), "*": (0, None), "+": (1, None)}[sign]
        words = ""
        while self.peek() not in ("", "}"):
            words += self.take()
        numbers = words.split(",")
        if (
            self.take() != "}"
            or len(numbers) > 2
            or not all(re.fullmatch("[0-9]*", n) for n in numbers)
            or not any(numbers)
        ):
            self.fail("a malformed count, such as {2} or {2,5} would be,")
        least = int(numbers[0] or 0)
        most = least if len(numbers) == 1 else int(numbers[1]) if numbers[1] else None
        if max(least, most or 0) > STATES:
            self.fail(f"a count of more than {STATES:,}")
        if most is not None and most < least:
            self.fail(f"a count from {least} to {most}, which runs backwards,")
        return least, most

    def atom(self):
        begin, sign = self.place, self.take()
        if sign == "(":
            return self.group()
        if sign and sign in "?*+{":
            self.fail("nothing to repeat")
        if sign in ("^", "$"):
            self.fail(f"the anchor {sign!r}, which is not needed as the whole has to match,")
        if begin in self.known:  # a repetition reads it again
            shape, self.place = self.known[begin]
        else:
            chosen = self.symbols.some(_any) if sign == "." else self.set() if sign == "[" else None
            if chosen is None:
                chosen = self.escape() if sign == "\\" else self.symbol(sign)
            shape = self.symbols.shape(chosen)
            self.known[begin] = shape, self.place
        last = self.state()
        nodes = [self.state() for _ in shape]
        for node, arrows in zip(nodes, shape, strict=True):
            self.arrows[node] += [(chosen, last if goal == END else nodes[goal]) for chosen, goal in arrows]
        return nodes[0], last

    def group(self):
        if self.pattern.startswith("?:", self.place):
            self.place += 2
        elif self.peek() == "?":
            kinds = [name for sign, name in GROUPS.items() if self.pattern.startswith(sign, self.place + 1)]
            flags = re.match(r"\?[a-zA-Z-]+[:)]", self.pattern[self.place :])
            kind = f"the flags ({flags[0]}" if flags and not kinds else kinds[0] if kinds else "a group"
            self.fail(f"{kind}, of a kind that is not known here,")
        self.depth += 1
        if self.depth > DEPTH:
            self.fail(f"groups within more than {DEPTH} groups (write it with fewer)")
        part = self.choice()
        self.depth -= 1
        if self.take() != ")":
            self.fail("a group that is not closed")
        return part

    def symbol(self, character: str) -> Bool[np.ndarray, " points"]:
        chosen = self.symbols.between(character, character)
        if not chosen.any():
            self.fail(f"the character {character!r}, which is not in the alphabet of the model,")
        return chosen

    def escape(self) -> Bool[np.ndarray, " points"]:
        kind = self.peek()
        if kind and kind.lower() in CLASSES:
            self.take()
            chosen = self.symbols.some(CLASSES[kind.lower()])
            return chosen if kind.islower() else ~chosen
        return self.symbol(self.escaped())

    def escaped(self, *, inside: bool = False) -> str:
        """The one character that is meant behind a backslash."""
        sign = self.take()
        if not sign:
            self.fail("a backslash at its end")
        if sign in CODES:
            digits = self.pattern[self.place : self.place + CODES[sign]]
            self.place += len(digits)
            if not re.fullmatch(f"[0-9a-fA-F]{{{CODES[sign]}}}", digits) or int(digits, 16) > 0x10FFFF:
                self.fail(f"the escape \\{sign}{digits}, which is no code of a character ({CODES[sign]} digits),")
            return chr(int(digits, 16))
        if sign.isascii() and sign.isalnum() and sign not in ESCAPES:
            kind = "the reference to a group" if sign.isdigit() and sign != "0" and not inside else "the escape"
            self.fail(f"{REFUSED.get(sign, kind)} \\{sign}, which is not known here,")
        return ESCAPES.get(sign, sign)

    def ranges(self) -> bool:
        """Whether what was read inside of a set begins a range."""
        return self.peek() == "-" and self.pattern[self.place + 1 : self.place + 2] not in ("]", "")

    def set(self) -> Bool[np.ndarray, " points"]:
        begin, negated = self.place, self.peek() == "^"
        if negated:
            self.take()
        chosen = np.zeros(len(self.symbols.points), bool)
        first = True
        while first or self.peek() != "]":
            first = False
            sign = self.take()
            if not sign:
                self.fail("a set that is not closed")
            if sign == "\\" and self.peek() and self.peek().lower() in CLASSES:
                chosen |= self.escape()
                if self.ranges():
                    self.fail("a range that begins with a class")
                continue
            start = end = self.escaped(inside=True) if sign == "\\" else sign
            if self.ranges():
                self.take()
                end = self.take()
                if end == "\\" and self.peek() and self.peek().lower() in CLASSES:
                    self.fail("a range that ends with a class")
                end = self.escaped(inside=True) if end == "\\" else end
            if end < start:
                self.fail(f"a range from {start!r} to {end!r}, which runs backwards,")
            exact = start == end and not negated  # of what is left out, nothing need be in the alphabet
            chosen |= self.symbol(start) if exact else self.symbols.between(start, end)
        self.take()
        chosen = ~chosen if negated else chosen
        if not chosen.any():
            self.place = begin
            self.fail("a set without any symbol of the model's alphabet")
        return chosen


def named(pattern: str) -> str:
    """How a pattern is called in errors: a long one by its beginning."""
    return f"`pattern` {pattern!r}" if len(pattern) <= 60 else f"`pattern` {pattern[:60]!r}..."

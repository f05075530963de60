"""A small parser of regular expressions: text to a machine with several arrows a token and free arrows."""

import dataclasses
import string

import numpy as np

from ._tokenizer import AbstractTokenizer


Tokens = frozenset[int] | None  # None is any token


@dataclasses.dataclass(frozen=True)
class NFA:
    """A nondeterministic automaton that begins in state 0: arrows by token, free arrows, where it may end."""

    arrows: list[list[tuple[Tokens, int]]]
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


CLASSES = {"d": string.digits, "w": string.ascii_letters + string.digits + "_", "s": " \t\n\r\f\v"}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse(pattern: str, tokenizer: AbstractTokenizer) -> NFA:
    reader = _Reader(pattern, tokenizer)
    first, last = reader.choice()
    if reader.place < len(pattern):
        reader.fail("a closing bracket that was never opened")
    # state 0 has to be the first one
    reader.free[0].append(first)
    return NFA(reader.arrows, reader.free, [last])


class _Reader:
    """Recursive descent; every part is a pair of states, the first and the last."""

    def __init__(self, pattern: str, tokenizer: AbstractTokenizer):
        self.pattern, self.place = pattern, 0
        self.arrows: list[list[tuple[Tokens, int]]] = [[]]
        self.free: list[list[int]] = [[]]
        decoded = [tokenizer.decode(np.array([n])) for n in range(tokenizer.size)]
        self.symbols = {c: n for n, c in enumerate(decoded) if len(c) == 1 and c != "\N{REPLACEMENT CHARACTER}"}
        self.size = tokenizer.size

    def fail(self, fault: str):
        raise ValueError(f"`pattern` {self.pattern!r} has {fault} at character {self.place}.")

    def state(self) -> int:
        self.arrows.append([])
        self.free.append([])
        if len(self.arrows) > 100_000:
            raise ValueError(f"`pattern` {self.pattern!r} is too large; make its counts smaller.")
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
            or not all(n.isdecimal() or (i and not n) for i, n in enumerate(numbers))
        ):
            self.fail("a malformed count, such as {2} or {2,5} would be,")
        least = int(numbers[0])
        most = least if len(numbers) == 1 else int(numbers[1]) if numbers[1] else None
        if most is not None and most < least:
            self.fail(f"a count from {least} to {most}, which runs backwards,")
        return least, most

    def atom(self):
        sign = self.take()
        if sign == "(":
            if self.pattern.startswith("?:", self.place):
                self.place += 2
            elif self.peek() == "?":
                self.fail("a group of a kind that is not known here")
            part = self.choice()
            if self.take() != ")":
                self.fail("a group that is not closed")
            return part
        if sign and sign in "?*+{":
            self.fail("nothing to repeat")
        if sign in ("^", "$"):
            self.fail(f"the anchor {sign!r}, which is not needed as the whole has to match,")
        if sign == ".":
            tokens = None
        elif sign == "[":
            tokens = self.set()
        elif sign == "\\":
            tokens = self.escape()
        else:
            tokens = self.symbol(sign)
        first, last = self.state(), self.state()
        self.arrows[first].append((tokens, last))
        return first, last

    def symbol(self, character: str) -> frozenset[int]:
        if character not in self.symbols:
            self.fail(f"the character {character!r}, which is not in the alphabet of the model,")
        return frozenset([self.symbols[character]])

    def known(self, characters: str) -> frozenset[int]:
        return frozenset(self.symbols[c] for c in characters if c in self.symbols)

    def escape(self) -> frozenset[int]:
        sign = self.take()
        if not sign:
            self.fail("a backslash at its end")
        if sign.lower() in CLASSES:
            tokens = self.known(CLASSES[sign.lower()])
            return tokens if sign.islower() else frozenset(range(self.size)) - tokens
        if sign.isalnum() and sign not in ESCAPES:
            self.fail(f"the escape \\{sign}, which is not known here,")
        return self.symbol(ESCAPES.get(sign, sign))

    def set(self) -> frozenset[int]:
        begin, negated = self.place, self.peek() == "^"
        if negated:
            self.take()
        tokens: frozenset[int] = frozenset()
        first = True
        while first or self.peek() != "]":
            first = False
            sign = self.take()
            if not sign:
                self.fail("a set that is not closed")
            if sign == "\\":
                tokens |= self.escape()
            elif self.peek() == "-" and self.pattern[self.place + 1 : self.place + 2] not in ("]", ""):
                self.take()
                end = self.take()
                end = ESCAPES.get(self.take(), "\\") if end == "\\" else end
                tokens |= self.known("".join(map(chr, range(ord(sign), ord(end) + 1))))
            else:
                tokens |= self.symbol(sign)
        self.take()
        tokens = frozenset(range(self.size)) - tokens if negated else tokens
        if not tokens:
            self.place = begin
            self.fail("a set without any symbol of the model's alphabet")
        return tokens

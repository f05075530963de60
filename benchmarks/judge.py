"""An offline judge of text: a character 5-gram model of the training text, and the symbol entropy of a sample.

Judged bits per character are what the 5-gram model pays for the sample; alone they reward repetition, so the entropy
of the sample's own symbols stands beside them.
"""

import lzma
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from train_shakespeare import TEST, VALIDATION, plays


class NGram:
    """Character n-gram model with Witten-Bell interpolation down to the uniform distribution.

    `p(w | h) = [c(h w) + T(h) p(w | shorter h)] / [c(h) + T(h)]`, `T(h)` the number of different continuations.
    """

    def __init__(self, text: str, order: int = 5):
        self.order = order
        self.test = ""  # held-out text to go with it
        self.alphabet = sorted(set(text))
        self.counts: dict[str, Counter] = defaultdict(Counter)
        for n in range(order):
            for i in range(len(text) - n):
                self.counts[text[i : i + n]][text[i + n]] += 1

    def probability(self, history: str, symbol: str) -> float:
        """`p(symbol | last order - 1 characters of history)`."""
        p = 1.0 / (len(self.alphabet) + 1)
        history = history[len(history) - self.order + 1 :] if len(history) >= self.order else history
        for n in range(len(history) + 1):
            seen = self.counts.get(history[len(history) - n :])
            if seen is None:
                break
            total, kinds = seen.total(), len(seen)
            p = (seen[symbol] + kinds * p) / (total + kinds)
        return p

    def bits_per_char(self, text: str) -> float:
        """Mean `-log2 p` over the characters of a text, each with the characters before it as history."""
        bits = (-math.log2(self.probability(text[max(0, i - self.order + 1) : i], c)) for i, c in enumerate(text))
        return sum(bits) / len(text)


def symbol_entropy(texts: list[str]) -> float:
    """Entropy of the symbols of all texts together, bits per character."""
    counts = Counter("".join(texts))
    total = counts.total()
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def judge_of_plays(path: Path, length: int) -> tuple[NGram, dict]:
    """The judge trained on the training plays, and a row of real text: windows of the test play, judged by it."""
    texts = plays(lzma.open(path, "rt", encoding="utf-8").read())
    judge = NGram("\n".join(text for title, text in texts.items() if title not in (VALIDATION, TEST)))
    judge.test = texts[TEST]
    windows = [texts[TEST][i : i + length] for i in range(0, 64 * 1000, 1000)]
    judged = float(np.mean([judge.bits_per_char(window) for window in windows]))
    return judge, dict(motion="real text", judged=judged, entropy=symbol_entropy(windows))

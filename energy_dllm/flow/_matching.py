"""Evidence in words: regular expressions, words to avoid, and what stands against what."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..data import AbstractTokenizer, Acceptor
from ..energy import Language
from ._evidence import FORBIDDEN, AbstractEvidence, Evidences
from ._page import allowed


class Matching(AbstractEvidence):
    """The whole passage matches a regular expression.

    `generate` and `infill` draw under its automaton, and what they write always matches. As evidence alone, without the
    draw, `b_iw = 0` where a passage that matches can have token `w` at place `i`, `FORBIDDEN` where none has.

    **Arguments:**

    - `pattern`: see `data.Acceptor.of`; `".*word.*"` for a word anywhere. Or a `data.Acceptor`.
    - `tokenizer`: that of the model.
    - `length`: number of tokens `L`.
    - `wanted`: how it is called in errors; by default by its pattern.

    **Raises:** `ValueError` for a pattern that is malformed or cannot be matched at this length.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    words = ed.flow.Matching("[abc]+( [abc]+)*", model.tokenizer, length=12)
    text = ed.generate(model, length=12, evidence=words, path=ed.flow.Unmasking(rounds=4)).texts[0]
    assert all(text.split(" "))
    ```
    """

    acceptor: Acceptor = eqx.field(static=True)
    tokens: int = eqx.field(static=True)
    wanted: str = eqx.field(static=True)

    def __init__(self, pattern: str | Acceptor, tokenizer: AbstractTokenizer, *, length: int, wanted: str = ""):
        if length < 1:
            raise ValueError(f"`length` is {length}; expected a positive number of tokens.")
        self.acceptor = Acceptor.of(pattern, tokenizer) if isinstance(pattern, str) else pattern
        self.tokens = length
        self.wanted = wanted or (f"`pattern` {pattern!r}" if isinstance(pattern, str) else "the automaton")
        fitting(self.acceptor, self.wanted, length)

    @classmethod
    def without(cls, words: Sequence[str], tokenizer: AbstractTokenizer, *, length: int) -> "Matching":
        """None of these words occurs in the passage, not even inside of another word."""
        avoided = Acceptor.without(words, tokenizer)
        return cls(avoided, tokenizer, length=length, wanted=f"`words` to avoid, {list(words)},")

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.tokens

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """0 for tokens that a matching passage may have, `FORBIDDEN` for the others."""
        free = jnp.ones((self.tokens, codes.shape[0]), bool)
        return jnp.where(Language.of(self.acceptor).support(free), 0.0, FORBIDDEN).astype(codes.dtype)

    def spring(self) -> Float[Array, " L"]:
        """Zeros: there is no noise."""
        return jnp.zeros(self.tokens)


def fitting(acceptor: Acceptor, wanted: str, length: int) -> None:
    """`ValueError` if an automaton accepts no string of this length."""
    lengths = acceptor.lengths(2 * length)
    if length not in lengths:
        near = sorted(lengths, key=lambda n: abs(n - length))[:3]
        can = f"it can have {', '.join(map(str, sorted(near)))}" if near else "it needs more than twice as many"
        raise ValueError(f"{wanted} matches nothing of {length} tokens; {can}.")


def sorted_out(
    evidence: AbstractEvidence | None,
) -> tuple[AbstractEvidence | None, list[Matching]]:
    """Evidence about single tokens, and the automata among it."""
    if evidence is None:
        return None, []
    sources = evidence.sources if isinstance(evidence, Evidences) else (evidence,)
    automata = [source for source in sources if isinstance(source, Matching)]
    rest = tuple(source for source in sources if not isinstance(source, Matching))
    return (Evidences(rest) if len(rest) > 1 else rest[0] if rest else None), automata


def joined(automata: Sequence[Matching]) -> Language | None:
    """The one automaton of them all."""
    if not automata:
        return None
    both = automata[0].acceptor
    for n, other in enumerate(automata[1:], 1):
        both = both & other.acceptor
        names = " and ".join(a.wanted for a in automata[: n + 1])
        if not both.accept.any():
            raise ValueError(f"{names} contradict each other: no text matches both; leave out one of them.")
        fitting(both, f"the two of {names}" if n == 1 else f"the whole of {names}", other.length)
    return Language.of(both)


def agreeing(sources: Sequence[tuple[str, AbstractEvidence]], codes: Float[Array, "V C"]) -> None:
    """`ValueError` if two pieces of evidence leave nothing that may stand at some place, naming both."""
    open = [(name, np.asarray(allowed(source.field(codes)))) for name, source in sources]
    for n, (one, here) in enumerate(open):
        for two, there in open[:n]:
            void = np.flatnonzero(~(here & there).any(axis=-1))
            if void.size:
                raise ValueError(f"{two} and {one} contradict each other at token {void[0]}; leave out one of them.")


def possible(language: Language, names: str, b: Float[Array, "L V"]) -> Bool[Array, "L V"]:
    """Which tokens are left; `ValueError` if there is no passage at all."""
    left = language.support(allowed(b))
    if not bool(jnp.all(jnp.any(left, axis=-1))):
        raise ValueError(f"{names} cannot be matched with what is given; change one of them.")
    return left

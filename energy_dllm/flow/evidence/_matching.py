"""Regular expressions, and words to avoid, as evidence."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._checks import sizes
from ...data import AbstractTokenizer, RegexDFA
from ...energy import DFA
from ._evidence import FORBIDDEN, AbstractEvidence


class Matching(AbstractEvidence):
    """The whole passage matches a regular expression.

    `generate` and `infill` condition on its automaton exactly: what they draw always matches. As evidence alone, `b_iw
    = 0` where a matching passage can have token `w` at place `i`, `FORBIDDEN` where none has.

    **Arguments:**

    - `pattern`: see `data.RegexDFA.of`; `".*word.*"` for a word anywhere. Or a `data.RegexDFA`.
    - `tokenizer`: that of the model; not needed where the automaton is given.
    - `length`: number of tokens `L`.
    - `wanted`: its name in error messages; by default its pattern.

    `one & another` matches both, as does `one + another` in `generate`.

    **Raises:** `ValueError` for a pattern that is malformed or cannot be matched at this length.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    words = ed.flow.Matching("[abc]+( [abc]+)*", model.tokenizer, length=12)
    text = ed.generate(model, length=12, evidence=words, sampler=ed.sampling.Unmasking(rounds=4)).texts[0]
    assert all(text.split(" "))
    ```
    """

    automaton: RegexDFA = eqx.field(static=True)
    tokens: int = eqx.field(static=True)
    wanted: str = eqx.field(static=True)

    def __init__(self, pattern: str | RegexDFA, tokenizer: AbstractTokenizer | None, *, length: int, wanted: str = ""):
        sizes(length=length)
        if isinstance(pattern, str):
            if tokenizer is None:
                raise ValueError("`tokenizer` is None; a pattern needs the symbols of the model, `model.tokenizer`.")
            self.automaton = RegexDFA.of(pattern, tokenizer)
        else:
            self.automaton = pattern
        self.tokens = length
        self.wanted = wanted or (f"`pattern` {pattern!r}" if isinstance(pattern, str) else "the automaton")
        lengths = self.automaton.lengths(2 * length)
        if length not in lengths:
            near = sorted(sorted(lengths, key=lambda n: abs(n - length))[:3])
            can = f"it can have {', '.join(map(str, near))}" if near else "it needs more than twice as many"
            raise ValueError(f"{self.wanted} matches nothing of {length} tokens; {can}.")

    @classmethod
    def without(cls, words: Sequence[str], tokenizer: AbstractTokenizer, *, length: int) -> "Matching":
        """None of these words occurs in the passage, not even inside of another word."""
        avoided = RegexDFA.without(words, tokenizer)
        return cls(avoided, tokenizer, length=length, wanted=f"`words` {list(words)}, to be avoided,")

    def __and__(self, other: "Matching") -> "Matching":
        """One automaton for both; `ValueError` if no passage of this length matches both, or they differ in length."""
        if self.tokens != other.tokens:
            raise ValueError(
                f"`length` is {self.tokens} of one and {other.tokens} of the other; expected the same of both."
            )
        both = self.automaton & other.automaton
        names = f"{self.wanted} and {other.wanted}"
        if not both.accept.any():
            raise ValueError(f"{names} contradict each other: no text matches both; leave out one of them.")
        return Matching(both, None, length=self.tokens, wanted=names)

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.tokens

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """0 for tokens that a matching passage may have, `FORBIDDEN` for the others."""
        free = jnp.ones((self.tokens, codes.shape[0]), bool)
        return jnp.where(DFA.of(self.automaton).support(free), 0.0, FORBIDDEN).astype(codes.dtype)

    def spring(self) -> Float[Array, " L"]:
        """Zeros: there is no noise."""
        return jnp.zeros(self.tokens)

"""`TextMemory`: lines of text stored as they are, and one energy to recall them by."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, UInt

from .._checks import number, on_device
from ..data import AbstractTokenizer, Characters
from ..energy import NGram, PairHMMMixture
from ..flow import AbstractEvidence, Likelihood
from ._keys import Keys, lines_of, same
from ._normal import normal
from ._recall import CLEAN, GAPS, SIEVE, THRESHOLD, TYPOS, Cue, Recall, agreement, beside, judged, masses, sifted
from ._store import columns_of, counts_of, firsts_of, lengths_of, padded, texts, weights_of


LARGEST = 8192
"""Tokens of a vocabulary up to which pairs are counted for evidence, in `4 V^2` bytes."""


class TextMemory(eqx.Module):
    """Lines of text, recalled from noisy, truncated, misspelt or partly masked cues. Nothing is trained.

    `F(b) = -log [ 1/2 Z_0(b) + 1/2 sum_m w_m Z_m(b) ]` (`energy.PairHMMMixture`): each line competes with the others
    and with text that nobody stored, `Z_0`. The share of the lines in the sum is the confidence; since `Z_0` pays for
    the same evidence, one threshold does for every kind of cue. A line that is stored several times counts once.

    **Arguments:**

    - `lines`: at least one line, none of them empty.
    - `tokenizer`: default the characters of `lines`. Give a larger alphabet if lines with other characters are to be
      added later, and a model's own if the memory is to give evidence to that model. Texts are compared as characters,
      whatever the tokens are.
    - `weights`: how often each line is expected to be meant, positive; default all alike. Of copies the largest counts.
    - `normalize`: whether capitals, accents and Hebrew and Arabic vowel marks make no difference to a text cue.

    **Raises:** `ValueError` if there are no lines, a line is empty, the tokenizer does not know a character, or
    `weights` are not positive and one a line.

    **Example:**

    ```python
    import energy_dllm as ed

    memory = ed.TextMemory(["How do I reset my password?", "Where is my parcel?", "Can I pay by card?"])
    found = memory.recall("how do i rest my pasword")
    assert found.text == "How do I reset my password?" and found.stored > 0.99
    assert memory.recall("Is the moon made of cheese?").text is None
    assert memory.recall("CAN I PAY BY CARD?").text == "Can I pay by card?"
    ```
    """

    tokenizer: AbstractTokenizer = eqx.field(static=True)
    normalize: bool = eqx.field(static=True)
    columns: UInt[Array, "L M"]
    lengths: Int[Array, " M"]
    weights: Float[Array, " M"]
    keys: Keys
    key: Int[Array, " M"]

    def __init__(
        self,
        lines: Sequence[str],
        *,
        tokenizer: AbstractTokenizer | None = None,
        weights: Float[Array | np.ndarray, " M"] | Sequence[float] | None = None,
        normalize: bool = True,
    ):
        if isinstance(lines, str):
            raise ValueError("`lines` is one string; expected a list of them, such as text.splitlines().")
        lines = texts(lines)
        self.tokenizer = Characters.from_text("".join(lines)) if tokenizer is None else tokenizer
        self.normalize = normalize
        columns = columns_of(lines, self.tokenizer)
        self.columns = jax.device_put(columns)
        self.lengths = jax.device_put(lengths_of(columns, self.tokenizer.size))
        self.weights = jax.device_put(weights_of(np.ones(len(lines)) if weights is None else weights, len(lines)))
        alphabet = map(self._normal, getattr(self.tokenizer, "alphabet", ""))
        self.keys, key = Keys.of([self._normal(line) for line in lines], alphabet)
        self.key = jax.device_put(key)

    def __len__(self) -> int:
        """Number of stored lines `M`."""
        return self.columns.shape[1]

    @property
    def length(self) -> int:
        """Tokens of the longest line."""
        return int(np.max(self.lengths))

    @property
    def lines(self) -> list[str]:
        """The stored lines, in order."""
        return [self._line(number) for number in range(len(self))]

    @property
    def energy(self) -> PairHMMMixture:
        """The scalar `F` over all different lines, for evidence that begins where the lines begin (or with `gap`,
        anywhere)."""
        return self._energy()[0]

    def add(self, lines: str | Sequence[str], *, weight: float = 1.0) -> "TextMemory":
        """A new memory with one line more, or several.

        **Arguments:**

        - `lines`: what to store, of characters of this memory's tokenizer.
        - `weight`: how often each is expected to be meant, against 1 of the others.

        **Raises:** as the constructor.
        """
        lines = [lines] if isinstance(lines, str) else texts(lines)
        old, new = padded(np.asarray(self.columns), columns_of(lines, self.tokenizer), self.tokenizer.size)
        keys, key = self.keys.add([self._normal(line) for line in lines])
        return self._with(
            np.concatenate([old, new], axis=1),
            np.concatenate([np.asarray(self.weights), weights_of(np.full(len(lines), weight), len(lines))]),
            keys,
            np.concatenate([np.asarray(self.key), key]),
        )

    def remove(self, line: str) -> "TextMemory":
        """A new memory without a line (every copy of it).

        **Arguments:**

        - `line`: a stored line, letter by letter.

        **Raises:** `ValueError` if it is not stored, or is all that is stored.
        """
        columns, key = np.asarray(self.columns), np.asarray(self.key)
        gone = same(columns, self.tokenizer, line)
        if not gone.any():
            raise ValueError(f"`line` {line[:40]!r} is not stored; recall it first, and remove the line that is found.")
        if gone.all():
            raise ValueError(f"`line` {line[:40]!r} is all this memory holds; expected at least one line to stay.")
        left = np.isin(np.arange(len(self.keys)), key[~gone])
        return self._with(
            columns[:, ~gone],
            np.asarray(self.weights)[~gone],
            self.keys if left.all() else self.keys.without(~left),
            (np.cumsum(left, dtype=np.int32) - 1)[key[~gone]],
        )

    def recall(
        self,
        cue: str | AbstractEvidence,
        *,
        unknown: str | None = None,
        typo: float | None = None,
        clean: float = CLEAN,
        threshold: float = THRESHOLD,
        sieve: int = SIEVE,
    ) -> Recall:
        """The line that a cue comes from, how sure that is, or that it is not stored.

        A text may be misspelt, cut at both ends, and have characters inserted or left out: half of `Z_m` is the
        sum over all alignments. The rates of errors `r`, which are the temperature of this memory, are summed over as
        well, `F = -log sum_r p(r) exp(-F_r)`: a cue without errors is the rule, and which errors it has is read off
        itself. Where more than `sieve` lines are stored, alignments are summed for those that agree best in place or
        share most pieces of three tokens; the others take part at their own place. A cue that is a stored line letter
        by letter is that line, whatever its neighbours are.

        Evidence (`flow.Gaussian`, `flow.Given`, sums, ...) begins where the line begins, and brings its own rates.

        **Arguments:**

        - `cue`: text, or evidence about at most as many tokens as the memory's longest line.
        - `unknown`: the character that stands for an unreadable one, such as `"_"`.
        - `typo`: the share of mistyped characters, if it is known.
        - `clean`: the share of cues expected to be without errors; less where few lines are stored and most cues
            have errors, such as 0.5.
        - `threshold`: posterior mass from which on the answer is a line and not `None`.
        - `sieve`: for how many lines alignments are summed; at least 2.

        **Returns:** a `Recall`.

        **Raises:** `ValueError` if the cue is empty or longer than the memory (a text: than twice its longest line),
        is of another vocabulary, or a setting is out of its range.

        **Example:**

        ```python
        import energy_dllm as ed

        memory = ed.TextMemory(["All that glisters is not gold", "The rest is silence"])
        found = memory.recall("glist__s is no gol", unknown="_")
        assert found.text == "All that glisters is not gold"
        ```
        """
        for name, value in (("typo", typo), ("clean", clean), ("threshold", threshold)):
            if value is not None:
                number(name, value, lambda share: (share > 0) & (share < 1), "a number between 0 and 1")
        if sieve < 2:
            raise ValueError(f"`sieve` is {sieve}; expected at least 2 lines, one for each way of choosing them.")
        if not isinstance(cue, str | AbstractEvidence):
            raise ValueError(f"`cue` is {cue!r}; expected a text, or evidence.")
        if not isinstance(cue, str):
            energy, numbers = self._energy()
            found = np.asarray(_masses(energy, self._field(cue)))
            return judged(found[None, None], np.array([-np.inf]), numbers, self._read, threshold)
        typed, keys = self._cue(cue, unknown), self.keys
        columns, weights = np.asarray(keys.columns), np.zeros(len(keys))
        np.maximum.at(weights, np.asarray(self.key), np.asarray(self.weights, float))
        exact = keys.find(self._normal(cue))
        typos = np.asarray(TYPOS if typo is None else [typo])
        numbers, rest = np.arange(len(keys)), np.full(len(typos), -np.inf)
        if len(keys) > sieve:
            agree, reach = agreement(typed, columns, np.asarray(keys.lengths))
            token = np.asarray(NGram(keys.counts).unigram, float)
            scores = beside(typed, token, typos)
            cell = reach * scores.shape[2] + agree
            middle = scores[len(typos) // 2].ravel()[cell]
            numbers = sifted(typed, middle, np.asarray(keys.grams), keys.tokenizer.size, sieve)
            numbers = numbers if exact is None else np.union1d(numbers, exact)
            others = weights.copy()
            others[numbers] = 0.0
            share = np.bincount(cell, others, scores[0].size) / weights.sum()
            with np.errstate(divide="ignore"):
                rest = np.logaddexp.reduce(scores.reshape(len(typos), -1) + np.log(share / 4.0), axis=1)
        room = 1 << (len(numbers) - 1).bit_length()
        ids, seen, mask = map(on_device, typed.padded())
        lines = keys.energy(weights, numbers, room)
        found = np.asarray(masses(lines, ids, seen, mask, jnp.asarray(typos), jnp.asarray(GAPS)))
        return judged(
            found[..., : len(numbers) + 1],
            rest,
            numbers,
            lambda number: self._spelt(number, cue),
            threshold,
            clean,
            typos,
            GAPS,
            exact=exact,
            normalized=self.normalize,
        )

    def marginals(self, evidence: AbstractEvidence) -> Float[Array, "N V"]:
        """`P(token_i = w | evidence) = -dF/db_iw (N, V)`: the marginals under lines and background."""
        return _marginals(self.energy, self._field(evidence))[0]

    def evidence(self, evidence: AbstractEvidence) -> Likelihood:
        """The memory as evidence for a model that is given the same `evidence`; add it to that.

        `b_iw = log [ P(token_i = w | evidence) / P_0(token_i = w | evidence) ]`, `P_0` the posterior of the background
        alone: 0 where no line is recalled, the line where one is. Where the model's own posterior is `P_0`,
        `model.posterior(evidence + memory.evidence(evidence))` is the posterior of the memory, exactly.

        **Arguments:**

        - `evidence`: about at most as many tokens as the memory's longest line.

        **Returns:** a `flow.Likelihood`, a term of the model's energy as any other evidence.

        **Raises:** `ValueError` if the evidence is longer than the memory, or of another vocabulary.

        **Example:**

        ```python
        import jax, jax.numpy as jnp, energy_dllm as ed

        memory = ed.TextMemory(["abc cab", "bbc aaa"])
        model = ed.EnergyDLLM(memory.tokenizer, dim=16, key=jax.random.key(0))
        given = ed.flow.Given(model.encode("abc aaa"), jnp.arange(7) < 4)
        p = model.posterior(given + memory.evidence(given))
        assert model.decode(p.argmax(-1)) == "abc cab"
        ```
        """
        p, p_0 = _marginals(self.energy, self._field(evidence))
        tiny = 1e-13
        return Likelihood(jnp.log(p + tiny) - jnp.log(p_0 + tiny))

    def _energy(self) -> tuple[PairHMMMixture, Integer[np.ndarray, " n"]]:
        """The energy of the different lines as tokens, and the number of the first copy of each."""
        size = self.tokenizer.size
        if size > LARGEST:
            raise ValueError(
                f"`tokenizer` has {size:,} tokens; the counts of their pairs need {4e-9 * size**2:,.1f} GB; expected "
                f"at most {LARGEST:,} tokens for evidence, so recall by text, or use a smaller vocabulary."
            )
        columns = np.asarray(self.columns)
        new, number = firsts_of(columns)
        columns, weights = columns[:, new], np.zeros(np.count_nonzero(new))
        np.maximum.at(weights, number, np.asarray(self.weights, float))
        background = NGram(jax.device_put(counts_of(columns, size)))
        return lines_of(columns, weights, background, np.arange(len(weights)), len(weights)), np.flatnonzero(new)

    def _cue(self, text: str, unknown: str | None) -> Cue:
        if not text:
            raise ValueError("`cue` is empty; expected at least one character to recall a line by.")
        if unknown is not None and len(unknown) != 1:
            raise ValueError(f"`unknown` is {unknown!r}; expected one character that stands for an unreadable one.")
        return self.keys.cue([self._normal(piece) for piece in ([text] if unknown is None else text.split(unknown))])

    def _field(self, evidence: AbstractEvidence) -> Float[Array, "N V"]:
        if evidence.length > self.length:
            raise ValueError(
                f"`cue` is evidence about {evidence.length} tokens; the longest line of this memory has {self.length}."
            )
        return evidence.field(jnp.eye(self.tokenizer.size))

    def _normal(self, text: str) -> str:
        return normal(text) if self.normalize else text

    def _line(self, number: int) -> str:
        ids = np.asarray(self.columns)[:, number]
        return self.tokenizer.decode(ids[ids < self.tokenizer.size])

    def _read(self, number: int) -> tuple[str, int, tuple[int, ...]]:
        """A line, its number and those of all that are the same."""
        key = np.asarray(self.key)
        return self._line(number), number, tuple(np.flatnonzero(key == key[number]).tolist())

    def _spelt(self, key: int, cue: str) -> tuple[str, int, tuple[int, ...]]:
        """The line of a key that is spelt as the cue, else the one most often meant."""
        copies = np.flatnonzero(np.asarray(self.key) == key)
        alike = same(np.asarray(self.columns)[:, copies], self.tokenizer, cue)
        return self._read(int(copies[np.argmax(np.where(alike, np.inf, np.asarray(self.weights)[copies]))]))

    def _with(self, columns, weights, keys, key) -> "TextMemory":
        leaves = (columns, lengths_of(columns, self.tokenizer.size), weights, key)
        places = lambda m: (m.columns, m.lengths, m.weights, m.key, m.keys)
        # unlike `jnp.asarray`, this compiles nothing for a new number of lines
        return eqx.tree_at(places, self, (*map(jax.device_put, leaves), keys))


@eqx.filter_jit
def _masses(lines: PairHMMMixture, b: Float[Array, "N V"]) -> Float[Array, " terms"]:
    return lines.log_masses(b)


@eqx.filter_jit
def _marginals(lines: PairHMMMixture, b: Float[Array, "N V"]) -> tuple[Float[Array, "N V"], Float[Array, "N V"]]:
    """Of the whole energy, and of its background alone."""
    return lines.marginals(b), lines.background.posterior(b)

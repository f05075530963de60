"""`TextMemory`: lines of text stored as they are, and one energy to recall them by."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, UInt

from .._checks import on_device
from ..data import AbstractTokenizer, Characters
from ..energy import NGram, PairHMMMixture
from ..flow import AbstractEvidence, Likelihood
from ._grams import signatures
from ._recall import CLEAN, GAPS, SIEVE, THRESHOLD, TYPOS, Cue, Recall, agreement, beside, judged, masses, sifted
from ._store import columns_of, counts_of, lengths_of, weights_of


class TextMemory(eqx.Module):
    """Lines of text, recalled from noisy, truncated, misspelt or partly masked cues. Nothing is trained.

    `F(b) = -log [ 1/2 Z_0(b) + 1/2 sum_m w_m Z_m(b) ]` (`energy.PairHMMMixture`): each line competes with the others
    and with text that nobody stored, `Z_0`. The share of the lines in the sum is the confidence; since `Z_0` pays for
    the same evidence, one threshold does for every kind of cue.

    **Arguments:**

    - `lines`: at least one line, none of them empty.
    - `tokenizer`: default the characters of `lines`. Give a larger alphabet if lines with other characters are to be
      added later, and a model's own if the memory is to speak to that model.
    - `weights`: how often each line is expected to be meant, positive; default all alike.

    **Raises:** `ValueError` if there are no lines, a line is empty, the tokenizer does not know a character, or
    `weights` are not positive and one a line.

    **Example:**

    ```python
    import energy_dllm as ed

    memory = ed.TextMemory(["How do I reset my password?", "Where is my parcel?", "Can I pay by card?"])
    found = memory.recall("how do i rest my pasword")
    assert found.text == "How do I reset my password?" and found.stored > 0.99
    assert memory.recall("Is the moon made of cheese?").text is None
    ```
    """

    tokenizer: AbstractTokenizer = eqx.field(static=True)
    columns: UInt[Array, "L M"]
    lengths: Int[Array, " M"]
    weights: Float[Array, " M"]
    grams: UInt[Array, "W M"]
    counts: Float[Array, "*context V"]

    def __init__(
        self,
        lines: Sequence[str],
        *,
        tokenizer: AbstractTokenizer | None = None,
        weights: Float[Array | np.ndarray, " M"] | Sequence[float] | None = None,
    ):
        if isinstance(lines, str):
            raise ValueError("`lines` is one string; expected a list of them, such as text.splitlines().")
        if not lines:
            raise ValueError("`lines` is empty; expected at least one line to store.")
        self.tokenizer = Characters.from_text("".join(lines)) if tokenizer is None else tokenizer
        columns = columns_of(lines, self.tokenizer)
        self.columns = jax.device_put(columns)
        self.lengths = jax.device_put(lengths_of(columns, self.tokenizer.size))
        self.weights = jax.device_put(weights_of(np.ones(len(lines)) if weights is None else weights, len(lines)))
        self.grams = jax.device_put(signatures(columns, self.tokenizer.size))
        self.counts = jax.device_put(counts_of(columns, self.tokenizer.size))

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
        return [self._read(number) for number in range(len(self))]

    @property
    def energy(self) -> PairHMMMixture:
        """The scalar `F` over all lines, for evidence that begins where the lines begin (or with `gap`, anywhere)."""
        return self._energy(np.arange(len(self)))

    def add(self, lines: str | Sequence[str], *, weight: float = 1.0) -> "TextMemory":
        """A new memory with one line more, or several.

        **Arguments:**

        - `lines`: what to store, of characters of this memory's tokenizer.
        - `weight`: how often each is expected to be meant, against 1 of the others.

        **Raises:** as the constructor.
        """
        lines = [lines] if isinstance(lines, str) else list(lines)
        if not lines:
            raise ValueError("`lines` is empty; expected at least one line to add.")
        old, new = np.asarray(self.columns), columns_of(lines, self.tokenizer)
        width, end = max(len(old), len(new)), self.tokenizer.size
        old, new = (np.pad(c, ((0, width - len(c)), (0, 0)), constant_values=end) for c in (old, new))
        return self._with(
            np.concatenate([old, new], axis=1),
            np.concatenate([np.asarray(self.weights), weights_of(np.full(len(lines), weight), len(lines))]),
            np.concatenate([np.asarray(self.grams), signatures(new, end)], axis=1),
            np.asarray(self.counts) + counts_of(new, end),
        )

    def remove(self, line: str) -> "TextMemory":
        """A new memory without a line (every copy of it).

        **Arguments:**

        - `line`: a stored line, letter by letter.

        **Raises:** `ValueError` if it is not stored, or is all that is stored.
        """
        columns, size = np.asarray(self.columns), self.tokenizer.size
        try:
            ids = np.asarray(self.tokenizer.encode(line))
        except ValueError:
            ids = np.full(len(columns) + 1, size)  # of other characters, hence not stored
        same = np.zeros(len(self), bool)
        if 0 < len(ids) <= len(columns):
            pattern = np.pad(ids, (0, len(columns) - len(ids)), constant_values=size)
            same = np.all(columns == pattern[:, None], axis=0)
        if not same.any():
            raise ValueError(f"`line` {line[:40]!r} is not stored; recall it first, and remove the line that is found.")
        if same.all():
            raise ValueError(f"`line` {line[:40]!r} is all this memory holds; expected at least one line to stay.")
        return self._with(
            columns[:, ~same],
            np.asarray(self.weights)[~same],
            np.asarray(self.grams)[:, ~same],
            np.asarray(self.counts) - counts_of(columns[:, same], size),
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
        share most pieces of three tokens; the others take part at their own place.

        Evidence (`flow.Gaussian`, `flow.Given`, sums, ...) begins where the line begins, and brings its own rates.

        **Arguments:**

        - `cue`: text, or evidence about at most as many tokens as the memory's longest line.
        - `unknown`: the character that stands for one that cannot be read, `"_"` say.
        - `typo`: the share of mistyped characters, if it is known.
        - `clean`: the share of cues expected to be without errors; less where few lines are stored and all who ask
            mistype, one half say.
        - `threshold`: posterior mass from which on the answer is a line and not `None`.
        - `sieve`: for how many lines alignments are summed; at least 2.

        **Returns:** a `Recall`.

        **Raises:** `ValueError` if the cue is empty or longer than the memory (a text: than twice its longest line),
        speaks of another vocabulary, or a setting is out of its range.

        **Example:**

        ```python
        import energy_dllm as ed

        memory = ed.TextMemory(["All that glisters is not gold", "The rest is silence"])
        found = memory.recall("glist__s is no gol", unknown="_")
        assert found.text == "All that glisters is not gold"
        ```
        """
        for name, value in (("typo", typo), ("clean", clean), ("threshold", threshold)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"`{name}` is {value}; expected a number between 0 and 1.")
        if sieve < 2:
            raise ValueError(f"`sieve` is {sieve}; expected at least 2 lines, one for each way of choosing them.")
        if not isinstance(cue, str):
            found = np.asarray(_masses(self.energy, self._field(cue)))
            return judged(found[None, None], np.array([-np.inf]), np.arange(len(self)), self._read, threshold)
        typed = self._cue(cue, unknown)
        columns, weights = np.asarray(self.columns), np.asarray(self.weights, float)
        typos = np.asarray(TYPOS if typo is None else [typo])
        numbers, rest = np.arange(len(self)), np.full(len(typos), -np.inf)
        if len(self) > sieve:
            agree, reach = agreement(typed, columns, np.asarray(self.lengths))
            token = np.asarray(NGram(self.counts).unigram, float)
            scores = beside(typed, token, typos)
            cell = reach * scores.shape[2] + agree
            middle = scores[len(typos) // 2].ravel()[cell]
            numbers = sifted(typed, middle, np.asarray(self.grams), self.tokenizer.size, sieve)
            others = weights.copy()
            others[numbers] = 0.0
            share = np.bincount(cell, others, scores[0].size) / weights.sum()
            with np.errstate(divide="ignore"):
                rest = np.logaddexp.reduce(scores.reshape(len(typos), -1) + np.log(share / 4.0), axis=1)
        room = 1 << (len(numbers) - 1).bit_length()
        ids, seen, mask = map(on_device, typed.padded())
        found = masses(self._energy(numbers, room), ids, seen, mask, jnp.asarray(typos), jnp.asarray(GAPS))
        return judged(
            np.asarray(found)[..., : len(numbers) + 1], rest, numbers, self._read, threshold, clean, typos, GAPS
        )

    def marginals(self, evidence: AbstractEvidence) -> Float[Array, "N V"]:
        """`P(token_i = w | evidence) = -dF/db_iw (N, V)`: what the lines, and text like them, say about each token."""
        return _marginals(self.energy, self._field(evidence))[0]

    def evidence(self, evidence: AbstractEvidence) -> Likelihood:
        """What the memory has to say to a model that hears the same `evidence`; add it to that.

        `b_iw = log [ P(token_i = w | evidence) / P_0(token_i = w | evidence) ]`, `P_0` the posterior of the background
        alone: nothing where no line is recalled, the line where one is. Where the model's own posterior is `P_0`,
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

    def _energy(self, numbers: Integer[np.ndarray, " K"], room: int | None = None) -> PairHMMMixture:
        """The energy of some lines with the weights they have among all, with room for more of weight zero."""
        more = 0 if room is None else room - len(numbers)
        ids = np.asarray(self.columns)[:, numbers].T.astype(np.int32)
        weights = np.asarray(self.weights, float)
        with np.errstate(divide="ignore"):
            log_weights = np.log(np.pad(0.5 * weights[numbers] / weights.sum(), (1, more)))
        log_weights[0] = np.log(0.5)
        ids = np.pad(ids, ((0, more), (0, 0)), constant_values=self.tokenizer.size)
        return PairHMMMixture(jnp.asarray(ids), jnp.asarray(log_weights), NGram(self.counts))

    def _cue(self, text: str, unknown: str | None) -> Cue:
        if not text:
            raise ValueError("`cue` is empty; expected at least one character to recall a line by.")
        if unknown is not None and len(unknown) != 1:
            raise ValueError(f"`unknown` is {unknown!r}; expected one character that stands for an unreadable one.")
        pieces = [self._tokens(text)]
        if unknown is not None or not len(pieces[0]):
            pieces = [self._tokens("" if c == unknown else c) for c in text]
        lengths = [max(1, len(piece)) for piece in pieces]
        if sum(lengths) > 2 * self.length:
            raise ValueError(
                f"`cue` has {sum(lengths)} tokens, more than twice the longest line of this memory ({self.length}); "
                "give a shorter piece of it."
            )
        ids, seen = np.zeros(sum(lengths), np.int32), np.zeros(sum(lengths), bool)
        for start, piece in zip(np.cumsum([0, *lengths[:-1]]), pieces, strict=True):
            ids[start : start + len(piece)] = piece
            seen[start : start + len(piece)] = True
        return Cue(ids, seen)

    def _tokens(self, text: str) -> Integer[np.ndarray, " n"]:
        """None for a character outside the alphabet: it is in no line, so it cannot tell one from another."""
        try:
            return np.asarray(self.tokenizer.encode(text))
        except ValueError:
            return np.zeros(0, np.int32)

    def _field(self, evidence: AbstractEvidence) -> Float[Array, "N V"]:
        if evidence.length > self.length:
            raise ValueError(
                f"`cue` is evidence about {evidence.length} tokens; the longest line of this memory has {self.length}."
            )
        return evidence.field(jnp.eye(self.tokenizer.size))

    def _read(self, number: int) -> str:
        ids = np.asarray(self.columns)[:, number]
        return self.tokenizer.decode(ids[ids < self.tokenizer.size])

    def _with(self, columns, weights, grams, counts) -> "TextMemory":
        leaves = (columns, lengths_of(columns, self.tokenizer.size), weights, grams, counts)
        places = lambda m: (m.columns, m.lengths, m.weights, m.grams, m.counts)
        # unlike `jnp.asarray`, this compiles nothing for a new number of lines
        return eqx.tree_at(places, self, tuple(map(jax.device_put, leaves)))


@eqx.filter_jit
def _masses(lines: PairHMMMixture, b: Float[Array, "N V"]) -> Float[Array, " terms"]:
    return lines.log_masses(b)


@eqx.filter_jit
def _marginals(lines: PairHMMMixture, b: Float[Array, "N V"]) -> tuple[Float[Array, "N V"], Float[Array, "N V"]]:
    """Of the whole energy, and of its background alone."""
    return lines.marginals(b), lines.background.posterior(b)

"""Validating evidence: what a sampler conditions on, or `ValueError` where it is contradictory."""

import functools
import operator
from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .._checks import sizes
from .._model import EnergyDLLM
from ..energy import DFA
from ..flow import AbstractEvidence, Conditioning, Given, Matching


WINDOW = 64
"""Tokens that are written at once where a passage is longer than two such windows."""
MOST_BYTES = 8e9
"""What the moments of a motion may take."""
LEAST = -300.0
"""Nats that a possibility is below the likeliest, at most: the product of two is still a number."""


def split_evidence(evidence: AbstractEvidence | None, length: int) -> tuple[AbstractEvidence | None, Matching | None]:
    """Evidence about single tokens, and one automaton for all patterns."""
    if evidence is None:
        return None, None
    if not isinstance(evidence, AbstractEvidence):
        raise ValueError(f"`evidence` is a {type(evidence).__name__}; expected one, such as `flow.Matching(...)`.")
    if evidence.length != length:
        raise ValueError(
            f"`evidence` is about {evidence.length} tokens; the passage has {length}, so give evidence of that length."
        )
    automata = [part for part in evidence.parts if isinstance(part, Matching)]
    rest = [part for part in evidence.parts if not isinstance(part, Matching)]
    others = functools.reduce(operator.add, rest) if rest else None
    return others, functools.reduce(operator.and_, automata) if automata else None


def check_consistent(model: EnergyDLLM, sources: Sequence[tuple[str, AbstractEvidence]]) -> None:
    """`ValueError` if two pieces of evidence exclude every token at some place, naming both."""
    flat = [(name or type(part).__name__, part) for name, source in sources for part in source.parts]
    open = [(name, Conditioning.allowed(field(model, source))) for name, source in flat]
    for n, (one, here) in enumerate(open):
        for two, there in open[:n]:
            void = np.flatnonzero(~(here & there).any(axis=-1))
            if void.size:
                raise ValueError(
                    f"`evidence` is impossible: {two} and {one} contradict each other at token {void[0]}; leave out "
                    "one of them."
                )


def ahead(matching: Matching, b: Float[np.ndarray, "L V"]) -> Float[np.ndarray, "places S"]:
    """`log P(accepted)` from each state on, at each place and the end, of independent tokens `softmax(b_i)`; minus
    infinity where it cannot be. `ValueError` if the passage itself cannot be."""
    made = matching.automaton
    p = np.where(Conditioning.allowed(b), np.exp(np.maximum(b - b.max(axis=-1, keepdims=True), LEAST)), 0.0)
    p, share = p / p.sum(axis=-1, keepdims=True), made.accept.astype(float)
    scale, found = 0.0, np.full((len(b) + 1, len(share)), -np.inf)
    with np.errstate(divide="ignore"):
        for place in range(len(b), -1, -1):
            if place < len(b):
                share = np.append(share, 0.0)[made.next] @ p[place]
            if not (top := share.max()):
                break
            # what is possible stays so, however unlikely
            share, scale = np.where(share > 0, np.maximum(share / top, np.exp(LEAST)), 0.0), scale + np.log(top)
            found[place] = np.log(share) + scale
    if found[0, 0] == -np.inf:
        raise ValueError(f"{matching.wanted} cannot be matched with what is given; change one of them.")
    return found


def room(length: int, samples: int, frames: int, window: int | None, name: str = "length") -> None:
    """`ValueError` if what is kept of a motion would not fit: 16 bytes for each token at each recorded moment of each
    sample, 64 for each pair of tokens of a window. Or if the sizes are none."""
    sizes(**{name: length}, samples=samples, **({"frames": frames} if frames else {}))
    if window is not None and (not isinstance(window, int | np.integer) or window < 2):
        raise ValueError(f"`window` is {window}; expected at least 2 tokens: some of the text before, some to sample.")
    size = length if window is None and length <= 2 * WINDOW else WINDOW if window is None else min(window, length)
    blocks = 1 + max(0, length - size) // max(1, size // 2)
    need = 16 * samples * length * (max(frames, blocks) + blocks) + 64 * samples * size**2
    if need > MOST_BYTES:
        raise ValueError(
            f"`{name}` is {length:,} tokens and `samples` {samples:,}, which needs about {need / 1e9:,.0f} GB; "
            f"expected at most {MOST_BYTES / 1e9:.0f} GB, so make them smaller."
        )


def conditioning_on(
    model: EnergyDLLM, given: Given, evidence: AbstractEvidence | None, opening: AbstractEvidence | None = None
) -> tuple[Conditioning, Matching | None]:
    """Given tokens, and what is known of those behind them (`opening`), and evidence joined, if they are consistent;
    and the patterns as one."""
    others, matching = split_evidence(evidence, given.length)
    others = opening if others is None else others if opening is None else others + opening
    plain = Conditioning(given, others)
    sources: list[tuple[str, AbstractEvidence]] = [("the given text", given)] if np.asarray(given.known).any() else []
    if others is not None:  # a text alone contradicts nothing
        check_consistent(model, [*sources, ("", others)])
    if matching is None:
        return plain, None
    ahead(matching, field(model, plain))
    return Conditioning(given, others, DFA.of(matching.automaton)), matching


def field(model: EnergyDLLM, evidence: AbstractEvidence) -> Float[np.ndarray, "L V"]:
    """`b (L, V)` of the evidence as numbers: compiled as one program, since its operations one by one are ten."""
    try:
        b = np.asarray(_field(model.energy.vocabulary.codes, evidence))
    except eqx.EquinoxRuntimeError as error:  # a check of its own, of values
        fault = next((line for line in str(error).splitlines() if "`" in line), str(error))
        raise ValueError(f"`evidence` is refused: {fault.strip()}") from error
    if not np.isfinite(b).all():
        raise ValueError(f"`evidence`, a {type(evidence).__name__}, has a NaN or an infinity; expected finite numbers.")
    return b


@eqx.filter_jit
def _field(codes, evidence):
    return evidence.field(codes)

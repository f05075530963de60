"""Validating evidence: what a sampler conditions on, or `ValueError` where it is contradictory."""

import functools
import operator
from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from .._model import EnergyDLLM
from ..energy import DFA
from ..flow import FORBIDDEN, AbstractEvidence, Conditioning, Evidences, Given, Matching


def split_evidence(evidence: AbstractEvidence | None, length: int) -> tuple[AbstractEvidence | None, Matching | None]:
    """Evidence about single tokens, and one automaton for all patterns."""
    if evidence is None:
        return None, None
    if evidence.length != length:
        raise ValueError(
            f"`evidence` is about {evidence.length} tokens; the passage has {length}, so give evidence of that length."
        )
    sources = evidence.sources if isinstance(evidence, Evidences) else (evidence,)
    automata = [source for source in sources if isinstance(source, Matching)]
    rest = tuple(source for source in sources if not isinstance(source, Matching))
    others = Evidences(rest) if len(rest) > 1 else rest[0] if rest else None
    return others, functools.reduce(operator.and_, automata) if automata else None


def check_consistent(model: EnergyDLLM, sources: Sequence[tuple[str, AbstractEvidence]]) -> None:
    """`ValueError` if two pieces of evidence exclude every token at some place, naming both."""
    flat = [
        (name or type(part).__name__, part)
        for name, source in sources
        for part in (source.sources if isinstance(source, Evidences) else (source,))
    ]
    open = [(name, allowed(field(model, source))) for name, source in flat]
    for n, (one, here) in enumerate(open):
        for two, there in open[:n]:
            excluded = np.flatnonzero(~(here & there).any(axis=-1))
            if excluded.size:
                raise ValueError(
                    f"{two} and {one} contradict each other at token {excluded[0]}; leave out one of them."
                )


def reachable(matching: Matching, b: Float[np.ndarray, "L V"], start: int = 0) -> Bool[np.ndarray, "places S"]:
    """States from which acceptance can still be reached, at each place and the end; `ValueError` if there is none."""
    made = matching.automaton
    open, reach = allowed(b), np.zeros((len(b) + 1, len(made.accept)), bool)
    reach[-1] = made.accept
    for place in range(len(b) - 1, -1, -1):
        reach[place] = (open[place] & np.append(reach[place + 1], False)[made.next]).any(axis=-1)
    if not reach[0, start]:
        raise ValueError(f"{matching.wanted} cannot be matched with what is given; change one of them.")
    return reach


def conditioning_on(
    model: EnergyDLLM, given: Given, evidence: AbstractEvidence | None
) -> tuple[Conditioning, np.ndarray | None]:
    """Given tokens and evidence joined, if they are consistent; and `reachable` of the automaton."""
    others, matching = split_evidence(evidence, given.length)
    plain = Conditioning(given, others)
    sources: list[tuple[str, AbstractEvidence]] = [("the given text", given)] if np.asarray(given.known).any() else []
    check_consistent(model, sources if others is None else [*sources, ("", others)])
    if matching is None:
        return plain, None
    return Conditioning(given, others, DFA.of(matching.automaton)), reachable(matching, field(model, plain))


def field(model: EnergyDLLM, evidence: AbstractEvidence) -> Float[np.ndarray, "L V"]:
    """The log-likelihoods as numpy array, by one jitted program."""
    return np.asarray(_field(model.energy.vocabulary.codes, evidence))


@eqx.filter_jit
def _field(codes, evidence):
    return evidence.field(codes)


def allowed(b: Float[np.ndarray, "L V"]) -> Bool[np.ndarray, "L V"]:
    """As `flow.Conditioning.allowed`, on arrays of numpy."""
    return b > b.max(axis=-1, keepdims=True) + FORBIDDEN

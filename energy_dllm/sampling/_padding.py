"""Passages padded to a few lengths, so that one compiled program serves all lengths up to the next of them."""

import functools

import equinox as eqx
import numpy as np
from jaxtyping import Array, ArrayLike, Bool

from .._checks import on_device
from .._model import EnergyDLLM
from ..energy import AbstractFreeEnergy
from ..flow import AbstractEvidence, Conditioning, Given, Likelihood
from ._validate import field


LENGTHS = (16, 32, 64, 96, 128, 192, 256)
"""Beyond them the multiples of the half of the last."""


def padded_length(length: int) -> int:
    """The next of `LENGTHS`."""
    more = LENGTHS[-1] // 2
    return next((each for each in LENGTHS if each >= length), -(-length // more) * more)


def within(length: int) -> Bool[Array, " L"]:
    """Which tokens of a passage padded to the next of `LENGTHS` are its own."""
    return _first(length, padded_length(length))


@functools.lru_cache(maxsize=64)
def _first(some: int, of: int) -> Bool[Array, " L"]:
    return on_device(np.arange(of) < some)


def pad(row: ArrayLike, length: int, value: float = 0) -> np.ndarray:
    """An array `(..., L)` filled up along its last axis."""
    row = np.asarray(row)
    return np.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, length - row.shape[-1])], constant_values=value)


def pad_evidence(model: EnergyDLLM, evidence: AbstractEvidence, length: int) -> AbstractEvidence:
    """The evidence, and none about the tokens behind it."""
    return Likelihood(on_device(pad(field(model, evidence).T, length).T))


def pad_conditioning(model: EnergyDLLM, conditioning: Conditioning) -> Conditioning:
    """The padding is given, so that nothing is drawn there; `Padded` gives it no effect."""
    length, given, others = padded_length(conditioning.length), conditioning.given, conditioning.others
    if length == conditioning.length and others is None and conditioning.dfa is None:
        return conditioning
    padded = Given(on_device(pad(given.ids, length)), on_device(pad(given.known, length, True)))
    others, dfa = None if others is None else pad_evidence(model, others, length), conditioning.dfa
    return Conditioning(padded, others, None if dfa is None else dfa.within(within(conditioning.length)))


def can_pad(energy: AbstractFreeEnergy, evidence: AbstractEvidence | None) -> bool:
    """Whether padding changes nothing. A spring is lost in `b`."""
    return getattr(energy, "ragged", False) and (evidence is None or not np.asarray(_spring(evidence)).any())


@eqx.filter_jit
def _spring(evidence):
    return evidence.spring()

"""Samplers: how `generate` and `infill` get from evidence to text.

| sampler | state | motion |
|---|---|---|
| `Unmasking` | some tokens known, the others masked | relaxation; tokens drawn at rest become evidence |
| `Blocks` | blocks that are written, keys and values kept | block after block, each by `Unmasking` or `Diffusion` |
| `BeamSearch` | several beginnings, the likeliest | tokens from left to right, each the likeliest of all |
| `Diffusion` | every token under noise that falls | a flow of `x`, in one `solve` |
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int, PyTree

from .._types import Key, Scalar
from ..energy import AbstractFreeEnergy
from ..flow import AbstractEvidence, AbstractSchedule, Conditioning, Trajectory


Observer = Callable[[AbstractEvidence, Float[Array, "L D"], Conditioning], PyTree[Array]]
"""Records one moment: from all evidence, the hidden state, and the evidence without the noise."""


class AbstractSampler(eqx.Module):
    """A sampler of passages, in a known number of steps.

    To add a sampler, write `clock`, `sigma`, `begin`, `move` and `ending`. All of them act on one passage.

    Two members more save compilation, where a sampler has them. `ragged`: whether a passage may be padded at its end by
    tokens that are given and have no effect, so that one compiled program serves several lengths: whether nothing else
    depends on the length. `traced(dtype)`: the sampler as it is compiled, with arrays for the numbers that need not be
    known, as a temperature.
    """

    @abc.abstractmethod
    def clock(self, schedule: AbstractSchedule) -> Float[Array, " n"]:
        """The times of its steps, the beginning among them."""

    @abc.abstractmethod
    def sigma(self, clock: Float[Array, " n"], length: int) -> Float[Array, " n"]:
        """The noise level of the noisiest of `length` tokens at each; infinite while a token is not known at all."""

    @abc.abstractmethod
    def begin(self, energy: AbstractFreeEnergy, conditioning: Conditioning, time: Scalar, *, key: Key) -> PyTree[Array]:
        """The state at the beginning."""

    @abc.abstractmethod
    def move(
        self,
        energy: AbstractFreeEnergy,
        conditioning: Conditioning,
        state: PyTree[Array],
        clock: Float[Array, " n"],
        numbers: Int[Array, " n"],
        marks: tuple[int, ...],
        observer: Observer,
        *,
        key: Key,
    ) -> Trajectory:
        """From `clock[0]` to `clock[-1]`, the steps `numbers` of the whole, recorded by `observer` at the first, at the
        `marks` among them and at the last: probe `moment` of the trajectory. Step 0 is the beginning; later steps may
        be taken in several calls, each from the end of the one before."""

    @property
    @abc.abstractmethod
    def ending(self) -> str:
        """In words, what it means to have reached the end."""


def changed(sampler: Any, **values: Any) -> Any:
    """A sampler with other values in these fields, unchecked."""
    other = object.__new__(type(sampler))
    for each in dataclasses.fields(sampler):
        object.__setattr__(other, each.name, values.get(each.name, getattr(sampler, each.name)))
    return other

"""The parts of the synapses of a network, by the names of its terms."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from ..energy import AbstractSynapse, FreeEnergy


_Part = TypeVar("_Part")


def parts(energy: FreeEnergy, read: Callable[[AbstractSynapse], Mapping[str, _Part]]) -> dict[str, _Part]:
    """What `read` finds in each synapse by the name of the term, which is that of the synapse if it has only one."""
    synapses = energy.network.synapses.items()
    return {term or name: part for name, synapse in synapses for term, part in read(synapse).items()}

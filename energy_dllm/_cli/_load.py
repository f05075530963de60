"""The MODEL argument of the commands."""

from typing import Any


def load_model(model: str, *, twins: bool = False) -> Any:
    """The model of a file or a shipped name; `ValueError` if it is of another kind."""
    from .._model import EnergyDLLM
    from ..learn import AbstractTwin, load

    loaded = load(model)
    if not isinstance(loaded, (EnergyDLLM, AbstractTwin) if twins else EnergyDLLM):
        raise ValueError(f"`model` {model} is a {type(loaded).__name__}; expected an EnergyDLLM.")
    return loaded

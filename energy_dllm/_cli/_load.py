"""The MODEL argument of the commands, and what the arguments of the library are called on the command line."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def called(**names: str) -> Iterator[None]:
    """Errors of the library name its arguments as they are typed: `called(path="MODEL", samples="--samples")`."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        text = re.sub(r"`(\w+)`", lambda found: f"`{names.get(found[1], found[1])}`", str(error))
        if text == str(error):
            raise
        raise ValueError(text) from error


def load_model(model: str, *, twins: bool = False, name: str = "MODEL") -> Any:
    """The model of a file or a shipped name, an argument `name`; `ValueError` if it is of another kind."""
    from .._model import EnergyDLLM
    from ..learn import AbstractTwin, load

    with called(path=name):
        loaded = load(model)
    if not isinstance(loaded, (EnergyDLLM, AbstractTwin) if twins else EnergyDLLM):
        raise ValueError(f"`{name}` {model} is a {type(loaded).__name__}; expected an EnergyDLLM.")
    return loaded

"""Models on disk: safetensors, with the model's whole structure in the header, and a checksum of all of it.

A file holds arrays and a description of the objects around them, nothing that runs: loading looks up classes of this
package by name, and others among those that the caller passes, and fills their fields. What does not fit is refused
with a sentence that names it.
"""

import importlib.resources
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ._file import FORMAT, PACKAGE, read, write
from ._structure import build, describe, finite, trace


def save(path: str | os.PathLike, model: eqx.Module, *, notes: Mapping[str, Any] | None = None) -> None:
    """Write a model to one safetensors file, whole or not at all.

    A class of your own is saved by its import path if it is a dataclass (every `eqx.Module` is one) whose fields are
    arrays, numbers, strings, lists, tuples, dicts, None, or such classes. `load` then needs it: `classes=[Mine]`.

    **Arguments:**

    - `path`: file to write. A failed save leaves what was there before; a symbolic link stays one.
    - `model`: an `EnergyDLLM`, a twin, or any module made of such classes.
    - `notes`: anything JSON can hold, kept beside the model (data, command, losses).

    **Raises:** `ValueError` if the model has a part that cannot be described, or numbers that are not finite; `OSError`
    if the file cannot be written.

    **Example:**

    ```python
    import jax, os, tempfile, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    ed.save(path, model)
    assert ed.load(path).tokenizer == model.tokenizer
    ```
    """
    structure, arrays = describe(model)
    broken = [place for place, array in arrays.items() if not finite(array)]
    if broken:
        raise ValueError(f"`model` has numbers that are not finite in {broken[0]}; expected finite ones.")
    write(path, arrays, {"format": FORMAT, "structure": structure, "notes": dict(notes or {})})


def load(path: str | os.PathLike, *, classes: Sequence[type] = ()) -> Any:
    """Read a model written by `save`, or one that is shipped, by its name (`"shakespeare"`).

    The `checkpoint.safetensors` of a training that was stopped is read as the model it would have returned then.

    **Arguments:**

    - `path`: a file, or the name of a shipped model.
    - `classes`: classes of your own that the model is made of. No other code than this package's and theirs runs.

    **Returns:** the model, equal bit by bit to the one that was saved.

    **Raises:** `FileNotFoundError` if there is no such file or shipped model; `ValueError` if it is damaged, not a
    model of this package, of another format, needs a class that is not passed, or its arrays do not fit.

    **Example:**

    ```python
    import energy_dllm as ed

    model = ed.load("shakespeare")
    assert model.size == len(model.tokenizer.symbols)
    ```
    """
    arrays, header = read(_locate(path))
    if "structure" not in header:
        raise ValueError(f"`path` {path} holds no model; a training goes on by `ed.fit(..., directory=...)`.")
    try:
        # averages are kept more precisely than the model they are of
        kept = {place: arrays[place].astype(jnp.dtype(kind)) for place, kind in header.get("dtypes", {}).items()}
        arrays |= kept
        model = build(header["structure"], "model", arrays, classes)
        if arrays and "training" not in header:
            raise ValueError(f"nothing uses the array {min(arrays)}; the file was altered.")
        trace(model)
    except Exception as error:  # of whatever is in the file, one sentence
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not isinstance(error, ValueError):
            reason = f"this version cannot build what it describes ({reason}); save it again with this version."
        raise ValueError(f"`path` {path} is refused: {reason}") from error
    return model


def notes(path: str | os.PathLike) -> dict[str, Any]:
    """The notes kept beside a model: data, command, losses.

    **Arguments:**

    - `path`: a file, or the name of a shipped model.

    **Returns:** the dict given to `save`.

    **Raises:** as `load`.

    **Example:**

    ```python
    import energy_dllm as ed

    assert "steps" in ed.learn.notes("shakespeare")
    ```
    """
    return read(_locate(path))[1].get("notes", {})


def shipped() -> list[str]:
    """Names of the models in the package."""
    folder = importlib.resources.files(PACKAGE) / "weights"
    if not folder.is_dir():
        return []
    return sorted(f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors"))


def _locate(path: str | os.PathLike) -> Path:
    if not Path(path).exists() and str(path) in shipped():
        return Path(str(importlib.resources.files(PACKAGE) / "weights" / f"{path}.safetensors"))
    if not Path(path).exists():
        raise FileNotFoundError(
            f"`path` {path} is neither a file nor a shipped model; shipped are: {', '.join(shipped()) or 'none'}."
        )
    return Path(path)

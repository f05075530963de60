"""Models on disk: safetensors, with the model's whole structure in the header, and a checksum of all of it.

A file holds arrays and a description of the objects around them, nothing that runs: loading looks up classes of this
package by name, and others among those that the caller passes, and fills their fields. What does not fit is refused
with a sentence that names it.
"""

import importlib.resources
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx

from .._checks import expected
from ._file import FORMAT, PACKAGE, read, write
from ._hub import download, is_repository, upload
from ._int8 import SCALE, restored, to_int8
from ._steps import FOLDER, read_steps
from ._structure import build, describe, finite, trace


def save(
    path: str | os.PathLike, model: eqx.Module, *, notes: Mapping[str, Any] | None = None, int8: bool = False
) -> None:
    """Write a model to one safetensors file, whole or not at all.

    A class of your own is saved by its import path if it is a dataclass (every `eqx.Module` is one) whose fields are
    arrays, numbers, strings, lists, tuples, dicts, None, or such classes. `load` then needs it: `classes=[Mine]`.

    **Arguments:**

    - `path`: file to write. A failed save leaves what was there before; a symbolic link stays one.
    - `model`: an `EnergyDLLM`, a twin, or any module made of such classes.
    - `notes`: anything JSON can hold, kept beside the model (data, command, losses).
    - `int8`: matrices `w` of 24 rows and 32 bits or more as `scale q`, `q` of one byte, one scale for each channel:
      about 0.28 of the size. `load` gives them their former dtype; saved again with `int8`, what it read gives the
      same bytes.

    **Raises:** `ValueError` if `path` is none, the model has a part that cannot be described, numbers that are not
    finite, or `notes` that JSON cannot hold; `OSError` if the file cannot be written.

    **Example:**

    ```python
    import jax, os, tempfile, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    ed.save(path, model)
    assert ed.load(path).tokenizer == model.tokenizer
    ```
    """
    expected(path=(path, (str, os.PathLike), '"model.safetensors", as in save("model.safetensors", model)'))
    structure, arrays = describe(model)
    broken = [place for place, array in arrays.items() if not finite(array)]
    if broken:
        raise ValueError(f"`model` has numbers that are not finite in {broken[0]}; expected finite ones.")
    try:
        header = {"format": FORMAT, "structure": structure, "notes": json.loads(json.dumps(dict(notes or {})))}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`notes` has what JSON cannot hold ({error}); expected numbers, texts, lists and dicts, such as "
            "`float(loss)`."
        ) from None
    if int8:
        arrays, header["dtypes"] = to_int8(arrays)
    write(path, arrays, header)


def save_to_hub(
    repository: str, model: eqx.Module, *, notes: Mapping[str, Any] | None = None, int8: bool = False
) -> str:
    """Put a model on the Hugging Face hub: the file of `save`, and a model card with its metadata and notes.

    Who you are is what `hf auth login` or the variable `HF_TOKEN` says.

    **Arguments:**

    - `repository`: `org/name`; made if it does not exist.
    - `model`, `notes`, `int8`: as for `save`; `notes["license"]` becomes that of the card.

    **Returns:** the address.

    **Raises:** as `save`; `ValueError` for another form of name, `OSError` if the hub refuses it or is out of reach,
    `ImportError` without the extra `hub`.

    **Example:**

    ```text
    ed.learn.save_to_hub("me/sonnets", model, notes={"data": "154 sonnets", "license": "cc0-1.0"})
    ed.load("me/sonnets")
    ```
    """
    kept = dict(notes or {})
    return upload(repository, model, kept, lambda path: save(path, model, notes=kept, int8=int8))


def load(path: str | os.PathLike, *, classes: Sequence[type] = ()) -> Any:
    """Read a model written by `save`, one that is shipped, by its name (`"shakespeare"`), or one of the Hugging Face
    hub (`"org/name"`, extra `hub`), which is downloaded once.

    The `checkpoint.safetensors` of a training that was stopped is read as the model it would have returned then, and so
    is the folder of one on a mesh, by its last sharded checkpoint (extra `distributed`).

    **Arguments:**

    - `path`: a file, the name of a shipped model, or `org/name`.
    - `classes`: classes of your own that the model is made of. No other code than this package's and theirs runs.

    **Returns:** the model, equal bit by bit to the one that was saved.

    **Raises:** `FileNotFoundError` if there is no such file or model; `ValueError` if it is damaged, not a model of
    this package, of another format, needs a class that is not passed, or its arrays do not fit; `ImportError` without
    the extra.

    **Example:**

    ```python
    import energy_dllm as ed

    model = ed.load("shakespeare")
    assert model.size == len(model.tokenizer.symbols)
    ```
    """
    arrays, header = _read(path)
    if "structure" not in header:
        raise ValueError(f"`path` {path} holds no model; a training goes on by `ed.fit(..., directory=...)`.")
    try:
        # averages are kept more precisely than the model they are of, and int8 less so
        arrays = restored(arrays, header.get("dtypes", {}))
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
    return _read(path)[1].get("notes", {})


def stored(path: str | os.PathLike) -> dict[str, int]:
    """Bytes of a model's file by part: of the arrays that each object in it holds, and of the description around them.

    **Arguments:**

    - `path`: a file, or the name of a shipped model.

    **Returns:** bytes by the place of the object, `description`, and `all`, the size of the file.

    **Raises:** as `load`.

    **Example:**

    ```python
    import energy_dllm as ed

    parts = ed.learn.stored("shakespeare")
    assert parts.pop("all") == sum(parts.values()) > parts["energy.vocabulary"]
    ```
    """
    path = _locate(path)
    parts: dict[str, int] = {}
    for place, array in read(path)[0].items():
        part = place.removesuffix(SCALE).rpartition(".")[0].removeprefix("model.") or "model"
        parts[part] = parts.get(part, 0) + array.nbytes
    whole = path.stat().st_size
    return {**parts, "description": whole - sum(parts.values()), "all": whole}


def shipped() -> list[str]:
    """Names of the models in the package, each of which `load` takes.

    **Example:**

    ```python
    import energy_dllm as ed

    assert {"digits", "shakespeare", "stories"} <= set(ed.learn.shipped())
    ```
    """
    folder = importlib.resources.files(PACKAGE) / "weights"
    if not folder.is_dir():
        return []
    return sorted(f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors"))


def _read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    return read_steps(Path(path)) if (Path(path) / FOLDER).is_dir() else read(_locate(path))


def _locate(path: str | os.PathLike) -> Path:
    if not Path(path).exists() and str(path) in shipped():
        return Path(str(importlib.resources.files(PACKAGE) / "weights" / f"{path}.safetensors"))
    if not Path(path).exists() and is_repository(str(path)):
        return download(str(path))
    if not Path(path).exists():
        raise FileNotFoundError(
            f"`path` {path} is neither a file nor a shipped model; shipped are: {', '.join(shipped()) or 'none'}."
        )
    return Path(path)

"""Models on disk: safetensors, with the model's whole structure in the header.

A file holds arrays and a description of the objects around them, nothing that runs: loading looks up public classes
of this package by name and fills their fields. What does not fit is refused with a sentence that says what.
"""

import dataclasses
import importlib
import importlib.resources
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import safetensors
import safetensors.numpy

from .._checks import on_device


FORMAT = "energy_dllm 2"
_PACKAGE = __name__.split(".")[0]
_MOVED = {
    "energy.Chain": "energy.NGram",
    "energy.Lines": "energy.PairHMMMixture",
    "energy.MarkovVocabulary": "energy.HMMVocabulary",
    "energy.Product": "energy.ProductOfExperts",
    "_memory.TextMemory": "memory.TextMemory",
}
"""Addresses of classes in files that earlier versions wrote, and those of today."""
_MOVED |= {
    f"energy.{name}Memory": f"memory.{name}Memory"
    for name in (
        *("Exponential", "Gaussian", "Hopfield", "Kernel", "LogSumExp", "Polynomial", "PositiveFeature", "Sequence"),
        *("Simplicial", "Token", "TrigonometricFeature"),
    )
}
_FIELDS = {
    "energy.HMMVocabulary": {"start": "initial", "moves": "transition", "tokens": "emission"},
    "energy.PairHMMMixture": {"chain": "background"},
}
"""Fields that were renamed, by the address of their class today."""


def save(path: str | os.PathLike, model: eqx.Module, *, notes: Mapping[str, Any] | None = None) -> None:
    """Write a model to one safetensors file, whole or not at all.

    **Arguments:**

    - `path`: file to write. A failed save leaves what was there before.
    - `model`: an `EnergyDLLM`, a twin, or any module made of this package's classes.
    - `notes`: anything JSON can hold, kept beside the model (data, command, losses).

    **Raises:** `ValueError` if the model has a part that is not of this package.

    **Example:**

    ```python
    import jax, os, tempfile, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    ed.save(path, model)
    assert ed.load(path).tokenizer == model.tokenizer
    ```
    """
    arrays: dict[str, np.ndarray] = {}
    structure = _describe(model, "model", arrays)
    write(path, arrays, {"format": FORMAT, "structure": structure, "notes": dict(notes or {})})


def load(path: str | os.PathLike) -> Any:
    """Read a model written by `save`, or one that is shipped, by its name (`"shakespeare"`).

    **Arguments:**

    - `path`: a file, or the name of a shipped model.

    **Returns:** the model, equal bit by bit to the one that was saved.

    **Raises:** `FileNotFoundError` if there is no such file or shipped model; `ValueError` if it is truncated, not a
    model of this package, of another format, or its arrays do not fit.

    **Example:**

    ```python
    import energy_dllm as ed

    model = ed.load("shakespeare")
    assert model.size == len(model.tokenizer.symbols)
    ```
    """
    arrays, header = read(_locate(path))
    if header.get("format") != FORMAT:
        raise ValueError(f"`path` {path} has format {header.get('format')!r}; this version reads {FORMAT!r}.")
    try:
        return _build(header["structure"], arrays)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`path` {path} describes a model this version cannot build ({error}); save it again with this version."
        ) from error


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


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Write arrays and a JSON header to a safetensors file, whole or not at all."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"`path` {path} is a folder; expected a file name such as model.safetensors.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        data = {name: np.array(array, order="C") for name, array in arrays.items()}
        safetensors.numpy.save_file(data, temporary, metadata={_PACKAGE: json.dumps(header)})
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # safetensors writes for the owner alone
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and JSON header of a file written by `write`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` {path} is not a file; expected a model written by `save`.")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise ValueError(
            f"`path` {path} is truncated or not a safetensors file ({error}); expected one written by `save`."
        ) from error
    if _PACKAGE not in metadata:
        raise ValueError(f"`path` {path} is a safetensors file of something else; expected one written by `save`.")
    try:
        return arrays, json.loads(metadata[_PACKAGE])
    except json.JSONDecodeError as error:
        raise ValueError(f"`path` {path} has a damaged header ({error}); expected one written by `save`.") from error


def shipped() -> list[str]:
    """Names of the models in the package."""
    folder = importlib.resources.files(_PACKAGE) / "weights"
    if not folder.is_dir():
        return []
    return sorted(f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors"))


def _locate(path: str | os.PathLike) -> Path:
    if not Path(path).exists() and str(path) in shipped():
        return Path(str(importlib.resources.files(_PACKAGE) / "weights" / f"{path}.safetensors"))
    if not Path(path).exists():
        raise FileNotFoundError(
            f"`path` {path} is neither a file nor a shipped model; shipped are: {', '.join(shipped()) or 'none'}."
        )
    return Path(path)


def _describe(value: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """JSON for one object; its arrays go to `arrays` under the place they were found."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (jax.Array, np.ndarray)):
        arrays[place] = np.asarray(value)
        return {"array": place, "shape": list(value.shape), "dtype": str(value.dtype)}
    if isinstance(value, (list, tuple)):
        items = [_describe(v, f"{place}.{i}", arrays) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict):
        return {"dict": {k: _describe(v, f"{place}.{k}", arrays) for k, v in value.items()}}
    if dataclasses.is_dataclass(value) and type(value).__module__.split(".")[0] == _PACKAGE:
        fields = {
            f.name: _describe(getattr(value, f.name), f"{place}.{f.name}", arrays) for f in dataclasses.fields(value)
        }
        return {"class": _address(type(value)), "fields": fields}
    raise ValueError(f"`model` holds a {type(value).__name__} at {place}; expected classes of {_PACKAGE} only.")


def _address(cls: type) -> str:
    module = cls.__module__.removeprefix(f"{_PACKAGE}.")
    room = module.split(".")[0]
    if getattr(importlib.import_module(f"{_PACKAGE}.{room}"), cls.__name__, None) is cls:
        return f"{room}.{cls.__name__}"
    return f"{module}.{cls.__name__}"


def _class(address: str) -> type:
    module, _, name = address.rpartition(".")
    if not module or not all(part.isidentifier() for part in address.split(".")):
        raise ValueError(f"the file names the class {address!r}, which is not one of {_PACKAGE}.")
    try:
        cls = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the file needs {address!r}, which this version of {_PACKAGE} does not have.") from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__.startswith(_PACKAGE)):
        raise ValueError(f"the file names {address!r}, which is not a class of {_PACKAGE}.")
    return cls


def _build(spec: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(spec, dict):
        return spec
    if "array" in spec:
        array = arrays[spec["array"]]
        if list(array.shape) != spec["shape"] or str(array.dtype) != spec["dtype"]:
            raise ValueError(
                f"the array {spec['array']} is {array.dtype}{list(array.shape)}; the file's own description says "
                f"{spec['dtype']}{spec['shape']}; the file was altered."
            )
        return on_device(array)
    if "tuple" in spec:
        return tuple(_build(item, arrays) for item in spec["tuple"])
    if "list" in spec:
        return [_build(item, arrays) for item in spec["list"]]
    if "dict" in spec:
        return {name: _build(item, arrays) for name, item in spec["dict"].items()}
    address: str = _MOVED.get(spec["class"]) or spec["class"]
    renamed: dict[str, str] = _FIELDS.get(address) or {}
    cls = _class(address)
    fields: dict[str, Any] = {renamed.get(name) or name: value for name, value in spec["fields"].items()}
    names = [field.name for field in dataclasses.fields(cls)]
    if set(names) != set(fields):
        raise ValueError(f"the file's {address} has fields {sorted(fields)}; this version's has {sorted(names)}.")
    # Fields are filled, constructors do not run: what was saved is what comes back.
    value = object.__new__(cls)
    for name in names:
        object.__setattr__(value, name, _build(fields[name], arrays))
    for check in (getattr(base, "__check_init__", None) for base in cls.__mro__ if "__check_init__" in vars(base)):
        check(value)  # pyright: ignore
    return value

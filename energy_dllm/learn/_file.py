"""Arrays and a JSON header in one safetensors file: written whole or not at all, read as written or not at all."""

import hashlib
import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from .._files import replace


FORMAT = "energy_dllm 3"
WITHOUT_CHECKSUM = "energy_dllm 2"
PACKAGE = __name__.split(".")[0]
_CHECKSUM = "sha256"


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Write arrays and a JSON header to a safetensors file, whole or not at all."""
    data = {name: np.array(array, order="C") for name, array in arrays.items()}
    # one entry: of several the order would be another in every process
    text = json.dumps({**header, _CHECKSUM: _checksum(data, header)})
    content = safetensors.numpy.save(data, {PACKAGE: text})
    replace(Path(path), content, "model.safetensors")


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and JSON header of a file written by `write`, which are as they were written."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` {path} is not a file; expected a model written by `save`.")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:
        raise ValueError(
            f"`path` {path} is truncated or not a safetensors file ({error}); expected one written by `save`."
        ) from error
    if PACKAGE not in metadata:
        raise ValueError(f"`path` {path} is a safetensors file of something else; expected one written by `save`.")
    try:
        header = json.loads(metadata[PACKAGE])
        if not isinstance(header, dict):
            raise ValueError(f"it is {reprlib.repr(header)}, not an object")
        found, computed = header.pop(_CHECKSUM, None), _checksum(arrays, header)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`path` {path} has a damaged header ({error}); expected one written by `save`.") from error
    if header.get("format") not in (FORMAT, WITHOUT_CHECKSUM):
        raise ValueError(f"`path` {path} has format {header.get('format')!r}; this version reads {FORMAT!r}.")
    if (found is not None or header["format"] == FORMAT) and found != computed:
        raise ValueError(f"`path` {path} was changed after it was saved: its checksum differs; take another copy.")
    return arrays, header


def _checksum(arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> str:
    """Changes with the header, and with every array's name, dtype, shape and bytes."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

"""Arrays and a JSON header in one safetensors file: written whole or not at all, read as written or not at all."""

import contextlib
import glob
import hashlib
import json
import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy


FORMAT = "energy_dllm 3"
WITHOUT_CHECKSUM = "energy_dllm 2"
PACKAGE = __name__.split(".")[0]
_CHECKSUM = "sha256"


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Write arrays and a JSON header to a safetensors file, whole or not at all."""
    path = Path(os.path.realpath(path))  # a link stays, what it points to is replaced
    if path.is_dir():
        raise ValueError(f"`path` {path} is a folder; expected a file name such as model.safetensors.")
    if path.exists() and not path.is_file():
        raise ValueError(f"`path` {path} is a device or a pipe; expected a file name such as model.safetensors.")
    data = {name: np.array(array, order="C") for name, array in arrays.items()}
    # one entry: of several the order would be another in every process
    text = json.dumps({**header, _CHECKSUM: _checksum(data, header)})
    content = safetensors.numpy.save(data, {PACKAGE: text})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"`path` {path} cannot be written ({error.strerror or error}); what was there is kept, so make room or "
            "choose another place."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sweep(path: Path) -> None:
    """Remove what saves of this file have left whose process was killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            if not _alive(int(left.name.split(".")[-2])):
                left.unlink()


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


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


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder is locked for one training; the system lifts the lock when its owner ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # a system without such locks
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"`directory` {folder} is in use by another training; wait for its end, or give another folder."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)

"""Places where results go, tried before the work that makes them."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path


MODEL = ".safetensors"
"""How the name of a file of a model ends."""
NETLIST = ".cir"
_MADE: list[Path] = []
"""Folders that `ready` made for the command that runs."""


@contextlib.contextmanager
def tidy() -> Iterator[None]:
    """Folders that `ready` made are removed if the command fails, and nothing is in them."""
    _MADE.clear()
    try:
        yield
    except BaseException:
        for folder in sorted(_MADE, key=lambda folder: -len(folder.parts)):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def ready(flag: str, path: Path, example: str, *, folder: bool = False, reads: Sequence[object] = ()) -> None:
    """`ValueError` if nothing can be written there, or what is there would be lost; its folder is made.

    **Arguments:**

    - `flag`: what the command line calls it.
    - `path`: the file, or the `folder` of several.
    - `example`: a name that would do.
    - `reads`: what the command reads, names of files among it: none of them is replaced. Nor is any file by a model
      that is none, or by a netlist.
    """
    if not folder and path.is_dir():
        raise ValueError(f"`{flag}` {path} is a folder; expected a file name, such as {example}.")
    if path.exists() and not path.is_dir() and (folder or not path.is_file()):
        kind = "a file; expected a folder" if folder else "a device or a pipe; expected a file name"
        raise ValueError(f"`{flag}` {path} is {kind}, such as {example}.")
    if path.is_file() and any(os.path.exists(str(name)) and path.samefile(str(name)) for name in reads):
        raise ValueError(
            f"`{flag}` {path} is what is read, and would be lost; expected another name, such as {example}."
        )
    if example.endswith(MODEL) and path.is_file() and not _is_model(path):
        raise ValueError(f"`{flag}` {path} is there, and no model; expected another name, such as {example}.")
    if example.endswith(NETLIST) and path.is_file() and not _is_netlist(path):
        raise ValueError(f"`{flag}` {path} is there, and no netlist; expected another name, such as {example}.")
    place = path if folder else Path(os.path.realpath(path)).parent
    _MADE.extend(each for each in (place, *place.parents) if not each.exists())
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place) as trial:
            trial.write(b"trial")
            trial.flush()
        if path.is_file() and not os.access(path, os.W_OK):
            raise PermissionError(None, "it is read-only")
    except OSError as error:
        raise ValueError(
            f"`{flag}` {path} cannot be written ({error.strerror or error}); make room there, or choose another place."
        ) from error


def _is_model(path: Path) -> bool:
    """Whether a file begins as those of safetensors do, or is empty."""
    with open(path, "rb") as file:
        begin = file.read(9)
    return not begin or begin[8:] == b"{"


def _is_netlist(path: Path) -> bool:
    """Whether a file begins as netlists do, or is empty."""
    with open(path, "rb") as file:
        return file.read(1) in (b"*", b"")

"""Places where results go, tried before the work that makes them."""

import os
import tempfile
from pathlib import Path


def ready(flag: str, path: Path, example: str, *, folder: bool = False) -> None:
    """`ValueError` if nothing can be written there; its folder is made.

    **Arguments:**

    - `flag`: what the command line calls it.
    - `path`: the file, or the `folder` of several.
    - `example`: a name that would do.
    """
    if not folder and path.is_dir():
        raise ValueError(f"`{flag}` {path} is a folder; expected a file name, such as {example}.")
    if path.exists() and not path.is_dir() and (folder or not path.is_file()):
        kind = "a file; expected a folder" if folder else "a device or a pipe; expected a file name"
        raise ValueError(f"`{flag}` {path} is {kind}, such as {example}.")
    place = path if folder else Path(os.path.realpath(path)).parent
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

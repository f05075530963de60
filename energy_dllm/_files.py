"""Files that are written whole or not at all, and folders that one of those who write has for itself."""

import contextlib
import contextvars
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path


_LENT: contextvars.ContextVar[tuple[tuple[int, int], ...]] = contextvars.ContextVar("lent", default=())


@contextlib.contextmanager
def writing(name: str, path: object, advice: str) -> Iterator[None]:
    """What the system refuses, such as a disk that is full, in one sentence that names the argument."""
    try:
        yield
    except OSError as error:
        raise OSError(f"`{name}` {path} cannot be written ({error.strerror or error}); {advice}") from error


def replace(path: Path, content: bytes, kind: str) -> None:
    """Write a file whole or not at all: a link stays one, and a file that is replaced hands on its permissions.

    `kind` is a name of such a file, as an example.
    """
    path = Path(os.path.realpath(path))  # a link stays, what it points to is replaced
    if path.is_dir():
        raise ValueError(f"`path` {path} is a folder; expected a file name such as {kind}.")
    if path.exists() and not path.is_file():
        raise ValueError(f"`path` {path} is a device or a pipe; expected a file name such as {kind}.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing("path", path, "what was there is kept, so make room or choose another place."):
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path)
            with open(temporary, "wb") as file:
                if path.exists():
                    os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
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


@contextlib.contextmanager
def alone(folder: Path, name: str = "directory", work: str = "training", *, lend: bool = False) -> Iterator[None]:
    """The folder is made, and locked for one of those who write there; the system lifts the lock when its owner ends,
    however it ends.

    **Arguments:**

    - `name`, `work`: the argument that a message names, and what another one would be.
    - `lend`: what is called inside may ask for the same folder again.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"`{name}` {folder} is a file or below one; expected a folder, give another name.") from None
    except OSError as error:
        raise OSError(f"`{name}` {folder} cannot be made ({error.strerror}); choose another place.") from error
    about = folder.stat()
    this = (about.st_dev, about.st_ino)
    try:
        import fcntl
    except ImportError:  # a system without such locks
        fcntl = None
    if fcntl is None or this in _LENT.get():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    before = _LENT.set((*_LENT.get(), this) if lend else _LENT.get())
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"`{name}` {folder} is in use by another {work}; wait for its end, or give another folder."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        _LENT.reset(before)
        os.close(descriptor)

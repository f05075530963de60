import ast
import hashlib
import importlib.util
import sysconfig
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ._corpus import Corpus
from ._tokenizer import AbstractTokenizer, Characters


_PACKAGES = ("jax", "numpy", "scipy", "equinox", "diffrax", "optax")
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "_vendor", "__pycache__"}
_ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
_PLAIN = str.maketrans(dict(zip("‘’“”–—−×·\t", "''\"\"---x* ", strict=True)) | {"…": "..."})


def docs_corpus(
    *,
    packages: tuple[str, ...] = _PACKAGES,
    standard_library: bool = True,
    tokenizer: AbstractTokenizer | None = None,
    limit: int | None = 2_000_000,
) -> Corpus:
    """The docstrings of installed packages and of Python itself: English and code on every machine.

    Sources are parsed, never imported, so nothing runs and nothing is downloaded. Whole modules go to train
    (90 %), validation (5 %) or test (5 %) by a hash of their name; a docstring met before is left out, and so
    is, outside of train, every paragraph that train contains. The text depends on the installed versions and
    on nothing else.

    Text is folded to printable ASCII and newlines: accents are dropped, typographic quotes, dashes, dots and
    products become their plain forms, tabs a space, and any other character `?`.

    **Arguments:**

    - `packages`: names of installed top-level packages.
    - `standard_library`: whether to add Python's own library.
    - `tokenizer`: by default the 96 characters text is folded to, whatever is installed.
    - `limit`: stop when train has this many characters (the other parts stay in proportion, and none stays
      empty); `None` reads everything: with the default packages some 9.5 million characters in 20 seconds.

    **Returns:** a `Corpus` named `docs`.

    **Raises:** `ValueError` if a package is not installed, has no sources, or if too few docstrings are
    found.

    **Example:**
    ```python
    from energy_dllm.data import docs_corpus

    corpus = docs_corpus(packages=("optax",), standard_library=False, limit=20_000)
    assert len(corpus.train) == 20_000 and corpus.tokenizer.size == 96
    ```
    """
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1 character, or None for all, got {limit!r}.")
    modules = dict(_modules(packages, standard_library))
    parts: tuple[list[str], ...] = ([], [], [])
    seen: set[str] = set()
    length = 0
    # The order of the hash mixes the packages, so a limit takes some of each.
    for name in sorted(modules, key=_digest):
        part = _part(name)
        for text in _docstrings(modules[name]):
            if text not in seen:
                seen.add(text)
                parts[part].append(text)
                length += (len(text) + 2) * (part == 0)
        if limit is not None and length >= limit and all(parts):
            break
    known: set[str] = set()
    texts = []
    for part in parts:
        fresh = [_without(text, known) for text in part]
        texts.append("\n\n".join(text for text in fresh if text) + "\n\n")
        known.update(paragraph for text in part for paragraph in text.split("\n\n"))
    texts[0] = texts[0][:limit]
    if not all(text.strip() for text in texts):
        raise ValueError(
            f"`packages` {packages!r} and `limit` {limit} give too few docstrings for three parts; "
            "add packages or raise the limit."
        )
    tokenizer = Characters(_ALPHABET) if tokenizer is None else tokenizer
    dtype = np.min_scalar_type(tokenizer.size - 1)
    train, validation, test = (tokenizer.encode(text).astype(dtype) for text in texts)
    return Corpus("docs", tokenizer, train, validation, test)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _part(name: str) -> int:
    # Other bytes than those that decide the order.
    share = int.from_bytes(_digest(name)[-8:], "big") / 2**64
    return 0 if share < 0.9 else 1 if share < 0.95 else 2


def _modules(packages: tuple[str, ...], standard_library: bool) -> Iterator[tuple[str, Path]]:
    """Dotted names of modules and their files."""
    for package in packages:
        # A name without a dot is located without importing anything.
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        places = list(spec.submodule_search_locations or ()) if spec else []
        if not places:
            raise ValueError(
                f"`packages` names {package!r}, which is not an installed top-level package; "
                "install it or leave it out."
            )
        for place in places:
            yield from _walk(Path(place), package + ".")
    if standard_library:
        yield from _walk(Path(sysconfig.get_path("stdlib")), "")


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py":
            yield prefix + path.stem, path
        elif path.name.isidentifier() and path.name not in _SKIPPED and path.is_dir():
            yield from _walk(path, f"{prefix}{path.name}.")


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    # Docstrings sit in bodies of statements only: looking nowhere else halves the time.
    stack: list[ast.stmt | ast.Module] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = _fold(ast.get_docstring(node) or "")
            if text:
                yield text
        stack += reversed(getattr(node, "body", []))


def _fold(text: str) -> str:
    if not text.isascii():
        letters = unicodedata.normalize("NFKD", text.translate(_PLAIN))
        text = "".join(c if c.isascii() else "?" for c in letters if not unicodedata.combining(c))
    lines = (line.translate(_PLAIN).rstrip() for line in text.splitlines())
    lines = ("".join(c if c.isprintable() else "?" for c in line) for line in lines)
    return "\n".join(lines).strip()


def _without(text: str, known: set[str]) -> str:
    return "\n\n".join(paragraph for paragraph in text.split("\n\n") if paragraph not in known)

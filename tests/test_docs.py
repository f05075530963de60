"""What a reader is shown runs as written: every ```python block alone in an empty folder, and every command line."""

import argparse
import ast
import importlib.util
import inspect
import io
import re
import shlex
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import families
import jax
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm import _cli


pytestmark = pytest.mark.example

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```python\b[^\n]*\n(?P<code>.*?)^(?P=indent)```[ ]*$", re.M | re.S)
OWNERS = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """The fenced blocks of a text, each with the number of lines above its first line of code."""
    for match in FENCE.finditer(text):
        yield text.count("\n", 0, match.start("code")), textwrap.dedent(match["code"])


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, OWNERS) and ast.get_docstring(node, clean=False):
            first = node.body[0]
            assert isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            yield first.lineno - 1, str(first.value.value)


def collect() -> list:
    found = []
    texts = [(page, 0, page.read_text()) for page in PAGES]
    for file in sorted((ROOT / "energy_dllm").rglob("*.py")):
        texts += [(file, above, text) for above, text in docstrings(file)]
    for file, above, text in texts:
        for line, code in blocks(text):
            name = f"{file.relative_to(ROOT)}:{above + line + 1}"
            found.append(pytest.param(file, above + line, code, id=name))
    return found


@pytest.mark.parametrize(("file", "above", "code"), collect())
def test_example_runs(file: Path, above: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    # Blank lines in front, so that a traceback shows the line of the file itself.
    exec(compile("\n" * above + code, str(file), "exec"), {"__name__": "__main__"})


def test_blocks_are_found():
    text = "a\n```python\nx = 1\n```\n"
    text += "    ```python title='t'\n    if x:\n        y\n    ```\n```bash\nls\n```\n"
    assert list(blocks(text)) == [(2, "x = 1\n"), (5, "if x:\n    y\n")]
    assert any("docs/idea.md" in (param.id or "") for param in collect())


def test_no_block_escapes():
    """A fence that is neither run nor named is most likely an example that rots."""
    for page in PAGES:
        opened = re.findall(r"^ *```(.*)$", page.read_text(), re.M)[::2]
        assert set(opened) <= {"python", "bash", "text", "json", "mermaid"}, f"{page}: {opened}"


# ---------------------------------------------------------------------------------------------------- command lines

SHELL = re.compile(r"^ *```bash\n(.*?)^ *```", re.M | re.S)
SPAN = re.compile(r"`((?:energy-dllm [a-z]+|python (?:benchmarks|examples)/\w+\.py) [^`]+)`")
LINE = re.compile(r"^ *((?:(?:echo [^|\n]+\| )?energy-dllm [a-z]+|python (?:benchmarks|examples)/\w+\.py)\b.*)$", re.M)
OLD = {ROOT / "docs" / "log.md"}
"""Pages that say what was once done, with the commands of that day."""

SMALLER = {
    "train": "--steps 2 --dim 16 --length 8 --batch-size 4",
    "train --init": "--steps 2 --init my.safetensors --length 8 --batch-size 4",
    "inspect": "--length 8 --steps 4",
    "evaluate": "--length 16 --windows 2",
    "serve": "--lengths 16 --port 0",
}
"""Settings with which commands that take minutes are run here; as written they are parsed."""

ELSEWHERE = {
    "pip install": "installs; `.ci/run` runs the two of the README in fresh environments",
    "pytest": "is what runs this; `.ci/run` runs both",
    "ruff": "`.ci/run` runs it",
    "pyright": "`.ci/run` runs it",
    "docker compose": "needs docker; tests/test_architecture.py compares what it installs with the package",
    "mkdocs": "`.ci/run` runs it",
    "python benchmarks/": "measures for minutes to hours, some on texts that are not in the project",
    "python examples/": "tests/test_examples.py runs each, on a small model",
}
"""Commands that are not run here, and why. Options of the last two are parsed, extras of the first looked up."""


def commands() -> dict[str, str]:
    """Every command line that a reader is shown, and one place where it stands."""
    found: dict[str, str] = {}

    def add(line: str, place: Path) -> None:
        words = shlex.split(line, comments=True)
        for part in " ".join(map(shlex.quote, words)).replace("'&&'", "&&").split(" && "):
            if part:
                found.setdefault(part, str(place.relative_to(ROOT)))

    for page in PAGES:
        if page not in OLD:
            text = page.read_text()
            for block in SHELL.findall(text):
                for line in textwrap.dedent(block).replace("\\\n", " ").splitlines():
                    add(line, page)
            for span in SPAN.findall(re.sub(r"```.*?```", "", text, flags=re.S)):
                add(" ".join(span.split()), page)
    for folder in ("energy_dllm", "benchmarks", "examples"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for _, text in docstrings(file):
                for line in LINE.findall(text):
                    add(line, file)
    return found


COMMANDS = commands()
NAMED = {"MODEL": "shakespeare", "DIR": "report", "FILE": "my.txt"}
"""What stands for a name of the reader's own."""
OURS = {
    shlex.join(NAMED.get(word, word) for word in shlex.split(line)): place
    for line, place in COMMANDS.items()
    if line.startswith(("energy-dllm ", "echo "))
}


def smaller(words: list[str]) -> list[str]:
    """With the settings of `SMALLER` in place of those written."""
    kind = "train --init" if "--init" in words else words[0]
    rest = shlex.split(SMALLER.get(kind, ""))
    for flag, value in zip(rest[::2], rest[1::2], strict=True):
        if words[0] != "inspect" or flag != "--steps" or "--check" not in words:
            words = [*words[: words.index(flag)], *words[words.index(flag) + 2 :]] if flag in words else words
            words = [*words, flag, value]
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where commands are run: a text of one's own, another to measure on, and a model of each that is named."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "my.txt").write_text("the cat sees the dog.\n" * 40)
    (folder / "other.txt").write_text("the dog sees the cat.\n" * 40)
    (folder / "prompt.txt").write_text("the dog\n")
    ed.data.tokenize([folder / "my.txt"], folder / "tokens")
    for name, ink in (("digit", slice(6, 22)), ("hole", slice(0, 14))):
        picture = np.zeros((28, 28), np.uint8)
        picture[ink, 12 if name == "digit" else slice(None)] = 255
        ed.data.write_picture(folder / f"{name}.png", picture)
    (folder / "held_out.txt").write_text("To be, or not to be, that is the question.\n" * 8)
    # deep, as `energy-dllm train` makes it, so that commands need no order
    mine = ed.EnergyDLLM(ed.data.Characters("acdeghost .\n"), dim=16, key=jax.random.key(0))
    ed.save(folder / "my.safetensors", mine)
    ed.save(folder / "toy.safetensors", families.small_model("acdeghost .\n", steps=2))
    return folder


@pytest.mark.parametrize("line", OURS)
def test_command_runs(line, folder, monkeypatch, capsys, unchecked):
    words = shlex.split(line)
    if words[0] == "echo":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{words[1]}\n".encode())))
        words = words[words.index("|") + 1 :]
    words = words[1:]
    if "--run" in words and shutil.which("ngspice") is None:
        pytest.skip("ngspice is not installed (apt install ngspice)")
    if "inspect" in words and "--check" not in words and "html" not in line:
        pytest.importorskip("matplotlib")
    _cli.parse(words)  # as written
    if words[0] == "serve":  # tests/test_serve.py starts it, as a process that it ends
        return
    monkeypatch.chdir(folder)
    code = _cli.main(smaller(words))
    out, err = capsys.readouterr()
    # a model that learned for two steps may be unwell
    assert code == 0 or "--check" in words and code == 1, f"{OURS[line]}: {err}"
    assert out and "Traceback" not in err


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith(("energy-dllm ", "echo "))])
def test_other_command_is_accounted_for(line, monkeypatch):
    assert any(line.startswith(known) for known in ELSEWHERE), f"{COMMANDS[line]} says {line!r}, which nothing runs"
    words = shlex.split(line)
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = re.findall(r"\[(.*?)\]", line)
        assert all(extra in extras for group in asked for extra in group.split(","))
    if words[0] == "python":
        parsed(ROOT / words[1], words[2:], monkeypatch)


def parsed(file: Path, words: list[str], monkeypatch) -> None:
    """The script takes these words; it is stopped before it begins."""

    class Parsed(Exception):
        pass

    def stop(parser, args=None, namespace=None):
        rest = parser.parse_known_args(words)[1]
        assert not rest, f"{file.name} does not know {rest}"
        raise Parsed

    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.setattr(sys, "argv", [str(file), *words])
    source = file.read_text()
    if "argparse" not in source:  # words go to `main` as they are, or nobody reads them
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        inspect.signature(module.main).bind(*words)
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(Parsed):
        exec(compile(source, str(file), "exec"), {"__name__": "__main__", "__file__": str(file), "__doc__": ""})


def test_commands_are_found():
    assert "energy-dllm generate" in COMMANDS and "pip install ." in COMMANDS
    assert any(line.startswith("python benchmarks/writing.py budget") for line in COMMANDS)
    for command in _cli.COMMANDS.values():
        examples = LINE.findall(command.__doc__ or "")
        assert examples and all(shlex.join(shlex.split(line)) in COMMANDS for line in examples)

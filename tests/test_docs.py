"""Every ```python block of a docstring, of README.md and of docs/ runs, alone, in an empty folder."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest


pytestmark = pytest.mark.example

ROOT = Path(__file__).resolve().parents[1]
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
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = [(page, 0, page.read_text()) for page in pages if page.exists()]
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
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        if page.exists():
            opened = re.findall(r"^ *```(.*)$", page.read_text(), re.M)[::2]
            assert set(opened) <= {"python", "bash", "text", "json", "mermaid"}, f"{page}: {opened}"

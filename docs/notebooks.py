"""A page of the site for each notebook of `examples/`, with the outputs that are kept in it."""

import json
from pathlib import Path

from mkdocs.structure.files import File, Files


FOLDER = Path(__file__).resolve().parents[1] / "examples"


def page(path: Path) -> str:
    """A notebook as Markdown: its text, its code, what the code printed, and its figures."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            else:
                parts.append(
                    f'<img alt="drawn by the code above" src="data:image/png;base64,{output["data"]["image/png"]}">'
                )
    name = path.name
    parts.append(
        f"*This is the notebook `examples/{name}`, as `python benchmarks/notebooks.py examples/{name}` ran it.*"
    )
    return "\n\n".join(parts) + "\n"


def on_files(files: Files, config) -> Files:
    """The event of MkDocs at which pages are added."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page(path)))
    return files

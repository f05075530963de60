"""Executes the notebooks of `examples/` and keeps what they print and draw, so that they are read with their results.

    python benchmarks/notebooks.py
    python benchmarks/notebooks.py examples/memories.ipynb

Needs no Jupyter: cells run one after the other in one namespace, as `tests/test_examples.py` runs them.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def execute(notebook: dict[str, Any]) -> None:
    """Run every code cell; what it printed and the figures it left open are its outputs."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        outputs: list[dict[str, Any]] = []
        if printed.getvalue():
            lines = printed.getvalue().splitlines(keepends=True)
            outputs.append({"output_type": "stream", "name": "stdout", "text": lines})
        for figure in map(plt.figure, plt.get_fignums()):
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=80, bbox_inches="tight")
            image = base64.b64encode(file.getvalue()).decode()
            outputs.append({"output_type": "display_data", "metadata": {}, "data": {"image/png": image}})
        plt.close("all")
        cell["execution_count"], cell["outputs"] = number, outputs


def main() -> None:
    """Execute some notebooks, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(__file__).resolve().parents[1] / "examples"
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(folder.glob("*.ipynb")))
    for path in [path.resolve() for path in parser.parse_args().notebooks]:
        notebook = json.loads(path.read_text())
        with tempfile.TemporaryDirectory() as empty:
            os.chdir(empty)
            execute(notebook)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        print(path.name, sum(len(cell.get("outputs", [])) for cell in notebook["cells"]), "outputs")


if __name__ == "__main__":
    main()

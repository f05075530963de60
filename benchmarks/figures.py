"""The pictures of the shipped model in the README and on the pages, made anew: after new weights, all of them.

    python benchmarks/figures.py docs/figures

Figures of `inspect`, and the page it writes, photographed by a headless `chromium` from the PATH, by day and by night.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from page import FLAGS

import energy_dllm as ed


SIZE = 1000, 1050
SCHEMES = {"page.png": 1, "page_dark.png": 0}
"""Width and height in pixels; and what `chromium` calls light and dark."""


def main() -> None:
    """Make them, and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="shakespeare")
    options = parser.parse_args()
    if shutil.which("chromium") is None:
        raise SystemExit("chromium is not on the PATH; install it, such as by `apt install chromium`.")
    model = ed.load(options.model)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        made = Path(name)
        figures = [path for path in ed.probe.inspect(model, made / "inspect") if path.suffix == ".png"]
        page = ed.probe.page(model, made / "page.html", prompt="KING", length=48)
        for picture, scheme in SCHEMES.items():
            settings = f"--user-data-dir={made / 'user'}", f"--blink-settings=preferredColorScheme={scheme}"
            look = f"--window-size={SIZE[0]},{SIZE[1]}", "--hide-scrollbars", f"--screenshot={made / picture}"
            command = ["chromium", *FLAGS, *settings, *look, page.as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            figures.append(made / picture)
        options.folder.mkdir(parents=True, exist_ok=True)
        for path in figures:
            print(shutil.copy(path, options.folder / path.name))


if __name__ == "__main__":
    main()

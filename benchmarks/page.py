"""What the page costs: seconds to make, bytes, seconds until a browser shows it, errors in its console.

    python benchmarks/page.py shakespeare 1000 10000

The browser is a headless `chromium` from the PATH; the time to load is the page's own clock, from the start of the
navigation until its script has drawn everything.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import energy_dllm as ed


FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking".split()
CATCH = "<script>window.wrong=[];window.onerror=m=>{wrong.push(m)};console.error=m=>wrong.push(m)</script><style>"
TELL = """<script>const told=document.createElement('pre');told.id='told';
told.textContent=performance.now()+' '+wrong.length+' '+wrong.join('; ');document.body.append(told)</script></html>"""


def opened(file: Path) -> tuple[float, int, str]:
    """Milliseconds until a browser had drawn the page, the number of errors, and what they say."""
    watched = file.with_suffix(".watched.html")
    watched.write_text(file.read_text().replace("<style>", CATCH, 1).replace("</html>", TELL))
    command = ["chromium", *FLAGS, f"--user-data-dir={file.parent / 'user'}", "--dump-dom", watched.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    told = re.search(r'<pre id="told">([\d.]+) (\d+) (.*?)</pre>', dom, re.DOTALL)
    if told is None:
        raise RuntimeError(f"the script of {file} did not come to its end: {dom[-500:]}")
    return float(told[1]), int(told[2]), told[3]


def main(name: str = "shakespeare", *lengths: str) -> None:
    """Print one row a length."""
    if shutil.which("chromium") is None:
        raise SystemExit("chromium is not on the PATH; install it, such as by `apt install chromium`.")
    model = ed.load(name)
    print("tokens  made in s       kB  shown in ms  errors")
    for length in map(int, lengths or ("64", "512")):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            start = time.monotonic()
            file = ed.probe.page(model, Path(folder) / "page.html", length=length)
            made = time.monotonic() - start
            shown, errors, what = opened(file)
            print(
                f"{length:6} {made:10.1f} {file.stat().st_size / 1e3:8.0f} {shown:12.0f} {errors:7} {what}", flush=True
            )


if __name__ == "__main__":
    main(*sys.argv[1:])

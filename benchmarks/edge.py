"""What a model asks of a small machine: bytes of its file, start to first token and to text, computing, peak memory.

    python benchmarks/edge.py shakespeare stories

Every model as float32 and as int8, by fresh processes of `energy-dllm generate`: the first with an empty folder for
compiled programs, the second with what the first has left there. The first moment is what a terminal shows first.
Memory is the largest resident size of the process; seconds of a processor do not depend on what else the machine does.
"""

import argparse
import json
import os
import pty
import subprocess
import sys
import tempfile
import time
from pathlib import Path


COMMAND = [sys.executable, "-m", "energy_dllm"]


def on_a_terminal(command: list[str], folder: str) -> tuple[float, float, float, float]:
    """Seconds to the first moment and to the end, seconds of a processor, and the peak of memory in MB."""
    start = time.monotonic()
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="100", LINES="40", XDG_CACHE_HOME=folder)
        os.execvp(command[0], command)
    seen, first = b"", float("nan")
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # a terminal whose last writer has closed
            break
        if not piece:
            break
        seen += piece
        if first != first and b"sigma" in seen:
            first = time.monotonic() - start
    _, status, used = os.wait4(process, 0)
    if status != 0:
        raise RuntimeError(f"{command} failed: {seen[-500:]!r}")
    return first, time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    print("| model | bytes | run | first moment, s | text, s | processor, s | peak memory, MB |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            small = str(Path(folder) / f"{name}-int8.safetensors")
            subprocess.run([*COMMAND, "export", name, "-o", small, "--int8"], check=True, capture_output=True)
            for kind, model in (("float32", name), ("int8", small)):
                told = subprocess.run([*COMMAND, "info", model, "--size", "--json"], check=True, capture_output=True)
                size = json.loads(told.stdout)["bytes"]["all"]
                for run in ("first", "second"):
                    command = [*COMMAND, "generate", model, "--seed", "0"]
                    first, text, processor, memory = on_a_terminal(command, f"{folder}/{name}-{kind}")
                    print(
                        f"| `{name}`, {kind} | {size:,} | {run} | {first:.1f} | {text:.1f} | {processor:.1f} | "
                        f"{memory:.0f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()

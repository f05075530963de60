"""Seconds before anything happens: the command's help, the import, the first frame, the text.

    python benchmarks/startup.py

Every figure is the median of several fresh processes; imports are compared in one run, alternating.
"""

import os
import pty
import statistics
import subprocess
import sys
import time


REPEATS = 5
BARE = "import jax, equinox, diffrax"
OURS = BARE + "; import energy_dllm as ed; ed.energy, ed.flow, ed.learn, ed.EnergyDLLM, ed.generate, ed.probe"


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one process."""
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def first_frame(command: list[str]) -> float:
    """Seconds until the command, on a terminal, shows the first moment of its passage."""
    start = time.monotonic()
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="100", LINES="40")
        os.execvp(command[0], command)
    seen, shown = b"", None
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # a terminal whose last writer has closed
            break
        if not piece:
            break
        seen += piece
        if shown is None and b"sigma" in seen:
            shown = time.monotonic() - start
    _, status = os.waitpid(process, 0)
    if status != 0 or shown is None:
        raise RuntimeError(f"{command} showed no moment: {seen[-500:]!r}")
    return shown


def main() -> None:
    """Print the table."""
    python = [sys.executable, "-c"]
    cli = [sys.executable, "-m", "energy_dllm"]
    seconds([*python, OURS])  # bytecode and disk cache
    bare, ours, helps = [], [], []
    for _ in range(REPEATS):
        bare.append(seconds([*python, BARE]))
        ours.append(seconds([*python, OURS]))
        helps.append(seconds([*cli, "--help"]))
    text = [seconds([*cli, "generate", "--json", "--seed", "0"]) for _ in range(2)]
    frame = [first_frame([*cli, "generate", "--seed", "0"]) for _ in range(2)]
    print(f"energy-dllm --help                     {statistics.median(helps):6.2f} s")
    print(f"import jax, equinox, diffrax           {statistics.median(bare):6.2f} s")
    print(f"import energy_dllm, all rooms, on top  {statistics.median(ours) - statistics.median(bare):6.2f} s")
    print(f"energy-dllm generate, command to text  {text[-1]:6.2f} s (second run)")
    print(f"energy-dllm generate, to first moment  {frame[-1]:6.2f} s (second run)")


if __name__ == "__main__":
    main()

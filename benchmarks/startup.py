"""Seconds before anything happens: the command's help, the import, the first frame, the text.

    python benchmarks/startup.py

Every figure is the median of several fresh processes; imports are compared in one run, alternating.
"""

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
    print(f"energy-dllm --help                     {statistics.median(helps):6.2f} s")
    print(f"import jax, equinox, diffrax           {statistics.median(bare):6.2f} s")
    print(f"import energy_dllm, all rooms, on top  {statistics.median(ours) - statistics.median(bare):6.2f} s")
    print(f"energy-dllm generate, command to text  {text[-1]:6.2f} s (second run)")


if __name__ == "__main__":
    main()

"""`python -m energy_dllm`, the same as `energy-dllm`."""

import sys


def _run() -> int:
    from ._cli import main

    return main()


if __name__ == "__main__":
    sys.exit(_run())

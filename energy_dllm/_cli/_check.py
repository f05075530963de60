"""`energy-dllm inspect MODEL --check`: the health report, printed."""

import time
from typing import Any

from ._show import emit, note


def health(loaded: Any, model: str, length: int, seed: int, json: bool) -> int:
    """Print the report; 0 if every finding keeps its limit, else 1."""
    from ..probe import check

    start, begun = time.monotonic(), False

    def say(words: str) -> None:
        nonlocal begun
        if not begun:
            begun = True
            note(f"checking {model} on a passage of {length} tokens; every part is compiled first")
        note(f"{time.monotonic() - start:5.1f} s  {words}")

    report = check(loaded, length=length, seed=seed, progress=say)
    if json:
        emit({**report.as_dict(), "length": length, "seed": seed}, model)
    else:
        print(report)
    return 0 if report.passed else 1

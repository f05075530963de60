"""`energy-dllm inspect MODEL --check`: the health report, printed."""

from typing import Any

from ._show import emit


def health(loaded: Any, model: str, length: int, seed: int, json: bool) -> int:
    """Print the report; 0 if every finding keeps its limit, else 1."""
    from .. import probe

    report = probe.check(loaded, length=length, seed=seed)  # pyright: ignore[reportAttributeAccessIssue]
    if json:
        emit({**report.as_dict(), "length": length, "seed": seed}, model)
    else:
        print(report)
    return 0 if report.passed else 1

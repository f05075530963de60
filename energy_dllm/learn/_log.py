"""The record of a training while it runs: `log.jsonl`, and a bar on a terminal."""

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path


class Log:
    """One JSON object a step in `log.jsonl`; lines past the checkpoint that is resumed are dropped."""

    def __init__(self, folder: Path | None, first: int):
        self.path = None if folder is None else folder / "log.jsonl"
        self.first = first

    def __enter__(self):
        if self.path is None:
            return lambda **record: None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            lines = self.path.read_text().splitlines(keepends=True)[: self.first]
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(lines))
            os.replace(temporary, self.path)
        self.file = open(self.path, "a", buffering=1)
        return lambda **record: self.file.write(json.dumps(record) + "\n")

    def __exit__(self, *_):
        if self.path is not None:
            self.file.close()


@contextlib.contextmanager
def bar(show: bool | Callable[[float], object], steps: int, first: int):
    if not isinstance(show, bool):
        yield show
        return
    if not show:
        yield lambda loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    smooth = math.nan
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=steps, completed=first)

        def advance(loss: float) -> None:
            nonlocal smooth
            smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
            bar.update(task, advance=1, description=f"loss {smooth:.3f} nats")

        yield advance

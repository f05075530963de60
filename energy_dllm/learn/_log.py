"""The record of a training while it runs: `log.jsonl`, and a bar on a terminal."""

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from .._files import writing


_BEGIN = '{"step": 1, '


class Log:
    """One JSON object a step in `log.jsonl`; lines past the checkpoint that is resumed are dropped."""

    def __init__(self, folder: Path | None, first: int):
        self.path = None if folder is None else folder / "log.jsonl"
        self.first = first

    def __enter__(self):
        if self.path is None:
            return lambda **record: None
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                lines = self._lines()[: self.first]
                temporary = self.path.with_suffix(".tmp")
                temporary.write_text("".join(lines))
                os.replace(temporary, self.path)
            self.file = open(self.path, "a", buffering=1)
        return self._line

    def _line(self, **record: float) -> None:
        with self._writing():
            self.file.write(json.dumps(record) + "\n")

    def _lines(self) -> list[str]:
        """Those that are there; `ValueError` if the first is none of a training."""
        assert self.path is not None
        lines = self.path.read_text(errors="replace").splitlines(keepends=True) if self.path.is_file() else ["a device"]
        try:
            ours = not lines or {"step", "loss"} <= set(json.loads(lines[0]))
        except (ValueError, TypeError):
            # a training that was killed in its first line
            ours = len(lines) == 1 and _BEGIN.startswith(lines[0][: len(_BEGIN)])
        if not ours:
            raise ValueError(
                f"`directory` {self.path.parent} has a log.jsonl that is of no training, and would be lost; give "
                "another folder, or move that file."
            )
        return lines

    def _writing(self):
        again = "make room, and run the same again to go on from the last checkpoint."
        return writing("directory", None if self.path is None else self.path.parent, again)

    def __exit__(self, *_):
        if self.path is not None:
            with contextlib.suppress(OSError):  # a line that was not written has raised already
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

"""What `train` says while it works: what is compiled, how far it is, how long all that is left will take."""

import itertools
import math
import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ._show import note, spark


EVERY = 30.0
"""Seconds between two lines where no terminal shows a bar."""
POINTS = 24
"""Of a curve, at most."""


class Stages:
    """The steps of several stages as one bar on a terminal, and as a line now and then elsewhere.

    **Arguments:**

    - `stages`: by name the number of steps, and what a step costs beside one of the last stage.
    - `done`: steps of the last stage that were made before.
    """

    def __init__(self, stages: Mapping[str, tuple[int, float]], done: int = 0):
        self.stages, self.name, self.before = dict(stages), "", done
        self.step, self.loss, self.seconds, self.timed = 0, float("nan"), 0.0, 0
        self.losses: list[float] = []
        self.last = self.said = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rest]}"))
        # what is not a terminal is told in lines
        self.bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self.task = self.bar.add_task("", total=sum(n * cost for n, cost in self.stages.values()), rest="")

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def compiling(self, name: str, what: str) -> None:
        """A stage begins, with what takes a while before its first step."""
        self.name, self.step = name, self.before if name == list(self.stages)[-1] else 0
        self.seconds, self.timed, self.last, self.losses = 0.0, 0, time.monotonic(), []
        self.say(f"{name}: compiling the program of one step, {what}")

    def advance(self, loss: float) -> None:
        """A step was made."""
        now = time.monotonic()
        self.losses.append(loss)
        first, self.step = self.timed == 0, self.step + 1
        # the first step is the compiler's
        self.seconds, self.timed = self.seconds + (0.0 if first else now - self.last), self.timed + 1
        self.last, self.loss = now, loss if self.loss != self.loss else 0.98 * self.loss + 0.02 * loss
        if not self.bar.disable:
            done = self._done()
            rest = f"step {self.step} of {self.stages[self.name][0]} · {self._left()}"
            self.bar.update(self.task, completed=done, description=f"{self.name}, loss {self.loss:.3f}", rest=rest)
        elif first or now - self.said > EVERY:
            self.say(f"{self.name}: step {self.step} of {self.stages[self.name][0]}, loss {loss:.3f}, {self._left()}")

    def curve(self) -> str:
        """The losses of this stage since it began here: means of equal parts, drawn between the first and the last."""
        count = min(POINTS, len(self.losses))
        ends = [len(self.losses) * n // count for n in range(count + 1)] if count else []
        parts = [self.losses[a:b] for a, b in itertools.pairwise(ends)]
        means = [sum(part) / len(part) for part in parts]
        if not means or not all(map(math.isfinite, means)):
            return ""
        return f"loss {means[0]:.3f} {spark(means)} {means[-1]:.3f}"

    def say(self, words: str) -> None:
        """A line that stays."""
        self.said = self.last = time.monotonic()
        if self.bar.disable:
            note(words)
        else:
            self.bar.console.print(words, style="dim", highlight=False, markup=False)

    def _done(self) -> float:
        """In steps of the last stage."""
        names = list(self.stages)
        finished = sum(n * cost for n, cost in (self.stages[name] for name in names[: names.index(self.name)]))
        return finished + self.step * self.stages[self.name][1]

    def _left(self) -> str:
        """The time that all stages still take, by the steps of this one; compiling is not foreseen."""
        if self.timed < 2:
            return "time left not known yet"
        names = list(self.stages)
        here = names.index(self.name)
        left = {name: self.stages[name][0] for name in names[here:]}
        left[self.name] -= self.step
        if self.name != names[-1]:
            left[names[-1]] -= self.before
        costs = sum(n * self.stages[name][1] for name, n in left.items())
        seconds = costs * self.seconds / (self.timed - 1) / self.stages[self.name][1]
        return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"

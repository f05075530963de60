"""Counts for Prometheus, in its text format."""

import collections
import threading
from collections.abc import Mapping

from ._engine import Engine


BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Of the histogram of durations, in seconds."""


class Metrics:
    """Requests by path and status, their durations, and what the engine did."""

    def __init__(self, engine: Engine):
        self.engine, self.lock = engine, threading.Lock()
        self.requests: collections.Counter[tuple[str, int]] = collections.Counter()
        self.durations = [0] * (len(BOUNDS) + 1)
        self.seconds, self.tokens, self.pictures, self.running = 0.0, 0, 0, 0

    def seen(self, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        with self.lock:
            self.requests[path, status] += 1
            self.durations[sum(seconds > bound for bound in BOUNDS)] += 1
            self.seconds += seconds

    def text(self) -> str:
        """All of it."""
        lines = []

        def add(name: str, kind: str, about: str, values: Mapping[str, float]) -> None:
            lines.extend([f"# HELP energy_dllm_{name} {about}", f"# TYPE energy_dllm_{name} {kind}"])
            lines.extend(f"energy_dllm_{name}{labels} {value}" for labels, value in values.items())

        with self.lock:
            counts = {f'{{path="{path}",status="{status}"}}': n for (path, status), n in self.requests.items()}
            add("requests_total", "counter", "Requests that were answered.", counts)
            ends = [*map(str, BOUNDS), "+Inf"]
            steps = {f'_bucket{{le="{end}"}}': sum(self.durations[: n + 1]) for n, end in enumerate(ends)}
            steps |= {"_sum": self.seconds, "_count": sum(self.durations)}
            add("request_seconds", "histogram", "How long answers took.", steps)
            add("tokens_total", "counter", "Tokens that were written.", {"": self.tokens})
            add("pictures_total", "counter", "Pictures that were made.", {"": self.pictures})
            add("requests_running", "gauge", "Requests that are being answered.", {"": self.running})
        engine = self.engine
        add("queue", "gauge", "Passages and calls that wait.", {"": len(engine.waiting)})
        add("force_evaluations_total", "counter", "Evaluations of the force.", {"": engine.evaluations})
        batches = {f'{{size="{size}"}}': n for size, n in sorted(engine.batched.items())}
        add("batches_total", "counter", "Descents, and pieces from left to right, by passages at once.", batches)
        add("programs", "gauge", "Programs that are compiled.", {"": len(engine.programs)})
        return "\n".join(lines) + "\n"

"""The threads that compute: passages of one shape together, and everything else one after the other beside them."""

import collections
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import on_device
from .._model import EnergyDLLM
from ..sampling import DEFAULT
from ._errors import Full
from ._passage import PIECE, Page, begin, descend, log_posterior
from ._task import Call, Passage, Shown


FILLED = 0.75
"""Share of a batch that has to be there for the rest to be padded; else a smaller batch is taken."""
Program = tuple[str, int, int]
"""Model, length, number of passages."""


class Engine:
    """A queue, a thread that writes the passages in it, one for all other calls, and one that compiles.

    **Arguments:**

    - `models`: by name.
    - `lengths`: passages are as long as the least of these that holds them: a program each.
    - `batches`: numbers of passages at once: a program each, compiled beside the work when it is first wanted.
    - `queue`: passages and calls that may wait.
    """

    def __init__(
        self,
        models: Mapping[str, EnergyDLLM],
        *,
        lengths: Sequence[int] = (64, 128),
        batches: Sequence[int] = (1, 2, 4, 8),
        queue: int = 64,
    ):
        self.models, self.queue = dict(models), queue
        self.lengths, self.batches = sorted(set(lengths)), sorted({1, *batches})
        self.waiting: list[Passage | Call] = []
        self.changed = threading.Condition()
        self.programs: set[Program] = set()
        self.wanted = [(name, length, 1) for name in models for length in self.lengths]
        self.closing = False
        self.batched: collections.Counter[int] = collections.Counter()
        self.evaluations = 0
        for work in (self._passages, self._calls, self._compile):
            threading.Thread(target=work, daemon=True, name=work.__name__).start()

    @property
    def ready(self) -> bool:
        """Whether a passage can be written at once by every model."""
        return {name for name, *_ in self.programs} == set(self.models)

    def length(self, size: int) -> int | None:
        """The least length that holds so many tokens."""
        return next((length for length in self.lengths if length >= size), None)

    def submit(self, *tasks: Passage | Call, limit: bool = True) -> None:
        """Let these be computed; `Full` if there is no room for all of them, or the engine is closed."""
        with self.changed:
            if self.closing or (limit and len(self.waiting) + len(tasks) > self.queue):
                raise Full
            self.waiting += tasks
            self.changed.notify_all()

    def close(self) -> None:
        """Finish what is computed, and begin nothing new."""
        with self.changed:
            self.closing, left, self.waiting = True, self.waiting, []
            self.changed.notify_all()
        for task in left:
            task.deliver(Full())

    def _passages(self) -> None:
        while True:
            with self.changed:
                while not (batch := self._batch()) and not self.closing:
                    self.changed.wait()
            if not batch:
                return
            try:
                self._write(batch)
            except Exception as error:  # of one batch: those who wait are told, others are not disturbed
                for passage in batch:
                    passage.deliver(error)

    def _calls(self) -> None:
        while True:
            with self.changed:
                while not (calls := [task for task in self.waiting if isinstance(task, Call)]) and not self.closing:
                    self.changed.wait()
                if not calls:
                    return
                self.waiting.remove(calls[0])
            if not calls[0].cancelled:
                try:
                    value = calls[0].function()
                except Exception as error:
                    value = error
                calls[0].deliver(value)

    def _batch(self) -> list[Passage]:
        """Taken off the queue: passages of the shape of the first one that there is a program for."""
        self.waiting = [task for task in self.waiting if not task.cancelled]
        passages = [task for task in self.waiting if isinstance(task, Passage)]
        for shape in dict.fromkeys(passage.shape for passage in passages):
            alike = [passage for passage in passages if passage.shape == shape]
            ready = [size for size in self.batches if (*shape[:2], size) in self.programs]
            self._want((*shape[:2], fitting(len(alike), self.batches)))
            if ready:
                chosen = alike[: fitting(len(alike), ready)]
                self.waiting = [task for task in self.waiting if task not in chosen]
                return chosen
        return []

    def _want(self, program: Program) -> None:
        if program not in self.programs and program not in self.wanted:
            self.wanted.append(program)
            self.changed.notify_all()

    def _compile(self) -> None:
        """Run every program once, on passages of which nothing is known."""
        while True:
            with self.changed:
                while not (self.wanted or self.closing):
                    self.changed.wait()
                if self.closing:
                    return
                program = self.wanted[0]
            error = None
            try:
                self._run(program)
            except Exception as caught:
                error = caught
            with self.changed:
                self.wanted.remove(program)
                tasks = [task for task in self.waiting if isinstance(task, Passage) and task.shape[:2] == program[:2]]
                if error is None:
                    self.programs.add(program)
                elif program[2] == 1:  # without it they would wait for ever
                    self.waiting = [task for task in self.waiting if task not in tasks]
                self.changed.notify_all()
            if error is not None:
                traceback.print_exception(error, file=sys.stderr)
                for task in tasks if program[2] == 1 else ():
                    task.deliver(error)

    def _run(self, program: Program) -> None:
        """The first piece of a descent."""
        name, length, size = program
        model = self.models[name]
        blank = np.zeros((length, model.size), model.energy.vocabulary.codes.dtype)
        ids, known = np.zeros(length, np.int32), np.zeros(length, bool)
        key, steps = jax.random.key(0), DEFAULT.steps
        nothing = Passage(name, ids, known, blank, length, 1.0, key, steps, False, None, lambda _: None)
        pages, clock = pages_of([nothing], size), self._clock(model, steps)
        state = begin(model.energy, pages, on_device(clock[:1])[0])
        jax.block_until_ready(descend(model.energy, pages, state, on_device(clock[: PIECE + 1])))

    def _clock(self, model: EnergyDLLM, steps: int) -> np.ndarray:
        """The noise times of the default sampler, in so many steps."""
        schedule = model.schedule if DEFAULT.schedule is None else DEFAULT.schedule
        return np.asarray(schedule.level(jnp.linspace(0.0, DEFAULT.until, steps + 1)))

    def _write(self, passages: list[Passage]) -> None:
        """The descent of passages of one shape, piece by piece."""
        name, length, steps = passages[0].shape
        model = self.models[name]
        size = next(n for n in self.batches if n >= len(passages) and (name, length, n) in self.programs)
        self.batched[size] += 1
        clock, pieces = self._clock(model, steps), steps // PIECE
        pages = pages_of(passages, size)
        state = begin(model.energy, pages, on_device(clock[:1])[0])
        for piece in range(pieces):
            times = on_device(clock[piece * PIECE : (piece + 1) * PIECE + 1])
            state, found = descend(model.energy, pages, state, times)
            found = jax.tree.map(np.asarray, found)
            self.evaluations += PIECE * sum(not passage.cancelled for passage in passages)
            last = piece + 1 == pieces
            for n, passage in enumerate(passages):
                if passage.cancelled:
                    continue
                moment = jax.tree.map(lambda leaf, n=n: leaf[n], found)
                if not np.isfinite(moment.free_energy):
                    passage.cancelled = True
                    passage.deliver(FloatingPointError("the motion diverged; use more `steps`, or another seed."))
                    continue
                if last and passage.strict is not None:
                    page, here = jax.tree.map(lambda leaf, n=n: leaf[n], (pages, state))
                    log_p = np.asarray(log_posterior(model.energy, page, here))
                    ids = moment.ids.copy()
                    ids[passage.strict.begin : passage.strict.end] = passage.strict.best(
                        np.where(passage.open, log_p, -np.inf)
                    )
                    moment = moment._replace(ids=ids)
                if passage.commit and not last:
                    passage.commit_to(moment.ids, (piece + 1) / pieces)
                stands = passage.size if last else passage.stands
                passage.deliver(Shown(moment, piece + 1, pieces, stands))
            if all(passage.cancelled for passage in passages):
                return
            if not last and any(passage.commit for passage in passages):
                pages = pages_of(passages, size)
        for passage in passages:
            if not passage.cancelled:
                passage.deliver(None)


def fitting(count: int, sizes: Sequence[int]) -> int:
    """The size of a batch for so many passages: the largest that they fill well, at least the smallest."""
    return max((size for size in sizes if size * FILLED <= count), default=sizes[0])


def pages_of(passages: Sequence[Passage], size: int) -> Page:
    """Their arrays on the device, padded to a batch by copies of the first."""
    rows = [*passages, *[passages[0]] * (size - len(passages))]
    stack = lambda leaves, dtype: on_device(np.stack(leaves).astype(dtype))
    dtype = passages[0].b.dtype
    return Page(
        ids=stack([row.ids for row in rows], np.int32),
        known=stack([row.known for row in rows], bool),
        b=stack([row.b for row in rows], dtype),
        temperature=stack([row.temperature for row in rows], dtype),
        key=jnp.stack([row.key for row in rows]),
    )

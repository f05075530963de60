"""The threads that compute: passages of one shape together, and everything else one after the other beside them."""

import collections
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import on_device
from .._model import EnergyDLLM
from ..sampling import Diffusion, default_sampler, descent
from ._errors import Full
from ._lines import Lines, Programs
from ._passage import (
    AHEAD,
    FIRST,
    PIECE,
    Moment,
    Page,
    Written,
    anything,
    begin,
    blank,
    descend,
    keys_of,
    letters,
    log_posterior,
    redraw,
)
from ._task import SETTLED, Budget, Call, Passage, Shown, Way, in_order, pages_of, row


FILLED = 0.75
"""Share of a batch that has to be there for the rest to be padded; else a smaller batch is taken."""
PATIENCE = 60.0
"""Seconds in which what is computed or compiled has to end when the engine is closed."""
RECIPE = descent()
"""The default sampler, whose noise levels and share of tokens that are drawn anew are taken."""
Program = tuple[str, int, Way, int]
"""Model, length, way, number of passages."""


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
        energies: dict[str, Any] = {name: model.energy for name, model in models.items() if 1 in model.blocks}
        self.ordered = {name: Programs(energy) for name, energy in energies.items()}
        first = [self._first(name) for name in models]  # one of every model before others
        self.wanted = [each[n] for n in range(max(map(len, first), default=0)) for each in first if n < len(each)]
        self.lines: dict[tuple[str, int, Way], Lines] = {}
        self.closing = False
        self.threads: list[threading.Thread] = []
        self.batched: collections.Counter[int] = collections.Counter()
        self.evaluations = 0

    def start(self) -> None:
        """Begin to compute."""
        for work in (self._passages, self._calls, self._compile):
            self.threads.append(threading.Thread(target=work, daemon=True, name=work.__name__))
            self.threads[-1].start()

    def _first(self, name: str) -> list[Program]:
        """Those that are compiled at the start: passages alone, in every way that this model has."""
        if places := self.models[name].tokenizer.places:
            return [(name, places, SETTLED, 1), (name, places, 0, 1)]
        return [(name, length, way, 1) for length in self.lengths for way in ((1, 0) if name in self.ordered else (0,))]

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
        end = time.monotonic() + PATIENCE
        for thread in self.threads:  # a process that ends while its compiler runs is aborted
            thread.join(max(0.0, end - time.monotonic()))

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
            ready = [size for size in self.batches if (*shape[:3], size) in self.programs]
            self._want((*shape[:3], fitting(len(alike), self.batches) if ready else 1))
            if ready:
                chosen = alike[: fitting(len(alike), ready)]
                self.waiting = [task for task in self.waiting if task not in chosen]
                return chosen
        return []

    def _joining(self, passages: list[Passage]) -> list[Passage]:
        """Taken off the queue: passages of the shape of these, up to the first of another that could be written."""
        self.waiting, shape = [task for task in self.waiting if not task.cancelled], passages[0].shape
        come = []
        for task in self.waiting:
            if isinstance(task, Passage) and task.shape == shape:
                come.append(task)
            elif isinstance(task, Passage) and any(program[:3] == task.shape[:3] for program in self.programs):
                break
        self._want((*shape[:3], fitting(len(passages) + len(come), self.batches)))
        room = max(size for size in self.batches if (*shape[:3], size) in self.programs) - len(passages)
        self.waiting = [task for task in self.waiting if task not in come[:room]]
        return come[:room]

    def _size(self, passages: list[Passage]) -> int:
        """Of the smallest batch there is a program for."""
        shape = passages[0].shape[:3]
        return next(n for n in self.batches if n >= len(passages) and (*shape, n) in self.programs)

    def _want(self, program: Program) -> None:
        if program not in self.programs and program not in self.wanted:
            self.wanted.append(program)
            self.changed.notify_all()

    def _compile(self) -> None:
        """Run every program once, on passages of which nothing is known; first those that a passage waits for."""
        while True:
            with self.changed:
                while not (self.wanted or self.closing):
                    self.changed.wait()
                if self.closing:
                    return
                waited = {(*task.shape[:3], 1) for task in self.waiting if isinstance(task, Passage)}
                program = next((each for each in self.wanted if each in waited), self.wanted[0])
            error = None
            try:
                self._run(program)
            except Exception as caught:
                error = caught
            with self.changed:
                self.wanted.remove(program)
                tasks = [task for task in self.waiting if isinstance(task, Passage) and task.shape[:3] == program[:3]]
                if error is None:
                    self.programs.add(program)
                elif program[3] == 1:  # without it they would wait for ever
                    self.waiting = [task for task in self.waiting if task not in tasks]
                self.changed.notify_all()
            if error is not None:
                traceback.print_exception(error, file=sys.stderr)
                for task in tasks if program[3] == 1 else ():
                    task.deliver(error)

    def _run(self, program: Program) -> None:
        """All of a short passage of which nothing is known."""
        name, length, way, size = program
        model = self.models[name]
        b = np.zeros((length, model.size), model.energy.vocabulary.codes.dtype)
        ids, known = np.zeros(length, np.int32), np.zeros(length, bool)
        keys = np.asarray(keys_of(np.uint32(0), np.int32(0), np.int32(0)))
        budget = Budget(PIECE, 0 if model.tokenizer.places else 1)
        if way == SETTLED:  # its captions are looked at before
            letters(model, on_device(ids), max(1, model.tokenizer.grids[0][1]))
        last = FIRST + AHEAD if in_order(way) else length
        nothing = Passage(name, ids, known, b, last, 1.0, keys, budget, False, None, way, lambda _: None)
        nothing.dfa = blank(*way, length, model.size) if isinstance(way, tuple) else None
        if isinstance(way, tuple) or way <= 0:
            return self._descent([nothing], size)
        nothing.pattern = anything(way, length, model.size, b.dtype)
        lines = Lines(self.ordered[name])
        lines.hold([nothing], size)
        for _ in ("first", "later"):
            lines.piece()

    def _write(self, passages: list[Passage]) -> None:
        """Passages of one shape, in the smallest batch there is a program for."""
        if in_order(passages[0].way):
            return self._in_order(passages)
        size = self._size(passages)
        self.batched[size] += 1
        self._descent(passages, size)
        for passage in passages:
            if not passage.cancelled:
                passage.deliver(None)

    def _descent(self, passages: list[Passage], size: int) -> None:
        """From noise to text, piece by piece; then the least certain tokens anew, round by round."""
        model, budget, settled = self.models[passages[0].model], passages[0].budget, 0.0
        sampler: Any = Diffusion(steps=budget.steps, since=RECIPE.since, until=RECIPE.until)
        if model.tokenizer.places:
            sampler = default_sampler(model, budget.steps, filling=passages[0].way != SETTLED)
            settled = getattr(sampler.field, "keywords", {}).get("step", 0.0)
        clock = np.asarray(sampler.clock(model.schedule), passages[0].b.dtype)
        pages = pages_of(passages, size)
        state, moments = begin(model.energy, pages, on_device(clock[:1])[0], settled), None
        for start in range(0, budget.steps, PIECE):
            state, found = descend(model.energy, pages, state, on_device(clock[start : start + PIECE + 1]), settled)
            moments = jax.tree.map(np.asarray, found)
            last = start + PIECE == budget.steps
            for n, passage in enumerate(passages):
                moment = row(moments, n)
                if not np.isfinite(moment.free_energy) and not passage.cancelled:
                    passage.cancelled = True
                    passage.deliver(FloatingPointError("the motion diverged; give a larger `budget`, or another seed."))
                if last and (strict := passage.strict) is not None and passage.dfa is None:
                    log_p = np.asarray(log_posterior(model.energy, row(pages, n), row(state, n)))
                    ids, here = moment.ids.copy(), slice(strict.begin, strict.end)
                    ids[here] = strict.best(np.where(passage.open, log_p, -np.inf))
                    moment = moment._replace(ids=ids, log_p=log_p[np.arange(len(ids)), ids])
                self._show(passage, moment, start + PIECE, "descent", np.ones(len(moment.ids), bool))
            self.evaluations += PIECE * len(passages)
            if all(passage.cancelled for passage in passages):
                return
            if any(passage.commit for passage in passages):
                pages = pages_of(passages, size)
        if budget.rounds and moments is not None:
            self._rounds(passages, size, pages, moments)

    def _rounds(self, passages: list[Passage], size: int, pages: Page, moments: Moment) -> None:
        """As the `finish` of `sampling.descent`: a quarter of the tokens is masked, and drawn in rounds."""
        model, budget = self.models[passages[0].model], passages[0].budget
        known = np.asarray(pages.known)
        ids = np.where(known, np.asarray(pages.ids), moments.ids)
        doubt = np.where(known, -np.inf, -moments.log_p)
        count = np.round(RECIPE.redraw * (~known).sum(axis=1)).astype(int)
        rank = np.argsort(np.argsort(-doubt, axis=1, kind="stable"), axis=1)
        there = known | (rank >= count[:, None])
        blank = jnp.stack([model.energy.neutral(known.shape[1])] * size).astype(pages.b.dtype)
        drafts, kept = Written(on_device(ids), on_device(there), blank), there.sum(axis=1)
        keys = jax.random.wrap_key_data(pages.keys[:, 1])
        keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, budget.steps))[1])(keys)
        for number in range(budget.rounds + 1):
            open = ~np.asarray(drafts.known)
            due = kept + (known.shape[1] - kept) * number // budget.rounds - (~open).sum(axis=1)
            now = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            drafts, found = redraw(model.energy, pages, drafts, on_device(due), now)
            drawn = np.asarray(drafts.known)
            # what stands keeps the posterior that it was read from
            pick = lambda new, old, open=open: np.where(open.reshape(open.shape + (1,) * (old.ndim - 2)), new, old)
            moments = moments._replace(
                ids=np.where(drawn, np.asarray(drafts.ids), np.asarray(found.ids)),
                log_p=pick(np.asarray(found.log_p), moments.log_p),
                top=pick(np.asarray(found.top), moments.top),
                top_log_p=pick(np.asarray(found.top_log_p), moments.top_log_p),
                entropy=pick(np.asarray(found.entropy), moments.entropy),
            )
            for n, passage in enumerate(passages):
                self._show(passage, row(moments, n), budget.steps + number + 1, "redraw", drawn[n])
            self.evaluations += len(passages)
            if all(passage.cancelled for passage in passages):
                return

    def _in_order(self, passages: list[Passage]) -> None:
        """From left to right, piece by piece; those that come meanwhile join at the next, those that end leave."""
        shape = passages[0].shape[:3]
        lines = self.lines.pop(shape, None) or Lines(self.ordered[shape[0]])
        while passages:
            with self.changed:
                passages += self._joining(passages)
                size = self._size(passages)
            lines.hold(passages, size)
            self.batched[size] += 1
            for passage, shown, count in lines.piece():
                self.evaluations += count
                if shown is not None:
                    passage.deliver(shown)
                    if shown.final:
                        passage.deliver(None)
                        passages.remove(passage)
            passages[:] = [passage for passage in passages if not passage.cancelled]
        self.lines[shape] = lines  # its arrays are used again

    @staticmethod
    def _show(passage: Passage, moment: Moment, done: int, motion: str, there: np.ndarray) -> None:
        if passage.cancelled:
            return
        budget = passage.budget.evaluations
        if passage.commit and done < budget:
            passage.commit_to(np.asarray(moment.ids), there, done / budget)
        stands = passage.size if done == budget else passage.stands
        passage.deliver(Shown(moment, done, budget, stands, motion))


def fitting(count: int, sizes: Sequence[int]) -> int:
    """The size of a batch for so many passages: the largest that they fill well, at least the smallest."""
    return max((size for size in sizes if size * FILLED <= count), default=sizes[0])

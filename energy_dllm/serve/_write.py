"""Passages as they condense: from the thread that computes to the coroutine that answers."""

import asyncio
import codecs
import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import numpy as np

from ..flow import FORBIDDEN
from ._automaton import BREAK
from ._engine import Engine
from ._errors import APIError
from ._plan import Plan
from ._task import Call, Passage, Shown


class Choice:
    """One answer: its tokens, and how much of its text stands.

    **Arguments:**

    - `plan`: what is to be written.
    - `number`: which of the choices of this plan it is; each has noise of its own.
    - `index`: which of all choices.
    - `stops`: texts at which it ends; they are not part of it.
    """

    def __init__(self, plan: Plan, number: int, index: int, stops: Sequence[str] = ()):
        self.plan, self.number, self.index, self.stops = plan, number, index, [stop for stop in stops if stop]
        size = plan.size
        self.ids, self.known = np.zeros(size, np.int32), np.zeros(size, bool)
        end = size - len(plan.tail)
        for (a, b), ids, known in (
            ((0, len(plan.ids)), plan.ids, plan.known),
            ((end, size), plan.tail, plan.tail_known),
        ):
            self.ids[a:b], self.known[a:b] = ids, known
        self.given, self.fixed = self.known.copy(), self.known.copy()
        # an answer is what is appended; an infill all of it
        self.first, self.last = (len(plan.ids), end) if plan.append else (0, size)
        self.ends_line = plan.pattern is not None and not plan.whole
        self.text, self.reason, self.begin, self.stands = "", None, 0, 0
        self.log_p, self.entropy = np.zeros(size), np.zeros(size)
        self.tops: list[tuple[Any, Any] | None] = [None] * size
        self.sigma, self.free_energy = float("nan"), float("nan")
        self.evaluations, self.earlier, self.window_end = 0, 0, 0

    @property
    def light(self) -> bool:
        """Whether its next window is soon made, or there is none."""
        return self.ended or not (self.plan.pattern or self.plan.avoid)

    @property
    def ended(self) -> bool:
        """Whether there is no window left."""
        return self.reason is not None or bool(self.known.all())

    def next(self, engine: Engine, deliver: Any) -> Passage | None:
        """Its next window, if there is one."""
        if self.ended:
            return None
        done = int(np.argmin(self.known))
        self.begin, self.window_end = self.plan.window(engine.lengths[-1], done)
        return self.plan.passage(engine, self.ids, self.known, self.number, deliver)

    def take(self, shown: Shown) -> str:
        """Take over a moment; returns what is new of the text that stands."""
        here, moment = slice(self.begin, self.window_end), shown.moment
        size = self.window_end - self.begin
        self.stands = self.begin + shown.stands
        final = shown.final
        free, new = ~self.given[here], ~self.given[here] | self.fixed[here]
        self.ids[here][free] = moment.ids[:size][free]
        # tokens of earlier windows keep the probabilities they were drawn with
        self.log_p[here][new], self.entropy[here][new] = moment.log_p[:size][new], moment.entropy[:size][new]
        for i in np.flatnonzero(new[: size if final else shown.stands if shown.in_order else 0]).tolist():
            self.tops[self.begin + i] = (moment.top[i], moment.top_log_p[i])
        self.sigma, self.free_energy = float(moment.sigma), float(moment.free_energy)
        self.evaluations = self.earlier + shown.evaluations
        if final:
            self.known[here] = True
            self.given[here] = True
            self.earlier = self.evaluations
        text = self._grow(final and self.window_end == self.plan.size)
        if self.plan.block:  # of all windows
            end = min(self.stands, self.last) if self.reason is None else self.first + self.shown
            self.free_energy = -float(self.log_p[self.first : end].sum())
        return text

    def _grow(self, whole: bool) -> str:
        """The text up to where it stands, or ends."""
        if self.reason is not None:
            return ""
        standing = min(self.stands, self.last)
        text = self.plan.model.tokenizer.decode(self.ids[self.first : max(self.first, standing)])
        if not whole:  # the rest of a character may come
            text = text.rstrip("\N{REPLACEMENT CHARACTER}")
        ends = [text.find(stop) for stop in (*self.stops, *([BREAK] if self.ends_line else []))]
        found = [end for end in ends if end >= 0]
        if found:
            text, self.reason = text[: min(found)], "stop"
        elif whole:
            self.reason = "stop" if self.ends_line or not self.plan.append else "length"
        else:  # what may be the beginning of a stop does not stand yet
            starts = (stop[:n] for stop in self.stops for n in range(1, min(len(stop), len(text) + 1)))
            held = max((len(start) for start in starts if text.endswith(start)), default=0)
            text = text[: len(text) - held]
        if not text.startswith(self.text):
            text = self.text
        new, self.text = text[len(self.text) :], text
        return new

    def moment(self, shown: Shown) -> dict[str, Any]:
        """What streams beside the text: the tokens of this moment, how certain they are, sigma and free energy."""
        ids = shown.moment.ids[: shown.stands if shown.in_order else self.window_end - self.begin]
        given = self.fixed[self.begin : self.begin + len(ids)]
        ids = np.where(given, self.ids[self.begin : self.begin + len(ids)], ids)
        certainty = np.exp(self.log_p[self.begin : self.begin + len(ids)])
        return {
            "index": self.index,
            "motion": shown.motion,
            "force_evaluations": self.evaluations,
            "budget": self.evaluations - shown.evaluations + shown.budget,
            "begin": self.begin,
            "tokens": self.plan.model.tokenizer.by_token(ids),
            "ids": ids.tolist(),
            "certainty": [round(float(p), 3) for p in certainty],
            "given": given.tolist(),
            "stands": shown.stands,
            "sigma": short(float(shown.moment.sigma)),
            "free_energy": short(self.free_energy),
        }

    def logprobs(self) -> list[dict[str, Any]]:
        """Of every token of the answer: its bytes, log-probability, the likeliest tokens there by their bytes, and how
        many characters of the answer are whole before it."""
        spelt, found = self.plan.model.tokenizer.spelt, []
        here = slice(self.first, self.first + self.shown)
        for i, token, offset in zip(range(here.start, here.stop), spelt(self.ids[here]), self._offsets(), strict=False):
            words, nats = self.tops[i] or (np.zeros(0, int), [])
            # what is excluded is not listed
            likely = [(w, short(float(p))) for w, p in zip(spelt(words), nats, strict=True) if p > FORBIDDEN / 2]
            found.append({"token": token, "logprob": short(float(self.log_p[i])), "top": likely, "offset": offset})
        return found

    def _offsets(self) -> list[int]:
        """Characters that are whole before each token that stands."""
        end = max(self.first, min(self.stands, self.last))
        return offsets(self.plan.model.tokenizer.spelt(self.ids[self.first : end]))

    @property
    def shown(self) -> int:
        """How many tokens of the answer its text has."""
        return sum(offset < len(self.text) for offset in self._offsets())

    @property
    def tokens(self) -> int:
        """How many were written of what is shown, and one for what ended it."""
        end = min(self.stands, self.last)
        end = min(end, self.first + self.shown + 1) if self.reason == "stop" and self.plan.append else end
        return int(np.count_nonzero(~self.fixed[self.first : max(self.first, end)]))


def offsets(spelt: Sequence[bytes]) -> list[int]:
    """Characters that are whole before each of these tokens."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [0, *itertools.accumulate(len(decoder.decode(token)) for token in spelt)][: len(spelt)]


async def written(
    engine: Engine, choices: Sequence[Any], timeout: float, *, moments: bool
) -> AsyncGenerator[tuple[Any, Shown, str], None]:
    """Every moment of every `Choice` or `Drawing`, or of those that cannot end early the last, with its new text;
    `APIError` where that fails.

    Leaving it early (the client is gone, the time is over) cancels what is not yet written.
    """
    if len(choices) > engine.queue:
        fault = (
            f"`n` asks for {len(choices)} passages, and the queue of this server holds {engine.queue}; ask for fewer."
        )
        raise APIError(400, fault, param="n", code="invalid_value")
    loop, arrived = asyncio.get_running_loop(), asyncio.Queue()
    end = loop.time() + timeout
    passages: dict[int, Passage] = {}

    def start(choice: Any) -> Passage | None:
        made = choice.next(engine, lambda item: _call(loop, arrived.put_nowait, (choice, item)))
        if made is not None:
            made.watched = bool(moments or choice.stops or choice.ends_line)
            passages[choice.index] = made
        return made

    async def begin(choice: Any) -> Passage | None:  # an automaton takes its time
        return start(choice) if choice.light else await asyncio.to_thread(start, choice)

    first = [made for choice in choices if (made := await begin(choice)) is not None]
    try:
        engine.submit(*first)
        while passages:
            async with asyncio.timeout_at(end):  # in one task; a stream goes on in another than it was begun in
                choice, item = await arrived.get()
            if loop.time() > end:  # a client that reads slowly
                raise TimeoutError
            if choice.index not in passages:  # it has ended, at a stop; this was on its way
                continue
            if isinstance(item, Exception):
                raise item
            if item is not None:
                yield choice, item, choice.take(item)
                if choice.reason is not None:
                    passages.pop(choice.index).cancelled = True
            else:
                del passages[choice.index]
                later = await begin(choice)
                if later is not None:
                    engine.submit(later, limit=False)
    except TimeoutError:
        raise APIError(504, f"this took longer than {timeout:g} s; ask for less.", code="timeout") from None
    finally:
        for passage in passages.values():
            passage.cancelled = True


async def called(engine: Engine, function: Any, timeout: float) -> Any:
    """The value of a function that the engine computes."""
    loop, done = asyncio.get_running_loop(), asyncio.Queue()
    call = Call(function, lambda item: _call(loop, done.put_nowait, item))
    engine.submit(call)
    try:
        async with asyncio.timeout(timeout):
            value = await done.get()
    except TimeoutError:
        raise APIError(504, f"this took longer than {timeout:g} s; ask for less.", code="timeout") from None
    finally:
        call.cancelled = True
    if isinstance(value, Exception):
        raise value
    return value


def _call(loop: asyncio.AbstractEventLoop, function: Any, item: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, item)
    except RuntimeError:  # the server has stopped
        pass


def short(value: float) -> float | None:
    """With six digits; nothing where it is not finite, which JSON does not have."""
    return float(f"{value:.6g}") if np.isfinite(value) else None

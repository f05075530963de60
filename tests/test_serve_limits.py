"""What the server lets nobody take: time, memory, and the thread that answers; without HTTP where that is enough."""

import asyncio
import time
import types
from typing import Any

import jax
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm.serve import _inside, _sent
from energy_dllm.serve._errors import APIError
from energy_dllm.serve._inside import repaired
from energy_dllm.serve._sent import streamed
from energy_dllm.serve._task import Budget, Passage
from energy_dllm.serve._write import written


def test_a_repair_with_shifts_is_of_a_short_text(monkeypatch):
    """The calls behind it wait meanwhile: it is refused before it is begun."""
    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    engine = ed.serve.application({"toy": model}, lengths=(64, 128)).state.engine
    monkeypatch.setattr(_inside, "repair", lambda *_, **__: pytest.fail("it was begun"))
    for size, shifts in ((97, 1), (49, 2)):
        with pytest.raises(ValueError, match=rf"`shifts` is {shifts} .* {size} tokens; expected at most {size - 1} "):
            repaired(engine, model, "a" * size, 0.1, shifts, True)


class Shown:
    """A choice of which moments are there at once, and no end."""

    index, stops, ends_line, light, reason = 0, (), False, True, None

    def __init__(self, count):
        self.count = count

    def next(self, engine, deliver):
        for n in range(self.count):
            deliver(n)
        ids, keys = np.zeros(2, np.int32), np.zeros((2, 2), np.uint32)
        given = ids, ids > 0, np.zeros((2, 3), np.float32), 2
        return Passage("toy", *given, 1.0, keys, Budget(4, 0), False, None, 0, deliver)

    def take(self, item):
        return str(item)


ENGINE: Any = types.SimpleNamespace(queue=2, submit=lambda *tasks, limit=True: None)


@pytest.mark.parametrize("count", [1, 9])
def test_a_stream_ends_in_time_in_whichever_task_it_goes_on(count):
    """Begun in a task that then ends, as the server does; no more moments come, or the client looks at them late."""

    async def late():
        moments = written(ENGINE, [Shown(count)], 0.05, moments=True)
        assert (await asyncio.ensure_future(anext(moments)))[2] == "0"
        await asyncio.sleep(0.1 if count > 1 else 0)
        await asyncio.wait_for(anext(moments), 5)

    start = time.monotonic()
    with pytest.raises(APIError, match="longer than 0.05 s"):
        asyncio.run(late())
    assert time.monotonic() - start < 4


def test_more_passages_than_the_queue_holds_are_refused():
    """To come back later would not help."""

    async def asked(count):
        return await anext(written(ENGINE, [Shown(1) for _ in range(count)], 5.0, moments=True))

    assert asyncio.run(asked(2))[2] == "0"
    with pytest.raises(APIError, match="`n` asks for 3 passages") as caught:
        asyncio.run(asked(3))
    assert caught.value.status == 400 and caught.value.param == "n"


def test_a_client_that_does_not_read_is_left(monkeypatch):
    monkeypatch.setattr(_sent, "LATE", 0.05)
    closed = []

    async def records():
        try:
            while True:
                yield {}
        finally:
            closed.append(True)

    async def never(*_) -> Any:
        await asyncio.Event().wait()

    async def asked():
        await asyncio.wait_for(streamed(records(), 0.05)({"type": "http"}, never, never), 5)

    asyncio.run(asked())

    async def reads(message):
        if message.get("body"):
            await never()

    async def begun():
        await asyncio.wait_for(streamed(records(), 0.05)({"type": "http"}, never, reads), 5)

    asyncio.run(begun())
    assert closed == [True]

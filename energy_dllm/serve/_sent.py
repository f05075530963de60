"""Server-sent events: one JSON object each, and what went wrong as the last of them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from ._errors import sentence


LATE = 5.0
"""Seconds behind the end of its time in which a client has to take the rest of a stream."""


class _Timely(StreamingResponse):
    """Left when its time is over, although the client does not read what was sent."""

    left: float

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body: Any = self.body_iterator
        try:
            async with asyncio.timeout(self.left):
                await super().__call__(scope, receive, send)
        except TimeoutError:  # the connection is closed
            pass
        finally:
            await body.aclose()


def streamed(records: AsyncGenerator[dict[str, Any], None], timeout: float) -> StreamingResponse:
    """An answer of these records, as they come, within the seconds of `timeout` and a few more."""

    async def events() -> AsyncIterator[str]:
        try:
            async with contextlib.aclosing(records):
                async for record in records:
                    yield _event(record)
        except Exception as error:
            yield _event(sentence(error).body)
        yield "data: [DONE]\n\n"

    made = _Timely(
        events(), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    made.left = timeout + LATE
    return made


def _event(record: dict[str, Any]) -> str:
    kind = f"event: {record['type']}\n" if "type" in record else ""
    return f"{kind}data: {json.dumps(record, ensure_ascii=False, allow_nan=False)}\n\n"

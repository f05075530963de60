"""Server-sent events: one JSON object each, and what went wrong as the last of them."""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from ._errors import sentence


def streamed(records: AsyncGenerator[dict[str, Any], None]) -> StreamingResponse:
    """An answer of these records, as they come."""

    async def events() -> AsyncIterator[str]:
        try:
            async with contextlib.aclosing(records):
                async for record in records:
                    yield _event(record)
        except Exception as error:
            yield _event(sentence(error).body)
        yield "data: [DONE]\n\n"

    return StreamingResponse(
        events(), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


def _event(record: dict[str, Any]) -> str:
    kind = f"event: {record['type']}\n" if "type" in record else ""
    return f"{kind}data: {json.dumps(record, ensure_ascii=False, allow_nan=False)}\n\n"

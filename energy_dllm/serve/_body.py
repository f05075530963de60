"""The body of a request: as much of it as is let in, and what it asks for, as JSON or as a form with files."""

import asyncio
import base64
import json
import re
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request

from ._errors import APIError


BODY = 1 << 20
"""Bytes of a request, at most."""
DROPPED = 16 << 20
"""Bytes of a larger one that are read nevertheless."""
SLOW = 30.0
"""Seconds in which a request has to be there."""
LISTED = 256
"""Faults of a request that are looked at."""
PARTS = 64
"""Of a form, at most."""
FORM = "multipart/form-data"


async def body(request: Request) -> bytes:
    """All of it; `APIError` if it is too large or too slow."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(SLOW):
            async for part in request.stream():
                size += len(part)
                # the rest is read, and dropped: a client that is still sending would not see an answer
                if size > DROPPED:
                    break
                if size <= BODY:
                    parts.append(part)
    except TimeoutError:
        raise APIError(408, f"the request was not there after {SLOW:g} s; send it faster.", code="timeout") from None
    if size > BODY:
        raise APIError(413, f"the request is larger than {BODY:,} bytes; send less.", code="request_too_large")
    return b"".join(parts)


def parsed(schema: type[BaseModel], body: bytes, kind: str) -> Any:
    """What is asked for: JSON, or of a `schema` with files a form where the content type `kind` says so; `APIError`
    that names the argument at fault."""
    fields = form(body, kind) if getattr(schema, "form", False) and kind.lower().startswith(FORM) else None
    try:
        return schema.model_validate_json(body) if fields is None else schema.model_validate_strings(fields)
    except ValidationError as errors:
        found = errors.errors(include_url=False, include_context=False)
    first = found[0]
    if first["type"] == "json_invalid" or not first["loc"]:
        raise APIError(400, f"the body is no such JSON object: {first['msg']}.", code="invalid_json")
    name = str(first["loc"][0])[:60]
    given = TypeAdapter(Any).validate_json(body) if fields is None else fields
    # of what may be of several kinds, the kind that it was nearest to
    alike = [(_place(given, each), each) for each in found[:LISTED] if each["loc"][0] == first["loc"][0]]
    place, first = max(alike, key=lambda each: len(each[0]))
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:60]}" for part in place)[1:]
    if first["type"] in ("extra_forbidden", "none_required"):
        known = f"expected some of {', '.join(schema.model_fields)}"
        fix = known if len(place) == 1 and first["type"] == "extra_forbidden" else "leave it out"
        raise APIError(400, f"`{where}` is not supported here; {fix}.", param=name, code="unknown_parameter")
    if first["type"] == "missing":
        raise APIError(
            400,
            f"`{where}` is missing; /openapi.json says what is expected.",
            param=name,
            code="missing_parameter",
        )
    try:
        given = json.dumps(first["input"], ensure_ascii=False)[:60]
    except (TypeError, ValueError):
        given = "not a number"
    raise APIError(400, f"`{where}` is wrong: {first['msg']}, not {given}.", param=name, code="invalid_value")


def _place(given: Any, error: Any) -> list[str | int]:
    """Where in what was given an error is: the names of the kinds that were tried there are left out."""
    found, missing = [], error["type"] == "missing"
    for n, part in enumerate(error["loc"], 1):
        inside = isinstance(given, list) and isinstance(part, int) or isinstance(given, dict) and part in given
        if inside or missing and n == len(error["loc"]):
            found.append(part)
            given = given[part] if inside else None
    return found


def form(body: bytes, kind: str) -> dict[str, str]:
    """The fields of a form (RFC 7578), files in base64; a name may end with `[]`, as that of a list of one.

    `APIError` if it is none, or a field is given twice.
    """
    found = re.search(r'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', kind)
    mark = b"\r\n--" + (found[1] or found[2]).encode() if found else b""
    start, *parts = (b"\r\n" + body).split(mark, PARTS + 1) if mark else (body,)
    if start or len(parts) < 2 or len(parts) > PARTS or not parts[-1].startswith(b"--"):
        raise APIError(400, "the body is no form whose parts the boundary of its content type divides; or it has more "
                       f"than {PARTS}.", code="invalid_form")  # fmt: skip
    fields: dict[str, str] = {}
    for part in parts[:-1]:
        head, there, content = part.partition(b"\r\n\r\n")
        said = re.search(rb'(?i)^content-disposition:[^\r\n]*?;\s*name="([^"\r\n]{1,60})"([^\r\n]*)', head, re.M)
        if not there or not said:
            raise APIError(400, "a part of the form has no head with the name of its field.", code="invalid_form")
        name, file = said[1].decode("utf-8", "replace").removesuffix("[]"), b"filename" in said[2]
        if name in fields:
            raise APIError(400, f"`{name}` is given twice; expected it once.", param=name, code="invalid_value")
        try:
            fields[name] = base64.b64encode(content).decode() if file else content.decode()
        except UnicodeDecodeError:
            raise APIError(400, f"`{name}` is no text in UTF-8.", param=name, code="invalid_value") from None
    return fields

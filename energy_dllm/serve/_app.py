"""The ASGI application: routes, what is let in, and the shape of the answers."""

import asyncio
import contextlib
import hmac
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


from . import _extra  # noqa: F401  # isort: skip
import numpy as np
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from .._model import EnergyDLLM
from ..memory import TextMemory
from . import _answers as answers, _images as images, _requests as ask
from ._body import body, parsed
from ._engine import Engine
from ._errors import APIError, sentence
from ._metrics import Metrics
from ._openapi import document


PAGE = Path(__file__).with_name("playground.html")
KEY = "ENERGY_DLLM_API_KEY"
"""The environment variable of the key that clients have to give; none if it is empty."""
DOES = {False: "writes text (/v1/completions)", True: "makes pictures (/v1/images/generations)"}
"""What a model is for, and where."""
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
Handler = Callable[["Server", Any, Request], Any]


class Server:
    """What the handlers share."""

    def __init__(self, engine: Engine, memory: TextMemory | None, timeout: float):
        self.engine, self.memory, self.timeout = engine, memory, timeout
        self.metrics, self.created = Metrics(engine), int(time.time())
        self.key = _key(os.environ.get(KEY, ""))

    def model(self, name: str | None, pictures: bool | None = False) -> str:
        """The name of a model that is served and writes text, or makes `pictures` (None: whichever), by default the
        first of them; `APIError` if there is none of it."""
        kinds = {each: bool(model.tokenizer.places) for each, model in self.engine.models.items()}
        if name is None:
            name = next((each for each, kind in kinds.items() if kind == pictures), None)
            if name is None:
                raise APIError(400, f"`model`: this server has none that {DOES[bool(pictures)]}.", param="model")
        if name not in kinds:
            raise APIError(
                404,
                f"`model` is {name[:80]!r}; this server has {', '.join(kinds)}.",
                param="model",
                code="model_not_found",
            )
        if pictures is not None and kinds[name] != pictures:
            fault = f"`model` is {name!r}, which {DOES[not pictures]}; expected one that {DOES[pictures]}."
            raise APIError(400, fault, param="model", code="unsupported_model")
        return name


def application(
    models: Mapping[str, EnergyDLLM],
    *,
    memory: TextMemory | None = None,
    lengths: Sequence[int] = (64, 128),
    batches: Sequence[int] = (1, 2, 4, 8),
    queue: int = 64,
    timeout: float = 300.0,
) -> Starlette:
    """The server as an ASGI application: an OpenAI-compatible API, a playground, and what this library has besides.

    **Arguments:**

    - `models`: by the name that requests give.
    - `memory`: what `/v1/recall` recalls from by default.
    - `lengths`: numbers of tokens that passages are rounded up to, one program each; the largest is the window.
    - `batches`: numbers of passages that are written together, one program each.
    - `queue`: passages that may wait; requests beyond get status 429.
    - `timeout`: seconds after which a request is given up, status 504.

    **Raises:** `ValueError` for no models, or sizes that are not positive; `ImportError` for one that makes pictures
    without pillow.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc \\n"), dim=16, key=jax.random.key(0))
    app = ed.serve.application({"toy": model}, lengths=(16,))
    assert "/v1/completions" in {route.path for route in app.routes}
    ```
    """
    if not models:
        raise ValueError("`models` is empty; expected at least one, such as {'shakespeare': load('shakespeare')}.")
    if any(model.tokenizer.places for model in models.values()):
        images.png(np.zeros((1, 1), np.uint8))  # says at once if what writes them is missing
    for name, sizes, least in (("lengths", lengths, 2), ("batches", batches, 1), ("queue", [queue], 1)):
        if not sizes or min(sizes) < least:
            raise ValueError(f"`{name}` is {sizes}; expected whole numbers of at least {least}.")
    if not 0 < timeout < float("inf"):
        raise ValueError(f"`timeout` is {timeout}; expected a positive number of seconds, such as 300.")
    engine = Engine(models, lengths=lengths, batches=batches, queue=queue)
    server = Server(engine, memory, timeout)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.close()

    posts: dict[str, tuple[type[BaseModel], Handler]] = {
        "/v1/completions": (ask.CompletionRequest, answers.completions),
        "/v1/chat/completions": (ask.ChatRequest, answers.chat),
        "/v1/infill": (ask.InfillRequest, answers.infill),
        "/v1/repair": (ask.RepairRequest, answers.repair),
        "/v1/recall": (ask.RecallRequest, answers.recall),
        "/v1/score": (ask.ScoreRequest, answers.score),
        "/v1/attribution": (ask.AttributionRequest, answers.attribution),
        "/v1/images/generations": (ask.ImageRequest, images.generations),
        "/v1/images/edits": (ask.ImageEditRequest, images.edits),
    }
    described = document({path: schema for path, (schema, _) in posts.items()})
    routes = [Route(path, _post(server, path, *which), methods=["POST"]) for path, which in posts.items()]

    def models_list(name: str | None) -> dict[str, Any]:
        head = {"object": "model", "created": server.created, "owned_by": "energy_dllm"}
        kind = lambda model: images.sizes(model) if model.tokenizer.places else {"blocks": sorted(set(model.blocks))}
        one = lambda each: {"id": each, **head, "energy_dllm": kind(models[each])}
        if name is not None:
            return one(server.model(name, None))
        return {"object": "list", "data": [one(each) for each in models]}

    def health() -> Response:
        ready = engine.ready and not engine.closing
        return JSONResponse({"status": "ok" if ready else "starting"}, 200 if ready else 503)

    page = PAGE.read_text(encoding="utf-8")
    plain = "text/plain; version=0.0.4; charset=utf-8"
    gets: dict[str, tuple[bool, Callable[[Request], Response]]] = {
        "/": (False, lambda _: HTMLResponse(page, headers={"Content-Security-Policy": POLICY})),
        "/health": (False, lambda _: health()),
        "/openapi.json": (False, lambda _: JSONResponse(described)),
        "/metrics": (True, lambda _: PlainTextResponse(server.metrics.text(), media_type=plain)),
        "/v1/models": (True, lambda _: JSONResponse(models_list(None))),
        "/v1/models/{name:path}": (True, lambda request: JSONResponse(models_list(request.path_params["name"]))),
    }
    routes += [Route(path, _get(server, path, *which), methods=["GET"]) for path, which in gets.items()]
    handlers: dict[Any, Any] = {HTTPException: _unknown, Exception: _failed}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.state.engine = engine
    return app


def _get(server: Server, path: str, secret: bool, answer: Callable[[Request], Response]) -> Callable[..., Any]:
    async def handle(request: Request) -> Response:
        start = time.monotonic()
        try:
            if secret:
                _let_in(server, request)
            response = answer(request)
        except APIError as error:
            response = _error(error)
        server.metrics.seen(path, response.status_code, time.monotonic() - start)
        return response

    return handle


def _post(server: Server, path: str, schema: type[BaseModel], answer: Handler) -> Callable[..., Any]:
    async def handle(request: Request) -> Response:
        start = time.monotonic()
        server.metrics.running += 1
        response, streams = None, False
        try:
            response = await _answered(server, request, schema, answer)
            streams = isinstance(response, StreamingResponse)
            if streams:
                response.body_iterator = _counted(server, path, start, response.body_iterator)
            return response
        finally:
            if not streams:
                server.metrics.running -= 1
                server.metrics.seen(path, 499 if response is None else response.status_code, time.monotonic() - start)

    return handle


async def _counted(server: Server, path: str, start: float, events: Any) -> AsyncIterator[Any]:
    status = 499
    try:
        async with contextlib.aclosing(events):
            async for event in events:
                yield event
        status = 200
    finally:
        server.metrics.running -= 1
        server.metrics.seen(path, status, time.monotonic() - start)


async def _answered(server: Server, request: Request, schema: type[BaseModel], answer: Handler) -> Any:
    try:
        _let_in(server, request)
        asked = parsed(schema, await body(request), request.headers.get("content-type", ""))
        work = asyncio.ensure_future(answer(server, asked, request))
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():  # the client has left: nobody would read the answer
                return Response(status_code=499)
            made = work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        return JSONResponse(made) if isinstance(made, dict) else made
    except ClientDisconnect:
        return Response(status_code=499)
    except Exception as error:
        return _error(sentence(error))


def _key(given: str) -> bytes:
    """As it is asked for; `ValueError` for one that no header can carry."""
    key = given.strip()
    if given and not (key and key.isascii() and key.isprintable()):
        raise ValueError(f"`{KEY}` is blank or has characters that are not ASCII; choose another, or leave it empty.")
    return key.encode()


def _let_in(server: Server, request: Request) -> None:
    if not server.key:
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise APIError(
                403,
                f"the page of another site, {origin[:80]}, may not ask this server, which has no key; set {KEY}.",
                code="foreign_origin",
            )
        return
    given = request.headers.get("authorization", "")
    scheme, _, key = given.partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode("utf-8", "replace"), server.key):
        raise APIError(
            401, "the API key is missing or wrong; give it as `Authorization: Bearer KEY`.", code="invalid_api_key"
        )


async def _gone(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(error: APIError) -> JSONResponse:
    headers = {"Retry-After": "1"} if error.status == 429 else {}
    headers |= {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    return JSONResponse(error.body, error.status, headers=headers)


async def _unknown(request: Request, error: HTTPException) -> Response:
    """No such address, or another method."""
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    what = f"{request.method} {request.url.path[:80]}: {error.detail}; /openapi.json says what there is."
    return _error(APIError(error.status_code, what, code=code))


async def _failed(request: Request, error: Exception) -> Response:
    return _error(APIError(500, "the server failed at this request; its log says why.", code="internal_error"))

"""An application that listens, for tests that ask it over HTTP."""

import asyncio
import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import uvicorn
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from energy_dllm.serve._run import listen


class Running:
    """An application in a thread of its own, on a port that is free."""

    def __init__(self, app):
        self.app, self.document = app, None
        self.listening = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        settings = uvicorn.Config(app, log_config=None, log_level="error", http="h11", ws="none", lifespan="on")
        self.server = uvicorn.Server(settings)
        run = lambda: asyncio.run(self.server.serve(sockets=[self.listening]))
        self.thread = threading.Thread(target=run, daemon=True)

    def __enter__(self):
        self.thread.start()
        end = time.monotonic() + 240
        while self.get("/health")[0] != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(60)
        self.listening.close()
        assert not self.thread.is_alive()

    def get(self, path, body=None, key=None):
        """Status and body of an answer, which is what the OpenAPI document says."""
        status, text = self._get(path, body, key)
        if status and path.startswith(("/v1/", "/health")):
            self.document = self.document or json.loads(self._get("/openapi.json", None, None)[1])
            described = described_by(self.document, path, "get" if body is None else "post", status)
            for event in text.removesuffix("data: [DONE]\n\n").split("\n\n")[:-1] or [text]:
                stream = "data: " in event
                conforms(json.loads(event.split("data: ")[-1]), *described["text/event-stream" if stream else JSON])
        return status, text

    def _get(self, path, body, key):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=240) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:  # not yet there
            return 0, ""

    def post(self, path, **body):
        status, text = self.get(path, body)
        assert status == 200, text
        return json.loads(text)


# Run inside the page: what a reader would do, and what came of it.
CATCH = "<script>window.errors=[];window.onerror=m=>{errors.push(m)};console.error=m=>errors.push(m)</script><style>"
BEGIN = """<script>(async () => {
const until = async f => { for (let k = 0; k < 2400 && !f(); k++) await new Promise(r => setTimeout(r, 50)) };
const again = async () => { await until(() => !done); await until(() => done) };
const press = (at, key) =>
  at.dispatchEvent(new KeyboardEvent('keydown', {key, ctrlKey: key == 'Enter', bubbles: true}));
const seen = [];
"""
END = """
const out = document.createElement('pre');
out.id = 'seen'; out.textContent = seen.join(' ') + ' ' + errors.length + errors.join();
document.body.append(out); fetch('/driven/over')})()</script><img src="/driven/wait" alt=""></html>"""


JSON = "application/json"


def described_by(document, path, method, status):
    """The schema of an answer by its content type, and all schemas."""
    schemas = document["components"]["schemas"]
    named = re.sub("^/v1/models/.*", "/v1/models/{name}", path)
    answers = document["paths"].get(named, {}).get(method, {}).get("responses", {})
    default = {"content": {JSON: {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}}  # no such address
    found = answers.get(str(status)) or answers.get("default", default)
    return {kind: (each.get("schema", {}), schemas) for kind, each in found["content"].items()}


def conforms(value, schema, schemas, at="the answer"):
    """`AssertionError` where a value is not what a schema says, or has what it does not name."""
    if "$ref" in schema:
        return conforms(value, schemas[schema["$ref"].split("/")[-1]], schemas, at)
    faults = []
    for each in schema.get("anyOf", ()):
        try:
            return conforms(value, each, schemas, at)
        except AssertionError as fault:
            faults.append(str(fault))
    assert not faults, f"{at} is none of them: {faults}"
    kind = schema.get("type")
    assert kind is None or isinstance(value, KINDS[kind]), f"{at} is {value!r:.80}, no {kind}"
    assert kind in (None, "boolean") or not isinstance(value, bool), f"{at} is {value}, no {kind}"
    assert value in schema.get("enum", [schema.get("const", value)]), f"{at} is {value!r:.80}"
    if kind == "array":
        for n, each in enumerate(value):
            conforms(each, schema.get("items", {}), schemas, f"{at}[{n}]")
    if kind == "object":
        named, others = schema.get("properties"), schema.get("additionalProperties", False)
        assert set(schema.get("required", ())) <= set(value), f"{at} has only {list(value)}"
        for name, each in value.items():
            inner = (named or {}).get(name, others)
            assert inner is not False, f"{at} has {name}, which nothing describes"
            conforms(each, {} if inner is True else inner, schemas, f"{at}.{name}")


KINDS: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "array": list,
    "object": dict,
}  # fmt: skip


def driven(running, script, folder):
    """What a script that is run in the playground has `seen`, and how many errors the page had; in Chromium, which
    loads the page until the script is over."""
    page, over = running.get("/")[1], asyncio.Event()

    async def page_of(_):
        return HTMLResponse(page.replace("<style>", CATCH, 1).replace("</html>", BEGIN + script + END))

    async def wait(_):
        await asyncio.wait_for(over.wait(), 200)
        return PlainTextResponse("")

    async def ended(_):
        over.set()
        return PlainTextResponse("")

    for path, answer in (("/driven", page_of), ("/driven/wait", wait), ("/driven/over", ended)):
        running.app.routes.append(Route(path, answer))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    run = ["chromium", *flags.split(), f"--user-data-dir={folder}", "--dump-dom", f"{running.url}/driven"]
    dom = subprocess.run(run, capture_output=True, text=True, timeout=240).stdout
    seen = re.search('<pre id="seen">(.*?)</pre>', dom)
    assert seen, dom[-3000:]
    return seen[1].strip()


def refused(running: Any, path: str, body: Any, status: int, param: str | None) -> str:
    """The server answers with the error object of the OpenAI API, one sentence that names what is wrong: which."""
    got, text = running.get(path, body)
    assert got == status, text
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["param"] == param, error
    assert "Traceback" not in text
    assert "\n" not in error["message"] and len(error["message"]) > 20
    return error["message"]

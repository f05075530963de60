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
        self.app = app
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
        """Status and body of an answer."""
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

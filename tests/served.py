"""An application that listens, for tests that ask it over HTTP."""

import asyncio
import json
import socket
import threading
import time
import urllib.error
import urllib.request

import uvicorn


class Running:
    """An application in a thread of its own, on a port that is free."""

    def __init__(self, app):
        self.app = app
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=256)
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

"""The server as a process: an address, and an orderly end."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette


GRACE = 30
"""Seconds that answers have to end in, when the server is asked to."""
BACKLOG = 2048
"""Connections that may wait to be taken."""


def serve(app: Starlette, *, host: str = "127.0.0.1", port: int = 8000, ready: Callable[[str], object] = print) -> None:
    """Answer requests until the process is interrupted or terminated; answers that were begun are ended first.

    **Arguments:**

    - `app`: made by `application`.
    - `host`, `port`: where it listens; by default on this machine alone, port 0 for any that is free.
    - `ready`: called with the address once it listens.

    **Raises:** `ValueError` for a port that is none, `OSError` if it cannot listen there.

    **Example:**

    ```text
    ed.serve.serve(ed.serve.application({"shakespeare": ed.load("shakespeare")}))
    ```
    """
    if not 0 <= port < 65536:
        raise ValueError(f"`port` is {port}; expected 1 to 65535, such as 8000, or 0 for any that is free.")
    listening = listen(host, port)
    settings = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        backlog=BACKLOG,
        lifespan="on",
        http="h11",
        ws="none",
    )
    where = f"[{host}]" if ":" in host else host
    with listening:
        ready(f"http://{where}:{listening.getsockname()[1]}")
        asyncio.run(uvicorn.Server(settings).serve(sockets=[listening]))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, whose connections send what is written at once: the pieces of a stream are small, and on a
    connection that is kept open each would wait for the client to acknowledge the one before, 40 ms."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        fault = error.strerror or error
        raise OSError(f"`host` {host} with `port` {port} cannot be used ({fault}); choose another port.") from None
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
    return listening

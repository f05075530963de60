"""A spelling service: a server that mends text over HTTP, and a client that needs nothing but the standard library.

python examples/spelling.py

`POST /v1/repair` takes every character for a possible typo, and answers with the text at rest and its edits. Limits:
the shipped model knows the letters and the language of Shakespeare's plays, in which these lines stand; its answer is
one line at a time; two letters that are missing or too many need `shifts`, which takes longer.
"""

import asyncio
import json
import random
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

import energy_dllm as ed


LINES = (
    "The quality of mercy is not strained",
    "What light through yonder window breaks",
    "Now is the winter of our discontent",
    "If music be the food of love, play on",
    "The lady doth protest too much, methinks",
    "We are such stuff as dreams are made on",
    "Friends, Romans, countrymen, lend me your ears",
    "The course of true love never did run smooth",
)


def mistyped(line: str, rng: random.Random, rate: float = 0.08) -> str:
    """Some letters are others."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return "".join(rng.choice(letters) if c.isalpha() and rng.random() < rate else c for c in line)


@contextmanager
def running(model: ed.EnergyDLLM) -> Iterator[str]:
    """The address of a server, in a thread, as long as it is needed; a service is `energy-dllm serve shakespeare`."""
    app = ed.serve.application({"spelling": model}, lengths=(48,), batches=(1,))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def main(model: ed.EnergyDLLM | None = None, lines: tuple[str, ...] = LINES, seed: int = 0) -> tuple[int, int]:
    """Mend mistyped lines, print them, and return the number of wrong letters before and after."""
    rng, before, after, seconds = random.Random(seed), 0, 0, []
    wrong = lambda one, other: sum(a != b for a, b in zip(one, other, strict=True))
    with running(ed.load("shakespeare") if model is None else model) as address:
        for line in lines:
            typed = mistyped(line, rng)
            body = json.dumps({"text": typed, "rate": 0.08}).encode()
            start = time.monotonic()
            with urllib.request.urlopen(urllib.request.Request(address + "/v1/repair", body), timeout=300) as answer:
                mended = json.loads(answer.read())
            seconds.append(time.monotonic() - start)
            before, after = before + wrong(line, typed), after + wrong(line, mended["text"])
            print(f"{typed}\n    {mended['text']}   {len(mended['edits'])} edits, {seconds[-1]:.2f} s")
    middle = sorted(seconds)[len(seconds) // 2]
    print(f"{before} wrong letters before, {after} after; {middle:.2f} s a line (median)")
    return before, after


if __name__ == "__main__":
    main()

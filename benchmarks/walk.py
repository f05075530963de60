"""How far it is from a prompt to text and from a batch to parameters: files of the package that run, room by room.

    python benchmarks/walk.py

A file counts if one of its functions runs; files that only describe tokens, sizes or codes run too. *Back* are pairs of
files that call each other: a reader has to go back there.
"""

import os
import sys
from collections.abc import Callable

import jax
import numpy as np

import energy_dllm as ed
from energy_dllm import data, energy, flow, learn, sampling  # noqa: F401 - imported before anything is counted


PACKAGE = os.path.dirname(str(ed.__file__)) + os.sep


def walk(job: Callable[[], object]) -> tuple[dict[str, None], set[tuple[str, str]]]:
    """The files whose functions ran, in the order they were first entered, and who called whom."""
    files: dict[str, None] = {}
    calls: set[tuple[str, str]] = set()
    name = lambda frame: frame.f_code.co_filename.removeprefix(PACKAGE)

    def called(frame, event, argument) -> None:
        if not frame.f_code.co_filename.startswith(PACKAGE) or "__module__" in frame.f_code.co_names:  # a class body
            return
        files.setdefault(name(frame))
        before = frame.f_back
        while before is not None and not before.f_code.co_filename.startswith(PACKAGE):
            before = before.f_back
        if before is not None and name(before) != name(frame):
            calls.add((name(before), name(frame)))

    sys.settrace(called)
    try:
        job()
    finally:
        sys.settrace(None)
    return files, calls


def report(title: str, job: Callable[[], object]) -> None:
    """Print the files of each room, and the pairs that call each other."""
    files, calls = walk(job)
    rooms: dict[str, list[str]] = {}
    for file in files:
        room, _, rest = file.partition("/")
        rooms.setdefault(room if rest else "the package", []).append(rest or room)
    print(f"{title}: {len(files)} files")
    for room, inside in rooms.items():
        print(f"  {room} ({len(inside)}): {' '.join(inside)}")
    print("  back:", *sorted(f"{a} {b}" for a, b in calls if a < b and (b, a) in calls), sep="\n    ", flush=True)


def main() -> None:
    """A passage by the default sampler, and two steps of training."""
    model = ed.EnergyDLLM(ed.data.Characters("abcd "), dim=16, depth=2, key=jax.random.key(0))
    corpus = ed.data.Corpus("made up", model.tokenizer, *[np.arange(300, dtype=np.int32) % 4] * 3)
    report("a prompt to text", lambda: ed.generate(model, prompt="ab", length=8, frames=1))
    sizes = {"steps": 2, "length": 8, "batch_size": 2}
    report("a batch to parameters", lambda: ed.fit(model, corpus, ed.learn.Denoising(), **sizes))


if __name__ == "__main__":
    main()

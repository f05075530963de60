"""Which lines of a log are strange: the free energy of a line under a memory of ordinary ones is its score.

python examples/anomaly.py

An ordinary log of a made-up service is stored as it is, without training. Of each new line `TextMemory` says what it
costs under the stored lines and under text that nobody stored, `F`; the score is `F` a character. The new log has
ordinary lines, with times, names and numbers of their own, and faults: messages that never were, fields in the wrong
order, values out of their form, cut lines; beside it the distance to the nearest stored line by `difflib`. Limits: the
log is a toy with eight kinds of line; values are characters here, and one that is too large is hardly seen; a line is
judged alone, not by what came before.
"""

import difflib
import random
import re

import energy_dllm as ed


USERS = "alice bob carol dave erin frank grace heidi".split()
KINDS = (
    "{t} INFO user {u} logged in from 10.0.{a}.{b}",
    "{t} INFO user {u} logged out after {n} s",
    "{t} INFO job {n} started on node {a}",
    "{t} INFO job {n} finished in {b} ms",
    "{t} WARN disk on node {a} is {p} % full",
    "{t} INFO cache hit rate {p} %",
    "{t} INFO request /items/{n} took {b} ms",
    "{t} WARN retry {d} of request /items/{n}",
)
FAULTS = {
    "a new message": lambda line, rng: line[:9] + rng.choice(("ERROR out of memory", "FATAL signal 11", "panic: nil")),
    "order of fields": lambda line, rng: " ".join(line.split()[::-1]),
    "broken values": lambda line, rng: "".join(rng.choice("#?\x00~") if c.isdigit() else c for c in line),
    "a cut line": lambda line, rng: line[: rng.randrange(3, 12)],
    "wrong word": lambda line, rng: line.replace("INFO", "DATA").replace("WARN", "NULL"),
    "a large value": lambda line, rng: re.sub(r"\d+(?=\D*$)", lambda old: old[0] + str(rng.randrange(10, 99)), line),
}


def ordinary(rng: random.Random) -> str:
    """A line of the service on a good day."""
    clock = f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
    numbers = dict(a=rng.randrange(20), b=rng.randrange(900), n=rng.randrange(9999), p=rng.randrange(90), d=1)
    return rng.choice(KINDS).format(t=clock, u=rng.choice(USERS), **numbers)


def auc(ordinary: list[float], strange: list[float]) -> float:
    """The probability that a strange line has the higher score, ties being half."""
    pairs = [(one < other) + 0.5 * (one == other) for one in ordinary for other in strange]
    return sum(pairs) / len(pairs)


def main(stored: int = 200, lines: int = 100, faults: int = 10, seed: int = 0) -> dict[str, float]:
    """Print and return the area under the curve of each kind of fault, and of all."""
    rng = random.Random(seed)
    known = [ordinary(rng) for _ in range(stored)]
    memory = ed.TextMemory(known, tokenizer=ed.data.Characters("\0" + "".join(map(chr, range(32, 127)))))
    score = lambda line: memory.recall(line).free_energy / len(line)
    nearest = lambda line: -max(difflib.SequenceMatcher(None, line, each, autojunk=False).ratio() for each in known)
    usual = [ordinary(rng) for _ in range(lines)]
    strange = {kind: [spoil(ordinary(rng), rng) for _ in range(faults)] for kind, spoil in FAULTS.items()}
    strange["all"] = [line for broken in strange.values() for line in broken]
    fields, distances = ({line: by(line) for line in usual + strange["all"]} for by in (score, nearest))
    area = lambda by, kind: auc([by[line] for line in usual], [by[line] for line in strange[kind]])
    for kind, broken in strange.items():
        print(f"{kind:<16} AUC {area(fields, kind):.3f}, difflib {area(distances, kind):.3f}: {broken[0]!r}")
    return {kind: area(fields, kind) for kind in strange}


if __name__ == "__main__":
    main()

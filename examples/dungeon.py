"""Games: the name of a dungeon and its room, one passage of one energy; every room that is returned can be crossed.

python examples/dungeon.py

A small model is trained for a minute on rooms that are dug at random: a name, then a map of 8 x 7 fields as text, `<`
and `>` its stairs, `$` treasure in vaults, `m` monsters in crypts. An automaton sees to the form (walls around, one of
each stair), as evidence from the first moment on; whether the stairs are joined no automaton of this size can say: that
is looked at, and rooms that cannot be crossed are dropped. Limits: maps are small and dug by a
program that could write them itself; the model has to learn what it does from the maps alone.
"""

import random

import jax

import energy_dllm as ed


WIDE, HIGH = 8, 7
FORM = "(vault|crypt)[a-z]{3}\n#{8}\n(#[#.<>$m]{6}#\n){5}#{8}\n"
STAIRS = "[^<>]*(<[^<>]*>|>[^<>]*<)[^<>]*"
Field = tuple[int, int]


def beside(place: Field) -> list[Field]:
    """The four fields around one."""
    row, column = place
    return [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]


def dug(rng: random.Random) -> str:
    """A name and a room, by a walk from one stair to the other."""
    inside = [(row, column) for row in range(1, HIGH - 1) for column in range(1, WIDE - 1)]
    kind = rng.choice(("vault", "crypt"))
    start, end = rng.sample(inside, 2)
    floor, here = {start}, start
    while here != end or len(floor) < 12:
        here = rng.choice([place for place in beside(here) if place in inside])
        floor.add(here)
    marks = dict.fromkeys(rng.sample(sorted(floor - {start, end}), 2), "$" if kind == "vault" else "m")
    marks |= {start: "<", end: ">"}
    draw = lambda place: marks.get(place, "." if place in floor else "#")
    rows = ["".join(draw((row, column)) for column in range(WIDE)) for row in range(HIGH)]
    name = kind + rng.choice("bdgkmr") + rng.choice("aou") + rng.choice("lnrst")
    return "\n".join([name, *rows, ""])


def crossed(room: str) -> bool:
    """Whether a way leads from one stair to the other."""
    fields = {(r, c): mark for r, row in enumerate(room.splitlines()[1:]) for c, mark in enumerate(row) if mark != "#"}
    seen = edge = {place for place, mark in fields.items() if mark == "<"}
    while edge:
        edge = {place for old in edge for place in beside(old) if place in fields} - seen
        seen = seen | edge
    return any(fields[place] == ">" for place in seen)


def main(rooms: int = 2000, steps: int = 400, samples: int = 24, seed: int = 0, dim: int = 64) -> list[str]:
    """Train, draw, and return the rooms that can be crossed; print how many could."""
    rng = random.Random(seed)
    text = "".join(dug(rng) for _ in range(rooms))
    letters = ed.data.Characters.from_text(text)
    ids = letters.encode(text)
    corpus = ed.data.Corpus("dungeons", letters, ids, ids[:0], ids[:0])
    model = ed.EnergyDLLM(letters, dim=dim, reach=WIDE + 2, key=jax.random.key(seed))
    length = 9 + HIGH * (WIDE + 1)
    model = ed.fit(model, corpus, ed.learn.Denoising(), steps=steps, length=length, seed=seed)
    form = ed.flow.Matching(FORM, model.tokenizer, length=length)
    stairs = ed.flow.Matching(STAIRS, model.tokenizer, length=length)
    made = ed.generate(model, length=length, samples=samples, evidence=form + stairs, seed=seed).texts
    kept = [room for room in made if crossed(room)]
    fits = sum(("$" in room) == ("vault" in room) and ("m" in room[9:]) == ("crypt" in room) for room in made)
    print(*kept[:3], sep="\n")
    print(f"{len(kept)} of {samples} can be crossed and are kept; {fits} have what their name says and nothing else")
    return kept


if __name__ == "__main__":
    main()

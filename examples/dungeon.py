"""Games: the name of a dungeon and its room, one passage of one energy; every room that is kept can be crossed.

python examples/dungeon.py

A small model is trained for a minute on rooms that are dug at random: a name, then a map of 8 x 7 fields as text, `<`
and `>` its stairs, two treasures `$` in a vault, two monsters `m` in a crypt. Automata see to the form (walls around,
one of each stair, what the name says), as evidence from the first moment on; whether a way joins the stairs is looked
at, and rooms that cannot be crossed are dropped. Beside it a model that has learned nothing, under the same automata.
Limits: maps are small, what was learned does not make them crossed more often (21 of 24, without learning 23), and the
program that digs them writes better ones.
"""

import random

import jax

import energy_dllm as ed


WIDE, HIGH = 8, 7
WALL = "#" * WIDE + "\n"
INSIDE = "(#[#.<>{}]{{6}}#\n){{5}}"
FORM = f"(vault[a-z]{{3}}\n{WALL}{INSIDE.format('$')}|crypt[a-z]{{3}}\n{WALL}{INSIDE.format('m')}){WALL}"
STAIRS = "[^<>]*(<[^<>]*>|>[^<>]*<)[^<>]*"
MARKS = "[^\n]*\n[^$m]*[$m][^$m]*[$m][^$m]*"
LENGTH = len("vault") + 3 + 1 + HIGH * (WIDE + 1)


def beside(row: int, column: int) -> list[tuple[int, int]]:
    """The four fields around one."""
    return [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]


def dug(rng: random.Random) -> str:
    """A name and a room, by a walk from one stair to the other."""
    inside = [(row, column) for row in range(1, HIGH - 1) for column in range(1, WIDE - 1)]
    kind, (start, end) = rng.choice(("vault", "crypt")), rng.sample(inside, 2)
    floor, here = {start}, start
    while here != end or len(floor) < 12:
        here = rng.choice([place for place in beside(*here) if place in inside])
        floor.add(here)
    marks = dict.fromkeys(rng.sample(sorted(floor - {start, end}), 2), "$" if kind == "vault" else "m")
    marks |= {start: "<", end: ">"}
    draw = lambda row, column: marks.get((row, column), "." if (row, column) in floor else "#")
    name = kind + rng.choice("bdgkmr") + rng.choice("aou") + rng.choice("lnrst")
    return "\n".join([name, *("".join(draw(r, c) for c in range(WIDE)) for r in range(HIGH)), ""])


def crossed(room: str) -> bool:
    """Whether a way leads from one stair to the other."""
    fields = {(r, c): mark for r, row in enumerate(room.splitlines()[1:]) for c, mark in enumerate(row) if mark != "#"}
    seen = edge = {place for place, mark in fields.items() if mark == "<"}
    while edge:
        edge = {place for old in edge for place in beside(*old) if place in fields} - seen
        seen = seen | edge
    return any(fields[place] == ">" for place in seen)


def fresh(seed: int = 0, dim: int = 64) -> ed.EnergyDLLM:
    """A model that has learned nothing; its convolution reaches the rows above and below."""
    letters = ed.data.Characters.from_text("".join(dug(random.Random(n)) for n in range(300)))
    return ed.EnergyDLLM(letters, dim=dim, reach=WIDE + 2, key=jax.random.key(seed))


def trained(model: ed.EnergyDLLM, rooms: int = 2000, steps: int = 400, seed: int = 0) -> ed.EnergyDLLM:
    """It, when it has seen so many rooms."""
    rng = random.Random(seed)
    ids = model.tokenizer.encode("".join(dug(rng) for _ in range(rooms)))
    corpus = ed.data.Corpus("dungeons", model.tokenizer, ids, ids[:0], ids[:0])
    return ed.fit(model, corpus, ed.learn.Denoising(), steps=steps, length=LENGTH, seed=seed)


def main(model: ed.EnergyDLLM | None = None, samples: int = 24, seed: int = 0) -> list[list[str]]:
    """Print and return the rooms that can be crossed, of a model that has learned nothing and of a trained one."""
    blank, kept = fresh(seed) if model is None else model, []
    form, stairs, marks = (ed.flow.Matching(each, blank.tokenizer, length=LENGTH) for each in (FORM, STAIRS, MARKS))
    for which in (blank, trained(blank, seed=seed)):
        made = ed.generate(which, length=LENGTH, samples=samples, evidence=form + stairs + marks, seed=seed)
        kept.append([room for room in made.texts if crossed(room)])
    print(*kept[1][:3], f"{len(kept[1])} of {samples} can be crossed, without learning {len(kept[0])}", sep="\n")
    return kept


if __name__ == "__main__":
    main()

"""The training of every model in these benchmarks: a long first part, then a short second one.

For the energy model the second part looks at late times only (`Denoising.late`). Twins get the same windows and the
same number of steps; their objective stays what it was.
"""

import json
from pathlib import Path

import equinox as eqx

import energy_dllm as ed


SHARE = 0.15
LEARNING_RATE = 2e-3


def train(
    model: eqx.Module,
    corpus: ed.data.Corpus,
    objective: ed.learn.AbstractObjective,
    *,
    steps: int,
    directory: Path,
    learning_rate: float,
    seed: int = 0,
    until: int | None = None,
    settling: int | None = None,
    **sizes: int,
):
    """The trained model; `steps` in the first part (or only `until`), `settling` in the second, by default `SHARE` of
    those. Resumes where it was stopped."""
    settings = dict(learning_rate=learning_rate, seed=seed, until=until, directory=directory, **sizes)
    model = ed.fit(model, corpus, objective, steps=steps, **settings)
    if isinstance(objective, ed.learn.Denoising):
        objective = objective.late()
    return ed.fit(
        model,
        corpus,
        objective,
        steps=round(SHARE * steps) if settling is None else settling,
        learning_rate=LEARNING_RATE,
        average=0.99,
        seed=seed + 1,
        directory=directory / "settled",
        **sizes,
    )


def seconds(directory: Path) -> float:
    """Wall-clock seconds that both parts took, over all processes that took part."""
    total = 0.0
    for log in (directory / "log.jsonl", directory / "settled" / "log.jsonl"):
        last = 0.0
        for line in log.read_text().splitlines():
            now = json.loads(line)["seconds"]
            total += now - last if now >= last else now
            last = now
    return total

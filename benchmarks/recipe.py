"""The training of every model in these benchmarks; that of the energy begins with parts in which its vocabulary reads.

Pretraining is exact and costs a hundredth of a relaxation. Its tokens count as seen: where budgets are compared, twins
get the same windows in the same order, and the energy reads those it is then trained on (`pretraining=0`).
"""

import json
import time
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp

import energy_dllm as ed


def train(
    model: eqx.Module,
    corpus: ed.data.Corpus,
    objective: ed.learn.AbstractObjective,
    *,
    steps: int,
    batch_size: int,
    directory: Path,
    learning_rate: float,
    pretraining: int = 0,
    pretraining_batch: int = 32,
    growing: bool = False,
    seed: int = 0,
    until: int | None = None,
    length: int = 64,
):
    """The trained model; `pretraining` batches first, then `steps` (or only `until`). Resumes where it was stopped.

    With `growing` the vocabulary is grown from the training text before all else.
    """
    if growing:
        model = grown(model, corpus, directory, seed=seed)
    if pretraining:
        first = dict(steps=pretraining, batch_size=pretraining_batch, learning_rate=learning_rate, average=0.99)
        folder = directory / "pretraining"
        model = ed.fit(
            model, corpus, ed.learn.MaximumLikelihood(), **first, length=length, seed=seed + 1, directory=folder
        )
    # smaller steps, since the vocabulary is pretrained
    optimizer = ed.learn.default_optimizer(learning_rate, steps, tables=1.0) if growing or pretraining else None
    settings = dict(steps=steps, batch_size=batch_size, learning_rate=learning_rate, optimizer=optimizer, until=until)
    return ed.fit(model, corpus, objective, **settings, length=length, seed=seed, directory=directory)


def sizes_of(init: str | None, *, shift: bool, **sizes: int) -> dict:
    """What a model is made of: its sizes, or the energy and schedule of the one that a training goes on from."""
    if init is None:
        return {**sizes, "shift": shift}
    first = ed.load(init)
    found = {name: getattr(first, name) for name in ("energy", "schedule", "steps", "step")}
    if shift and not first.energy.network.synapses["blocks"].shift:
        found["energy"] = shifted(first.energy)
    return found


def shifted(energy: ed.energy.FreeEnergy) -> ed.energy.FreeEnergy:
    """The energy with a shifted read-out, to train on from: every row stands one place before, so that all it reads is
    one place further ahead; the start begins as what is known of an unknown token."""
    stack = energy.network.synapses["blocks"]
    ahead = lambda rows, first: jnp.concatenate([first, rows[..., :-1, :]], axis=-2)
    for n, block in enumerate(stack.blocks):
        bias, kernel = block["attention"].bias.T, block["convolution"].kernel
        moved = ahead(bias, bias[:1]).T, ahead(kernel, jnp.zeros_like(kernel[:1]))
        where = lambda stack, n=n: (stack.blocks[n]["attention"].bias, stack.blocks[n]["convolution"].kernel)
        stack = eqx.tree_at(where, stack, moved)
    none = lambda leaf: leaf is None
    stack = eqx.tree_at(lambda stack: stack.start, stack, stack.background, is_leaf=none)
    return eqx.tree_at(lambda energy: energy.network.synapses["blocks"], energy, stack)


def before(init: str | None) -> dict:
    """Of the model that a training went on from, and of those before it: how they were trained, for the notes."""
    if init is None:
        return {}
    notes = ed.learn.notes(init)
    return {"before": [*notes.get("before", []), {name: notes[name] for name in ("command", "steps", "seconds")}]}


def in_blocks(model: ed.EnergyDLLM, ids, **settings) -> dict[str, dict[str, float]]:
    """The bound in each of the blocks that a model reads in, besides the whole."""
    found = {}
    for block in sorted(set(model.blocks) - {0}):
        score = ed.evaluate(model, ids, **settings, curves=False, block=block)
        found[str(block)] = {"bits_per_char": score.masked_nelbo_bits_per_char, "error": score.standard_error}
    return found


def grown(model: ed.EnergyDLLM, corpus: ed.data.Corpus, directory: Path, *, seed: int) -> ed.EnergyDLLM:
    """The model with a vocabulary grown from the training text; kept on disk, with the seconds it took."""
    path, log = directory / "growing" / "model.safetensors", directory / "growing" / "log.jsonl"
    if path.exists():
        return ed.load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    vocabulary = ed.learn.fit_split_merge(model.energy.vocabulary, corpus.train, seed=seed)
    log.write_text(json.dumps({"seconds": time.monotonic() - start}) + "\n")
    model = eqx.tree_at(lambda m: m.energy.vocabulary, model, vocabulary)
    ed.save(path, model)
    return model


def seconds(directory: Path) -> float:
    """Wall-clock seconds that all parts took, over all processes that took part."""
    total = 0.0
    for part in ("growing", "pretraining", "."):
        log = directory / part / "log.jsonl"
        last = 0.0
        for line in log.read_text().splitlines() if log.exists() else ():
            now = json.loads(line)["seconds"]
            total += now - last if now >= last else now
            last = now
    return total

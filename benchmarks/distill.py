"""A flow map of the shipped model: trained, checked against the ODE it imitates, and its text judged.

    python benchmarks/distill.py train shakespeare ../shared/data/shakespeare_plays/plays.md.xz
    python benchmarks/distill.py table shakespeare ../shared/data/shakespeare_plays/plays.md.xz
    python benchmarks/distill.py table shakespeare ../shared/data/shakespeare_plays/plays.md.xz --draw

`train` resumes where it was stopped. `table` starts all rows at the same noise: `agreement` is the share of tokens
that a fine path of the ODE (`--reference` Euler steps) ends at as well, `distance` the root mean square of the
difference of `x`. Judge and entropy as in `writing.py`; every passage is read once more by the energy at its end.
"""

import argparse
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from judge import judge_of_plays, symbol_entropy
from train_shakespeare import corpus_of_plays

import energy_dllm as ed


def train(options: argparse.Namespace) -> None:
    """The map, into `--out`."""
    corpus, _ = corpus_of_plays(Path(options.text))
    teacher = ed.load(options.model)
    jumps = ed.learn.FlowMap(teacher.energy, dim=options.dim, depth=options.depth, key=jax.random.key(options.seed))
    objective = ed.learn.Distilling(teacher, taught=options.taught, steps=options.relaxation)
    sizes = dict(steps=options.steps, length=options.length, batch_size=options.batch_size)
    jumps = ed.fit(
        jumps,
        corpus,
        objective,
        directory=options.out,
        learning_rate=options.learning_rate,
        seed=options.seed,
        progress=True,
        **sizes,
    )
    size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(jumps.trunk, eqx.is_inexact_array)))
    ed.save(options.out / "flow_map.safetensors", jumps, notes=sizes | {"parameters": size})
    print(f"{size:,} parameters, {options.out / 'flow_map.safetensors'}")


def table(options: argparse.Namespace) -> None:
    """Jumps of the map beside Euler steps of the ODE, from the same noise."""
    model = ed.load(options.model)
    jumps = ed.flow.DDIM(average=ed.load(options.out / "flow_map.safetensors"))
    judge, _ = judge_of_plays(Path(options.text), options.length)
    keys = jax.random.split(jax.random.key(options.seed), options.samples)
    start = model.energy.denoised(model.energy.neutral(options.length), jnp.zeros((options.length, model.size)))
    field = ed.flow.ProbabilityFlow(model.energy, steps=options.relaxation or model.steps, step=model.step)

    @eqx.filter_jit
    def end(solver, levels, draw):
        """The likeliest token at every place; or, where noise is left, all drawn together from what it leaves open."""

        def one(key):
            x = start + jnp.exp(-levels[0]) * jax.random.normal(key, start.shape)
            path = ed.solve(field, x, t0=levels[0], t1=levels[-1], levels=levels, solver=solver)
            b = field.evidence(levels[-1], path.final).field(model.energy.vocabulary.codes)
            y = field.hidden(levels[-1], path.final)
            if not draw:
                return path.final, model.energy.logits(y, b).argmax(-1), path.force_evaluations
            ids = model.energy.sample(y, b, key=jax.random.fold_in(key, 1))
            return path.final, ids, path.force_evaluations + field.force_evaluations

        return jax.lax.map(one, keys, batch_size=8)

    def row(name, steps, solver, until=1.0):
        x, ids, cost = end(solver, model.schedule.level(jnp.linspace(0.0, until, steps + 1)), until < 1)
        texts = [model.decode(np.asarray(line)) for line in ids]
        bits = np.array([judge.bits_per_char(text) for text in texts])
        error, same = float(jnp.sqrt(jnp.mean((x - reference[0]) ** 2))), float(jnp.mean(ids == reference[1]))
        numbers = f"{same:.3f} | {error:.3f} | {bits.mean():.2f} +- {bits.std(ddof=1) / len(bits) ** 0.5:.2f}"
        print(f"| {name} | {int(cost[0])} | {numbers} | {symbol_entropy(texts):.2f} |", flush=True)
        return texts

    reference = end(diffrax.Euler(), model.schedule.levels(options.reference), False)
    print("| path | evaluations | agreement | distance | judged bits/char | entropy, bits |\n|---|---|---|---|---|---|")
    row(f"ODE, {options.reference} Euler steps", options.reference, diffrax.Euler())
    if options.draw:
        for until in options.until:
            noise = float(jnp.exp(-model.schedule.level(jnp.asarray(until))))
            for steps in options.evaluations:
                row(f"flow map, {steps}, to a noise of {noise:.2f}, and drawn", steps, jumps, until)
        return
    shown = {}
    for steps in options.evaluations:
        shown[steps] = row(f"flow map, {steps}", steps, jumps)
        row(f"ODE, {steps} steps of DDIM", steps, ed.flow.DDIM())
        row(f"ODE, {steps} Euler steps", steps, diffrax.Euler())
    for steps, texts in shown.items():
        print(f"\n{steps}:", *(repr(text) for text in texts[:3]), sep="\n")


def main() -> None:
    """Parse, then train or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["train", "table"])
    parser.add_argument("model", nargs="?", default="shakespeare")
    parser.add_argument("text", nargs="?", default="../shared/data/shakespeare_plays/plays.md.xz")
    parser.add_argument("--out", type=Path, default=Path("runs/distill"))
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=6e-3)
    parser.add_argument("--taught", type=float, default=0.125)
    parser.add_argument("--relaxation", type=int, help="steps of every evaluation of the ODE, else those of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--reference", type=int, default=128)
    parser.add_argument("--evaluations", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--draw", action="store_true", help="stop where noise is left, and draw the tokens together")
    parser.add_argument("--until", type=float, nargs="*", default=[0.25, 0.5, 0.75], help="shares of the schedule")
    options = parser.parse_args()
    {"train": train, "table": table}[options.job](options)


if __name__ == "__main__":
    main()

"""Samples under a judge: rest and joint flow, at equal force evaluations, with and without churn.

    python benchmarks/samples.py shakespeare ../shared/data/shakespeare_plays/plays.md.xz --out runs/samples.json

Judged bits per character are those of a character 5-gram model of the training plays; the symbol entropy of all samples
beside it shows collapse. Real text of the held-out test play is judged by the same judge.
"""

import argparse
import functools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from judge import judge_of_plays, symbol_entropy

import energy_dllm as ed


def motions(model: ed.EnergyDLLM, evaluations: int):
    """Motions that spend so many force evaluations, by name, with the steps through the noise schedule."""
    yield "rest", evaluations // 8, functools.partial(ed.flow.ProbabilityFlow, steps=8, step=model.step)
    # the largest step of the hidden clock that is stable, whatever the number of steps
    rate = 1.0 / float(jnp.max(jnp.diff(model.schedule.levels(evaluations))))
    yield "joint", evaluations, functools.partial(ed.flow.JointFlow, rate=rate)


def settled(model: ed.EnergyDLLM, plan: str):
    """The motion at rest of so many noise levels and relaxation steps, `24x24` say."""
    levels, steps = map(int, plan.split("x"))
    yield f"rest {plan}", levels, functools.partial(ed.flow.ProbabilityFlow, steps=steps, step=model.step)


def main() -> None:
    """Sample, judge, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("plays", type=Path)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, nargs="*", default=[16, 64, 256])
    parser.add_argument("--churn", type=float, nargs="*", default=[0.0, 0.5])
    parser.add_argument("--rest", nargs="*", help="instead: noise levels x relaxation steps at rest, such as 24x24")
    parser.add_argument("--out", type=Path, default=Path("runs/samples.json"))
    options = parser.parse_args()
    model = ed.load(options.model)
    judge, real = judge_of_plays(options.plays, options.length)
    rows = [real]
    print(rows[0], flush=True)
    if options.rest:
        plans = [settled(model, plan) for plan in options.rest]
        options.churn = [0.0]
    else:
        plans = [motions(model, evaluations) for evaluations in options.evaluations]
    for plan in plans:
        for name, steps, field in plan:
            for churn in options.churn:
                made = ed.generate(
                    model,
                    length=options.length,
                    samples=options.samples,
                    sampler=ed.sampling.Diffusion(steps=steps, field=field, churn=churn),
                    frames=1,
                    seed=options.seed,
                )
                bits = [judge.bits_per_char(text) for text in made.texts]
                rows.append(
                    dict(
                        motion=name,
                        churn=churn,
                        force_evaluations=int(made.force_evaluations[0]),
                        judged=float(np.mean(bits)),
                        standard_error=float(np.std(bits, ddof=1) / np.sqrt(len(bits))),
                        entropy=symbol_entropy(made.texts),
                        free_energy=float(made.free_energy[:, -1].mean()),
                        example=made.texts[0],
                    )
                )
                print(rows[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1))
    print("| motion | churn | force evaluations | judged bits/char | symbol entropy, bits |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['motion']} | {row.get('churn', '')} | {row.get('force_evaluations', '')} | "
            f"{row['judged']:.2f} | {row['entropy']:.2f} |"
        )


if __name__ == "__main__":
    main()
